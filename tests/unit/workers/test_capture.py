"""What becomes of return values."""

from dataclasses import dataclass

import pytest

from taskplatform.job import Trouble
from workers.capture import caught_result


@dataclass
class Reading:
    value: float | None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), ({"a": [1, None, 2.5]}, '{"a":[1,null,2.5]}'), (Reading(value=None), '{"value":null}')],
)
def test_a_result_is_kept_as_json(value: object, text: str) -> None:
    assert caught_result(value, 1000).result == text


@pytest.mark.parametrize(
    "value", [float("nan"), [1.0, float("inf")], {"a": {"b": float("-inf")}}, (Reading(value=float("nan")),)]
)
def test_a_number_that_json_has_no_form_for_is_a_bad_result(value: object) -> None:
    caught = caught_result(value, 1000)

    assert (caught.result, caught.trouble) == (None, Trouble.BAD_RESULT)


def test_a_result_above_the_limit_is_a_bad_result() -> None:
    caught = caught_result("x" * 1000, 1000)

    assert caught.trouble is Trouble.BAD_RESULT
    assert caught.message.startswith("result_too_large")
