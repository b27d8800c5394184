import re
from collections.abc import Iterator
from uuid import UUID

import psycopg

from taskplatform.job import AttemptEnd, State
from taskplatform.store.postgres.conninfo import complete
from taskplatform.store.statements import Call, accept_call, array, call, load_call, lost_call, save_call, turn_calls
from taskplatform.store.working import ClaimRequest, Ended, GivenBack, PutOff
from tests.fixtures.store import TENANT, WORKER, a_job

ROWS = 20_000
AT_ONCE = 100
TOLERATED_ROWS = 500
EMPTIED = ("jobs", "outbox", "idempotency_keys")


def hot_calls(ids: list[UUID]) -> Iterator[Call]:
    job_ids = array(ids)
    yield accept_call([a_job(key=str(job_id), fingerprint="f") for job_id in ids], 60)
    yield call("find_keys", array(TENANT for _ in ids), job_ids)
    yield from turn_calls([], ClaimRequest(worker=WORKER, token="t", wanted=[(job_id, 0) for job_id in ids]))
    yield from turn_calls([_put_off(job_id) for job_id in ids], None)
    yield from turn_calls([GivenBack(id=job_id, attempt=1) for job_id in ids], None)
    yield from turn_calls([_ended(job_id) for job_id in ids], None)
    yield lost_call([(job_id, 1) for job_id in ids])
    yield save_call({(job_id, 1): "1" for job_id in ids})
    yield load_call([(job_id, 1) for job_id in ids])
    yield call("release_due", array(["default"]), array(["normal"]), "100")
    yield call("hold_due", array(["default"]), array(["normal"]), "queue_full", "100")
    yield call("release_blocked", "default", "normal", "queue_full", "100")
    yield call("blocked_gates", "queue_full", array(["default"]), array(["high"]))
    yield call("next_due")
    yield call("expire_due", "100")
    yield call("take_outbox", "0", "1")
    yield call("settle_outbox", array([1]))
    yield call("put_off_outbox", array([1]), job_ids)
    yield call("find_stranded", "default", "normal", "60", "100")
    yield call("touch_stranded", job_ids)
    yield call("lapsed_workers", "100")
    yield call("orphaned_running")
    yield call("rescue_running", array([WORKER]), "3", "{}")
    yield from (call(name, job_ids) for name in ("get_jobs", "find_stored", "done_among"))
    yield call("get_attempts", str(ids[0]))
    yield call("cancel_live", TENANT, job_ids)
    yield call("replay_dead", TENANT, job_ids)
    yield from (call(name, job_ids, array(0 for _ in ids)) for name in ("records_of", "forget_ended"))


def _put_off(job_id: UUID) -> PutOff:
    return PutOff(id=job_id, attempt=1, wait_seconds=0, end=AttemptEnd.FAILED, started=1, stopped=2)


def _ended(job_id: UUID) -> Ended:
    return Ended(id=job_id, attempt=1, state=State.SUCCEEDED, end=AttemptEnd.SUCCEEDED, started=1, stopped=2)


def fill(connection: psycopg.Connection) -> list[UUID]:
    query = f"""
        INSERT INTO jobs (id, tenant, task, pool, priority, state, max_attempts, due_at, blocked_on, expires_at,
            queued_at, body)
        SELECT gen_random_uuid(), '{TENANT}', 'shop.ship', 'default', 'normal', 'queued', 5,
            CASE WHEN n % 100 = 1 THEN now() END, CASE WHEN n % 100 = 2 THEN 'queue_full' END,
            CASE WHEN n % 100 = 3 THEN now() + interval '1 day' END, CASE WHEN n % 100 = 4 THEN now() END, '[]'
        FROM generate_series(1, {ROWS}) AS n RETURNING id"""
    ids = [row[0] for row in connection.execute(query.encode())]
    connection.execute(
        b"INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at)"
        b" SELECT id, 1, 'failed', 'w', now(), now() FROM jobs"
    )
    connection.execute(
        b"INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes,"
        b" max_attempts, created_at, ended_at, tags, body)"
        b" SELECT gen_random_uuid(), tenant, task, pool, priority, 'dead', series, attempt, failures, crashes,"
        b" max_attempts, created_at, now(), tags, body FROM jobs"
    )
    connection.execute(b"INSERT INTO outbox (job_ids) SELECT ARRAY[id] FROM jobs")
    connection.execute(
        b"INSERT INTO idempotency_keys SELECT tenant, id::text, id, 'f', now() + interval '1 day' FROM jobs"
    )
    return ids


def literal(text: str | None) -> str:
    return "NULL" if text is None else psycopg.sql.quote(text)


def wasted(plan: str) -> int:
    seen = sum(int(rows) for rows in re.findall(r"Rows Removed by (?:Join )?Filter: (\d+)", plan))
    return seen + ROWS * len(re.findall(r"Seq Scan on (?!pg_).*actual", plan))


def plan_on_empty_tables(connection: psycopg.Connection) -> dict[str, str]:
    prepared: dict[str, str] = {}
    for made in hot_calls([UUID(int=0)]):
        prepared[made.name] = f"hot_{len(prepared)}"
        connection.execute(f"PREPARE {prepared[made.name]} AS {made.sql}".encode())
        arguments = ", ".join(literal(text) for text in made.parameters)
        connection.execute(f"EXECUTE {prepared[made.name]}{f'({arguments})' if arguments else ''}".encode())
    connection.execute("DELETE FROM jobs")
    return prepared


def plans_on_full_tables(connection: psycopg.Connection, prepared: dict[str, str]) -> dict[str, str]:
    ids = fill(connection)
    chosen = ids[ROWS // 2 : ROWS // 2 + AT_ONCE]
    plans: dict[str, str] = {}
    for made in hot_calls(chosen):
        arguments = ", ".join(literal(text) for text in made.parameters)
        explain = f"EXPLAIN (ANALYZE) EXECUTE {prepared[made.name]}{f'({arguments})' if arguments else ''}"
        with connection.transaction(force_rollback=True):
            plans[made.name] = "\n".join(row[0] for row in connection.execute(explain.encode()))
    return plans


def test_statements_planned_on_empty_tables_find_their_rows_by_key_in_full_ones(database: str) -> None:
    with psycopg.connect(complete(database), autocommit=True) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")
        prepared = plan_on_empty_tables(connection)

        plans = plans_on_full_tables(connection, prepared)

    assert {name: plan for name, plan in plans.items() if wasted(plan) > TOLERATED_ROWS} == {}


def test_statements_planned_when_vacuum_knows_the_tables_to_be_empty_find_their_rows_by_key_too(database: str) -> None:
    with psycopg.connect(complete(database), autocommit=True) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")
        for name in EMPTIED:
            # Nobody shall look at it before the statements are used; it keeps its pages, as one that is in use.
            connection.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = off)".encode())
        fill(connection)
        for name in EMPTIED:
            connection.execute(f"DELETE FROM {name}".encode())
        connection.execute(f"VACUUM (ANALYZE, TRUNCATE off) {', '.join(EMPTIED)}".encode())
        prepared = plan_on_empty_tables(connection)

        plans = plans_on_full_tables(connection, prepared)

    assert {name: plan for name, plan in plans.items() if wasted(plan) > TOLERATED_ROWS} == {}
