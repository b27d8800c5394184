"""Flower as an operator sees it: behind a key, with workers, jobs under their ids, queues, and nothing to change."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
from flower.urls import handlers
from tornado.web import url

from taskplatform.auth import Scope, new_key
from taskplatform.servers import free_ports
from taskplatform.servers.process import Command, Process
from taskplatform.settings import environment_of
from taskplatform.store.opening import opened
from taskplatform.store.postgres.store import PostgresStore
from tests.browser.chromium import Page, chromium
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_ROOT = Path(__file__).resolve().parents[2]
_PICTURES = os.environ.get("TASKPLATFORM_PICTURES")
"""Where `make pictures` wants the pictures of the documentation."""
DEPTH = 3
_OPEN = {"/healthcheck", "/login/?", "/logout", "/static/(.*)"}
_WRITES = (
    "/api/task/async-apply/noop",
    "/api/task/apply/noop",
    "/api/task/send-task/noop",
    "/api/task/revoke/1",
    "/api/task/abort/1",
    "/api/task/rate-limit/noop",
    "/api/task/timeout/noop",
    "/api/worker/shutdown/w",
    "/api/worker/pool/grow/w",
    "/api/worker/pool/shrink/w",
    "/api/worker/pool/restart/w",
    "/api/worker/pool/autoscale/w",
    "/api/worker/queue/add-consumer/w",
    "/api/worker/queue/cancel-consumer/w",
)


class Place:
    """A Flower that runs over a bench."""

    def __init__(self, bench: Bench, url: str) -> None:
        self.bench = bench
        self.url = url

    def key(self, *scopes: Scope) -> str:
        key, text = new_key("acme", scopes)

        async def add() -> None:
            async with opened(PostgresStore(self.bench.dsn)) as store:
                await store.add_key(key)

        asyncio.run(add())
        return text

    def client(self, key: str = "") -> httpx2.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=self.url, headers=headers, transport=httpx2.HTTPTransport(), timeout=30.0)


@contextmanager
def flower(bench: Bench) -> Iterator[Place]:
    port = free_ports(1)[0]
    settings = bench.settings.changed(flower_port=port)
    command = Command(
        name="flower",
        argv=(sys.executable, "-m", "workers.flower"),
        log=bench.folder / "flower.log",
        env={**os.environ, **environment_of(settings), "PYTHONPATH": str(_ROOT)},
    )
    process = Process(command)
    process.start()
    place = Place(bench, f"http://127.0.0.1:{port}/flower")
    try:
        eventually(lambda: answers(place) or not process.alive, within_seconds=30)
        assert process.alive, process.log_tail(40)
        yield place
    finally:
        process.stop(within_seconds=10.0)


def answers(place: Place) -> bool:
    try:
        with place.client() as client:
            return client.get("/healthcheck").status_code == 200
    except httpx2.RequestError:
        return False


@pytest.mark.parametrize(
    ("broker", "kind"),
    [
        ("amqp_bench", "prefork"),
        ("redis_bench", "async"),
        pytest.param("amqp_bench", "async", marks=pytest.mark.long),
        pytest.param("redis_bench", "prefork", marks=pytest.mark.long),
    ],
)
def test_an_operator_sees_workers_jobs_and_queues(
    request: pytest.FixtureRequest, tmp_path: Path, broker: str, kind: str
) -> None:
    bench: Bench = request.getfixturevalue(broker)
    bench.worker(worker_kind=kind)
    (worker,) = bench.leases()
    with flower(bench) as place, chromium(tmp_path) as page:
        with place.client(place.key(Scope.WATCH)) as client:
            eventually(lambda: worker in client.get("/workers", params={"json": 1}).text, within_seconds=60)
        log_in(page, place, then="/workers")
        # A name is shown in two parts, of which the first may be shortened.
        page.shows(worker[-12:], "Online")
        job, hopeless = seen_job(bench, place), bench.submit("hopeless")
        with bench.producer() as send:
            for _ in range(DEPTH):
                send(b"nobody takes this here", "jobs.default.dead", {})
        with place.client(place.key(Scope.WATCH)) as client:
            eventually(lambda: shows(client, hopeless, "FAILURE"), within_seconds=20)

        page.open(f"{place.url}/tasks")
        page.shows(str(job), "noop", "SUCCESS", "hopeless", "FAILURE", worker[-12:])
        keep(page, "tasks", kind)
        page.open(f"{place.url}/task/{job}")
        page.shows("noop", str(job), "[4711]", "SUCCESS", worker)
        keep(page, "job", kind)
        page.open(f"{place.url}/worker/{worker}")
        page.shows(worker, "ChunkPool" if kind == "prefork" else "AsyncPool")
        page.open(f"{place.url}/broker")
        page.shows("jobs.default.high", "jobs.default.normal", "jobs.default.dead")
        eventually(lambda: depths_shown(page, place)["jobs.default.dead"] == str(DEPTH), within_seconds=20)
        keep(page, "queues", kind)
        page.open(f"{place.url}/workers")
        page.shows(worker[-12:], "Online")
        keep(page, "workers", kind)


def test_a_write_is_refused_on_every_route_whoever_asks(redis_bench: Bench, tmp_path: Path) -> None:
    redis_bench.worker()
    with flower(redis_bench) as place, place.client(place.key(Scope.ADMIN)) as client:
        refused = {path: client.post(path).status_code for path in _WRITES}

        assert refused == dict.fromkeys(_WRITES, 403)
        with chromium(tmp_path) as page:
            log_in(page, place, then="/workers")
            asked = "return fetch('/flower/api/worker/shutdown/w', {method: 'POST'}).then(answer => answer.status)"
            assert page.run(asked) == 403
        assert redis_bench.ended(redis_bench.submit("noop"))["state"] == "succeeded"


def test_no_page_is_shown_without_a_key_that_may_look(redis_bench: Bench, tmp_path: Path) -> None:
    with flower(redis_bench) as place:
        for key in ("", place.key(Scope.READ, Scope.WRITE), new_key("acme", [Scope.ADMIN])[1]):
            with place.client(key) as client:
                shown = {path for path in every_path() if client.get(path).status_code not in (401, 403)}
            assert shown == set()
        with chromium(tmp_path) as page:
            page.open(f"{place.url}/tasks")
            assert "/flower/login?next=" in page.address
            assert page.run("return [...document.styleSheets].map(sheet => sheet.cssRules.length > 0)") == [True]
            page.type("#key", place.key(Scope.READ))
            page.click("button[type=submit]")
            page.shows("this API key lacks the scope platform:read")


def test_a_session_ends_with_its_key(redis_bench: Bench, tmp_path: Path) -> None:
    with flower(redis_bench) as place, chromium(tmp_path) as page:
        key = place.key(Scope.WATCH)
        log_in(page, place, then="/broker", key=key)
        page.shows("jobs.default.normal")

        asyncio.run(revoke(redis_bench, key.split("_")[1]))

        eventually(lambda: "login" in reopened(page, f"{place.url}/broker"), within_seconds=20)


def log_in(page: Page, place: Place, *, then: str, key: str = "") -> None:
    page.open(f"{place.url}{then}")
    page.type("#key", key or place.key(Scope.WATCH))
    page.click("button[type=submit]")
    eventually(lambda: page.address == f"{place.url}{then}", within_seconds=20)


def depths_shown(page: Page, place: Place) -> dict[str, str]:
    """Give the figure beside the name of each queue."""
    page.open(f"{place.url}/broker")
    page.shows("jobs.default.dead")
    rows = page.run(
        "return [...document.querySelectorAll('tbody tr')].map(row => [...row.cells].map(one => one.innerText))"
    )
    return {cells[0].strip(): cells[1].strip() for cells in rows}


def seen_job(bench: Bench, place: Place) -> UUID:
    """Give a job that Flower has followed to its end: it begins to listen some time after its start."""
    with place.client(place.key(Scope.WATCH)) as client:
        for _ in range(20):
            job = bench.submit("noop", 4711)
            bench.ended(job)
            with suppress(AssertionError):
                eventually(partial(shows, client, job, "SUCCESS"), within_seconds=3)
                return job
    pytest.fail("Flower follows no job")


def shows(client: httpx2.Client, job: UUID, state: str) -> bool:
    answer = client.get(f"/api/task/info/{job}")
    return answer.status_code == 200 and bool(answer.json()["state"] == state)


def every_path() -> list[str]:
    patterns = [spec.regex.pattern.rstrip("$") if isinstance(spec, url) else spec[0] for spec in handlers]
    paths = [re.sub(r"\(\.[+*]\)|\.\*", "x", pattern) for pattern in patterns if pattern not in _OPEN]
    assert len(paths) > 25
    return paths


def reopened(page: Page, url: str) -> str:
    page.open(url)
    return page.address


async def revoke(bench: Bench, key_id: str) -> None:
    async with opened(PostgresStore(bench.dsn)) as store:
        assert await store.revoke_key(key_id)


def keep(page: Page, name: str, kind: str) -> None:
    if _PICTURES and kind == "prefork":
        (Path(_PICTURES) / f"flower-{name}.png").write_bytes(page.picture())
