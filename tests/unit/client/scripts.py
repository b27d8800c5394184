"""Plays a flow against a script of replies, with a clock that only waits move."""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from taskplatform import Retry
from taskplatform.client._base import Answer, Effort, Flow, NoAnswer, Reply, Request, Wait
from taskplatform.client._flows import Flows

T = TypeVar("T")

JOB_ID = UUID("01890000-0000-7000-8000-000000000001")
CUT_OFF = NoAnswer(why="ReadError")


@dataclass
class Clock:
    """A clock that stands still until something waits; a held answer takes its time too."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Played:
    """What a flow did: its requests, its waits, in order."""

    requests: list[Request] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def flows(clock: Clock, *, max_attempts: int = 4, patience_seconds: float = 60.0) -> Flows:
    """Flows whose pauses have no jitter: 1, 2, 4 … seconds."""
    retry = Retry(max_attempts=max_attempts, backoff_seconds=1.0, max_backoff_seconds=30.0, jitter=0.0)
    return Flows(Effort(retry=retry, patience_seconds=patience_seconds, clock=clock, random=Random(1)))


def play(flow: Flow[T], *replies: Answer | NoAnswer, clock: Clock, takes_seconds: float = 0.0) -> tuple[T, Played]:
    """Run a flow to its end; each reply takes so long."""
    played = Played()
    script = list(replies)
    reply: Reply = None
    while True:
        try:
            step = flow.send(reply)
        except StopIteration as end:
            assert script == [], "the flow ended before the script"
            return end.value, played
        match step:
            case Wait():
                played.waits.append(step.seconds)
                clock.now += step.seconds
                reply = None
            case Request():
                played.requests.append(step)
                clock.now += takes_seconds
                reply = script.pop(0)


def a_job(state: str = "queued", **members: Any) -> dict[str, Any]:
    """The JSON of a job."""
    return {"id": str(JOB_ID), "task": "demo.add", "state": state, "created_at": "2026-11-20T10:00:00Z", **members}


def answer(status: int, content: Any, **headers: str) -> Answer:
    """A JSON answer; `retry_after="3"` becomes the header retry-after."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status=status, headers={"content-type": "application/json", **named}, body=json.dumps(content).encode()
    )


def problem(status: int, code: str = "", **members: Any) -> Answer:
    """A problem, RFC 9457."""
    headers = {"content-type": "application/problem+json"}
    if "retry_after" in members:
        headers["retry-after"] = str(members.pop("retry_after"))
    content = {"type": "about:blank", "title": "no", "status": status, "code": code, **members}
    return Answer(status=status, headers=headers, body=json.dumps(content).encode())
