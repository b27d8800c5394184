-- name: release_due
-- Open the gate of time: scheduled or retrying -> queued where due and the queue is not full, with one outbox row for the batch.
-- $1 pool, $2 priority of the full queues (arrays), $3 most jobs
WITH due AS (
    SELECT id FROM jobs j WHERE due_at <= now() AND state IN ('scheduled', 'retrying')
        AND NOT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS f (pool, priority) WHERE f.pool = j.pool AND f.priority = j.priority)
    ORDER BY due_at LIMIT $3::int FOR UPDATE OF j SKIP LOCKED
), up AS (
    UPDATE jobs j SET state = 'queued', due_at = NULL, queued_at = now() FROM due
    WHERE j.id = ANY (ARRAY[due.id])
    RETURNING j.*
), box AS (
    INSERT INTO outbox (job_ids) SELECT array_agg(id) FROM up HAVING count(*) > 0 RETURNING id
)
SELECT up.id, up.tenant, up.task, up.pool, up.priority, up.series, up.suspect, up.soft_limit_seconds, up.hard_limit_seconds,
    up.task_version, up.trace, up.body, box.id AS outbox_id
FROM up CROSS JOIN box

-- name: hold_due
-- Jobs that are due and whose queue is full wait for room: scheduled or retrying -> blocked.
-- $1 pool, $2 priority of the full queues (arrays), $3 gate, $4 most jobs
WITH due AS (
    SELECT id FROM jobs j WHERE due_at <= now() AND state IN ('scheduled', 'retrying')
        AND EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS f (pool, priority) WHERE f.pool = j.pool AND f.priority = j.priority)
    ORDER BY due_at LIMIT $4::int FOR UPDATE OF j SKIP LOCKED
)
UPDATE jobs j SET state = 'blocked', blocked_on = $3, due_at = NULL, held_at = now() FROM due WHERE j.id = ANY (ARRAY[due.id]) RETURNING j.id

-- name: release_blocked
-- Open the gate of a full queue: blocked -> queued, oldest first, with one outbox row. $1 pool, $2 priority, $3 gate, $4 most jobs
WITH held AS (
    SELECT id FROM jobs WHERE blocked_on IS NOT NULL AND pool = $1 AND priority = $2 AND blocked_on = $3 AND state = 'blocked'
    ORDER BY id LIMIT $4::int FOR UPDATE SKIP LOCKED
), up AS (
    UPDATE jobs j SET state = 'queued', blocked_on = NULL, held_at = NULL, queued_at = now() FROM held WHERE j.id = ANY (ARRAY[held.id])
    RETURNING j.*
), box AS (
    INSERT INTO outbox (job_ids) SELECT array_agg(id) FROM up HAVING count(*) > 0 RETURNING id
)
SELECT up.id, up.tenant, up.task, up.pool, up.priority, up.series, up.suspect, up.soft_limit_seconds, up.hard_limit_seconds,
    up.task_version, up.trace, up.body, box.id AS outbox_id
FROM up CROSS JOIN box

-- name: blocked_gates
-- Which of these pools and priorities have jobs that a gate holds? $1 gate, $2 pool, $3 priority (arrays)
SELECT p.pool, p.priority FROM unnest($2::text[], $3::text[]) AS p (pool, priority)
WHERE (SELECT true FROM jobs j WHERE j.blocked_on = $1 AND j.pool = p.pool AND j.priority = p.priority LIMIT 1)

-- name: next_due
-- Seconds until the next job is due, null when none is.
SELECT extract(epoch FROM min(due_at) - now()) FROM jobs WHERE due_at IS NOT NULL

-- name: take_outbox
-- Lock outbox rows that nobody settled in time, and give the messages that are still wanted. $1 age in seconds, $2 most rows
WITH box AS (
    SELECT id, job_ids FROM outbox WHERE created_at <= now() - make_interval(secs => $1::float8)
    ORDER BY created_at LIMIT $2::int FOR UPDATE SKIP LOCKED
)
SELECT j.id, j.tenant, j.task, j.pool, j.priority, j.series, j.suspect, j.soft_limit_seconds, j.hard_limit_seconds,
    j.task_version, j.trace, j.body, box.id AS outbox_id
FROM box CROSS JOIN LATERAL unnest(box.job_ids) AS wanted (id) LEFT JOIN jobs j ON j.id = ANY (ARRAY[wanted.id]) AND j.state = 'queued'

-- name: find_stranded
-- Queued jobs of one queue whose message should long have been taken. $1 pool, $2 priority, $3 age in seconds, $4 most jobs
SELECT id, tenant, task, pool, priority, series, suspect, soft_limit_seconds, hard_limit_seconds, task_version, trace, body,
    NULL::bigint AS outbox_id
FROM jobs WHERE state = 'queued' AND pool = $1 AND priority = $2 AND queued_at <= now() - make_interval(secs => $3::float8)
ORDER BY queued_at LIMIT $4::int

-- name: touch_stranded
-- These were published again. $1 ids
UPDATE jobs SET queued_at = now() WHERE id = ANY ($1::uuid[]) AND state = 'queued'

-- name: expire_due
-- waiting -> expired once the deadline has passed. $1 most jobs
WITH late AS (
    SELECT id FROM jobs WHERE expires_at <= now() AND state <> 'running' ORDER BY expires_at LIMIT $1::int FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM jobs j USING late WHERE j.id = ANY (ARRAY[late.id]) RETURNING j.*
), kept AS (
    INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, ended_at, worker, tags, trace, body, error)
    SELECT id, tenant, task, pool, priority, 'expired', series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, now(), worker, tags, trace, body, error
    FROM gone
)
SELECT id FROM gone

-- name: lapsed_workers
-- Workers whose lease has run out, locked against another rescuer. $1 most workers
SELECT id FROM workers WHERE lease_until < now() ORDER BY id LIMIT $1::int FOR UPDATE SKIP LOCKED

-- name: rescue_running
-- Take back what lapsed workers held. One that ran alone as a suspect is charged a crash and is dead at the limit; any other
-- becomes a suspect and is charged nothing. A running job has been queued: jobs_queued finds it among those that are in the broker or
-- with a worker, however many others wait. $1 workers, $2 crash limit, $3 error text
WITH held AS (
    SELECT id, suspect, crashes FROM jobs
    WHERE queued_at > '-infinity' AND state = 'running' AND worker = ANY ($1::text[]) FOR UPDATE
), saved AS (
    UPDATE jobs j SET state = 'retrying', due_at = now(), queued_at = NULL, suspect = true, crashes = j.crashes + held.suspect::int, error = $3
    FROM held WHERE j.id = ANY (ARRAY[held.id]) AND (NOT held.suspect OR held.crashes + 1 < $2::int)
    RETURNING j.id, j.attempt, j.worker, j.started_at, held.suspect, j.task, j.tenant, j.pool, j.trace
), gone AS (
    DELETE FROM jobs j USING held WHERE j.id = ANY (ARRAY[held.id]) AND held.suspect AND held.crashes + 1 >= $2::int RETURNING j.*
), kept AS (
    INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, ended_at, worker, tags, trace, reason, body, error)
    SELECT id, tenant, task, pool, priority, 'dead', series, attempt, failures, crashes + 1, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, now(), worker, tags, trace, 'poison', body, $3
    FROM gone
), buried AS (
    INSERT INTO dead_letters (reason, queue, tenant, job_id, task, detail)
    SELECT 'poison', 'jobs.' || pool || '.dead', tenant, id, task, $3 FROM gone
), tried AS (
    INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at, error)
    SELECT id, attempt, CASE WHEN suspect THEN 'crashed' ELSE 'lost' END, worker, started_at, now(), $3 FROM saved
    UNION ALL SELECT id, attempt, 'crashed', worker, started_at, now(), $3 FROM gone
)
SELECT id, task, tenant, pool, trace, 'retrying' AS state FROM saved UNION ALL SELECT id, task, tenant, pool, trace, 'dead' FROM gone

-- name: end_leases
-- Forget these workers. $1 ids
DELETE FROM workers WHERE id = ANY ($1::text[])

-- name: orphaned_running
-- Running jobs whose worker has no lease row at all, found as above.
SELECT DISTINCT worker FROM jobs j
WHERE queued_at > '-infinity' AND state = 'running' AND NOT EXISTS (SELECT FROM workers w WHERE w.id = j.worker)

-- name: bury_messages
-- Keep messages as dead letters; a queued job that one of them stands for goes queued -> dead. A message whose job has moved on since
-- (it runs, has ended, or is in another series) says nothing new and is left out, so the same call again adds nothing for a known job.
-- $1 reason, $2 queue, $3 tenant, $4 job id, $5 task, $6 detail, $7 headers, $8 raw, $9 series (arrays)
WITH i AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::int[])
        WITH ORDINALITY AS i (reason, queue, tenant, job_id, task, detail, headers, raw, series, place)
), gone AS (
    DELETE FROM jobs j USING i WHERE j.id = ANY (ARRAY[i.job_id]) AND j.state = 'queued' AND (i.series IS NULL OR i.series = j.series)
    RETURNING j.*, i.reason, i.detail, i.place
), kept AS (
    INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, ended_at, worker, tags, trace, reason, body, error)
    SELECT id, tenant, task, pool, priority, 'dead', series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, now(), worker, tags, trace, reason, body,
        json_build_object('type', reason, 'message', detail)::text
    FROM gone
)
INSERT INTO dead_letters (reason, queue, tenant, job_id, task, detail, headers, raw)
SELECT i.reason, i.queue, i.tenant, i.job_id, i.task, i.detail, i.headers, i.raw FROM i
WHERE i.job_id IS NULL OR i.place IN (SELECT place FROM gone)
    OR NOT (EXISTS (SELECT FROM jobs j WHERE j.id = ANY (ARRAY[i.job_id])) OR EXISTS (SELECT FROM finished_jobs f WHERE f.id = i.job_id))
RETURNING id
