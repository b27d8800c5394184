"""Counters whose increase wakes somebody are shown before anything happens: what was not there did not increase."""

from typing import Any, cast

from taskplatform.canary import Canary
from taskplatform.job import Reason
from taskplatform.publish import Publisher
from taskplatform.rescuer import Rescuer
from taskplatform.settings import load
from taskplatform.telemetry import new_metrics
from taskplatform.undertaker import Undertaker

NOBODY = cast(Any, None)


def test_the_first_burial_rescue_or_lost_canary_is_an_increase() -> None:
    metrics, settings = new_metrics(), load({}, signing_keys="k" * 32, pools="default,gpu")

    Undertaker(NOBODY, NOBODY, Publisher(NOBODY, b"k", metrics), settings)
    Rescuer(NOBODY, metrics, settings)
    Canary(NOBODY, metrics, settings)

    shown = metrics.render()[0].decode()
    for reason in Reason:
        assert f'tp_dead_letters_buried_total{{reason="{reason}"}} 0.0' in shown
    for state in ("retrying", "dead"):
        assert f'tp_jobs_rescued_total{{state="{state}"}} 0.0' in shown
    for outcome in ("arrived", "late", "failed", "refused"):
        assert f'tp_canary_jobs_total{{outcome="{outcome}",pool="gpu"}} 0.0' in shown
