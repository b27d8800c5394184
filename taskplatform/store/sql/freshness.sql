-- name: primary_position
-- How far the log of the primary has come: the name of the segment, which begins with the timeline, and the place.
SELECT pg_walfile_name(at), at::text FROM pg_current_wal_lsn() AS at

-- name: replica_position
-- How far a standby has come: its timeline, null while it follows no primary; what its answers cannot go beyond; what it has replayed.
SELECT r.received_tli,
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_lsn() END::text,
    pg_last_wal_replay_lsn()::text
FROM (VALUES (1)) AS once LEFT JOIN pg_stat_wal_receiver r ON r.status = 'streaming'
