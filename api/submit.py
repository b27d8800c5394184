"""`POST /v1/jobs`: one job in, durable when the answer says 202."""

from __future__ import annotations

from datetime import datetime

from api.detour import Direct
from api.exchange import Exchange, Headers, wait_seconds
from api.services import Services
from api.views import encode, job_view, new_job_view
from taskplatform import strict_json, submission
from taskplatform.auth import ApiKey, Scope
from taskplatform.errors import Conflict, KeyReused, OutcomeUnknown, Unavailable
from taskplatform.ids import REGIONS, SHARDS, Locator, new_job_id, shard_of_key
from taskplatform.intake import Stored
from taskplatform.job import NewJob
from taskplatform.payload import trace_of
from taskplatform.store.contract import Accepted, KeyTaken, RefusedJob

JSON = (b"application/json",)
LONGEST_RETRY_AFTER_SECONDS = 60
REPLAYED = (b"idempotency-replayed", b"true")
_NOT_KEPT = (b"cache-control", b"no-store")


class Maker:
    """Makes the jobs of one request out of its submissions."""

    def __init__(self, services: Services, caller: ApiKey, exchange: Exchange) -> None:
        self._catalogue = services.catalogue
        self._since = services.catalogue.now()
        self._homes = _HOMES[services.settings.region]
        self._any_shard = services.detour.any_shard
        self._now = services.now()
        self._caller = submission.Caller(
            tenant=caller.tenant,
            pools=services.settings.pools,
            trace=trace_of(exchange.headers.get(b"traceparent", b"").decode("latin-1")),
        )

    def shard(self, key: str | None) -> int:
        """Tell the shard of a job with this key, or choose one. Raises StoreUnavailable where it cannot be known."""
        return self._any_shard() if key is None else shard_of_key(self._caller.tenant, key)

    async def make(self, request: submission.Request, key: str | None, shard: int | None = None) -> NewJob:
        """Make one job, in its own shard or in the one that is given. Raises InvalidInput."""
        name = request.wanted.task
        checker = self._catalogue.known(name) or await self._catalogue.find(name, since=self._since)
        job_id = new_job_id(self._homes[self.shard(key) if shard is None else shard])
        return submission.new_job(request, checker, self._caller, now=self._now, job_id=job_id, key=key)


class SubmitOne:
    """Takes single submissions."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, exchange: Exchange) -> None:
        """Answer 202 with the job, or 200 when the caller waited for its end."""
        services = self._services
        caller = await services.keys.admit(exchange.headers.get(b"authorization"), Scope.WRITE)
        body = await exchange.body(services.settings.body_limit_bytes, JSON)
        strict_json.utf8(body)
        key = header_key(exchange)
        job = await Maker(services, caller, exchange).make(submission.read(body), key)
        (stored,) = await services.detour.submit([job])
        await self._answer(exchange, job, stored)

    async def _answer(self, exchange: Exchange, job: NewJob, stored: Stored) -> None:
        verdict = stored.verdict
        match verdict:
            case KeyTaken():
                raise KeyReused
            case RefusedJob(error=error):
                raise error
        headers: Headers = [(b"location", f"/v1/jobs/{verdict.id}".encode()), _NOT_KEPT]
        seconds = wait_seconds(exchange.headers.get(b"prefer"), self._services.settings.wait_limit_seconds)
        if isinstance(stored, Direct):
            # Nobody sees it before its row is made.
            seconds = 0
        if seconds:
            headers.append((b"preference-applied", f"wait={seconds}".encode()))
            await self._services.waiter.wait(verdict.id, seconds)
        if isinstance(verdict, Accepted):
            fresh = encode(
                new_job_view(job, state=stored.state, blocked_on=stored.blocked_on, created_at=verdict.created_at)
            )
            status, body = await self._reread(job, fresh) if seconds else (202, fresh)
        else:
            headers.append(REPLAYED)
            found = (await self._services.store.get([verdict.id])).get(verdict.id)
            if found is None:
                raise Conflict("the job that this idempotency key names is no longer kept")
            status, body = 200 if seconds and found.done else 202, encode(job_view(found))
        if status == 202:
            headers.append((b"retry-after", _retry_after(job.due_at, self._services.now())))
        await exchange.answer(status, body, headers)

    async def _reread(self, job: NewJob, fresh: bytes) -> tuple[int, bytes]:
        try:
            found = (await self._services.store.get([job.id])).get(job.id)
        except (Unavailable, OutcomeUnknown):
            # It is accepted all the same, and that is what the caller has to hear.
            found = None
        if found is None:
            return 202, fresh
        return 200 if found.done else 202, encode(job_view(found))


def header_key(exchange: Exchange) -> str | None:
    """Read the Idempotency-Key header. Raises InvalidInput for one that is no key."""
    key = exchange.headers.get(b"idempotency-key")
    return None if key is None else submission.check_key(key.decode("latin-1"))


_HOMES = tuple(tuple(Locator(region=region, shard=shard) for shard in range(SHARDS)) for region in range(REGIONS))


def _retry_after(due_at: datetime | None, now: datetime) -> bytes:
    seconds = 1.0 if due_at is None else (due_at - now).total_seconds() + 1
    return str(int(min(max(seconds, 1.0), LONGEST_RETRY_AFTER_SECONDS))).encode()
