"""What the exporter needs to know: since when a due job waits for room, and which messages a worker has not claimed."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add two columns; code that does not know them works on."""
    # In the order in which a rescue locks them.
    op.execute("ALTER TABLE workers ADD COLUMN waiting integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE jobs ADD COLUMN held_at timestamptz")
