"""Lets callers in: API keys, looked up once in a few seconds, and what each of them may do."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime

from taskplatform.auth import ApiKey, Scope, parse_key
from taskplatform.errors import NotAuthenticated, StoreUnavailable
from taskplatform.store.contract import OperateStore

CACHE_SECONDS = 5.0
AHEAD_SECONDS = 2.0
"""How long before that time is over a key in use is looked up again, so that nobody who uses it waits for the store."""
CACHE_KEYS = 10_000
ANSWER_SECONDS = 1.0
"""How long the store may take to look up again a key that was good a moment ago."""
OUTAGE_SECONDS = 900.0
"""How long a good key that was seen lately opens the door while the store is away."""


_LookUp = Callable[[], Awaitable[ApiKey | None]]


@dataclass(frozen=True, slots=True)
class _Remembered:
    key: ApiKey | None
    looked_up_at: float
    until: float


class Keys:
    """The API keys that this process saw lately, good and bad ones.

    A revoked key works CACHE_SECONDS more at most; while the store is away, as long as that, OUTAGE_SECONDS at most.
    """

    def __init__(self, store: OperateStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[ApiKey | None]] = {}

    async def admit(self, authorization: bytes | None, scope: Scope) -> ApiKey:
        """Give the key that an Authorization header carries.

        Raises NotAuthenticated, NotAllowed when the key lacks the scope, and StoreUnavailable.
        """
        if authorization is None:
            raise NotAuthenticated("no API key was sent")
        # Texts of keys are not kept: a dump of this process would hold them.
        digest = hashlib.sha256(authorization).digest()
        return _living(await self._known(digest, lambda: self._checked(authorization)), scope)

    async def admit_again(self, key_id: str, scope: Scope) -> ApiKey:
        """Give a key that was admitted before, by its id alone; raises what `admit` does."""
        return _living(await self._known(key_id.encode(), lambda: self._unrevoked(key_id)), scope)

    async def _known(self, name: bytes, look_up: _LookUp) -> ApiKey | None:
        before = self._remembered.get(name)
        left_seconds = 0.0 if before is None else before.until - self._clock()
        if before is not None and left_seconds > AHEAD_SECONDS:
            return before.key
        looking = self._looking.get(name) or self._begin(name, before, look_up)
        if before is not None and left_seconds > 0:
            return before.key
        # Who stops waiting leaves the others to the one look-up.
        return await asyncio.shield(looking)

    def _begin(self, name: bytes, before: _Remembered | None, look_up: _LookUp) -> asyncio.Task[ApiKey | None]:
        # It may outlive this request, and is no part of its trace.
        looking = asyncio.get_running_loop().create_task(
            self._look_up(name, before, look_up), name="API key", context=Context()
        )
        self._looking[name] = looking
        looking.add_done_callback(lambda done: self._ended(name, done))
        return looking

    def _ended(self, name: bytes, done: asyncio.Task[ApiKey | None]) -> None:
        del self._looking[name]
        if not done.cancelled():
            # Nobody may have waited for it.
            done.exception()

    async def _look_up(self, name: bytes, before: _Remembered | None, look_up: _LookUp) -> ApiKey | None:
        try:
            async with asyncio.timeout(None if before is None else ANSWER_SECONDS):
                found = await look_up()
        except (StoreUnavailable, TimeoutError):
            now = self._clock()
            if before is None or before.key is None or before.looked_up_at + OUTAGE_SECONDS < now:
                raise StoreUnavailable("the API key cannot be looked up at the moment") from None
            # Nobody else has to find out for a moment that the store is away.
            self._remembered[name] = _Remembered(before.key, before.looked_up_at, now + CACHE_SECONDS)
            return before.key
        now = self._clock()
        self._remembered[name] = _Remembered(found, now, now + CACHE_SECONDS)
        self._remembered.move_to_end(name)
        if len(self._remembered) > CACHE_KEYS:
            self._remembered.popitem(last=False)
        return found

    async def _checked(self, authorization: bytes) -> ApiKey | None:
        key_id, secret = _credentials(authorization)
        found = await self._store.key(key_id)
        try:
            if found is not None:
                found.check(secret, datetime.now(UTC))
        except NotAuthenticated:
            return None
        return found

    async def _unrevoked(self, key_id: str) -> ApiKey | None:
        found = await self._store.key(key_id)
        return None if found is None or found.revoked_at is not None else found


def _living(key: ApiKey | None, scope: Scope) -> ApiKey:
    if key is None or (key.expires_at is not None and key.expires_at <= datetime.now(UTC)):
        raise NotAuthenticated("unknown, revoked or expired API key")
    key.require(scope)
    return key


_KEY_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def _credentials(authorization: bytes) -> tuple[str, str]:
    scheme, _, text = authorization.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or len(text) > 256:
        raise NotAuthenticated("send `Authorization: Bearer tp_…`")
    key_id, secret = parse_key(text.strip())
    if not _KEY_ID.fullmatch(key_id):
        raise NotAuthenticated("malformed API key")
    return key_id, secret
