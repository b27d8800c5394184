"""The tables as SQLAlchemy sees them, for queries that are put together at run time and for checking migrations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _must(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], default: str | None = None) -> Column[Any]:
    return Column(name, kind, nullable=False, server_default=None if default is None else text(default))


def _may(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]]) -> Column[Any]:
    return Column(name, kind, nullable=True)


def _time(name: str) -> Column[Any]:
    return _may(name, DateTime(timezone=True))


def _stamp(name: str) -> Column[Any]:
    return _must(name, DateTime(timezone=True), "now()")


def _number() -> Column[Any]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    _must("tenant", Text),
    _must("task", Text),
    _must("pool", Text),
    _must("priority", Text),
    _must("state", Text),
    _must("series", Integer, "0"),
    _must("attempt", Integer, "0"),
    _must("failures", Integer, "0"),
    _must("crashes", Integer, "0"),
    _must("suspect", Boolean, "false"),
    _must("max_attempts", Integer),
    _may("soft_limit_seconds", Double),
    _may("hard_limit_seconds", Double),
    _may("blocked_on", Text),
    _time("due_at"),
    _time("expires_at"),
    _stamp("created_at"),
    _time("queued_at"),
    _time("started_at"),
    _may("worker", Text),
    _may("claim", Text),
    _must("tags", ARRAY(Text), "'{}'"),
    _may("trace", Text),
    _may("error", Text),
    _must("body", Text),
    _time("held_at"),
    _may("checkpoint", Text),
    _must("task_version", Integer, "1"),
    _must("passes", Integer, "0"),
    CheckConstraint("state IN ('scheduled', 'blocked', 'queued', 'running', 'retrying')", name="jobs_state_check"),
    Index("jobs_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("jobs_blocked", "pool", "priority", "id", postgresql_where=text("blocked_on IS NOT NULL")),
    Index("jobs_expiry", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index("jobs_of_tenant", "tenant", "id", postgresql_where=text("tenant IS NOT NULL")),
    Index("jobs_queued", "queued_at", postgresql_where=text("queued_at IS NOT NULL")),
)

finished_jobs = Table(
    "finished_jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    _must("tenant", Text),
    _must("task", Text),
    _must("pool", Text),
    _must("priority", Text),
    _must("state", Text),
    _must("series", Integer),
    _must("attempt", Integer),
    _must("failures", Integer),
    _must("crashes", Integer),
    _must("max_attempts", Integer),
    _may("soft_limit_seconds", Double),
    _may("hard_limit_seconds", Double),
    _time("expires_at"),
    _must("created_at", DateTime(timezone=True)),
    _time("started_at"),
    _must("ended_at", DateTime(timezone=True)),
    _may("worker", Text),
    _must("tags", ARRAY(Text)),
    _may("trace", Text),
    _may("reason", Text),
    _must("body", Text),
    _may("result", Text),
    _may("error", Text),
    _must("task_version", Integer, "1"),
    CheckConstraint("state IN ('succeeded', 'dead', 'cancelled', 'expired')", name="finished_jobs_state_check"),
    Index("finished_jobs_tenant", "tenant", "id"),
    Index("finished_jobs_unsuccessful", "tenant", "id", postgresql_where=text("state <> 'succeeded'")),
    postgresql_partition_by="RANGE (id)",
)

attempts = Table(
    "attempts",
    metadata,
    _must("job_id", Uuid),
    _must("number", Integer),
    _must("ended", Text),
    _must("worker", Text),
    _must("started_at", DateTime(timezone=True)),
    _must("ended_at", DateTime(timezone=True)),
    _may("error", Text),
    PrimaryKeyConstraint("job_id", "number"),
    postgresql_partition_by="RANGE (job_id)",
)

outbox = Table(
    "outbox",
    metadata,
    _number(),
    _stamp("created_at"),
    _must("job_ids", ARRAY(Uuid)),
    Index("outbox_age", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _must("tenant", Text),
    _must("key", Text),
    _must("job_id", Uuid),
    _must("fingerprint", Text),
    _must("expires_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "key"),
    Index("idempotency_keys_expiry", "expires_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    _must("pool", Text),
    _must("host", Text),
    _must("pid", Integer),
    _must("processes", Integer),
    _stamp("started_at"),
    _must("lease_until", DateTime(timezone=True)),
    _must("draining", Boolean, "false"),
    _must("running", Integer, "0"),
    _must("waiting", Integer, "0"),
    _must("versions", JSONB, "'{}'"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _number(),
    _stamp("created_at"),
    _must("reason", Text),
    _must("queue", Text),
    _may("tenant", Text),
    _may("job_id", Uuid),
    _may("task", Text),
    _must("detail", Text, "''"),
    _may("headers", Text),
    _may("raw", LargeBinary),
    _time("replayed_at"),
    Index("dead_letters_tenant", "tenant", "id"),
    Index("dead_letters_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", Text, primary_key=True),
    _must("spec", JSONB),
    _stamp("announced_at"),
    _must("versions", JSONB, "'{}'"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    _must("tenant", Text),
    _must("name", Text, "''"),
    _must("secret_sha256", LargeBinary),
    _must("scopes", ARRAY(Text)),
    _stamp("created_at"),
    _time("expires_at"),
    _time("revoked_at"),
)

audit = Table(
    "audit",
    metadata,
    _number(),
    _stamp("at"),
    _must("tenant", Text),
    _must("actor", Text),
    _must("action", Text),
    _must("target", Text),
    _must("detail", Text, "''"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    _must("holder", Text),
    _must("until", DateTime(timezone=True)),
)

scale_decisions = Table(
    "scale_decisions",
    metadata,
    _number(),
    _stamp("at"),
    _must("pool", Text),
    _must("workers", Integer),
    _must("desired", Integer),
    _must("reason", Text),
    _must("facts", JSONB),
    Index("scale_decisions_pool", "pool", "id"),
)

scale_usage = Table(
    "scale_usage",
    metadata,
    _must("pool", Text),
    _must("day", Date),
    _must("worker_seconds", Double),
    PrimaryKeyConstraint("pool", "day"),
)

shard_maps = Table(
    "shard_maps",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    _must("cluster", Integer),
    _must("homes", ARRAY(SmallInteger)),
    _stamp("made_at"),
    CheckConstraint("cardinality(homes) = 256", name="shard_maps_homes_check"),
)

retention_parts = Table(
    "retention_parts",
    metadata,
    Column("part", Text, primary_key=True),
    _must("policy", Text, "''"),
    _stamp("look_at"),
    _may("cutoffs", Text),
    _must("archived", Integer, "0"),
    _time("behind_ended"),
    _may("behind_id", Uuid),
)

archiving = Table(
    "archiving",
    metadata,
    Column("always", Boolean, primary_key=True, server_default=text("true")),
    _stamp("since"),
    CheckConstraint("always", name="archiving_always_check"),
)

late_rows = Table("late_rows", metadata, _must("part", Text))
