"""The table pack: figures that can be checked by hand, and clear refusals."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from examples.tables import correlation, described, group_by, grouped, summary
from taskplatform import Fail

TOLERANCE = 1e-12


@pytest.fixture
def harvest(tmp_path: Path) -> str:
    path = tmp_path / "harvest.csv"
    path.write_text("field,weight,price,note\nnorth,1,8,a\nsouth,2,6,b\nnorth,3,4,c\nsouth,,2,d\nsouth,6,,e\n")
    return str(path)


def test_a_description_has_the_figures_of_a_list_checked_by_hand() -> None:
    assert described([1.0, 2.0, 3.0, 4.0, 5.0]) == {
        "count": 5,
        "mean": 3.0,
        "deviation": pytest.approx(2.5**0.5),
        "min": 1.0,
        "q1": 2.0,
        "median": 3.0,
        "q3": 4.0,
        "max": 5.0,
    }


def test_a_single_value_is_all_its_own_quartiles_and_has_no_deviation() -> None:
    lone = described([7.0])

    assert (lone["q1"], lone["median"], lone["q3"], lone["deviation"]) == (7.0, 7.0, 7.0, None)


def test_a_description_of_nothing_says_so() -> None:
    nothing = described([])

    assert nothing["count"] == 0
    assert nothing["mean"] is None


def test_groups_keep_their_values_and_come_in_order() -> None:
    assert list(grouped([("b", 1.0), ("a", 2.0), ("b", 3.0)]).items()) == [("a", [2.0]), ("b", [1.0, 3.0])]


def test_a_summary_counts_empty_cells_as_missing(harvest: str) -> None:
    figures = summary(harvest, "weight")

    assert (figures["count"], figures["missing"], figures["mean"]) == (4, 1, 3.0)


def test_a_group_by_writes_one_line_a_group(harvest: str, tmp_path: Path) -> None:
    made = group_by(harvest, "field", "weight", str(tmp_path / "out"))

    with Path(str(made["file"])).open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["field", "count", "mean", "total"],
            ["north", "2", "2.0", "4.0"],
            ["south", "2", "4.0", "8.0"],
        ]
    assert made["groups"] == 2


def test_columns_that_move_against_each_other_have_minus_one(harvest: str) -> None:
    figures = correlation(harvest, "weight", "price")

    assert figures["rows"] == 3
    assert figures["r"] == pytest.approx(-1.0, abs=TOLERANCE)


def test_a_column_that_never_changes_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "flat.csv"
    path.write_text("a,b\n1,1\n1,2\n")

    with pytest.raises(Fail, match="cannot be compared"):
        correlation(str(path), "a", "b")


@pytest.mark.parametrize("cell", ["e", "nan", "1e999"])
def test_a_column_of_something_else_than_numbers_is_hopeless(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "text.csv"
    path.write_text(f"note\n{cell}\n")

    with pytest.raises(Fail, match="column 'note' holds"):
        summary(str(path), "note")


def test_an_unknown_column_is_answered_with_the_known_ones(harvest: str) -> None:
    with pytest.raises(Fail, match="no column 'colour'; there are field, weight, price, note"):
        summary(harvest, "colour")


def test_the_weather_of_seattle_has_every_day_of_four_years() -> None:
    figures = summary("seattle-weather.csv", "temp_max")

    assert (figures["count"], figures["missing"]) == (3 * 365 + 366, 0)
