"""Bodies come back as they were written, by the platform and by Celery."""

from datetime import UTC, datetime

from kombu.utils.json import dumps

from taskplatform.payload import encode_body
from workers.bodies import read_body

NO_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def test_plain_json_comes_back() -> None:
    assert list(read_body(encode_body([1, "two"], {"three": [None]}))) == [[1, "two"], {"three": [None]}, {}]


def test_what_celery_marks_is_restored() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)

    args, kwargs, _ = read_body(dumps(([moment], {"at": moment}, NO_EMBED)))

    assert (args, kwargs) == ([moment], {"at": moment})


def test_the_word_of_the_mark_alone_changes_nothing() -> None:
    assert list(read_body(encode_body(["__type__"], {"__type__": 1}))) == [["__type__"], {"__type__": 1}, {}]
