"""Versions of tasks: which are known, which a worker runs, which a job has, and how often one was given back for it."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add columns with a constant default, which rewrites no table; code that does not know them works on."""
    op.execute("ALTER TABLE tasks ADD COLUMN versions jsonb NOT NULL DEFAULT '{}'")
    # In the order in which a rescue locks them.
    op.execute("ALTER TABLE workers ADD COLUMN versions jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE jobs ADD COLUMN task_version integer NOT NULL DEFAULT 1")
    op.execute("ALTER TABLE jobs ADD COLUMN passes integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE finished_jobs ADD COLUMN task_version integer NOT NULL DEFAULT 1")
