"""A real Prometheus on loopback over the configuration of this checkout, with time made short for tests."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import pytest

from taskplatform.servers import Command, Process, free_ports
from taskplatform.servers.configuration import CLEAN_ENVIRONMENT

CONFIG = Path(__file__).parents[2] / "config"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FASTER = 60
"""In a live test an hour of a rule is a minute."""


def program(name: str) -> str:
    """Find a program; without it the test is skipped, and fails in CI."""
    found = shutil.which(name)
    if found is not None:
        return found
    reason = f"{name} is not installed; `make servers` installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def hastened(rules: str) -> str:
    """Rewrite rules for a test: every range and every `for:` is FASTER times shorter, within what can be measured."""

    def window(match: re.Match[str]) -> str:
        return f"[{_shorter(match, least=6, most=60)}s]"

    def patience(match: re.Match[str]) -> str:
        return f"for: {_shorter(match, least=1, most=3)}s"

    return re.sub(r"for: (\d+)([smhd])\b", patience, re.sub(r"\[(\d+)([smhd])\]", window, rules))


def _shorter(match: re.Match[str], *, least: int, most: int) -> int:
    return min(max(int(match[1]) * SECONDS[match[2]] // FASTER, least), most)


class Prometheus:
    """Scrapes once a second; a context manager. `targets` are addresses by the label `part`."""

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]], alertmanager: str | None = None) -> None:
        self._folder = folder
        self._targets = targets
        self._alertmanager = alertmanager
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.process = Process(
            Command(
                name="Prometheus",
                argv=(
                    program("prometheus"),
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    "--enable-feature=exemplar-storage",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ),
                log=folder / "prometheus.log",
                env=CLEAN_ENVIRONMENT,
            )
        )

    def __enter__(self) -> Self:
        self._configure()
        self.process.start(self._ready, within_seconds=60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Ask for the values of now that are numbers, with the labels of each."""
        answer = self._get("query", query=query)
        found = [(one["metric"], float(one["value"][1])) for one in answer["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def traces(self, query: str) -> set[str]:
        """Name the traces that the exemplars of the last minute point to."""
        now = time.time()
        series = self._get("query_exemplars", query=query, start=str(now - 60), end=str(now + 1))
        return {exemplar["labels"]["trace_id"] for one in series for exemplar in one["exemplars"]}

    def firing(self) -> set[str]:
        """Name the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}

    def alertmanagers(self) -> list[str]:
        """Name those whom alerts are handed to; before one is known, alerts are dropped."""
        return [one["url"] for one in self._get("alertmanagers")["activeAlertmanagers"]]

    def down(self) -> list[str]:
        """Name the targets that could not be scraped last."""
        return [one["scrapeUrl"] for one in self._get("targets")["activeTargets"] if one["health"] != "up"]

    def _get(self, what: str, **parameters: str) -> Any:
        answer = httpx2.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=10)
        told = answer.json()
        assert told["status"] == "success", (parameters, told)
        return told["data"]

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def _configure(self) -> None:
        for name in ("rules", "targets", "alertmanagers"):
            (self._folder / name).mkdir(parents=True)
        written = (CONFIG / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
        written = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s", r"\1: 1s", written)
        (self._folder / "prometheus.yml").write_text(written, encoding="utf-8")
        for rules in (CONFIG / "prometheus" / "rules").iterdir():
            text = hastened(rules.read_text(encoding="utf-8"))
            (self._folder / "rules" / rules.name).write_text(text, encoding="utf-8")
        for part, addresses in self._targets.items():
            job = part if part in ("rabbitmq", "prometheus") else f"taskplatform-{part}"
            group = [{"targets": list(addresses), "labels": {"part": part}}]
            # JSON is YAML.
            (self._folder / "targets" / f"{job}.yml").write_text(json.dumps(group), encoding="utf-8")
        if self._alertmanager is not None:
            group = [{"targets": [self._alertmanager], "labels": {}}]
            (self._folder / "alertmanagers" / "alertmanager.yml").write_text(json.dumps(group), encoding="utf-8")
