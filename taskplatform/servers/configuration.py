"""Where the servers' configuration files are, and what every server process gets as its environment."""

from __future__ import annotations

from pathlib import Path

from taskplatform.servers.errors import ServerError

# A server sees nothing of our own environment: a PGDATA or RABBITMQ_NODENAME of the caller must not move it.
CLEAN_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_CONFIG = Path(__file__).resolve().parents[2] / "config"


def shared_settings(name: str) -> str:
    """Return the text of one file below `config/`; raise ServerError when the checkout has none."""
    try:
        return (_CONFIG / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ServerError(f"cannot read the server configuration {_CONFIG / name}: {error.strerror}") from error


def shared_variables(name: str) -> dict[str, str]:
    """Return the variables of a file below `config/` with one NAME=value a line; raise ServerError without it."""
    lines = [line for line in shared_settings(name).splitlines() if line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def shared_path(name: str) -> Path:
    """Return where one file below `config/` is."""
    return _CONFIG / name
