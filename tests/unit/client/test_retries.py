"""When a request is sent again, and when not."""

from datetime import UTC, datetime
from itertools import repeat
from random import Random

import pytest

from taskplatform.client import NoAnswer, NotFound, Rejected, ServiceUnavailable, Unauthorized, UnexpectedAnswer
from taskplatform.client._base import Answer, Effort, retry_after
from taskplatform.client._flows import Flows
from taskplatform.client.calls import call
from taskplatform.errors import InvalidInput, Unavailable
from tests.unit.client.scripts import CUT_OFF, Clock, a_job, answer, flows, play, problem


def test_a_submission_that_was_cut_off_is_repeated_with_the_same_key() -> None:
    clock = Clock()

    _, played = play(flows(clock).submit(call("demo.add", 1, 2)), CUT_OFF, answer(202, a_job()), clock=clock)

    assert len({request.headers["Idempotency-Key"] for request in played.requests}) == 1
    assert played.requests[0] == played.requests[1]


def test_two_submissions_of_the_same_arguments_have_different_keys() -> None:
    assert call("demo.add", 1, 2).key != call("demo.add", 1, 2).key


def test_pauses_grow_with_every_failure() -> None:
    clock = Clock()

    _, played = play(flows(clock).get("x"), CUT_OFF, CUT_OFF, CUT_OFF, answer(200, a_job()), clock=clock)

    assert played.waits == [1.0, 2.0, 4.0]


def test_retry_after_is_waited_for_on_top_of_the_pause() -> None:
    clock = Clock()

    _, played = play(flows(clock).get("x"), problem(503, retry_after=7), answer(200, a_job()), clock=clock)

    assert played.waits == [8.0]


def test_after_the_last_attempt_the_error_says_that_there_was_no_answer() -> None:
    clock = Clock()

    with pytest.raises(NoAnswer, match="ReadError"):
        play(flows(clock, max_attempts=2).get("x"), CUT_OFF, CUT_OFF, clock=clock)


def test_a_wait_beyond_the_patience_is_not_begun() -> None:
    clock = Clock()

    with pytest.raises(ServiceUnavailable) as caught:
        play(flows(clock, patience_seconds=20).get("x"), problem(503, retry_after=30), clock=clock)

    assert caught.value.retry_after_seconds == 30
    assert isinstance(caught.value, Unavailable)


@pytest.mark.parametrize("seed", range(20))
def test_refusals_at_once_are_outlasted_as_long_as_a_failover_may_take(seed: int) -> None:
    clock = Clock()
    at_once = repeat(problem(503, "store_unavailable", retryable=True, retry_after=2), 100)

    with pytest.raises(ServiceUnavailable):
        play(Flows(Effort(clock=clock, random=Random(seed))).submit(call("demo.add")), *at_once, clock=clock)

    assert 45 < clock.now <= 60


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_passing_refusal_is_tried_again(status: int) -> None:
    clock = Clock()

    job, _ = play(flows(clock).get("x"), problem(status), answer(200, a_job()), clock=clock)

    assert job.task == "demo.add"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Rejected), (401, Unauthorized), (403, Unauthorized), (404, NotFound), (422, Rejected)]
)
def test_a_refusal_for_good_is_raised_at_once(status: int, kind: type[Exception]) -> None:
    clock = Clock()

    with pytest.raises(kind):
        play(flows(clock).get("x"), problem(status), clock=clock)


def test_a_refusal_that_calls_itself_retryable_is_tried_again() -> None:
    clock = Clock()
    busy = problem(409, "in_progress", retryable=True, retry_after=2)

    _, played = play(flows(clock).submit(call("demo.add")), busy, answer(202, a_job()), clock=clock)

    assert played.waits == [3.0]


def test_a_rejection_points_at_what_is_wrong() -> None:
    clock = Clock()
    wrong = problem(422, "invalid_arguments", errors=[{"pointer": "/args/1", "detail": "not an integer"}])

    with pytest.raises(Rejected) as caught:
        play(flows(clock).submit(call("demo.add", 1, "x")), wrong, clock=clock)

    assert caught.value.pointers == ["/args/1"]
    assert str(caught.value) == "no; /args/1: not an integer"
    assert isinstance(caught.value, InvalidInput)


def test_a_proxys_own_error_page_is_understood() -> None:
    clock = Clock()
    page = Answer(status=502, headers={"content-type": "text/html"}, body=b"<html>Bad Gateway</html>")

    with pytest.raises(ServiceUnavailable, match="HTTP status 502"):
        play(flows(clock, max_attempts=1).get("x"), page, clock=clock)


def test_an_answer_that_is_none_of_ours_is_named_as_such() -> None:
    clock = Clock()

    with pytest.raises(UnexpectedAnswer, match="missing required field"):
        play(flows(clock).get("x"), answer(200, {"hello": 1}), clock=clock)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("Fri, 20 Nov 2026 10:00:30 GMT", 30.0), ("Fri, 20 Nov 2020 10:00:30 GMT", 0.0), ("soon", None)],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)

    assert retry_after({"retry-after": text}, now) == seconds


def test_a_path_cannot_be_left_by_an_id() -> None:
    clock = Clock()

    _, played = play(flows(clock).get("../dead-letters/1?x"), answer(200, a_job()), clock=clock)

    assert played.requests[0].path == "/v1/jobs/..%2Fdead-letters%2F1%3Fx"
