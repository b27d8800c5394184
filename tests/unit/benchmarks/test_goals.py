"""A goal is judged by what the rounds show, and a cut run goes on where it was."""

from collections.abc import Sequence

import pytest

from benchmarks.figures import MEASURES, Ratio, Sample, Values
from benchmarks.goals import DEEP, GOALS, LONG, SHALLOW, SHORT, Figure, Goal, Verdict, standings_of, verdict
from benchmarks.keeping import shown_in
from benchmarks.measure import Scale
from benchmarks.outcome import Outcome, Record, outcome_of
from benchmarks.roster import ENTRIES, PLATFORM, STOCK
from benchmarks.rounds import Rounds


@pytest.mark.parametrize(
    ("low", "middle", "high", "less", "expected"),
    [
        (12.0, 13.0, 14.0, False, Verdict.YES),
        (11.0, 13.0, 14.0, False, Verdict.BARELY),
        (10.0, 11.0, 14.0, False, Verdict.NO),
        (10.0, 11.0, 12.0, True, Verdict.YES),
        (10.0, 11.0, 13.0, True, Verdict.BARELY),
        (10.0, 13.0, 14.0, True, Verdict.NO),
    ],
)
def test_a_bound_of_12_is_met_only_when_the_worse_end_of_the_interval_meets_it(
    low: float, middle: float, high: float, *, less: bool, expected: Verdict
) -> None:
    assert verdict(Ratio(ratio=middle, low=low, high=high), 12.0, less_is_better=less) is expected


def test_a_goal_against_all_peers_is_measured_against_the_best() -> None:
    values: Values = {
        "platform_async": {"nap_per_s": [4000.0]},
        "dramatiq": {"nap_per_s": [700.0]},
        "pgqueuer": {"nap_per_s": [2000.0]},
    }

    standing = standings_of(values)["nap_async_vs_best_peer"]

    assert (standing.against, standing.ratio.ratio) == ("pgqueuer", 2.0)


def test_a_goal_of_which_one_side_is_missing_is_not_judged() -> None:
    assert standings_of({"platform": {"noop_per_s": [1.0]}}) == {}


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.key)
def test_every_goal_names_sides_that_are_measured(goal: Goal) -> None:
    figures: Sequence[Figure] = (goal.ours, *goal.theirs)
    known = {entry.key for entry in ENTRIES} | {DEEP, SHALLOW, LONG, SHORT}
    at_scale = {"drained_per_s", "claim_finish_ms_per_1000"}

    assert {figure.side for figure in figures} <= known
    assert {figure.key for figure in figures} <= {measure.key for measure in MEASURES} | at_scale


def test_the_readme_changes_between_its_marks_alone() -> None:
    readme = "before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n"

    shown = shown_in(readme, Record())

    assert shown.startswith("before\n<!-- measured: begin -->\n\n| measure | at least | aim |")
    assert shown.endswith("<!-- measured: end -->\nafter\n")
    assert "old" not in shown
    assert shown_in("no marks", Record()) == "no marks"


@pytest.fixture
def cut_off() -> Outcome:
    done = Sample(side="platform", round=1, foreign_cpu_percent=1.0, figures={"noop_per_s": 1.0})
    return outcome_of((PLATFORM, STOCK), Scale(), [done], {"platform": {"celery": "5.7"}}, ["round 1, Celery: died"])


def test_a_run_goes_on_with_what_was_measured_and_tries_failures_again(cut_off: Outcome) -> None:
    run = Rounds(entries=[PLATFORM, STOCK], scale=Scale(), keep=lambda _: None, tell=lambda _: None)

    assert run.resume(cut_off)

    assert run.outcome().samples == cut_off.samples
    assert run.outcome().sides["platform"].versions == {"celery": "5.7"}
    assert run.failures == []


@pytest.mark.parametrize("scale", [Scale(), Scale(share=0.5)])
def test_a_run_does_not_go_on_with_another(cut_off: Outcome, scale: Scale) -> None:
    entries = [PLATFORM] if scale == Scale() else [PLATFORM, STOCK]

    assert not Rounds(entries=entries, scale=scale, keep=lambda _: None, tell=lambda _: None).resume(cut_off)
