"""Makes the database of an embedded platform ready: its tables, and the key with which its owner comes in."""

from __future__ import annotations

import asyncio

from taskplatform.auth import ApiKey, Scope, hash_secret, parse_key
from taskplatform.embedded.secrets import TENANT


def migrate_and_admit(dsn: str, api_key: str) -> None:
    """Bring the tables up to date and let the key in. Raises StoreUnavailable."""
    from taskplatform.store.postgres.migrate import migrate

    migrate(dsn)
    asyncio.run(_admit(dsn, api_key))


async def _admit(dsn: str, api_key: str) -> None:
    from taskplatform.store.postgres.store import PostgresStore

    key_id, secret = parse_key(api_key)
    key = ApiKey(
        id=key_id,
        tenant=TENANT,
        secret_sha256=hash_secret(secret),
        scopes=frozenset({Scope.ADMIN}),
        name="embedded",
    )
    async with PostgresStore(dsn) as store:
        if await store.key(key_id) is None:
            await store.add_key(key)
