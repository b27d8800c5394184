"""How many jobs a second the highly available platform takes and ends at most, with nothing broken."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import psycopg

from taskplatform.servers.errors import ServerError
from tests.faults.evidence import backlog
from tests.faults.load import Load, loading
from tests.faults.run import SETTINGS
from tests.faults.tasks import EFFECTS_VARIABLE
from tests.fixtures.waiting import eventually
from tests.ha.servers import HaServers
from tests.ha.stack import HaStack
from tests.native.stack import Programs

_JOBS = 6000
_CALLERS = 48
_KEYLESS_SHARE = 0.5
_LOAD_SECONDS = 240.0
_DRAIN_SECONDS = 120.0
_FROM, _TO = 0.1, 0.8
"""The part of the jobs that counts: at first connections are made, and in the end a few wait for their retries."""


def capacity(servers: HaServers, seed: int) -> float:
    """Hand in the campaign's mix of jobs as fast as it is taken, and give how many end a second.

    Raises ServerError when not all of them were handed in and ended in time.
    """
    try:
        return steady_rate(_ends(servers, seed))
    except (subprocess.TimeoutExpired, AssertionError) as error:
        raise ServerError(f"not all of the {_JOBS} jobs were handed in and ended in time: {error}") from error


def _ends(servers: HaServers, seed: int) -> list[float]:
    folder = Path(mkdtemp(prefix="capacity-", dir=servers.folder))
    effects = folder / "effects"
    effects.mkdir()
    with HaStack(servers, SETTINGS, Programs(), {EFFECTS_VARIABLE: str(effects)}) as stack:
        load = Load(
            port=stack.settings.api_port,
            key=stack.key,
            seed=seed,
            jobs=_JOBS,
            over_seconds=0.0,
            history=str(folder / "history.jsonl"),
            connections=_CALLERS,
            keyless_share=_KEYLESS_SHARE,
        )
        with loading(load) as process:
            status = process.wait(_LOAD_SECONDS)
        dsn = stack.home.database_url
        eventually(lambda: backlog(dsn, stack.messages).empty, within_seconds=_DRAIN_SECONDS)
        with psycopg.connect(dsn) as connection:
            found = connection.execute("SELECT date_part('epoch', ended_at) FROM finished_jobs ORDER BY 1").fetchall()
    if status != 0 or len(found) < _JOBS:
        raise ServerError(f"the load ended with status {status}, and {len(found)} of its {_JOBS} jobs have ended")
    return [ended for (ended,) in found]


def steady_rate(times: Sequence[float]) -> float:
    """Give how many of the sorted times there are a second, apart from the first and the last of them."""
    first, last = int(len(times) * _FROM), int(len(times) * _TO)
    return (last - first) / (times[last] - times[first])
