"""Where the logical shards are at home, and what keeps a job out of a cluster that is not its own."""

from alembic import op

revision = "0004"
down_revision = "0003"

# The trigger that calls `refuse_strangers` is made with the first map: one cluster alone has no map and no trigger.
# Whoever writes a map locks `jobs` against inserts meanwhile, so that each of them goes by the map before or after.
_SCRIPT = """
CREATE TABLE shard_maps (
    version bigint PRIMARY KEY,
    cluster integer NOT NULL,
    homes smallint[] NOT NULL CHECK (cardinality(homes) = 256),
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION shard_of(id uuid) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN get_byte(uuid_send(id), 6) >> 4 = 7 AND get_byte(uuid_send(id), 8) >> 6 = 2
        THEN get_byte(uuid_send(id), 7) ELSE get_byte(sha256(uuid_send(id)), 0) END
$$;
CREATE FUNCTION refuse_strangers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known record;
    stranger uuid;
BEGIN
    SELECT version, cluster, homes INTO known FROM shard_maps ORDER BY version DESC LIMIT 1;
    SELECT id INTO stranger FROM added WHERE known.homes[shard_of(id) + 1] <> known.cluster LIMIT 1;
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION 'shard % of job % is not at home in cluster % by map %',
            shard_of(stranger), stranger, known.cluster, known.version USING ERRCODE = 'TP001';
    END IF;
    RETURN NULL;
END
$$;
"""


def upgrade() -> None:
    """Add what older code does not look at."""
    op.get_bind().exec_driver_sql(_SCRIPT, execution_options={"no_parameters": True})
