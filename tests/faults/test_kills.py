"""Whatever is killed, what was accepted ends once and is on record."""

import pytest

from tests.faults.run import Size, run
from tests.faults.smoke import report
from tests.native.servers import Servers
from tests.native.stack import Programs

SIZE = Size(jobs=1000, kills_each=1, over_seconds=16.0, drain_seconds=40.0)
BROKEN_SIZE = Size(jobs=300, kills_each=1, over_seconds=10.0, drain_seconds=40.0)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(150)
def test_no_accepted_job_is_lost_or_ends_twice_when_every_part_is_killed(servers: Servers) -> None:
    verdict = run(servers, 11, SIZE, print)

    assert verdict.kept, "\n".join(report(verdict))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_checker_sees_the_jobs_of_an_api_that_answers_before_it_has_stored(servers: Servers) -> None:
    verdict = run(servers, 12, BROKEN_SIZE, print, Programs(api=("-m", "tests.faults.hasty_api")))

    assert verdict.ledger.lost
    assert not verdict.kept
