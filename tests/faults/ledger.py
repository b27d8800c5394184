"""The checker of a fault run: what was accepted, what happened and what is on record, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.evidence import ENDED, Evidence, Record
from tests.faults.history import Effect
from tests.faults.plan import Kind, kind_of

_CRASH_LIMIT = 3
_REFUSED_FOR_GOOD = 422


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The count of a run; every list names what broke a promise."""

    attempted: int
    accepted: int
    terminal: int
    unknown: int
    executed_twice: int
    attempts: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    duplicate_keys: list[str] = field(default_factory=list)
    second_results: list[str] = field(default_factory=list)
    same_attempt_twice: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    unrecorded_attempts: list[str] = field(default_factory=list)
    wrong_letters: list[str] = field(default_factory=list)
    wrong_views: list[str] = field(default_factory=list)

    @property
    def breaches(self) -> dict[str, list[str]]:
        """The promises that did not hold, each with what broke it."""
        promises = {
            name: getattr(self, name) for name, kind in Ledger.__annotations__.items() if str(kind).startswith("list")
        }
        return {name: cases for name, cases in promises.items() if cases}

    @property
    def line(self) -> str:
        """The ledger in one line."""
        return (
            f"ledger accepted={self.accepted} terminal={self.terminal} lost={len(self.lost)} "
            f"duplicate_keys={len(self.duplicate_keys)} second_results={len(self.second_results)} "
            f"executed_twice={self.executed_twice}"
        )


@dataclass(slots=True)
class _Runs:
    begun: Counter[tuple[str, int]] = field(default_factory=Counter)
    outputs: dict[tuple[str, int], list[object]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def add(self, effect: Effect) -> None:
        run = (effect.job, effect.attempt)
        if effect.done:
            self.done[effect.job] += 1
            self.outputs.setdefault(run, []).append(effect.output)
        else:
            self.begun[run] += 1


def judge(evidence: Evidence, seed: int) -> Ledger:
    """Compare all sides of a run that is over and drained."""
    records = {record.id: record for record in evidence.records}
    accepted = {job for exchange in evidence.exchanges for job in exchange.ids if job}
    runs = _Runs()
    for effect in evidence.effects:
        runs.add(effect)
    ended = [record for record in evidence.records if record.state in ENDED]
    return Ledger(
        attempted=len({number for exchange in evidence.exchanges if exchange.sent for number in exchange.numbers}),
        accepted=len(accepted),
        terminal=sum(1 for job in accepted if job in records and records[job].state in ENDED),
        unknown=sum(1 for exchange in evidence.exchanges if exchange.sent and exchange.status == 0),
        attempts=dict(sorted(Counter(ended for _, _, ended in evidence.attempts).items())),
        executed_twice=sum(1 for count in runs.done.values() if count > 1),
        lost=sorted(job for job in accepted if job not in records or records[job].state not in ENDED),
        unexpected=sorted(_unexpected(evidence, records, runs)),
        duplicate_keys=sorted(_duplicate_keys(evidence)),
        second_results=sorted(_second_results(evidence, ended, runs)),
        same_attempt_twice=sorted(
            f"{job} attempt {number}" for (job, number), count in runs.begun.items() if count > 1
        ),
        wrong_ends=sorted(_wrong_ends(ended, seed)),
        unrecorded_attempts=sorted(
            f"{job} attempt {number}"
            for job, number in runs.begun.keys() - {(job, number) for job, number, _ in evidence.attempts}
            if job in records
        ),
        wrong_letters=sorted(_wrong_letters(evidence, ended)),
        wrong_views=sorted(_wrong_views(evidence, records, accepted)),
    )


def _unexpected(evidence: Evidence, records: dict[str, Record], runs: _Runs) -> Iterator[str]:
    submitted = {number for exchange in evidence.exchanges if exchange.sent for number in exchange.numbers}
    for record in evidence.records:
        if record.number not in submitted:
            yield f"{record.id}: a job that nobody submitted"
    for job in {job for job, _ in runs.begun} - records.keys():
        yield f"{job}: an effect without a job"


def _duplicate_keys(evidence: Evidence) -> Iterator[str]:
    named: dict[str, set[str]] = {}
    numbers: dict[int, str] = {}
    for exchange in evidence.exchanges:
        for number, key, job in zip(exchange.numbers, exchange.keys, exchange.ids, strict=True):
            if key and job:
                named.setdefault(key, set()).add(job)
            if key:
                numbers[number] = key
        if exchange.reused and exchange.status not in (0, _REFUSED_FOR_GOOD) and exchange.status < 500:
            yield f"{exchange.keys[0]}: another body was answered {exchange.status}"
    made = Counter(record.number for record in evidence.records)
    for number, key in numbers.items():
        if made[number] > 1 or len(named.get(key, ())) > 1:
            yield f"{key}: {made[number]} jobs on record, {len(named.get(key, ()))} answered"


def _second_results(evidence: Evidence, ended: Iterable[Record], runs: _Runs) -> Iterator[str]:
    for job, count in evidence.endings.items():
        if count > 1:
            yield f"{job}: its end was written {count} times"
    for record in ended:
        if record.state == "succeeded" and record.result not in runs.outputs.get((record.id, record.attempt), []):
            yield f"{record.id}: the result is not what attempt {record.attempt} returned"


def _wrong_ends(ended: Iterable[Record], seed: int) -> Iterator[str]:
    for record in ended:
        hopeless = kind_of(seed, record.number) is Kind.HOPELESS
        expected = ("dead", "attempts_exhausted") if hopeless else ("succeeded", None)
        poisoned = record.reason == "poison" and record.crashes >= _CRASH_LIMIT
        if (record.state, record.reason) != expected and not poisoned:
            yield f"{record.id}: {kind_of(seed, record.number)} ended as {record.state}, reason {record.reason}"


def _wrong_letters(evidence: Evidence, ended: Iterable[Record]) -> Iterator[str]:
    for record in ended:
        wanted = 1 if record.state == "dead" else 0
        if evidence.letters.get(record.id, 0) != wanted:
            yield f"{record.id}: {record.state} with {evidence.letters.get(record.id, 0)} dead letters"


def _wrong_views(evidence: Evidence, records: dict[str, Record], accepted: Iterable[str]) -> Iterator[str]:
    for job in accepted:
        record = records.get(job)
        if record is not None and evidence.shown.get(job) != (record.state, record.result):
            yield f"{job}: the API shows {evidence.shown.get(job)}, on record is {record.state}"
