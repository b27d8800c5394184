-- name: accept
-- Store a batch of jobs in one statement: keys decide, jobs whose key is taken are left out, one outbox row for all that may run now.
-- An id that is known already, from a commit whose answer was lost, is left alone. Answers how many are new, and which only where
-- that is not all of them.
-- $1 id, $2 tenant, $3 task, $4 pool, $5 priority, $6 state, $7 blocked_on, $8 due, $9 expires, $10 max_attempts, $11 soft limit, $12 hard limit,
-- $13 tags (text of an array), $14 trace, $15 body, $16 key, $17 fingerprint, $18 version of the task (arrays), $19 lifetime of the keys in seconds
WITH i AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
        $9::timestamptz[], $10::int[], $11::float8[], $12::float8[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
        $18::int[])
        AS i (id, tenant, task, pool, priority, state, blocked_on, due_at, expires_at, max_attempts, soft_limit, hard_limit,
              tags, trace, body, key, fingerprint, task_version)
), taken AS (
    INSERT INTO idempotency_keys AS k (tenant, key, job_id, fingerprint, expires_at)
    SELECT tenant, key, id, fingerprint, now() + make_interval(secs => $19::float8) FROM i WHERE key IS NOT NULL
    ON CONFLICT (tenant, key) DO UPDATE
        SET job_id = excluded.job_id, fingerprint = excluded.fingerprint, expires_at = excluded.expires_at
        WHERE k.expires_at <= now()
    RETURNING k.job_id
), new AS (
    INSERT INTO jobs (id, tenant, task, pool, priority, state, blocked_on, due_at, expires_at, max_attempts, soft_limit_seconds,
        hard_limit_seconds, tags, trace, body, task_version, queued_at)
    SELECT id, tenant, task, pool, priority, state, blocked_on, due_at, expires_at, max_attempts, soft_limit, hard_limit,
        tags::text[], trace, body, task_version, CASE state WHEN 'queued' THEN now() END
    FROM i WHERE (key IS NULL OR id IN (SELECT job_id FROM taken)) AND NOT EXISTS (SELECT FROM finished_jobs f WHERE f.id = i.id)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, state, due_at, created_at
), box AS (
    INSERT INTO outbox (job_ids) SELECT array_agg(id) FROM new WHERE state = 'queued' HAVING count(*) > 0 RETURNING id
), woken AS (
    SELECT pg_notify('taskplatform_due', '') FROM new WHERE due_at < now() + interval '2 seconds' LIMIT 1
)
SELECT count(*), min(new.created_at), (SELECT id FROM box), CASE WHEN count(*) < cardinality($1::uuid[]) THEN array_agg(new.id) END,
    (SELECT count(*) FROM woken)
FROM new

-- name: find_keys
-- Which jobs do these keys name? $1 tenant, $2 key (arrays)
SELECT k.tenant, k.key, k.job_id, k.fingerprint FROM unnest($1::text[], $2::text[]) AS i (tenant, key)
CROSS JOIN LATERAL (SELECT * FROM idempotency_keys k WHERE k.tenant = i.tenant AND k.key = i.key LIMIT 1) AS k

-- name: find_stored
-- When were these jobs created? Those that exist. $1 ids
SELECT j.id, created_at FROM unnest($1::uuid[]) AS i (id) JOIN jobs j ON j.id = ANY (ARRAY[i.id])
UNION ALL SELECT f.id, created_at FROM unnest($1::uuid[]) AS i (id) JOIN finished_jobs f ON f.id = i.id

-- name: settle_outbox
-- The broker has confirmed every message of these rows. A row that a relay holds is the relay's to delete. $1 ids
DELETE FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM outbox WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED))

-- name: put_off_outbox
-- Rows of which not every message was confirmed become young again, without what was. $1 ids, $2 confirmed jobs
UPDATE outbox SET created_at = clock_timestamp(), job_ids = ARRAY(SELECT unnest(job_ids) EXCEPT SELECT unnest($2::uuid[]))
WHERE id = ANY ($1::bigint[])

-- name: list_tasks
-- Every task: the specs of all its versions that are remembered, as one JSON array, and which of them workers run that take jobs, in
-- the pool where its jobs are. Most workers of a pool run the same versions.
WITH live AS (
    SELECT DISTINCT w.pool, v.key AS name, v.value AS version
    FROM (SELECT DISTINCT pool, versions FROM workers WHERE lease_until > now() AND NOT draining) w CROSS JOIN jsonb_each_text(w.versions) v
)
SELECT t.name, json_agg(v.spec)::text, array_agg(live.version::int) FILTER (WHERE live.version IS NOT NULL)
FROM tasks t CROSS JOIN jsonb_each(t.versions || jsonb_build_object(coalesce(t.spec ->> 'version', '1'), t.spec)) v (version, spec)
LEFT JOIN live ON live.name = t.name AND live.version = v.version AND live.pool = coalesce(v.spec ->> 'pool', 'default')
GROUP BY t.name ORDER BY t.name
