"""The first tables."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Without parameters, so that the driver does not look for placeholders in it.
    op.get_bind().exec_driver_sql(script, execution_options={"no_parameters": True})
