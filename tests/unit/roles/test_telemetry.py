"""Log lines and metrics."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from prometheus_client import Metric as Family

from taskplatform.metrics import METRICS, Kind, Part
from taskplatform.task import CurrentJob, enter_job
from taskplatform.telemetry import OTHER_TASK, TASK_LABELS, Metrics, configure_logging, logger, new_metrics

METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_log_line_is_one_json_object_with_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "dispatcher")

    logger("taskplatform.test").info("Something happened\nhere", job_id="7")

    (line,) = lines_of(capsys)
    assert (line["event"], line["level"], line["process"], line["logger"], line["job_id"]) == (
        "Something happened\nhere",
        "info",
        "dispatcher",
        "taskplatform.test",
        "7",
    )


def test_the_lines_of_libraries_have_the_same_shape(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "api")

    logging.getLogger("some.library").warning("took %d s", 5, extra={"queue": "jobs"})

    (line,) = lines_of(capsys)
    assert (line["event"], line["process"], line["queue"]) == ("took 5 s", "api", "jobs")


def test_the_lines_of_a_job_name_it_and_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "worker")
    job_id = "01890000-0000-7000-8000-000000000001"
    enter_job(CurrentJob(id=UUID(job_id), attempt=2, tenant="acme", trace=f"00-{'a' * 32}-{'b' * 16}-01"))

    logging.getLogger("code.of.the.task").info("half of it is done")
    enter_job(None)
    logging.getLogger("code.of.the.worker").info("that was all")

    inside, outside = lines_of(capsys)
    assert (inside["job_id"], inside["attempt"], inside["tenant"], inside["trace_id"]) == (job_id, 2, "acme", "a" * 32)
    assert {"job_id", "attempt", "tenant", "trace_id"}.isdisjoint(outside)


def test_a_traceback_stays_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "api")

    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logger("taskplatform.test").exception("A bug")

    (line,) = lines_of(capsys)
    assert "ZeroDivisionError" in str(line["exception"])


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("WARNING", "json", "api")

    logger("taskplatform.test").info("Nobody reads this")

    assert lines_of(capsys) == []


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json", "api")
    configure_logging("INFO", "json", "api")

    logger("taskplatform.test").info("Once")

    assert len(lines_of(capsys)) == 1


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "text", "api")

    logger("taskplatform.test").info("Once", jobs=3)

    line = capsys.readouterr().err
    assert "Once" in line
    assert "jobs=3" in line


def test_a_traceback_for_people_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "text", "worker")
    try:
        password = "hunter2".upper()
        raise RuntimeError(str(len(password)))
    except RuntimeError:
        logger("taskplatform.test").exception("It failed")

    text = capsys.readouterr().err
    assert "RuntimeError: 7" in text
    assert "HUNTER2" not in text


def test_every_metric_is_an_attribute_without_its_prefix() -> None:
    metrics = new_metrics()

    missing = [name for name in METRICS if not hasattr(metrics, name.removeprefix("tp_"))]

    assert missing == []


def test_the_registry_holds_the_metrics_of_the_table_and_no_other() -> None:
    families: list[Family] = list(new_metrics().registry.collect())

    ours = {family.name for family in families if family.name.startswith("tp_")}

    assert ours == {name.removesuffix("_total") for name in METRICS}


def test_the_page_about_metrics_lists_every_metric_as_it_is() -> None:
    documented = re.findall(
        r"^\| `(tp_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| (.*) \|$",
        METRICS_PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )

    expected = [
        (
            name,
            str(metric.kind),
            ", ".join(f"`{label}`" for label in metric.labels) or "–",
            "all" if metric.parts == tuple(Part) else ", ".join(metric.parts),
            metric.help,
        )
        for name, metric in METRICS.items()
    ]
    assert documented == expected


def test_names_follow_the_conventions_of_prometheus() -> None:
    units = (
        "_seconds",
        "_bytes",
        "_total",
        "_jobs",
        "_rows",
        "_size",
        "_info",
        "_mode",
        "_slots",
        "_workers",
        "_active",
    )
    counters = {name for name, metric in METRICS.items() if metric.kind is Kind.COUNTER}

    assert {name for name in METRICS if name.endswith("_total")} == counters
    assert [name for name in METRICS if not name.startswith("tp_")] == []
    assert [
        name for name, metric in METRICS.items() if metric.kind is Kind.HISTOGRAM and not name.endswith(units)
    ] == []


def test_no_metric_has_a_label_without_a_bound() -> None:
    bounded = {
        *("component", "gate", "kind", "lacks", "outcome", "pool", "priority", "reason", "replica", "role", "route"),
        *("stage", "state", "status", "step", "task", "version"),
    }

    assert {label for metric in METRICS.values() for label in metric.labels} <= bounded


@pytest.mark.parametrize("part", Part)
def test_a_process_shows_the_metrics_of_its_kind_and_no_other(part: Part) -> None:
    families: list[Family] = list(new_metrics(part).registry.collect())

    shown = {family.name for family in families if family.name.startswith("tp_")}

    assert shown == {name.removesuffix("_total") for name, metric in METRICS.items() if part in metric.parts}


def test_the_labels_of_a_process_are_added_to_whatever_it_shows() -> None:
    metrics = new_metrics(Part.WORKER, pool="gpu")
    metrics.jobs_claimed_total.inc(2)

    shown = metrics.render()[0].decode()

    assert 'tp_jobs_claimed_total{pool="gpu"} 2.0' in shown
    assert [line for line in shown.splitlines() if not line.startswith("#") and 'pool="gpu"' not in line] == []


def test_many_values_counted_at_once_are_what_they_would_be_one_by_one() -> None:
    values = [0.0, 0.004, 0.005, 0.0051, 0.7, 59.0, 60.0, 4000.0]
    one_by_one, at_once = new_metrics(), new_metrics()

    for value in values:
        one_by_one.job_run_seconds.labels("a.b").observe(value)
    at_once.job_run_seconds.labels("a.b").observe_all(values)

    assert _samples(at_once) == _samples(one_by_one)


def test_the_tasks_beyond_the_first_share_one_label() -> None:
    metrics = new_metrics()
    for number in range(TASK_LABELS):
        metrics.task_label(f"task{number}")

    assert (metrics.task_label("one_too_many"), metrics.task_label("task0")) == (OTHER_TASK, "task0")


def test_what_is_counted_is_rendered() -> None:
    metrics = new_metrics()
    metrics.jobs_submitted_total.labels(task="a.b", pool="default").inc(3)

    assert b'tp_jobs_submitted_total{pool="default",task="a.b"} 3.0' in metrics.render()[0]


def test_an_exemplar_is_shown_in_openmetrics_alone() -> None:
    metrics = new_metrics(Part.WORKER, pool="default")
    run = metrics.job_run_seconds.labels("a.b")
    run.observe(0.3)
    run.point(0.3, f"00-{'a' * 32}-{'b' * 16}-01")

    text, kind = metrics.render("application/openmetrics-text;version=1.0.0,*/*;q=0.1")

    assert kind.startswith("application/openmetrics-text")
    assert f'le="0.5",pool="default",task="a.b"}} 1.0 # {{trace_id="{"a" * 32}"}} 0.3'.encode() in text
    assert b"trace_id" not in metrics.render()[0]


def test_two_sets_of_metrics_do_not_share_numbers() -> None:
    one, other = new_metrics(), new_metrics()

    one.jobs_expired_total.inc()

    assert other.registry.get_sample_value("tp_jobs_expired_total") == 0


def _samples(metrics: Metrics) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in metrics.job_run_seconds.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
