"""Reads one finished job again and again, and remembers when it was shown as it is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

import msgspec

from tests.native.wire import Connection, CutOff, NotSent

_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0


@dataclass(slots=True)
class Reader:
    """A context manager whose thread reads the job through the load balancer."""

    port: int
    key: str
    job_id: str
    good: list[float] = field(default_factory=list, init=False)
    bad: dict[str, int] = field(default_factory=dict, init=False)
    _stop: Event = field(default_factory=Event, init=False)
    _thread: Thread = field(init=False)

    def __enter__(self) -> Self:
        self._thread = Thread(target=lambda: asyncio.run(self._read()), name="reader")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _read(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            connection = Connection(self.port, self.key, timeout_seconds=_PATIENCE_SECONDS)
            try:
                answer = await connection.ask("GET", f"/v1/jobs/{self.job_id}")
            except (NotSent, CutOff) as error:
                self._note(str(error)[:40])
                continue
            finally:
                connection.close()
            if answer.status == 200 and msgspec.json.decode(answer.body)["state"] == "succeeded":
                self.good.append(time.time())
            else:
                self._note(str(answer.status))

    def _note(self, how: str) -> None:
        self.bad[how] = self.bad.get(how, 0) + 1
