"""A worker that acknowledges every message when it arrives, long before the commit: a kill loses all that it holds."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from unittest.mock import patch

from workers.consumer import AmqpReceipts
from workers.held import Tag


def _received(self: AmqpReceipts, tag: Tag) -> None:
    self._channel.basic_ack(int(tag))


def _settled(self: AmqpReceipts, tags: Sequence[Tag]) -> None:
    """The broker has forgotten them long ago."""


def main() -> None:
    """Run the worker with acknowledgements that promise too much."""
    with patch.multiple(AmqpReceipts, received=_received, ack=_settled, reject=_settled):
        runpy.run_module("workers", run_name="__main__")


if __name__ == "__main__":
    main()
