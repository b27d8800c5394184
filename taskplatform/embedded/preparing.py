"""Has the database made ready by a process of its own, which takes the memory of its many imports with it."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Self

from taskplatform.embedded.services import inherited
from taskplatform.servers import ServerError

_PREPARE_SECONDS = 90.0


class Preparing:
    """That process, from its start on; a context manager that leaves nothing behind.

    It is a new interpreter, since a fork of a process that has threads may hang, and is started before the server: its
    imports take about as long as Postgres does to start.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "taskplatform.embedded.database"],
            env=inherited(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def finish(self, dsn: str, api_key: str) -> None:
        """Bring the tables up to date and let the key in. Raises ServerError."""
        try:
            _, said = self._process.communicate(f"{json.dumps([dsn, api_key])}\n", timeout=_PREPARE_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError(f"the database was not ready within {_PREPARE_SECONDS:g} s") from None
        if self._process.returncode:
            raise ServerError(f"the database cannot be made ready: {said.strip()[-2000:]}")
