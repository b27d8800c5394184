"""What a worker's parent claims, hands out, records and acknowledges."""

from random import Random
from uuid import UUID, uuid4

import pytest

from taskplatform.job import Envelope, Failed, Failure, Outcome, Priority, Reason, State, Succeeded, Trouble
from taskplatform.retry import Retry
from taskplatform.store.working import Claimed, Ended, GivenBack, PutOff
from workers.endings import Traits
from workers.held import Held, Limits, Settlement, Turn
from workers.pipeline import Pipeline

DONE = Succeeded(result="1")
TRAITS = {
    "quick": Traits(policy=Retry(max_attempts=3, jitter=0.0), max_attempts=3),
    "slow": Traits(policy=Retry(max_attempts=3, jitter=0.0), max_attempts=3),
    "new": Traits(policy=Retry(max_attempts=3, jitter=0.0), max_attempts=3),
    "plain": Traits(policy=Retry(max_attempts=4, give_up_on=(Exception,)), max_attempts=4, counts_retries=True),
}


class Bench:
    """A pipeline with its store and broker played by the test."""

    def __init__(self, *, processes: int = 2, window_jobs: int = 256, chunk_jobs: int = 64) -> None:
        limits = Limits(
            processes=processes, window_jobs=window_jobs, window_seconds=0.1, crash_limit=3, chunk_jobs=chunk_jobs
        )
        self.pipeline = Pipeline("w", limits, TRAITS, Random(7))
        self.pipeline.pace.observe("quick", 0.0001)
        self.pipeline.pace.observe("plain", 0.0001)
        self.pipeline.pace.observe("slow", 2.0)
        self.tag = 0

    def receive(
        self,
        task: str = "quick",
        priority: Priority = Priority.NORMAL,
        *,
        suspect: bool = False,
        job_id: UUID | None = None,
    ) -> UUID:
        self.tag += 1
        envelope = Envelope(
            id=job_id or uuid4(), task=task, body="[]", tenant="t", pool="p", priority=priority, suspect=suspect
        )
        self.pipeline.receive(envelope, self.tag)
        return envelope.id

    def turn(self) -> Turn:
        turn = self.pipeline.next_turn()
        assert turn is not None
        return turn

    def wanted(self, turn: Turn) -> list[UUID]:
        return [job_id for job_id, _ in turn.claim.wanted] if turn.claim else []

    def claim(self, refuse: frozenset[UUID] = frozenset(), *, failures: int = 0, crashes: int = 0) -> Settlement:
        """Take a turn and let the store grant all but some."""
        turn = self.turn()
        granted = [
            claimed(job_id, failures=failures, crashes=crashes) for job_id in self.wanted(turn) if job_id not in refuse
        ]
        return self.pipeline.answered(turn, granted)

    def run(self, outcome: Outcome = DONE) -> list[Held]:
        """Take all chunks and end their jobs."""
        ended = []
        while chunk := self.pipeline.take_chunk():
            for held in chunk:
                self.pipeline.ended(held, outcome, 10.0, 11.0)
                ended.append(held)
        return ended


def claimed(job_id: UUID, *, failures: int = 0, crashes: int = 0, suspect: bool = False) -> Claimed:
    return Claimed(id=job_id, attempt=1, failures=failures, crashes=crashes, max_attempts=3, suspect=suspect)


def failed(trouble: Trouble, *types: str) -> Failed:
    return Failed(failure=Failure(trouble=trouble, error_types=types, message="m"))


def test_the_acknowledgement_follows_the_record() -> None:
    bench = Bench()
    job_id = bench.receive()
    assert bench.claim().ack == []
    bench.run()

    turn = bench.turn()
    settlement = bench.pipeline.answered(turn, [])

    assert [ending.id for ending in turn.endings] == [job_id]
    assert settlement.ack == [1]
    assert bench.pipeline.idle


def test_what_cannot_be_claimed_is_acknowledged_and_dropped() -> None:
    bench = Bench()
    job_id = bench.receive()

    settlement = bench.claim(refuse=frozenset({job_id}))

    assert settlement.ack == [1]
    assert bench.pipeline.idle
    assert bench.pipeline.backlog == 0


def test_urgent_jobs_are_claimed_first() -> None:
    bench = Bench(window_jobs=2)
    low, normal, high = (bench.receive(priority=one) for one in (Priority.LOW, Priority.NORMAL, Priority.HIGH))

    assert bench.wanted(bench.turn()) == [high, normal]
    assert low not in bench.wanted(Turn(endings=(), claim=None))


def test_slow_jobs_are_claimed_only_for_free_children() -> None:
    bench = Bench(processes=2)
    for _ in range(10):
        bench.receive("slow")

    assert len(bench.wanted(bench.turn())) == 2


def test_quick_jobs_are_claimed_ahead_up_to_the_window() -> None:
    bench = Bench(window_jobs=50)
    for _ in range(80):
        bench.receive("quick")

    assert len(bench.wanted(bench.turn())) == 50


def test_the_window_is_filled_again_as_outcomes_come_in() -> None:
    bench = Bench(window_jobs=10)
    for _ in range(20):
        bench.receive("quick")
    bench.claim()
    bench.run()

    turn = bench.turn()

    assert (len(turn.endings), len(bench.wanted(turn))) == (10, 10)


def test_a_second_message_of_a_waiting_job_is_settled_with_the_first() -> None:
    bench = Bench()
    job_id = bench.receive()
    bench.receive(job_id=job_id)
    bench.claim()
    bench.run()

    assert bench.pipeline.answered(bench.turn(), []).ack == [1, 2]


def test_a_message_that_comes_while_its_job_runs_waits_for_the_next_attempt() -> None:
    bench = Bench()
    job_id = bench.receive()
    bench.claim()
    bench.receive(job_id=job_id)
    bench.run()

    settlement = bench.pipeline.answered(bench.turn(), [])

    assert settlement.ack == [1]
    assert bench.wanted(bench.turn()) == [job_id]


def test_a_lost_channel_forgets_what_waits_and_keeps_what_is_claimed() -> None:
    bench = Bench(window_jobs=1, processes=1)
    running = bench.receive()
    bench.claim()
    bench.receive()
    bench.pipeline.channel_lost()
    bench.run()

    turn = bench.turn()

    assert [ending.id for ending in turn.endings] == [running]
    assert bench.wanted(turn) == []
    assert bench.pipeline.answered(turn, []).ack == []


def test_a_chunk_is_shared_among_the_children() -> None:
    bench = Bench(processes=2)
    for _ in range(20):
        bench.receive()
    bench.claim()

    assert len(bench.pipeline.take_chunk()) == 10


@pytest.mark.parametrize("task", ["slow", "new"])
def test_a_slow_or_unknown_job_goes_alone(task: str) -> None:
    bench = Bench()
    bench.receive(task)
    bench.receive("quick")
    bench.claim()

    assert [held.envelope.task for held in bench.pipeline.take_chunk()] == [task]


def test_a_suspect_is_claimed_alone_and_keeps_others_waiting() -> None:
    bench = Bench()
    suspect = bench.receive(suspect=True)
    other = bench.receive()
    turn = bench.turn()
    assert bench.wanted(turn) == [suspect]
    bench.pipeline.answered(turn, [claimed(suspect, suspect=True)])
    assert bench.pipeline.next_turn() is None
    bench.run()

    assert bench.wanted(bench.turn()) == [other]


def test_a_suspect_waits_until_nothing_else_is_claimed() -> None:
    bench = Bench()
    bench.receive()
    bench.claim()
    bench.receive(suspect=True)

    assert bench.pipeline.next_turn() is None


def test_a_job_found_suspect_among_others_is_given_back() -> None:
    bench = Bench()
    suspect, other = bench.receive(), bench.receive()
    turn = bench.turn()

    bench.pipeline.answered(turn, [claimed(other), claimed(suspect, suspect=True)])

    assert bench.turn().endings == (GivenBack(id=suspect, attempt=1),)
    assert bench.pipeline.backlog == 1


def test_a_drain_gives_back_what_has_not_started() -> None:
    bench = Bench(processes=2)
    for _ in range(4):
        bench.receive()
    bench.claim()
    started = bench.pipeline.take_chunk()
    bench.receive()

    bench.pipeline.drain()
    turn = bench.turn()

    assert len(started) == 2
    assert [type(ending) for ending in turn.endings] == [GivenBack, GivenBack]
    assert turn.claim is None


def test_what_a_claim_brings_during_a_drain_is_given_back() -> None:
    bench = Bench()
    job_id = bench.receive()
    turn = bench.turn()
    bench.pipeline.drain()

    bench.pipeline.answered(turn, [claimed(job_id)])

    assert bench.turn().endings == (GivenBack(id=job_id, attempt=1),)


def test_jobs_put_back_by_a_child_run_next_and_in_order() -> None:
    bench = Bench()
    for _ in range(6):
        bench.receive()
    bench.claim()
    chunk = bench.pipeline.take_chunk()

    bench.pipeline.put_back(chunk[1:])

    assert bench.pipeline.take_chunk()[:2] == chunk[1:3]


def test_a_job_that_lost_its_row_records_nothing() -> None:
    bench = Bench()
    job_id = bench.receive()
    bench.claim()
    (held,) = bench.pipeline.take_chunk()

    running, _ = bench.pipeline.lost([job_id])
    settlement = bench.pipeline.ended(held, DONE, 1.0, 2.0)

    assert running == [held]
    assert settlement.ack == [1]
    assert bench.pipeline.next_turn() is None


def test_a_lost_job_that_has_not_started_is_dropped() -> None:
    bench = Bench()
    job_id = bench.receive()
    bench.claim()

    running, settlement = bench.pipeline.lost([job_id])

    assert (running, settlement.ack, bench.pipeline.backlog) == ([], [1], 0)


def test_a_refused_turn_is_halved_until_the_bad_ending_is_alone() -> None:
    bench = Bench()
    ids = [bench.receive() for _ in range(4)]
    bench.claim()
    bench.run()
    bad = ids[2]
    recorded: list[UUID] = []

    while (turn := bench.pipeline.next_turn()) is not None:
        spoilt = [
            one for one in turn.endings if one.id == bad and isinstance(one, Ended) and one.state is State.SUCCEEDED
        ]
        if spoilt:
            bench.pipeline.refused(turn, "unsupported")
        else:
            recorded += [ending.id for ending in turn.endings]
            bench.pipeline.answered(turn, [])

    assert sorted(recorded) == sorted(ids)
    assert bench.pipeline.idle


def test_a_message_that_cannot_be_claimed_is_rejected_alone() -> None:
    bench = Bench()
    good, bad = bench.receive(), bench.receive()
    rejected = []

    while (turn := bench.pipeline.next_turn()) is not None:
        if bad in bench.wanted(turn):
            rejected += bench.pipeline.refused(turn, "unsupported").reject
        else:
            bench.pipeline.answered(turn, [claimed(job_id) for job_id in bench.wanted(turn)])

    assert rejected == [2]
    assert [held.envelope.id for held in bench.pipeline.take_chunk()] == [good]


@pytest.mark.parametrize(
    ("task", "charged", "outcome", "expected"),
    [
        ("quick", (0, 0), failed(Trouble.ERROR), "again"),
        ("quick", (2, 0), failed(Trouble.ERROR), Reason.ATTEMPTS_EXHAUSTED),
        ("quick", (0, 0), failed(Trouble.HOPELESS), Reason.NOT_RETRYABLE),
        ("quick", (0, 0), failed(Trouble.BAD_RESULT), Reason.NOT_RETRYABLE),
        ("quick", (0, 1), failed(Trouble.CRASH), "again"),
        ("quick", (0, 2), failed(Trouble.CRASH), Reason.POISON),
        ("quick", (0, 0), failed(Trouble.TIMEOUT), "again"),
        ("plain", (0, 0), failed(Trouble.ERROR, "builtins.ValueError", "builtins.Exception"), Reason.NOT_RETRYABLE),
        ("plain", (3, 0), failed(Trouble.RETRY_LATER), "again"),
    ],
)
def test_an_outcome_becomes_the_ending_that_its_policy_says(
    task: str, charged: tuple[int, int], outcome: Failed, expected: object
) -> None:
    bench = Bench()
    bench.receive(task)
    bench.claim(failures=charged[0], crashes=charged[1])
    bench.run(outcome)

    (ending,) = bench.turn().endings

    if expected == "again":
        assert isinstance(ending, PutOff)
        assert (ending.failed, ending.crashed) == ((0, 1) if outcome.failure.trouble is Trouble.CRASH else (1, 0))
    else:
        assert isinstance(ending, Ended)
        assert (ending.state, ending.reason) == (State.DEAD, expected)


def test_where_chunks_hold_one_job_each_goes_alone() -> None:
    bench = Bench(processes=2, chunk_jobs=1)
    for _ in range(20):
        bench.receive("quick")
    bench.claim()

    assert [len(bench.pipeline.take_chunk()) for _ in range(3)] == [1, 1, 1]


def test_many_slow_jobs_run_at_once_where_there_is_room() -> None:
    bench = Bench(processes=200)
    for _ in range(300):
        bench.receive("slow")

    assert len(bench.wanted(bench.turn())) == 200


@pytest.mark.parametrize(("seconds", "messages"), [(0.0001, 512), (2.0, 232)])
def test_slow_jobs_are_not_hoarded(seconds: float, messages: int) -> None:
    bench = Bench(processes=200)
    for _ in range(40):
        bench.pipeline.pace.observe("quick", seconds)

    assert bench.pipeline.prefetch_jobs() == messages
