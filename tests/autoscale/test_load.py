"""What is measured becomes a sample, and whom a shrinking fleet can do without."""

from dataclasses import replace
from typing import Any

import pytest

from taskplatform.autoscale.contract import LiveWorker, Measurement, Member, TaskHistory, TaskLoad
from taskplatform.autoscale.load import (
    Absences,
    Standing,
    Surroundings,
    longest_run,
    roll_call,
    sample_of,
    size_with_silent,
    standings,
    victims,
)
from taskplatform.autoscale.policy import Hold, Sample
from taskplatform.autoscale.rules import Plan

PLAN = Plan(least_life_seconds=30.0, grace_seconds=25.0)


def a_member(name: str, **changes: Any) -> Member:
    return replace(Member(id=name, pool="default", host=name, pid=None, age_seconds=100.0), **changes)


def a_worker(name: str, **changes: Any) -> LiveWorker:
    worker = LiveWorker(
        name=f"default@{name}",
        pool="default",
        host=name,
        pid=1,
        slots=4,
        draining=False,
        running=0,
        longest_run_seconds=0.0,
    )
    return replace(worker, **changes)


def a_measurement(*loads: TaskLoad, histories: tuple[TaskHistory, ...] = (), **changes: Any) -> Measurement:
    return replace(
        Measurement(at=1_000.0, loads=loads, histories=histories, workers=(), used_hours={"default": 2.5}), **changes
    )


def a_history(task: str, seconds: float, **changes: Any) -> TaskHistory:
    history = TaskHistory(pool="default", task=task, ended=10, failed=0, seconds=10 * seconds, longest_seconds=seconds)
    return replace(history, **changes)


def sampled(measured: Measurement, *, messages: int = 0) -> Sample:
    return sample_of("default", measured, [], PLAN, Surroundings(messages=messages, window_seconds=10.0))


def test_work_is_counted_by_what_the_tasks_that_wait_take() -> None:
    loads = (
        TaskLoad(pool="default", task="quick", ready=100, arrived=50),
        TaskLoad(pool="default", task="slow", ready=2, arrived=1),
        TaskLoad(pool="other", task="slow", ready=99),
    )

    sample = sampled(a_measurement(*loads, histories=(a_history("quick", 0.1), a_history("slow", 20.0))))

    assert sample.ready == 102
    assert sample.ready_work_seconds == pytest.approx(50.0)
    assert sample.arrivals_per_second == pytest.approx(5.1)
    assert sample.arrivals_per_second * sample.service_seconds == pytest.approx(2.5)


def test_runs_that_have_not_ended_make_the_expected_time_longer() -> None:
    load = TaskLoad(pool="default", task="slow", ready=1, running=4, running_seconds=400.0)

    unknown = sampled(a_measurement(load))
    known = sampled(a_measurement(load, histories=(a_history("slow", 10.0),)))

    assert unknown.ready_work_seconds == 100.0
    assert known.ready_work_seconds == 50.0


def test_messages_without_a_row_are_work_too() -> None:
    load = TaskLoad(pool="default", task="quick", ready=30)

    sample = sampled(a_measurement(load, histories=(a_history("quick", 2.0),)), messages=50)

    assert (sample.ready, sample.ready_work_seconds) == (50, 100.0)


def test_a_pool_in_which_nearly_all_fails_is_held() -> None:
    broken = sampled(a_measurement(histories=(a_history("quick", 1.0, ended=100, failed=90),)))
    well = sampled(a_measurement(histories=(a_history("quick", 1.0, ended=100, failed=30),)))
    hardly_known = sampled(a_measurement(histories=(a_history("quick", 1.0, ended=10, failed=10),)))

    assert (broken.holds, well.holds, hardly_known.holds) == ((Hold.FAILING,), (), ())


def test_members_are_told_apart_by_host_and_by_process_where_a_host_has_several() -> None:
    workers = [a_worker("here", pid=7), a_worker("here", pid=8, draining=True), a_worker("there")]
    members = [a_member("a", host="here", pid=7), a_member("b", host="here", pid=8), a_member("c", host="there")]

    fleet = standings([*members, a_member("new", host="here", pid=9)], workers)
    sample = sample_of("default", a_measurement(), fleet, PLAN, Surroundings())

    assert [one.live and one.live.pid for one in fleet] == [7, 8, 1, None]
    assert (sample.workers, sample.starting, sample.draining, sample.slots) == (3, 1, 1, 4)


def test_idle_workers_go_first_then_those_that_have_sunk_least_into_a_job() -> None:
    fleet = standings(
        [a_member(name) for name in ("old", "young", "idle", "leaving")],
        [
            a_worker("old", running=1, longest_run_seconds=20.0),
            a_worker("young", running=3, longest_run_seconds=1.0),
            a_worker("idle"),
            a_worker("leaving", draining=True),
        ],
    )

    chosen = victims(fleet, 2, PLAN, longest_run_seconds=24.0)

    assert [member.id for member in chosen] == ["idle", "young"]


def test_nobody_is_stopped_whose_job_may_outlast_the_grace_nor_who_has_hardly_started() -> None:
    measured = a_measurement(workers=(a_worker("busy", running=1, longest_run_seconds=3.0),))
    measured = replace(measured, histories=(a_history("slow", 40.0),))
    fleet = standings(
        [a_member("busy"), a_member("idle"), a_member("new", age_seconds=29.0)],
        [*measured.workers, a_worker("idle"), a_worker("new")],
    )

    chosen = victims(fleet, 3, PLAN, longest_run_seconds=longest_run("default", measured))
    sample = sample_of("default", measured, fleet, PLAN, Surroundings())

    assert [member.id for member in chosen] == ["idle"]
    assert sample.pinned == 1


def test_a_worker_that_fell_silent_is_neither_capacity_nor_idle() -> None:
    members = [a_member("well"), a_member("frozen"), a_member("new", age_seconds=29.0)]
    everybody = standings(members, [a_worker("well"), a_worker("frozen")])
    fewer = standings(members, [a_worker("well")])

    _, heard = roll_call(everybody, Absences(), 1_000.0, patience_seconds=15.0)
    missed, absences = roll_call(fewer, heard, 1_100.0, patience_seconds=15.0)
    silent, _ = roll_call(fewer, absences, 1_115.0, patience_seconds=15.0)
    again, nobody = roll_call(everybody, absences, 1_115.0, patience_seconds=15.0)
    samples = [sample_of("default", a_measurement(), fleet, PLAN, Surroundings()) for fleet in (missed, silent, again)]

    assert [(one.workers, one.starting, one.silent) for one in samples] == [(3, 1, 0), (2, 1, 1), (3, 1, 0)]
    for fleet in (missed, silent):
        assert [member.id for member in victims(fleet, 3, PLAN, longest_run_seconds=0.0)] == ["well"]
    assert nobody.since == {}


def test_a_worker_that_never_comes_to_its_lease_starts_for_ever_and_can_be_spared() -> None:
    fleet = standings([a_member("stuck", age_seconds=86_400.0)], [])

    _, absences = roll_call(fleet, Absences(), 1_000.0, patience_seconds=15.0)
    called, _ = roll_call(fleet, absences, 2_000.0, patience_seconds=15.0)
    sample = sample_of("default", a_measurement(), called, PLAN, Surroundings())

    assert (sample.workers, sample.starting, sample.silent) == (1, 1, 0)
    assert [member.id for member in victims(called, 1, PLAN, longest_run_seconds=0.0)] == ["stuck"]


@pytest.mark.parametrize(
    ("well", "silent", "draining", "desired", "size"),
    [(1, 2, 0, 3, 5), (0, 3, 2, 3, 6), (0, 5, 0, 2, 5), (0, 9, 0, 3, 9)],
)
def test_silent_workers_are_replaced_up_to_the_maximum_and_nobody_is_taken_away(
    well: int, silent: int, draining: int, desired: int, size: int
) -> None:
    fleet = [
        *(Standing(member=a_member(f"well {n}"), live=a_worker(f"well {n}")) for n in range(well)),
        *(Standing(member=a_member(f"silent {n}"), live=None, silent=True) for n in range(silent)),
        *(Standing(member=a_member(f"leaving {n}", draining=True), live=None) for n in range(draining)),
    ]

    assert size_with_silent(fleet, desired, 3) == size
