"""Celery's tracer runs the platform's own tasks where somebody listens to it, and only there."""

from tests.fixtures.celery import Bench

_LISTENED = "tests.integration.workers.listened_jobs"
_UNHEARD = "tests.integration.workers.unheard_jobs"


def test_celery_signals_are_sent_to_who_listens(amqp_bench: Bench) -> None:
    amqp_bench.worker(task_modules=(_LISTENED,))

    heard, traced = amqp_bench.submit("heard"), amqp_bench.submit("traced")

    assert amqp_bench.ended(heard)["result"] == '["heard"]'
    assert amqp_bench.ended(traced)["result"] == "true"


def test_nobody_listens_and_no_tracer_runs(amqp_bench: Bench) -> None:
    amqp_bench.worker(task_modules=(_UNHEARD,))

    traced, ignoring = amqp_bench.submit("traced"), amqp_bench.submit("ignoring")

    assert amqp_bench.ended(traced)["result"] == "false"
    assert amqp_bench.ended(ignoring)["error"]["message"].startswith("the task ended without a result")
