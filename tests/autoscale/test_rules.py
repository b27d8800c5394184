"""The limits and schedules of pools."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskplatform.autoscale.rules import Plan, plans_of
from taskplatform.errors import SettingsError
from taskplatform.settings import load

_FILE = """
[pools.gpu]
max_workers = 2
target_seconds = 120
budget_worker_hours = 300.5
least_life_seconds = 5

[[pools.gpu.floors]]
workers = 2
days = "mon-fri"
start = "08:00"
end = "18:00"
zone = "Europe/Zurich"

[[pools.gpu.floors]]
workers = 1
days = "sat"
start = "22:00"
end = "02:00"
"""


def plans(folder: Path, text: str) -> dict[str, Plan]:
    path = folder / "scale.toml"
    path.write_text(text)
    return plans_of(load({}, pools=("default", "gpu"), autoscale_max_workers=7, autoscale_file=path))


def test_what_a_pool_says_of_itself_goes_before_what_holds_for_all(tmp_path: Path) -> None:
    found = plans(tmp_path, _FILE)

    assert (found["default"].rules.max_workers, found["gpu"].rules.max_workers) == (7, 2)
    assert found["gpu"].rules.target_seconds == 120.0
    assert found["gpu"].rules.budget_worker_hours == 300.5
    assert found["gpu"].least_life_seconds == 5.0


@pytest.mark.parametrize(
    ("moment", "workers"),
    [
        ("2026-11-23T07:30:00Z", 2),  # a Monday, half past eight in Zurich
        ("2026-11-23T06:30:00Z", 0),
        ("2026-11-23T17:00:00Z", 0),
        ("2026-11-28T22:00:00Z", 1),  # a Saturday
        ("2026-11-29T01:59:00Z", 1),
        ("2026-11-29T02:00:00Z", 0),
    ],
)
def test_a_schedule_asks_for_workers_by_the_clock_of_its_zone(tmp_path: Path, moment: str, workers: int) -> None:
    plan = plans(tmp_path, _FILE)["gpu"]

    assert plan.floor_at(datetime.fromisoformat(moment).astimezone(UTC).timestamp()) == workers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pools.gpu]\nmaximum = 2", "maximum"),
        ("[pools.cpu]\nmax_workers = 2", "cpu"),
        ("[pool.gpu]\nmax_workers = 2", "pool"),
        ("[pools.gpu]\nmax_workers = 'two'", "max_workers"),
        ("[pools.gpu]\nmax_workers = 0", "max_workers"),
        ("[pools.gpu]\nutilisation = 1.5", "utilisation"),
        ("[[pools.gpu.floors]]\nworkers = 1\ndays = 'mo'", "mo"),
        ("[[pools.gpu.floors]]\nworkers = 1\nzone = 'Mars/Olympus'", "Mars"),
        ("[[pools.gpu.floors]]\nworkers = 1\nstart = '25:00'", "hour"),
        ("[[pools.gpu.floors]]\nworkers = 1\nstart = '08:00+02:00'", "offset"),
        ("[[pools.gpu.floors]]\nworkers = -2", "workers"),
        ("[[pools.gpu.floors]]\nworker = 1", "worker"),
        ("[pools.gpu]\nmax_workers = 100000000000", "max_workers"),
        ("[pools.gpu]\ntarget_seconds = nan", "target_seconds"),
        ("[pools.gpu]\ntarget_seconds = 1e-320", "target_seconds"),
        ("[pools.gpu]\nstabilisation_seconds = nan", "time"),
        ("[pools.gpu]\nleast_life_seconds = -1.0", "time"),
        ("[pools.gpu]\nbudget_worker_hours = nan", "budget_worker_hours"),
        ("[pools.gpu]\nbudget_workers = -3", "budget_workers"),
        ("[pools", "TOML"),
        ("[pools.gpu]\ngrace_seconds = 26", "worker_drain_seconds"),
        ("pools = 3", "pools"),
        ("[pools]\ngpu = 3", "tables"),
        ("[pools.gpu]\nfloors = 3", "floors"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        plans(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        plans_of(load({}, autoscale_file=tmp_path / "nowhere.toml"))
