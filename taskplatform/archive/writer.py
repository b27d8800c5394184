"""Writes ended jobs into the object store: an object, read back and compared, then its manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from taskplatform.archive.contract import Objects
from taskplatform.archive.format import Manifest, Packer, manifest_name, write_manifest
from taskplatform.errors import ArchiveUnavailable, NotFound
from taskplatform.telemetry import Metrics

MOST_RAW_BYTES = 16 * 1024 * 1024
"""An object is closed when it holds so much before compression: so much, and one chunk more, is in memory at once."""
PATIENCE_SECONDS = 30.0
"""How long the store of objects may take for one batch: a transaction of Postgres is open meanwhile."""


class Archive:
    """The archive of one Postgres cluster, as retention fills it."""

    def __init__(self, objects: Objects, cluster: int, metrics: Metrics) -> None:
        self._objects = objects
        self._cluster = cluster
        self._metrics = metrics

    def begin(self, part: str, sequence: int) -> Batch:
        """Begin an object, number `sequence` of a part."""
        return Batch(self._objects, self._cluster, part, sequence, self._metrics)


class Batch:
    """One object that is being filled."""

    def __init__(self, objects: Objects, cluster: int, part: str, sequence: int, metrics: Metrics) -> None:
        self._objects = objects
        self._place = (cluster, part, sequence)
        self._metrics = metrics
        self._packer = Packer()

    @property
    def full(self) -> bool:
        """Whether it holds as much as an object should."""
        return self._packer.raw_bytes >= MOST_RAW_BYTES

    async def add(self, records: Sequence[str]) -> None:
        """Take records in."""
        await asyncio.to_thread(self._packer.add, records)

    async def close(self) -> None:
        """Write the object and its manifest. Raises ArchiveUnavailable when they are not there for certain.

        The same records under the same number give the same names and bytes, so that a second call repeats the first.
        """
        content, manifest = await asyncio.to_thread(self._packer.finish, *self._place)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._store(manifest.object, content)
                await self._store(manifest_name(manifest), write_manifest(manifest))
        except TimeoutError:
            raise ArchiveUnavailable(f"the archive took more than {PATIENCE_SECONDS:g} s for an object") from None
        self._count(manifest)

    async def _store(self, name: str, content: bytes) -> None:
        await self._objects.put(name, content)
        try:
            there = await self._objects.get(name)
        except NotFound:
            there = b""
        if there != content:
            raise ArchiveUnavailable(f"the archive does not give back what was written to {name}")

    def _count(self, manifest: Manifest) -> None:
        self._metrics.archive_objects_total.inc()
        self._metrics.archive_bytes_total.inc(manifest.bytes)
        self._metrics.archive_jobs_total.inc(manifest.jobs)
