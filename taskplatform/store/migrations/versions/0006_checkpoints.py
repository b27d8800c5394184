"""How far a job has come, kept in its row: the row of an ended job has none."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add a column; code that does not know it works on."""
    op.execute("ALTER TABLE jobs ADD COLUMN checkpoint text")
