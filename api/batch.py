"""`POST /v1/jobs:batch`: many jobs in one request; a bad one harms no other."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from msgspec import UNSET

from api.exchange import Exchange, Headers
from api.problems import CONTENT_TYPE, Problem, headers_of, problem, problem_of
from api.services import Services
from api.submit import Maker, header_key
from api.views import BatchAnswer, BatchAnswers, RejectedBatch, encode
from taskplatform import strict_json, submission
from taskplatform.auth import ApiKey, Scope
from taskplatform.errors import InvalidInput
from taskplatform.intake import Stored
from taskplatform.job import NewJob, State
from taskplatform.store.contract import Accepted, KeyTaken, LeftOut, RefusedJob, Replayed

NDJSON = b"application/x-ndjson"
TYPES = (b"application/json", NDJSON)
LONGEST_BATCH_KEY = submission.MAX_KEY_LENGTH - 6
"""The key of a batch leaves room for the number of the item."""
_TURN_ITEMS = 100
_NOT_KEPT: Headers = [(b"cache-control", b"no-store")]


class SubmitBatch:
    """Takes batches, as a JSON array or as NDJSON."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, exchange: Exchange) -> None:
        """Answer 202 when all items are accepted, 207 when some are, 422 when none is."""
        settings = self._services.settings
        caller = await self._services.keys.admit(exchange.headers.get(b"authorization"), Scope.WRITE)
        body = await exchange.body(settings.batch_limit_bytes, TYPES)
        atomic = _atomic(exchange.query)
        lines = exchange.headers.get(b"content-type", b"").lower().startswith(NDJSON)
        items = _lines(body) if lines else _array(body)
        if not items:
            raise InvalidInput("the batch is empty")
        if len(items) > settings.batch_limit_items:
            raise InvalidInput(f"a batch has at most {settings.batch_limit_items} items", code="body_too_large")
        made = await self._make(exchange, caller, items, atomic=atomic)
        answers = await (self._store_whole(made) if atomic else self._store_each(made))
        await _answer(exchange, answers)

    async def _make(
        self, exchange: Exchange, caller: ApiKey, items: Sequence[bytes], *, atomic: bool
    ) -> list[NewJob | Problem]:
        maker = Maker(self._services, caller, exchange)
        batch_key = _batch_key(exchange)
        # One transaction, so one home: with a key that of all its jobs, which is the same when it comes as not atomic.
        shard = maker.shard(None if batch_key is None else f"{batch_key}#1") if atomic else None
        made: list[NewJob | Problem] = []
        for index, item in enumerate(items, start=1):
            if index % _TURN_ITEMS == 0:
                # A long batch lets others have their turn.
                await asyncio.sleep(0)
            try:
                strict_json.utf8(item)
                request = submission.read_item(item)
                key = _item_key(request, batch_key, index, atomic=atomic)
                made.append(await maker.make(request, key, shard))
            except InvalidInput as error:
                made.append(problem_of(error))
        return made

    async def _store_each(self, made: Sequence[NewJob | Problem]) -> list[BatchAnswer]:
        jobs = [item for item in made if isinstance(item, NewJob)]
        stored = await self._services.detour.submit(jobs) if jobs else []
        states = await self._states(stored)
        left = iter(stored)
        return [_refusal(item) if isinstance(item, Problem) else _verdict(next(left), states) for item in made]

    async def _store_whole(self, made: Sequence[NewJob | Problem]) -> list[BatchAnswer]:
        jobs = _as_one([item for item in made if isinstance(item, NewJob)])
        if len(jobs) < len(made):
            return [_refusal(item if isinstance(item, Problem) else _BY_ANOTHER) for item in made]
        stored = await self._services.detour.submit(jobs, whole=True)
        states = await self._states(stored)
        return [_verdict(one, states) for one in stored]

    async def _states(self, stored: Sequence[Stored]) -> Mapping[UUID, State]:
        replayed = [one.verdict.id for one in stored if isinstance(one.verdict, Replayed)]
        found = await self._services.store.get(replayed) if replayed else {}
        return {job_id: job.state for job_id, job in found.items()}


def _atomic(query: bytes) -> bool:
    match parse_qs(query.decode("latin-1"), keep_blank_values=True).get("atomic", ["false"])[-1]:
        case "true":
            return True
        case "false":
            return False
    raise InvalidInput("atomic is true or false", pointer="/query/atomic")


def _array(body: bytes) -> list[bytes]:
    strict_json.utf8(body)
    return [bytes(item) for item in submission.read_array(body)]


def _lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _batch_key(exchange: Exchange) -> str | None:
    key = header_key(exchange)
    if key is not None and len(key) > LONGEST_BATCH_KEY:
        detail = f"the idempotency key of a batch has at most {LONGEST_BATCH_KEY} characters"
        raise InvalidInput(detail, code="invalid_idempotency_key")
    return key


def _item_key(request: submission.Request, batch_key: str | None, index: int, *, atomic: bool) -> str | None:
    own = request.own_key
    if own is None:
        return None if batch_key is None else f"{batch_key}#{index}"
    if atomic:
        detail = "an atomic batch has one key for all, in the header Idempotency-Key"
        raise InvalidInput(detail, code="invalid_idempotency_key", pointer="/idempotency_key")
    return submission.check_key(own)


def _as_one(jobs: Sequence[NewJob]) -> list[NewJob]:
    if not jobs or jobs[0].key is None:
        return list(jobs)
    whole = hashlib.sha256("".join(str(job.fingerprint) for job in jobs).encode()).hexdigest()
    return [msgspec.structs.replace(job, fingerprint=whole) for job in jobs]


def _verdict(stored: Stored, states: Mapping[UUID, State]) -> BatchAnswer:
    match stored.verdict:
        case Accepted(id=job_id):
            return BatchAnswer(status=202, id=job_id, state=stored.state)
        case Replayed(id=job_id):
            return BatchAnswer(status=202, id=job_id, state=states.get(job_id, UNSET), replayed=True)
        case KeyTaken():
            return _refusal(problem("idempotency_key_reused"))
        case RefusedJob(error=error):
            return _refusal(problem_of(error))
        case LeftOut():
            return _refusal(_BY_ANOTHER)


def _refusal(refusal: Problem) -> BatchAnswer:
    return BatchAnswer(status=refusal.status, problem=refusal)


async def _answer(exchange: Exchange, answers: list[BatchAnswer]) -> None:
    rejected = sum(answer.problem is not UNSET for answer in answers)
    accepted = len(answers) - rejected
    if accepted:
        body = encode(BatchAnswers(accepted=accepted, rejected=rejected, items=answers))
        await exchange.answer(207 if rejected else 202, body, _NOT_KEPT)
        return
    whole = problem("batch_rejected")
    body = encode(
        RejectedBatch(
            type=whole.type,
            title=whole.title,
            status=whole.status,
            detail=whole.detail,
            code=whole.code,
            retryable=whole.retryable,
            accepted=0,
            rejected=rejected,
            items=answers,
        )
    )
    await exchange.answer(whole.status, body, headers_of(whole), kind=(b"content-type", CONTENT_TYPE))


_BY_ANOTHER = problem("batch_rejected", "not stored, since another item of the atomic batch was refused")
