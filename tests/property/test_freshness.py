"""The hunt for stale reads: nobody is shown less than it has written or seen, however far the replica is behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from taskplatform import lookups
from taskplatform.freshness import Position, Watermark
from taskplatform.job import Job
from taskplatform.lookups import Direct
from taskplatform.store.postgres.store import PostgresStore
from tests.fixtures.cache import NewCached
from tests.fixtures.replica import Standby
from tests.fixtures.store import DrivenStore, NewStore
from tests.fixtures.waiting import eventually
from tests.property.reader_machine import CALLERS, ReaderMachine

QUICK = settings(max_examples=16, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))

Step = Callable[[ReaderMachine], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is broken on purpose, and the steps that a hunt which sees it fails over."""

    owner: object
    name: str
    broken: Any
    steps: tuple[Step, ...]


# The machine begins with a dead job and two queued ones that the standby knows.
READ_WHAT_WAS_CANCELLED: tuple[Step, ...] = (
    lambda machine: machine.hold_up(),
    lambda machine: machine.operate(caller=0, place=1, what="cancel"),
    lambda machine: machine.look(caller=0, place=1, says=True),
)
READ_WHAT_WAS_REPLAYED: tuple[Step, ...] = (
    lambda machine: machine.hold_up(),
    lambda machine: machine.operate(caller=0, place=0, what="replay"),
    lambda machine: machine.look(caller=0, place=0, says=True),
)
READ_WHAT_ANOTHER_WAS_SHOWN: tuple[Step, ...] = (
    lambda machine: machine.hold_up(),
    lambda machine: machine.work(place=1, what="start"),
    lambda machine: machine.look(caller=0, place=1, says=False),
    lambda machine: machine.look(caller=1, place=1, says=True),
    lambda machine: machine.list(caller=1, says=True),
)
READ_WHAT_WAS_NOT_THERE: tuple[Step, ...] = (
    lambda machine: machine.look_ahead(caller=0, says=True),
    lambda machine: machine.submit(caller=0),
    lambda machine: machine.look(caller=0, place=-1, says=True),
)
FAULTS = {
    "a replica is believed without asking how far it has come": Fault(
        owner=Position, name="includes", broken=lambda *_: True, steps=READ_WHAT_WAS_CANCELLED
    ),
    "what was written and seen is not counted": Fault(
        owner=Watermark, name="note", broken=lambda *_: None, steps=READ_WHAT_WAS_CANCELLED
    ),
    "a dead job counts as one that never changes": Fault(
        owner=Job, name="settled", broken=Job.done, steps=READ_WHAT_WAS_REPLAYED
    ),
    "what the cache holds is shown to anybody": Fault(
        owner=lookups, name="_may_see", broken=lambda *_: True, steps=READ_WHAT_WAS_NOT_THERE
    ),
    "what is shown out of the cache is not counted": Fault(
        owner=PostgresStore, name="note", broken=lambda *_: None, steps=READ_WHAT_ANOTHER_WAS_SHOWN
    ),
}


@pytest.fixture
def machine(
    store: DrivenStore, database: str, standby: Standby, new_store: NewStore, new_cached: NewCached
) -> type[ReaderMachine]:
    standby.catch_up()
    processes = [new_store(database, replicas=[standby.dsn(database)]) for _ in CALLERS]
    bound = {
        "world": store,
        "processes": processes,
        "lookups": [new_cached(each.services) for each in processes],
        "standby": standby,
    }
    return type("BoundMachine", (ReaderMachine,), bound)


@pytest.mark.parametrize("cached", [True, False])
def test_nobody_is_shown_less_than_it_has_written_or_seen(machine: type[ReaderMachine], cached: bool) -> None:
    if not cached:
        machine.lookups = [Direct(each.services) for each in machine.processes]

    run_state_machine_as_test(machine, settings=QUICK)


@pytest.mark.parametrize("name", FAULTS)
def test_the_hunt_notices_when(name: str, machine: type[ReaderMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    assert not is_noticed(machine, fault.steps)

    monkeypatch.setattr(fault.owner, fault.name, fault.broken)

    # A replica that did not answer in time is left alone for a while, and the primary does not show the fault.
    eventually(lambda: is_noticed(machine, fault.steps), within_seconds=60)


def is_noticed(machine: type[ReaderMachine], steps: tuple[Step, ...]) -> bool:
    hunter = machine()
    try:
        hunter.begin()
        for step in steps:
            step(hunter)
    except (AssertionError, KeyError):
        return True
    finally:
        hunter.teardown()
    return False
