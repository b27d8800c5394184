"""`taskplatform doctor` on a platform that is well, and on one of which something is wrong."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from kombu import Connection, Queue
from psycopg.conninfo import make_conninfo

from taskplatform.client import Client, call, named
from taskplatform.settings import CONFIG_VARIABLE, PREFIX, Settings
from taskplatform.topology import queues, work_queues
from tests.fixtures.waiting import eventually
from tests.integration.client.conftest import Run
from tests.native.part import Part
from tests.native.servers import Servers
from tests.native.stack import Stack

PARTS = [
    *("signing keys", "task modules", "postgres", "tables", "clocks", "durability", "connections", "workers"),
    *("dispatcher", "api keys", "broker", "queues", "jobs", "api", "tasks", "versions"),
]
ROOT = Path(__file__).parents[3]
OTHER = "9.9.9"


@pytest.fixture
def client_settings(platform: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """The settings of somebody who hands in jobs: the API and a key, nothing else."""
    del run
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    file = tmp_path / "client.toml"
    file.write_text(f'api_url = "{platform.settings.api_url}"\napi_key = "{platform.key}"\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))


def test_the_doctor_finds_a_healthy_platform_healthy(run: Run) -> None:
    said = run("doctor", "--json")

    assert {finding["part"]: finding["health"] for finding in json.loads(said[1])} == dict.fromkeys(PARTS, "ok")
    assert said[0] == 0


def test_the_doctor_names_a_server_that_may_lose_what_it_took(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lax = make_conninfo(os.environ["TASKPLATFORM_DATABASE_URL"], options="-c synchronous_commit=off")
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", lax)

    status, out, _ = run("doctor")

    assert status == 1
    assert "synchronous_commit is off: an accepted job may be lost → switch it on in Postgres" in out


def test_the_doctor_names_a_replica_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "TASKPLATFORM_DATABASE_REPLICA_URLS",
        f"{os.environ['TASKPLATFORM_DATABASE_URL']};postgresql://127.0.0.1:1/nowhere",
    )

    status, out, _ = run("doctor")

    assert status == 0
    assert "number 1 follows no primary → " in out
    assert "number 2: " in out


def test_the_doctor_names_a_cache_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPLATFORM_CACHE_URL", "redis://127.0.0.1:1")

    status, out, _ = run("doctor")

    assert status == 0
    assert "cache         it does not answer → start it" in out


def test_the_doctor_names_a_queue_of_another_kind(run: Run, platform: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPLATFORM_POOLS", "default,classic")
    with Connection(platform.home.broker_url) as connection, connection.channel() as channel:
        for one in queues(["classic"]):
            Queue(one.name, durable=True, channel=channel).declare()

    status, out, _ = run("doctor")

    assert status == 1
    assert "not the quorum queue that is needed" in out


def test_the_doctor_names_a_queue_that_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPLATFORM_POOLS", "default,idle,forgotten")

    status, out, _ = run("doctor")

    assert status == 1
    assert "missing: jobs.forgotten.dead" in out
    assert "→ taskplatform init" in out


def test_the_doctor_names_what_is_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")

    status, out, _ = run("doctor")

    assert status == 3
    assert "correct TASKPLATFORM_DATABASE_URL" in out


def test_the_doctor_names_tables_that_are_not_there(
    run: Run, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = servers.postgres.create_database(f"empty_{uuid4().hex[:8]}")
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", empty)

    status, out, _ = run("doctor")

    assert status == 1
    assert "revision None, needed" in out


@pytest.mark.usefixtures("client_settings")
def test_the_doctor_looks_at_nothing_that_the_settings_do_not_name_and_says_so(run: Run) -> None:
    said = run("doctor", "--json")

    assert {finding["part"]: finding["health"] for finding in json.loads(said[1])} == {
        "task modules": "skipped",
        "postgres": "skipped",
        "broker": "skipped",
        "api": "ok",
        "tasks": "ok",
        "versions": "ok",
    }
    assert said[0] == 0


def test_the_doctor_says_that_it_was_told_of_no_api(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKPLATFORM_API_URL")
    monkeypatch.delenv("TASKPLATFORM_API_KEY")

    status, out, _ = run("doctor")

    assert status == 0
    assert "skipped  api           not looked at: the settings name no api_url → set TASKPLATFORM_API_URL" in out


def test_the_doctor_names_processes_of_another_version(run: Run, platform: Stack, tmp_path: Path) -> None:
    with _of_another_version(platform.new_dispatcher("newer dispatcher"), tmp_path):
        status, out, _ = run("doctor")

    assert status == 0
    assert f"a mix: api 0.1.0; dispatcher 0.1.0, {OTHER}; worker 0.1.0; this command 0.1.0 → end the rollout" in out


@pytest.mark.usefixtures("client_settings")
def test_the_doctor_learns_of_other_versions_from_the_api_alone(run: Run, platform: Stack, tmp_path: Path) -> None:
    with _of_another_version(platform.new_worker("newer worker"), tmp_path):
        status, out, _ = run("doctor")

    assert status == 0
    assert f"a mix: api 0.1.0; dispatcher 0.1.0; worker 0.1.0, {OTHER}; this command 0.1.0 → end the rollout" in out


def test_the_doctor_misses_jobs_whose_messages_are_gone(
    run: Run, client: Client, platform: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKPLATFORM_LEASE_RENEW_SECONDS", "0.2")
    jobs = client.submit_many([call(named("demo.add", pool="idle"), 1, 2) for _ in range(3)])
    eventually(lambda: _purge(platform, "idle") == len(jobs), within_seconds=30)
    with psycopg.connect(platform.home.database_url, autocommit=True) as link:
        link.execute("UPDATE jobs SET queued_at = now() - interval '10 seconds' WHERE pool = 'idle'")
        # What is confirmed leaves the outbox a little later.
        eventually(lambda: link.execute("SELECT count(*) FROM outbox").fetchone() == (0,), within_seconds=30)

    status, out, _ = run("doctor")
    for job in jobs:
        client.cancel(job.id)

    assert status == 1
    assert "pool idle: 3 wait for a worker; messages: 0 in the outbox, 0 in the broker, 0 fetched by workers" in out
    assert "; 3 lack a message, 0 a worker → look for a dispatcher" in out
    assert "ok       jobs          pool idle: 0 wait for a worker" in run("doctor")[1]


@contextmanager
def _of_another_version(part: Part, folder: Path) -> Iterator[None]:
    """Run a process that takes itself for another version: its package says so."""
    (folder / f"taskplatform-{OTHER}.dist-info").mkdir()
    (folder / f"taskplatform-{OTHER}.dist-info" / "METADATA").write_text(f"Name: taskplatform\nVersion: {OTHER}\n")
    path = os.pathsep.join([str(folder), str(ROOT)])
    other = Part(replace(part.command, env={**part.command.env, "PYTHONPATH": path}), part.health_port, "/readyz")
    other.start()
    try:
        other.await_ready()
        yield
    finally:
        other.stop()


def _purge(platform: Stack, pool: str) -> int:
    with Connection(platform.home.broker_url) as connection:
        channel = connection.default_channel
        return sum(Queue(name, channel=channel).purge() or 0 for name in work_queues(pool))
