"""The cache on a Redis or Valkey server: one connection, and whatever is asked at the same time in one round trip."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from taskplatform.cache.contract import Claim, Kept
from taskplatform.cancelling import cancel
from taskplatform.errors import SettingsError
from taskplatform.store.routing import rest_seconds
from taskplatform.telemetry import logger

CONNECT_SECONDS = 1.0
CLAIM_SECONDS = 0.5
"""How long the right to fill a key lasts: whoever has it and dies holds the others up no longer."""
_AT_ONCE = 256
_GET_OR_CLAIM = """
local value = redis.call('GET', KEYS[1])
if value then return value end
return redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[1]) and 1 or 0
"""

_Command = tuple[str | bytes | int, ...]
_log = logger("taskplatform.cache")


@dataclass(frozen=True, slots=True)
class _Question:
    commands: Sequence[_Command]
    answer: asyncio.Future[list[Any] | None]


class RedisCache:
    """Implements taskplatform.cache.contract.Cache over one server.

    A server that does not answer within `answer_seconds` is left alone: callers are told at once that nothing is known,
    until it was found to be well again on a connection that nobody waits for. Raises SettingsError for a malformed URL.
    """

    def __init__(self, url: str, *, answer_seconds: float) -> None:
        try:
            self._connections = ConnectionPool.from_url(
                url, protocol=2, socket_connect_timeout=CONNECT_SECONDS, retry=Retry(NoBackoff(), 0)
            )
        except ValueError as error:
            raise SettingsError(f"cache_url: {error}") from None
        self._answer_seconds = answer_seconds
        self._line: AbstractConnection | None = None
        self._waiting: deque[_Question] = deque()
        self._flight: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._failures = 0

    @property
    def connected(self) -> bool:
        """See Cache.connected."""
        return self._line is not None

    async def start(self) -> None:
        """See Cache.start. Takes CONNECT_SECONDS and an answer at most."""
        if self._line is None and self._recovery is None and not await self._connect():
            self._recovery = asyncio.create_task(self._recover(), name="cache-recovery")

    async def stop(self) -> None:
        """See Cache.stop."""
        await cancel(*(task for task in (self._recovery, self._flight) if task is not None))
        if self._line is not None:
            line, self._line = self._line, None
            await _hang_up(line)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Cache.get."""
        answers = await self._ask(("MGET", *keys))
        if answers is None or not isinstance(answers[0], list):
            return [None] * len(keys)
        return answers[0]

    async def claim(self, key: str) -> Claim:
        """See Cache.claim."""
        answers = await self._ask(("EVAL", _GET_OR_CLAIM, 2, key, _right(key), int(CLAIM_SECONDS * 1000)))
        match answers:
            case [bytes() as value]:
                return Claim(value, mine=False)
            case [0]:
                return Claim(None, mine=False)
        return Claim(None, mine=True)

    def put(self, values: Sequence[Kept]) -> None:
        """See Cache.put. What a full server refuses is not kept."""
        if values:
            self._begin(
                *(("SET", kept.key, kept.value, "PX", max(int(kept.seconds * 1000), 1)) for kept in values),
                ("DEL", *(_right(kept.key) for kept in values)),
            )

    def release(self, key: str) -> None:
        """See Cache.release."""
        self._begin(("DEL", _right(key)))

    async def _ask(self, *commands: _Command) -> list[Any] | None:
        """Give the answers, an error among them where the server refused; None when it is away."""
        asked = self._begin(*commands)
        return None if asked is None else await asked

    def _begin(self, *commands: _Command) -> asyncio.Future[list[Any] | None] | None:
        if self._line is None:
            return None
        question = _Question(commands, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if self._flight is None:
            # It asks for many, and may begin a recovery: no part of the first one's trace.
            self._flight = asyncio.create_task(self._fly(), name="cache-flight", context=Context())
        return question.answer

    async def _fly(self) -> None:
        crew: list[_Question] = []
        try:
            while self._waiting and self._line is not None:
                crew = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
                answers = iter(await self._exchange(self._line, [each for one in crew for each in one.commands]))
                self._failures = 0
                for question in crew:
                    _tell(question, [next(answers) for _ in question.commands])
        except (RedisError, OSError) as error:
            self._lose(str(error) or "no answer in time")
        finally:
            self._flight = None
            for question in (*crew, *self._waiting):
                _tell(question, None)
            self._waiting.clear()

    async def _exchange(self, line: AbstractConnection, commands: Sequence[_Command]) -> list[Any]:
        with _any_trouble():
            async with asyncio.timeout(self._answer_seconds):
                await line.send_packed_command(line.pack_commands(commands), check_health=False)
                return [await _answer(line) for _ in commands]

    def _lose(self, trouble: str) -> None:
        _log.warning("The cache does not answer: reads go to the store", trouble=trouble)
        line, self._line = self._line, None
        self._failures += 1
        self._recovery = asyncio.create_task(self._recover(line), name="cache-recovery")

    async def _recover(self, lost: AbstractConnection | None = None) -> None:
        # What it still has to say nobody may take for an answer to something else.
        if lost is not None:
            await _hang_up(lost)
        while True:
            await asyncio.sleep(rest_seconds(self._failures, random.Random()))
            if await self._connect():
                _log.info("The cache answers again")
                return

    async def _connect(self) -> bool:
        line: Any = self._connections.connection_class(**self._connections.connection_kwargs)
        try:
            with _any_trouble():
                async with asyncio.timeout(CONNECT_SECONDS):
                    await line.connect()
            await self._exchange(line, [("PING",)])
        except (RedisError, OSError) as error:
            if not self._failures:
                _log.warning("The cache cannot be reached: reads go to the store", trouble=str(error))
            self._failures += 1
            await _hang_up(line)
            return False
        except BaseException:
            await _hang_up(line)
            raise
        self._line = line
        return True


@contextmanager
def _any_trouble() -> Iterator[None]:
    # A transport of uvloop that is closed raises RuntimeError, say: whatever it is, the line is of no use any more.
    try:
        yield
    except (RedisError, OSError):
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


async def _hang_up(line: AbstractConnection) -> None:
    # Nobody uses it any more, and one that cannot even be closed keeps nobody from making another.
    with suppress(Exception):
        await line.disconnect(nowait=True)


async def _answer(line: AbstractConnection) -> Any:
    try:
        return await line.read_response()
    except ResponseError as error:
        return error


def _tell(question: _Question, answers: list[Any] | None) -> None:
    # Who asked may have gone.
    with suppress(asyncio.InvalidStateError):
        question.answer.set_result(answers)


def _right(key: str) -> str:
    return f"{key}:fill"
