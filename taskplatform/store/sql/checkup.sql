-- name: server_settings
-- Settings of the server that promises depend on, as this session has them.
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names', 'max_connections')

-- name: synchronous_standbys
-- How many standbys answer for a commit; null where this role may not see them.
SELECT CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) END
FROM pg_stat_replication

-- name: sessions_in_all
-- How many sessions the server has, of all databases.
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'

-- name: unserved_pools
-- Pools with jobs that have been queued for half a minute, and no worker that takes any.
SELECT DISTINCT j.pool FROM jobs j WHERE j.state = 'queued' AND j.queued_at < now() - interval '30 seconds'
    AND NOT EXISTS (SELECT FROM workers w WHERE w.pool = j.pool AND w.lease_until > now() AND NOT w.draining)
ORDER BY 1

-- name: left_running
-- Running jobs whose worker has had no lease for a minute: nobody rescues.
SELECT count(*) FROM jobs j
WHERE j.queued_at > '-infinity' AND j.state = 'running' AND j.started_at < now() - interval '1 minute'
    AND NOT EXISTS (SELECT FROM workers w WHERE w.id = j.worker AND w.lease_until > now() - interval '1 minute')

-- name: most_overdue
-- For how many seconds the first due job, and the oldest row of the outbox, have waited for a dispatcher.
SELECT greatest(coalesce(extract(epoch FROM now() - (SELECT min(due_at) FROM jobs WHERE due_at IS NOT NULL)), 0), 0)::float8,
    coalesce(extract(epoch FROM now() - (SELECT min(created_at) FROM outbox)), 0)::float8

-- name: ending_keys
-- Keys that are in use and expire within a week, or have expired: their names, and the seconds they have left.
SELECT coalesce(nullif(name, ''), id), extract(epoch FROM expires_at - now())::float8 FROM api_keys
WHERE revoked_at IS NULL AND expires_at < now() + interval '7 days' ORDER BY expires_at DESC LIMIT 10

-- name: living_keys
-- How many keys let somebody in.
SELECT count(*) FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
