"""What is known of an event loop that is held up."""

import asyncio
import time

from taskplatform.pulse import BEAT_SECONDS, FAINT_SECONDS, Pulse
from taskplatform.telemetry import Metrics, new_metrics
from tests.fixtures.waiting import eventually


def test_a_loop_that_is_held_up_is_shown_as_late() -> None:
    metrics = new_metrics()

    async def hold_up() -> None:
        async with Pulse(metrics).listening():
            _block_for(3 * BEAT_SECONDS)
            after_the_late_beat = asyncio.Event()
            asyncio.get_running_loop().call_later(BEAT_SECONDS, after_the_late_beat.set)
            await after_the_late_beat.wait()

    asyncio.run(hold_up())

    assert _lag(metrics) >= BEAT_SECONDS


def test_a_pulse_is_faint_only_while_the_last_beat_was_far_too_late() -> None:
    pulse = Pulse(new_metrics())

    pulse.note(100.0, FAINT_SECONDS)
    held_up = pulse.faint
    pulse.note(101.0, 0.0)

    assert (held_up, pulse.faint, pulse.lag_seconds) == (True, False, FAINT_SECONDS)


def test_what_was_late_long_ago_is_forgotten() -> None:
    pulse = Pulse(new_metrics())

    pulse.note(100.0, 3.0)
    pulse.note(200.0, 0.01)

    assert pulse.lag_seconds == 0.01


def _lag(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("tp_event_loop_lag_seconds") or 0.0


def _block_for(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > deadline, within_seconds=seconds + 60)
