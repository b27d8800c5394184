"""How far retention has come with each partition, and a drop that leaves behind what is still wanted."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what older code does not look at; its `drop_partition` stays until that code is gone."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(script, execution_options={"no_parameters": True})
