-- name: add_partition
-- Make one daily partition, unless it is there. $1 table, $2 key column, $3 suffix, $4 lowest id, $5 id above the highest
SELECT add_partition($1, $2, $3, $4::uuid, $5::uuid)

-- name: list_partitions
-- The partitions of the partitioned tables.
SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
WHERE h.inhparent = ANY (ARRAY ['finished_jobs'::regclass, 'attempts'::regclass]) AND c.relkind = 'r'

-- name: list_parts
-- How far retention has come with the partitions that it has looked into.
SELECT part, policy, look_at, cutoffs IS NOT NULL FROM retention_parts

-- name: enter_part
-- Begin to keep count of a partition. $1 part
INSERT INTO retention_parts (part) VALUES ($1) ON CONFLICT DO NOTHING

-- name: take_part
-- Work on a partition alone; no row where somebody else does, or has dropped it. $1 part
SELECT policy, cutoffs, archived, behind_ended, behind_id FROM retention_parts WHERE part = $1 FOR UPDATE SKIP LOCKED

-- name: leave_part
-- What is to be done next with a partition: sweep by the cutoffs, behind the last job that was swept, or look again.
-- $1 part, $2 policy, $3 next look, $4 cutoffs, $5 end and $6 id of that job
UPDATE retention_parts SET policy = $2, look_at = $3::timestamptz, cutoffs = $4, behind_ended = $5::timestamptz, behind_id = $6::uuid WHERE part = $1

-- name: note_archive
-- Ended jobs go into an archive from now on.
INSERT INTO archiving DEFAULT VALUES ON CONFLICT DO NOTHING

-- name: is_archiving
-- Do they?
SELECT EXISTS (SELECT FROM archiving)

-- name: end_archiving
-- From now on they need not.
DELETE FROM archiving

-- name: count_archived
-- One more object of a partition is in the archive. $1 part
UPDATE retention_parts SET archived = archived + 1 WHERE part = $1

-- name: bear_with_the_archive
-- Let this transaction wait for the archive longer than others may wait for anything. $1 time, such as 120s
SELECT set_config('idle_in_transaction_session_timeout', $1, true)

-- name: records_of
-- Ended jobs with their attempts, all columns, for the archive, but none that was replayed meanwhile. $1 id, $2 series (arrays)
SELECT f.id, f.series, json_build_object('job', row_to_json(f), 'attempts', coalesce(
    (SELECT json_agg(row_to_json(a) ORDER BY a.number) FROM attempts a WHERE a.job_id = f.id), '[]'))::text
FROM finished_jobs f WHERE f.id = ANY ($1::uuid[])
    AND (f.id, f.series) IN (SELECT i.id, i.series FROM unnest($1::uuid[], $2::int[]) AS i (id, series))
ORDER BY f.id

-- name: survey_day
-- The ended jobs of a day by tenant and task, dead ones apart. $1 lowest id, $2 id above the highest
SELECT tenant, task, state = 'dead', count(*), min(ended_at), max(ended_at)
FROM finished_jobs WHERE id >= $1::uuid AND id < $2::uuid GROUP BY 1, 2, 3

-- name: survey_rest
-- The same of old jobs that no daily partition holds. $1 ended before
SELECT tenant, task, state = 'dead', count(*), min(ended_at), max(ended_at)
FROM finished_jobs_default WHERE ended_at < $1::timestamptz GROUP BY 1, 2, 3

-- name: survey_letters
-- The same of old dead letters, all of which count as dead. $1 written before
SELECT tenant, task, true, count(*), min(created_at), max(created_at)
FROM dead_letters WHERE created_at < $1::timestamptz GROUP BY 1, 2

-- name: drop_day
-- Drop the partitions of a day, but not what the cutoffs do not name.
-- $1 part, $2 lowest id, $3 id above the highest, $4 tenant, $5 task, $6 dead, $7 ended before (arrays), $8 most jobs to move out
SELECT drop_day($1, $2::uuid, $3::uuid, $4::text[], $5::text[], $6::bool[], $7::timestamptz[], $8::int)

-- name: past_in_day
-- Jobs of a day that have been kept long enough, behind the last one that was swept, with the bytes of their texts.
-- $1 ended before, as JSON by tenant, task, and "dead" or "ended", $2 most rows, $3 id of the last one, $4 lowest id, $5 id above the highest
SELECT f.id, f.series, octet_length(f.body) + coalesce(octet_length(f.result), 0) + coalesce(octet_length(f.error), 0), f.ended_at
FROM finished_jobs f
WHERE f.id >= $4::uuid AND f.id < $5::uuid
    AND f.id > coalesce($3::uuid, '00000000-0000-0000-0000-000000000000')
    AND f.ended_at < ($1::jsonb #>> ARRAY[f.tenant, f.task, CASE f.state WHEN 'dead' THEN 'dead' ELSE 'ended' END])::timestamptz
ORDER BY f.id LIMIT $2::int

-- name: past_in_rest
-- The same of those that no daily partition holds. $1 to $3 as above, $4 end of the last one, $5 the latest of the times in $1
SELECT f.id, f.series, octet_length(f.body) + coalesce(octet_length(f.result), 0) + coalesce(octet_length(f.error), 0), f.ended_at
FROM finished_jobs_default f
WHERE (f.ended_at, f.id) > (coalesce($4::timestamptz, '-infinity'), coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'))
    AND f.ended_at < $5::timestamptz
    AND f.ended_at < ($1::jsonb #>> ARRAY[f.tenant, f.task, CASE f.state WHEN 'dead' THEN 'dead' ELSE 'ended' END])::timestamptz
ORDER BY f.ended_at, f.id LIMIT $2::int

-- name: forget_ended
-- Forget ended jobs and their attempts, but none that was replayed meanwhile; answers how many of both. $1 id, $2 series (arrays)
WITH gone AS (
    DELETE FROM finished_jobs f USING unnest($1::uuid[], $2::int[]) AS i (id, series) WHERE f.id = i.id AND f.series = i.series
    RETURNING f.id
), tried AS (
    DELETE FROM attempts a USING gone WHERE a.job_id = gone.id RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM tried)

-- name: forget_keys
-- Forget idempotency keys whose time is over. $1 most rows
DELETE FROM idempotency_keys WHERE (tenant, key) IN (
    SELECT tenant, key FROM idempotency_keys WHERE expires_at < now() ORDER BY expires_at LIMIT $1::int FOR UPDATE SKIP LOCKED)
RETURNING 1

-- name: forget_letters
-- Forget dead letters that have been kept long enough. $1 tenant, $2 task, $3 written before (arrays), $4 most rows
DELETE FROM dead_letters WHERE id IN (
    SELECT d.id FROM dead_letters d JOIN unnest($1::text[], $2::text[], $3::timestamptz[]) AS c (tenant, task, before)
        ON c.tenant IS NOT DISTINCT FROM d.tenant AND c.task IS NOT DISTINCT FROM d.task AND d.created_at < c.before
    ORDER BY d.id LIMIT $4::int)
RETURNING 1

-- name: forget_strays
-- Forget old attempts outside the daily partitions of which no job is left. $1 ended before, $2 most rows
DELETE FROM attempts_default WHERE (job_id, number) IN (
    SELECT a.job_id, a.number FROM attempts_default a WHERE a.ended_at < $1::timestamptz
        AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = a.job_id) AND NOT EXISTS (SELECT FROM finished_jobs f WHERE f.id = a.job_id)
    ORDER BY a.ended_at LIMIT $2::int)
RETURNING 1
