"""Changes what callers and operators may change: cancels, replays, API keys, the audit."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from taskplatform.auth import ApiKey
from taskplatform.store.contract import AuditEntry, Release
from taskplatform.store.postgres import rows
from taskplatform.store.postgres.asking import Asker
from taskplatform.store.statements import array, call


class Operate(Asker):
    """OperateStore on Postgres."""

    async def cancel(self, tenant: str, ids: Sequence[UUID]) -> set[UUID]:
        """Move live jobs of a tenant to the cancelled ones."""
        (cancelled,) = await self._write(call("cancel_live", tenant, array(ids)))
        return {row[0] for row in cancelled}

    async def replay(self, tenant: str, ids: Sequence[UUID]) -> list[Release]:
        """Move dead jobs of a tenant back to the queued ones."""
        (released,) = await self._write(call("replay_dead", tenant, array(ids)))
        return [rows.release(row) for row in released]

    async def mark_replayed(self, letter_id: int) -> bool:
        """Mark one dead letter."""
        (marked,) = await self._write(call("mark_replayed", str(letter_id)))
        return bool(marked)

    async def audit(self, entry: AuditEntry) -> None:
        """Store one audit entry."""
        await self._write(call("record_audit", entry.tenant, entry.actor, entry.action, entry.target, entry.detail))

    async def add_key(self, key: ApiKey) -> None:
        """Store an API key. Raises InvalidInput when its id is taken."""
        await self._write(
            call(
                "add_key",
                key.id,
                key.tenant,
                key.name,
                f"\\x{key.secret_sha256.hex()}",
                array(sorted(key.scopes)),
                None if key.expires_at is None else key.expires_at.isoformat(),
            )
        )

    async def key(self, key_id: str) -> ApiKey | None:
        """Read one API key."""
        found = await self._read(call("list_keys", key_id))
        return rows.key(found[0]) if found else None

    async def keys(self) -> list[ApiKey]:
        """Read all API keys."""
        return [rows.key(row) for row in await self._read(call("list_keys", None))]

    async def revoke_key(self, key_id: str) -> bool:
        """Revoke an API key."""
        (revoked,) = await self._write(call("revoke_key", key_id))
        return bool(revoked)
