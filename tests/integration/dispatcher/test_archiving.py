"""Retention with an archive, as a role and as a process that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

from taskplatform.keeping import Policy
from taskplatform.retention import PRUNE_ROWS, Retention
from taskplatform.settings import Settings, environment_of
from tests.fixtures.archive import FolderArchive
from tests.fixtures.history import TODAY, add_day, add_ended, attempted_ids, ended_ids
from tests.fixtures.store import DrivenStore
from tests.fixtures.waiting import eventually
from tests.integration.dispatcher.conftest import Stage
from tests.integration.dispatcher.doomed import Step

ROOT = Path(__file__).parents[3]
DOOMED = [sys.executable, str(Path(__file__).with_name("doomed.py")), Step.ARCHIVED]
DISPATCHER = [sys.executable, "-m", "taskplatform.cli", "dispatcher"]
LONG_AGO = TODAY - timedelta(days=100)


def start(settings: Settings, command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**environment_of(settings), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def test_a_dispatcher_killed_while_it_archives_loses_no_job_and_doubles_none(
    brokerless_stage: Stage, archive: FolderArchive
) -> None:
    store = brokerless_stage.store
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, PRUNE_ROWS + 50)
    settings = brokerless_stage.settings.changed(archive_url=archive.url)

    doomed = start(settings, DOOMED)
    assert doomed.wait(120) == -signal.SIGKILL

    # The second object was there, and the rows in it are still to be forgotten.
    assert archive.ids() == sorted(ids)
    assert len(ended_ids(store)) == 50
    written = archive.files()
    survivor = start(settings, DISPATCHER)
    try:
        eventually(lambda: not ended_ids(store), within_seconds=60)
    finally:
        survivor.kill()
        survivor.wait()

    assert archive.ids() == sorted(ids)
    assert archive.files() == written
    assert attempted_ids(store) == set()


def test_an_archive_that_is_away_is_told_and_tried_again(store: DrivenStore, archive: FolderArchive) -> None:
    add_day(store, LONG_AGO)
    ids = add_ended(store, LONG_AGO, 5)
    retention = Retention(store.services, archive.metrics, Policy(default_days=30), archive.of())
    archive.away = True

    while store.wait(retention.run_once()):
        pass
    store.wait(retention.run_once())

    assert _figures(archive)["failures"] == 2
    assert _figures(archive)["failing"] > 0
    assert ended_ids(store) == set(ids)
    archive.away = False
    while store.wait(retention.run_once()):
        pass
    found = _figures(archive)
    assert (found["jobs"], found["objects"], found["failing"]) == (5, 1, 0)
    assert found["bytes"] == sum(manifest.bytes for manifest in archive.manifests())
    assert ended_ids(store) == set()


def _figures(archive: FolderArchive) -> Counter[str]:
    read = archive.metrics.registry.get_sample_value
    figures = {name: read(f"tp_archive_{name}_total") for name in ("jobs", "objects", "bytes", "failures")}
    return Counter({**figures, "failing": read("tp_archive_failing_seconds", {"role": "retention"})})
