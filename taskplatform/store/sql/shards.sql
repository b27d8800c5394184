-- name: newest_map
-- The newest shard map that this cluster knows, and which cluster it is; no row while there is only one.
SELECT version, cluster, homes::text FROM shard_maps ORDER BY version DESC LIMIT 1
