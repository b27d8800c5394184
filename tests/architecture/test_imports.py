"""What the import rules of pyproject.toml cannot say themselves."""

import subprocess
import sys
import tomllib

import pytest

from tests.architecture.sources import PACKAGES, ROOT, modules


def test_every_module_is_named_in_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    named = {name.strip(" ()") for layer in layers for name in layer.split("|")}
    # A package whose parts are named one by one has nothing of its own to import.
    parts_named = {name.rpartition(".")[0] for name in named}

    unnamed = [name for name, _ in modules(*PACKAGES) if not _is_below(name, named) and name not in parts_named]

    assert unnamed == []


@pytest.mark.parametrize("name", ["taskplatform", "taskplatform.client"])
def test_importing_the_library_loads_no_server_side_package(name: str) -> None:
    heavy = {"opentelemetry", "celery", "kombu", "psycopg", "sqlalchemy", "pydantic", "fastapi", "redis"}

    assert heavy.intersection(_loaded_by(name)) == set()


@pytest.mark.parametrize("name", ["taskplatform.background", "api.app", "workers.steps"])
def test_a_service_starts_without_what_only_migrations_searches_and_traces_need(name: str) -> None:
    loaded = _loaded_by(f"{name}, taskplatform.store.postgres.store")

    assert {"sqlalchemy", "alembic", "opentelemetry.sdk", "opentelemetry.exporter"}.intersection(loaded) == set()


def _loaded_by(names: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys, {names}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()


def _is_below(name: str, packages: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in packages for count in range(1, len(parts) + 1))
