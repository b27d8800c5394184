-- name: census
-- All live jobs by pool, priority, state and gate, and for how many seconds the oldest of each has been there.
SELECT pool, priority, state, coalesce(blocked_on, ''), count(*), extract(epoch FROM now() - min(CASE state
    WHEN 'queued' THEN queued_at WHEN 'running' THEN started_at WHEN 'blocked' THEN coalesce(held_at, created_at) ELSE due_at END))::float8
FROM jobs GROUP BY 1, 2, 3, 4

-- name: unreplayed_letters
-- Dead letters that nobody has replayed, by queue and reason.
SELECT queue, reason, count(*) FROM dead_letters WHERE replayed_at IS NULL GROUP BY 1, 2

-- name: outbox_state
-- What waits in the outbox, and for how many seconds.
SELECT count(*), coalesce(sum(cardinality(job_ids)), 0)::int8, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM outbox

-- name: crews
-- Workers whose lease holds, by pool.
SELECT pool, draining, count(*), sum(processes)::int8, sum(waiting)::int8 FROM workers WHERE lease_until > now() GROUP BY 1, 2

-- name: standbys
-- Standbys of this primary; one that a backup is taken for is none.
SELECT coalesce(nullif(application_name, ''), host(client_addr), pid::text), coalesce(extract(epoch FROM replay_lag), 0)::float8,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::int8
FROM pg_stat_replication WHERE state IN ('catchup', 'streaming')

-- name: sessions
-- Sessions on this database by what they do; the age of the oldest transaction, in seconds.
SELECT coalesce(state, 'unknown'), count(*), coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' GROUP BY 1

-- name: in_outbox
-- Queued jobs by pool whose message is not known to be in the broker.
SELECT j.pool, count(DISTINCT j.id) FROM outbox o CROSS JOIN LATERAL unnest(o.job_ids) AS wanted (id) JOIN jobs j ON j.id = ANY (ARRAY[wanted.id])
WHERE j.state = 'queued' GROUP BY 1

-- name: owed
-- Jobs by pool that were queued so long ago: still queued, or running for a worker without a lease. $1 age in seconds
SELECT j.pool, count(*) FILTER (WHERE j.state = 'queued'), count(*) FILTER (WHERE j.state = 'running' AND w.id IS NULL)
FROM jobs j LEFT JOIN workers w ON w.id = j.worker AND w.lease_until > now() - make_interval(secs => $1::float8)
WHERE j.queued_at <= now() - make_interval(secs => $1::float8) AND j.state IN ('queued', 'running') GROUP BY 1
