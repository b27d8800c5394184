"""The plan of a fault run follows from its seed and holds all that it should."""

from collections import Counter

from tests.faults.plan import Again, Kind, Victim, kills, submissions


def test_the_same_seed_gives_the_same_plan() -> None:
    assert list(submissions(3, 500)) == list(submissions(3, 500))
    assert kills(3, 5, 60.0) == kills(3, 5, 60.0)


def test_a_plan_has_every_job_once() -> None:
    numbers = [job.number for submission in submissions(3, 1234) for job in submission.jobs]

    assert numbers == list(range(1234))


def test_a_plan_mixes_kinds_forms_and_repetitions() -> None:
    planned = list(submissions(3, 4000))

    assert {job.kind for submission in planned for job in submission.jobs} == set(Kind)
    assert {submission.again for submission in planned} == set(Again)
    assert {(s.batch, s.jobs[0].key is not None) for s in planned} == {(False, True), (True, True), (True, False)}


def test_every_victim_is_killed_as_often_as_asked_and_in_time() -> None:
    timeline = kills(3, 5, 60.0)

    assert Counter(kill.victim for kill in timeline) == dict.fromkeys(Victim, 5)
    assert [kill.at_seconds for kill in timeline] == sorted(kill.at_seconds for kill in timeline)
    assert timeline[-1].at_seconds < 60.0
