"""The archive as an operator searches it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from taskplatform.archive.format import Manifest, Wanted
from taskplatform.archive.objects import UrlObjects
from taskplatform.archive.search import Found, Search
from taskplatform.background import new_roles
from taskplatform.cli import doctor
from taskplatform.cli.app import run
from taskplatform.cli.finding import Health
from taskplatform.cli.output import FAILED, OK, UNAVAILABLE, USAGE
from taskplatform.ids import Locator, new_job_id
from taskplatform.retention import Retention
from taskplatform.servers import free_ports
from taskplatform.settings import load
from taskplatform.wiring import new_broker
from tests.fixtures.archive import FolderArchive
from tests.fixtures.history import TODAY, add_day, add_ended, ended_ids
from tests.fixtures.shards import Sharded

LONG_AGO = TODAY - timedelta(days=100)
DAY = datetime(2026, 11, 1, 12, tzinfo=UTC)
Command = Callable[..., tuple[int, str, str]]


def fill(
    archive: FolderArchive, part: str, sequence: int, count: int, *, cluster: int = 0, **columns: Any
) -> list[UUID]:
    """Write an object; the jobs of a day come in the order of their ids, as retention writes them."""
    at = [DAY + timedelta(minutes=10 * sequence, seconds=number) for number in range(count)]
    ids = [
        new_job_id(Locator(region=0, shard=0), milliseconds=round(each.timestamp() * 1000))
        if part != "rest"
        else uuid4()
        for each in at
    ]
    base = {"series": 0, "tenant": "acme", "task": "shop.ship", "pool": "default", "state": "succeeded", "attempt": 1}
    records = [
        {
            "job": base
            | {"id": str(job_id), "created_at": str(each), "ended_at": str(each), "body": "[[1],{},{}]", "result": "42"}
            | columns,
            "attempts": [{"number": 1, "worker": "worker-1", "error": None}],
        }
        for job_id, each in zip(ids, at, strict=True)
    ]

    async def write() -> None:
        batch = archive.of(cluster).begin(part, sequence)
        await batch.add([json.dumps(record) for record in records])
        await batch.close()

    asyncio.run(write())
    return ids


@pytest.fixture
def command(archive: FolderArchive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `taskplatform archive …`; gives the exit status, stdout and stderr."""
    monkeypatch.setenv("TASKPLATFORM_ARCHIVE_URL", archive.url)

    def call(*words: str) -> tuple[int, str, str]:
        status = run(["archive", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return call


class _Forbid(StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


@pytest.fixture
def forbidding() -> Iterator[str]:
    """The address of an object store that lets nobody in."""
    with ThreadingTCPServer(("127.0.0.1", 0), _Forbid) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def found(command: Command, *words: str) -> list[str]:
    status, out, err = command("search", "--json", *words)
    assert (status, err) == (OK, "")
    return [record["job"]["id"] for record in json.loads(out)]


def test_the_list_counts_what_is_there(command: Command, archive: FolderArchive) -> None:
    fill(archive, "20261101", 0, 3)
    fill(archive, "20261101", 1, 2)
    fill(archive, "rest", 0, 1, cluster=1)

    status, out, _ = command("ls", "--json")

    assert status == OK
    parts = [(row["cluster"], row["part"], row["objects"], row["jobs"]) for row in json.loads(out)]
    assert parts == [(0, "20261101", 2, 5), (1, "rest", 1, 1)]
    assert "20261101" in command("ls")[1]


def test_a_search_finds_by_each_of_its_options(command: Command, archive: FolderArchive) -> None:
    acme = fill(archive, "20261101", 0, 2)
    globex = fill(archive, "20261101", 1, 2, tenant="globex", state="dead", task="mail.send")
    both = [str(each) for each in acme + globex]

    assert found(command) == both
    assert found(command, "--tenant", "globex") == both[2:]
    assert found(command, "--task", "shop.ship") == both[:2]
    assert found(command, "--state", "dead") == both[2:]
    assert found(command, "--id", both[1]) == [both[1]]
    assert found(command, "--since", "2026-11-01T12:05:00Z") == both[2:]
    assert found(command, "--until", "2026-11-01T12:05:00Z") == both[:2]
    assert found(command, "--until", "2026-10-01") == []
    assert both[0] in command("search")[1]


def test_a_search_for_one_job_reads_one_object(archive: FolderArchive) -> None:
    ids = [fill(archive, "20261101", sequence, 5)[2] for sequence in range(6)]
    fill(archive, "20261102", 0, 5)

    search = archive.search()

    assert asyncio.run(search.one(ids[3])).job.id == ids[3]
    assert search.objects_read == 1


def test_a_job_that_was_replayed_is_shown_with_its_last_end(command: Command, archive: FolderArchive) -> None:
    (job_id,) = fill(archive, "20261101", 0, 1, state="dead")
    fill(archive, "rest", 0, 1, id=str(job_id), series=1)

    status, out, _ = command("show", str(job_id), "--json")

    assert status == OK
    assert (json.loads(out)["job"]["state"], json.loads(out)["job"]["result"]) == ("succeeded", 42)
    assert "worker=worker-1" in command("show", str(job_id))[1]


def test_what_is_archived_twice_is_found_once(command: Command, archive: FolderArchive) -> None:
    (job_id,) = fill(archive, "20261101", 0, 1)
    fill(archive, "20261101", 1, 1, id=str(job_id))

    assert found(command) == [str(job_id)]


@pytest.mark.parametrize("spoil", ["truncated", "missing", "manifest", "nested", "naive"])
def test_a_damaged_object_is_named_and_the_rest_is_searched(
    command: Command, archive: FolderArchive, spoil: str
) -> None:
    fill(archive, "20261101", 0, 2)
    whole = fill(archive, "20261101", 1, 2)
    first = archive.manifests()[0].object
    path = archive.folder / first
    manifest = path.with_name(path.name.replace(".ndjson.gz", ".manifest.json"))
    match spoil:
        case "truncated":
            path.write_bytes(path.read_bytes()[:20])
        case "missing":
            path.unlink()
        case "manifest":
            manifest.write_bytes(b"\x00{")
        case "nested":
            manifest.write_bytes(b"[" * 100_000)
        case "naive":
            manifest.write_bytes(manifest.read_bytes().replace(b"00Z", b"00"))

    status, out, err = command("search", "--json", "--since", "2026-10-01")

    assert status == FAILED
    assert [record["job"]["id"] for record in json.loads(out)] == [str(each) for each in whole]
    assert err.count("\n") == 1
    assert "damaged" in err


@pytest.mark.parametrize("name", ["cluster-0/20261101/readme.txt", "cluster-0/notes/a", "cluster-0/99999999/a"])
def test_a_foreign_object_is_named_and_left_alone(command: Command, archive: FolderArchive, name: str) -> None:
    fill(archive, "20261101", 0, 1)
    (archive.folder / name).parent.mkdir(exist_ok=True)
    (archive.folder / name).write_text("x")

    status, out, err = command("search", "--json")

    assert (status, len(json.loads(out))) == (FAILED, 1)
    assert "not of the archive" in err
    assert err.count("\n") == 1


def test_an_object_without_a_manifest_does_not_count(command: Command, archive: FolderArchive) -> None:
    fill(archive, "20261101", 0, 1)
    next(archive.folder.rglob("*.manifest.json")).unlink()

    assert found(command) == []


def test_a_job_that_is_not_there_is_an_error(command: Command, archive: FolderArchive) -> None:
    fill(archive, "20261101", 0, 1)

    status, out, err = command("show", str(uuid4()))

    assert (status, out) == (FAILED, "")
    assert "there is no job" in err


@pytest.mark.parametrize(
    ("url", "message"),
    [("", "set TASKPLATFORM_ARCHIVE_URL"), ("nonsense", "archive_url: "), ("ftp://host/folder", "archive_url: ")],
)
def test_a_url_that_names_no_archive_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.setenv("TASKPLATFORM_ARCHIVE_URL", url)

    status, out, err = command("ls")

    assert (status, out, err.count("\n")) == (USAGE, "", 1)
    assert message in err


@pytest.mark.parametrize("refuses", [True, False])
def test_an_archive_that_refuses_or_is_away_is_one_line(
    command: Command, forbidding: str, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    values = {"ENDPOINT_URL": forbidding if refuses else away, "REGION": "us-east-1"}
    for name, value in (values | {"ACCESS_KEY_ID": "nobody", "SECRET_ACCESS_KEY": "nothing"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("TASKPLATFORM_ARCHIVE_URL", "s3://bucket/prefix")

    status, out, err = command("ls")

    assert (status, out, err.count("\n")) == (UNAVAILABLE, "", 1)
    assert "the archive cannot be used" in err
    assert ("403 Forbidden" in err) is refuses


def test_a_wanted_day_is_all_that_is_listed(archive: FolderArchive) -> None:
    fill(archive, "20261101", 0, 1)

    assert asyncio.run(archive.search().manifests(Wanted(since=DAY + timedelta(days=1)))) == []


def test_a_job_whose_creation_is_later_than_its_id_is_found(command: Command, archive: FolderArchive) -> None:
    (job_id,) = fill(archive, "20261101", 0, 1, created_at="2026-11-02T07:00:00Z", ended_at="2026-11-02T07:00:01Z")

    assert found(command, "--since", "2026-11-02T06:00:00Z") == [str(job_id)]


def test_a_folder_in_the_far_future_ends_no_search(command: Command, archive: FolderArchive) -> None:
    (job_id,) = fill(archive, "20261101", 0, 1)
    (archive.folder / "cluster-0" / "99991231").mkdir()
    (archive.folder / "cluster-0" / "99991231" / "a").write_text("x")

    status, out, err = command("search", "--json", "--since", "2026-10-01")

    assert (status, [record["job"]["id"] for record in json.loads(out)]) == (FAILED, [str(job_id)])
    assert "not of the archive" in err


def test_a_record_that_cannot_be_shown_is_named(
    command: Command, archive: FolderArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = fill(archive, "20261101", 0, 1)
    monkeypatch.setattr("taskplatform.archive.format._MARGIN", 100_000)

    status, out, err = command("search", "--json")

    assert (status, json.loads(out)) == (FAILED, [])
    assert f"{job_id}: damaged" in err
    assert command("show", str(job_id))[:2] == (FAILED, "")


def test_jobs_are_printed_as_they_are_found(
    command: Command, archive: FolderArchive, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sequence in range(2):
        fill(archive, "20261101", sequence, 1)
    printed: list[str] = []
    read = Search._read

    def noting(search: Search, manifest: Manifest, wanted: Wanted) -> Coroutine[Any, Any, list[Found]]:
        printed.append(capsys.readouterr().out)
        return read(search, manifest, wanted)

    monkeypatch.setattr(Search, "_read", noting)
    _, rest, _ = command("search", "--json")

    assert [text.count('"job"') for text in [*printed, rest]] == [0, 1, 1]
    assert len(json.loads("".join([*printed, rest]))) == 2


def test_a_folder_that_is_not_there_is_said_and_not_made(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/mistyped"
    monkeypatch.setenv("TASKPLATFORM_ARCHIVE_URL", url)

    status, out, err = command("ls")

    assert (status, out, err.count("\n")) == (USAGE, "", 1)
    assert "there is no folder" in err
    assert [finding.health for finding in doctor._retention(load({}, archive_url=url))] == [Health.WRONG]
    assert not (tmp_path / "mistyped").exists()


def test_a_folder_may_have_a_space_in_its_name(tmp_path: Path) -> None:
    objects = UrlObjects(f"file://{tmp_path}/a%20folder", create=True)

    asyncio.run(objects.put("cluster-0/a", b"x"))

    assert (tmp_path / "a folder" / "cluster-0" / "a").read_bytes() == b"x"


def test_the_jobs_of_every_cluster_are_archived_and_found(
    command: Command, archive: FolderArchive, sharded: Sharded, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = []
    for cluster in range(len(sharded.dsns)):
        add_day(sharded.tables(cluster), LONG_AGO)
        ids += add_ended(sharded.tables(cluster), LONG_AGO, 3, tenant=f"tenant-{cluster}")
    settings = load({}, archive_url=archive.url, signing_keys="k" * 32)
    roles = new_roles(settings, sharded.store, new_broker(settings), archive.metrics)

    for role in roles:
        while isinstance(role, Retention) and sharded.wait(role.run_once()):
            pass
    capsys.readouterr()  # What they logged.

    assert sorted(found(command)) == sorted(map(str, ids))
    assert found(command, "--tenant", "tenant-1") == [str(each) for each in ids[3:]]
    _, out, _ = command("ls", "--json")
    assert [(row["cluster"], row["jobs"]) for row in json.loads(out)] == [(0, 3), (1, 3)]
    assert [ended_ids(sharded.tables(cluster)) for cluster in range(len(sharded.dsns))] == [set(), set()]


def test_an_archive_is_said_to_be_off(command: Command, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", database)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO archiving DEFAULT VALUES")

    assert command("off") == (OK, "", "cluster 0: the archive is no longer on\n")
    assert command("off") == (OK, "", "cluster 0: the archive was not on\n")


def test_the_doctor_looks_at_archive_and_retention(archive: FolderArchive, tmp_path: Path) -> None:
    rules = tmp_path / "retention.toml"
    rules.write_text("[[rules]]\nretention_days = -1\n")

    whole = list(doctor._retention(load({}, archive_url=archive.url)))
    broken = list(doctor._retention(load({}, archive_url="nonsense", retention_file=rules)))

    assert [(finding.part, finding.health) for finding in whole] == [("archive", Health.OK)]
    assert [(finding.part, finding.health) for finding in broken] == [
        ("retention", Health.WRONG),
        ("archive", Health.WRONG),
    ]
