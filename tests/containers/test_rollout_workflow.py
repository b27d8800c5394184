"""The rollout as a forge would carry it out, step by step: what is done to the release, and what is taken back.

Shell, jq and compose/rollout.py are real. Helm only notes what it was told, and Prometheus says what a case wants.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.containers.tools import ROOT
from tests.fixtures.answering import answering

_DIGEST = "sha256:" + "0" * 64
_JOB = yaml.safe_load((ROOT / ".github" / "workflows" / "rollout.yml").read_text(encoding="utf-8"))["jobs"]["rollout"]
_GO_BACK_IF = "${{ !success() && steps.before.outputs.revision != '' }}"
_SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
"""What a forge calls for `shell: bash`."""
_HELM = """#!/bin/sh
if [ "$1" = history ]; then cat "$CASE/history"; else echo "$@" >>"$CASE/told"; fi
[ "$1" != upgrade ] || [ ! -e "$CASE/upgrade-fails" ]
"""


@dataclass
class Rollout:
    """One run of the workflow; the budget burns from when Helm has upgraded so often (None: never)."""

    folder: Path
    burns_after: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def told(self) -> list[str]:
        """Give what Helm was told that changes anything, a line each."""
        file = self.folder / "told"
        return file.read_text().splitlines() if file.exists() else []

    def upgrades(self) -> list[str]:
        return [line for line in self.told() if line.startswith("upgrade ")]

    def run(self) -> bool:
        """Carry the steps out; tells whether all of them succeeded."""
        succeeded = True
        for step in (one for one in _JOB["steps"] if "run" in one):
            assert step.get("if", _GO_BACK_IF) == _GO_BACK_IF, "a condition that this test does not know"
            wanted = not succeeded and self.outputs.get("revision") if "if" in step else succeeded
            if wanted:
                succeeded = self._carry_out(step) and succeeded
        return succeeded

    def _carry_out(self, step: Mapping[str, Any]) -> bool:
        (output := self.folder / "output").write_text("")
        given = {name: self._meant(text) for name, text in {**_JOB["env"], **step.get("env", {})}.items()}
        path = f"{self.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "CASE": str(self.folder), "GITHUB_OUTPUT": str(output), **given}
        environment |= {"GITHUB_REPOSITORY": "shop/platform"}
        done = subprocess.run([*_SHELL, step["run"]], cwd=ROOT, env=environment, check=False, timeout=60)
        if step.get("id") == "before":
            self.outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done.returncode == 0

    def _meant(self, text: str) -> str:
        known = {
            "inputs.digest": _DIGEST,
            "inputs.canary_minutes": "0",
            "inputs.watch_minutes": "0",
            "vars.RELEASE": "tp",
            "vars.NAMESPACE": "jobs",
            "vars.PROMETHEUS_URL": f"http://127.0.0.1:{self.port}",
            "steps.before.outputs.revision": self.outputs.get("revision", ""),
        }
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)

    def answer(self, query: str) -> list[Any]:
        """Answer as Prometheus would."""
        if not query.startswith("ALERTS"):
            return [{"metric": {}, "value": [0, "0.001"]}]
        burns = self.burns_after is not None and len(self.upgrades()) >= self.burns_after
        return [{"metric": {"alertname": "JobsBurnFast", "alertstate": "firing"}}] if burns else []


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[Rollout]:
    """A workflow that has not begun, of a release whose third revision failed and whose second runs."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    case = Rollout(tmp_path)
    history = [{"revision": n, "status": status} for n, status in enumerate(("superseded", "deployed", "failed"), 1)]
    (tmp_path / "history").write_text(json.dumps(history))
    for name, script in (("helm", _HELM), ("cosign", "#!/bin/sh\n")):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    def found(path: str) -> str:
        return json.dumps({"data": {"result": case.answer(parse_qs(urlsplit(path).query)["query"][0])}})

    with answering(found) as case.port:
        yield case


def test_a_version_with_which_nothing_burns_is_a_canary_first_and_then_all_of_it(rollout: Rollout) -> None:
    assert rollout.run()

    canary, everything = rollout.told()
    assert f"--set canary.enabled=true --set-string canary.digest={_DIGEST}" in canary
    assert f"--set canary.enabled=false --set-string canary.digest= --set-string image.digest={_DIGEST}" in everything


@pytest.mark.parametrize("upgrades", [1, 2])
def test_a_budget_that_burns_brings_the_revision_from_before_back(rollout: Rollout, upgrades: int) -> None:
    rollout.burns_after = upgrades

    assert not rollout.run()

    *changes, last = rollout.told()
    assert len(changes) == upgrades
    assert last.split()[:3] == ["rollback", "tp", "2"]


def test_an_upgrade_that_fails_is_taken_back(rollout: Rollout) -> None:
    (rollout.folder / "upgrade-fails").touch()

    assert not rollout.run()

    assert [line.split()[0] for line in rollout.told()] == ["upgrade", "rollback"]


def test_nothing_is_touched_while_the_budget_burns_already(rollout: Rollout) -> None:
    rollout.burns_after = 0

    assert not rollout.run()

    assert rollout.told() == []


def test_nothing_is_touched_where_there_is_nothing_to_go_back_to(rollout: Rollout) -> None:
    (rollout.folder / "history").write_text('[{"revision": 1, "status": "failed"}]')

    assert not rollout.run()

    assert rollout.told() == []
