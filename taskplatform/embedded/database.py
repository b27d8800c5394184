"""Makes the database of an embedded platform ready, as a program: its tables, and its owner's key, named on stdin."""

from __future__ import annotations

import asyncio
import json
import sys

from taskplatform.auth import ApiKey, Scope, hash_secret, parse_key
from taskplatform.embedded.secrets import TENANT
from taskplatform.errors import TaskplatformError
from taskplatform.store.opening import opened
from taskplatform.store.postgres.migrate import migrate
from taskplatform.store.postgres.store import PostgresStore


def main() -> int:
    """Wait for a line with the connection string and the key, and bring the tables up to date and let the key in.

    Gives the exit status; what went wrong is on stderr. Without a line nobody wants it any more.
    """
    if not (line := sys.stdin.readline()):
        return 0
    dsn, api_key = json.loads(line)
    try:
        migrate(dsn)
        asyncio.run(_admit(dsn, api_key))
    except TaskplatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _admit(dsn: str, api_key: str) -> None:
    key_id, secret = parse_key(api_key)
    key = ApiKey(
        id=key_id,
        tenant=TENANT,
        secret_sha256=hash_secret(secret),
        scopes=frozenset({Scope.ADMIN}),
        name="embedded",
    )
    async with opened(PostgresStore(dsn)) as store:
        if await store.key(key_id) is None:
            await store.add_key(key)


if __name__ == "__main__":
    sys.exit(main())
