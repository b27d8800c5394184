"""Watches the error budget while a new version takes over: exit status 0 to go on with it, 1 to go back.

    python3 compose/rollout.py --prometheus http://prometheus:9090 --minutes 15

It asks Prometheus for the alerts of config/prometheus/rules that say how fast the budget burns. Standard library alone,
because it runs where a deployment is driven from.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode, urlsplit

ALERTS = ("RequestsBurnFast", "JobsBurnFast", "WaitsBurnFast", "JobsUnaccounted")
"""What ends a rollout: the budget of an objective burns within days, or jobs are lost track of."""
MEASURED = "tp_objective:requests_failed:ratio5m"
"""Has a value when the API was used and was scraped: without it silence means nothing."""
ANSWER_SECONDS = 10.0
SILENT_LOOKS = 3
PENDING_LOOKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at Prometheus showed: alerts that fire, those about to, and whether anything was measured."""

    firing: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()
    measured: bool = False


class Verdict(StrEnum):
    """What to do with the new version."""

    WATCH = "watch"
    GO_ON = "go on"
    GO_BACK = "go back"


def judge(looks: Sequence[Look | None], *, over: bool, quiet_is_fine: bool = False) -> tuple[Verdict, str]:
    """Decide after the newest of these looks (None: no answer), with a reason; `over` when it was watched long enough.

    What ends a rollout: an alert that fires, or was about to in two looks in a row; a Prometheus that answered none of
    the last three, or not the last one; and a time in which nothing was measured, unless `quiet_is_fine`.
    """
    newest = looks[-1]
    if newest is None:
        if over or (len(looks) >= SILENT_LOOKS and not any(looks[-SILENT_LOOKS:])):
            return Verdict.GO_BACK, "Prometheus does not answer: nobody knows how the new version does"
        return Verdict.WATCH, "Prometheus does not answer"
    if newest.firing:
        return Verdict.GO_BACK, f"{_listed(newest.firing)} fires"
    last = [look for look in looks[-PENDING_LOOKS:] if look is not None]
    if len(last) == PENDING_LOOKS and (lasting := frozenset.intersection(*(look.pending for look in last))):
        return Verdict.GO_BACK, f"{_listed(lasting)} is about to fire"
    if not over:
        return Verdict.WATCH, f"{_listed(newest.pending)} may come" if newest.pending else "nothing burns"
    if newest.pending:
        return Verdict.GO_BACK, f"{_listed(newest.pending)} is about to fire, and there is no time left to see"
    if quiet_is_fine or any(look.measured for look in looks if look is not None):
        return Verdict.GO_ON, "nothing burns"
    return Verdict.GO_BACK, f"{MEASURED} had no value: nobody used the API, or nobody scraped it"


class Prometheus:
    """Asks one Prometheus."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// URL")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/")

    def look(self) -> Look | None:
        """Look once; None without an answer that makes sense."""
        names = "|".join(ALERTS)
        try:
            states: dict[str, set[str]] = {"firing": set(), "pending": set()}
            for one in self._ask(f'ALERTS{{alertname=~"{names}"}}'):
                states[one["metric"]["alertstate"]].add(one["metric"]["alertname"])
            measured = any(one["value"][1] != "NaN" for one in self._ask(MEASURED))
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            return None
        return Look(firing=frozenset(states["firing"]), pending=frozenset(states["pending"]), measured=measured)

    def _ask(self, query: str) -> Any:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", f"{self._path}/api/v1/query?{urlencode({'query': query})}")
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise ValueError(f"status {answer.status}")
            return json.loads(answer.read())["data"]["result"]
        finally:
            connection.close()


def watch(prometheus: Prometheus, *, seconds: float, every_seconds: float, quiet_is_fine: bool) -> tuple[Verdict, str]:
    """Look again and again until it is decided, and say what was seen whenever that changes."""
    looks: list[Look | None] = []
    end = time.monotonic() + seconds
    said = ""
    while True:
        looks.append(prometheus.look())
        verdict, reason = judge(looks, over=time.monotonic() >= end, quiet_is_fine=quiet_is_fine)
        if verdict is not Verdict.WATCH:
            return verdict, reason
        if reason != said:
            sys.stdout.write(f"{reason}\n")
            sys.stdout.flush()
            said = reason
        time.sleep(max(min(every_seconds, end - time.monotonic()), 0.0))


def main(words: Sequence[str] | None = None) -> int:
    """Watch as the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(prog="rollout.py", description="Watch the error budget during a rollout.")
    parser.add_argument("--prometheus", required=True, help="URL of Prometheus")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long to watch; 0: look once")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two looks")
    parser.add_argument("--quiet-is-fine", action="store_true", help="go on although nothing was measured")
    asked = parser.parse_args(words)
    try:
        prometheus = Prometheus(asked.prometheus)
    except ValueError as error:
        parser.error(str(error))
    verdict, reason = watch(
        prometheus, seconds=asked.minutes * 60, every_seconds=asked.every, quiet_is_fine=asked.quiet_is_fine
    )
    sys.stdout.write(f"{verdict}: {reason}\n")
    return 0 if verdict is Verdict.GO_ON else 1


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


if __name__ == "__main__":
    sys.exit(main())
