"""What every server is: a context manager that starts it and stops it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Running(ABC):
    """Started on the way into a `with` statement, and stopped on the way out."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it is ready; raise ServerError."""

    @abstractmethod
    def stop(self) -> None:
        """End it. May be called at any time, and again."""
