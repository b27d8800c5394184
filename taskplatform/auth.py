"""API keys and scopes: how a key looks, how it is kept, what it allows."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from taskplatform.errors import NotAllowed, NotAuthenticated

_PREFIX = "tp"


class Scope(StrEnum):
    """What a key may do; `admin` includes all. WATCH and ADMIN look beyond the key's tenant."""

    WRITE = "jobs:write"
    READ = "jobs:read"
    CANCEL = "jobs:cancel"
    REPLAY = "dlq:replay"
    WATCH = "platform:read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored: the SHA-256 of its secret, never the secret."""

    id: str
    tenant: str
    secret_sha256: bytes
    scopes: frozenset[Scope]
    name: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def check(self, secret: str, now: datetime) -> None:
        """Raise NotAuthenticated unless the secret fits and the key is alive at `now`."""
        if not hmac.compare_digest(hash_secret(secret), self.secret_sha256):
            raise NotAuthenticated("unknown API key")
        if self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now):
            raise NotAuthenticated("this API key is revoked or expired")

    def require(self, scope: Scope) -> None:
        """Raise NotAllowed unless the key has the scope."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise NotAllowed(f"this API key lacks the scope {scope}")


def new_key(
    tenant: str, scopes: Collection[Scope], *, name: str = "", expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Make a key of 256 random bits; gives what is stored, and the text that is shown once: `tp_<id>_<secret>`.

    The secret ends in its CRC-32, so that a mistyped key is told apart without a look-up.
    """
    key_id = secrets.token_hex(8)
    random_part = secrets.token_hex(32)
    secret = f"{random_part}{zlib.crc32(random_part.encode()):08x}"
    stored = ApiKey(
        id=key_id,
        tenant=tenant,
        secret_sha256=hash_secret(secret),
        scopes=frozenset(scopes),
        name=name,
        expires_at=expires_at,
    )
    return stored, f"{_PREFIX}_{key_id}_{secret}"


def parse_key(text: str) -> tuple[str, str]:
    """Split a key into its id and its secret. Raises NotAuthenticated for anything that cannot be a key."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != _PREFIX or len(parts[2]) != 72:
        raise NotAuthenticated("malformed API key")
    random_part, checksum = parts[2][:64], parts[2][64:]
    if f"{zlib.crc32(random_part.encode()):08x}" != checksum:
        raise NotAuthenticated("malformed API key")
    return parts[1], parts[2]


def hash_secret(secret: str) -> bytes:
    """Hash a secret for keeping; 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()
