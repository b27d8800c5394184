"""Rounds are summed up without flattering anybody."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import CHARTS, Chart, draw
from benchmarks.figures import MEASURES, Sample, ratio, ratios_of, spreads_of, values_of
from benchmarks.measure import Scale
from benchmarks.outcome import Machine, Outcome, Record, outcome_of
from benchmarks.report import page
from benchmarks.roster import ENTRIES, PLATFORM, STOCK


@pytest.fixture
def samples() -> list[Sample]:
    return [
        Sample(
            side=side,
            round=number,
            foreign_cpu_percent=3.0,
            figures={measure.key: base * number for measure in MEASURES if measure.key != "submit_bulk_per_s"},
        )
        for side, base in (("platform", 10.0), ("celery_postgres", 1.0))
        for number in (1, 2, 3)
    ]


@pytest.fixture
def outcome(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    machine = Machine(processors=2, model="a model", system="Linux", python="3.11", servers=["Postgres", "RabbitMQ"])
    monkeypatch.setattr("benchmarks.outcome.machine", lambda: machine)
    return outcome_of((PLATFORM, STOCK), Scale(), samples, {}, [])


def test_a_spread_is_the_median_between_the_least_and_the_most(samples: list[Sample]) -> None:
    spread = spreads_of(values_of(samples))["platform"]["noop_per_s"]

    assert (spread.median, spread.low, spread.high) == (20.0, 10.0, 30.0)


def test_the_interval_of_a_ratio_holds_the_ratio() -> None:
    found = ratio([90.0, 100.0, 110.0, 95.0, 105.0], [9.0, 10.0, 11.0, 9.5, 10.5])

    assert found.low < found.ratio == 10.0 < found.high


def test_one_round_gives_a_ratio_without_a_spread() -> None:
    found = ratio([8.0], [4.0])

    assert (found.low, found.ratio, found.high) == (2.0, 2.0, 2.0)


def test_only_what_both_sides_have_is_divided(samples: list[Sample]) -> None:
    ratios = ratios_of(values_of(samples), "platform")

    assert set(ratios) == {"celery_postgres"}
    assert "submit_bulk_per_s" not in ratios["celery_postgres"]


def test_the_keys_of_all_sides_differ() -> None:
    keys = [entry.key for entry in ENTRIES]

    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_a_chart_has_bars_for_every_side(outcome: Outcome, chart: Chart) -> None:
    picture = ET.fromstring(draw(chart, outcome))

    bars = picture.findall("{http://www.w3.org/2000/svg}rect")

    assert len(bars) == 2 * len(chart.keys)


def test_every_row_of_the_page_is_as_wide_as_its_table(outcome: Outcome) -> None:
    record = Record(comparison=outcome).judged()

    tables = [part.splitlines() for part in page(record, "latest").split("\n\n") if part.startswith("| ")]

    assert len(tables) == 4
    assert all(len({line.count(" | ") for line in lines}) == 1 for lines in tables)
