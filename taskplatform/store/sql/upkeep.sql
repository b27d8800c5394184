-- name: add_partition
-- Make one daily partition, unless it is there. $1 table, $2 key column, $3 suffix, $4 lowest id, $5 id above the highest
SELECT add_partition($1, $2, $3, $4::uuid, $5::uuid)

-- name: list_partitions
-- The partitions of the partitioned tables.
SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
WHERE h.inhparent = ANY (ARRAY ['finished_jobs'::regclass, 'attempts'::regclass]) AND c.relkind = 'r'

-- name: drop_partition
-- Drop one partition. $1 name
SELECT drop_partition($1)

-- name: prune_keys
-- Forget idempotency keys whose time is over. $1 most rows
DELETE FROM idempotency_keys WHERE (tenant, key) IN (
    SELECT tenant, key FROM idempotency_keys WHERE expires_at < now() ORDER BY expires_at LIMIT $1::int FOR UPDATE SKIP LOCKED)
RETURNING 1

-- name: prune_jobs
-- Forget ended jobs that no daily partition holds. $1 retention in days, $2 most rows
DELETE FROM finished_jobs_default WHERE id IN (
    SELECT id FROM finished_jobs_default WHERE ended_at < now() - make_interval(secs => $1::float8 * 86400)
    ORDER BY ended_at LIMIT $2::int)
RETURNING 1

-- name: prune_attempts
-- Forget attempts that no daily partition holds. $1 retention in days, $2 most rows
DELETE FROM attempts_default WHERE (job_id, number) IN (
    SELECT job_id, number FROM attempts_default WHERE ended_at < now() - make_interval(secs => $1::float8 * 86400)
    ORDER BY ended_at LIMIT $2::int)
RETURNING 1

-- name: prune_letters
-- Forget dead letters as old as the jobs that are forgotten. $1 retention in days, $2 most rows
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters WHERE created_at < now() - make_interval(secs => $1::float8 * 86400) ORDER BY id LIMIT $2::int)
RETURNING 1
