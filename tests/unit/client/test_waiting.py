"""How the SDK waits for jobs: held answers, few requests, and an end."""

from uuid import UUID

import pytest

from taskplatform.client import JobTimeout
from taskplatform.client._flows import LONGEST_WAIT_SECONDS
from tests.unit.client.scripts import JOB_ID, Clock, a_job, answer, flows, play

_OTHER = UUID("01890000-0000-7000-8000-000000000002")


def test_a_wait_asks_for_a_held_answer() -> None:
    clock = Clock()

    job, played = play(flows(clock).wait(JOB_ID, 5.0), answer(200, a_job("succeeded")), clock=clock)

    assert played.requests[0].headers["Prefer"] == "wait=5"
    assert job.done


def test_a_long_wait_is_cut_into_pieces() -> None:
    clock = Clock()
    live, ended = answer(200, a_job()), answer(200, a_job("succeeded"))

    _, played = play(flows(clock).wait(JOB_ID, None), live, ended, clock=clock, takes_seconds=LONGEST_WAIT_SECONDS)

    assert [request.headers["Prefer"] for request in played.requests] == ["wait=20", "wait=20"]
    assert played.waits == []


def test_an_answer_that_was_not_held_is_not_asked_for_again_at_once() -> None:
    clock = Clock()
    live, ended = answer(200, a_job()), answer(200, a_job("succeeded"))

    _, played = play(flows(clock).wait(JOB_ID, None), live, live, ended, clock=clock)

    assert played.waits == [1.0, 1.0]


def test_a_wait_that_is_over_gives_the_job_as_it_stands() -> None:
    clock = Clock()

    job, _ = play(flows(clock).wait(JOB_ID, 2.0), answer(200, a_job("running")), clock=clock, takes_seconds=2.0)

    assert not job.done


def test_a_request_has_more_time_than_its_answer_may_be_held_back() -> None:
    clock = Clock()

    _, played = play(flows(clock).wait(JOB_ID, 5.0), answer(200, a_job("succeeded")), clock=clock)

    assert played.requests[0].timeout_seconds > 5.0


def test_many_jobs_are_looked_at_with_one_request() -> None:
    clock = Clock()
    page = {"jobs": [a_job("running"), a_job("succeeded", id=str(_OTHER))], "next_page_token": ""}

    done, played = play(flows(clock).some_done([JOB_ID, _OTHER], None), answer(200, page), clock=clock)

    assert [job.id for job in done] == [_OTHER]
    assert played.requests[0].params["ids"] == f"{JOB_ID},{_OTHER}"


def test_while_none_of_many_has_ended_the_oldest_is_waited_for() -> None:
    clock = Clock()
    page = {"jobs": [a_job(), a_job(id=str(_OTHER))]}
    ended = answer(200, a_job("succeeded"))

    done, played = play(flows(clock).some_done([JOB_ID, _OTHER], None), answer(200, page), ended, clock=clock)

    assert [job.id for job in done] == [JOB_ID]
    assert played.requests[1].headers["Prefer"] == "wait=1"


def test_when_the_time_for_many_is_over_one_is_named_that_goes_on() -> None:
    clock = Clock()
    page = {"jobs": [a_job(), a_job(id=str(_OTHER))]}

    with pytest.raises(JobTimeout) as caught:
        play(
            flows(clock).some_done([JOB_ID, _OTHER], 1.0),
            answer(200, page),
            answer(200, a_job()),
            clock=clock,
            takes_seconds=1.0,
        )

    assert caught.value.job.id == JOB_ID
