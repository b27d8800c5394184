"""Objects in a folder, in S3 or in whatever else obstore reaches, by the URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from taskplatform.errors import ArchiveUnavailable, NotFound, SettingsError

_ANSWER_SECONDS = 20


class UrlObjects:
    """The objects below a URL: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://account/container`.

    Credentials, regions and endpoints are those of the environment, under the names that the providers gave them. A
    folder that is missing is made with `create` alone. Raises SettingsError for a URL that names no object store.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        parts = urlsplit(url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if self._folder is not None and not create and not self._folder.is_dir():
            raise SettingsError(f"archive_url: there is no folder {self._folder}; a dispatcher makes it when it starts")
        try:
            self._store = _open(url) if self._folder is None else from_url(url, mkdir=create)
        except (BaseError, ValueError, OSError) as error:
            raise SettingsError(f"archive_url: {_first_line(error)}") from None

    async def put(self, name: str, content: bytes) -> None:
        """Store an object; in a folder it is on the disk when this returns."""
        with _translated():
            await obstore.put_async(self._store, name, content)
            if self._folder is not None:
                await asyncio.to_thread(_flush, self._folder, self._folder / name)

    async def get(self, name: str) -> bytes:
        """Give an object."""
        with _translated():
            try:
                found = await obstore.get_async(self._store, name)
            except FileNotFoundError:
                raise NotFound(f"the archive has no object {name}") from None
            return bytes(await found.bytes_async())

    async def names(self, folder: str) -> AsyncIterator[str]:
        """Give the names of all objects below a folder."""
        with _translated():
            async for batch in obstore.list(self._store, folder or None):
                for found in batch:
                    yield found["path"]

    async def folders(self, folder: str) -> list[str]:
        """Give the folders in a folder."""
        with _translated():
            found = await obstore.list_with_delimiter_async(self._store, folder or None)
            return sorted(found["common_prefixes"])


def _open(url: str) -> ObjectStore:
    return from_url(
        url,
        # These replace the environment's. Plain HTTP is spoken where the endpoint is an http:// URL, and nowhere else.
        client_options={"allow_http": True, "timeout": f"{_ANSWER_SECONDS}s", "connect_timeout": "5s"},
        retry_config={"max_retries": 2},
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise ArchiveUnavailable(f"the archive cannot be used: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    # What follows is the library's debugging output.
    return str(error).partition("\n")[0]


def _flush(root: Path, path: Path) -> None:
    for each in (path, *path.parents):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if each == root:
            return
