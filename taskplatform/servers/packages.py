"""Copies an installed Python package and all that it needs to where another account can import it."""

from __future__ import annotations

import shutil
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taskplatform.servers.errors import ServerMissing


def copy_packages(wanted: list[str], folder: Path) -> None:
    """Copy these packages, written as requirements with their extras, into a folder for PYTHONPATH.

    Raises ServerMissing when one of them is not installed.
    """
    for found in _closure(wanted).values():
        for file in found.files or ():
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            copy = folder / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(found.locate_file(file)), copy)


def _closure(wanted: list[str]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        try:
            found.setdefault(name, distribution(name))
        except PackageNotFoundError:
            raise ServerMissing(f"the Python package {needed.name} is not installed") from None
        for extra in {"", *needed.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            below = map(Requirement, found[name].requires or ())
            waiting += [each for each in below if each.marker is None or each.marker.evaluate({"extra": extra})]
    return found
