"""What is measured of one side in one round, and that nothing was lost or invented meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.contestant import Contestant
from benchmarks.orders import How, Submit, Timing, Work
from benchmarks.places import Results
from benchmarks.roster import Crowd

WITHIN_SECONDS = 60.0
_POLL_SECONDS = 0.02
_WARM_UP_JOBS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that were submitted, run and stored. The processor seconds are for all of them."""

    numbers: range
    timing: Timing
    seconds: float
    client_cpu: float
    own_cpu: float
    server_cpu: float
    rss_bytes: int

    @property
    def jobs_per_second(self) -> float:
        """Jobs divided by the time from the first submission to the last stored result."""
        return len(self.numbers) / self.seconds

    @property
    def thousands(self) -> float:
        """How many thousand jobs there were."""
        return len(self.numbers) / 1000

    @property
    def cpu_per_thousand(self) -> float:
        """Processor seconds of client, side and servers per 1,000 jobs."""
        return (self.client_cpu + self.own_cpu + self.server_cpu) / self.thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything a round does; `share` of the jobs that the side's entry names."""

    share: float = 1.0
    singles: int = 600
    bulk: int = 8000
    per_second: float = 50.0
    idle_seconds: float = 3.0


def play(side: Contestant, work: Work, count: int, how: How = How.BULK, lanes: int = 0) -> Batch:
    """Run so many jobs. Raises RuntimeError when one is missing, stored twice or not at all, or when it takes too long.

    The time ends with the last stored result, or, where a side stores nothing, with the last run.
    """
    return _play(side, Submit(work=work, first=side.submitted, count=count, how=how, lanes=lanes))


def _play(side: Contestant, order: Submit) -> Batch:
    numbers = side.next_numbers(order.count)
    own, servers = side.usage(), side.server_usage()
    side.agent.submit(order)
    _await_runs(side, numbers)
    timing = side.agent.timing(WITHIN_SECONDS)
    ended = _await_results(side, numbers)
    own_after, servers_after = side.usage(), side.server_usage()
    return Batch(
        numbers=numbers,
        timing=timing,
        seconds=ended - timing.first,
        client_cpu=timing.cpu_seconds,
        own_cpu=own_after.cpu_seconds - own.cpu_seconds,
        server_cpu=servers_after.cpu_seconds - servers.cpu_seconds,
        rss_bytes=side.worker_usage().rss_bytes,
    )


def warm_up(side: Contestant) -> None:
    """Run a few jobs of each kind that nobody times; the first one also waits for the worker to be there."""
    play(side, Work.NOOP, 1)
    play(side, Work.NOOP, _WARM_UP_JOBS)


def verify(side: Contestant) -> int:
    """Compare what is stored with what was submitted, and give how many jobs ran more than once.

    Raises RuntimeError when they differ.
    """
    if side.entry.results is not Results.NONE:
        found = side.agent.numbers()
        stored = len(found) if found is not None else side.agent.count()
        if stored != side.submitted or (found is not None and sorted(found) != list(range(side.submitted))):
            raise RuntimeError(f"{side.entry.title}: what is stored is not that of the {side.submitted} submitted jobs")
    return sum(side.ledger.runs(number) > 1 for number in range(side.submitted))


def measure(side: Contestant, scale: Scale) -> dict[str, float]:
    """Measure everything of one side that is up; its worker is stopped at the end."""
    warm_up(side)
    figures = _throughput(side, scale) | _latency(side, scale) | _idle(side, scale.idle_seconds)
    figures["jobs_run_twice"] = verify(side)
    side.stop_worker()
    return figures | _submission(side, scale)


def _throughput(side: Contestant, scale: Scale) -> dict[str, float]:
    noops = play(side, Work.NOOP, _scaled(side.entry.noops, scale.share))
    naps = play(side, Work.NAP, _scaled(side.entry.naps, scale.share))
    figures = {
        "noop_per_s": noops.jobs_per_second,
        "nap_per_s": naps.jobs_per_second,
        "cpu_client_s_per_1000": noops.client_cpu / noops.thousands,
        "cpu_own_s_per_1000": noops.own_cpu / noops.thousands,
        "cpu_servers_s_per_1000": noops.server_cpu / noops.thousands,
        "cpu_s_per_1000": noops.cpu_per_thousand,
    }
    if side.entry.settings is not None:
        each = play(side, Work.NOOP, _scaled(side.entry.noops // 5, scale.share), How.EACH, lanes=16)
        figures["noop_one_a_request_per_s"] = each.jobs_per_second
    return figures


def _latency(side: Contestant, scale: Scale) -> dict[str, float]:
    count = _scaled(side.entry.paced, scale.share)
    order = Submit(work=Work.NOOP, first=side.submitted, count=count, how=How.PACED, per_second=scale.per_second)
    batch = _play(side, order)
    waits = sorted(
        side.ledger.began(number) - (batch.timing.first + at / scale.per_second)
        for at, number in enumerate(batch.numbers)
    )
    return {"start_p50_ms": _quantile(waits, 0.5) * 1000, "start_p99_ms": _quantile(waits, 0.99) * 1000}


def _idle(side: Contestant, seconds: float) -> dict[str, float]:
    before = side.worker_usage()
    time.sleep(seconds)
    after = side.worker_usage()
    return {
        "idle_cpu_percent": (after.cpu_seconds - before.cpu_seconds) / seconds * 100,
        "worker_rss_mib": after.rss_bytes / 2**20,
        "worker_pss_mib": side.worker_proportional_bytes() / 2**20,
    }


def _submission(side: Contestant, scale: Scale) -> dict[str, float]:
    figures = {"submit_one_per_s": submit_only(side, scale.singles, How.EACH)}
    if side.entry.crowd:
        figures["submit_crowd_per_s"] = submit_by_many(side, side.entry.crowd, _scaled(side.entry.crowded, scale.share))
    if side.agent.ready.bulk:
        figures["submit_bulk_per_s"] = submit_only(side, scale.bulk, How.BULK)
    return figures


def submit_only(side: Contestant, count: int, how: How, lanes: int = 0) -> float:
    """Submit jobs that nobody runs, and give how many were confirmed per second."""
    numbers = side.next_numbers(count)
    side.agent.submit(Submit(work=Work.NOOP, first=numbers.start, count=count, how=how, lanes=lanes))
    return count / side.agent.timing(WITHIN_SECONDS).seconds


def submit_by_many(side: Contestant, crowd: Crowd, count: int) -> float:
    """Submit jobs one a call from several clients at once, and give how many were confirmed per second."""
    agents = [side.agent, *(side.new_agent() for _ in range(crowd.processes - 1))]
    each = count // len(agents)
    for agent in agents:
        numbers = side.next_numbers(each)
        agent.submit(Submit(work=Work.NOOP, first=numbers.start, count=each, how=How.EACH, lanes=crowd.lanes))
    timings = [agent.timing(WITHIN_SECONDS) for agent in agents]
    return each * len(agents) / (max(t.last for t in timings) - min(t.first for t in timings))


def _await_runs(side: Contestant, numbers: range) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while (missing := side.ledger.first_missing(numbers)) is not None:
        if complaint := side.complaint():
            raise RuntimeError(f"{side.entry.title}: its worker died: {complaint}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{side.entry.title}: job {missing} has not run after {WITHIN_SECONDS:g} s")
        numbers = range(missing, numbers.stop)
        time.sleep(_POLL_SECONDS)


def _await_results(side: Contestant, numbers: range) -> float:
    if side.entry.results is Results.NONE:
        return side.ledger.last_began(numbers)
    deadline = time.monotonic() + WITHIN_SECONDS
    while (stored := side.agent.count()) < numbers.stop:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{side.entry.title}: {stored} of {numbers.stop} results after {WITHIN_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic()


def _scaled(jobs: int, share: float) -> int:
    return max(10, round(jobs * share))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
