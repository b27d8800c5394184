"""What a look at Postgres and at the settings means: pure, a finding for each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from taskplatform.cli.finding import Finding, doubtful, fine, wrong
from taskplatform.reconciler import Account, least
from taskplatform.settings import Settings
from taskplatform.store.postgres.checkup import Checkup, Contents

_SKEW_SECONDS = 1.0
_LATE_SECONDS = 30.0
_FULL = 0.9
_SERVERS = frozenset({"database_url", "broker_url", "api_url"})
_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  What listens there is what is looked for.


def servers_to_look_at(settings: Settings) -> frozenset[str]:
    """Give those of database_url, broker_url and api_url that the settings name; where they name none, all of them."""
    named = settings.model_fields_set
    # Whoever has a key has an API, if only the one that every command asks where nothing is said.
    also = {"api_url"} if "api_key" in named else set()
    return (_SERVERS & named) | also or _SERVERS


def of_versions(running: Mapping[str, Collection[str]], own: str) -> Finding:
    """Judge which versions run, by the kind of process, beside the one that looks."""
    if not running:
        return doubtful("versions", "no process tells which version it is", "let them connect to Postgres")
    if {version for versions in running.values() for version in versions} == {own}:
        return fine("versions", f"{own}: {', '.join(sorted(running))}, and this command")
    told = "; ".join(f"{part} {', '.join(sorted(versions))}" for part, versions in sorted(running.items()))
    hint = "end the rollout: start again what is of another version"
    return doubtful("versions", f"a mix: {told}; this command {own}", hint)


def of_accounts(looks: Sequence[Mapping[str, Account]]) -> Iterator[Finding]:
    """Judge what is owed and where it is: a job is missing that was so at every look at its pool."""
    for pool, account in sorted(looks[-1].items()):
        held = least(look[pool].missing for look in looks if pool in look)
        found = account.found
        carrying = f" (each of up to {found.most_jobs} jobs)" if found.most_jobs > 1 else ""
        told = (
            f"pool {pool}: {account.owed.queued} wait for a worker; messages: {found.outbox} in the outbox,"
            f" {found.broker} in the broker{carrying}, {found.fetched} fetched by workers"
        )
        if held.message or held.worker:
            hint = "look for a dispatcher, which publishes and rescues them; docs/runbooks/JobsUnaccounted.md"
            yield wrong("jobs", f"{told}; {held.message} lack a message, {held.worker} a worker", hint)
        else:
            yield fine("jobs", told)


def of_database(found: Checkup) -> Iterator[Finding]:
    """Judge the server and its tables."""
    yield fine("postgres", f"version {found.version}")
    yield _tables(found)
    yield _clocks(found)
    yield _durability(found)
    used = found.sessions / found.max_connections
    if used > _FULL:
        detail = f"{found.sessions} of {found.max_connections} are in use"
        yield doubtful("connections", detail, "raise max_connections, or run fewer processes")
    else:
        yield fine("connections", f"{found.sessions} of {found.max_connections}")


def of_contents(found: Contents, settings: Settings) -> Iterator[Finding]:
    """Judge what is in the tables."""
    if found.unserved_pools:
        pools = ", ".join(found.unserved_pools)
        yield wrong("workers", f"jobs wait and no worker takes them: {pools}", "start a worker of that pool")
    else:
        yield fine("workers", "every pool with work has one")
    yield _dispatchers(found)
    if found.archiving and not settings.archive_url:
        hint = "set TASKPLATFORM_ARCHIVE_URL on every dispatcher, or run taskplatform archive off"
        yield doubtful("archive", "jobs are archived, and a dispatcher with these settings forgets none", hint)
    yield from _keys(found, settings)


def of_exposure(settings: Settings) -> Iterator[Finding]:
    """Judge what the settings open to others."""
    if settings.allow_unsigned_messages:
        hint = "let producers sign, then set TASKPLATFORM_ALLOW_UNSIGNED_MESSAGES=false"
        yield doubtful("messages", "unsigned ones are taken: whoever reaches the broker runs tasks", hint)
    if settings.metrics_port and settings.metrics_host in _ANYWHERE:
        detail = f"port {settings.metrics_port} answers on every address, without a key"
        yield doubtful("metrics", detail, "set TASKPLATFORM_METRICS_HOST, or keep the port inside the network")


def _tables(found: Checkup) -> Finding:
    if found.revision == found.newest:
        return fine("tables", f"revision {found.revision}")
    return wrong("tables", f"revision {found.revision}, needed {found.newest}", "taskplatform init")


def _clocks(found: Checkup) -> Finding:
    detail = f"Postgres is {found.ahead_seconds:+.3f} s from here"
    if abs(found.ahead_seconds) > _SKEW_SECONDS + found.within_seconds:
        return doubtful("clocks", detail, "let both follow the same time servers")
    return fine("clocks", detail)


def _durability(found: Checkup) -> Finding:
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if found.settings[name] == "off"]
    if off:
        return wrong("durability", f"{', '.join(off)} is off: an accepted job may be lost", "switch it on in Postgres")
    wanted = found.settings["synchronous_standby_names"]
    if not wanted:
        return fine("durability", "a commit is on the primary's disk; no standby has to have it")
    if found.standbys == 0:
        return wrong("durability", f"no standby of {wanted} answers: commits wait", "start a standby")
    return fine("durability", f"a commit is on standbys too: {wanted}")


def _dispatchers(found: Contents) -> Finding:
    hint = "start a dispatcher, or look at its log"
    if found.left_running:
        return wrong("dispatcher", f"{found.left_running} jobs run for workers that are gone, nobody rescues", hint)
    if found.overdue_seconds > _LATE_SECONDS:
        return wrong("dispatcher", f"the first due job is {found.overdue_seconds:.0f} s late", hint)
    if found.outbox_seconds > _LATE_SECONDS:
        return wrong("dispatcher", f"messages wait for {found.outbox_seconds:.0f} s in the outbox", hint)
    return fine("dispatcher", "nothing waits for one")


def _keys(found: Contents, settings: Settings) -> Iterator[Finding]:
    make = "taskplatform keys create"
    for name, seconds in found.ending_keys:
        state = "has expired" if seconds <= 0 else f"expires in {seconds / 3600:.0f} h"
        yield doubtful("api keys", f"{name} {state}", f"{make}, hand it out, and revoke the old one")
    if not found.living_keys:
        where = " and the API listens on every address" if settings.api_host in _ANYWHERE else ""
        yield wrong("api keys", f"none lets anybody in{where}", make)
    elif not found.ending_keys:
        yield fine("api keys", f"{found.living_keys}")
