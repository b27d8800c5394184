"""When a failed attempt is tried again."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskplatform.errors import SettingsError
from taskplatform.job import Failure, Reason, Trouble
from taskplatform.retry import (
    MAX_WAIT_SECONDS,
    Decision,
    GiveUp,
    Retry,
    TryAgain,
    backoff,
    decide,
    decide_crash,
    qualified_name,
)


def failure_of(error: type[BaseException], *, after_seconds: float | None = None) -> Failure:
    names = tuple(qualified_name(kind) for kind in error.__mro__)
    return Failure(trouble=Trouble.ERROR, error_types=names, after_seconds=after_seconds)


def decided(policy: Retry, failure: Failure, *, failures: int = 1, max_attempts: int = 5) -> Decision:
    return decide(policy, failure, failures=failures, max_attempts=max_attempts, random=Random(7))


def test_the_wait_doubles_up_to_the_cap() -> None:
    policy = Retry(backoff_seconds=1.0, max_backoff_seconds=5.0, jitter=0.0)

    assert [backoff(policy, failures, Random(7)) for failures in (1, 2, 3, 4, 500)] == [1.0, 2.0, 4.0, 5.0, 5.0]


@given(
    st.integers(0, 10_000),
    st.floats(0, 100),
    st.floats(0, MAX_WAIT_SECONDS),
    st.floats(0, 1),
    st.integers(),
)
def test_a_wait_is_never_negative_and_never_above_the_cap(
    failures: int, first: float, more: float, jitter: float, seed: int
) -> None:
    longest = min(first + more, MAX_WAIT_SECONDS)
    policy = Retry(backoff_seconds=first, max_backoff_seconds=longest, jitter=jitter)

    assert 0 <= backoff(policy, failures, Random(seed)) <= longest


def test_the_last_failure_gives_up() -> None:
    policy = Retry(max_attempts=3)

    last = decided(policy, failure_of(OSError), failures=3, max_attempts=3)

    assert last == GiveUp(reason=Reason.ATTEMPTS_EXHAUSTED)


def test_the_bound_of_the_job_wins_over_that_of_its_policy() -> None:
    assert isinstance(decided(Retry(max_attempts=1), failure_of(OSError), failures=3, max_attempts=9), TryAgain)


def test_an_exception_to_give_up_on_is_not_retried_nor_are_its_subclasses() -> None:
    policy = Retry(give_up_on=(LookupError,))

    assert decided(policy, failure_of(KeyError)) == GiveUp(reason=Reason.NOT_RETRYABLE)


def test_the_nearest_class_decides() -> None:
    patient = Retry(backoff_seconds=60.0, jitter=0.0)
    policy = Retry(give_up_on=(LookupError,), rules={KeyError: patient})

    assert decided(policy, failure_of(KeyError)) == TryAgain(after_seconds=60.0)
    assert decided(policy, failure_of(IndexError)) == GiveUp(reason=Reason.NOT_RETRYABLE)


def test_a_rule_bounds_the_attempts_of_its_exception() -> None:
    policy = Retry(max_attempts=9, rules={OSError: Retry(max_attempts=2)})

    given_up = decided(policy, failure_of(ConnectionError), failures=2, max_attempts=9)

    assert given_up == GiveUp(reason=Reason.ATTEMPTS_EXHAUSTED)


@pytest.mark.parametrize("trouble", [Trouble.HOPELESS, Trouble.BAD_RESULT])
def test_what_is_hopeless_is_not_retried(trouble: Trouble) -> None:
    assert decided(Retry(), Failure(trouble=trouble)) == GiveUp(reason=Reason.NOT_RETRYABLE)


def test_a_task_chooses_its_own_wait() -> None:
    assert decided(Retry(), failure_of(OSError, after_seconds=17.5)) == TryAgain(after_seconds=17.5)
    assert decided(Retry(), failure_of(OSError, after_seconds=1e12)) == TryAgain(after_seconds=MAX_WAIT_SECONDS)


def test_an_attempt_that_asked_for_another_one_gets_it_whatever_its_error_was() -> None:
    names = tuple(qualified_name(kind) for kind in FileNotFoundError.__mro__)
    asked = Failure(trouble=Trouble.RETRY_LATER, error_types=names, after_seconds=3.0)

    assert decided(Retry(give_up_on=(Exception,)), asked) == TryAgain(after_seconds=3.0)


def test_crashes_below_the_limit_are_retried_and_at_the_limit_poison() -> None:
    ends = [decide_crash(Retry(), crashes=count, crash_limit=3, random=Random(7)) for count in (1, 2, 3)]

    assert [type(end) for end in ends] == [TryAgain, TryAgain, GiveUp]
    assert ends[2] == GiveUp(reason=Reason.POISON)


@pytest.mark.parametrize(
    "numbers",
    [
        {"max_attempts": 0},
        {"max_attempts": 1001},
        {"backoff_seconds": -1.0},
        {"backoff_seconds": 9.0, "max_backoff_seconds": 3.0},
        {"max_backoff_seconds": 1e9},
        {"jitter": 1.5},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Retry(**numbers)
