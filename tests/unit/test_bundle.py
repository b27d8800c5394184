"""Bundles give back the jobs they were made of, and nobody else makes one."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from taskplatform.bundle import (
    JOBS_HEADER,
    MOST_BYTES,
    encode_bundle,
    gather,
    is_bundle,
    open_bundle,
)
from taskplatform.job import Envelope, Priority, Reason
from taskplatform.payload import SIGNATURE_HEADER, Unfit, admit, encode, encode_body, seal
from taskplatform.task import MOST_BUNDLE_JOBS
from tests.unit.test_payload import KEY, PROPERTIES, TRACE, an_envelope, json_values

bodies = st.builds(encode_body, st.lists(json_values, max_size=3), st.dictionaries(st.text(), json_values, max_size=2))
kinds = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["t", "photos.thumbnail"]),
        "tenant": st.sampled_from(["acme", "globex é"]),
        "pool": st.sampled_from(["default", "video"]),
        "priority": st.sampled_from(Priority),
        "series": st.integers(0, 2),
        "task_version": st.integers(1, 2),
        "hard_limit_seconds": st.none() | st.just(9.5),
    }
)
own = st.fixed_dictionaries({"id": st.uuids(), "body": bodies, "trace": st.sampled_from([None, TRACE])})


def of_one_kind(count: int = 3, **chosen: Any) -> list[Envelope]:
    return [an_envelope(id=UUID(int=no), body=encode_body([no], {}), **chosen) for no in range(1, count + 1)]


def received(jobs: Sequence[Envelope]) -> tuple[dict[str, Any], bytes]:
    message = encode_bundle(jobs, KEY)
    return dict(message.headers), message.body


def signed_anew(headers: dict[str, Any], body: bytes, jobs: Sequence[Envelope], count: object) -> dict[str, Any]:
    """Sign what is wrong, as whoever holds the key could."""
    ordinary = msgspec.json.encode([headers.get(name) for name in _SIGNED])
    return {**headers, JOBS_HEADER: count, SIGNATURE_HEADER: seal(f"2{count}".encode() + ordinary, body, KEY)}


def refusal(headers: dict[str, Any], body: bytes, *keys: bytes) -> Reason:
    with pytest.raises(Unfit) as refused:
        open_bundle(headers, body, PROPERTIES, keys or [KEY])
    return refused.value.reason


@given(kinds, st.lists(own, min_size=2, max_size=MOST_BUNDLE_JOBS))
def test_a_bundle_gives_back_its_jobs_in_their_order(kind: dict[str, Any], owns: list[dict[str, Any]]) -> None:
    jobs = [an_envelope(**kind, **one) for one in owns]

    headers, body = received(jobs)

    assert is_bundle(headers)
    assert open_bundle(headers, body, PROPERTIES, [b"n" * 32, KEY]) == jobs


def test_a_bundle_is_a_message_of_its_first_job() -> None:
    first, second = of_one_kind(2, pool="video", priority=Priority.LOW)
    single = encode(first, KEY)

    bundle = encode_bundle([first, second], KEY)

    assert (bundle.id, bundle.routing_key, bundle.stamp) == (single.id, single.routing_key, single.stamp)
    del (single_headers := dict(single.headers))[SIGNATURE_HEADER]
    assert bundle.headers.items() >= {**single_headers, JOBS_HEADER: 2}.items()
    assert not is_bundle(single.headers)


def test_who_knows_no_bundles_takes_one_for_a_forgery() -> None:
    headers, body = received(of_one_kind(3))

    for allow_unsigned in (False, True):
        with pytest.raises(Unfit) as refused:
            admit(headers, body, PROPERTIES, [KEY], allow_unsigned=allow_unsigned)
        assert refused.value.reason is Reason.FORGED


def test_an_ordinary_message_is_no_bundle_whatever_it_calls_itself() -> None:
    message = encode(an_envelope(), KEY)

    assert refusal({**message.headers, JOBS_HEADER: 2}, message.body) is Reason.FORGED


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("task", "photos.metadata"),
        ("id", str(UUID(int=2))),
        ("tp-tenant", "other"),
        ("tp-series", 1),
        ("tp-suspect", True),
        ("tp-pool", "video"),
        ("tp-priority", "high"),
        ("tp-version", 2),
        ("timelimit", [900, None]),
        ("eta", "2030-01-01T00:00:00+00:00"),
        (JOBS_HEADER, 2),
    ],
)
def test_a_changed_header_is_a_forgery(header: str, value: object) -> None:
    headers, body = received(of_one_kind(3))

    assert refusal({**headers, header: value}, body) is Reason.FORGED


@given(st.data())
def test_a_changed_byte_is_a_forgery(data: st.DataObject) -> None:
    headers, body = received(of_one_kind(3))
    at = data.draw(st.integers(0, len(body) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda other: other != body[at]))

    assert refusal(headers, body[:at] + bytes([byte]) + body[at + 1 :]) is Reason.FORGED


def test_another_key_and_no_signature_admit_none() -> None:
    headers, body = received(of_one_kind(2))

    assert refusal(headers, body, b"n" * 32) is Reason.FORGED
    assert refusal({name: headers[name] for name in headers if name != SIGNATURE_HEADER}, body) is Reason.UNSIGNED


@pytest.mark.parametrize("properties", [{}, {"content_type": "application/x-python-serialize"}])
def test_a_bundle_says_that_it_is_json(properties: dict[str, Any]) -> None:
    with pytest.raises(Unfit) as refused:
        open_bundle(*received(of_one_kind(2)), properties, [KEY])
    assert refused.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("count", [None, "2", True, 2.0, 0, 1, MOST_BUNDLE_JOBS + 1])
def test_a_count_that_no_bundle_has_is_malformed(count: object) -> None:
    headers, body = received(of_one_kind(2))

    assert refusal({**headers, JOBS_HEADER: count}, body) is Reason.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        lambda body: b"{",
        lambda body: b"[" * 5000,
        lambda body: b"[]",
        lambda body: body.replace(b'["0', b'["x', 1),
        lambda body: body.replace(b"[[2],{},{}]", b"[[2],{}]"),
        lambda body: body.replace(b"[[2],{},{}]", b'[["\xff"],{},{}]'),
        lambda body: body.replace(b"[[1],{},{}]", b"7"),
        lambda body: b"[" + b",".join(reversed(body[1:-1].split(b',["'))) + b"]",
    ],
)
def test_a_signed_bundle_that_makes_no_sense_is_malformed(change: Any) -> None:
    jobs = of_one_kind(2)
    headers, body = received(jobs)
    changed = change(body)

    assert changed != body
    assert refusal(signed_anew(headers, changed, jobs, 2), changed) is Reason.MALFORMED


def test_a_signed_bundle_holds_as_many_jobs_as_it_says_and_begins_with_its_own() -> None:
    jobs = of_one_kind(3)
    headers, body = received(jobs)

    assert refusal(signed_anew(headers, body, jobs, 2), body) is Reason.MALFORMED
    moved = {**headers, "id": str(jobs[1].id)}
    assert refusal(signed_anew(moved, body, jobs, 3), body) is Reason.MALFORMED
    assert open_bundle(signed_anew(headers, body, jobs, 3), body, PROPERTIES, [KEY]) == jobs


@given(st.lists(st.tuples(kinds, own), max_size=20), st.integers(0, 5))
def test_all_jobs_are_gathered_once_with_their_like(drawn: list[tuple[dict[str, Any], Any]], most: int) -> None:
    jobs = [an_envelope(**kind, **one) for kind, one in drawn]

    groups = gather(jobs, lambda task: most)

    assert sorted(id(job) for group in groups for job in group) == sorted(map(id, jobs))
    places = [[next(at for at, other in enumerate(jobs) if other is job) for job in group] for group in groups]
    assert all(inside == sorted(inside) for inside in places)
    assert all(len(group) <= max(most, 1) for group in groups)
    for group in groups:
        assert open_bundle(*received(group), PROPERTIES, [KEY]) == group if len(group) > 1 else True


def test_jobs_travel_together_as_far_as_their_task_allows() -> None:
    jobs = of_one_kind(5)

    assert gather(jobs, lambda task: 2) == [jobs[:2], jobs[2:4], jobs[4:]]
    assert [len(group) for group in gather(of_one_kind(MOST_BUNDLE_JOBS + 1), lambda task: 500)] == [
        MOST_BUNDLE_JOBS,
        1,
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"task": "photos.metadata"},
        {"tenant": "other"},
        {"pool": "video"},
        {"priority": Priority.HIGH},
        {"series": 1},
        {"task_version": 2},
        {"soft_limit_seconds": 2.0},
    ],
)
def test_jobs_of_another_kind_travel_apart(other: dict[str, Any]) -> None:
    first, second, third = of_one_kind(3)
    strange = replace(second, **other)

    assert gather([first, strange, third], lambda task: 9) == [[first, third], [strange]]


@pytest.mark.parametrize(
    "alone",
    [{"suspect": True}, {"series": None}, {"due_at": "soon"}, {"expires_at": "soon"}],
)
def test_what_must_go_alone_does(alone: dict[str, Any]) -> None:
    first, second, third = of_one_kind(3)
    strange = [replace(second, **alone), replace(second, **alone)]

    assert gather([first, *strange, third], lambda task: 9) == [[first, third], *([one] for one in strange)]


@given(st.lists(st.integers(0, MOST_BYTES // 2), max_size=12), st.sampled_from(["x", "é", "☃"]))
def test_a_bundle_has_a_bounded_body(lengths: list[int], letter: str) -> None:
    jobs = [
        an_envelope(id=UUID(int=no), body=encode_body([letter * (length // 3)], {}), trace=TRACE)
        for no, length in enumerate(lengths)
    ]

    for group in gather(jobs, lambda task: MOST_BUNDLE_JOBS):
        if len(group) > 1:
            assert len(encode_bundle(group, KEY).body) <= MOST_BYTES


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_bundle_is_as_full_as_its_bound_allows(letter: str) -> None:
    job = an_envelope(body=encode_body([""], {}), trace=TRACE)
    size = len(encode_bundle([job] * MOST_BUNDLE_JOBS, KEY).body) // MOST_BUNDLE_JOBS
    room = ((MOST_BYTES - 2) // MOST_BUNDLE_JOBS - size) // len(letter.encode())
    long, longer = (replace(job, body=encode_body([letter * count], {})) for count in (room, room + 1))

    assert [len(group) for group in gather([long] * MOST_BUNDLE_JOBS, lambda task: MOST_BUNDLE_JOBS)] == [
        MOST_BUNDLE_JOBS
    ]
    assert len(gather([longer] * MOST_BUNDLE_JOBS, lambda task: MOST_BUNDLE_JOBS)) == 2


_SIGNED = (
    *("task", "id", "timelimit", "retries", "eta", "expires", "group"),
    *("tp-tenant", "tp-pool", "tp-priority", "tp-series", "tp-suspect"),
)
