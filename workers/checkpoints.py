"""Takes the checkpoints of running jobs to the store and back, those that come together with one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

import msgspec

from taskplatform.shards import Homes
from taskplatform.store.statements import Running, load_call, read_loaded, read_saved, save_call
from workers.cluster import Cluster
from workers.link import Answer, Refused, Rows


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What the store says to a checkpoint: the `text` that was asked for, or what is wrong.

    `kept` is False for an attempt that no longer holds its job, `trouble` a value that Postgres refuses.
    """

    kept: bool = True
    text: str | None = None
    trouble: str = ""


Answered = Callable[[Reply], None]


class _Batch:
    def __init__(self) -> None:
        self.saved: dict[Running, str] = {}
        self.savers: dict[Running, list[Answered]] = {}
        self.readers: dict[Running, list[Answered]] = {}

    def add(self, running: Running, text: str | None, answered: Answered) -> None:
        if text is None:
            self.readers.setdefault(running, []).append(answered)
        else:
            # A coroutine may save again before the first save is answered: the last one counts for all.
            self.saved[running] = text
            self.savers.setdefault(running, []).append(answered)


class Checkpoints:
    """One request at most is on its way to each Postgres cluster; what comes meanwhile goes with the next one."""

    def __init__(self, clusters: Sequence[Cluster], homes: Homes | None) -> None:
        self._clusters = clusters
        self._homes = homes
        self._next = [_Batch() for _ in clusters]
        self._asking = [False for _ in clusters]

    def ask(self, job_id: UUID, attempt: int, text: str | None, answered: Answered) -> None:
        """Keep the text of an attempt, None reads what was kept last; `answered` is called in the loop."""
        cluster = 0 if self._homes is None else self._homes.of(job_id)
        self._next[cluster].add((job_id, attempt), text, answered)
        self._send(cluster)

    def _send(self, cluster: int) -> None:
        batch = self._next[cluster]
        if self._asking[cluster] or not (batch.saved or batch.readers):
            return
        self._asking[cluster], self._next[cluster] = True, _Batch()
        calls = [save_call(batch.saved)] if batch.saved else []
        if batch.readers:
            calls.append(load_call(batch.readers))
        self._clusters[cluster].ask(calls, partial(self._answered, cluster, batch))

    def _answered(self, cluster: int, batch: _Batch, answer: Answer) -> None:
        self._asking[cluster] = False
        if isinstance(answer, Rows):
            kept = read_saved(batch.saved, answer.rows[0]) if batch.saved else set()
            found = read_loaded(batch.readers, answer.rows[-1]) if batch.readers else {}
            _tell(batch.savers, {running: Reply() for running in kept}, Reply(kept=False))
            _tell(batch.readers, {running: Reply(text=text) for running, text in found.items()}, Reply(kept=False))
        else:
            trouble = answer.detail if isinstance(answer, Refused) else "its job is at home elsewhere"
            _tell(batch.savers, {}, Reply(trouble=trouble))
            _tell(batch.readers, {}, Reply(trouble=trouble))
        self._send(cluster)


def _tell(who: Mapping[Running, Sequence[Answered]], replies: Mapping[Running, Reply], otherwise: Reply) -> None:
    for running, waiting in who.items():
        for answered in waiting:
            answered(replies.get(running, otherwise))
