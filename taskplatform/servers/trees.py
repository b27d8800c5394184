"""Signals to whole trees of processes: a process and everything below it, as it is at the moment."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def freeze(root: int) -> list[int]:
    """Stop a process and everything below it in the middle of what they do; gives all of them."""
    stopped: list[int] = []
    # Until nothing new is found: a child may fork between the listing and its own stop.
    while fresh := [pid for pid in tree_of(root) if pid not in stopped]:
        send(fresh, signal.SIGSTOP)
        stopped += fresh
    return stopped


def thaw(root: int) -> None:
    """Let a frozen process and everything below it go on."""
    send(tree_of(root), signal.SIGCONT)


def kill(root: int) -> None:
    """Kill a process and everything below it at once; one that is gone is no error."""
    send(freeze(root), signal.SIGKILL)


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each of these; those that are gone are left out."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def tree_of(root: int) -> list[int]:
    """Give a process and everything below it, parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree
