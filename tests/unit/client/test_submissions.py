"""What is sent for a submission and for a batch, and what becomes of the answer."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from taskplatform import Task, task
from taskplatform.client import BatchRejected, NoAnswer, Problem, Rejected, Unauthorized, call, named
from taskplatform.client._flows import BATCH_BYTES, in_batches
from taskplatform.client._outcome import handles_of
from taskplatform.client.calls import batch_item
from taskplatform.client.views import Accepted
from taskplatform.errors import InvalidInput, SettingsError, TaskplatformError
from taskplatform.job import State
from tests.unit.client.scripts import CUT_OFF, JOB_ID, Clock, answer, flows, play, problem


@task(name="demo.add")
def add(first: int, second: int) -> int:
    return first + second


def test_a_submission_carries_only_what_was_chosen() -> None:
    prepared = call(add.options(delay_seconds=3, tags=("night",)), 1, second=2)

    assert prepared.body() == {
        "task": "demo.add",
        "args": (1,),
        "kwargs": {"second": 2},
        "delay_seconds": 3,
        "tags": ("night",),
    }


def test_a_key_of_ones_own_is_used() -> None:
    assert call(add.options(idempotency_key="order-7"), 1, 2).key == "order-7"


def test_a_time_without_a_zone_is_refused_before_anything_is_sent() -> None:
    aware = datetime(2026, 11, 20, 10, tzinfo=UTC)

    with pytest.raises(InvalidInput, match="time zone"):
        call(add.options(run_at=aware.replace(tzinfo=None)), 1, 2).body()


def test_a_time_with_a_zone_is_sent_as_such() -> None:
    prepared = call(named("demo.add", run_at=datetime(2026, 11, 20, 10, tzinfo=UTC) + timedelta(hours=1)), 1, 2)

    assert json.loads(batch_item(prepared))["run_at"] == "2026-11-20T11:00:00Z"


def test_arguments_without_a_json_form_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidInput, match="no JSON form"):
        batch_item(call("demo.add", object()))


@pytest.mark.parametrize("value", [float("nan"), [1.0, {"deep": float("inf")}], {"a": (float("-inf"),)}])
def test_a_number_that_json_lacks_is_refused_and_not_sent_as_null(value: object) -> None:
    with pytest.raises(InvalidInput, match="no JSON numbers"):
        batch_item(call("demo.add", value))


def test_an_endless_delay_is_refused_and_does_not_mean_now() -> None:
    with pytest.raises(InvalidInput, match="no JSON numbers"):
        batch_item(call(named("demo.add", delay_seconds=float("inf")), 1, 2))


def test_null_is_an_argument_like_any_other() -> None:
    assert json.loads(batch_item(call("demo.add", None, {"a": [None, 1.5]})))["args"] == [None, {"a": [None, 1.5]}]


def test_an_option_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="'dely_seconds' is no option"):
        named("demo.add", dely_seconds=3)


def test_a_task_named_only_cannot_be_called_here() -> None:
    elsewhere: Task[..., object] = named("demo.add")

    with pytest.raises(TaskplatformError, match=r"the code of demo\.add is not here"):
        elsewhere(1, 2)


def test_batches_are_cut_by_number_and_by_size() -> None:
    big = b"x" * (BATCH_BYTES // 2)

    assert [len(batch) for batch in in_batches([b"1", b"2", b"3"], 2)] == [2, 1]
    assert [len(batch) for batch in in_batches([big, big, big], 500)] == [1, 1, 1]
    assert list(in_batches([], 500)) == []


def test_every_item_of_a_batch_has_its_own_key() -> None:
    clock = Clock()
    items = [batch_item(call(add, 1, 2)), batch_item(call(add, 3, 4))]
    accepted = [{"status": 202, "id": str(JOB_ID), "state": "queued"}] * 2

    outcome, played = play(flows(clock).submit_all(items, 500), answer(202, {"items": accepted}), clock=clock)

    assert played.requests[0].body is not None
    assert len({item["idempotency_key"] for item in json.loads(played.requests[0].body)}) == 2
    assert outcome == [Accepted(id=JOB_ID, state=State.QUEUED)] * 2


def test_an_item_that_the_platform_could_not_take_now_is_handed_in_again_alone() -> None:
    clock = Clock()
    accepted = {"status": 202, "id": str(JOB_ID), "state": "queued"}
    away = {"status": 503, "problem": {"status": 503, "title": "away", "retryable": True}}

    outcome, played = play(
        flows(clock).submit_all([b'{"n":1}', b'{"n":2}'], 500),
        answer(207, {"items": [accepted, away]}),
        answer(202, {"items": [accepted]}),
        clock=clock,
    )

    assert [request.body for request in played.requests] == [b'[{"n":1},{"n":2}]', b'[{"n":2}]']
    assert outcome == [Accepted(id=JOB_ID, state=State.QUEUED)] * 2


def test_a_batch_of_which_nothing_is_taken_is_an_answer_too() -> None:
    clock = Clock()
    refused = {"status": 422, "problem": {"status": 422, "title": "unknown task", "code": "unknown_task"}}

    whole = problem(422, "batch_rejected", items=[refused])

    outcome, _ = play(flows(clock).submit_all([b"{}"], 500), whole, clock=clock)

    assert outcome == [Problem(status=422, title="unknown task", code="unknown_task")]


def test_a_batch_that_is_no_batch_is_refused_as_a_whole() -> None:
    clock = Clock()

    with pytest.raises(InvalidInput):
        play(flows(clock).submit_all([b"{}"], 500), problem(422, "too_many"), clock=clock)


def test_of_many_callers_only_the_one_whose_job_spoils_the_request_is_refused() -> None:
    clock = Clock()
    accepted = {"status": 202, "id": str(JOB_ID), "state": "queued"}
    too_big = problem(413, "body_too_large")

    outcome, played = play(
        flows(clock).submit_each([b"1", b"2", b"3", b"4"], 500),
        too_big,
        answer(202, {"items": [accepted] * 2}),
        too_big,
        too_big,
        answer(202, {"items": [accepted]}),
        clock=clock,
    )

    assert [request.body for request in played.requests] == [b"[1,2,3,4]", b"[1,2]", b"[3,4]", b"[3]", b"[4]"]
    assert [type(one) for one in outcome] == [Accepted, Accepted, Rejected, Accepted]


def test_of_many_callers_those_whose_jobs_are_accepted_hear_of_no_later_error() -> None:
    clock = Clock()
    accepted = {"status": 202, "id": str(JOB_ID), "state": "queued"}
    away = {"status": 503, "problem": {"status": 503, "title": "away", "retryable": True}}

    outcome, _ = play(
        flows(clock).submit_each([b"1", b"2"], 500),
        answer(207, {"items": [accepted, away]}),
        problem(403, "forbidden"),
        clock=clock,
    )

    assert [type(one) for one in outcome] == [Accepted, Unauthorized]


def test_once_the_platform_is_away_the_rest_is_not_tried() -> None:
    clock = Clock()
    accepted = {"status": 202, "id": str(JOB_ID), "state": "queued"}

    outcome, _ = play(
        flows(clock, max_attempts=2).submit_each([b"1", b"2", b"3"], 1),
        answer(202, {"items": [accepted]}),
        CUT_OFF,
        CUT_OFF,
        clock=clock,
    )

    assert [type(one) for one in outcome] == [Accepted, NoAnswer, NoAnswer]


def test_a_partly_refused_batch_raises_with_the_handles_of_the_rest() -> None:
    calls = [call(add, 1, 2), call(add, 3, 4)]
    outcome: list[Accepted | Problem] = [Accepted(id=JOB_ID, state=State.QUEUED), Problem(status=422, title="no")]

    with pytest.raises(BatchRejected, match=r"1 of 2 refused; \[1\]: no") as caught:
        handles_of(calls, outcome, lambda job_id, _: job_id)

    assert caught.value.accepted == {0: JOB_ID}
    assert list(caught.value.problems) == [1]
