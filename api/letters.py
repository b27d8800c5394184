"""Dead letters: what ended where an operator has to look, and its replay."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from api.jobs import link_to_next
from api.pages import page_size
from api.routes import Here, Reader, Replayer, Seen, answer, route
from api.services import Services
from api.views import DeadLetterPage, DeadLetterView, JobView, job_view, letter_view
from taskplatform import payload, submission
from taskplatform.auth import ApiKey, Scope
from taskplatform.errors import Conflict, InvalidInput, NotFound
from taskplatform.ids import Locator, new_job_id, shard_of_key
from taskplatform.job import DeadLetter, NewJob
from taskplatform.shards import continued
from taskplatform.store.contract import Accepted, AuditEntry, LetterFilter, Replayed
from taskplatform.task import NAME_PATTERN

router = APIRouter(tags=["dead letters"])

LONGEST_TOKEN = 1500
"""A token holds the last row of each cluster: with MOST_CLUSTERS of them, and the largest numbers, it fits."""

LetterId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class LetterQuery(BaseModel):
    """What a list of dead letters is narrowed to."""

    reason: str | None = Field(None, pattern=r"^[a-z_]{1,64}$")
    task: str | None = Field(None, pattern=NAME_PATTERN)
    replayed: bool | None = None
    page_size: int | None = Field(None, description="50 where it is left out; more than 1000 is 1000.")
    page_token: str = Field("", max_length=LONGEST_TOKEN, description="The `next_page_token` of the page before.")


@route(router, "GET", "/v1/dead-letters", shows=DeadLetterPage)
async def list_dead_letters(
    request: Request, services: Here, caller: Reader, seen: Seen, query: Annotated[LetterQuery, Query()]
) -> Response:
    """List dead letters, the newest first; an administrator's key shows those of all tenants."""
    wanted = LetterFilter(tenant=_tenant(caller), reason=query.reason, task=query.task, replayed=query.replayed)
    filters = ["letters", wanted.tenant, query.reason, query.task, query.replayed]
    if query.page_token:
        last = services.pages.read(query.page_token, filters)
        wanted = replace(wanted, before=tuple(int(row) for row in last.split(",")))
    size = page_size(query.page_size)
    found = await services.store.letters(wanted, size + 1, seen)
    page = found[:size]
    last = ",".join(map(str, continued(wanted.before, (letter.id for letter in page))))
    token = services.pages.token(last, filters) if len(found) > size else ""
    view = DeadLetterPage(dead_letters=[letter_view(letter) for letter in page], next_page_token=token)
    return answer(view, headers={"cache-control": "no-store", **link_to_next(request, token)})


@route(router, "GET", "/v1/dead-letters/{letter_id}", shows=DeadLetterView)
async def get_dead_letter(services: Here, caller: Reader, letter_id: LetterId) -> Response:
    """Read a dead letter whole, with the raw message where there is one."""
    return answer(letter_view(await _own(services, caller, letter_id), whole=True))


@route(router, "POST", "/v1/dead-letters/{letter_id}:replay", shows=JobView, status=202)
async def replay_dead_letter(services: Here, caller: Replayer, letter_id: LetterId) -> Response:
    """Run a dead job once more, in a new series of attempts, or hand in again a message that never became a job.

    A message is checked like any submission: by now its task may be known.
    """
    letter = await _own(services, caller, letter_id)
    if letter.replayed_at is not None:
        raise _not_replayable("it was replayed before")
    job_id = await _replay_job(services, letter) or await _hand_in(services, caller, letter)
    detail = f"job {job_id}"
    await services.store.audit(
        AuditEntry(
            tenant=caller.tenant, actor=caller.id, action="dead_letter.replay", target=str(letter_id), detail=detail
        )
    )
    job = (await services.store.get([job_id])).get(job_id)
    if job is None:
        raise NotFound
    return answer(job_view(job), status=202, headers={"cache-control": "no-store", "location": f"/v1/jobs/{job_id}"})


def _tenant(caller: ApiKey) -> str | None:
    return None if Scope.ADMIN in caller.scopes else caller.tenant


async def _own(services: Services, caller: ApiKey, letter_id: int) -> DeadLetter:
    letter = await services.store.letter(letter_id)
    if letter is None or (letter.tenant != caller.tenant and Scope.ADMIN not in caller.scopes):
        raise NotFound
    return letter


async def _replay_job(services: Services, letter: DeadLetter) -> UUID | None:
    if letter.job_id is None or letter.tenant is None:
        return None
    releases = await services.store.replay(letter.tenant, [letter.job_id])
    if not releases:
        return None
    await services.intake.publish(releases)
    return letter.job_id


async def _hand_in(services: Services, caller: ApiKey, letter: DeadLetter) -> UUID:
    job = await _job_of(services, letter, letter.tenant or caller.tenant)
    (stored,) = await services.intake.submit([job])
    match stored.verdict:
        case Accepted(id=job_id) | Replayed(id=job_id):
            await services.store.mark_replayed(letter.id)
            return job_id
    raise _not_replayable("the store refuses it")


async def _job_of(services: Services, letter: DeadLetter, tenant: str) -> NewJob:
    try:
        headers = msgspec.json.decode(letter.headers or "{}", type=dict[str, object])
        task = letter.task or str(headers.get("task", ""))
        args, kwargs = payload.decode_body(letter.raw or b"")
        body = msgspec.json.encode({"task": task, "args": args, "kwargs": kwargs})
        request = submission.read(body)
    except (msgspec.DecodeError, InvalidInput):
        raise _not_replayable("its message holds no job") from None
    checker = await services.catalogue.find(task)
    caller = submission.Caller(tenant=tenant, pools=services.settings.pools)
    # The key makes one job of a replay that is asked for twice at once.
    key = f"dead-letter:{letter.id}"
    job_id = new_job_id(Locator(region=services.settings.region, shard=shard_of_key(tenant, key)))
    return submission.new_job(request, checker, caller, now=services.now(), job_id=job_id, key=key)


def _not_replayable(why: str) -> Conflict:
    return Conflict(f"this dead letter cannot be replayed: {why}")
