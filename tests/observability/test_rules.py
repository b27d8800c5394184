"""The configuration of Prometheus and Alertmanager: valid, and about metrics and pages that exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from taskplatform.metrics import METRICS
from tests.observability.prometheus import CONFIG, hastened, program

ROOT = CONFIG.parent
ALERTS = (CONFIG / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8")
RECORDED = (CONFIG / "prometheus" / "rules" / "recording.yml").read_text(encoding="utf-8")
NAMES = re.findall(r"- alert: (\w+)", ALERTS)


@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "config", "config/prometheus/prometheus.yml"),
        ("promtool", "check", "config", "compose/observability/prometheus.yml"),
        ("promtool", "check", "rules", "config/prometheus/rules/recording.yml", "config/prometheus/rules/alerts.yml"),
        ("amtool", "check-config", "config/alertmanager/alertmanager.yml"),
    ],
    ids=lambda command: " ".join(command[:4]),
)
def test_the_configuration_is_valid(command: tuple[str, ...]) -> None:
    checked = subprocess.run(
        [program(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_page_that_shows_what_it_asks_for() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    expressions = dict(re.findall(r"- alert: (\w+)\n +expr: (?:>-\n +)?(.+)", ALERTS))

    assert set(pages) - {"README"} == set(NAMES)
    assert re.findall(r"runbook: docs/runbooks/(\w+)\.md", ALERTS) == NAMES
    assert [name for name, first_line in expressions.items() if first_line not in pages[name]] == []
    assert [name for name in NAMES if f"({name}.md)" not in pages["README"]] == []


def test_every_alert_says_how_urgent_it_is() -> None:
    assert len(re.findall(r"severity: (?:page|ticket) ", ALERTS)) == len(NAMES)


def test_no_rule_asks_for_a_metric_that_nobody_shows() -> None:
    used = set(re.findall(r"\btp_\w+", ALERTS + RECORDED)) - {"tp_objective"}
    recorded = set(re.findall(r"record: (\S+)", RECORDED))

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used if f":{name}" not in str(recorded)} <= set(
        METRICS
    )
    assert set(re.findall(r"\btp_objective:\w+:\w+", ALERTS)) <= recorded


def test_alertmanager_knows_every_alert_that_it_silences() -> None:
    written = (CONFIG / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")

    named = {name for names in re.findall(r'alertname=~?"([^"]+)"', written) for name in names.split("|")}

    assert named <= set(NAMES)


def test_hastened_rules_are_sixty_times_as_fast_within_what_can_be_measured() -> None:
    assert hastened("rate(a[30m]) > 1 b[5m] c[3d]\n  for: 2m\n") == "rate(a[30s]) > 1 b[6s] c[60s]\n  for: 2s\n"
