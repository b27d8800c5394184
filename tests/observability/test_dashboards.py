"""The dashboards: each is whole, and each of its queries has an answer on a platform that works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from taskplatform.metrics import METRICS
from tests.fixtures.waiting import eventually
from tests.observability.conftest import Watched
from tests.observability.prometheus import CONFIG

DASHBOARDS = sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
VARIABLES = {"$pool": ".*", "$task": ".*", "$__rate_interval": "30s"}


def _panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]


def _queries(path: Path) -> dict[str, str]:
    return {
        f"{panel['title']} {target['refId']}": _filled_in(target["expr"])
        for panel in _panels(path)
        for target in panel["targets"]
    }


def _filled_in(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_has_an_answer(watched: Watched, path: Path) -> None:
    queries = _queries(path)
    unanswered = dict(queries)

    def all_answered() -> bool:
        watched.submit("watched.quick", 20)
        watched.submit("watched.hopeless", 1)
        for title, query in list(unanswered.items()):
            if watched.prometheus.ask(query):
                del unanswered[title]
        return not unanswered

    try:
        eventually(all_answered, within_seconds=90)
    except AssertionError:
        pytest.fail(f"these queries have no answer: {unanswered}")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    written = json.loads(path.read_text(encoding="utf-8"))
    panels = written["panels"]
    places = [
        (x, y)
        for panel in panels
        for at in (panel["gridPos"],)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert written["uid"] == path.stem
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(places)) == len(places), "panels lie on top of each other"
    assert max(x for x, _ in places) < 24
    assert [panel["title"] for panel in _panels(path) if not panel["description"].endswith(".")] == []
    assert {panel["datasource"]["uid"] for panel in _panels(path)} == {"${datasource}"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_nothing_that_nobody_shows(path: Path) -> None:
    used = set(re.findall(r"\btp_\w+", path.read_text(encoding="utf-8")))
    objectives = {name for name in used if name == "tp_objective"}

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used - objectives} <= set(METRICS)
