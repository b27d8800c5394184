"""Finds ended jobs in the archive, and reads no object that its name or its manifest rules out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from taskplatform.archive.contract import Objects
from taskplatform.archive.format import (
    MANIFEST_SUFFIX,
    ArchivedJob,
    Damaged,
    Manifest,
    Wanted,
    kind_of,
    read_manifest,
    read_object,
    read_record,
)
from taskplatform.errors import NotFound

AT_ONCE = 16
"""How many manifests are fetched at once."""


@dataclass(frozen=True, slots=True)
class Found:
    """A job that a search found, and its whole record as it was written."""

    job: ArchivedJob
    line: bytes


class Search:
    """Searches one archive.

    What is damaged, or not of the archive, is told to `complain`, a line each, and the rest is searched all the same.
    """

    def __init__(self, objects: Objects, complain: Callable[[str], None]) -> None:
        self._objects = objects
        self._complain = complain
        self.objects_read = 0
        """How many objects with jobs were read."""

    async def manifests(self, wanted: Wanted) -> list[Manifest]:
        """Give the manifests of all objects that may hold such jobs, in the order of their names."""
        names: list[str] = []
        for cluster in await self._objects.folders(""):
            for folder in await self._objects.folders(cluster):
                try:
                    if wanted.may_be_in_part(folder.rpartition("/")[2]):
                        names += await self._named(folder)
                except Damaged:
                    self._complain(f"{folder}: not of the archive")
        found: list[Manifest] = []
        names.sort()
        for begin in range(0, len(names), AT_ONCE):
            read = await asyncio.gather(*(self._manifest(name) for name in names[begin : begin + AT_ONCE]))
            found += [each for each in read if each is not None and wanted.may_be_in(each)]
        return found

    async def jobs(
        self, wanted: Wanted, manifests: list[Manifest], progress: Callable[[int], None] = lambda _: None
    ) -> AsyncGenerator[Found, None]:
        """Give the jobs in these objects that are wanted, each end of a job once; `progress` counts the objects."""
        seen: set[tuple[UUID, int]] = set()
        for done, manifest in enumerate(manifests, start=1):
            for found in await self._read(manifest, wanted):
                ending = (found.job.id, found.job.series)
                if ending not in seen:
                    seen.add(ending)
                    yield found
            progress(done)

    async def one(self, job_id: UUID) -> Found:
        """Give the last end of a job. Raises NotFound."""
        wanted = Wanted(id=job_id)
        manifests = await self.manifests(wanted)
        async with aclosing(self.jobs(wanted, manifests)) as jobs:
            endings = [found async for found in jobs]
        if not endings:
            raise NotFound(f"there is no job {job_id} in the archive")
        return max(endings, key=lambda found: found.job.series)

    async def _named(self, folder: str) -> list[str]:
        names: list[str] = []
        async for name in self._objects.names(folder):
            kind = kind_of(name)
            if kind is None:
                self._complain(f"{name}: not of the archive")
            elif kind == MANIFEST_SUFFIX:
                names.append(name)
        return names

    async def _manifest(self, name: str) -> Manifest | None:
        try:
            return read_manifest(name, await self._objects.get(name))
        except (Damaged, NotFound) as error:
            self._complain(f"{name}: damaged: {error}")
            return None

    async def _read(self, manifest: Manifest, wanted: Wanted) -> list[Found]:
        self.objects_read += 1
        try:
            content = await self._objects.get(manifest.object)
            return await asyncio.to_thread(_matching, manifest, content, wanted)
        except (Damaged, NotFound) as error:
            self._complain(f"{manifest.object}: damaged: {error}")
            return []


def _matching(manifest: Manifest, content: bytes, wanted: Wanted) -> list[Found]:
    found = (Found(read_record(line).job, line) for line in read_object(manifest, content))
    return [each for each in found if wanted.is_met_by(each.job)]
