"""A task's arguments are converted to their annotated types, however they are passed."""

from typing import Any
from uuid import UUID

import pytest

from taskplatform import task
from taskplatform.errors import InvalidInput
from workers.registry import typed

ID = "0192f0c1-2345-7107-9273-49d96e879bab"


@task(name="tests.ship")
def ship(order: UUID, label: Any, copies: int = 1) -> tuple[UUID, Any, int]:
    return order, label, copies


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((ID, "x", 2), {}), ((ID,), {"label": "x", "copies": 2}), ((), {"order": ID, "label": "x", "copies": 2})],
)
def test_arguments_are_converted_by_position_and_by_name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert typed(ship)(*args, **kwargs) == (UUID(ID), "x", 2)


def test_a_default_is_kept() -> None:
    assert typed(ship)(ID, "x") == (UUID(ID), "x", 1)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("none", "x", 2), {}), ((ID, "x", "two"), {}), ((ID, "x", 2, 3), {}), ((), {}), ((ID, "x", 2), {"copies": 3})],
)
def test_arguments_that_do_not_fit_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"tests\.ship"):
        typed(ship)(*args, **kwargs)
