"""A worker that comes back from a long freeze finds its job taken over."""

import pytest

from tests.faults.frozen import freeze_until_taken_over
from tests.native.servers import Servers
from tests.native.stack import Programs

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_worker_that_lost_its_job_in_a_freeze_can_record_nothing(servers: Servers) -> None:
    ledger = freeze_until_taken_over(servers)

    assert ledger.breaches == {}
    assert ledger.executed_twice == 1


def test_the_checker_sees_the_result_of_a_worker_without_a_fence(servers: Servers) -> None:
    ledger = freeze_until_taken_over(servers, Programs(worker=("-m", "tests.faults.unfenced_worker")))

    assert len(ledger.second_results) == 1
