"""Why a message is dead, and what of it is kept."""

import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskplatform.broker.contract import DeadMessage
from taskplatform.job import Envelope, Reason
from taskplatform.payload import CONTENT_TYPE, SIGNATURE_HEADER, encode, encode_body
from taskplatform.undertaker import HEADERS_LIMIT_BYTES, diagnose, headers_as_json

KEY = b"a key for tests, of 32 characters"
JOB = Envelope(id=uuid4(), task="a.b", body=encode_body([1], {}), tenant="acme", pool="default", series=3)


def a_dead_message(reason: str | None = "rejected", **changes: Any) -> DeadMessage:
    message = encode(JOB, KEY)
    dead = DeadMessage(
        tag=1,
        queue="jobs.default.dead",
        source_queue="jobs.default.normal",
        reason=reason,
        headers=dict(message.headers),
        properties={"content_type": CONTENT_TYPE},
        body=message.body,
    )
    return replace(dead, **changes)


def without(headers: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in headers.items() if key != name}


GOOD = a_dead_message().headers
SIGNED_GARBAGE = encode(msgspec.structs.replace(JOB, body="{{{"), KEY)
SIGNED_MISFIT = encode(msgspec.structs.replace(JOB, body='{"args": []}'), KEY)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (a_dead_message("rejected"), Reason.UNKNOWN_TASK),
        (a_dead_message(None), Reason.UNKNOWN_TASK),
        (a_dead_message("delivery_limit"), Reason.DELIVERY_LIMIT),
        (a_dead_message(headers=without(GOOD, SIGNATURE_HEADER)), Reason.UNSIGNED),
        (a_dead_message(headers={}), Reason.UNSIGNED),
        (a_dead_message(headers=GOOD | {"task": "other"}), Reason.FORGED),
        (a_dead_message(headers=GOOD | {SIGNATURE_HEADER: b"\xff"}), Reason.FORGED),
        (a_dead_message(body=b"[[], {}, null]"), Reason.FORGED),
        (a_dead_message(headers=GOOD | {"compression": "application/x-bz2"}), Reason.MALFORMED),
        (a_dead_message(properties={"content_type": "application/x-python-serialize"}), Reason.UNDECODABLE),
        (a_dead_message(properties={}), Reason.UNDECODABLE),
        (a_dead_message(headers=dict(SIGNED_GARBAGE.headers), body=SIGNED_GARBAGE.body), Reason.UNDECODABLE),
        (a_dead_message(headers=dict(SIGNED_MISFIT.headers), body=SIGNED_MISFIT.body), Reason.MALFORMED),
        (a_dead_message(headers=GOOD | {"task": "\ud800"}), Reason.FORGED),
        (a_dead_message(headers=GOOD | {"timelimit": object()}), Reason.FORGED),
        # The broker's word is not believed for a message that is not ours.
        (a_dead_message("delivery_limit", headers={}), Reason.UNSIGNED),
    ],
)
def test_a_message_is_dead_for_a_reason(message: DeadMessage, reason: Reason) -> None:
    assert diagnose(message, [KEY], allow_unsigned=False).reason is reason


def test_a_signed_message_speaks_for_its_job() -> None:
    buried = diagnose(a_dead_message(), [KEY], allow_unsigned=False)

    assert (buried.job_id, buried.series, buried.tenant, buried.task) == (JOB.id, 3, "acme", "a.b")


@pytest.mark.parametrize("headers", [GOOD | {"task": "other"}, without(GOOD, SIGNATURE_HEADER)])
def test_a_message_that_proves_nothing_speaks_for_no_job(headers: dict[str, Any]) -> None:
    buried = diagnose(a_dead_message(headers=headers), [KEY], allow_unsigned=False)

    assert (buried.job_id, buried.tenant, buried.task) == (None, None, None)


def test_an_unsigned_message_speaks_for_its_job_where_that_is_allowed() -> None:
    message = a_dead_message(headers=without(GOOD, SIGNATURE_HEADER))

    assert diagnose(message, [KEY], allow_unsigned=True).job_id == JOB.id


def test_an_older_key_still_counts() -> None:
    assert diagnose(a_dead_message(), [b"n" * 32, KEY], allow_unsigned=False).job_id == JOB.id


def test_the_bytes_and_the_queue_of_a_message_are_kept_as_they_were() -> None:
    buried = diagnose(a_dead_message(body=b"\x00\xff"), [KEY], allow_unsigned=False)

    assert (buried.raw, buried.queue) == (b"\x00\xff", "jobs.default.normal")


def test_no_text_of_a_dead_letter_has_what_postgres_cannot_keep() -> None:
    message = a_dead_message(headers={"a\0b": "\ud800\0"}, properties={"content_type": "\0"}, source_queue="q\0\ud800")

    buried = diagnose(message, [KEY], allow_unsigned=False)

    texts = [text for text in (buried.detail, buried.queue, buried.headers, buried.task, buried.tenant) if text]
    assert "\0" not in "".join(texts).encode().decode()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), values, max_size=5))
def test_any_headers_become_one_json_object(headers: dict[str, Any]) -> None:
    assert set(json.loads(headers_as_json(headers))) == set(headers)


def test_headers_beyond_the_limit_are_left_out_and_counted() -> None:
    headers = {"first": "kept", "huge": "x" * HEADERS_LIMIT_BYTES, "last": "kept too"}

    written = headers_as_json(headers)

    assert json.loads(written) == {"first": "kept", "last": "kept too", "…": 1}


@settings(deadline=None)
@given(count=st.integers(1, 3000), size=st.integers(0, 200))
def test_headers_are_never_longer_than_their_limit(count: int, size: int) -> None:
    assert len(headers_as_json({f"h{number}": "x" * size for number in range(count)})) <= HEADERS_LIMIT_BYTES
