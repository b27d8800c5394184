"""What is counted of the trips of canaries."""

import asyncio
from typing import Any

from taskplatform.canary import Canary, Report, Trip
from taskplatform.errors import StoreUnavailable
from taskplatform.settings import load
from taskplatform.telemetry import Metrics, new_metrics

ARRIVED = Report(trip=Trip.ARRIVED, accept_seconds=0.01, start_seconds=0.02, run_seconds=0.0, total_seconds=0.05)


def _after_one_round(reports: dict[str, Report | Exception]) -> Metrics:
    metrics = new_metrics()

    async def send(pool: str, within_seconds: float) -> Report:
        report = reports[pool]
        if isinstance(report, Exception):
            raise report
        return report

    settings = load({}, pools=",".join(reports), canary_seconds=1.0)
    asyncio.run(Canary(send, metrics, settings).run_once())
    return metrics


def test_a_canary_goes_through_every_pool_and_each_step_is_measured() -> None:
    metrics = _after_one_round({"default": ARRIVED, "gpu": ARRIVED})

    steps = ("accept", "start", "run", "total")
    counted = [
        _value(metrics, "tp_canary_seconds_count", pool=pool, step=step)
        for pool in ("default", "gpu")
        for step in steps
    ]
    assert counted == [1.0] * 8
    assert _value(metrics, "tp_canary_last_arrival_timestamp_seconds", pool="gpu") > 0


def test_a_pool_whose_canary_is_not_taken_harms_no_other() -> None:
    metrics = _after_one_round({"default": StoreUnavailable("gone"), "gpu": ARRIVED})

    assert _value(metrics, "tp_canary_jobs_total", pool="default", outcome="refused") == 1
    assert _value(metrics, "tp_canary_jobs_total", pool="gpu", outcome="arrived") == 1


def test_a_late_canary_has_not_arrived() -> None:
    metrics = _after_one_round({"default": Report(trip=Trip.LATE, accept_seconds=0.01)})

    assert _value(metrics, "tp_canary_jobs_total", pool="default", outcome="late") == 1
    assert metrics.registry.get_sample_value("tp_canary_last_arrival_timestamp_seconds", {"pool": "default"}) is None


def _value(metrics: Metrics, name: str, **labels: Any) -> float:
    value = metrics.registry.get_sample_value(name, labels)
    assert value is not None, name
    return value
