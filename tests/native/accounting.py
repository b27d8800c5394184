"""What a tree of processes has used so far: processor time of the living and the dead, and memory, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor seconds used since the start, and resident bytes now (shared pages are counted once per process)."""

    cpu_seconds: float = 0.0
    rss_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Sum up two groups of processes."""
        return Usage(cpu_seconds=self.cpu_seconds + other.cpu_seconds, rss_bytes=self.rss_bytes + other.rss_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    parent: int
    usage: Usage


@dataclass(slots=True, kw_only=True)
class Meter:
    """Sums what a group of processes uses, across the deaths of its members."""

    _banked_seconds: float = field(default=0.0, init=False)

    def bank(self, roots: Iterable[int]) -> None:
        """Keep what these trees have used; call it before they are killed, since nobody inherits their figures."""
        self._banked_seconds += usage_of(roots).cpu_seconds

    def read(self, roots: Iterable[int]) -> Usage:
        """Give what the group has used: its living trees, and all that was banked."""
        return usage_of(roots) + Usage(cpu_seconds=self._banked_seconds)


def usage_of(roots: Iterable[int], *, below: bool = True) -> Usage:
    """Sum up the trees below `roots`, or these processes alone, with every child that one of them has waited for."""
    entries = _entries()
    found = _below(entries, roots) if below else [root for root in roots if root in entries]
    return sum((entries[pid].usage for pid in found), Usage())


def proportional_bytes(roots: Iterable[int], *, below: bool = True) -> int:
    """Sum up the resident memory of these trees, or of these processes alone.

    A shared page is divided by those who share it (PSS, see proc(5)).
    """
    total = 0
    for pid in _below(_entries(), roots) if below else roots:
        # A process that ends meanwhile has no memory; one that has ended and is not waited for has none either.
        with contextlib.suppress(OSError, StopIteration):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += 1024 * int(next(line for line in rollup if line.startswith("Pss:")).split()[1])
    return total


def precise_seconds(pids: Iterable[int]) -> float:
    """Sum up the processor time of these processes to the nanosecond, without what they have started."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total / 1e9


def tree_of(root: int) -> list[int]:
    """Give the ids of a process and of all below it, parents first; empty when it is gone."""
    return _below(_entries(), [root])


def children_of(pid: int) -> list[int]:
    """Give the processes that this one has started itself and that still exist."""
    return [child for child, entry in _entries().items() if entry.parent == pid]


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and has not ended; one that nobody has waited for yet has ended."""
    try:
        return _fields(Path(f"/proc/{pid}"))[0] != "Z"
    except (OSError, IndexError):
        return False


def _below(entries: dict[int, _Entry], roots: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, entry in entries.items():
        children.setdefault(entry.parent, []).append(pid)
    found = [root for root in roots if root in entries]
    for pid in found:
        found += children.get(pid, [])
    return found


def _entries() -> dict[int, _Entry]:
    entries: dict[int, _Entry] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError, IndexError):
            fields = _fields(folder)
            seconds = sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_SECOND
            usage = Usage(cpu_seconds=seconds, rss_bytes=int(fields[21]) * _PAGE_BYTES)
            entries[int(folder.name)] = _Entry(parent=int(fields[1]), usage=usage)
    return entries


def _fields(folder: Path) -> list[str]:
    # The name of the program stands in brackets and may hold anything; proc(5) counts the state after it as field 3.
    return (folder / "stat").read_text().rpartition(")")[2].split()
