"""What commits released is published at once or together, completely and once, and settles its outbox rows."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from taskplatform import gathering
from taskplatform.gathering import GATHER_JOBS, Gathering
from taskplatform.payload import Message
from taskplatform.publish import Publisher
from taskplatform.telemetry import new_metrics
from tests.unit.roles.test_publish import KEY, Obliging, release


class Owing(Obliging):
    """A broker that owes every confirm until it is told which of the messages it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[list[Message], asyncio.Future[set[str]]]] = []
        self.asked = asyncio.Event()

    @property
    def sizes(self) -> list[int]:
        """How many messages each publish without a confirm has."""
        return [len(messages) for messages, _ in self.due]

    async def publish(self, messages: Sequence[Message]) -> set[str]:
        self.messages += messages
        answer: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
        self.due.append((list(messages), answer))
        self.asked.set()
        return await answer

    def fail(self, error: Exception) -> None:
        """Raise something from the oldest publish."""
        self.due.pop(0)[1].set_exception(error)

    def confirm(self, refused: int = 0) -> None:
        """Confirm the oldest publish, all messages but the last few."""
        messages, answer = self.due.pop(0)
        answer.set_result({message.id for message in messages[: len(messages) - refused]})


class Scene:
    """A gathering before a broker that owes confirms; nobody waits for the clock unless a test says so."""

    def __init__(self) -> None:
        self.broker = Owing()
        self.settled: list[int] = []
        self.gathering = Gathering(Publisher(self.broker, KEY, new_metrics()), self.settled.extend)
        self.added: list[UUID] = []

    async def add(self, row: int, jobs: int = 1) -> None:
        """Add the jobs of one commit, and give everybody a turn."""
        releases = [release(row) for _ in range(jobs)]
        self.added += [one.envelope.id for one in releases]
        self.gathering.add(releases)
        await _turns()

    async def confirm(self, refused: int = 0) -> None:
        """Confirm the oldest publish, and give everybody a turn."""
        self.broker.confirm(refused)
        await _turns()

    async def end(self) -> None:
        """Finish, with a broker that confirms whatever comes."""
        finished = asyncio.ensure_future(self.gathering.finish())
        await _turns()
        while self.broker.due:
            await self.confirm()
        await finished

    @property
    def published(self) -> list[UUID]:
        """What the broker has been given, in order."""
        return [UUID(message.id) for message in self.broker.messages]


async def _turns() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(10):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


def play(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await scenario(Scene())

    asyncio.run(run())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs wait for a confirm as long as it takes."""
    monkeypatch.setattr(gathering, "GATHER_SECONDS", 3600.0)


@pytest.mark.usefixtures("patient")
def test_a_job_is_published_at_once_where_no_confirm_is_due() -> None:
    async def scenario(scene: Scene) -> None:
        for row in range(3):
            await scene.add(row)
            assert scene.broker.sizes == [1]
            await scene.confirm()
        assert scene.settled == [0, 1, 2]

    play(scenario)


@pytest.mark.usefixtures("patient")
def test_what_comes_while_a_confirm_is_due_leaves_together_when_it_is_there() -> None:
    async def scenario(scene: Scene) -> None:
        for row in range(5):
            await scene.add(row, jobs=2)
        assert scene.broker.sizes == [2]
        await scene.confirm()
        assert scene.broker.sizes == [8]
        await scene.confirm()
        assert scene.published == scene.added
        assert scene.settled == [0, 1, 2, 3, 4]

    play(scenario)


@pytest.mark.usefixtures("patient")
def test_many_jobs_wait_for_nobody() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.add(1)
        await scene.add(2, jobs=GATHER_JOBS - 1)
        assert scene.broker.sizes == [1]
        await scene.add(3)
        assert scene.broker.sizes == [1, GATHER_JOBS]
        await scene.end()

    play(scenario)


def test_nobody_waits_long_for_the_confirms_of_others() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.add(1)
        scene.broker.asked.clear()
        await scene.add(2)
        await scene.broker.asked.wait()
        assert scene.broker.sizes == [1, 1]
        await scene.end()

    play(scenario)


@pytest.mark.usefixtures("patient")
def test_what_is_left_unconfirmed_settles_no_row_and_holds_up_nobody() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.add(1)
        await scene.add(2, jobs=2)
        await scene.add(3, jobs=2)
        await scene.confirm(refused=1)
        await scene.confirm(refused=1)
        await scene.add(4)
        await scene.confirm()
        assert scene.published == scene.added
        assert scene.settled == [2, 4]

    play(scenario)


@pytest.mark.usefixtures("patient")
def test_what_nobody_expects_of_a_publish_is_logged_and_holds_up_nobody() -> None:
    bug = RuntimeError("bug")

    async def scenario(scene: Scene) -> None:
        await scene.add(1)
        await scene.add(2)
        scene.broker.fail(bug)
        await _turns()
        await scene.confirm()
        assert scene.settled == [2]

    with structlog.testing.capture_logs() as lines:
        play(scenario)

    assert [(line["event"], line["log_level"], line["exc_info"]) for line in lines] == [
        ("A publish failed unexpectedly", "error", bug)
    ]


@pytest.mark.usefixtures("patient")
def test_a_finish_publishes_what_is_held_and_waits_for_all_confirms() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.add(1)
        await scene.add(2)
        finished = asyncio.ensure_future(scene.gathering.finish())
        await _turns()
        assert scene.broker.sizes == [1, 1]
        await scene.confirm()
        assert not finished.done()
        await scene.confirm()
        await finished
        assert scene.settled == [1, 2]

    play(scenario)


@pytest.mark.usefixtures("patient")
def test_what_is_too_much_is_left_to_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PUBLISHING_JOBS", 3)

    async def scenario(scene: Scene) -> None:
        await scene.add(1)
        await scene.add(2, jobs=2)
        await scene.add(3)
        await scene.confirm()
        await scene.add(4)
        await scene.end()
        assert scene.settled == [1, 2, 4]

    play(scenario)


@pytest.mark.usefixtures("patient")
def test_nothing_is_published_for_a_commit_that_released_nothing() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.add(1, jobs=0)
        await scene.end()
        assert scene.broker.messages == []

    play(scenario)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60).map(lambda jobs: ("add", jobs)) | st.just(("confirm", 0)), max_size=30))
def test_whatever_the_order_every_job_is_published_once_and_every_row_settled(steps: list[tuple[str, int]]) -> None:
    async def scenario(scene: Scene) -> None:
        rows = 0
        for step, jobs in steps:
            if step == "add":
                rows += 1
                await scene.add(rows, jobs)
            elif scene.broker.due:
                await scene.confirm()
        await scene.end()
        assert scene.published == scene.added
        assert scene.settled == list(range(1, rows + 1))

    play(scenario)
