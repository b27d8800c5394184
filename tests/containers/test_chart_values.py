"""Every value of the chart has a meaning and a default, and the README says both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import jsonschema_rs
import pytest
import yaml

from taskplatform.autoscale.policy import Rules
from taskplatform.autoscale.rules import Plan
from taskplatform.settings import MOST_WORKERS
from tests.containers.chart import CHART, VALUES
from tests.containers.tools import ROOT
from tests.containers.values_page import GROUP, README, page, rows

_PATHS = [path for path, default, _ in rows() if default is not GROUP]
_DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def _leaves(values: Any, paths: set[str], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        path = f"{above}{name}"
        if path in paths or not isinstance(value, dict):
            yield path
        else:
            yield from _leaves(value, paths, f"{path}.")


def test_every_default_is_documented_and_every_documented_value_has_a_default() -> None:
    assert set(_leaves(_DEFAULTS, set(_PATHS))) == set(_PATHS)


def test_the_readme_shows_the_table_of_the_schema() -> None:
    assert README.read_text(encoding="utf-8") == page(), "python -m tests.containers.values_page"


def test_no_value_is_useless() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir())

    assert [path for path in _PATHS if f".{path.rpartition('.')[2]}" not in text] == []


@pytest.mark.parametrize("values", VALUES)
def test_the_schema_takes_the_defaults_and_every_set_that_is_checked(values: str) -> None:
    schema = jsonschema_rs.validator_for(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))
    chosen = yaml.safe_load((CHART / "ci" / f"{values}.yaml").read_text(encoding="utf-8"))

    assert [error.message for one in (_DEFAULTS, chosen) for error in schema.iter_errors(one)] == []


def test_a_pool_is_told_whatever_the_autoscaler_understands_but_its_grace() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    understood = {one.name for kind in (Rules, Plan) for one in fields(kind)}

    told = schema["definitions"]["scaling"]["properties"]
    assert set(told) == understood - {"rules", "grace_seconds"}
    assert told["max_workers"]["maximum"] == MOST_WORKERS


def test_the_links_of_the_chart_lead_to_files_of_the_checkout() -> None:
    for link in (CHART / "files").iterdir():
        assert link.is_symlink(), "one source: no copies"
        assert link.resolve(strict=True).is_relative_to(ROOT / "config")


def test_the_chart_has_the_version_of_the_platform() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert f'version = "{chart["version"]}"' in project
    assert chart["version"] == chart["appVersion"]
