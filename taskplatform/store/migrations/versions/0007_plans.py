"""An index of tenants that no search by id alone can be sent to."""

from alembic import op

revision = "0007"
down_revision = "0006"

_VALID = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('jobs_of_tenant') AND indisvalid"


def upgrade() -> None:
    """Replace the index without stopping writers: each step is a transaction of its own, and may be repeated."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        patience = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        # Each step waits for the older transactions to end, and nobody waits behind it. Cut short, it would begin anew.
        connection.exec_driver_sql("SET lock_timeout = 0")
        if connection.exec_driver_sql(_VALID).first() is None:
            # What an upgrade that was cut short has left is not valid.
            connection.exec_driver_sql("DROP INDEX CONCURRENTLY IF EXISTS jobs_of_tenant")
            # The condition always holds. It says that only a statement that names the tenant can use the index.
            connection.exec_driver_sql(
                "CREATE INDEX CONCURRENTLY jobs_of_tenant ON jobs (tenant, id) WHERE tenant IS NOT NULL"
            )
        connection.exec_driver_sql("DROP INDEX CONCURRENTLY IF EXISTS jobs_tenant")
        connection.exec_driver_sql(f"SET lock_timeout = '{patience}'")
