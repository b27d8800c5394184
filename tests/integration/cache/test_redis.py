"""The cache on a real Redis server: it may be killed, frozen and slow, and nobody waits for it."""

from __future__ import annotations

import asyncio
import time

import pytest
import structlog
from redis import Redis as Client
from redis.asyncio.connection import AbstractConnection

from taskplatform.cache.contract import Cache, Kept
from taskplatform.cache.redis import RedisCache
from taskplatform.errors import SettingsError
from taskplatform.servers import Redis, free_ports
from tests.fixtures.cache import NewCache
from tests.fixtures.proxy import NewProxy
from tests.fixtures.waiting import eventually

BUDGET_SECONDS = 0.05
LONGEST_REST_SECONDS = 60
# Between what a frozen server would cost, which is minutes, and what a busy machine may take for a few tries.
PATIENCE_SECONDS = 10.0


def asked(cache: Cache, loop: asyncio.AbstractEventLoop, *keys: str) -> list[bytes | None]:
    return asyncio.run_coroutine_threadsafe(cache.get(keys), loop).result(30)


def filled(cache: Cache, loop: asyncio.AbstractEventLoop, key: str, value: bytes, seconds: float = 60.0) -> None:
    loop.call_soon_threadsafe(cache.put, [Kept(key, value, seconds)])
    assert asked(cache, loop, key) == [value]


def test_what_was_put_is_there_until_it_expires(
    new_cache: NewCache, redis_db: str, store_loop: asyncio.AbstractEventLoop
) -> None:
    cache = new_cache(redis_db)
    filled(cache, store_loop, "long", b"\x00\r\nvalue")
    filled(cache, store_loop, "short", b"value", seconds=0.5)

    eventually(lambda: asked(cache, store_loop, "short") == [None], within_seconds=30)

    assert asked(cache, store_loop, "long", "never", "long") == [b"\x00\r\nvalue", None, b"\x00\r\nvalue"]


def test_the_right_to_fill_a_key_has_one_process_at_a_time(
    new_cache: NewCache, redis_db: str, store_loop: asyncio.AbstractEventLoop
) -> None:
    first, second = new_cache(redis_db), new_cache(redis_db)

    def claimed(cache: Cache) -> tuple[bytes | None, bool]:
        claim = asyncio.run_coroutine_threadsafe(cache.claim("key"), store_loop).result(30)
        return claim.value, claim.mine

    assert claimed(first) == (None, True)
    # Whoever has it and dies does not keep it.
    eventually(lambda: claimed(second) == (None, True), within_seconds=30)
    store_loop.call_soon_threadsafe(second.release, "key")
    eventually(lambda: claimed(first) == (None, True), within_seconds=30)
    filled(first, store_loop, "key", b"value")
    assert claimed(second) == (b"value", False)


def test_what_is_asked_at_once_gets_each_its_own_answer(
    new_cache: NewCache, redis_db: str, store_loop: asyncio.AbstractEventLoop
) -> None:
    cache = new_cache(redis_db)
    for number in range(20):
        filled(cache, store_loop, f"key-{number}", str(number).encode())

    async def ask_all() -> list[list[bytes | None]]:
        return await asyncio.gather(*(cache.get([f"key-{number % 20}"]) for number in range(1000)))

    answers = asyncio.run_coroutine_threadsafe(ask_all(), store_loop).result(30)

    assert answers == [[str(number % 20).encode()] for number in range(1000)]


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_a_server_that_is_gone_costs_little_and_is_found_again(
    cache_server: Redis, new_cache: NewCache, store_loop: asyncio.AbstractEventLoop, harm: str
) -> None:
    cache = new_cache(cache_server.url(), answer_seconds=BUDGET_SECONDS)
    eventually(lambda: _is_kept(cache, store_loop), within_seconds=LONGEST_REST_SECONDS)

    (cache_server.kill if harm == "kill" else cache_server.process.freeze)()
    began = time.monotonic()
    during = [asked(cache, store_loop, "key") for _ in range(100)]
    took = time.monotonic() - began
    lost = eventually(lambda: not cache.connected, within_seconds=30)
    (cache_server.start if harm == "kill" else cache_server.process.thaw)()

    assert during == [[None]] * 100
    assert (lost, took < PATIENCE_SECONDS) == (True, True)
    eventually(lambda: _is_kept(cache, store_loop), within_seconds=LONGEST_REST_SECONDS)


def test_a_line_that_fails_in_a_way_of_its_own_is_lost_and_replaced(
    new_cache: NewCache, redis_db: str, store_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = new_cache(redis_db)
    filled(cache, store_loop, "key", b"value")
    traces = []

    async def refuse(*args: object, **options: object) -> None:
        traces.append(structlog.contextvars.get_contextvars())
        raise RuntimeError("unable to perform operation; the handler is closed")

    async def close_and_refuse(line: AbstractConnection, **options: object) -> None:
        await close(line, nowait=True)
        await refuse()

    close = AbstractConnection.disconnect
    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", refuse)
        patch.setattr(AbstractConnection, "disconnect", close_and_refuse)
        with structlog.contextvars.bound_contextvars(trace_id="of a request"):
            during = asked(cache, store_loop, "key")
        lost = not cache.connected
        # That of the question, its line's end, and a connection that fails in the same way and is ended.
        eventually(lambda: len(traces) >= 4, within_seconds=LONGEST_REST_SECONDS)

    assert (during, lost) == ([None], True)
    assert all(trace == {} for trace in traces)
    eventually(lambda: asked(cache, store_loop, "key") == [b"value"], within_seconds=LONGEST_REST_SECONDS)


def test_a_late_answer_is_never_taken_for_another(
    cache_server: Redis, new_cache: NewCache, new_proxy: NewProxy, store_loop: asyncio.AbstractEventLoop
) -> None:
    proxy = new_proxy(cache_server.port)
    cache = new_cache(f"redis://127.0.0.1:{proxy.port}/0", answer_seconds=BUDGET_SECONDS)
    eventually(lambda: _is_kept(cache, store_loop, "one", b"1"), within_seconds=LONGEST_REST_SECONDS)
    eventually(lambda: _is_kept(cache, store_loop, "two", b"2"), within_seconds=LONGEST_REST_SECONDS)

    proxy.hang()
    hung = asked(cache, store_loop, "one")
    proxy.resume()
    found = eventually(lambda: asked(cache, store_loop, "two")[0], within_seconds=LONGEST_REST_SECONDS)

    assert (hung, found) == ([None], b"2")


def test_a_full_server_forgets_what_nobody_asks_for(
    cache_server: Redis, new_cache: NewCache, store_loop: asyncio.AbstractEventLoop
) -> None:
    cache = new_cache(cache_server.url())
    with Client.from_url(cache_server.url()) as client:
        client.config_set("maxmemory", "4mb")

    for number in range(200):
        filled(cache, store_loop, f"key-{number}", b"x" * 65_536)

    known = asked(cache, store_loop, *(f"key-{number}" for number in range(200)))
    assert 0 < len([value for value in known if value]) < 100


def test_a_full_server_that_forgets_nothing_still_shows_what_it_has(
    cache_server: Redis, new_cache: NewCache, store_loop: asyncio.AbstractEventLoop
) -> None:
    cache = new_cache(cache_server.url())
    filled(cache, store_loop, "key", b"value")
    with Client.from_url(cache_server.url()) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1kb")

    claims = [
        asyncio.run_coroutine_threadsafe(cache.claim(key), store_loop).result(30) for key in ("key", "other", "other")
    ]

    assert [(claim.value, claim.mine) for claim in claims] == [(b"value", False), (None, True), (None, True)]


def test_a_process_starts_without_its_cache(store_loop: asyncio.AbstractEventLoop) -> None:
    cache = RedisCache(f"redis://127.0.0.1:{free_ports(1)[0]}/0", answer_seconds=BUDGET_SECONDS)
    asyncio.run_coroutine_threadsafe(cache.start(), store_loop).result(30)

    assert asked(cache, store_loop, "key") == [None]
    asyncio.run_coroutine_threadsafe(cache.stop(), store_loop).result(30)


def test_a_malformed_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="cache_url"):
        RedisCache("http://127.0.0.1", answer_seconds=1)


def _is_kept(cache: Cache, loop: asyncio.AbstractEventLoop, key: str = "key", value: bytes = b"value") -> bool:
    loop.call_soon_threadsafe(cache.put, [Kept(key, value, 60.0)])
    return asked(cache, loop, key) == [value]
