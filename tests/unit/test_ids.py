"""Job ids carry their home and their time."""

import subprocess
import sys
import time
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.ids import Locator, locate, lowest_id_at, milliseconds_of, new_job_id, read_job_id, shard_of_key

locators = st.builds(Locator, region=st.integers(0, 15), shard=st.integers(0, 255))
times = st.integers(0, 2**48 - 1)


@given(locators, times)
def test_an_id_gives_back_its_locator_and_its_time(locator: Locator, milliseconds: int) -> None:
    job_id = new_job_id(locator, milliseconds=milliseconds)

    assert (locate(job_id), milliseconds_of(job_id)) == (locator, milliseconds)


@given(locators)
def test_an_id_is_a_uuid_of_version_7_of_now(locator: Locator) -> None:
    before = time.time_ns() // 1_000_000

    job_id = new_job_id(locator)

    assert job_id.version == 7
    assert job_id.variant == "specified in RFC 4122"
    assert milliseconds_of(job_id) >= before


@given(locators, st.integers(0, 2**48 - 2))
def test_later_ids_are_greater(locator: Locator, milliseconds: int) -> None:
    earlier = new_job_id(locator, milliseconds=milliseconds)

    assert earlier < lowest_id_at(milliseconds + 1) <= new_job_id(locator, milliseconds=milliseconds + 1)


def test_two_ids_of_one_millisecond_differ() -> None:
    here = Locator(region=1, shard=2)

    assert len({new_job_id(here, milliseconds=5) for _ in range(1000)}) == 1000


# A program of its own: it forks, which a process that has threads, as that of the tests has, had better not.
REPEATS_ITS_CHANCES = """
import os, random
from taskplatform.ids import Locator, new_job_id

def make():
    print(new_job_id(Locator(region=1, shard=2), milliseconds=5), flush=True)

for _ in range(2):
    random.seed(4711)
    make()
    child = os.fork()
    if child == 0:
        make()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_ids_differ_where_a_program_repeats_its_chances_and_after_a_fork() -> None:
    program = subprocess.run(
        [sys.executable, "-c", REPEATS_ITS_CHANCES], capture_output=True, check=True, text=True, timeout=60
    )

    made = program.stdout.split()
    assert (len(made), len(set(made))) == (4, 4)


def test_a_foreign_id_has_a_shard_that_never_changes() -> None:
    foreign = UUID("9b2f3a1e-6a57-4c1b-9a39-3d1f4f1f2b11")

    assert locate(foreign) == locate(UUID(str(foreign)))
    assert len({locate(uuid4()).shard for _ in range(2000)}) > 200


def test_the_shard_of_a_key_depends_on_its_tenant() -> None:
    shards = {shard_of_key(tenant, "key") for tenant in map(str, range(100))}

    assert len(shards) > 50
    assert shard_of_key("a", "b") == shard_of_key("a", "b")


@given(st.text(), st.text(), st.integers(0, 10**9))
def test_the_jobs_of_a_batch_share_a_shard_however_they_are_handed_in(tenant: str, key: str, number: int) -> None:
    assert shard_of_key(tenant, f"{key}#{number}") == shard_of_key(tenant, f"{key}#1")


def test_what_only_looks_like_the_key_of_a_batch_has_a_shard_of_its_own() -> None:
    for form in ("order#{}x", "order-{}", "{}", "order#{}²"):
        assert len({shard_of_key("t", form.format(number)) for number in range(100)}) > 50


@given(st.uuids())
def test_an_id_that_was_read_is_the_uuid_and_its_text(job_id: UUID) -> None:
    read = read_job_id(str(job_id))

    assert (read, hash(read), str(read)) == (job_id, hash(job_id), str(job_id))


@given(locators)
def test_a_new_id_is_written_as_any_uuid(locator: Locator) -> None:
    job_id = new_job_id(locator)

    assert [str(job_id), str(job_id)] == [str(UUID(int=job_id.int))] * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 32,
        "0x000000-0000-0000-0000-000000000000",
        str(UUID(int=11 << 120)).upper(),
        f"{UUID(int=11 << 120)}\n",
    ],
)
def test_what_is_no_canonical_text_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        read_job_id(text)
