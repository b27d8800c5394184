"""Leases of singletons, and what the autoscaler decided."""

from alembic import op

revision = "0002"
down_revision = "0001"

_SCRIPT = """
CREATE TABLE leases (
    name text PRIMARY KEY,
    holder text NOT NULL,
    until timestamptz NOT NULL
);
CREATE TABLE scale_decisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    pool text NOT NULL,
    workers integer NOT NULL,
    desired integer NOT NULL,
    reason text NOT NULL,
    facts jsonb NOT NULL
);
CREATE INDEX scale_decisions_pool ON scale_decisions (pool, id);
CREATE TABLE scale_usage (
    pool text NOT NULL,
    day date NOT NULL,
    worker_seconds double precision NOT NULL,
    PRIMARY KEY (pool, day)
);
"""


def upgrade() -> None:
    """Add tables that nobody else reads: older code is not touched by them."""
    op.get_bind().exec_driver_sql(_SCRIPT, execution_options={"no_parameters": True})
