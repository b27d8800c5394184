-- name: adopt_messages
-- Give plain Celery messages, which have no row yet, their row: queued, or scheduled where their time has not come. A job that
-- is known already is left alone.
-- $1 id, $2 tenant, $3 task, $4 pool, $5 priority, $6 max_attempts, $7 soft limit, $8 hard limit, $9 body, $10 due, $11 expiry, $12 trace,
-- $13 version of the task (arrays)
WITH new AS (
    INSERT INTO jobs (id, tenant, task, pool, priority, state, max_attempts, soft_limit_seconds, hard_limit_seconds, queued_at, due_at,
        expires_at, body, trace, task_version)
    SELECT i.id, i.tenant, i.task, i.pool, i.priority, CASE WHEN i.due > now() THEN 'scheduled' ELSE 'queued' END, i.max_attempts,
        i.soft_limit, i.hard_limit, CASE WHEN i.due > now() THEN NULL ELSE now() END, CASE WHEN i.due > now() THEN i.due END,
        i.expires, i.body, i.trace, i.task_version
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::float8[], $8::float8[], $9::text[],
        $10::timestamptz[], $11::timestamptz[], $12::text[], $13::int[])
        AS i (id, tenant, task, pool, priority, max_attempts, soft_limit, hard_limit, body, due, expires, trace, task_version)
    WHERE NOT EXISTS (SELECT FROM finished_jobs f WHERE f.id = i.id)
    ON CONFLICT (id) DO NOTHING
    RETURNING due_at
)
SELECT pg_notify('taskplatform_due', '') FROM new WHERE due_at < now() + interval '2 seconds' LIMIT 1

-- name: claim_queued_or_same_claim
-- Start attempts: queued -> running. The same worker and claim token again give the same attempt, so a replay is safe. Answers in
-- columns, each a list of numbers: which of the wanted they are, counted from 1, and what is known of them. Workers are looked at only for
-- a job that was given back for its version often enough to be given up: does one live that could run it?
-- $1 id, $2 series (-1 for an adopted message) (arrays), $3 worker, $4 claim token,
-- $5 passes from which on a job is looked at like that
WITH claimed AS (
    UPDATE jobs j
    SET state = 'running', worker = $3, claim = $4, attempt = j.attempt + (j.state = 'queued')::int,
        started_at = CASE j.state WHEN 'queued' THEN now() ELSE j.started_at END
    FROM unnest($1::uuid[], $2::int[]) WITH ORDINALITY AS i (id, series, n)
    WHERE j.id = ANY (ARRAY[i.id]) AND (i.series = j.series OR i.series < 0)
        AND ((j.state = 'queued' AND (j.expires_at IS NULL OR j.expires_at > now()))
            OR (j.state = 'running' AND j.worker = $3 AND j.claim = $4))
    RETURNING n, j.attempt, j.failures, j.crashes, j.max_attempts, j.suspect,
        coalesce(date_part('epoch', j.started_at - j.queued_at), 0) AS waited, j.task_version, j.passes,
        CASE WHEN j.passes >= $5::int THEN EXISTS (SELECT FROM workers w WHERE w.pool = j.pool AND w.lease_until > now() AND NOT w.draining
            AND (w.versions ->> j.task)::int >= j.task_version) ELSE false END AS served
)
SELECT string_agg(n::text, ','), string_agg(attempt::text, ','), string_agg(failures::text, ','), string_agg(crashes::text, ','),
    string_agg(max_attempts::text, ','), string_agg(suspect::int::text, ','), string_agg(waited::text, ','),
    string_agg(task_version::text, ','), string_agg(passes::text, ','), string_agg(served::int::text, ',')
FROM claimed

-- name: finish_running
-- End jobs: running -> succeeded or dead, only for the attempt that holds them; one attempts row each, one dead letter for the dead.
-- The workers' clocks are not Postgres': a job ends no earlier than it was created.
-- Answers which of them were ended, counted from 1, as one list of numbers; so do the two that follow.
-- $1 id, $2 attempt, $3 state, $4 reason, $5 result, $6 error, $7 attempt end, $8 start and $9 end in epoch seconds, $10 charged failure, $11 charged crash (arrays)
WITH i AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[], $9::float8[], $10::int[], $11::int[])
        WITH ORDINALITY AS i (id, attempt, state, reason, result, error, ended, started, stopped, failed, crashed, n)
), gone AS (
    DELETE FROM jobs j USING i WHERE j.id = ANY (ARRAY[i.id]) AND j.attempt = i.attempt AND j.state = 'running'
    RETURNING j.*, i.n, i.state AS end_state, i.reason, i.result, i.error AS end_error, i.ended, i.started, i.stopped, i.failed, i.crashed
), kept AS (
    INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, ended_at, worker, tags, trace, reason, body, result, error)
    SELECT id, tenant, task, pool, priority, end_state, series, attempt, failures + failed, crashes + crashed, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, to_timestamp(started), greatest(to_timestamp(stopped), created_at), worker, tags, trace,
        reason, body, result, end_error
    FROM gone
), tried AS (
    INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at, error)
    SELECT id, attempt, ended, worker, to_timestamp(started), to_timestamp(stopped), end_error FROM gone
), buried AS (
    INSERT INTO dead_letters (reason, queue, tenant, job_id, task, detail)
    SELECT reason, 'jobs.' || pool || '.dead', tenant, id, task, left(coalesce(end_error, ''), 4000) FROM gone WHERE end_state = 'dead'
)
SELECT string_agg(n::text, ',') FROM gone

-- name: retry_running
-- Put failed jobs off: running -> retrying, only for the attempt that holds them.
-- $1 id, $2 attempt, $3 wait in seconds, $4 error, $5 attempt end, $6 start and $7 end in epoch seconds, $8 charged failure, $9 charged crash (arrays)
WITH i AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::float8[], $4::text[], $5::text[], $6::float8[], $7::float8[], $8::int[], $9::int[])
        WITH ORDINALITY AS i (id, attempt, wait, error, ended, started, stopped, failed, crashed, n)
), put_off AS (
    UPDATE jobs j
    SET state = 'retrying', due_at = now() + make_interval(secs => i.wait), queued_at = NULL, failures = j.failures + i.failed,
        crashes = j.crashes + i.crashed, suspect = j.crashes + i.crashed > 0, error = i.error
    FROM i WHERE j.id = ANY (ARRAY[i.id]) AND j.attempt = i.attempt AND j.state = 'running'
    RETURNING i.n, j.id, j.attempt, j.worker, i.error, i.ended, i.started, i.stopped
), tried AS (
    INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at, error)
    SELECT id, attempt, ended, worker, to_timestamp(started), to_timestamp(stopped), error FROM put_off
), woken AS (
    SELECT pg_notify('taskplatform_due', '') FROM put_off LIMIT 1
)
SELECT string_agg(n::text, ',') FROM put_off LEFT JOIN woken ON true

-- name: release_running
-- Give back claimed jobs: running -> retrying, nobody charged; the dispatcher publishes them again, at once or after a wait.
-- One with an error was given back for its version, and that is counted. $1 id, $2 attempt, $3 wait in seconds, $4 error or null (arrays)
WITH given AS (
    UPDATE jobs j SET state = 'retrying', due_at = now() + make_interval(secs => i.wait), queued_at = NULL, error = coalesce(i.error, j.error),
        passes = j.passes + (i.error IS NOT NULL)::int
    FROM unnest($1::uuid[], $2::int[], $3::float8[], $4::text[]) WITH ORDINALITY AS i (id, attempt, wait, error, n)
    WHERE j.id = ANY (ARRAY[i.id]) AND j.attempt = i.attempt AND j.state = 'running'
    RETURNING i.n, j.id, j.attempt, j.worker, j.started_at, i.error
), tried AS (
    INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at, error)
    SELECT id, attempt, 'released', worker, started_at, now(), error FROM given
), woken AS (
    SELECT pg_notify('taskplatform_due', '') FROM given LIMIT 1
)
SELECT string_agg(n::text, ',') FROM given LEFT JOIN woken ON true

-- name: save_checkpoints
-- Keep how far running jobs have come, only for the attempt that holds them. Answers which were kept, counted from 1.
-- $1 id, $2 attempt, $3 checkpoint (arrays)
WITH kept AS (
    UPDATE jobs j SET checkpoint = i.checkpoint
    FROM unnest($1::uuid[], $2::int[], $3::text[]) WITH ORDINALITY AS i (id, attempt, checkpoint, n)
    WHERE j.id = ANY (ARRAY[i.id]) AND j.attempt = i.attempt AND j.state = 'running'
    RETURNING i.n
)
SELECT string_agg(n::text, ',') FROM kept

-- name: load_checkpoints
-- How far have running jobs come? Rows only for the attempt that holds its job, which are counted from 1. $1 id, $2 attempt (arrays)
SELECT i.n, j.checkpoint FROM unnest($1::uuid[], $2::int[]) WITH ORDINALITY AS i (id, attempt, n)
JOIN jobs j ON j.id = ANY (ARRAY[i.id]) AND j.attempt = i.attempt AND j.state = 'running'

-- name: renew_lease
-- Keep, or take, the lease of one worker process.
-- $1 id, $2 pool, $3 host, $4 pid, $5 processes, $6 lease in seconds, $7 draining, $8 running jobs, $9 waiting messages, $10 versions of tasks
INSERT INTO workers (id, pool, host, pid, processes, lease_until, draining, running, waiting, versions)
VALUES ($1, $2, $3, $4::int, $5::int, now() + make_interval(secs => $6::float8), $7::bool, $8::int, $9::int, $10::jsonb)
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until, draining = excluded.draining, running = excluded.running,
    waiting = excluded.waiting

-- name: end_lease
-- A worker that has given back everything says goodbye. $1 id
DELETE FROM workers WHERE id = $1

-- name: find_cancelled
-- Which of these attempts are no longer running jobs: cancelled, rescued or ended behind the worker's back.
-- $1 id, $2 attempt (arrays)
SELECT i.id, i.attempt FROM unnest($1::uuid[], $2::int[]) AS i (id, attempt)
WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = ANY (ARRAY[i.id]) AND j.attempt = i.attempt AND j.state = 'running')

-- name: announce_tasks
-- Make tasks known, so that submissions can be checked. An older version takes nothing from a newer one while somebody runs that;
-- versions that nobody runs any more are forgotten. Who runs a version is a worker of the pool where its jobs are.
-- $1 name, $2 version, $3 spec (arrays)
WITH live AS (
    SELECT DISTINCT w.pool, v.key AS name, v.value AS version
    FROM (SELECT DISTINCT pool, versions FROM workers WHERE lease_until > now() AND NOT draining) w CROSS JOIN jsonb_each_text(w.versions) v
)
INSERT INTO tasks AS t (name, spec, versions)
SELECT i.name, i.spec::jsonb, jsonb_build_object(i.version::text, i.spec::jsonb)
FROM unnest($1::text[], $2::int[], $3::text[]) AS i (name, version, spec)
ON CONFLICT (name) DO UPDATE SET announced_at = now(),
    versions = excluded.versions || coalesce((
        SELECT jsonb_object_agg(v.key, v.value) FROM jsonb_each(t.versions) v
        WHERE NOT excluded.versions ? v.key AND EXISTS (
            SELECT FROM live WHERE live.name = t.name AND live.version = v.key AND live.pool = coalesce(v.value ->> 'pool', 'default'))), '{}'),
    spec = CASE WHEN EXISTS (
        SELECT FROM live WHERE live.name = t.name AND live.version = t.spec ->> 'version' AND live.pool = coalesce(t.spec ->> 'pool', 'default')
            AND live.version::int > coalesce((excluded.spec ->> 'version')::int, 1)) THEN t.spec ELSE excluded.spec END

-- name: await_standbys
-- Let the commit wait for the standbys: one that writes nothing, because an earlier one did it all, would not wait for them.
SELECT pg_logical_emit_message(true, 'taskplatform', '')
