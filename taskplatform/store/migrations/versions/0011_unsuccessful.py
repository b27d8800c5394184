"""An index of the ended jobs that did not succeed: a list of them reads none of those that did."""

from alembic import op

revision = "0011"
down_revision = "0010"

_INDEX = "unsuccessful ON {} {} (tenant, id) WHERE state <> 'succeeded'"
# The tables below finished_jobs whose index is not a part of the one above it, with the table above, which comes first.
_MISSING = """
SELECT t.relid::regclass::text, t.parentrelid::regclass::text, t.isleaf FROM pg_partition_tree('finished_jobs') t
WHERE t.level > 0 AND NOT EXISTS (
    SELECT FROM pg_inherits h JOIN pg_index i ON i.indexrelid = h.inhrelid
    WHERE i.indrelid = t.relid AND h.inhparent = to_regclass(t.parentrelid::regclass || '_unsuccessful'))
ORDER BY t.level, 1 LIMIT 1
"""
_VALID = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{}_unsuccessful') AND indisvalid"


def upgrade() -> None:
    """Build it without stopping writers: each step is a transaction of its own, and may be repeated.

    Partitions that come meanwhile get it by themselves, and those that go are not asked for again.
    """
    with op.get_context().autocommit_block():
        ask = op.get_bind().exec_driver_sql
        patience = ask("SHOW lock_timeout").scalar_one()
        ask(f"CREATE INDEX IF NOT EXISTS finished_jobs_{_INDEX.format('ONLY', 'finished_jobs')}")
        while (missing := ask(_MISSING).first()) is not None:
            table, above, is_leaf = missing
            if is_leaf and ask(_VALID.format(table)).first() is None:
                # It waits for the older transactions to end, and nobody waits behind it.
                ask("SET lock_timeout = 0")
                # What an upgrade that was cut short has left may not be valid.
                ask(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_unsuccessful")
                ask(f"CREATE INDEX CONCURRENTLY {table}_{_INDEX.format('', table)}")
                ask(f"SET lock_timeout = '{patience}'")
            elif not is_leaf:
                ask(f"CREATE INDEX IF NOT EXISTS {table}_{_INDEX.format('ONLY', table)}")
            ask(f"ALTER INDEX {above}_unsuccessful ATTACH PARTITION {table}_unsuccessful")
