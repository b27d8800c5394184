"""Every setting of every process: one frozen value, read once at the edge from the environment and from files."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from taskplatform.errors import SettingsError
from taskplatform.shards import MOST_CLUSTERS

PREFIX = "TASKPLATFORM_"
CONFIG_VARIABLE = "TASKPLATFORM_CONFIG"
"""Names the TOML file; without it `taskplatform.toml` in the working directory is read where it exists."""

SECRETS_VARIABLE = "TASKPLATFORM_SECRETS_DIR"
"""Names a folder with one file a setting, called like the setting: what Kubernetes mounts of a Secret."""

MOST_WORKERS = 1000
"""The most workers that a pool may be given."""

_Names = Annotated[tuple[str, ...], NoDecode]
_Secrets = Annotated[tuple[SecretStr, ...], NoDecode]


class Settings(BaseSettings):
    """All settings. Lists are comma-separated in the environment; the environment wins over the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: SecretStr = Field(
        default=SecretStr("postgresql://127.0.0.1:5432/taskplatform"),
        description="libpq connection string of the Postgres primary; several hosts are allowed",
    )
    database_replica_urls: SecretStr = Field(
        default=SecretStr(""),
        description="libpq connection strings of read replicas, separated by ';'; the API reads from them",
    )
    database_cluster_urls: SecretStr = Field(
        default=SecretStr(""),
        description="libpq connection strings of the primaries of further Postgres clusters, separated by ';': clusters"
        " 1, 2 and so on, among which the shards are spread; database_url is cluster 0",
    )
    broker_url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672//"),
        description="amqp:// for RabbitMQ, several separated by ';', or redis:// for the embedded broker",
    )
    cache_url: SecretStr = Field(
        default=SecretStr(""), description="redis:// of the cache that the API reads jobs through; empty for none"
    )
    cache_answer_seconds: float = Field(
        default=0.05, gt=0, le=5, description="how long the cache may take to answer before it is left alone"
    )
    signing_keys: _Secrets = Field(
        default=(),
        description="secrets that sign messages, at least 32 characters each; the first signs, all are accepted",
    )
    allow_unsigned_messages: bool = Field(default=False, description="take messages without a signature")
    task_modules: _Names = Field(default=(), description="modules whose tasks the workers run, importable names")
    pools: _Names = Field(default=("default",), description="pools whose queues exist")

    region: int = Field(default=0, ge=0, le=15, description="number of this region in job ids")

    api_host: str = Field(default="127.0.0.1", description="address that the API listens on")
    api_port: int = Field(default=8080, ge=0, le=65535, description="port that the API listens on")
    api_drain_seconds: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="how long an API process that is told to stop still serves, while it says that it is not ready:"
        " until load balancers have seen it; 0 where there is none",
    )
    api_processes: int = Field(default=1, ge=1, le=64, description="API processes that share the port")
    api_url: str = Field(default="http://127.0.0.1:8080", description="where the SDK and the CLI find the API")
    api_key: SecretStr | None = Field(default=None, description="key that the SDK and the CLI send")
    body_limit_bytes: int = Field(default=262_144, ge=1024, description="largest body of a single submission")
    batch_limit_bytes: int = Field(default=5_242_880, ge=1024, description="largest body of a batch submission")
    batch_limit_items: int = Field(default=1000, ge=1, le=10_000, description="most jobs in one batch submission")
    result_limit_bytes: int = Field(default=1_048_576, ge=1024, description="largest result of a job")
    commit_window_seconds: float = Field(
        default=0.003, ge=0, le=1, description="how long busy intake gathers a group commit"
    )
    commit_batch_jobs: int = Field(default=500, ge=1, le=10_000, description="most jobs in one group commit")
    wait_limit_seconds: float = Field(default=30.0, ge=0, le=300, description="longest wait that Prefer: wait grants")
    key_lifetime_seconds: float = Field(default=86_400.0, gt=0, description="how long an idempotency key names its job")

    queue_limit_messages: int = Field(
        default=20_000,
        ge=1,
        description="jobs in one work queue above which others wait in Postgres; of bundles an estimate",
    )
    publish_timeout_seconds: float = Field(default=10.0, gt=0, description="how long a publisher confirm may take")
    relay_after_seconds: float = Field(default=2.0, ge=0, description="age at which the relay takes over an outbox row")
    stranded_after_seconds: float = Field(
        default=30.0, gt=0, description="age at which a queued job with an empty queue is published again"
    )

    worker_pool: str = Field(default="default", description="pool whose jobs this worker runs")
    worker_kind: str = Field(
        default="prefork",
        pattern="^(prefork|async)$",
        description="prefork: jobs in child processes; async: many I/O-bound jobs at once in one process",
    )
    worker_processes: int = Field(default=2, ge=1, le=256, description="child processes of one prefork worker")
    worker_concurrency_jobs: int = Field(
        default=200, ge=1, le=10_000, description="most jobs that one async worker runs at once"
    )
    worker_drain_seconds: float = Field(
        default=25.0, ge=0, description="how long a stopping worker lets running jobs end"
    )
    claim_window_jobs: int = Field(default=256, ge=1, le=10_000, description="most jobs a worker holds claimed at once")
    claim_window_seconds: float = Field(default=0.1, gt=0, description="work that a worker claims ahead, in seconds")
    lease_seconds: float = Field(default=15.0, gt=0, description="how long a silent worker keeps its jobs")
    lease_renew_seconds: float = Field(default=4.0, gt=0, description="how often a worker renews its lease")
    crash_limit: int = Field(default=3, ge=1, le=100, description="crashes after which a job is poison")

    # The store wakes dispatchers only for what is due within two seconds; the rest is found by looking.
    dispatch_poll_seconds: float = Field(
        default=1.0, gt=0, le=2, description="longest pause between two looks for due jobs"
    )
    dispatch_batch_jobs: int = Field(default=500, ge=1, le=10_000, description="most jobs released in one transaction")
    retention_days: float = Field(
        default=30.0, gt=0, le=36_500, description="how long ended jobs, their attempts and dead letters are kept"
    )
    retention_file: Path | None = Field(
        default=None, description="TOML file with other retention for single tenants and tasks"
    )

    archive_url: str = Field(
        default="",
        description="object store that ended jobs go into before they are forgotten: file:///folder, s3://bucket/prefix,"
        " gs://… or az://…; empty: none; needs the extra taskplatform[archive]",
    )

    autoscale_driver: str = Field(
        default="none",
        pattern="^(none|process|docker|kubernetes|keda)$",
        description="who starts and stops workers: processes of the autoscaler, the Docker agent, a Kubernetes"
        " Deployment; keda only publishes the number",
    )
    autoscale_min_workers: int = Field(default=0, ge=0, le=MOST_WORKERS, description="least workers of a pool")
    autoscale_max_workers: int = Field(default=4, ge=1, le=MOST_WORKERS, description="most workers of a pool")
    autoscale_target_seconds: float = Field(default=30.0, gt=0, description="how long a ready job may wait for a slot")
    autoscale_stabilisation_seconds: float = Field(
        default=180.0, ge=0, description="a fleet shrinks to the largest size that was recommended within this time"
    )
    autoscale_idle_seconds: float = Field(
        default=60.0, ge=0, description="time without any job after which only the least workers are needed"
    )
    autoscale_poll_seconds: float = Field(default=5.0, gt=0, le=60, description="pause between two decisions")
    autoscale_file: Path | None = Field(
        default=None, description="TOML file with limits, budgets and schedules of single pools"
    )
    autoscale_service: str = Field(
        default="worker-{pool}", description="name of a pool's Compose service or Kubernetes Deployment"
    )
    autoscale_agent_url: str = Field(
        default="http://scaler-agent:9010", description="where the agent that holds the Docker socket listens"
    )
    autoscale_agent_token: SecretStr | None = Field(default=None, description="secret that the agent asks for")

    monitor_jobs_per_second: float = Field(
        default=50.0, ge=0, le=10_000, description="most jobs that a worker tells Flower of, while somebody watches"
    )
    monitor_arguments: bool = Field(default=True, description="show arguments and results in Flower, shortened")

    metrics_host: str = Field(default="127.0.0.1", description="address of the metrics port")
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="port of the metrics and health pages of worker, dispatcher, autoscaler and exporter, 0 for none;"
        " several API processes take it and the ones after it, one each",
    )
    exporter_seconds: float = Field(
        default=5.0, ge=0.1, le=60, description="how often the exporter looks at database and broker"
    )
    canary_seconds: float = Field(
        default=0.0, ge=0, description="how often the exporter sends a canary job through every pool, 0 for never"
    )
    trace_url: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="where spans are sent, OTLP over HTTP: http://127.0.0.1:4318/v1/traces; empty: nothing is traced",
    )
    trace_ratio: float = Field(
        default=0.1, ge=0, le=1, description="share of the requests without a trace of their caller's that is traced"
    )
    data_dir: Path = Field(default=Path(".taskplatform"), description="where `taskplatform up` keeps its data")
    flower_host: str = Field(default="127.0.0.1", description="address that Flower listens on")
    flower_port: int = Field(
        default=5555, ge=0, le=65535, description="port that Flower listens on; with 0 `taskplatform up` runs none"
    )
    flower_prefix: str = Field(
        default="flower", pattern="^[a-z0-9-]+(/[a-z0-9-]+)*$", description="path under which Flower has its pages"
    )
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="least level that is logged"
    )
    log_format: str = Field(default="json", pattern="^(json|text)$", description="json, or text for people")

    @field_validator("signing_keys", "task_modules", "pools", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("signing_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < 32 for key in value):
            raise ValueError("a signing key needs at least 32 characters")
        return value

    @field_validator("lease_renew_seconds")
    @classmethod
    def _before_it_lapses(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("lease_seconds", float("inf")):
            raise ValueError("must be less than lease_seconds, or every lease lapses")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing by itself: `load` hands everything in."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def changed(self, **changes: Any) -> Settings:
        """Give these settings with some of another value. Raises ValidationError for one that is not allowed."""
        return Settings(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def replica_dsns(self) -> list[str]:
        """Give the connection string of each read replica."""
        return _parts(self.database_replica_urls)

    def cluster_dsns(self) -> list[str]:
        """Give the connection string of each Postgres cluster, in the order of their numbers. Raises SettingsError."""
        dsns = [self.database_url.get_secret_value(), *_parts(self.database_cluster_urls)]
        if len(dsns) > MOST_CLUSTERS:
            raise SettingsError(f"database_cluster_urls: there are at most {MOST_CLUSTERS} clusters")
        return dsns

    def signing_secrets(self) -> list[bytes]:
        """Give the signing keys as bytes, the one that signs first. Raises SettingsError when there is none."""
        if not self.signing_keys:
            raise SettingsError(
                "signing_keys is empty: set TASKPLATFORM_SIGNING_KEYS to a random secret of 32 characters or more"
            )
        return [key.get_secret_value().encode() for key in self.signing_keys]


def load(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings: defaults, TOML file, folder of secrets, `environment` (by default the process's), `overrides`.

    Raises SettingsError that names the setting, what was expected, and for a misspelt one the nearest real name.
    """
    environment = os.environ if environment is None else environment
    values = _from_file(environment) | _from_secrets(environment) | _from_environment(environment) | overrides
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(f"unknown setting {name!r}{_nearest(name)}")
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise SettingsError(f"setting {name}: {first['msg']}") from None


def environment_of(settings: Settings) -> dict[str, str]:
    """Give the environment variables that make another process load the same settings."""
    plain: dict[str, str] = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is None:
            continue
        parts = value if isinstance(value, tuple) else (value,)
        texts = [part.get_secret_value() if isinstance(part, SecretStr) else str(part) for part in parts]
        plain[PREFIX + name.upper()] = ",".join(texts)
    return plain


def _parts(urls: SecretStr) -> list[str]:
    return [part.strip() for part in urls.get_secret_value().split(";") if part.strip()]


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in (CONFIG_VARIABLE, SECRETS_VARIABLE)
    }


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file. Raises SettingsError, which says `what` it should be."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{what}: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{what}: {path} is not TOML: {error}") from None


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get(CONFIG_VARIABLE)
    path = Path(named or "taskplatform.toml")
    if named is None and not path.is_file():
        return {}
    return read_toml(path, "the settings file")


def _from_secrets(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get(SECRETS_VARIABLE)
    if named is None:
        return {}
    try:
        # Kubernetes keeps what it mounted, and the time of it, in names that begin with a dot.
        files = [path for path in Path(named).iterdir() if not path.name.startswith(".")]
        return {path.name: path.read_text(encoding="utf-8").strip() for path in files}
    except OSError as error:
        raise SettingsError(f"cannot read the secrets in {named}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the secrets in {named} are not all text") from None


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
