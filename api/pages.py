"""Page tokens: where the next page begins, signed, and of use only with the filters that it was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from taskplatform.errors import InvalidInput

DEFAULT_SIZE = 50
MOST = 1000
_SIGNATURE_BYTES = 16


class Pages:
    """Makes and reads tokens with a key of their own, derived from `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"page tokens", "sha256")

    def token(self, last: str, filters: Sequence[object]) -> str:
        """Make the token of the page after `last`."""
        return base64.urlsafe_b64encode(self._sign(last, filters) + last.encode()).decode().rstrip("=")

    def read(self, token: str, filters: Sequence[object]) -> str:
        """Give the `last` of a token. Raises InvalidInput for one that is not ours or belongs to other filters."""
        try:
            text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            signature, last = text[:_SIGNATURE_BYTES], text[_SIGNATURE_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise _invalid() from None
        if not hmac.compare_digest(signature, self._sign(last, filters)):
            raise _invalid()
        return last

    def _sign(self, last: str, filters: Sequence[object]) -> bytes:
        text = msgspec.json.encode([last, hashlib.sha256(msgspec.json.encode(filters)).hexdigest()])
        return hmac.digest(self._key, text, "sha256")[:_SIGNATURE_BYTES]


def page_size(wanted: int | None) -> int:
    """Give the size of a page: too many are as many as there may be, never an error."""
    return DEFAULT_SIZE if wanted is None else min(max(wanted, 1), MOST)


def _invalid() -> InvalidInput:
    return InvalidInput("this page token is not for this list", code="invalid_page_token")
