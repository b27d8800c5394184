"""What the doctor makes of what it sees."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from taskplatform.cli.diagnosis import (
    of_accounts,
    of_contents,
    of_database,
    of_exposure,
    of_versions,
    servers_to_look_at,
)
from taskplatform.cli.finding import Finding, Health
from taskplatform.reconciler import Account, Found
from taskplatform.settings import load
from taskplatform.store.postgres.checkup import Checkup, Contents
from taskplatform.store.watching import Owed

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
    unserved_pools=[],
    left_running=0,
    overdue_seconds=0.2,
    outbox_seconds=0.0,
    ending_keys=[],
    living_keys=2,
    archiving=False,
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
        (replace(QUIET, archiving=True), {"archive": Health.WARNING}),
    ],
)
def test_work_that_nobody_does_and_keys_that_end_are_named(found: Contents, bad: dict[str, Health]) -> None:
    assert _bad(of_contents(found, load({}))) == bad


def test_an_archive_that_the_settings_name_is_no_finding() -> None:
    archived = replace(QUIET, archiving=True)

    assert _bad(of_contents(archived, load({}, archive_url="s3://jobs/first"))) == {}


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"TASKPLATFORM_ALLOW_UNSIGNED_MESSAGES": "true"}, "messages"),
        ({"TASKPLATFORM_METRICS_HOST": "0.0.0.0", "TASKPLATFORM_METRICS_PORT": "9102"}, "metrics"),
    ],
)
def test_what_the_settings_open_to_everybody_is_named(variables: dict[str, str], part: str) -> None:
    assert _bad(of_exposure(load(variables))) == {part: Health.WARNING}


@pytest.mark.parametrize(
    ("named", "servers"),
    [
        ({"api_url": "http://api"}, {"api_url"}),
        ({"api_key": "tp_x"}, {"api_url"}),
        ({"database_url": "dbname=a", "pools": "gpu"}, {"database_url"}),
        ({"database_url": "dbname=a", "api_key": "tp_x"}, {"database_url", "api_url"}),
        ({"pools": "gpu"}, {"database_url", "broker_url", "api_url"}),
    ],
)
def test_servers_that_are_named_are_looked_at_and_all_where_none_is(named: dict[str, str], servers: set[str]) -> None:
    assert servers_to_look_at(load({}, **named)) == servers


@pytest.mark.parametrize(
    ("running", "health"),
    [
        ({"api": ["1.2"], "worker": ["1.2"]}, Health.OK),
        ({"api": ["1.2"], "worker": ["1.2", "1.3"]}, Health.WARNING),
        ({"api": ["1.1"], "worker": ["1.1"]}, Health.WARNING),
        ({}, Health.WARNING),
    ],
)
def test_versions_that_differ_from_each_other_or_from_this_command_are_a_mix(
    running: dict[str, list[str]], health: Health
) -> None:
    assert of_versions(running, "1.2").health is health


def _account(queued: int, *, orphans: int = 0, **found: int) -> Account:
    return Account(owed=Owed(queued=queued, running_without_lease=orphans), found=Found(**found))


@pytest.mark.parametrize(
    ("looks", "health"),
    [
        ([_account(3, broker=3)], Health.OK),
        # Fetched after one look, and told with the lease after the other.
        ([_account(3, broker=1), _account(3, broker=1, fetched=2)], Health.OK),
        ([_account(3, broker=1), _account(2, broker=1)], Health.WRONG),
        ([_account(0, orphans=1), _account(0, orphans=1)], Health.WRONG),
    ],
)
def test_a_job_is_missing_that_nobody_has_at_any_look(looks: list[Account], health: Health) -> None:
    (finding,) = of_accounts([{"default": look} for look in looks])

    assert finding.health is health


def test_a_pool_that_the_first_look_did_not_know_is_judged_by_the_others() -> None:
    looks = [{"default": _account(0)}, {"default": _account(0), "gpu": _account(4, broker=1)}]

    assert [finding.health for finding in of_accounts(looks)] == [Health.OK, Health.WRONG]


def test_messages_that_may_carry_many_jobs_are_told_as_such() -> None:
    told = [
        finding.detail for look in (1, 10) for finding in of_accounts([{"p": _account(5, broker=5, most_jobs=look)}])
    ]

    assert ["in the broker," in text for text in told] == [True, False]
    assert "5 in the broker (each of up to 10 jobs)," in told[1]
