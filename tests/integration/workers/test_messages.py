"""Messages that nobody should take: each ends in the dead letters, and the worker goes on."""

import bz2
import pickle
import zlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from taskplatform.bundle import encode_bundle
from taskplatform.job import Envelope
from taskplatform.payload import encode, seal, sign, signed_text
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually

_BODY = b'[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def headers_for(body: bytes, key: bytes, **changes: Any) -> dict[str, Any]:
    """Make the signed headers of a no-op with some of them changed; None takes one away."""
    envelope = Envelope(id=uuid4(), task="noop", body="[[1],{},null]", tenant="acme", pool="default", series=None)
    headers = dict(encode(envelope, key).headers) | changes
    headers = {name: value for name, value in headers.items() if value is not None or name not in changes}
    headers["tp-signature"] = sign(headers, body, key)
    return headers


def bundles(key: bytes) -> dict[str, tuple[bytes, dict[str, Any], dict[str, Any]]]:
    """Give bundles in the same way."""
    jobs = [Envelope(id=uuid4(), task="noop", body="[[1],{},null]", tenant="acme", pool="default") for _ in range(3)]
    good = encode_bundle(jobs, key)
    unknown = encode_bundle([replace(job, task="no.such.task") for job in jobs], key)
    other_id = good.body.replace(str(jobs[1].id).encode(), str(uuid4()).encode())
    no_id = good.body.replace(str(jobs[1].id).encode(), b"42")
    signature = seal(b"23" + signed_text(good.headers)[1:], no_id, key)
    return {
        "a bundle of an unknown task": (unknown.body, dict(unknown.headers), {}),
        "a forged bundle": (other_id, dict(good.headers), {}),
        "a bundle with an id that is none": (no_id, {**good.headers, "tp-signature": signature}, {}),
        "one job that is called a bundle": (_BODY, {**headers_for(_BODY, key), "tp-jobs": 2}, {}),
    }


def malformed(key: bytes, canary: Path) -> dict[str, tuple[bytes, dict[str, Any], dict[str, Any]]]:
    """Give messages by what is wrong with them: body, headers, properties."""
    good = headers_for(_BODY, key)
    bomb = zlib.compress(b"[" + b"0," * 20_000_000 + b"0]")
    pickled = pickle.dumps(_Canary(canary))
    unsigned = {name: value for name, value in good.items() if name != "tp-signature"}
    return {
        "not json": (b"{nonsense", headers_for(b"{nonsense", key), {}),
        "plain text": (b"hello", {}, {"content_type": "text/plain"}),
        "no headers": (_BODY, {}, {}),
        "unknown task": (_BODY, headers_for(_BODY, key, task="no.such.task"), {}),
        "no id": (_BODY, headers_for(_BODY, key, id=None), {}),
        "an id that is none": (_BODY, headers_for(_BODY, key, id="42"), {}),
        "a body that is no triple": (b'{"a": 1}', headers_for(b'{"a": 1}', key), {}),
        "pickle": (pickled, headers_for(pickled, key), {"content_type": "application/x-python-serialize"}),
        "pickle said to be json": (pickled, headers_for(pickled, key), {}),
        "yaml": (b"a: 1", headers_for(b"a: 1", key), {"content_type": "application/x-yaml"}),
        "application/data": (b"\x00\x01", headers_for(b"\x00\x01", key), {"content_type": "application/data"}),
        "a zip bomb": (bomb, headers_for(bomb, key, compression="application/x-gzip"), {}),
        "a bz2 bomb": (bz2.compress(_BODY), headers_for(bz2.compress(_BODY), key, compression="application/x-bz2"), {}),
        "a bad eta": (_BODY, headers_for(_BODY, key, eta="the day after tomorrow"), {}),
        "an absurd eta": (_BODY, headers_for(_BODY, key, eta=12345678901234), {}),
        "an absurd time limit": (_BODY, headers_for(_BODY, key, timelimit=["soon", None]), {}),
        "an endless time limit": (_BODY, headers_for(_BODY, key, timelimit=[1e300, None]), {}),
        "unsigned": (_BODY, unsigned, {}),
        "a forged task": (_BODY, good | {"task": "kill_child"}, {}),
        "a forged body": (_BODY.replace(b"[1]", b"[2]"), good, {}),
        "another key": (_BODY, headers_for(_BODY, b"x" * 32), {}),
        "16 MiB": (b" " * (16 << 20), headers_for(b" ", key), {}),
        "deeply nested": (b"[" * 100_000, headers_for(b"[" * 100_000, key), {}),
        "another encoding": (_BODY, good, {"content_encoding": "utf-16"}),
        "a header that is a list": (_BODY, headers_for(_BODY, key, **{"tp-tenant": ["a", "b"]}), {}),
    }


@pytest.fixture(params=["rabbitmq", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A bench on each broker, with one worker."""
    found: Bench = request.getfixturevalue("amqp_bench" if request.param == "rabbitmq" else "redis_bench")
    return found


def test_every_malformed_message_ends_in_the_dead_letters_and_the_worker_lives(bench: Bench, tmp_path: Path) -> None:
    worker = bench.worker()
    canary = tmp_path / "canary"
    messages = malformed(bench.key, canary) | bundles(bench.key)

    for body, headers, properties in messages.values():
        bench.publish_raw(body, headers, **properties)
    good = bench.submit_many([("noop", [number]) for number in range(20)])

    for job_id in good:
        assert bench.ended(job_id)["state"] == "succeeded"
    eventually(lambda: bench.depth("jobs.default.dead") >= len(messages), within_seconds=20)
    assert bench.depth("jobs.default.dead") == len(messages)
    assert bench.depth("jobs.default.normal") == 0
    assert bench.count("finished_jobs") == len(good)
    assert worker.alive
    assert not canary.exists()


def test_an_unsigned_message_is_taken_where_the_settings_allow_it(amqp_bench: Bench) -> None:
    amqp_bench.worker(allow_unsigned_messages=True)
    envelope = Envelope(id=uuid4(), task="noop", body=_BODY.decode(), tenant="acme", pool="default", series=None)
    message = encode(envelope, amqp_bench.key)
    headers = {name: value for name, value in message.headers.items() if name != "tp-signature"}

    amqp_bench.publish_raw(message.body, headers)

    eventually(lambda: amqp_bench.count("finished_jobs", "succeeded") == 1, within_seconds=20)


def test_a_trace_that_is_none_stops_no_job(bench: Bench) -> None:
    worker = bench.worker()
    traces: list[Any] = [7, ["00"], {"a": 1}, "x" * 300]

    for trace in traces:
        envelope = Envelope(id=uuid4(), task="noop", body=_BODY.decode(), tenant="acme", pool="default", series=None)
        message = encode(envelope, bench.key)
        bench.publish_raw(message.body, {**message.headers, "traceparent": trace})

    bench.all_succeed(len(traces), within_seconds=20)
    assert worker.alive


def test_a_message_for_an_ended_job_changes_nothing(amqp_bench: Bench) -> None:
    amqp_bench.worker()
    envelope = Envelope(id=uuid4(), task="noop", body=_BODY.decode(), tenant="acme", pool="default", series=None)
    amqp_bench.publish([envelope])
    eventually(lambda: amqp_bench.count("finished_jobs") == 1, within_seconds=20)

    amqp_bench.publish([envelope, replace(envelope, series=0)])

    eventually(lambda: amqp_bench.depth("jobs.default.normal") == 0)
    amqp_bench.ended(amqp_bench.submit("noop"))
    assert amqp_bench.attempts(envelope.id) == [(1, "succeeded")]
