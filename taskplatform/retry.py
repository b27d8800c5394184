"""When a failed attempt is tried again: pure decisions over values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from taskplatform.errors import SettingsError
from taskplatform.job import Failure, Reason, Trouble

MAX_WAIT_SECONDS = 30 * 86_400.0


def qualified_name(error: type[BaseException]) -> str:
    """Give the name by which rules and records know an exception class, `module.QualName`."""
    return f"{error.__module__}.{error.__qualname__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A retry policy: how often, and how long to wait in between.

    The wait before attempt n+1 is `backoff_seconds` × 2^(n-1), at most `max_backoff_seconds`, of which a share of up to
    `jitter` is taken off at random. Exceptions in `give_up_on` are never retried; `rules` give other policies to single
    exception classes. Both match subclasses, the nearest class first; neither holds for an attempt that itself asked
    for another one.

    Raises SettingsError for numbers that make no sense.
    """

    max_attempts: int = 5
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 3600.0
    jitter: float = 0.5
    give_up_on: tuple[type[BaseException], ...] = ()
    rules: Mapping[type[BaseException], Retry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 1000:
            raise SettingsError(f"max_attempts must be from 1 to 1000, not {self.max_attempts}")
        if not 0 <= self.backoff_seconds <= self.max_backoff_seconds <= MAX_WAIT_SECONDS:
            raise SettingsError("a policy needs 0 <= backoff_seconds <= max_backoff_seconds <= 30 days")
        if not 0 <= self.jitter <= 1:
            raise SettingsError(f"jitter must be from 0 to 1, not {self.jitter}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """Run the job again after so many seconds."""

    after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The job is dead."""

    reason: Reason


Decision = TryAgain | GiveUp


def decide(policy: Retry, failure: Failure, *, failures: int, max_attempts: int, random: Random) -> Decision:
    """Decide what follows a failure.

    `failures` counts the charged failures of this series with this one; `max_attempts` is the job's own bound and wins
    over the policy's.
    """
    if failure.trouble is Trouble.HOPELESS or failure.trouble is Trouble.BAD_RESULT:
        return GiveUp(reason=Reason.NOT_RETRYABLE)
    # Who asks for another attempt has judged the error already.
    asked = failure.trouble is Trouble.RETRY_LATER
    rule = policy if asked else _rule_for(policy, failure.error_types)
    if rule is None:
        return GiveUp(reason=Reason.NOT_RETRYABLE)
    bound = max_attempts if rule is policy else min(max_attempts, rule.max_attempts)
    if failures >= bound:
        return GiveUp(reason=Reason.ATTEMPTS_EXHAUSTED)
    if failure.after_seconds is not None:
        return TryAgain(after_seconds=min(max(failure.after_seconds, 0.0), MAX_WAIT_SECONDS))
    return TryAgain(after_seconds=backoff(rule, failures, random))


def decide_crash(policy: Retry, *, crashes: int, crash_limit: int, random: Random) -> Decision:
    """Decide what follows a crash that was charged to the job; `crashes` counts them with this one."""
    if crashes >= crash_limit:
        return GiveUp(reason=Reason.POISON)
    return TryAgain(after_seconds=backoff(policy, crashes, random))


def backoff(policy: Retry, failures: int, random: Random) -> float:
    """Give the wait in seconds after that many failures: exponential, capped, with jitter taken off."""
    doubled = policy.backoff_seconds * 2.0 ** min(max(failures - 1, 0), 60)
    wait = min(doubled, policy.max_backoff_seconds)
    return wait * (1 - policy.jitter * random.random())


def _rule_for(policy: Retry, error_types: tuple[str, ...]) -> Retry | None:
    hopeless = {qualified_name(error) for error in policy.give_up_on}
    rules = {qualified_name(error): rule for error, rule in policy.rules.items()}
    for name in error_types:
        if name in hopeless:
            return None
        if name in rules:
            return rules[name]
    return policy
