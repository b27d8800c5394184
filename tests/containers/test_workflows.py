"""The workflows of .github: pinned, with no more rights than they need, and about things that there are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.containers.tools import ROOT, tool

_FOLDER = ROOT / ".github" / "workflows"
_FILES = sorted(_FOLDER.glob("*.yml"))
_LOADED: dict[str, Any] = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in _FILES}
_JOBS = [(f"{name}.{job}", found) for name, loaded in _LOADED.items() for job, found in loaded["jobs"].items()]


def _steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in _JOBS:
        for step in job.get("steps", ()):
            yield name, step


def test_actionlint_finds_nothing() -> None:
    command = [tool("actionlint"), "-shellcheck", tool("shellcheck"), *map(str, _FILES)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")


def test_zizmor_finds_no_way_in() -> None:
    done = subprocess.run(
        [tool("zizmor"), "--offline", "--no-progress", "--persona", "regular", str(ROOT / ".github")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout


def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in _FILES)
    used = [line.strip() for line in re.findall(r"uses: (.*)", text) if not line.startswith("./")]

    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert len({line.partition("@")[0] for line in used}) == len(set(used)), "one version of each"


def test_only_a_release_may_write_and_nothing_has_rights_that_it_was_not_given() -> None:
    written = {
        name: {right for right, kind in job["permissions"].items() if kind == "write"}
        for name, job in _JOBS
        if "write" in job["permissions"].values()
    }

    assert all(loaded["permissions"] == {} for loaded in _LOADED.values())
    assert written == {
        "release.image": {"packages", "id-token", "attestations"},
        "release.chart": {"packages", "id-token"},
        "release.publish": {"contents"},
    }


def test_no_workflow_holds_a_secret_runs_for_ever_or_for_somebody_elses_code_with_its_rights() -> None:
    for path, loaded in zip(_FILES, _LOADED.values(), strict=True):
        assert "secrets." not in path.read_text(encoding="utf-8")
        # YAML 1.1 reads the key `on` as a truth.
        assert not {"pull_request_target", "workflow_run"} & set(loaded[True])
    assert [name for name, job in _JOBS if "steps" in job and "timeout-minutes" not in job] == []
    checkouts = [step for _, step in _steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_script_takes_what_others_wrote_for_a_part_of_itself() -> None:
    assert [name for name, step in _steps() if "${{" in step.get("run", "")] == []


def test_what_the_scripts_name_is_there() -> None:
    scripts = "\n".join(step["run"] for _, step in _steps() if "run" in step)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    paths = set(re.findall(r"(?<![\w./-])(?:compose|locks|config)/[\w./-]+", scripts)) - {"locks/"}

    targets = set(re.findall(r"^\s*make ([a-z-]+)", scripts, re.MULTILINE))
    assert targets >= {"check", "test", "check-deploy", "faults-ha", "sbom"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    assert "compose/rollout.py" in paths
    assert [path for path in paths if not (ROOT / path.rstrip(".")).exists()] == []


def test_a_rollout_begins_while_nothing_burns_and_goes_back_whatever_fails_after_that() -> None:
    steps = _LOADED["rollout"]["jobs"]["rollout"]["steps"]
    names = [step.get("name", step.get("uses")) for step in steps]
    changes = [n for n, step in enumerate(steps) if "helm upgrade" in step.get("run", "")]
    watches = [n for n, step in enumerate(steps) if "rollout.py" in step.get("run", "")]
    back = steps[-1]

    assert len(changes) == 2, "a canary, then all"
    assert watches[0] < changes[0] < watches[1] < changes[1] < watches[2]
    assert names.index("Keep in mind where to go back to") < changes[0]
    assert "helm rollback" in back["run"]
    assert "!success()" in back["if"]


@pytest.mark.parametrize("name", ["ci.image", "release.image"])
def test_the_image_is_built_on_the_base_that_a_variable_names(name: str) -> None:
    (build,) = (step for found, step in _steps() if found == name and "build-push-action" in step.get("uses", ""))

    assert build["with"]["file"] == "compose/Dockerfile"
    assert build["with"]["build-args"].startswith("BASE=${{ vars.IMAGE_BASE || ")
    assert "ARG BASE=python:3.13-slim-bookworm" in (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")
