"""An index of tenants that no search by id alone can be sent to."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Replace the index without stopping writers: each step is a transaction of its own, and may be repeated."""
    with op.get_context().autocommit_block():
        # What an upgrade that was cut short has left is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_of_tenant")
        # The condition always holds. It says that only a statement that names the tenant can use the index.
        op.execute("CREATE INDEX CONCURRENTLY jobs_of_tenant ON jobs (tenant, id) WHERE tenant IS NOT NULL")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_tenant")
