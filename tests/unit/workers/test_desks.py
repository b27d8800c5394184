"""The line on which a child hands in its jobs' checkpoints, and both of its ends."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from taskplatform.errors import AttemptLost, TaskplatformError
from taskplatform.task import CurrentJob
from workers.checkpoints import Answered, Reply
from workers.desks import ChildCounter, ChildDesk
from workers.loop import Loop
from workers.slot import Slot

JOB = CurrentJob(id=uuid4(), attempt=3, tenant="acme")
LARGE = "x" * 60_000


class LoopByHand(Loop):
    """A loop that looks at its descriptors when it is told to."""

    def turn(self) -> None:
        calls = [*self._readers.values(), *(call for _, call in self._writers.values())]
        for call in calls:
            call()

    @property
    def writes(self) -> bool:
        return bool(self._writers)


class Line:
    """A counter whose store is the test, and the child's end of its line."""

    def __init__(self) -> None:
        self.loop = LoopByHand()
        self.asked: list[tuple[UUID, int, str | None]] = []
        self.answers: list[Answered] = []
        self.counter = ChildCounter(self.loop, self._ask, lambda job, attempt: (job, attempt) == (JOB.id, JOB.attempt))
        self.child = self.counter.theirs
        self.child.settimeout(20)

    def _ask(self, job: UUID, attempt: int, text: str | None, answered: Answered) -> None:
        self.asked.append((job, attempt, text))
        self.answers.append(answered)

    def send(self, number: int, text: str | None = None, *, job: CurrentJob = JOB) -> None:
        """Ask as a child does."""
        self.child.send(msgspec.msgpack.encode((number, job.id, job.attempt, text)))
        self.loop.turn()

    def heard(self) -> tuple[int, Reply]:
        """Give the next answer that reaches the child."""
        number, reply = msgspec.msgpack.decode(self.child.recv(131_072))
        return number, msgspec.convert(reply, Reply)


@pytest.fixture
def line() -> Iterator[Line]:
    """A line between a child and its parent."""
    line = Line()
    yield line
    line.counter.close()
    line.child.close()


@pytest.fixture
def ends() -> Iterator[tuple[ChildDesk, socket.socket]]:
    """A child's desk, and the parent's end of its line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ChildDesk(theirs, Slot()), ours
    ours.close()
    theirs.close()


def told(number: int, reply: Reply) -> bytes:
    return msgspec.msgpack.encode((number, reply))


def test_a_question_goes_to_the_store_and_its_answer_to_the_child(line: Line) -> None:
    line.send(1, "7")
    assert line.asked == [(JOB.id, JOB.attempt, "7")]

    line.answers[0](Reply(text="8"))

    assert line.heard() == (1, Reply(text="8"))


def test_a_question_that_nobody_asks_any_more_is_not_answered(line: Line) -> None:
    line.send(1)
    line.send(2)

    line.answers[0](Reply(text="late"))
    line.answers[1](Reply(text="in time"))

    assert line.heard() == (2, Reply(text="in time"))


def test_a_line_that_is_full_stays_open_and_takes_the_answer_later(line: Line) -> None:
    number = 0
    while not line.loop.writes:
        number += 1
        line.send(number)
        line.answers[-1](Reply(text=LARGE))
    assert 3 <= number < 100

    for earlier in range(1, number):
        assert line.heard()[0] == earlier
    line.loop.turn()

    assert line.heard() == (number, Reply(text=LARGE))
    assert not line.loop.writes


def test_what_is_no_question_closes_the_line(line: Line) -> None:
    line.child.send(b"\xc1")

    line.loop.turn()

    assert line.child.recv(10) == b""
    assert line.asked == []


@pytest.mark.parametrize(
    "other", [CurrentJob(id=JOB.id, attempt=2, tenant="acme"), CurrentJob(id=uuid4(), attempt=3, tenant="acme")]
)
def test_a_child_may_speak_only_of_what_it_runs(line: Line, other: CurrentJob) -> None:
    line.send(1, "7", job=other)

    assert line.heard() == (1, Reply(kept=False))
    assert line.asked == []


def test_an_answer_after_the_childs_death_disturbs_nobody(line: Line) -> None:
    line.send(1)
    line.child.close()

    line.answers[0](Reply())
    line.answers[0](Reply())

    assert line.loop.descriptors() == []


def test_a_child_passes_over_the_answer_to_an_earlier_question(ends: tuple[ChildDesk, socket.socket]) -> None:
    desk, ours = ends
    ours.send(told(0, Reply(text="old")))
    ours.send(told(1, Reply(text="new")))

    assert desk.ask(JOB, None) == "new"
    assert msgspec.msgpack.decode(ours.recv(1000)) == [1, str(JOB.id), 3, None]


def test_a_child_waits_for_as_long_as_it_takes_whatever_is_the_default(line: Line) -> None:
    line.child.settimeout(0.001)

    ChildDesk(line.child, Slot())

    assert line.child.gettimeout() is None


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(kept=False), AttemptLost("this attempt no longer holds its job")),
        (Reply(trouble="no"), TaskplatformError("the checkpoint cannot be kept: no")),
    ],
)
def test_a_child_hears_what_is_wrong(
    ends: tuple[ChildDesk, socket.socket], reply: Reply, error: TaskplatformError
) -> None:
    desk, ours = ends
    ours.send(told(1, reply))

    with pytest.raises(type(error), match=str(error)):
        desk.ask(JOB, "1")


def test_a_child_hears_when_the_line_is_closed(ends: tuple[ChildDesk, socket.socket]) -> None:
    desk, ours = ends
    ours.close()

    with pytest.raises(ConnectionError):
        desk.ask(JOB, "1")


def test_a_process_that_a_task_forked_says_nothing(
    ends: tuple[ChildDesk, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, ours = ends
    ours.settimeout(0)
    child = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: child + 1)

    with pytest.raises(TaskplatformError, match="a process that the task forked keeps no checkpoints"):
        desk.ask(JOB, "1")

    with pytest.raises(BlockingIOError):
        ours.recv(1000)


@pytest.mark.parametrize(
    ("replies", "sent"),
    [([Reply()], ["2"]), ([Reply(trouble="no"), Reply()], ["2", "1"])],
    ids=["the later one is kept", "the later one is refused"],
)
def test_no_save_follows_one_that_was_asked_for_later_and_kept(
    ends: tuple[ChildDesk, socket.socket], monkeypatch: pytest.MonkeyPatch, replies: list[Reply], sent: list[str]
) -> None:
    desk, ours = ends
    heard: list[str] = []

    def answer() -> None:
        left = iter(replies)
        while packet := ours.recv(1000):
            number, _, _, text = msgspec.msgpack.decode(packet)
            heard.append(text)
            ours.send(told(number, next(left, Reply())))

    async def save_twice() -> None:
        later_is_over = asyncio.Event()

        async def first_comes_last(call: Callable[..., Any], *arguments: Any) -> Any:
            if started:
                later_is_over.set()
            else:
                started.append(True)
                await later_is_over.wait()
            return call(*arguments)

        started: list[bool] = []
        monkeypatch.setattr(asyncio, "to_thread", first_comes_last)
        await asyncio.gather(desk.ask_async(JOB, "1"), desk.ask_async(JOB, "2"), return_exceptions=True)

    parent = Thread(target=answer)
    parent.start()
    asyncio.run(save_twice())
    ours.shutdown(socket.SHUT_RDWR)
    parent.join()

    assert heard == sent
