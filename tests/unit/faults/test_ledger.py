"""The checker sees every kind of broken promise, and none in a run that kept them."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from tests.faults.evidence import Evidence, Record
from tests.faults.history import Effect, Exchange
from tests.faults.ledger import judge
from tests.faults.plan import Kind, kind_of

_SEED = 7
_JOB = "0190c3a0-0000-7000-8000-000000000001"
_NUMBER = next(number for number in range(100) if kind_of(_SEED, number) is Kind.NOOP)
_OUTPUT: dict[str, Any] = {"number": _NUMBER, "attempt": 1, "pid": 10}
_RECORD = Record(id=_JOB, number=_NUMBER, state="succeeded", attempt=1, result=_OUTPUT)


def _exchange(
    *ids: str | None, status: int = 202, key: str | None = "key", number: int = _NUMBER, reused: bool = False
) -> Exchange:
    return Exchange(
        request=0,
        numbers=[number],
        keys=[key],
        payload_sha256="",
        sent_at=1.0,
        answered_at=2.0,
        status=status,
        ids=list(ids),
        reused=reused,
    )


def _effects(attempt: int = 1, job: str = _JOB) -> list[Effect]:
    output = _OUTPUT | {"attempt": attempt}
    return [
        Effect(job=job, attempt=attempt, pid=10, at=1.0, done=False),
        Effect(job=job, attempt=attempt, pid=10, at=1.0, done=True, output=output),
    ]


KEPT = Evidence(
    exchanges=[_exchange(_JOB)],
    effects=_effects(),
    records=[_RECORD],
    attempts=[(_JOB, 1, "succeeded")],
    endings={_JOB: 1},
    letters={},
    shown={_JOB: ("succeeded", _OUTPUT)},
)


def test_a_job_whose_request_never_left_was_not_submitted() -> None:
    never = structs.replace(_exchange(None, status=0), sent=False)

    ledger = judge(replace(KEPT, exchanges=[never]), _SEED)

    assert ledger.unexpected == [f"{_JOB}: a job that nobody submitted"]
    assert (ledger.attempted, ledger.unknown) == (0, 0)


def test_a_run_that_kept_its_promises_has_no_breach() -> None:
    ledger = judge(KEPT, _SEED)

    assert ledger.breaches == {}
    assert ledger.line == "ledger accepted=1 terminal=1 lost=0 duplicate_keys=0 second_results=0 executed_twice=0"


@pytest.mark.parametrize("records", [[], [replace(_RECORD, state="queued", result=None)]])
def test_an_accepted_job_that_is_gone_or_has_not_ended_is_lost(records: list[Record]) -> None:
    ledger = judge(replace(KEPT, records=records), _SEED)

    assert ledger.lost == [_JOB]


def test_two_answers_for_one_key_are_two_acceptances() -> None:
    ledger = judge(replace(KEPT, exchanges=[_exchange(_JOB), _exchange("another")]), _SEED)

    assert len(ledger.duplicate_keys) == 1


def test_two_jobs_for_one_key_are_seen_though_only_one_was_answered() -> None:
    twin = replace(_RECORD, id="0190c3a0-0000-7000-8000-000000000002")

    ledger = judge(replace(KEPT, records=[_RECORD, twin]), _SEED)

    assert len(ledger.duplicate_keys) == 1


def test_another_body_under_a_known_key_must_be_refused() -> None:
    ledger = judge(replace(KEPT, exchanges=[_exchange(_JOB), _exchange(None, status=202, reused=True)]), _SEED)

    assert len(ledger.duplicate_keys) == 1


def test_a_refused_reuse_of_a_key_breaks_nothing() -> None:
    ledger = judge(replace(KEPT, exchanges=[_exchange(_JOB), _exchange(None, status=422, reused=True)]), _SEED)

    assert ledger.breaches == {}


def test_an_end_that_was_written_twice_is_a_second_result() -> None:
    ledger = judge(replace(KEPT, endings={_JOB: 2}), _SEED)

    assert len(ledger.second_results) == 1


def test_the_result_of_a_run_that_had_lost_its_job_is_a_second_result() -> None:
    late = replace(KEPT, records=[replace(_RECORD, attempt=2)], attempts=[(_JOB, 1, "lost"), (_JOB, 2, "succeeded")])

    assert len(judge(late, _SEED).second_results) == 1


def test_a_result_without_an_effect_is_a_second_result() -> None:
    assert len(judge(replace(KEPT, effects=[]), _SEED).second_results) == 1


def test_a_job_that_was_done_twice_is_counted_and_breaks_nothing() -> None:
    output = _OUTPUT | {"attempt": 2}
    rerun = replace(
        KEPT,
        effects=[*_effects(1), *_effects(2)],
        records=[replace(_RECORD, attempt=2, result=output)],
        attempts=[(_JOB, 1, "lost"), (_JOB, 2, "succeeded")],
        shown={_JOB: ("succeeded", output)},
    )

    ledger = judge(rerun, _SEED)

    assert (ledger.executed_twice, ledger.breaches) == (1, {})


def test_one_attempt_must_not_run_twice() -> None:
    assert len(judge(replace(KEPT, effects=[*_effects(), *_effects()]), _SEED).same_attempt_twice) == 1


def test_an_attempt_that_ran_must_be_on_record() -> None:
    assert len(judge(replace(KEPT, attempts=[]), _SEED).unrecorded_attempts) == 1


def test_a_job_that_nobody_submitted_is_unexpected() -> None:
    stranger = replace(_RECORD, id="0190c3a0-0000-7000-8000-000000000003", number=-5)

    assert len(judge(replace(KEPT, records=[_RECORD, stranger]), _SEED).unexpected) == 1


def test_an_effect_without_a_job_is_unexpected() -> None:
    assert len(judge(replace(KEPT, effects=[*_effects(), *_effects(job="nobody's")]), _SEED).unexpected) == 1


def test_a_cut_off_submission_may_have_made_its_job() -> None:
    unknown = replace(KEPT, exchanges=[_exchange(None, status=0, key=None)], shown={})

    ledger = judge(unknown, _SEED)

    assert (ledger.unknown, ledger.accepted, ledger.breaches) == (1, 0, {})


def test_a_job_that_ends_as_it_should_not_is_seen() -> None:
    dead = replace(
        KEPT, records=[replace(_RECORD, state="dead", result=None, reason="attempts_exhausted")], letters={_JOB: 1}
    )

    assert len(judge(dead, _SEED).wrong_ends) == 1


def test_a_dead_job_without_a_dead_letter_is_seen() -> None:
    dead = replace(KEPT, records=[replace(_RECORD, state="dead", result=None, reason="poison", crashes=3)])

    assert len(judge(dead, _SEED).wrong_letters) == 1


def test_the_api_must_show_what_is_on_record() -> None:
    assert len(judge(replace(KEPT, shown={_JOB: ("running", None)}), _SEED).wrong_views) == 1
