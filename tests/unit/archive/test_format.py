"""Objects, manifests and what a search may rule out, as a matter of values."""

import gzip
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_fields

from taskplatform.archive.format import (
    REST,
    Damaged,
    Manifest,
    Packer,
    Wanted,
    kind_of,
    manifest_name,
    plain,
    read_manifest,
    read_object,
    read_record,
    write_manifest,
)
from taskplatform.ids import Locator, new_job_id

DAY = datetime(2026, 11, 1, tzinfo=UTC)
PART = "20261101"

_jobs = st.builds(
    lambda at, gap, tenant, task, state: (
        new_job_id(Locator(region=0, shard=1), milliseconds=round((DAY + timedelta(seconds=at)).timestamp() * 1000)),
        DAY + timedelta(seconds=at) + gap,
        tenant,
        task,
        state,
    ),
    st.integers(0, 86_399),
    # The clocks of whoever makes ids and of the database differ, and a message may wait in the broker for its row.
    st.timedeltas(timedelta(seconds=-3600), timedelta(days=3)),
    st.sampled_from(["acme", "globex", "Malmö\n"]),
    st.sampled_from(["shop.ship", "mail.send"]),
    st.sampled_from(["succeeded", "dead", "cancelled"]),
)
Job = tuple[UUID, datetime, str, str, str]


def line(job: Job) -> str:
    job_id, created, tenant, task, state = job
    return json.dumps(
        {
            "job": {
                "id": str(job_id),
                "series": 0,
                "tenant": tenant,
                "task": task,
                "pool": "default",
                "state": state,
                "attempt": 1,
                "created_at": created.isoformat(),
                "ended_at": (created + timedelta(seconds=5)).isoformat(),
                "body": "[[1], {}, {}]",
                "result": '{"a":\n1}',
            },
            "attempts": [{"number": 1, "error": None}],
        },
        indent=1,
    )


def packed(jobs: list[Job], sequence: int = 0) -> tuple[bytes, Manifest]:
    packer = Packer()
    packer.add([line(job) for job in jobs])
    return packer.finish(0, PART, sequence)


@given(st.lists(_jobs, min_size=1, max_size=20))
def test_what_is_packed_comes_out_again(jobs: list[Job]) -> None:
    content, manifest = packed(jobs)

    assert [read_record(found).job.id for found in read_object(manifest, content)] == [job[0] for job in jobs]
    assert (manifest.jobs, manifest.attempts) == (len(jobs), len(jobs))
    assert read_manifest(manifest_name(manifest), write_manifest(manifest)) == manifest


@given(st.lists(_jobs, min_size=1, max_size=5))
def test_the_same_jobs_are_the_same_object(jobs: list[Job]) -> None:
    assert packed(jobs) == packed(jobs)


_times = st.none() | st.integers(-90_000, 400_000).map(lambda seconds: DAY + timedelta(seconds=seconds))
_wanted = st.builds(
    Wanted,
    tenant=st.none() | st.sampled_from(["acme", "nobody"]),
    task=st.none() | st.sampled_from(["shop.ship", "none"]),
    state=st.none() | st.sampled_from(["dead", "expired"]),
    since=_times,
    until=_times,
)


@given(st.lists(_jobs, min_size=1, max_size=20), _wanted, st.booleans())
def test_a_search_never_rules_out_an_object_with_what_it_wants(jobs: list[Job], wanted: Wanted, by_id: bool) -> None:
    if by_id:
        wanted = replace(wanted, id=jobs[len(jobs) // 2][0])
    content, manifest = packed(jobs)

    if any(wanted.is_met_by(read_record(found).job) for found in read_object(manifest, content)):
        assert wanted.may_be_in_part(PART)
        assert wanted.may_be_in_part(REST)
        assert wanted.may_be_in(manifest)


def test_a_search_for_one_job_rules_out_all_other_days_and_ids() -> None:
    early, late = (
        new_job_id(Locator(region=0, shard=1), milliseconds=round(DAY.timestamp() * 1000) + n) for n in (1, 9)
    )
    _, manifest = packed([(early, DAY, "acme", "shop.ship", "succeeded")])

    assert Wanted(id=early).may_be_in(manifest)
    assert not Wanted(id=late).may_be_in(manifest)
    assert Wanted(id=late).may_be_in_part(PART)
    assert not Wanted(id=late).may_be_in_part("20261102")
    assert not Wanted(id=UUID(int=5, version=4)).may_be_in_part(PART)


def test_too_many_tenants_are_not_listed_and_rule_nothing_out() -> None:
    job_id = new_job_id(Locator(region=0, shard=1))
    _, manifest = packed([(job_id, DAY, f"tenant-{n}", "shop.ship", "dead") for n in range(101)])

    assert manifest.tenants is None
    assert Wanted(tenant="nobody").may_be_in(manifest)


def test_bodies_and_results_are_shown_as_values() -> None:
    content, manifest = packed([(new_job_id(Locator(region=0, shard=1)), DAY, "acme", "shop.ship", "dead")])
    (found,) = read_object(manifest, content)

    job = plain(found)["job"]

    assert (job["body"], job["result"]) == ([[1], {}, {}], {"a": 1})


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"x" + content[1:], lambda _: b""])
def test_a_spoilt_object_is_not_read(spoil: object) -> None:
    content, manifest = packed([(new_job_id(Locator(region=0, shard=1)), DAY, "acme", "shop.ship", "dead")])
    assert callable(spoil)

    with pytest.raises(Damaged):
        list(read_object(manifest, spoil(content)))


def test_a_manifest_under_another_name_is_refused() -> None:
    _, manifest = packed([(new_job_id(Locator(region=0, shard=1)), DAY, "acme", "shop.ship", "dead")])

    with pytest.raises(Damaged, match="it speaks of"):
        read_manifest("cluster-0/20261101/000007-0000000000000000.manifest.json", write_manifest(manifest))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]", b'{"format": "x"}', b"[" * 100_000])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(Damaged, match="not a manifest"):
        read_manifest("x", content)


def a_job() -> Job:
    return new_job_id(Locator(region=0, shard=1)), DAY, "acme", "shop.ship", "dead"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("last_created", "2026-11-01T00:00:00"),
        ("first_created", "0001-01-01T00:00:00+14:00"),
        ("last_ended", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_a_time_that_cannot_be_compared_makes_no_manifest_and_no_record(field: str, value: str) -> None:
    _, manifest = packed([a_job()])
    spoilt = json.loads(write_manifest(manifest)) | {field: value}
    record = json.loads(line(a_job()))
    record["job"][field.partition("_")[2] + "_at"] = value

    with pytest.raises(Damaged, match="not a manifest"):
        read_manifest(manifest_name(manifest), json.dumps(spoilt).encode())
    with pytest.raises(Damaged, match="not a record"):
        read_record(json.dumps(record).encode())


@pytest.mark.parametrize("attempts", ["[" * 100_000, "[[]]", "[1]"])
def test_what_is_no_record_is_refused(attempts: str) -> None:
    record = line(a_job()).replace('"attempts":', f'"attempts": {attempts}, "more":')

    with pytest.raises(Damaged, match="not a record"):
        read_record(record.encode())


@pytest.mark.parametrize(("depth", "shown"), [(500, list), (100_000, str)])
def test_a_value_that_is_nested_too_deeply_is_shown_as_its_text(depth: int, shown: type[object]) -> None:
    record = json.loads(line(a_job()))
    record["job"]["body"] = "[" * depth + "]" * depth

    assert isinstance(plain(json.dumps(record).encode())["job"]["body"], shown)


def test_a_record_that_is_nested_too_deeply_is_damaged() -> None:
    depth = 100_000
    record = line(a_job()).replace('"id":', f'"tags": {"[" * depth + "]" * depth}, "id":')

    with pytest.raises(Damaged):
        plain(record.encode())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"x" * 5000, "more than 4096 bytes come out of it"),
        (b"\n" * 5000, "and it has more"),
        (b"", "and it has 0"),
    ],
)
def test_an_object_that_unpacks_to_something_else_than_its_manifest_says_is_damaged(
    monkeypatch: pytest.MonkeyPatch, content: bytes, complaint: str
) -> None:
    monkeypatch.setattr("taskplatform.archive.format.MOST_LINES_BYTES", 4096)
    _, manifest = packed([a_job(), a_job()])
    bomb = gzip.compress(content)
    manifest = replace_fields(manifest, bytes=len(bomb), sha256=hashlib.sha256(bomb).hexdigest())

    with pytest.raises(Damaged, match=complaint):
        list(read_object(manifest, bomb))


@pytest.mark.parametrize("part", ["00010101", "99991231"])
@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), DAY, datetime.max.replace(tzinfo=UTC)])
def test_no_day_is_too_early_or_too_late_to_be_compared(part: str, at: datetime) -> None:
    assert Wanted(since=at).may_be_in_part(part)
    assert Wanted(until=at).may_be_in_part(part) is (part == "00010101" or at.year == 9999)


@pytest.mark.parametrize("name", ["a", "cluster-0/20261101/x", "cluster-0/2026/000000-0123456789abcdef.ndjson.gz"])
def test_foreign_names_are_known_as_such(name: str) -> None:
    assert kind_of(name) is None
