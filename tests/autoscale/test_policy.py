"""The policy: what it must never do, and what it gives on an hour of changing load."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.autoscale.policy import Hold, Memory, Reason, Rules, Sample, decide
from tests.autoscale.simulator import AN_HOUR, Simulation, flips, oscillations

RULES = Rules(max_workers=20, stabilisation_seconds=60.0, idle_seconds=30.0)

rules = st.builds(
    lambda least, span, surge, target: Rules(
        min_workers=least, max_workers=max(least + span, 1), surge_workers=surge, target_seconds=target
    ),
    st.integers(0, 5),
    st.integers(0, 50),
    st.integers(1, 10),
    st.floats(0.1, 600.0),
)
samples = st.builds(
    Sample,
    at=st.floats(1_000.0, 2_000.0),
    ready=st.integers(0, 10_000),
    ready_work_seconds=st.floats(0.0, 1e6),
    running=st.integers(0, 200),
    oldest_age_seconds=st.floats(0.0, 1e5),
    arrivals_per_second=st.floats(0.0, 1e4),
    service_seconds=st.floats(0.0, 1e4),
    slots=st.integers(1, 64),
    workers=st.integers(0, 60),
    starting=st.integers(0, 3),
    pinned=st.integers(0, 60),
    floor_workers=st.integers(0, 60),
    budget_used_hours=st.floats(0.0, 1e4),
    holds=st.sets(st.sampled_from(Hold)).map(lambda found: tuple(sorted(found))),
)
memories = st.builds(
    Memory,
    recommended=st.lists(st.tuples(st.floats(900.0, 1_000.0), st.integers(0, 50)), max_size=5).map(
        lambda found: tuple(sorted(found))
    ),
    busy_at=st.none() | st.floats(0.0, 1_000.0),
)


def desired(sample: Sample, memory: Memory | None = None, chosen: Rules = RULES) -> int:
    return decide(chosen, sample, memory or Memory())[0].desired


@given(rules, samples, memories)
def test_a_fleet_never_gets_above_its_maximum_nor_grows_by_more_than_its_surge(
    chosen: Rules, sample: Sample, memory: Memory
) -> None:
    decision, _ = decide(chosen, sample, memory)

    assert 0 <= decision.desired <= chosen.max_workers
    floor = max(chosen.min_workers, sample.floor_workers)
    assert decision.desired <= max(sample.workers + max(chosen.surge_workers, sample.workers), floor)


@given(rules, samples, memories, st.tuples(st.integers(0, 1_000), st.floats(0.0, 1e5), st.floats(0.0, 1e4)))
def test_a_larger_backlog_never_asks_for_fewer_workers(
    chosen: Rules, sample: Sample, memory: Memory, added: tuple[int, float, float]
) -> None:
    more, work, older = added
    larger = replace(
        sample,
        ready=sample.ready + more,
        ready_work_seconds=sample.ready_work_seconds + work,
        oldest_age_seconds=sample.oldest_age_seconds + older,
    )

    assert desired(larger, memory, chosen) >= desired(sample, memory, chosen)


@given(rules, samples.map(lambda sample: replace(sample, oldest_age_seconds=0.0, holds=(), starting=0)))
def test_a_steady_load_leads_to_one_size_and_stays_there(chosen: Rules, sample: Sample) -> None:
    memory, sizes = Memory(), [sample.workers]
    for tick in range(200):
        now = replace(sample, at=sample.at + 5.0 * tick, workers=sizes[-1], pinned=min(sample.pinned, sizes[-1]))
        decision, memory = decide(chosen, now, memory)
        sizes.append(decision.desired)

    assert flips(sizes) <= 1
    assert len(set(sizes[-50:])) == 1


@given(rules, samples, memories)
def test_equal_values_give_equal_decisions(chosen: Rules, sample: Sample, memory: Memory) -> None:
    assert decide(chosen, sample, memory) == decide(chosen, sample, memory)


@given(rules, samples, memories, st.sampled_from(Hold))
def test_a_fleet_that_is_held_keeps_its_size(chosen: Rules, sample: Sample, memory: Memory, hold: Hold) -> None:
    held = replace(sample, holds=(hold,), workers=min(sample.workers, chosen.max_workers))

    decision, _ = decide(chosen, held, memory)

    assert decision.reason is Reason.HELD
    assert decision.desired == min(max(held.workers, chosen.min_workers, held.floor_workers), chosen.max_workers)


@given(samples.map(lambda sample: replace(sample, holds=(), floor_workers=0)), memories)
def test_a_fleet_with_work_is_never_scaled_to_zero(sample: Sample, memory: Memory) -> None:
    busy = replace(sample, ready=sample.ready + 1)

    assert desired(busy, memory) >= 1


def test_a_fleet_goes_to_zero_when_there_was_no_work_for_a_while() -> None:
    idle = Sample(at=1_000.0, workers=3)

    soon, _ = decide(RULES, idle, Memory(busy_at=980.0))
    later, _ = decide(RULES, idle, Memory(busy_at=900.0))

    assert (soon.desired, later.desired, later.reason) == (1, 0, Reason.IDLE)


def test_a_fleet_shrinks_to_the_largest_size_that_was_recommended_lately() -> None:
    sample = Sample(at=1_000.0, running=1, workers=8)

    decision, _ = decide(RULES, sample, Memory(recommended=((930.0, 7), (950.0, 5), (990.0, 2)), busy_at=999.0))

    assert (decision.desired, decision.reason) == (5, Reason.STABILISING)


def test_late_jobs_make_a_fleet_grow_that_looks_large_enough() -> None:
    late = Sample(at=1_000.0, ready=5, ready_work_seconds=5.0, oldest_age_seconds=31.0, workers=8)

    decision, _ = decide(RULES, late, Memory())
    waiting, _ = decide(RULES, replace(late, starting=1), Memory())

    assert (decision.desired, decision.reason) == (10, Reason.LATE)
    assert waiting.desired <= 8


def test_a_budget_that_is_used_up_leaves_what_it_allows_at_once() -> None:
    limited = replace(RULES, budget_worker_hours=100.0, budget_workers=2)
    sample = Sample(at=1_000.0, ready=900, ready_work_seconds=900.0, workers=6, budget_used_hours=100.0)

    decision, _ = decide(limited, sample, Memory(recommended=((990.0, 6),)))

    assert (decision.desired, decision.reason) == (2, Reason.BUDGET)


def test_workers_with_long_jobs_are_not_asked_for_back() -> None:
    decision, _ = decide(RULES, Sample(at=1_000.0, running=3, workers=5, pinned=3), Memory())

    assert (decision.desired, decision.reason) == (3, Reason.PINNED)


def test_what_waits_and_what_arrives_each_ask_for_slots() -> None:
    keep, _ = decide(RULES, Sample(at=1_000.0, running=1, arrivals_per_second=8.0, service_seconds=1.0), Memory())
    drain, _ = decide(RULES, Sample(at=1_000.0, ready=90, ready_work_seconds=90.0, workers=1), Memory())

    assert (keep.keep_slots, keep.needed) == (10.0, 10)
    assert (drain.drain_slots, drain.desired) == (3.0, 3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_hour_of_changing_load_is_served_in_time_with_few_workers(seed: int) -> None:
    outcome = Simulation(Rules(max_workers=20), seed, AN_HOUR).run()

    print(f"p95 {outcome.percentile(0.95):.1f} s, {outcome.worker_hours:.2f} worker-hours, {outcome.flips} flips")
    assert outcome.percentile(0.95) < 17.0
    assert outcome.worker_hours < 1.8
    assert outcome.flips <= 4


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_step_to_ten_times_the_load_is_met_within_a_minute_and_given_back_within_ten(seed: int) -> None:
    up_at, down_at = 300.0, 900.0
    profile = ((up_at, 5.0), (down_at, 50.0), (1600.0, 5.0))
    simulation = Simulation(Rules(max_workers=20), seed, profile)
    sizes = simulation.run().sizes
    up, down = (int(moment / simulation.poll_seconds) for moment in (up_at, down_at))
    # 50/s of 0.2 s at 80 % use are 12.5 slots, 5/s are 1.25; a worker has four.
    full = next(tick for tick in range(up, down) if sizes[tick] >= 4)
    small = next(tick for tick in range(down, len(sizes)) if sizes[tick] <= 1)

    assert (full - up) * simulation.poll_seconds + simulation.boot_seconds <= 60.0
    assert (small - down) * simulation.poll_seconds <= 600.0
    assert oscillations(sizes[up:]) <= 2


def test_jobs_that_take_long_are_served_with_fewer_workers_than_a_queue_length_would_ask_for() -> None:
    outcomes = [Simulation(Rules(max_workers=20), seed, AN_HOUR, mean_service_seconds=2.0).run() for seed in (1, 2, 3)]

    assert sum(outcome.worker_hours for outcome in outcomes) / 3 < 6.8
    assert max(outcome.percentile(0.5) for outcome in outcomes) < 1.0
