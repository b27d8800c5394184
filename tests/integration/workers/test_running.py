"""Jobs from their message to their recorded end, on real servers."""

from http.client import HTTPConnection

from taskplatform.job import Priority
from taskplatform.servers import free_ports
from tests.fixtures.celery import Bench
from tests.fixtures.waiting import eventually


def test_a_thousand_jobs_run_once_each(amqp_bench: Bench) -> None:
    amqp_bench.worker()

    ids = amqp_bench.submit_many([("noop", [number]) for number in range(1000)])

    eventually(lambda: amqp_bench.count("finished_jobs") == 1000, within_seconds=30)
    results = amqp_bench.rows("SELECT id, state, result, attempt FROM finished_jobs")
    assert {(row["id"], row["state"], row["result"], row["attempt"]) for row in results} == {
        (job_id, "succeeded", str(number), 1) for number, job_id in enumerate(ids)
    }
    assert amqp_bench.count("attempts") == 1000
    eventually(lambda: amqp_bench.depth("jobs.default.normal") == 0)


def test_a_thousand_jobs_run_once_each_on_redis(redis_bench: Bench) -> None:
    redis_bench.worker()

    ids = redis_bench.submit_many([("noop", [number]) for number in range(1000)])

    eventually(lambda: redis_bench.count("finished_jobs", "succeeded") == 1000, within_seconds=30)
    assert redis_bench.rows("SELECT count(*) AS n FROM attempts WHERE number = 1")[0]["n"] == len(ids)
    eventually(lambda: redis_bench.depth("jobs.default.normal") == 0)


def test_urgent_jobs_overtake_others(amqp_bench: Bench) -> None:
    slow = amqp_bench.submit_many([("nap", [0.05])] * 60, priority=Priority.LOW)
    urgent = amqp_bench.submit_many([("nap", [0.05])] * 5, priority=Priority.HIGH)

    amqp_bench.worker(worker_processes=1)

    for job_id in urgent:
        amqp_bench.ended(job_id)
    assert amqp_bench.count("finished_jobs") < len(slow) / 2


def test_a_job_that_hangs_unexpectedly_holds_nobody_back(amqp_bench: Bench) -> None:
    amqp_bench.worker()
    amqp_bench.submit_many([("nap", [0.0])] * 50)
    eventually(lambda: amqp_bench.count("finished_jobs") == 50, within_seconds=20)

    ids = amqp_bench.submit_many([("nap", [60 if number == 100 else 0.0]) for number in range(200)])

    eventually(lambda: amqp_bench.count("finished_jobs") == 50 + 199, within_seconds=20)
    assert amqp_bench.job(ids[100])["state"] == "running"


def test_a_worker_tells_its_readiness_and_its_metrics(amqp_bench: Bench) -> None:
    (port,) = free_ports(1)
    amqp_bench.worker(metrics_port=port)
    amqp_bench.ended(amqp_bench.submit("noop"))

    eventually(lambda: _get(port, "/readyz")[0] == 200)

    metrics = _get(port, "/metrics")[1]
    assert 'tp_jobs_finished_total{outcome="succeeded",pool="default",task="noop"} 1.0' in metrics
    assert 'tp_jobs_ended_total{pool="default",state="succeeded",task="noop"} 1.0' in metrics
    assert 'tp_job_run_seconds_count{pool="default",task="noop"} 1.0' in metrics
    assert 'tp_job_wait_seconds_count{pool="default",priority="normal"} 1.0' in metrics
    assert 'tp_worker_jobs{pool="default",stage="waiting"} 0.0' in metrics
    assert [_get(port, page)[0] for page in ("/livez", "/startupz")] == [200, 200]
    assert _get(port, "/nowhere")[0] == 404


def _get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
