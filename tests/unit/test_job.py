"""The table of transitions."""

from taskplatform.job import LIVE, TERMINAL, TRANSITIONS, Actor, State


def test_every_state_is_live_or_terminal() -> None:
    assert set(State) == LIVE | TERMINAL
    assert not LIVE & TERMINAL


def test_only_a_replay_leaves_a_terminal_state() -> None:
    leaving = {arrow: who for arrow, who in TRANSITIONS.items() if arrow[0] in TERMINAL}

    assert leaving == {(State.DEAD, State.QUEUED): Actor.OPERATOR}


def test_every_live_state_can_be_cancelled() -> None:
    assert {start for start, end in TRANSITIONS if end is State.CANCELLED} == LIVE


def test_a_job_runs_only_out_of_its_queue() -> None:
    assert [start for start, end in TRANSITIONS if end is State.RUNNING] == [State.QUEUED]


def test_every_state_can_reach_its_end() -> None:
    reaching = set(TERMINAL)
    while new := {start for start, end in TRANSITIONS if end in reaching} - reaching:
        reaching |= new

    assert reaching == set(State)
