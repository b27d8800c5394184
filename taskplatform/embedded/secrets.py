"""The secrets of an embedded platform: made once, and kept in its data folder for its owner alone."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from taskplatform.auth import Scope, new_key

TENANT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What is made once and kept in the data folder, readable by its owner alone."""

    signing_key: str
    valkey_password: str
    api_key: str


def load_secrets(data_dir: Path) -> Secrets:
    """Read the secrets, having made those that are not there yet."""
    made = {
        "signing_key": secrets.token_hex(32),
        "valkey_password": secrets.token_hex(32),
        "api_key": new_key(TENANT, [Scope.ADMIN])[1],
    }
    for name, secret in made.items():
        path = data_dir / name
        if path.exists():
            made[name] = path.read_text(encoding="utf-8")
        else:
            write_private(path, secret)
    return Secrets(**made)


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)
