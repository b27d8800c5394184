"""Contexts of traces: which are kept, and where an attempt's own begins."""

from uuid import UUID

import pytest

from taskplatform.payload import trace_of
from taskplatform.tracing import is_kept, run_context, run_span_id, trace_id_of

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JOB = UUID("01890000-0000-7000-8000-000000000001")


@pytest.mark.parametrize(("flags", "kept"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_first_flag_says_whether_a_trace_is_kept(flags: str, kept: bool) -> None:
    assert is_kept(TRACE[:-2] + flags) is kept


def test_a_job_without_a_context_is_in_no_trace() -> None:
    assert not is_kept(None)


def test_an_attempt_has_a_context_of_its_own_in_the_trace_of_its_job() -> None:
    first, second = run_context(TRACE, JOB, 1), run_context(TRACE, JOB, 2)

    assert len({TRACE, first, second}) == 3
    assert {trace_id_of(first), trace_id_of(second)} == {trace_id_of(TRACE)}
    assert (trace_of(first), first[36:52], first[-2:]) == (first, f"{run_span_id(JOB, 1):016x}", "01")
