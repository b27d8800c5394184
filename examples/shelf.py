"""Finds the input of a job: a file that comes with the packs, by its name, or any other by its absolute path."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from taskplatform import Fail

DATA = Path(__file__).with_name("data")


class Shelf(StrEnum):
    """Where input that comes with the packs lies."""

    PHOTOS = "photos"
    TABLES = "tables"


def find(shelf: Shelf, name: str) -> Path:
    """Give the path of an input; an absolute `name` is taken as it is.

    Raises Fail when a name leads out of its shelf. Whether the file exists is left to the one who opens it.
    """
    if Path(name).is_absolute():
        return Path(name)
    folder = (DATA / shelf).resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise Fail(f"{name!r} leads out of the shelf {shelf}; give an absolute path instead")
    return path


def titles(shelf: Shelf) -> list[str]:
    """List the names of what comes with the packs."""
    return sorted(path.name for path in (DATA / shelf).iterdir() if path.is_file())
