"""Every alert fires when what it is about happens, and is silent before and after: the real rules, in `promtool`."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.observability.prometheus import CONFIG, program
from tests.observability.test_rules import NAMES

RULES = CONFIG / "prometheus" / "rules"
SLOW_MINUTES = 10
POOL = '{pool="default"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Series in promtool's notation, a step every `step_minutes`, and the minutes at which it fires and is silent."""

    series: dict[str, str]
    fires: int
    silent: tuple[int, ...]
    step_minutes: int = 1


def _level(series: str, bad: str, good: str = "0", *, fires: int = 25) -> Case:
    """Make the case of a gauge that is bad from minute 10 to minute 30."""
    return Case(series={series: f"{good}x9 {bad}x19 {good}x60"}, fires=fires, silent=(9, 45))


def _growing(series: str, *, more: dict[str, str] | None = None, silent: int = 80) -> Case:
    """Make the case of a counter that grows from minute 10 to minute 40."""
    return Case(series={series: "0x10 0+30x30 900x90", **(more or {})}, fires=38, silent=(9, silent))


def _burn(bad: str, all_of_it: dict[str, str]) -> Case:
    """Make the case of a ratio that is far too high from minute 60 to minute 120."""
    return Case(series={bad: "0x60 0+100x60 6000x80", **all_of_it}, fires=90, silent=(59, 175))


def _slow(bad: str, all_of_it: dict[str, str], steps: int) -> Case:
    """Make the case of a ratio too high for a day after six hours, then good for twelve, in steps of ten minutes."""
    series = {bad: f"0x36 0+{steps}x144 {steps * 144}x72", **all_of_it}
    return Case(series=series, fires=1500, silent=(350, 2400), step_minutes=SLOW_MINUTES)


def _slow_waits() -> Case:
    case = _slow("tp_job_wait_seconds_count", {'tp_job_wait_seconds_bucket{le="5.0"}': "0+10000x260"}, 0)
    counts = f"0+10000x36 370000+10300x144 {370000 + 10300 * 145}+10000x72"
    return replace(case, series={**case.series, "tp_job_wait_seconds_count": counts})


_HTTP = {'tp_http_requests_total{status="202",route="/v1/jobs"}': "0+1000x200"}
_ENDED = {'tp_jobs_ended_total{state="succeeded",task="a"}': "0+1000x200"}
_WAITED = {'tp_job_wait_seconds_bucket{le="5.0"}': "0+1000x200"}
_SLOW_HTTP = {'tp_http_requests_total{status="202",route="/v1/jobs"}': "0+10000x260"}
_SLOW_ENDED = {'tp_jobs_ended_total{state="succeeded",task="a"}': "0+10000x260"}

CASES = {
    "RequestsBurnFast": _burn('tp_http_requests_total{status="503",route="/v1/jobs"}', _HTTP),
    "RequestsBurnSlow": _slow('tp_http_requests_total{status="503",route="/v1/jobs"}', _SLOW_HTTP, 30),
    "JobsBurnFast": Case(
        series={'tp_jobs_ended_total{state="dead",task="a"}': "0x60 0+500x60 30000x80", **_ENDED},
        fires=90,
        silent=(59, 175),
    ),
    "JobsBurnSlow": _slow('tp_jobs_ended_total{state="dead",task="a"}', _SLOW_ENDED, 300),
    "WaitsBurnFast": Case(
        series={"tp_job_wait_seconds_count": "0+1000x60 60000+1500x60 150000+1000x80", **_WAITED},
        fires=90,
        silent=(59, 175),
    ),
    "WaitsBurnSlow": _slow_waits(),
    "ApiDown": _level('up{part="api",instance="a"}', "0", "1"),
    "DispatcherDown": _level('up{part="dispatcher",instance="a"}', "0", "1"),
    "ExporterDown": _level('up{part="exporter",instance="a"}', "0", "1"),
    "TargetDown": _level('up{part="worker",instance="a"}', "0", "1"),
    "RoleFailing": _level('tp_mode{part="dispatcher",component="relay"}', "1"),
    "RoleStuck": _level('tp_role_round_age_seconds{instance="a",role="relay"}', "300"),
    "EventLoopLate": _level('tp_event_loop_lag_seconds{part="api",instance="a"}', "2"),
    "ArchiveFailing": _level('tp_archive_failing_seconds{instance="a",role="retention"}', "1900"),
    "JobsUnaccounted": _level('tp_jobs_unaccounted{pool="default",lacks="message"}', "7"),
    "OldestJobTooOld": _level(f"tp_queue_oldest_age_seconds{POOL}", "500"),
    "NoConsumers": Case(
        series={
            'tp_jobs{pool="default",state="queued"}': "5x120",
            'tp_workers{pool="default",state="ready"}': "1x9 0x19 1x60",
        },
        fires=25,
        silent=(9, 45),
    ),
    "DispatchLate": _level(f"tp_dispatch_lag_seconds{POOL}", "60"),
    "OutboxStuck": _level("tp_outbox_oldest_age_seconds", "60"),
    "PublishUnconfirmed": _growing("tp_publish_unconfirmed_total"),
    "DeadLettersGrow": Case(
        series={'tp_dead_letters{pool="default",reason="poison"}': "0x10 0+2x60 120x180"}, fires=65, silent=(9, 130)
    ),
    "DeadLettersLeft": Case(
        series={'tp_dead_letters{pool="default",reason="poison"}': "0x10 4x160 0x20"},
        fires=1660,
        silent=(1400, 1770),
        step_minutes=SLOW_MINUTES,
    ),
    "ForgedMessages": _growing('tp_dead_letters_buried_total{reason="forged"}'),
    "RetryStorm": _growing(
        'tp_jobs_finished_total{pool="default",outcome="failed",task="a"}',
        more={'tp_jobs_finished_total{pool="default",outcome="succeeded",task="a"}': "0+30x200"},
    ),
    "WorkersVanish": _growing('tp_jobs_rescued_total{state="retrying"}'),
    "CanaryLost": Case(
        series={
            'tp_canary_jobs_total{pool="default",outcome="arrived"}': "0+2x10 20x20 20+2x60",
            'tp_canary_jobs_total{pool="default",outcome="late"}': "0x10 0+2x20 40x60",
        },
        fires=25,
        silent=(9, 50),
    ),
    "PoolAtCeiling": _growing(
        'tp_scale_decisions_total{pool="default",reason="ceiling"}',
        more={'tp_scale_decisions_total{pool="default",reason="load"}': "0+12x10 120x30 120+12x100"},
    ),
    "WorkersMissing": Case(
        series={
            'tp_pool_workers{pool="default",state="desired"}': "2x120",
            'tp_pool_workers{pool="default",state="running"}': "2x9 1x19 2x60",
        },
        fires=25,
        silent=(9, 45),
    ),
    "NoActiveAutoscaler": _level('tp_autoscaler_active{instance="a"}', "0", "1"),
    "ReplicaLag": _level('tp_replica_lag_seconds{replica="b"}', "30"),
    "ReplicaGone": Case(
        series={
            'tp_replica_lag_bytes{replica="a"}': "0x300",
            'tp_replica_lag_bytes{replica="b"}': "0x30 stale",
        },
        fires=50,
        silent=(29, 120),
    ),
    "LongTransaction": _level("tp_postgres_oldest_transaction_seconds", "900"),
    "BrokerAlarm": _level('rabbitmq_alarms_memory_used_watermark{instance="a"}', "1"),
}


def test_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted(NAMES)


@pytest.mark.parametrize("step_minutes", [pytest.param(1, marks=pytest.mark.long), SLOW_MINUTES])
def test_every_alert_fires_and_clears(step_minutes: int, tmp_path: Path) -> None:
    # Many in one run: promtool starts a storage for each run, and steps through its time for each test.
    cases = {name: case for name, case in CASES.items() if case.step_minutes == step_minutes}

    checked = _checked(tmp_path, cases, step_minutes)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["JobsUnaccounted", "NoConsumers"])
def test_a_case_that_expects_too_much_would_fail(name: str, tmp_path: Path) -> None:
    wrong = replace(CASES[name], fires=CASES[name].silent[0], silent=())

    assert _checked(tmp_path, {name: wrong}, 1).returncode != 0


def _checked(folder: Path, cases: dict[str, Case], step_minutes: int) -> subprocess.CompletedProcess[str]:
    rules = [RULES / "recording.yml", RULES / "alerts.yml"]
    groups = [name for file in rules for name in re.findall(r"- name: (\S+)", file.read_text(encoding="utf-8"))]
    written = folder / "alerts.json"
    suite = {
        "rule_files": [str(file) for file in rules],
        "evaluation_interval": f"{step_minutes}m",
        "group_eval_order": groups,
        "tests": [_test(name, case) for name, case in cases.items()],
    }
    # JSON is YAML.
    written.write_text(json.dumps(suite), encoding="utf-8")
    command = [program("promtool"), "test", "rules", str(written)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)


def _test(name: str, case: Case) -> dict[str, object]:
    query = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    firing = [{"expr": query, "eval_time": f"{case.fires}m", "exp_samples": [{"labels": "{}", "value": 1}]}]
    silent = [{"expr": query, "eval_time": f"{minute}m", "exp_samples": []} for minute in case.silent]
    return {
        "name": name,
        "interval": f"{case.step_minutes}m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [*firing, *silent],
    }
