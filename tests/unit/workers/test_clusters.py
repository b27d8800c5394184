"""What a worker's parent does with the jobs of several Postgres clusters, of which one does not answer."""

from random import Random
from uuid import UUID

from taskplatform.ids import Locator, new_job_id
from taskplatform.job import Envelope, Succeeded
from taskplatform.retry import Retry
from taskplatform.shards import Homes, ShardMap, spread
from taskplatform.store.working import Claimed
from workers.endings import Traits
from workers.held import Held, Limits, Turn
from workers.pipeline import Pipeline

TRAITS = {"quick": Traits(policy=Retry(max_attempts=3), max_attempts=3)}
WINDOW_JOBS = 8


class Bench:
    """A pipeline over two clusters."""

    def __init__(self) -> None:
        self.homes = Homes(2)
        self.homes.adopt(ShardMap(1, spread(2)))
        limits = Limits(processes=2, window_jobs=WINDOW_JOBS, window_seconds=0.1, crash_limit=3)
        self.pipeline = Pipeline("w", limits, TRAITS, Random(7), self.homes)
        self.pipeline.pace.observe("quick", 0.0001)
        self.tag = 0

    def receive(self, cluster: int, count: int = 1, *, series: int | None = 0, suspect: bool = False) -> list[UUID]:
        """Take in messages of jobs that are at home in a cluster."""
        ids: list[UUID] = [new_job_id(Locator(region=0, shard=cluster * 128)) for _ in range(count)]
        for job_id in ids:
            self.tag += 1
            envelope = Envelope(
                id=job_id, task="quick", body="[]", tenant="t", pool="p", series=series, suspect=suspect
            )
            self.pipeline.receive(envelope, self.tag)
        return ids

    def turn(self, cluster: int) -> Turn:
        """Give the next turn of a cluster, which has to be due."""
        turn = self.pipeline.next_turn(cluster)
        assert turn is not None
        return turn

    def claim(self, turn: Turn) -> list[Held]:
        """Have the store give everything that a turn wants; gives what may run."""
        self.pipeline.answered(turn, [claimed(job_id) for job_id in wanted(turn)])
        started: list[Held] = []
        while chunk := self.pipeline.take_chunk():
            started += chunk
        return started


def claimed(job_id: UUID) -> Claimed:
    return Claimed(id=job_id, attempt=1, failures=0, crashes=0, max_attempts=3, suspect=False)


def wanted(turn: Turn) -> list[UUID]:
    return [job_id for job_id, _ in turn.claim.wanted] if turn.claim else []


def test_each_cluster_is_asked_for_its_own_jobs_and_told_their_ends() -> None:
    bench = Bench()
    here, there = bench.receive(0, 2), bench.receive(1, 2)
    turns = [bench.turn(0), bench.turn(1)]
    running = [held for turn in turns for held in bench.claim(turn)]

    for held in running:
        bench.pipeline.ended(held, Succeeded(result="1"), 1.0, 2.0)

    assert [wanted(turn) for turn in turns] == [here, there]
    assert [[ending.id for ending in bench.turn(cluster).endings] for cluster in (0, 1)] == [here, there]


def test_a_claim_that_is_not_answered_takes_no_room_once_its_cluster_counts_as_away() -> None:
    bench = Bench()
    bench.receive(1, WINDOW_JOBS)
    bench.turn(1)
    here = bench.receive(0, WINDOW_JOBS)
    blocked = bench.pipeline.next_turn(0)

    bench.pipeline.away(1, away=True)

    assert blocked is None
    assert wanted(bench.turn(0)) == here


def test_messages_of_an_absent_cluster_keep_no_others_out() -> None:
    bench = Bench()
    before = bench.pipeline.prefetch_jobs()
    bench.receive(1, 50)

    bench.pipeline.away(1, away=True)
    meanwhile = bench.pipeline.prefetch_jobs()
    bench.pipeline.away(1, away=False)

    assert meanwhile == before + 50
    assert bench.pipeline.prefetch_jobs() == before


def test_what_is_over_moved_or_lost_with_the_channel_is_not_counted_any_more() -> None:
    bench = Bench()
    before = bench.pipeline.prefetch_jobs()
    bench.receive(1)
    bench.pipeline.answered(bench.turn(1), [])
    bench.receive(1, 3)
    bench.homes.adopt(ShardMap(2, (0,) * 256))
    bench.pipeline.moved()
    bench.homes.adopt(ShardMap(3, (1,) * 256))
    bench.receive(1, 5)
    bench.pipeline.away(1, away=True)
    held = bench.pipeline.prefetch_jobs()

    bench.pipeline.channel_lost()

    assert held == before + 5
    assert bench.pipeline.prefetch_jobs() == before


def test_a_claim_that_is_answered_at_last_runs() -> None:
    bench = Bench()
    there = bench.receive(1, 2)
    turn = bench.turn(1)
    bench.pipeline.away(1, away=True)
    bench.pipeline.away(1, away=False)

    running = bench.claim(turn)

    assert [held.envelope.id for held in running] == there
    assert bench.pipeline.attempts(1) == [(job_id, 1) for job_id in there]


def test_what_has_not_started_is_given_back_when_its_claim_may_be_lost() -> None:
    bench = Bench()
    there, here = bench.receive(1), bench.receive(0)
    for cluster in (1, 0):
        turn = bench.turn(cluster)
        bench.pipeline.answered(turn, [claimed(job_id) for job_id in wanted(turn)])

    bench.pipeline.withdraw(1)

    assert [held.envelope.id for held in bench.pipeline.take_chunk()] == here
    assert [ending.id for ending in bench.turn(1).endings] == there


def test_a_message_that_its_cluster_refuses_is_claimed_where_the_new_map_says() -> None:
    bench = Bench()
    (job_id,) = bench.receive(1, series=None)
    turn = bench.turn(1)
    bench.homes.adopt(ShardMap(2, (0,) * 256))

    bench.pipeline.not_at_home(turn)

    assert bench.pipeline.next_turn(1) is None
    assert wanted(bench.turn(0)) == [job_id]


def test_a_refusal_that_lasts_holds_up_no_endings_and_is_asked_again_later() -> None:
    bench = Bench()
    done = bench.receive(1)
    (held,) = bench.claim(bench.turn(1))
    bench.pipeline.ended(held, Succeeded(result="1"), 1.0, 2.0)
    (stranger,) = bench.receive(1, series=None)
    bench.pipeline.not_at_home(bench.turn(1))
    bench.receive(1, series=None)

    told = bench.turn(1)
    bench.pipeline.answered(told, [])
    bench.pipeline.not_at_home(bench.turn(1))
    meanwhile = bench.pipeline.next_turn(1)
    bench.pipeline.moved()

    assert ([ending.id for ending in told.endings], told.claim, meanwhile) == (done, None, None)
    assert stranger in wanted(bench.turn(1))


def test_a_job_that_was_looked_for_in_its_old_home_is_claimed_in_the_new_one() -> None:
    bench = Bench()
    (job_id,) = bench.receive(1)
    turn = bench.turn(1)
    bench.homes.adopt(ShardMap(2, (0,) * 256))

    settlement = bench.pipeline.answered(turn, [])

    assert settlement.ack == []
    assert wanted(bench.turn(0)) == [job_id]


def test_what_waits_follows_a_new_map() -> None:
    bench = Bench()
    there = bench.receive(1, 3)
    bench.homes.adopt(ShardMap(2, (0,) * 256))

    bench.pipeline.moved()

    assert wanted(bench.turn(0)) == there


def test_a_suspect_is_claimed_though_another_cluster_always_has_more() -> None:
    bench = Bench()
    bench.receive(0, 2)
    running = bench.claim(bench.turn(0))
    (suspect,) = bench.receive(1, suspect=True)
    bench.receive(0, WINDOW_JOBS)
    meanwhile = bench.pipeline.next_turn(0)

    for held in running:
        bench.pipeline.ended(held, Succeeded(result="1"), 1.0, 2.0)
    asked = [wanted(bench.turn(0)), wanted(bench.turn(1))]

    assert meanwhile is None
    assert asked == [[], [suspect]]


def test_suspects_of_two_clusters_run_one_after_the_other() -> None:
    bench = Bench()
    (first,), (second,) = bench.receive(0, suspect=True), bench.receive(1, suspect=True)
    turn = bench.turn(0)
    meanwhile = bench.pipeline.next_turn(1)

    (held,) = bench.claim(turn)
    bench.pipeline.ended(held, Succeeded(result="1"), 1.0, 2.0)

    assert (wanted(turn), meanwhile) == ([first], None)
    assert wanted(bench.turn(1)) == [second]


def test_the_suspect_of_an_absent_cluster_keeps_no_others_waiting() -> None:
    bench = Bench()
    bench.receive(1, suspect=True)
    bench.pipeline.away(1, away=True)

    here = bench.receive(0)

    assert wanted(bench.turn(0)) == here
