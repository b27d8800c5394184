"""The servers beneath the platform fail one after the other, and nothing that was accepted is lost or ends twice."""

import pytest

from tests.ha.campaign import report
from tests.ha.faults import faults
from tests.ha.gaps import Gaps, Successes, gaps
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
