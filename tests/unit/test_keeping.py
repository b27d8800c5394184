"""What is kept how long, as a matter of values."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.keeping import FOLD_ROWS, Drop, Group, Policy, Rule, Sweep, Wait, cutoffs, first_look, judge

NOW = datetime(2026, 11, 26, tzinfo=UTC)
_TENANTS, _TASKS = ("acme", "globex"), ("reports.daily", "reports.yearly", "mail.send")

_days = st.floats(1, 1000)
_rules = st.builds(
    Rule,
    tenant=st.sampled_from([None, *_TENANTS]),
    task=st.sampled_from([None, "reports.*", *_TASKS]),
    retention_days=_days,
    dead_retention_days=_days,
)
_policies = st.builds(Policy, default_days=_days, rules=st.lists(_rules, max_size=4).map(tuple))


@st.composite
def _groups(draw: st.DrawFn) -> Group:
    first = NOW - timedelta(days=draw(st.floats(0, 1200)))
    return Group(
        tenant=draw(st.sampled_from(_TENANTS)),
        task=draw(st.sampled_from(_TASKS)),
        dead=draw(st.booleans()),
        count=draw(st.integers(1, 2 * FOLD_ROWS)),
        first_ended=first,
        last_ended=first + (NOW - first) * draw(st.floats(0, 1)),
    )


_days_of_groups = st.lists(_groups(), max_size=6, unique_by=lambda each: (each.tenant, each.task, each.dead))


@pytest.mark.parametrize(
    ("tenant", "task", "days"),
    [
        ("acme", "reports.daily", 365),
        ("acme", "mail.send", 7),
        ("globex", "reports.daily", 90),
        ("globex", "reports", 30),
        ("globex", "reportsx.daily", 30),
        (None, None, 30),
    ],
)
def test_the_first_rule_that_fits_decides(tenant: str | None, task: str | None, days: float) -> None:
    policy = Policy(
        default_days=30,
        rules=(
            Rule(tenant="acme", task="reports.*", retention_days=365, dead_retention_days=365),
            Rule(tenant="acme", retention_days=7, dead_retention_days=7),
            Rule(task="reports.*", retention_days=90, dead_retention_days=90),
        ),
    )

    assert policy.kept(tenant, task, dead=False) == timedelta(days=days)


def test_dead_jobs_have_days_of_their_own() -> None:
    policy = Policy(default_days=30, rules=(Rule(tenant="acme", retention_days=1, dead_retention_days=90),))

    assert policy.kept("acme", "any", dead=True) == timedelta(days=90)
    assert policy.shortest == timedelta(days=1)


@given(policy=_policies, groups=_days_of_groups, archiving=st.booleans())
def test_nothing_goes_before_its_time(policy: Policy, groups: list[Group], archiving: bool) -> None:
    verdict = judge(groups, policy, NOW, archiving=archiving)

    due = () if isinstance(verdict, Wait) else verdict.cutoffs
    for cut in due:
        assert cut.before == NOW - policy.kept(cut.tenant, cut.task, dead=cut.dead)
    assert len({(cut.tenant, cut.task, cut.dead) for cut in due}) == len(due)


@given(policy=_policies, groups=_days_of_groups, archiving=st.booleans())
def test_what_has_been_kept_long_enough_is_never_put_off(policy: Policy, groups: list[Group], archiving: bool) -> None:
    past = {
        (each.tenant, each.task, each.dead)
        for each in groups
        if each.first_ended + policy.kept(each.tenant, each.task, dead=each.dead) < NOW
    }

    match judge(groups, policy, NOW, archiving=archiving):
        case Wait(until):
            assert not past
            assert until > NOW
        case Sweep(due) | Drop(due):
            assert {(cut.tenant, cut.task, cut.dead) for cut in due} == past


@given(policy=_policies, groups=_days_of_groups)
def test_with_an_archive_a_drop_takes_no_job_with_it(policy: Policy, groups: list[Group]) -> None:
    verdict = judge(groups, policy, NOW, archiving=True)

    if isinstance(verdict, Drop):
        assert verdict.cutoffs == ()
        assert sum(each.count for each in groups) <= FOLD_ROWS


@given(policy=_policies, groups=_days_of_groups, seconds=st.floats(0, 86_400))
def test_before_the_first_look_nothing_of_that_day_has_been_kept_long_enough(
    policy: Policy, groups: list[Group], seconds: float
) -> None:
    begins = min((each.first_ended for each in groups), default=NOW)
    at = first_look(begins, policy) - timedelta(days=1, seconds=seconds)

    assert cutoffs(groups, policy, at) == ()


@given(policy=_policies, groups=_days_of_groups, longer=st.floats(0.1, 10))
def test_a_policy_allows_what_it_names_itself_and_nothing_of_what_it_keeps_longer(
    policy: Policy, groups: list[Group], longer: float
) -> None:
    due = cutoffs(groups, policy, NOW)

    assert policy.allows(due, NOW)
    assert policy.allows(due, NOW + timedelta(days=longer))
    assert policy.allows(due, NOW - timedelta(days=longer)) is (not due)


def test_days_that_are_whole_numbers_make_the_same_fingerprint() -> None:
    rule = Rule(tenant="acme", retention_days=7, dead_retention_days=7.5)
    same = Rule(tenant="acme", retention_days=7.0, dead_retention_days=7.5)

    assert Policy(default_days=30, rules=(rule,)).fingerprint == Policy(default_days=30.0, rules=(same,)).fingerprint


@given(left=_policies, right=_policies)
def test_policies_differ_in_their_fingerprint(left: Policy, right: Policy) -> None:
    assert (left == right) == (left.fingerprint == right.fingerprint)
