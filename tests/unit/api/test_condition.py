"""How often the store is asked how it is, and what is made of its answers."""

import asyncio
from typing import cast

import structlog
from psycopg.errors import InsufficientPrivilege

from api.condition import FRESH_SECONDS, Condition
from taskplatform.broker.contract import Broker
from taskplatform.errors import StoreUnavailable
from taskplatform.telemetry import new_metrics


class _Store:
    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.trouble: Exception = StoreUnavailable("gone")
        self.reached = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self) -> None:
        self.asked += 1
        self.reached.set()
        await self.may_answer.wait()
        if self.away:
            raise self.trouble


class _Broker:
    connected = True


def _condition(store: _Store, now: list[float]) -> Condition:
    return Condition(store.answer, cast("Broker", _Broker()), new_metrics(), clock=lambda: now[0])


def test_however_many_look_at_once_the_store_is_asked_once() -> None:
    store, now = _Store(), [0.0]

    async def look() -> list[bool]:
        condition = _condition(store, now)
        return await asyncio.gather(*(condition.store() for _ in range(50)), condition.store())

    answers = asyncio.run(look())

    assert (set(answers), store.asked) == ({True}, 1)


def test_an_old_answer_is_asked_for_anew() -> None:
    store, now = _Store(), [0.0]

    async def look() -> list[bool]:
        condition = _condition(store, now)
        first = await condition.store()
        store.away = True
        kept = await condition.store()
        now[0] += FRESH_SECONDS
        return [first, kept, await condition.store()]

    assert asyncio.run(look()) == [True, True, False]


def test_a_store_that_fails_in_a_way_that_nobody_foresaw_is_away_and_the_log_says_why() -> None:
    store, now = _Store(), [0.0]
    store.trouble = InsufficientPrivilege("permission denied for table shards")

    async def look() -> list[bool]:
        condition = _condition(store, now)
        first = await condition.store()
        store.away = True
        now[0] += FRESH_SECONDS
        return [first, await condition.store()]

    with structlog.testing.capture_logs() as lines:
        assert asyncio.run(look()) == [True, False]

    assert [line["exc_info"] for line in lines] == [store.trouble]


def test_a_process_has_started_once_the_store_has_answered_and_stays_started() -> None:
    store, now = _Store(), [0.0]
    store.away = True

    async def look() -> list[bool]:
        condition = _condition(store, now)
        seen = []
        for away in (True, False, True):
            store.away = away
            await condition.store()
            seen.append(condition.started)
            now[0] += FRESH_SECONDS
        return seen

    assert asyncio.run(look()) == [False, True, True]


def test_who_stops_waiting_does_not_spoil_the_answer_of_the_others() -> None:
    store, now = _Store(), [0.0]

    async def look() -> bool:
        condition = _condition(store, now)
        store.may_answer.clear()
        impatient = asyncio.ensure_future(condition.store())
        patient = asyncio.ensure_future(condition.store())
        await store.reached.wait()
        impatient.cancel()
        store.may_answer.set()
        return await patient

    assert asyncio.run(look())
