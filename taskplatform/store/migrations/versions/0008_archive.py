"""How many objects of each partition are in the archive."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add what older code does not look at."""
    op.execute("ALTER TABLE retention_parts ADD COLUMN archived integer NOT NULL DEFAULT 0")
