"""The memory that a child shares with its parent: which job it runs, and outcomes, readable even after its death."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

_HALF_BYTES = 512 * 1024
_HEADER = struct.Struct("=QiidIi")  # chunk, started index, limit, start time, bytes written, cancelled index
_CHUNK = struct.Struct("=Q")
_STARTED = struct.Struct("=i")
_INT = struct.Struct("=i")
_BYTES = struct.Struct("=I")
_TIME = struct.Struct("=d")
_AT_STARTED, _AT_LIMIT, _AT_TIME, _AT_BYTES, _AT_CANCEL = 8, 12, 16, 24, 28
_AT_DRAINING = 32
_AT_RECORDS = 64
_NOBODY = -1


class Slot:
    """One child's memory, with room for the two chunks that it may have in hand, told apart by the chunk's parity.

    The parent calls `open`, `limit`, `cancel` and `drain`; the child `start` and `record`; both may read. A write of a
    few aligned bytes is whole, and nothing here needs a lock.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * _HALF_BYTES)
        self._read = [_AT_RECORDS, _AT_RECORDS]

    def open(self, chunk: int, jobs: int) -> None:
        """Prepare the half of this chunk before it is handed over."""
        self._read[chunk % 2] = _AT_RECORDS
        start = _offset(chunk)
        _HEADER.pack_into(self._memory, start, chunk, _NOBODY, jobs, 0.0, _AT_RECORDS, _NOBODY)

    def start(self, chunk: int, index: int, now: float) -> bool:
        """Say in the child that a job starts, at the monotonic time `now`; False when the parent has taken it back."""
        start = _offset(chunk)
        _TIME.pack_into(self._memory, start + _AT_TIME, now)
        _STARTED.pack_into(self._memory, start + _AT_STARTED, index)
        limit: int = _INT.unpack_from(self._memory, start + _AT_LIMIT)[0]
        if index < limit:
            return True
        _STARTED.pack_into(self._memory, start + _AT_STARTED, index - 1)
        return False

    def started(self, chunk: int) -> tuple[int, float]:
        """Give the index of the job that was started last, -1 for none, and the monotonic time of that."""
        start = _offset(chunk)
        index: int = _STARTED.unpack_from(self._memory, start + _AT_STARTED)[0]
        return index, _TIME.unpack_from(self._memory, start + _AT_TIME)[0]

    def limit(self, chunk: int, jobs: int) -> None:
        """Let the child start no job from this index on."""
        _INT.pack_into(self._memory, _offset(chunk) + _AT_LIMIT, jobs)

    def cancel(self, chunk: int, index: int) -> None:
        """Mark the job that is to be interrupted."""
        _INT.pack_into(self._memory, _offset(chunk) + _AT_CANCEL, index)

    def cancelled(self, chunk: int) -> int:
        """Give the index of the job that is to be interrupted, -1 for none."""
        index: int = _INT.unpack_from(self._memory, _offset(chunk) + _AT_CANCEL)[0]
        return index

    def drain(self) -> None:
        """Say that the worker is about to end."""
        self._memory[_AT_DRAINING] = 1

    @property
    def draining(self) -> bool:
        """Whether the worker is about to end."""
        return bool(self._memory[_AT_DRAINING])

    def record(self, chunk: int, outcome: bytes) -> bool:
        """Keep an outcome in the child; False when there is no room left."""
        start = _offset(chunk)
        at: int = _BYTES.unpack_from(self._memory, start + _AT_BYTES)[0]
        end = at + _BYTES.size + len(outcome)
        if end > _HALF_BYTES:
            return False
        _BYTES.pack_into(self._memory, start + at, len(outcome))
        self._memory[start + at + _BYTES.size : start + end] = outcome
        # Last, so that the parent never sees a record that is not whole.
        _BYTES.pack_into(self._memory, start + _AT_BYTES, end)
        return True

    def take(self, chunk: int) -> Iterator[bytes]:
        """Give the outcomes that the parent has not read yet."""
        start = _offset(chunk)
        end: int = _BYTES.unpack_from(self._memory, start + _AT_BYTES)[0]
        at = self._read[chunk % 2]
        while at < end:
            size: int = _BYTES.unpack_from(self._memory, start + at)[0]
            at += _BYTES.size
            yield self._memory[start + at : start + at + size]
            at += size
        self._read[chunk % 2] = at

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def _offset(chunk: int) -> int:
    return chunk % 2 * _HALF_BYTES
