"""The account that a server runs under when we are root and the server refuses to be."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user of this system."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls, *names: str) -> Self | None:
        """Return the first of these accounts that exists, or None when this process is not root and keeps its own."""
        if os.geteuid() != 0:
            return None
        for name in (*names, "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(uid=entry.pw_uid, gid=entry.pw_gid)
        return cls(uid=65534, gid=65534)

    def enters(self, folder: Path) -> bool:
        """Tell whether this account may pass through `folder` and every folder on the way to it."""
        place = folder.resolve()
        return all(self._may(0o1, step) for step in (place, *place.parents))

    def reads(self, path: Path) -> bool:
        """Tell whether this account may read the file at `path`."""
        place = path.resolve()
        return self.enters(place.parent) and self._may(0o4, place)

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        os.chown(path, self.uid, self.gid)

    def _may(self, bit: int, path: Path) -> bool:
        entry = path.stat()
        if entry.st_uid == self.uid:
            bit <<= 6
        elif entry.st_gid == self.gid:
            bit <<= 3
        return bool(stat.S_IMODE(entry.st_mode) & bit)
