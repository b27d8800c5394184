"""What counts as a job that nobody has."""

from taskplatform.reconciler import Found, Missing, least, missing
from taskplatform.store.watching import Owed


def test_a_queued_job_with_a_message_anywhere_is_accounted_for() -> None:
    assert missing(Owed(queued=6, running_without_lease=0), Found(outbox=1, broker=2, fetched=3)) == Missing()


def test_queued_jobs_beyond_all_messages_lack_theirs() -> None:
    assert missing(Owed(queued=10, running_without_lease=0), Found(outbox=1, broker=2, fetched=3)).message == 4


def test_messages_that_are_there_twice_are_no_debt() -> None:
    assert missing(Owed(queued=1, running_without_lease=0), Found(broker=9)) == Missing()


def test_a_running_job_without_a_lease_lacks_its_worker() -> None:
    assert missing(Owed(queued=0, running_without_lease=2), Found(broker=9)) == Missing(worker=2)


def test_what_was_not_missing_every_time_is_on_its_way() -> None:
    assert least([Missing(message=5, worker=1), Missing(message=2), Missing(message=7, worker=1)]) == Missing(message=2)
