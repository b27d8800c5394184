"""Takes AMQP deliveries into the worker's parent: of a known shape at a glance, others after reading all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from amqp.serialization import decode_properties_basic

from taskplatform.job import Envelope
from workers.shapes import SIZES_BYTES, Shapes

_BASIC = bytes((0, 60))


class Recipient(Protocol):
    """Who takes messages in."""

    def received(
        self, headers: Mapping[str, Any], body: bytes, properties: Mapping[str, Any], tag: int, /
    ) -> Envelope | None:
        """Check a message, and take it in or reject it; gives the envelope if it was taken in and brings one job."""

    def admitted(self, envelope: Envelope, tag: int, /) -> None:
        """Take in a message that was checked, of one job, as others of its task were before."""


class Mail:
    """Reads deliveries for one recipient; see Take."""

    def __init__(self, recipient: Recipient, keys: Sequence[bytes]) -> None:
        self._recipient = recipient
        self._shapes = Shapes(keys)

    def __call__(self, header: bytes, body: bytes, tag: int, /) -> bool:
        """See Take."""
        envelope = self._shapes.recognise(header, body)
        if envelope is not None:
            self._recipient.admitted(envelope, tag)
            return True
        if not header.startswith(_BASIC):
            return False
        try:
            properties, _ = decode_properties_basic(header, SIZES_BYTES)
        except Exception:
            # RabbitMQ passes on what py-amqp cannot read; its own path knows what to do then.
            return False
        headers = properties.get("application_headers") or {}
        envelope = self._recipient.received(headers, body, properties, tag)
        if envelope is not None:
            # An unsigned message may hold what cannot be signed: its like are read whole, too.
            with suppress(TypeError, ValueError, RecursionError):
                self._shapes.learn(header, headers, envelope)
        return True
