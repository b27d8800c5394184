"""When a rollout goes on and when it goes back."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.rollout import ALERTS, MEASURED, Look, Prometheus, Verdict, judge, main
from taskplatform.servers import free_ports
from tests.containers.tools import ROOT

GOOD = Look(measured=True)
FIRES = Look(firing=frozenset({"RequestsBurnFast"}), measured=True)
PENDING = Look(pending=frozenset({"JobsBurnFast"}), measured=True)
OTHER = Look(pending=frozenset({"WaitsBurnFast"}), measured=True)
UNUSED = Look()


@pytest.mark.parametrize(
    ("looks", "over", "verdict", "reason"),
    [
        ([GOOD], False, Verdict.WATCH, "nothing burns"),
        ([GOOD, GOOD], True, Verdict.GO_ON, "nothing burns"),
        ([GOOD, FIRES], False, Verdict.GO_BACK, "RequestsBurnFast fires"),
        ([GOOD, PENDING], False, Verdict.WATCH, "JobsBurnFast may come"),
        ([PENDING, PENDING], False, Verdict.GO_BACK, "JobsBurnFast is about to fire"),
        ([PENDING, OTHER], False, Verdict.WATCH, "WaitsBurnFast may come"),
        ([PENDING, GOOD, PENDING], False, Verdict.WATCH, "JobsBurnFast may come"),
        ([GOOD, PENDING], True, Verdict.GO_BACK, "no time left"),
        ([GOOD, None], False, Verdict.WATCH, "does not answer"),
        ([None, None, None], False, Verdict.GO_BACK, "nobody knows"),
        ([GOOD, None], True, Verdict.GO_BACK, "nobody knows"),
        ([UNUSED, UNUSED], True, Verdict.GO_BACK, "had no value"),
        ([GOOD, UNUSED], True, Verdict.GO_ON, "nothing burns"),
    ],
)
def test_what_was_seen_decides(looks: list[Look | None], *, over: bool, verdict: Verdict, reason: str) -> None:
    decided, said = judge(looks, over=over)

    assert decided is verdict
    assert reason in said


def test_before_a_rollout_it_is_enough_that_nothing_burns() -> None:
    assert judge([UNUSED], over=True, quiet_is_fine=True)[0] is Verdict.GO_ON
    assert judge([FIRES], over=True, quiet_is_fine=True)[0] is Verdict.GO_BACK


_LOOKS = st.lists(st.sampled_from([GOOD, FIRES, PENDING, OTHER, UNUSED, None]), min_size=1, max_size=12)


@given(_LOOKS)
def test_no_version_goes_on_that_fired_or_that_was_never_seen_at_work(looks: list[Look | None]) -> None:
    course = [judge(looks[: n + 1], over=n + 1 == len(looks))[0] for n in range(len(looks))]
    decided = list(itertools.takewhile(lambda verdict: verdict is Verdict.WATCH, course))
    verdict = course[len(decided)]
    seen = looks[: len(decided) + 1]

    assert verdict is not Verdict.WATCH, "it ends when its time is over"
    if verdict is Verdict.GO_ON:
        assert FIRES not in seen
        assert seen[-1] in (GOOD, UNUSED)
        assert any(look is not None and look.measured for look in seen)


def test_what_is_asked_for_is_in_the_rules() -> None:
    rules = ROOT / "config" / "prometheus" / "rules"
    alerts = re.findall(r"- alert: (\w+)", (rules / "alerts.yml").read_text(encoding="utf-8"))
    records = re.findall(r"record: (\S+)", (rules / "recording.yml").read_text(encoding="utf-8"))

    assert set(ALERTS) <= set(alerts)
    assert {name for name in alerts if name.endswith("BurnFast")} <= set(ALERTS)
    assert MEASURED in records


def test_without_prometheus_nothing_is_rolled_out(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)

    status = main(["--prometheus", f"http://127.0.0.1:{port}", "--minutes", "0"])

    assert status == 1
    assert capsys.readouterr().out == "go back: Prometheus does not answer: nobody knows how the new version does\n"


def test_an_address_that_is_none_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--prometheus", "prometheus:9090"])

    assert "'prometheus:9090' is no http:// or https:// URL" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused_before_anybody_waits() -> None:
    with pytest.raises(ValueError, match="port"):
        Prometheus("http://prometheus:notaport")
