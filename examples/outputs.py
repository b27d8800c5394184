"""Writes what a job produces: whole or not at all, and the same file when the job runs again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

from taskplatform import Fail


def write_whole(folder: str, name: str, content: bytes) -> dict[str, object]:
    """Write a file into `folder`, which is made when missing, and say where it lies, its size in bytes and its SHA-256.

    A reader sees the old file or the new one, never a part of it. A second run replaces the file by an equal one.
    Raises Fail when `folder` is not absolute or `name` is not a plain file name.
    """
    if not Path(folder).is_absolute():
        raise Fail(f"output must be an absolute path, not {folder!r}")
    if Path(name).name != name or name in {"", ".", ".."}:
        raise Fail(f"{name!r} is not a plain file name")
    target = Path(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{name}.{uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return {"file": str(target), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
