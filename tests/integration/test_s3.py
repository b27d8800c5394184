"""The archive on a server that speaks S3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from urllib.request import Request, urlopen

import pytest

from taskplatform.archive.objects import UrlObjects
from taskplatform.archive.writer import Archive
from taskplatform.cli import doctor
from taskplatform.cli.app import run
from taskplatform.cli.finding import Health
from taskplatform.cli.output import OK
from taskplatform.errors import NotFound
from taskplatform.keeping import Policy
from taskplatform.servers import free_ports
from taskplatform.settings import load
from taskplatform.telemetry import Metrics
from tests.fixtures.history import TODAY, add_day, add_ended, ended_ids
from tests.fixtures.store import DrivenStore
from tests.fixtures.waiting import eventually

LONG_AGO = TODAY - timedelta(days=100)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a place in a new bucket; the environment says where it is, and what lets one in."""
    port = free_ports(1)[0]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def made() -> bool:
        try:
            with urlopen(Request(f"http://127.0.0.1:{port}/jobs", method="PUT"), timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(made, within_seconds=60)
        values = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "REGION": "us-east-1"}
        for name, value in (values | {"ACCESS_KEY_ID": "somebody", "SECRET_ACCESS_KEY": "something"}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield "s3://jobs/first"
    finally:
        server.kill()
        server.wait()


def test_jobs_go_into_a_bucket_and_are_found_there(
    store: DrivenStore, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKPLATFORM_ARCHIVE_URL", bucket)
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5) + add_ended(store, LONG_AGO - timedelta(days=1), 5)
    objects = UrlObjects(bucket)
    archive = Archive(objects, 0, Metrics())

    while store.wait(store.services.prune(Policy(default_days=30), 3, archive)).more:
        pass

    assert ended_ids(store) == set()
    assert run(["archive", "search", "--json"]) == OK
    found = [record["job"]["id"] for record in json.loads(capsys.readouterr().out)]
    assert sorted(found) == sorted(map(str, ids))
    assert run(["archive", "show", str(ids[0]), "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["job"]["result"] == "Malmö"
    assert [finding.health for finding in doctor._retention(load({}, archive_url=bucket))] == [Health.OK]
    with pytest.raises(NotFound):
        store.wait(objects.get("cluster-0/nothing"))
