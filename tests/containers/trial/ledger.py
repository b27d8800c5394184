"""The ledger of a trial: what was accepted, what the jobs did and what is on record, and where they differ. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a job wrote down: that this attempt began in this container, or that it is done."""

    job: str
    attempt: int
    host: str
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of some jobs: the answers by number, states and attempts by job, and the effects."""

    answered: Mapping[int, Collection[str]]
    states: Mapping[str, str]
    attempts: Sequence[tuple[str, int, str]]
    effects: Sequence[Effect]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The count; `cut` are runs that began and never got done, outside of the containers that were killed."""

    accepted: int
    ends: Mapping[str, int] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    cut_by_kill: int = 0
    lost: Sequence[str] = ()
    duplicate_keys: Sequence[int] = ()
    cut: Sequence[str] = ()
    done_twice: Sequence[str] = ()
    """Jobs that got done again although nobody killed the container in which they were done first."""

    @property
    def breaches(self) -> list[str]:
        """Everything that was not as promised."""
        return [
            *(f"lost: {job}" for job in self.lost),
            *(f"two jobs for one key: {number}" for number in self.duplicate_keys),
            *(f"a run that nobody killed was cut off: {run}" for run in self.cut),
            *(f"done twice: {job}" for job in self.done_twice),
            *(f"{count} jobs ended as {state}" for state, count in self.ends.items() if state != "succeeded"),
        ]

    @property
    def lines(self) -> list[str]:
        """The ledger for people."""
        return [
            f"accepted          {self.accepted}",
            f"ended             {_counts(self.ends)}",
            f"attempts          {_counts(self.attempts)}",
            f"lost              {len(self.lost)}",
            f"duplicate keys    {len(self.duplicate_keys)}",
            f"runs cut by kills {self.cut_by_kill}",
            f"runs cut by scale-in or replacement {len(self.cut)}",
            f"done twice        {len(self.done_twice)}",
        ]


def judge(evidence: Evidence, killed_hosts: Collection[str]) -> Ledger:
    """Compare all sides once everything has ended; a host name is the beginning of a container's id."""
    accepted = {job for jobs in evidence.answered.values() for job in jobs}
    done = {(one.job, one.attempt): one.host for one in evidence.effects if one.done}
    begun = {(one.job, one.attempt): one.host for one in evidence.effects if not one.done}
    unfinished = {run: host for run, host in begun.items() if run not in done and run[0] in accepted}
    # What was done and not yet on record when its container was killed is rightly done again.
    times = Counter(job for (job, _), host in done.items() if host not in killed_hosts)
    return Ledger(
        accepted=len(accepted),
        ends=Counter(evidence.states[job] for job in accepted if job in evidence.states),
        attempts=Counter(ended for job, _, ended in evidence.attempts if job in accepted),
        cut_by_kill=sum(host in killed_hosts for host in unfinished.values()),
        lost=sorted(job for job in accepted if evidence.states.get(job) not in _ENDED),
        duplicate_keys=sorted(number for number, jobs in evidence.answered.items() if len(jobs) > 1),
        cut=sorted(
            f"{job} attempt {attempt}" for (job, attempt), host in unfinished.items() if host not in killed_hosts
        ),
        done_twice=sorted(job for job, count in times.items() if count > 1 and job in accepted),
    )


_ENDED = frozenset({"succeeded", "dead", "cancelled", "expired"})


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items())) or "none"
