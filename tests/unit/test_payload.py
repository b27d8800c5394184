"""Messages are signed, and nothing that is not ours gets in."""

import hashlib
import hmac
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.errors import InvalidInput
from taskplatform.job import Envelope, Priority, Reason
from taskplatform.payload import SIGNATURE_HEADER, Unfit, admit, decode_body, encode, encode_body, seal, trace_of

KEY = b"k" * 32
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROPERTIES = {"content_type": "application/json", "content_encoding": "utf-8"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=3)
)


def an_envelope(**chosen: Any) -> Envelope:
    given_values: dict[str, Any] = {
        "id": UUID("0192f0c1-2345-7107-9273-49d96e879bab"),
        "task": "photos.thumbnail",
        "body": encode_body(["flower.jpg"], {"width": 160}),
        "tenant": "acme",
        "pool": "default",
    }
    return Envelope(**{**given_values, **chosen})


def received(envelope: Envelope) -> tuple[dict[str, Any], bytes]:
    message = encode(envelope, KEY)
    return dict(message.headers), message.body


def admitted(headers: dict[str, Any], body: bytes, *keys: bytes, allow_unsigned: bool = False, **more: Any) -> Envelope:
    return admit(headers, body, {**PROPERTIES, **more}, keys or [KEY], allow_unsigned=allow_unsigned)


def refusal(headers: dict[str, Any], body: bytes, *keys: bytes, **more: Any) -> Reason:
    with pytest.raises(Unfit) as refused:
        admitted(headers, body, *keys, **more)
    return refused.value.reason


@given(st.lists(json_values, max_size=4), st.dictionaries(st.text(), json_values, max_size=4))
def test_arguments_survive_the_body(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert decode_body(encode_body(args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    "envelope",
    [
        an_envelope(),
        an_envelope(priority=Priority.HIGH, series=3, suspect=True),
        an_envelope(task_version=2),
        an_envelope(soft_limit_seconds=1.5, hard_limit_seconds=2.0, trace=TRACE),
        an_envelope(series=None),
    ],
)
def test_an_envelope_survives_the_message(envelope: Envelope) -> None:
    assert admitted(*received(envelope)) == envelope


def test_a_message_goes_to_the_queue_of_its_pool_and_priority() -> None:
    message = encode(an_envelope(pool="video", priority=Priority.LOW), KEY)

    assert message.routing_key == "jobs.video.low"


@given(st.binary(), st.binary(), st.binary(min_size=1, max_size=200))
def test_a_signature_is_the_hmac_of_text_and_hashed_body(text: bytes, body: bytes, key: bytes) -> None:
    expected = hmac.new(key, text + hashlib.sha256(body).digest(), "sha256").hexdigest()

    assert seal(text, body, key) == f"v1={expected}"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("task", "photos.metadata"),
        ("id", "0192f0c1-2345-7107-9273-49d96e879bac"),
        ("tp-tenant", "other"),
        ("tp-series", 1),
        ("tp-suspect", True),
        ("tp-pool", "video"),
        ("tp-priority", "high"),
        ("timelimit", [900, None]),
        ("retries", 7),
        ("eta", "2030-01-01T00:00:00+00:00"),
    ],
)
def test_a_changed_header_is_a_forgery(header: str, value: object) -> None:
    headers, body = received(an_envelope())

    assert refusal({**headers, header: value}, body) is Reason.FORGED


def test_a_changed_body_is_a_forgery() -> None:
    headers, body = received(an_envelope())

    assert refusal(headers, body.replace(b"160", b"999")) is Reason.FORGED


def test_any_of_the_keys_admits_and_no_other() -> None:
    headers, body = received(an_envelope())

    assert admitted(headers, body, b"n" * 32, KEY) == an_envelope()
    assert refusal(headers, body, b"n" * 32) is Reason.FORGED


def test_a_message_without_a_signature_needs_leave() -> None:
    headers, body = received(an_envelope())
    del headers[SIGNATURE_HEADER]

    assert refusal(headers, body) is Reason.UNSIGNED
    assert admitted(headers, body, allow_unsigned=True) == an_envelope()


@pytest.mark.parametrize(
    ("headers", "body", "properties", "reason"),
    [
        ({}, b"{", {}, Reason.UNDECODABLE),
        ({}, b"\xff\xfe", {}, Reason.UNDECODABLE),
        ({}, b"[" * 5000, {}, Reason.UNDECODABLE),
        ({}, b"[]", {"content_type": "application/x-python-serialize"}, Reason.UNDECODABLE),
        ({}, b"[]", {"content_type": None}, Reason.UNDECODABLE),
        ({}, b"[]", {"content_encoding": "binary"}, Reason.UNDECODABLE),
        ({}, b"{}", {}, Reason.MALFORMED),
        ({}, b"[1, 2]", {}, Reason.MALFORMED),
        ({"compression": "application/x-bz2"}, b"[]", {}, Reason.MALFORMED),
        ({"id": None}, None, {}, Reason.MALFORMED),
        ({"id": "not-a-uuid"}, None, {}, Reason.MALFORMED),
        ({"task": None}, None, {}, Reason.MALFORMED),
        ({"task": "x" * 300}, None, {}, Reason.MALFORMED),
        ({"timelimit": "soon"}, None, {}, Reason.MALFORMED),
        ({"tp-series": "first"}, None, {}, Reason.MALFORMED),
        ({"tp-priority": "utmost"}, None, {}, Reason.MALFORMED),
        ({"eta": 17}, None, {}, Reason.MALFORMED),
    ],
)
def test_what_is_no_message_of_ours_is_refused_with_its_reason(
    headers: dict[str, Any], body: bytes | None, properties: dict[str, Any], reason: Reason
) -> None:
    good_headers, good_body = received(an_envelope())
    del good_headers[SIGNATURE_HEADER]

    found = refusal({**good_headers, **headers}, good_body if body is None else body, allow_unsigned=True, **properties)

    assert found is reason


@given(
    st.binary(max_size=200), st.dictionaries(st.text(max_size=20), st.integers() | st.text() | st.none(), max_size=5)
)
def test_no_message_raises_anything_else(body: bytes, headers: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        admitted(headers, body, allow_unsigned=True)


def test_a_body_that_is_no_triple_is_invalid() -> None:
    with pytest.raises(InvalidInput):
        decode_body("[[], {}]")


@pytest.mark.parametrize(
    "header",
    [None, "", "00-0-0-0", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 55, 7, [TRACE], {"a": 1}, "\ud800"],
)
def test_a_traceparent_that_is_none_is_left_out(header: object) -> None:
    headers, body = received(an_envelope())

    assert trace_of(header) is None
    assert admitted({**headers, "traceparent": header}, body) == an_envelope()


def test_a_message_of_a_first_version_is_what_it_was_before_there_were_versions() -> None:
    headers, body = received(an_envelope())

    assert "tp-version" not in headers
    values = [headers.get(name) for name in _SIGNED_BEFORE_VERSIONS]
    text = b"1" + msgspec.json.encode(values) + hashlib.sha256(body).digest()
    assert headers[SIGNATURE_HEADER] == "v1=" + hmac.new(KEY, text, hashlib.sha256).hexdigest()
    assert admitted(headers, body).task_version == 1


@pytest.mark.parametrize("change", [{"tp-version": None}, {"tp-version": 1}, {"tp-version": 3}])
def test_nobody_gives_a_message_another_version(change: dict[str, Any]) -> None:
    headers, body = received(an_envelope(task_version=2))
    changed = {name: value for name, value in {**headers, **change}.items() if value is not None}

    assert refusal(changed, body) is Reason.FORGED


def test_nobody_adds_a_version() -> None:
    headers, body = received(an_envelope())

    assert refusal({**headers, "tp-version": 2}, body) is Reason.FORGED


@pytest.mark.parametrize("version", [0, -1, "2", 2.5, 2**31, [2]])
def test_a_version_that_is_no_number_is_malformed(version: object) -> None:
    headers, body = received(an_envelope())
    del headers[SIGNATURE_HEADER]

    assert refusal({**headers, "tp-version": version}, body, allow_unsigned=True) is Reason.MALFORMED


_SIGNED_BEFORE_VERSIONS = (
    *("task", "id", "timelimit", "retries", "eta", "expires", "group"),
    *("tp-tenant", "tp-pool", "tp-priority", "tp-series", "tp-suspect"),
)
