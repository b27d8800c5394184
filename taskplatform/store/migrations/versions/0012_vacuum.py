"""Vacuum and analyse live jobs less often where many wait: either costs what is there, not what has changed."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Change two settings; readers and writers go on meanwhile."""
    op.execute("ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.2)")
