"""The command that looks whether everything is in place, and says what to do where it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer

from taskplatform.cli.finding import Finding, Health, doubtful, fine, skipped, wrong
from taskplatform.cli.output import FAILED, UNAVAILABLE, AsJson, show, show_json
from taskplatform.cli.session import api_client, with_store
from taskplatform.errors import SettingsError, TaskplatformError, Unavailable

if TYPE_CHECKING:
    from taskplatform.cache.contract import Cache
    from taskplatform.overview import Glance, Overview
    from taskplatform.reconciler import Account
    from taskplatform.settings import Settings

_LOOK_SECONDS = 0.5


def doctor(*, as_json: AsJson = False) -> None:
    """Look whether everything that the settings name is in place, and say in a line each what to do where it is not.

    Ends with 3 when a server is away, with 1 when a promise does not hold, and with 0 otherwise.
    """
    from taskplatform.settings import load

    findings = _look(load())
    if as_json:
        show_json(findings)
    else:
        for finding in findings:
            show(finding.line)
    worst = {finding.health for finding in findings}
    if Health.AWAY in worst:
        raise typer.Exit(UNAVAILABLE)
    if Health.WRONG in worst:
        raise typer.Exit(FAILED)


def _look(settings: Settings) -> list[Finding]:
    from taskplatform.cli.diagnosis import of_exposure, servers_to_look_at

    named = servers_to_look_at(settings)
    inside = [
        *(_database(settings) if "database_url" in named else [_unnamed("postgres", "database_url")]),
        *(_broker(settings) if "broker_url" in named else [_unnamed("broker", "broker_url")]),
    ]
    unfit = {finding.part.partition(" ")[0] for finding in inside if finding.health is not Health.OK}
    findings = [*_tasks(settings), *of_exposure(settings), *inside, *_replicas(settings), *_cache(settings)]
    findings += _retention(settings)
    if not unfit & {"postgres", "tables", "broker", "queues"}:
        findings += _accounts(settings)
    findings += _api(settings) if "api_url" in named else [_unnamed("api", "api_url")]
    if not unfit & {"postgres", "tables"}:
        findings.append(_versions(lambda: with_store(settings, lambda store: store.glance())))
    elif "api_url" in named:
        findings.append(_versions(_overview))
    return findings


def _unnamed(part: str, setting: str) -> Finding:
    return skipped(part, f"the settings name no {setting}", f"set TASKPLATFORM_{setting.upper()}")


def _signing(settings: Settings) -> Finding:
    if settings.signing_keys:
        return fine("signing keys", f"{len(settings.signing_keys)} set")
    hint = "set TASKPLATFORM_SIGNING_KEYS to a random secret of 32 characters or more"
    return wrong("signing keys", "none set", hint)


def _tasks(settings: Settings) -> Iterator[Finding]:
    from taskplatform.cli.processes import own_tasks

    if not settings.task_modules:
        yield _unnamed("task modules", "task_modules")
        return
    try:
        tasks = own_tasks(settings)
    except SettingsError as error:
        hint = "run where these modules can be imported, or correct TASKPLATFORM_TASK_MODULES"
        yield wrong("task modules", str(error), hint)
        return
    if tasks:
        yield fine("task modules", f"{len(tasks)} tasks")
    else:
        yield doubtful("task modules", "0 tasks", "workers need TASKPLATFORM_TASK_MODULES")


def _database(settings: Settings) -> Iterator[Finding]:
    for number, dsn in enumerate(settings.cluster_dsns()):
        for finding in _cluster(settings, dsn, "DATABASE_CLUSTER_URLS" if number else "DATABASE_URL"):
            yield replace(finding, part=f"{finding.part} {number}") if number else finding


def _cluster(settings: Settings, dsn: str, setting: str) -> Iterator[Finding]:
    from taskplatform.cli.diagnosis import of_contents, of_database
    from taskplatform.store.postgres.checkup import look, look_inside

    try:
        found = look(dsn)
        yield from of_database(found)
        if found.revision == found.newest:
            yield from of_contents(look_inside(dsn), settings)
    except TaskplatformError as error:
        yield _trouble("postgres", error, f"start it, or correct TASKPLATFORM_{setting}")


def _replicas(settings: Settings) -> Iterator[Finding]:
    from taskplatform.store.postgres.checkup import is_standby

    hint = "start it, or correct TASKPLATFORM_DATABASE_REPLICA_URLS"
    for number, dsn in enumerate(settings.replica_dsns(), start=1):
        try:
            follows = is_standby(dsn)
        except TaskplatformError as error:
            # The primary answers in its place.
            trouble = _trouble("replica", error, hint)
            yield doubtful("replica", f"number {number}: {trouble.detail}", hint)
            continue
        if follows:
            yield fine("replica", f"number {number} follows")
        else:
            yield doubtful("replica", f"number {number} follows no primary", hint)


def _cache(settings: Settings) -> Iterator[Finding]:
    from taskplatform.wiring import new_cache

    try:
        cache = new_cache(settings)
    except TaskplatformError as error:
        yield _trouble("cache", error, "correct TASKPLATFORM_CACHE_URL")
        return
    if cache is None:
        return
    if asyncio.run(_answers(cache)):
        yield fine("cache", "it answers")
    else:
        # Reads come from Postgres meanwhile.
        yield doubtful("cache", "it does not answer", "start it, or correct TASKPLATFORM_CACHE_URL")


def _retention(settings: Settings) -> Iterator[Finding]:
    from taskplatform.retention_rules import policy_of
    from taskplatform.wiring import new_objects

    try:
        policy_of(settings)
    except TaskplatformError as error:
        yield _trouble("retention", error, "correct TASKPLATFORM_RETENTION_FILE, or TASKPLATFORM_RETENTION_DAYS")
    hint = "see docs/runbooks/ArchiveFailing.md"
    try:
        objects = new_objects(settings)
        if objects is not None:
            asyncio.run(objects.folders(""))
            yield fine("archive", "it answers")
    except Unavailable as error:
        # Jobs are kept meanwhile.
        yield doubtful("archive", " ".join(str(error).split()), hint)
    except TaskplatformError as error:
        yield _trouble("archive", error, "correct TASKPLATFORM_ARCHIVE_URL")


async def _answers(cache: Cache) -> bool:
    await cache.start()
    try:
        return cache.connected
    finally:
        await cache.stop()


def _broker(settings: Settings) -> Iterator[Finding]:
    from taskplatform.topology import queues

    yield _signing(settings)
    wanted = [queue.name for queue in queues(settings.pools)]
    try:
        depths = asyncio.run(_depths(settings, wanted))
    except TaskplatformError as error:
        yield _trouble("broker", error, "start it, or correct TASKPLATFORM_BROKER_URL")
        return
    yield fine("broker", f"{sum(depths.values())} messages wait")
    missing = [name for name in wanted if name not in depths]
    if missing:
        yield wrong("queues", f"missing: {', '.join(missing)}", "taskplatform init")
        return
    try:
        asyncio.run(_declare(settings))
    except TaskplatformError as error:
        hint = "when it is empty, delete it and run taskplatform init"
        yield wrong("queues", f"one is not the quorum queue that is needed: {error}", hint)
        return
    yield fine("queues", f"{len(wanted)} declared")


async def _declare(settings: Settings) -> None:
    from taskplatform.wiring import new_broker

    # What is there already with the same arguments stays as it is; with others the broker refuses.
    broker = new_broker(settings)
    try:
        await broker.start()
        await broker.declare(settings.pools)
    finally:
        await broker.stop()


async def _depths(settings: Settings, names: list[str]) -> dict[str, int]:
    from taskplatform.wiring import new_broker

    broker = new_broker(settings)
    try:
        await broker.start()
        return await broker.depths(names)
    finally:
        await broker.stop()


def _accounts(settings: Settings) -> Iterator[Finding]:
    from taskplatform.cli.diagnosis import of_accounts

    try:
        looks = asyncio.run(_account(settings))
    except TaskplatformError as error:
        yield doubtful("jobs", f"cannot be compared with their messages: {error}", "run this again")
        return
    yield from of_accounts(looks)


async def _account(settings: Settings) -> list[dict[str, Account]]:
    from taskplatform.reconciler import Ledger, Missing
    from taskplatform.wiring import new_broker, new_store

    async with AsyncExitStack() as stack:
        store, broker = new_store(settings), new_broker(settings)
        stack.push_async_callback(store.close)
        stack.push_async_callback(broker.stop)
        await broker.start()
        ledger = Ledger(store, broker, settings.pools)
        # The first look learns of pools that the settings do not name.
        await ledger.look()
        looks = [await ledger.look()]
        until = time.monotonic() + 2 * settings.lease_renew_seconds
        while any(account.missing != Missing() for account in looks[-1].values()) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            looks.append(await ledger.look())
        return looks


def _versions(ask: Callable[[], Glance | Overview]) -> Finding:
    from taskplatform.cli.diagnosis import of_versions

    try:
        running = ask().versions
    except TaskplatformError as error:
        hint = "ask with a key of the scope platform:read, or with the settings of an operator"
        return doubtful("versions", f"cannot be compared: {' '.join(str(error).split())}", hint)
    return of_versions(running, version("taskplatform"))


def _overview() -> Overview:
    with api_client() as client:
        return client.overview()


def _api(settings: Settings) -> Iterator[Finding]:
    from taskplatform.client import Unauthorized

    try:
        with api_client() as client:
            tasks = client.tasks()
    except Unauthorized as error:
        yield wrong("api", str(error), "taskplatform keys create, then set TASKPLATFORM_API_KEY")
        return
    except TaskplatformError as error:
        yield _trouble("api", error, f"start it, or correct TASKPLATFORM_API_URL (now {settings.api_url})")
        return
    yield fine("api", settings.api_url)
    if tasks:
        yield fine("tasks", f"{len(tasks)} announced")
    else:
        yield doubtful("tasks", "0 announced", "start a worker, or run taskplatform init")


def _trouble(part: str, error: TaskplatformError, hint: str) -> Finding:
    health = Health.AWAY if isinstance(error, Unavailable) else Health.WRONG
    return Finding(part=part, health=health, detail=" ".join(str(error).split()), hint=hint)
