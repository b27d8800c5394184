"""One of two Postgres clusters is killed, frozen, or mistaken for the other under load: none of its jobs is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import reduce
from itertools import count, islice, takewhile
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock, Thread
from uuid import UUID

import httpx2
import msgspec
import psycopg
import pytest

from taskplatform.ids import locate, shard_of_key
from taskplatform.servers import Postgres
from taskplatform.shards import spread
from tests.faults.evidence import Evidence, backlog, gather, joined, watch
from tests.faults.history import Exchange, Journal
from tests.faults.ledger import judge
from tests.faults.plan import Kind, kind_of
from tests.faults.platform_api import show
from tests.faults.scene import SETTINGS
from tests.faults.tasks import EFFECTS_VARIABLE
from tests.fixtures.proxy import NewProxy, Proxy
from tests.fixtures.waiting import eventually
from tests.native.servers import Home, Servers
from tests.native.stack import Programs, Stack

_SEED = 5
_HOMES = spread(2)
_BOUND_SECONDS = 60.0
_FROZEN_SECONDS = 15.0
_ANSWERED_SECONDS = 30.0
_SOON_SECONDS = 10.0
"""Well within the time that a cluster stands still: what waits for it to go on is too late."""


class Scene:
    """A platform on two clusters, a client of it, and what it was given to do."""

    def __init__(
        self, stack: Stack, folder: Path, dsns: list[str], proxies: list[Proxy], client: httpx2.Client
    ) -> None:
        self.stack = stack
        self.dsns = dsns
        self.proxies = proxies
        self._folder = folder
        self.used: set[str] = set()
        self._client = client
        self._journal = Journal(folder / "history.jsonl")
        self._noting = Lock()
        self.numbers = (number for number in count() if kind_of(_SEED, number) is Kind.NOOP)

    def submit(
        self, task: str = "faults.noop", key: str | None = None, *, within_seconds: float = _ANSWERED_SECONDS
    ) -> tuple[httpx2.Response, UUID | None]:
        """Hand one job in, and note what came back."""
        return self.send(next(self.numbers), task, key, within_seconds=within_seconds)

    def send(
        self, number: int, task: str, key: str | None, *, within_seconds: float = _ANSWERED_SECONDS
    ) -> tuple[httpx2.Response, UUID | None]:
        """Hand in the job of a number."""
        if key is not None:
            self.used.add(key)
        body = msgspec.json.encode({"task": task, "args": [number]})
        sent_at = time.time()
        headers = {} if key is None else {"Idempotency-Key": key}
        headers["Content-Type"] = "application/json"
        answer = self._client.post("/v1/jobs", content=body, headers=headers, timeout=within_seconds)
        job_id = answer.json()["id"] if answer.status_code == 202 else None
        exchange = Exchange(
            request=number,
            numbers=[number],
            keys=[key],
            payload_sha256=hashlib.sha256(body).hexdigest(),
            sent_at=sent_at,
            answered_at=time.time(),
            status=answer.status_code,
            ids=[job_id],
        )
        with self._noting:
            self._journal.add(exchange)
        return answer, None if job_id is None else UUID(job_id)

    def get(self, path: str, *, within_seconds: float = _ANSWERED_SECONDS) -> httpx2.Response:
        """Read something."""
        return self._client.get(path, timeout=within_seconds)

    def succeeded(self, job_id: UUID) -> bool:
        """Tell whether a job has succeeded."""
        answer = self.get(f"/v1/jobs/{job_id}")
        return answer.status_code == 200 and answer.json()["state"] == "succeeded"

    def evidence(self) -> Evidence:
        """Wait until everything has ended, and gather what both clusters have."""
        eventually(
            lambda: all(backlog(dsn, self.stack.messages).empty for dsn in self.dsns), within_seconds=_BOUND_SECONDS
        )
        history, effects = self._folder / "history.jsonl", self._folder / "effects"
        found = [gather(history, effects, dsn, lambda ids: show(self.stack, ids)) for dsn in self.dsns]
        return reduce(joined, found)


class OwnRequests(Thread):
    """Hands in jobs with keys that are at home in the first cluster, and reads one of its jobs, for so many seconds.

    A request that is not answered within the client's timeout ends it.
    """

    def __init__(self, scene: Scene, job_id: UUID, seconds: float) -> None:
        super().__init__(daemon=True)
        self.answers: list[httpx2.Response] = []
        self.refused: list[tuple[int, str]] = []
        self._scene = scene
        self._job_id = job_id
        self._jobs = list(zip(islice(scene.numbers, 1000), keys_of(0), strict=False))
        self._until = time.monotonic() + seconds

    def run(self) -> None:
        """Ask one after the other."""
        for number, key in self._jobs:
            # First over connections that were there before, which hang.
            read = self._scene.get(f"/v1/jobs/{self._job_id}", within_seconds=_SOON_SECONDS)
            answer, _ = self._scene.send(number, "faults.noop", key, within_seconds=_SOON_SECONDS)
            self.answers += [read, answer]
            if answer.status_code != 202:
                self.refused.append((number, key))
            if time.monotonic() > self._until:
                return


def cluster_of(job_id: UUID) -> int:
    """Tell the cluster of a job."""
    return _HOMES[locate(job_id).shard]


def keys_of(cluster: int) -> Iterator[str]:
    """Give idempotency keys whose jobs are at home in a cluster."""
    return (key for key in map("order-{}".format, count()) if _HOMES[shard_of_key("default", key)] == cluster)


def ids_in(dsn: str) -> list[UUID]:
    """Give the jobs that a cluster keeps."""
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM jobs UNION ALL SELECT id FROM finished_jobs")]


def revive(servers: list[Postgres]) -> None:
    """Start what was killed."""
    for server in servers:
        if not server.process.alive:
            server.restart()


@pytest.fixture
def clusters(postgres: Postgres, second_postgres: Postgres) -> list[Postgres]:
    """The servers of two clusters, of which a test may kill one."""
    return [postgres, second_postgres]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proxied(Servers):
    """Servers of which Postgres is reached through a proxy."""

    proxy: Proxy

    def new_home(self) -> Home:
        """Make an empty virtual host and an empty database, named by the address of the proxy."""
        home = Servers.new_home(self)
        return dataclasses.replace(home, database_url=through(self.proxy, home.database_url, self.postgres))


def through(proxy: Proxy, dsn: str, server: Postgres) -> str:
    """Give the address at a proxy for one of the server."""
    return dsn.replace(f":{server.port}/", f":{proxy.port}/")


@pytest.fixture
def scene(servers: Servers, clusters: list[Postgres], new_proxy: NewProxy) -> Iterator[Scene]:
    """A running platform whose shards are spread over both clusters, each of them behind a proxy."""
    proxies = [new_proxy(server.port) for server in clusters]
    with ExitStack() as cleanup:
        folder = Path(mkdtemp(prefix="scene-", dir=servers.folder))
        (folder / "effects").mkdir()
        place = Proxied(folder=servers.folder, postgres=servers.postgres, rabbitmq=servers.rabbitmq, proxy=proxies[0])
        # What the worker lets go of wrongly is not mended by a relay.
        wanted = {**SETTINGS, "stranded_after_seconds": 600.0}
        stack = Stack(place, wanted, Programs(), {EFFECTS_VARIABLE: str(folder / "effects")})
        name = stack.home.name
        dsns = [clusters[0].dsn(name), clusters[1].create_database(name)]
        cleanup.callback(clusters[1].drop_database, name)
        wanted["database_cluster_urls"] = through(proxies[1], dsns[1], clusters[1])
        cleanup.enter_context(stack)
        for dsn in dsns:
            watch(dsn)
        client = httpx2.Client(
            base_url=stack.settings.api_url, headers={"Authorization": f"Bearer {stack.key}"}, timeout=30
        )
        cleanup.callback(client.close)
        # First of all, for the rest of the way out needs both.
        cleanup.callback(revive, clusters)
        yield Scene(stack, folder, dsns, proxies, client)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_jobs_of_the_other_cluster_go_on_and_none_is_lost(scene: Scene, clusters: list[Postgres]) -> None:
    for gone in (1, 0):
        early = [job for _, job in (scene.submit("faults.nap") for _ in range(24)) if job]
        clusters[gone].kill()
        key, number = next(each for each in keys_of(gone) if each not in scene.used), next(scene.numbers)
        _expect_only_its_own_to_stop(scene, gone, key, number, early)
        clusters[gone].restart()
        _expect_to_be_taken(scene, number, key)

    ledger = judge(scene.evidence(), _SEED)

    assert ledger.breaches == {}, ledger.line
    assert ledger.terminal == ledger.accepted
    assert [job for number, dsn in enumerate(scene.dsns) for job in ids_in(dsn) if cluster_of(job) != number] == []


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_jobs_of_the_other_cluster_go_on_while_the_first_one_stands_still(
    scene: Scene, clusters: list[Postgres]
) -> None:
    early = [job for _, job in (scene.submit("faults.nap") for _ in range(24)) if job]
    kept, own = (next(job for job in early if cluster_of(job) == number) for number in (1, 0))
    asking = OwnRequests(scene, own, _FROZEN_SECONDS)
    others: list[int] = []
    clusters[0].process.freeze()
    try:
        asking.start()
        for key in takewhile(lambda _: asking.is_alive(), keys_of(1)):
            others += [
                scene.submit(key=key, within_seconds=_SOON_SECONDS)[0].status_code,
                scene.get(f"/v1/jobs/{kept}", within_seconds=_SOON_SECONDS).status_code,
            ]
            if asking.refused:
                # Those with a key have to find out by themselves that the other cluster is away.
                others.append(scene.submit(within_seconds=_SOON_SECONDS)[0].status_code)
    finally:
        clusters[0].process.thaw()
    asking.join()
    for number, key in asking.refused:
        _expect_to_be_taken(scene, number, key)
    ledger = judge(scene.evidence(), _SEED)

    assert asking.refused
    assert {answer.status_code for answer in asking.answers} <= {200, 202, 503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in asking.answers if answer.status_code == 503)
    assert sum(status in (200, 202) for status in others) >= 0.999 * len(others), Counter(others)
    assert ledger.breaches == {}, ledger.line
    assert ledger.terminal == ledger.accepted


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_job_is_lost_while_the_addresses_of_the_clusters_lead_to_each_other(
    scene: Scene, clusters: list[Postgres]
) -> None:
    early = [scene.submit("faults.nap")[0].status_code for _ in range(40)]
    for proxy, server in zip(scene.proxies, reversed(clusters), strict=True):
        proxy.lead_to(server.port)
    eventually(lambda: not scene.stack.worker.ready(), within_seconds=_BOUND_SECONDS)
    meanwhile = [scene.submit()[0].status_code for _ in range(20)]
    refused = [scene.submit(key=next(keys_of(number)))[0].status_code for number in (0, 1)]

    for proxy, server in zip(scene.proxies, clusters, strict=True):
        proxy.lead_to(server.port)
    ledger = judge(scene.evidence(), _SEED)

    assert (early, meanwhile, refused) == ([202] * 40, [202] * 20, [503] * 2)
    assert ledger.breaches == {}, ledger.line
    assert ledger.terminal == ledger.accepted == 60


def _expect_to_be_taken(scene: Scene, number: int, key: str) -> None:
    eventually(lambda: scene.send(number, "faults.noop", key)[0].status_code == 202, within_seconds=_BOUND_SECONDS)


def _expect_only_its_own_to_stop(scene: Scene, gone: int, key: str, number: int, early: list[UUID]) -> None:
    left = 1 - gone
    # The first one to notice is in the broker alone, and gets its row when its cluster is back.
    eventually(lambda: (job := scene.submit()[1]) and cluster_of(job) == gone, within_seconds=_BOUND_SECONDS)
    meanwhile = [scene.submit() for _ in range(200)]
    kept, kept_id = scene.submit(key=next(each for each in keys_of(left) if each not in scene.used))
    assert [answer.status_code for answer, _ in meanwhile] == [202] * 200
    assert {cluster_of(job) for _, job in meanwhile if job} == {left}
    assert (kept.status_code, kept_id and cluster_of(kept_id)) == (202, left)
    own = [job for job in early if cluster_of(job) == left]
    eventually(
        lambda: all(scene.succeeded(job) for _, job in meanwhile if job) and all(map(scene.succeeded, own)),
        within_seconds=_BOUND_SECONDS,
    )
    foreign = next(job for job in early if cluster_of(job) == gone)
    refused, _ = scene.send(number, "faults.noop", key)
    reads = [scene.get(path) for path in (f"/v1/jobs/{foreign}", "/v1/jobs", "/v1/dead-letters")]
    assert [answer.status_code for answer in (refused, *reads)] == [503] * 4
    assert {answer.json()["code"] for answer in reads} == {"shard_unavailable"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in (refused, *reads))
