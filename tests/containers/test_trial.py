"""What a trial makes of the events that the engine told: a fleet within its maximum, and one that went beyond it."""

import pytest

from tests.containers.trial.fleet import Event, Fleet, exit_statuses, follow


def _told(text: str) -> list[Event]:
    """Read events: +a was started, ~a got a signal, -a ended with 0."""
    actions = {"+": "start", "~": "kill", "-": "die"}
    return [
        Event(container=word[1], action=actions[word[0]], exit_status=0 if word[0] == "-" else None)
        for word in text.split()
    ]


@pytest.mark.parametrize(
    ("text", "breached"),
    [
        ("+b ~b -b", False),
        ("+b ~b +c ~a +d -a -b ~c -c", False),
        ("~a -a +a +b ~b -b", False),
        ("+b +c ~b ~c -b -c", True),
        ("+b ~b +c ~c +d ~d +e -b -c -d -e", True),
        ("~a +b -a", True),
        ("+b ~b", True),
    ],
    ids=[
        "as promised",
        "others take the places of those that drain",
        "one is killed and started again",
        "one too many at work",
        "too many at all",
        "it never grew",
        "it never shrank",
    ],
)
def test_a_fleet_is_held_to_its_maximum_without_those_that_drain(text: str, breached: bool) -> None:
    assert bool(follow(["a"], _told(text)).breaches(2)) is breached


def test_every_size_of_a_fleet_is_counted_and_every_end_that_was_no_kill() -> None:
    events = _told("~a -a +a +b ~a +c -a")

    assert follow(["a"], events) == Fleet(sizes=[1, 0, 1, 2, 3, 2], working=[1, 0, 1, 2, 1, 2])
    assert exit_statuses(events, killed=["a"]) == [0]
