-- name: get_jobs
-- Read jobs wherever they are; joined, so that each id touches one partition alone. $1 ids
SELECT j.id, tenant, task, pool, priority, state, body, attempt, failures, max_attempts, series, created_at, task_version, blocked_on, due_at,
    expires_at, started_at, NULL::timestamptz AS ended_at, NULL::text AS reason, NULL::text AS result, error, tags
FROM unnest($1::uuid[]) AS i (id) JOIN jobs j ON j.id = ANY (ARRAY[i.id])
UNION ALL
SELECT f.id, tenant, task, pool, priority, state, body, attempt, failures, max_attempts, series, created_at, task_version, NULL, NULL,
    expires_at, started_at, ended_at, reason, result, error, tags
FROM unnest($1::uuid[]) AS i (id) JOIN finished_jobs f ON f.id = i.id

-- name: get_attempts
-- All runs of a job in order, the one that runs now last. $1 id
SELECT job_id, number, ended, worker, started_at, ended_at, error FROM attempts WHERE job_id = $1::uuid
UNION ALL
SELECT id, attempt, NULL, worker, started_at, NULL, NULL FROM jobs WHERE id = $1::uuid AND state = 'running'
ORDER BY number

-- name: done_among
-- Which of these jobs have ended? $1 ids
SELECT f.id FROM unnest($1::uuid[]) AS i (id) JOIN finished_jobs f ON f.id = i.id

-- name: cancel_live
-- any live state -> cancelled. The tenant is checked last, for else a young database would go through all of its jobs. $1 tenant, $2 ids
WITH found AS MATERIALIZED (
    SELECT j.id, j.tenant FROM unnest($2::uuid[]) AS i (id) JOIN jobs j ON j.id = ANY (ARRAY[i.id])
), gone AS (
    DELETE FROM jobs j USING found WHERE j.id = ANY (ARRAY[found.id]) AND found.tenant = $1 RETURNING j.*
), kept AS (
    INSERT INTO finished_jobs (id, tenant, task, pool, priority, state, series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, ended_at, worker, tags, trace, body, error)
    SELECT id, tenant, task, pool, priority, 'cancelled', series, attempt, failures, crashes, max_attempts,
        soft_limit_seconds, hard_limit_seconds, task_version, expires_at, created_at, started_at, now(), worker, tags, trace, body, error
    FROM gone
), tried AS (
    INSERT INTO attempts (job_id, number, ended, worker, started_at, ended_at)
    SELECT id, attempt, 'cancelled', worker, started_at, now() FROM gone WHERE state = 'running'
)
SELECT id FROM gone

-- name: replay_dead
-- dead -> queued: the same job, a new series of attempts, with one outbox row. The tenant is checked last, as above. $1 tenant, $2 job ids
WITH found AS MATERIALIZED (
    SELECT f.id, f.tenant FROM unnest($2::uuid[]) AS i (id) JOIN finished_jobs f ON f.id = i.id
), back AS (
    DELETE FROM finished_jobs f USING found WHERE f.id = found.id AND found.tenant = $1 AND f.state = 'dead' RETURNING f.*
), up AS (
    INSERT INTO jobs (id, tenant, task, pool, priority, state, series, attempt, max_attempts, soft_limit_seconds, hard_limit_seconds,
        task_version, created_at, queued_at, tags, trace, body)
    SELECT id, tenant, task, pool, priority, 'queued', series + 1, attempt, max_attempts, soft_limit_seconds, hard_limit_seconds,
        task_version, created_at, now(), tags, trace, body
    FROM back RETURNING *
), letters AS (
    UPDATE dead_letters d SET replayed_at = now() FROM up WHERE d.job_id = up.id AND d.replayed_at IS NULL
), box AS (
    INSERT INTO outbox (job_ids) SELECT array_agg(id) FROM up HAVING count(*) > 0 RETURNING id
)
SELECT up.id, up.tenant, up.task, up.pool, up.priority, up.series, up.suspect, up.soft_limit_seconds, up.hard_limit_seconds,
    up.task_version, up.trace, up.body, box.id AS outbox_id
FROM up CROSS JOIN box

-- name: mark_replayed
-- A raw dead letter was handed in again. $1 id
UPDATE dead_letters SET replayed_at = now() WHERE id = $1::bigint AND replayed_at IS NULL RETURNING id

-- name: record_audit
-- Who did what to what. $1 tenant, $2 actor, $3 action, $4 target, $5 detail
INSERT INTO audit (tenant, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5)

-- name: add_key
-- $1 id, $2 tenant, $3 name, $4 SHA-256 of the secret, $5 scopes, $6 expiry
INSERT INTO api_keys (id, tenant, name, secret_sha256, scopes, expires_at)
VALUES ($1, $2, $3, $4::bytea, $5::text[], $6::timestamptz)

-- name: list_keys
-- One key, or all where the id is null, newest first. $1 id
SELECT id, tenant, name, secret_sha256, scopes, created_at, expires_at, revoked_at
FROM api_keys WHERE $1::text IS NULL OR id = $1 ORDER BY created_at DESC, id

-- name: revoke_key
-- $1 id
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id

-- name: get_letter
-- One dead letter whole. $1 id
SELECT id, reason, created_at, queue, tenant, job_id, task, detail, headers, replayed_at, raw FROM dead_letters WHERE id = $1::bigint

-- name: glance
-- The platform at a glance, as one JSON text; no live job is read. Totals are counted by Postgres' own statistics.
WITH inserted AS (
    SELECT coalesce(sum(n_tup_ins) FILTER (WHERE relname = 'jobs'), 0) AS accepted,
        coalesce(sum(n_tup_ins) FILTER (WHERE relname LIKE 'attempts%'), 0) AS attempts,
        coalesce(sum(n_tup_ins) FILTER (WHERE relname LIKE 'finished\_jobs%'), 0) AS ended,
        coalesce(sum(n_tup_ins) FILTER (WHERE relname = 'dead_letters'), 0) AS dead
    FROM pg_stat_user_tables
)
SELECT json_build_object(
    'at', to_json(clock_timestamp()),
    'workers', (SELECT coalesce(json_agg(json_build_object('id', id, 'pool', pool, 'host', host, 'processes', processes,
            'running', running, 'draining', draining, 'lease_seconds', extract(epoch FROM lease_until - now())::float8,
            'up_seconds', extract(epoch FROM now() - started_at)::float8) ORDER BY pool, id), '[]') FROM workers),
    'outbox', (SELECT count(*) FROM outbox),
    'versions', (SELECT coalesce(json_object_agg(part, versions), '{}') FROM (
        SELECT split_part(application_name, ' ', 2) AS part, json_agg(DISTINCT split_part(application_name, ' ', 3)) AS versions
        FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'taskplatform _% _%' GROUP BY 1
    ) running),
    'totals', (SELECT json_build_object('accepted', accepted, 'attempts', attempts, 'ended', ended, 'dead', dead) FROM inserted)
)::text
