"""A database that is restored to a point in time holds what was accepted before it, and the platform goes on."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest

from taskplatform.servers import Postgres, RabbitMQ, Source, free_ports, started
from taskplatform.servers.accounts import Account
from taskplatform.servers.postgres_programs import Programs
from tests.faults.evidence import live_states, watch
from tests.faults.scene import SETTINGS, Scene
from tests.faults.tasks import EFFECTS_VARIABLE
from tests.fixtures.waiting import eventually
from tests.native.servers import Home, Servers
from tests.native.stack import Programs as Parts
from tests.native.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BATCH = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(Servers):
    """Servers of which the broker is new and the database is one that is there already."""

    database: str

    def new_home(self) -> Home:
        """Give an empty virtual host and the restored database."""
        name = f"{self.database}_restored"
        return Home(name=name, broker_url=self.rabbitmq.add_vhost(name), database_url=self.postgres.dsn(self.database))


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaster:
    """What is left: a base backup, and what was accepted before and after the point in time."""

    saved: Path
    database: str
    point: str
    before: set[str]
    after: set[str]


@pytest.fixture
def archive(server_folder: Path) -> Path:
    """A folder for finished WAL files that Postgres may write to."""
    return owned(Path(mkdtemp(prefix="archive-", dir=server_folder)))


@pytest.fixture
def folder(server_folder: Path) -> Path:
    """A folder for the history and the effects."""
    folder = Path(mkdtemp(prefix="restore-", dir=server_folder))
    (folder / "effects").mkdir()
    return folder


def owned(folder: Path) -> Path:
    """Give a folder to the account of Postgres."""
    account = Account.unprivileged("postgres")
    if account is not None:
        account.own(folder)
    return folder


def base_backup(source: Postgres, target: Path) -> None:
    """Copy a running server's data, as docs/operations.md says."""
    account = Account.unprivileged("postgres")
    target.mkdir(mode=0o700)
    program = Programs.find(Source.SYSTEM).path("pg_basebackup")
    subprocess.run(
        [program, "-D", str(owned(target) / "cluster"), "-d", source.dsn(), "-X", "stream", "-c", "fast"],
        user=None if account is None else account.uid,
        check=True,
        timeout=120,
        capture_output=True,
    )


@contextmanager
def platform(servers: Servers, folder: Path) -> Iterator[Scene]:
    """Run a platform whose jobs write their effects into the folder."""
    with Stack(servers, SETTINGS, Parts(), {EFFECTS_VARIABLE: str(folder / "effects")}) as stack:
        yield Scene(stack, folder)


def disaster(servers: Servers, folder: Path, archive: Path) -> Disaster:
    """Run a platform, take a base backup, go on, and lose the server."""
    source, saved = servers.postgres, archive.with_name(f"{archive.name}-restored")
    with platform(servers, folder) as scene:
        watch(scene.stack.home.database_url)
        done = scene.submit("faults.noop", BATCH)
        eventually(lambda: scene.live == 0, within_seconds=30)
        base_backup(source, saved)
        scene.stack.worker.stop()
        waiting = scene.submit("faults.noop", BATCH, skip=BATCH)
        point = source.execute("SELECT clock_timestamp()")
        after = scene.submit("faults.noop", BATCH, skip=2 * BATCH, note=False)
        last = source.execute("SELECT pg_walfile_name(pg_switch_wal())")
        eventually((archive / last).exists, within_seconds=30)
        database = scene.stack.home.name
    source.kill()
    return Disaster(saved=saved, database=database, point=point, before=done | waiting, after=after)


def test_the_platform_goes_on_from_a_point_in_time(
    server_folder: Path, folder: Path, archive: Path, rabbitmq: RabbitMQ
) -> None:
    first, second = free_ports(2)
    archiving = {"archive_mode": "on", "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f"}
    with started(Postgres(server_folder / f"archiving-{first}", first, settings=archiving)) as source:
        lost = disaster(Servers(folder=folder, postgres=source, rabbitmq=rabbitmq), folder, archive)

    recovery = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": lost.point,
        "recovery_target_action": "promote",
    }
    (lost.saved / "cluster" / "recovery.signal").touch()
    with started(Postgres(lost.saved, second, settings=recovery)) as restored:
        eventually(lambda: restored.execute("SELECT pg_is_in_recovery()") == "f", within_seconds=60)
        found = set(restored.execute("SELECT id FROM jobs UNION SELECT id FROM finished_jobs", lost.database).split())
        states = live_states(restored.dsn(lost.database))
        place = Restored(folder=folder, postgres=restored, rabbitmq=rabbitmq, database=lost.database)
        with platform(place, folder) as scene:
            ledger = scene.judge()

    assert (lost.before - found, found & lost.after) == (set(), set())
    assert states == {"queued": BATCH}
    assert (ledger.terminal, ledger.executed_twice, ledger.breaches) == (2 * BATCH, 0, {})
