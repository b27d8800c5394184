-- name: hold_lease
-- Take or keep a lease, unless somebody else has it. $1 name, $2 holder, $3 seconds
INSERT INTO leases AS l (name, holder, until) VALUES ($1, $2, now() + make_interval(secs => $3::float8))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE l.holder = excluded.holder OR l.until < now()
RETURNING 1

-- name: keep_lease
-- Prolong a lease that has not lapsed. $1 name, $2 holder, $3 seconds
UPDATE leases SET until = now() + make_interval(secs => $3::float8) WHERE name = $1 AND holder = $2 AND until > now() RETURNING 1

-- name: yield_lease
-- $1 name, $2 holder
DELETE FROM leases WHERE name = $1 AND holder = $2

-- name: measure_live
-- Ready and running jobs by pool, task and worker: the oldest first, so that a bound on their number keeps the ages right.
-- Blocked ones count where they wait for nothing but room in their queue. $1 gate of a full queue, $2 most rows of each kind
WITH found AS (
    (SELECT pool, task, state, CASE WHEN state = 'running' THEN worker END AS worker, queued_at AS ready_at, started_at
     FROM jobs WHERE queued_at IS NOT NULL AND state IN ('queued', 'running') ORDER BY queued_at LIMIT $2::int)
    UNION ALL
    (SELECT pool, task, 'queued', NULL, coalesce(queued_at, due_at, created_at), NULL
     FROM jobs WHERE blocked_on IS NOT NULL AND blocked_on = $1 LIMIT $2::int)
)
SELECT pool, task, worker, count(*), coalesce(extract(epoch FROM now() - min(ready_at) FILTER (WHERE state = 'queued')), 0)::float8,
    coalesce(extract(epoch FROM sum(now() - started_at)), 0)::float8, coalesce(extract(epoch FROM max(now() - started_at)), 0)::float8
FROM found GROUP BY pool, task, worker

-- name: measure_arrivals
-- How many jobs became ready within a window, those that have ended since too. $1 window in seconds, $2 lowest and $3 highest id
SELECT pool, task, count(*) FROM jobs WHERE queued_at > now() - make_interval(secs => $1::float8) GROUP BY pool, task
UNION ALL
SELECT pool, task, count(*) FROM finished_jobs WHERE id >= $2::uuid AND id < $3::uuid GROUP BY pool, task

-- name: measure_history
-- The newest attempts that ended, by pool and task; given back or cancelled ones say nothing. $1 lowest and $2 highest id, $3 most rows
SELECT pool, task, count(*), count(*) FILTER (WHERE ended <> 'succeeded'), sum(seconds), max(seconds)
FROM (
    SELECT coalesce(f.pool, j.pool) AS pool, coalesce(f.task, j.task) AS task, a.ended,
        greatest(extract(epoch FROM a.ended_at - a.started_at), 0)::float8 AS seconds
    FROM (
        SELECT job_id, ended, started_at, ended_at FROM attempts
        WHERE job_id >= $1::uuid AND job_id < $2::uuid AND ended IN ('succeeded', 'failed', 'crashed')
        ORDER BY job_id DESC, number DESC LIMIT $3::int) a
    LEFT JOIN finished_jobs f ON f.id = a.job_id LEFT JOIN jobs j ON j.id = a.job_id
) AS recent WHERE pool IS NOT NULL GROUP BY pool, task

-- name: measure_workers
-- Workers with a living lease, and the moment of all this.
SELECT id, pool, host, pid, processes, draining FROM workers WHERE lease_until > now()

-- name: measure_usage
-- Worker-hours of this calendar month, and the time.
SELECT extract(epoch FROM now())::float8, pool, sum(worker_seconds) / 3600 FROM (SELECT 1) AS always
LEFT JOIN scale_usage ON day >= date_trunc('month', now() AT TIME ZONE 'UTC')::date GROUP BY pool

-- name: record_decisions
-- Keep decisions and what was used, if the lease is held. $1 lease, $2 holder, $3 pool, $4 workers, $5 desired, $6 reason, $7 facts,
-- $8 worker seconds (arrays)
WITH held AS (
    SELECT name FROM leases WHERE name = $1 AND holder = $2 AND until > now() FOR UPDATE
), i AS (
    SELECT * FROM unnest($3::text[], $4::int[], $5::int[], $6::text[], $7::text[], $8::float8[])
        AS i (pool, workers, desired, reason, facts, seconds)
), used AS (
    INSERT INTO scale_usage AS u (pool, day, worker_seconds)
    SELECT i.pool, (now() AT TIME ZONE 'UTC')::date, i.seconds FROM i, held
    ON CONFLICT (pool, day) DO UPDATE SET worker_seconds = u.worker_seconds + excluded.worker_seconds
)
INSERT INTO scale_decisions (pool, workers, desired, reason, facts)
SELECT i.pool, i.workers, i.desired, i.reason, i.facts::jsonb FROM i, held RETURNING id

-- name: list_decisions
-- The newest decisions about a pool first. $1 pool, $2 since or null, $3 most rows
SELECT at, pool, workers, desired, reason, facts FROM scale_decisions
WHERE pool = $1 AND ($2::timestamptz IS NULL OR at >= $2::timestamptz) ORDER BY id DESC LIMIT $3::int

-- name: newest_decisions
-- The newest decision about every pool that was ever scaled.
WITH RECURSIVE pools (pool) AS (
    SELECT min(pool) FROM scale_decisions
    UNION ALL
    SELECT (SELECT min(d.pool) FROM scale_decisions d WHERE d.pool > p.pool) FROM pools p WHERE p.pool IS NOT NULL
)
SELECT d.at, d.pool, d.workers, d.desired, d.reason, d.facts FROM pools p
CROSS JOIN LATERAL (SELECT * FROM scale_decisions d WHERE d.pool = p.pool ORDER BY d.id DESC LIMIT 1) d ORDER BY d.pool

-- name: prune_decisions
-- Forget old decisions. $1 days, $2 most rows
DELETE FROM scale_decisions WHERE id IN (
    SELECT id FROM scale_decisions WHERE at < now() - make_interval(secs => $1::float8 * 86400) ORDER BY id LIMIT $2::int)
RETURNING 1
