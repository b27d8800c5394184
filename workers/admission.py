"""Takes deliveries into a worker: each is checked, then its jobs are taken in, or the whole of it is rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskplatform.bundle import is_bundle, open_bundle
from taskplatform.job import Envelope
from taskplatform.payload import Unfit, admit
from taskplatform.settings import Settings
from taskplatform.telemetry import logger
from workers.held import Settlement, Tag
from workers.pipeline import Pipeline
from workers.receipts import Receipts
from workers.registry import Registry
from workers.shares import Shares

_log = logger(__name__)


class Admission:
    """Hands jobs to the `pipeline`, and calls `wake` when there are new ones.

    `receipts` are those of the present channel, None while the broker is away.
    """

    def __init__(self, settings: Settings, registry: Registry, pipeline: Pipeline, wake: Callable[[], None]) -> None:
        self.receipts: Receipts | None = None
        self._keys = settings.signing_secrets()
        self._allow_unsigned = settings.allow_unsigned_messages
        self._known = registry.traits
        self._pipeline = pipeline
        self._wake = wake
        self._shares = Shares(max((spec.bundle_jobs for spec in registry.specs), default=1))

    def received(
        self, headers: Mapping[str, Any], body: bytes, properties: Mapping[str, Any], tag: Tag
    ) -> Envelope | None:
        """Check a message, and take it in or reject it; see Recipient. No message raises."""
        receipts = self.receipts
        if receipts is None:
            return None
        try:
            envelopes = self._checked(headers, body, properties)
        except Unfit as unfit:
            _reject(receipts, tag, unfit.reason, str(unfit))
        except Exception as error:
            # Whatever a message is made of, it must not end the worker.
            _reject(receipts, tag, "malformed", f"{type(error).__name__}: {error}")
        else:
            if self._admit(receipts, envelopes, tag) and len(envelopes) == 1:
                return envelopes[0]
        return None

    def admitted(self, envelope: Envelope, tag: Tag) -> None:
        """See Recipient."""
        if self.receipts is not None:
            self._take_in(self.receipts, (envelope,), tag)

    def prefetch(self, wanted_jobs: int) -> int:
        """Tell how many messages are worth having at hand for so many jobs; see Shares."""
        deliveries = 0 if self.receipts is None else self.receipts.deliveries
        return self._shares.prefetch(wanted_jobs, self._pipeline.held, deliveries)

    def prefetch_anew(self, wanted_jobs: int) -> int:
        """Tell the same where the deliveries that are here are not counted."""
        return self._shares.prefetch(wanted_jobs, self._pipeline.held, 0)

    def _checked(self, headers: Mapping[str, Any], body: bytes, properties: Mapping[str, Any]) -> Sequence[Envelope]:
        if is_bundle(headers):
            return open_bundle(headers, body, properties, self._keys)
        return (admit(headers, body, properties, self._keys, allow_unsigned=self._allow_unsigned),)

    def _admit(self, receipts: Receipts, envelopes: Sequence[Envelope], tag: Tag) -> bool:
        task = envelopes[0].task
        if task not in self._known:
            _reject(receipts, tag, "unknown_task", f"no task {task!r} here")
            return False
        self._take_in(receipts, envelopes, tag)
        return True

    def _take_in(self, receipts: Receipts, envelopes: Sequence[Envelope], tag: Tag) -> None:
        jobs = len(envelopes)
        receipts.received(tag, jobs)
        self._shares.received(jobs)
        for envelope in envelopes:
            self._pipeline.receive(envelope, tag)
        self._wake()


def _reject(receipts: Receipts, tag: Tag, reason: str, detail: str) -> None:
    _log.warning("a message was rejected", reason=reason, detail=detail[:500])
    receipts.received(tag)
    receipts.settle(Settlement(reject=[tag]))
