"""Reads of jobs, and their cancel."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from api.exchange import wait_seconds
from api.pages import page_size
from api.routes import Canceller, Here, Reader, Seen, answer, route
from api.services import Services
from api.views import Attempts, JobPage, JobView, attempt_view, job_view
from taskplatform.auth import ApiKey
from taskplatform.cache.entry import kept_until
from taskplatform.errors import InvalidInput, NotFound
from taskplatform.freshness import LATEST, Position
from taskplatform.job import Job, State
from taskplatform.store.contract import AuditEntry, JobFilter
from taskplatform.submission import MAX_TAG_LENGTH
from taskplatform.task import NAME_PATTERN, POOL_PATTERN

MOST_IDS = 100
LONGEST_AGE_SECONDS = 31_536_000

router = APIRouter(tags=["jobs"])


class Prefers(BaseModel):
    """The headers that shape a read."""

    prefer: str | None = Field(None, description="`wait=N`: answer when the job has ended, or after N seconds.")
    if_none_match: str | None = Field(None, description="An ETag: answer 304 while it still fits.")


class JobQuery(BaseModel):
    """What a list of jobs is narrowed to."""

    ids: str | None = Field(
        None, max_length=4000, description=f"Up to {MOST_IDS} ids, comma-separated; nothing else counts."
    )
    state: str | None = Field(None, max_length=200, description=f"Comma-separated: {', '.join(State)}.")
    task: str | None = Field(None, pattern=NAME_PATTERN)
    pool: str | None = Field(None, pattern=POOL_PATTERN)
    tag: str | None = Field(None, max_length=MAX_TAG_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    page_size: int | None = Field(None, description="50 where it is left out; more than 1000 is 1000.")
    page_token: str = Field("", max_length=500, description="The `next_page_token` of the page before.")


@route(router, "GET", "/v1/jobs/{job_id:uuid}", shows=JobView, also="The job is still as `If-None-Match` says.")
async def get_job(
    services: Here, caller: Reader, seen: Seen, job_id: UUID, wanted: Annotated[Prefers, Header()]
) -> Response:
    """Read a job. Its ETag changes with every transition."""
    job = await _shown(services, caller, job_id, seen)
    headers: dict[str, str] = {}
    seconds = wait_seconds((wanted.prefer or "").encode("latin-1", "replace"), services.settings.wait_limit_seconds)
    if seconds:
        headers["preference-applied"] = f"wait={seconds}"
        if not job.done and await services.waiter.wait(job_id, seconds, seen):
            job = await _shown(services, caller, job_id, seen.joined(services.store.position or LATEST))
    headers |= _caching(job, services)
    if wanted.if_none_match is not None and _matches(wanted.if_none_match, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return answer(job_view(job), headers=headers)


@route(router, "GET", "/v1/jobs", shows=JobPage)
async def list_jobs(
    request: Request, services: Here, caller: Reader, seen: Seen, query: Annotated[JobQuery, Query()]
) -> Response:
    """List jobs, the newest first."""
    if query.ids is not None:
        found = await services.lookups.many(caller.tenant, _ids(query.ids), seen)
        return answer(JobPage(jobs=[job_view(job) for job in found.values()], next_page_token=""))
    wanted = _filter(query, caller.tenant)
    filters = ["jobs", caller.tenant, *query.model_dump(mode="json", exclude={"page_size", "page_token"}).values()]
    if query.page_token:
        wanted = replace(wanted, before=UUID(services.pages.read(query.page_token, filters)))
    size = page_size(query.page_size)
    found_jobs = await services.store.search(wanted, size + 1, seen)
    page, more = found_jobs[:size], len(found_jobs) > size
    token = services.pages.token(str(page[-1].id), filters) if more else ""
    view = JobPage(jobs=[job_view(job) for job in page], next_page_token=token)
    return answer(view, headers={"cache-control": "no-store", **link_to_next(request, token)})


@route(router, "POST", "/v1/jobs/{job_id:uuid}:cancel", shows=JobView)
async def cancel_job(services: Here, caller: Canceller, job_id: UUID) -> Response:
    """Cancel a job, and show it as it then stands: one that has ended stays as it was."""
    await _own(services, caller, job_id)
    if await services.store.cancel(caller.tenant, [job_id]):
        entry = AuditEntry(tenant=caller.tenant, actor=caller.id, action="job.cancel", target=str(job_id))
        await services.store.audit(entry)
    return answer(job_view(await _own(services, caller, job_id)))


@route(router, "GET", "/v1/jobs/{job_id:uuid}/attempts", shows=Attempts)
async def list_attempts(services: Here, caller: Reader, seen: Seen, job_id: UUID) -> Response:
    """List every run of a job in order, the running one last."""
    await _shown(services, caller, job_id, seen)
    found = await services.store.attempts(job_id, seen)
    return answer(Attempts(attempts=[attempt_view(attempt) for attempt in found]))


def link_to_next(request: Request, token: str) -> dict[str, str]:
    """Give the Link header (RFC 8288) of a page that is not the last."""
    if not token:
        return {}
    parameters = {**request.query_params, "page_token": token}
    return {"link": f'<{request.url.path}?{urlencode(parameters)}>; rel="next"'}


async def _own(services: Services, caller: ApiKey, job_id: UUID) -> Job:
    job = (await services.store.get([job_id])).get(job_id)
    if job is None or job.tenant != caller.tenant:
        raise NotFound
    return job


async def _shown(services: Services, caller: ApiKey, job_id: UUID, seen: Position) -> Job:
    job = await services.lookups.one(caller.tenant, job_id, seen)
    if job is None:
        raise NotFound
    return job


def _caching(job: Job, services: Services) -> dict[str, str]:
    headers = {"etag": f'"{job.version}"', "vary": "Authorization"}
    if not job.done:
        return headers | {"cache-control": "private, no-store", "retry-after": "1"}
    if job.state is State.DEAD:
        return headers | {"cache-control": "private, no-cache"}
    left = int((kept_until(job, services.retention) - services.now()).total_seconds())
    return headers | {"cache-control": f"private, max-age={min(max(left, 0), LONGEST_AGE_SECONDS)}, immutable"}


def _matches(if_none_match: str, etag: str) -> bool:
    sent = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return etag in sent or "*" in sent


def _ids(text: str) -> list[UUID]:
    parts = text.split(",")
    if len(parts) > MOST_IDS:
        raise InvalidInput(f"at most {MOST_IDS} ids at once", pointer="/query/ids")
    try:
        return [UUID(part) for part in parts]
    except ValueError:
        raise InvalidInput("ids are UUIDs, comma-separated", pointer="/query/ids") from None


def _filter(query: JobQuery, tenant: str) -> JobFilter:
    try:
        states = frozenset(State(part.strip()) for part in query.state.split(",")) if query.state else frozenset()
    except ValueError:
        raise InvalidInput(f"a state is one of {', '.join(State)}", pointer="/query/state") from None
    return JobFilter(
        tenant=tenant,
        states=states,
        task=query.task,
        pool=query.pool,
        tag=query.tag,
        created_after=query.created_after,
        created_before=query.created_before,
    )
