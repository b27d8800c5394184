"""What the archive asks of an object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class Objects(Protocol):
    """Objects by name, below one address. Each method raises ArchiveUnavailable when the store cannot be used."""

    async def put(self, name: str, content: bytes) -> None:
        """Store an object in place of the one that has the name; when it returns, the object survives a power cut."""

    async def get(self, name: str) -> bytes:
        """Give an object. Raises NotFound when there is none of that name."""

    def names(self, folder: str) -> AsyncIterator[str]:
        """Give the names of all objects below a folder, "" for all, in no particular order."""

    async def folders(self, folder: str) -> list[str]:
        """Give the names, with the folder's before them, of the folders in a folder."""
