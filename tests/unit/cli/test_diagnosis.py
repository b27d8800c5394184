"""What the doctor makes of what it sees."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from taskplatform.cli.diagnosis import of_contents, of_database, of_exposure
from taskplatform.cli.finding import Finding, Health
from taskplatform.settings import load
from taskplatform.store.postgres.checkup import Checkup, Contents

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
    "max_connections": "100",
}
SOUND = Checkup(
    version="17.1",
    revision="0003",
    newest="0003",
    ahead_seconds=0.01,
    within_seconds=0.005,
    settings=SETTINGS,
    standbys=None,
    sessions=12,
)
QUIET = Contents(
    unserved_pools=[], left_running=0, overdue_seconds=0.2, outbox_seconds=0.0, ending_keys=[], living_keys=2
)
QUORUM = {**SETTINGS, "synchronous_standby_names": "ANY 1 (a, b)"}


def _bad(findings: Iterable[Finding]) -> dict[str, Health]:
    found = [finding for finding in findings if finding.health is not Health.OK]
    assert all(finding.hint for finding in found)
    return {finding.part: finding.health for finding in found}


def test_nothing_is_wrong_with_what_is_sound() -> None:
    settings = load({})

    assert _bad([*of_database(SOUND), *of_contents(QUIET, settings), *of_exposure(settings)]) == {}


@pytest.mark.parametrize(
    ("found", "bad"),
    [
        (replace(SOUND, revision="0002"), {"tables": Health.WRONG}),
        (replace(SOUND, revision=None), {"tables": Health.WRONG}),
        (replace(SOUND, ahead_seconds=-3.0), {"clocks": Health.WARNING}),
        (replace(SOUND, settings={**SETTINGS, "synchronous_commit": "off"}), {"durability": Health.WRONG}),
        (replace(SOUND, settings={**SETTINGS, "fsync": "off"}), {"durability": Health.WRONG}),
        (replace(SOUND, settings=QUORUM, standbys=0), {"durability": Health.WRONG}),
        (replace(SOUND, settings=QUORUM, standbys=1), {}),
        # Who may not see the standbys says nothing about them.
        (replace(SOUND, settings=QUORUM, standbys=None), {}),
        (replace(SOUND, sessions=95), {"connections": Health.WARNING}),
    ],
)
def test_a_server_that_keeps_no_promise_is_named(found: Checkup, bad: dict[str, Health]) -> None:
    assert _bad(of_database(found)) == bad


@pytest.mark.parametrize(
    ("found", "bad"),
    [
        (replace(QUIET, unserved_pools=["gpu"]), {"workers": Health.WRONG}),
        (replace(QUIET, left_running=3), {"dispatcher": Health.WRONG}),
        (replace(QUIET, overdue_seconds=90.0), {"dispatcher": Health.WRONG}),
        (replace(QUIET, outbox_seconds=90.0), {"dispatcher": Health.WRONG}),
        (replace(QUIET, ending_keys=[("shop", -5.0)]), {"api keys": Health.WARNING}),
        (replace(QUIET, living_keys=0), {"api keys": Health.WRONG}),
    ],
)
def test_work_that_nobody_does_and_keys_that_end_are_named(found: Contents, bad: dict[str, Health]) -> None:
    assert _bad(of_contents(found, load({}))) == bad


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"TASKPLATFORM_ALLOW_UNSIGNED_MESSAGES": "true"}, "messages"),
        ({"TASKPLATFORM_METRICS_HOST": "0.0.0.0", "TASKPLATFORM_METRICS_PORT": "9102"}, "metrics"),
    ],
)
def test_what_the_settings_open_to_everybody_is_named(variables: dict[str, str], part: str) -> None:
    assert _bad(of_exposure(load(variables))) == {part: Health.WARNING}
