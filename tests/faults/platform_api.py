"""What a fault run asks of the platform's API besides its load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from tests.native.stack import Stack
from tests.native.wire import Connection

_IDS_PER_READ = 100


async def ask(stack: Stack, method: str, path: str, body: bytes = b"", key: str | None = None) -> Any:
    """Send one request and give the decoded answer. Raises RuntimeError for anything but a success."""
    connection = Connection(stack.settings.api_port, stack.key)
    try:
        answer = await connection.ask(method, path, body, idempotency_key=key)
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
    return msgspec.json.decode(answer.body)


def show(stack: Stack, ids: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Read state and result of jobs; those that the API does not know are left out."""
    wanted = list(ids)

    async def read() -> dict[str, tuple[str, Any]]:
        shown: dict[str, tuple[str, Any]] = {}
        for start in range(0, len(wanted), _IDS_PER_READ):
            chunk = ",".join(wanted[start : start + _IDS_PER_READ])
            page = await ask(stack, "GET", f"/v1/jobs?ids={chunk}&page_size={_IDS_PER_READ}")
            shown |= {job["id"]: (job["state"], job.get("result")) for job in page["jobs"]}
        return shown

    return asyncio.run(read())
