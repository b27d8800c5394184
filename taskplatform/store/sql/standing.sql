-- name: get_standing
-- Where one job stands, for a caller who waits for it. $1 id
SELECT task, state, failures, NULL::timestamptz AS ended_at, NULL::text AS result, error FROM jobs WHERE id = $1::uuid
UNION ALL
SELECT task, state, failures, ended_at, result, error FROM finished_jobs WHERE id = $1::uuid
