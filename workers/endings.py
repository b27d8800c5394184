"""What an attempt's outcome means for its job: pure decisions, ready to be recorded."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from uuid import UUID

import msgspec

from taskplatform.job import AttemptEnd, Failed, Failure, Outcome, Reason, State, Succeeded, Trouble
from taskplatform.retry import GiveUp, Retry, TryAgain, backoff, decide, decide_crash
from taskplatform.store.statements import error_text as plain_error
from taskplatform.store.working import MOST_PASSES, Claimed, Ended, Ending, GivenBack, PutOff

MOST_ATTEMPTS = 1000
"""Stands for "no bound" where the task itself counts its retries."""

_OLDER = Retry(max_attempts=MOST_PASSES, backoff_seconds=0.25, max_backoff_seconds=300.0, jitter=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a worker has to know about a task; `counts_retries` is set for plain Celery tasks: they count themselves."""

    policy: Retry
    max_attempts: int
    counts_retries: bool = False
    version: int = 1
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as it ended. Times are epoch seconds; `failures` and `crashes` were charged before it."""

    id: UUID
    attempt: int
    failures: int
    crashes: int
    max_attempts: int
    started: float
    stopped: float
    outcome: Outcome


def conclude(run: Run, traits: Traits, *, crash_limit: int, random: Random) -> Ended | PutOff:
    """Decide what becomes of a job after this attempt."""
    match run.outcome:
        case Succeeded(result=result):
            return Ended(
                id=run.id,
                attempt=run.attempt,
                state=State.SUCCEEDED,
                end=AttemptEnd.SUCCEEDED,
                started=run.started,
                stopped=run.stopped,
                result=result,
            )
        case Failed(failure=failure):
            return _conclude_failure(run, failure, traits, crash_limit, random)


def too_new(claim: Claimed, task: str, known: int, now: float, random: Random) -> Ended | GivenBack:
    """Decide what becomes of a claimed job whose task a worker knows only in an older version, `known`.

    It is given back, each time for longer, so that a worker with its version may take it. After about half an hour
    of that, which nobody is charged for, it is dead if no such worker lives. `now` is in epoch seconds.
    """
    wanted = f"version {claim.task_version} of {task!r}"
    error = plain_error("UnknownVersion", f"the job needs {wanted}, and the worker that took it runs version {known}")
    times = claim.passes + 1
    if times < _OLDER.max_attempts or claim.served:
        wait = backoff(_OLDER, times, random)
        return GivenBack(id=claim.id, attempt=claim.attempt, wait_seconds=wait, error=error)
    return Ended(
        id=claim.id,
        attempt=claim.attempt,
        state=State.DEAD,
        end=AttemptEnd.RELEASED,
        started=now,
        stopped=now,
        reason=Reason.UNKNOWN_VERSION,
        error=error,
    )


def handed_back(outcome: Outcome) -> bool:
    """Tell whether the task gave its job back."""
    return isinstance(outcome, Failed) and outcome.failure.trouble is Trouble.HANDED_BACK


def error_text(failure: Failure) -> str:
    """Write a failure as the JSON text that records and readers share."""
    return msgspec.json.encode(
        {
            "trouble": failure.trouble,
            "type": failure.error_types[0] if failure.error_types else None,
            "message": failure.message,
            "traceback": failure.traceback,
        }
    ).decode()


def unstorable(ending: Ending, detail: str) -> Ending:
    """Give the ending of a job whose own ending Postgres refuses to store."""
    if isinstance(ending, GivenBack):
        return ending
    failure = Failure(trouble=Trouble.BAD_RESULT, message=f"the outcome cannot be stored: {detail}")
    return Ended(
        id=ending.id,
        attempt=ending.attempt,
        state=State.DEAD,
        end=AttemptEnd.FAILED,
        started=ending.started,
        stopped=ending.stopped,
        reason=Reason.NOT_RETRYABLE,
        error=error_text(failure),
        failed=1,
    )


def _conclude_failure(run: Run, failure: Failure, traits: Traits, crash_limit: int, random: Random) -> Ended | PutOff:
    crashed = failure.trouble is Trouble.CRASH
    if crashed:
        decision = decide_crash(traits.policy, crashes=run.crashes + 1, crash_limit=crash_limit, random=random)
    else:
        counted = traits.counts_retries and failure.trouble is Trouble.RETRY_LATER
        bound = MOST_ATTEMPTS if counted else run.max_attempts
        decision = decide(traits.policy, failure, failures=run.failures + 1, max_attempts=bound, random=random)
    end = AttemptEnd.CRASHED if crashed else AttemptEnd.FAILED
    match decision:
        case GiveUp(reason=reason):
            return Ended(
                id=run.id,
                attempt=run.attempt,
                state=State.DEAD,
                end=end,
                started=run.started,
                stopped=run.stopped,
                reason=reason,
                error=error_text(failure),
                failed=int(not crashed),
                crashed=int(crashed),
            )
        case TryAgain(after_seconds=wait):
            return PutOff(
                id=run.id,
                attempt=run.attempt,
                wait_seconds=wait,
                end=end,
                started=run.started,
                stopped=run.stopped,
                error=error_text(failure),
                failed=int(not crashed),
                crashed=int(crashed),
            )
