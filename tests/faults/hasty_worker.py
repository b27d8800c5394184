"""A worker that acknowledges every message when it arrives, long before the commit: a kill loses all that it holds."""

from __future__ import annotations

import runpy
from unittest.mock import patch

from workers.held import Settlement, Tag
from workers.receipts import AmqpReceipts


def _received(self: AmqpReceipts, tag: Tag, jobs: int = 1) -> None:
    self._channel.basic_ack(int(tag))


def _settled(self: AmqpReceipts, over: Settlement) -> None:
    """The broker has forgotten them long ago."""


def main() -> None:
    """Run the worker with acknowledgements that promise too much."""
    with patch.multiple(AmqpReceipts, received=_received, settle=_settled):
        runpy.run_module("workers", run_name="__main__")


if __name__ == "__main__":
    main()
