"""The servers beneath the platform fail one after the other, and nothing that was accepted is lost or ends twice."""

import pytest

from taskplatform.ids import shard_of_key
from taskplatform.shards import spread
from tests.faults.history import Exchange
from tests.ha.campaign import report
from tests.ha.capacity import steady_rate
from tests.ha.faults import faults
from tests.ha.gaps import Gaps, Successes, gaps
from tests.ha.neighbours import neighbours_share
from tests.ha.run import Pace, run
from tests.ha.servers import HaServers

PACE = Pace(jobs_per_second=40.0, before_seconds=4.0, after_seconds=8.0)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_when_the_primary_and_the_leading_broker_node_are_killed(ha: HaServers) -> None:
    known = faults(frozen_seconds=0)

    verdict = run(ha, [known["primary killed"], known["broker leader killed"]], 21, PACE, print)

    assert (verdict.ledger.breaches, verdict.troubles) == ({}, []), "\n".join(report(verdict))
    assert verdict.ledger.accepted > 500


def test_an_interruption_counts_from_the_fault_to_the_first_success_after_it() -> None:
    steady = [float(second) for second in range(100, 120)]
    successes = Successes(keyed=[101.0, 109.0, 119.0], unkeyed=steady, starts=[101.0, 106.0, 111.0], reads=steady)

    felt = gaps(successes, 100.0, 120.0)

    assert felt == Gaps(keyed=10.0, unkeyed=1.0, starts=9.0, reads=1.0, recovered=20.0)


def test_the_rate_is_that_of_the_middle() -> None:
    slow_start = [0.0, 9.0]
    steady = [10.0 + number / 4 for number in range(16)]
    late = [100.0, 200.0]

    assert steady_rate([*slow_start, *steady, *late]) == 4.0


def test_neighbours_are_those_that_may_go_to_the_first_cluster() -> None:
    homes = {spread(2)[shard_of_key("default", key)]: key for key in map("key-{}".format, range(20))}
    sent = [
        an_exchange(1.0, homes[0], accepted=False),
        *(an_exchange(12.0, key, accepted=True) for key in (homes[0], None, None)),
        an_exchange(13.0, homes[0], accepted=False),
        an_exchange(13.0, homes[1], accepted=False),
    ]

    assert neighbours_share(sent, 10.0, 20.0) == 0.75


def an_exchange(sent_at: float, key: str | None, *, accepted: bool) -> Exchange:
    return Exchange(
        request=1,
        numbers=[1],
        keys=[key],
        payload_sha256="",
        sent_at=sent_at,
        answered_at=sent_at,
        status=202 if accepted else 503,
        ids=["a job" if accepted else None],
    )
