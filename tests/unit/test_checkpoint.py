"""Checkpoints as tasks see them, without any worker."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from taskplatform import CurrentJob, HandBack, TaskplatformError, checkpoint
from taskplatform.errors import InvalidInput
from taskplatform.task import enter_job


class OneDesk:
    def __init__(self) -> None:
        self.draining = False
        self.text: str | None = None

    def ask(self, job: CurrentJob, text: str | None) -> str | None:
        self.text = self.text if text is None else text
        return self.text

    async def ask_async(self, job: CurrentJob, text: str | None) -> str | None:
        return self.ask(job, text)


@pytest.fixture(autouse=True)
def no_job() -> Iterator[None]:
    yield
    enter_job(None)


@pytest.fixture
def desk() -> OneDesk:
    return OneDesk()


def running(desk: OneDesk | None) -> None:
    enter_job(CurrentJob(id=uuid4(), attempt=1, tenant="acme", desk=desk))


def test_a_task_that_is_called_like_a_function_keeps_nothing() -> None:
    enter_job(None)
    checkpoint.save({"page": 1})

    assert checkpoint.load() is None
    assert not checkpoint.draining()


def test_what_is_saved_is_loaded_as_what_is_wanted(desk: OneDesk) -> None:
    running(desk)

    checkpoint.save((1, None, "é"))

    assert desk.text == '[1,null,"é"]'
    assert checkpoint.load() == [1, None, "é"]
    assert checkpoint.load(tuple[int, None, str]) == (1, None, "é")
    with pytest.raises(InvalidInput, match="not what is expected"):
        checkpoint.load(dict[str, int])


def test_a_checkpoint_has_a_limit(desk: OneDesk) -> None:
    running(desk)
    checkpoint.save("x" * (checkpoint.MOST_BYTES - 2))

    with pytest.raises(InvalidInput, match="65537 bytes") as caught:
        checkpoint.save("x" * (checkpoint.MOST_BYTES - 1))

    assert caught.value.code == "checkpoint_too_large"
    assert len(desk.text or "") == checkpoint.MOST_BYTES


@pytest.mark.parametrize("value", [object, {"a": float("inf")}, "\ud800", [1, {2}, float("nan")]], ids=repr)
def test_what_has_no_json_form_is_refused_before_anything_is_kept(desk: OneDesk, value: object) -> None:
    running(desk)

    with pytest.raises(InvalidInput, match="no JSON form"):
        checkpoint.save(value)

    assert desk.text is None


def test_a_coroutine_awaits(desk: OneDesk) -> None:
    async def save() -> int | None:
        running(desk)
        with pytest.raises(TaskplatformError, match="await checkpoint"):
            checkpoint.save(1)
        await checkpoint.save_async(2)
        return await checkpoint.load_async(int)

    assert asyncio.run(save()) == 2


def test_where_nobody_keeps_checkpoints_a_job_is_told() -> None:
    running(None)

    with pytest.raises(TaskplatformError, match="no checkpoints are kept"):
        checkpoint.save(1)
    assert not checkpoint.draining()


def test_draining_is_what_the_desk_says(desk: OneDesk) -> None:
    running(desk)
    desk.draining = True

    assert checkpoint.draining()
    assert issubclass(HandBack, TaskplatformError)
