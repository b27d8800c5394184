"""Hands in one job of a fault run by itself, and puts it into the run's history."""

from __future__ import annotations

import asyncio
import hashlib
import time
from itertools import count
from pathlib import Path

import msgspec

from tests.faults.history import Exchange, Journal
from tests.faults.plan import Kind, kind_of
from tests.faults.platform_api import ask
from tests.native.stack import Stack


def hand_in(stack: Stack, history: Path, seed: int, above: int) -> str:
    """Submit the first job with a number from `above` on that does nothing, with a key; gives its id."""
    number = next(number for number in count(above) if kind_of(seed, number) is Kind.NOOP)
    body = msgspec.json.encode({"task": "faults.noop", "args": [number]})
    key = f"run-{seed}-{number}"
    sent_at = time.time()
    answer = asyncio.run(ask(stack, "POST", "/v1/jobs", body, key))
    Journal(history).add(
        Exchange(
            request=-1,
            numbers=[number],
            keys=[key],
            payload_sha256=hashlib.sha256(body).hexdigest(),
            sent_at=sent_at,
            answered_at=time.time(),
            status=202,
            ids=[answer["id"]],
        )
    )
    return str(answer["id"])
