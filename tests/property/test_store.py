from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from taskplatform.store import statements
from tests.fixtures.store import DrivenStore
from tests.property.store_machine import StoreMachine

QUICK = settings(
    max_examples=50,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
UNTIL_IT_FAILS = settings(
    QUICK,
    max_examples=80,
    phases=[Phase.generate],
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
)

BROKEN = {
    "an ending of a lost attempt is recorded": ("finish_running", "j.attempt = i.attempt AND ", ""),
    "a put-off of a lost attempt is recorded": ("retry_running", "j.attempt = i.attempt AND ", ""),
    "an ended job leaves no attempt": (
        "finish_running",
        "end_error FROM gone\n), b",
        "end_error FROM gone WHERE false\n), b",
    ),
    "a dead job leaves no letter": ("finish_running", "WHERE end_state = 'dead'", "WHERE false"),
    "an accepted job has no outbox row": ("accept", "WHERE state = 'queued' HAVING", "WHERE false HAVING"),
    "a released job has no outbox row": (
        "release_due",
        "INSERT INTO outbox (job_ids) SELECT array_agg(id) FROM up HAVING count(*) > 0 RETURNING id",
        "SELECT nextval('outbox_id_seq') AS id",
    ),
    "a job is stored twice under one key": ("accept", "WHERE k.expires_at <= now()", ""),
    "a claim does not look at the series": ("claim_queued_or_same_claim", "i.series = j.series OR", "true OR"),
    "a claim takes what another one runs": ("claim_queued_or_same_claim", "AND j.worker = $3 AND j.claim = $4", ""),
    "a claim does not look at the deadline": ("claim_queued_or_same_claim", "j.expires_at > now()", "true"),
    "a rescue charges those who are no suspects": ("rescue_running", "held.suspect::int", "1"),
    "a rescue never gives up": ("rescue_running", "held.crashes + 1", "0"),
    "a job given back is charged": (
        "release_running",
        "SET state = 'retrying'",
        "SET failures = 1, state = 'retrying'",
    ),
    "a cancel forgets the running attempt": ("cancel_live", "WHERE state = 'running'", "WHERE false"),
    "a replay keeps the series": ("replay_dead", "series + 1", "series"),
    "a late message buries a running job": ("bury_messages", "AND j.state = 'queued'", ""),
    "a deadline ends a running job": ("expire_due", "AND state <> 'running'", ""),
}

TOLD = ("an ending of a lost attempt is recorded", "a job is stored twice under one key")
"""The faults that each run of the tests shows to be noticed; the others take minutes."""


@pytest.fixture
def machine(store: DrivenStore, database: str) -> Iterator[type[StoreMachine]]:
    with psycopg.connect(database, autocommit=True) as link:
        yield type("BoundMachine", (StoreMachine,), {"store": store, "link": link})


def test_the_store_does_what_a_plain_model_does(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(machine, settings=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [fault if fault in TOLD else pytest.param(fault, marks=pytest.mark.long) for fault in BROKEN]
)
def test_the_machine_notices_when(fault: str, machine: type[StoreMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    name, whole, broken = BROKEN[fault]
    sound = statements.statements()
    assert whole in sound[name]
    monkeypatch.setattr(statements, "statements", lambda: {**sound, name: sound[name].replace(whole, broken)})

    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=UNTIL_IT_FAILS)
