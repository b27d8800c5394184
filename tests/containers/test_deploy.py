"""The files of compose/ as the real programs read them, and what must hold in every combination of them."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from tests.containers.tools import ROOT, tool

_COMPOSE = ROOT / "compose"
_OVERLAYS = ("ha", "observability", "autoscale", "dev")
_COMBINATIONS = list(chain.from_iterable(combinations(_OVERLAYS, size) for size in range(len(_OVERLAYS) + 1)))
_DOCKERFILES = [*_COMPOSE.rglob("Dockerfile"), *Path(__file__).parent.rglob("Dockerfile")]
_SOCKET = "/var/run/docker.sock"
_OURS = {
    *("init", "api-1", "api-2", "dispatcher", "worker-default", "flower"),
    *("exporter", "autoscaler", "scaler-agent"),
}


@pytest.fixture(params=_COMBINATIONS, ids=lambda overlays: "+".join(("compose", *overlays)), scope="module")
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Every service as Compose understands it, with these overlays."""
    found: dict[str, Any] = _read(request.param)["services"]
    return found


def _read(overlays: Sequence[str], *own: Path) -> dict[str, Any]:
    files = [_COMPOSE / "compose.yaml", *(_COMPOSE / f"compose.{overlay}.yaml" for overlay in overlays), *own]
    options = [word for file in files for word in ("-f", str(file))]
    done = subprocess.run(
        [tool("docker-compose"), *options, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def test_only_the_load_balancer_is_published(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if service.get("ports")] == ["haproxy"]
    assert services["haproxy"]["ports"][0]["host_ip"] == "127.0.0.1"


def test_what_dies_is_started_again(services: dict[str, Any]) -> None:
    left = {name for name, service in services.items() if service.get("restart") != "unless-stopped"}

    assert left == {"init"}


def test_only_the_agent_holds_the_socket_of_the_engine(services: dict[str, Any]) -> None:
    holders = [
        name
        for name, service in services.items()
        if any(volume.get("source") == _SOCKET for volume in service.get("volumes", []))
    ]

    assert holders == (["scaler-agent"] if "scaler-agent" in services else [])
    assert all(set(services[name]["networks"]) == {"scaling"} for name in holders)


def test_our_processes_run_under_an_account_of_their_own_and_an_init(services: dict[str, Any]) -> None:
    for name in _OURS & set(services):
        assert (services[name]["user"], services[name]["init"]) == ("10001:10001", True)


def test_no_container_has_a_right_or_can_write_its_root(services: dict[str, Any]) -> None:
    for name, service in services.items():
        found = (service["read_only"], service["cap_drop"], service["security_opt"], service.get("privileged"))
        assert (name, *found) == (name, True, ["ALL"], ["no-new-privileges:true"], None)


def test_every_service_has_a_limit_of_memory(services: dict[str, Any]) -> None:
    assert [name for name, one in services.items() if not one["deploy"]["resources"]["limits"].get("memory")] == []


def test_every_file_that_a_service_mounts_is_there(services: dict[str, Any]) -> None:
    sources = {
        Path(volume["source"])
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind" and volume["source"] != _SOCKET
    }

    assert [path for path in sources if not path.exists()] == []


def test_no_environment_holds_a_secret(services: dict[str, Any]) -> None:
    names = {name for service in services.values() for name in service.get("environment") or {}}

    wanted = ("PASSWORD", "COOKIE", "TOKEN", "SIGNING", "API_KEY", "DATABASE_URL", "BROKER_URL")
    assert [name for name in names if any(word in name for word in wanted) and not name.endswith("_FILE")] == []


def test_everything_starts_after_what_it_needs(services: dict[str, Any]) -> None:
    needs = services["init"]["depends_on"]

    assert {one["condition"] for one in needs.values()} == {"service_healthy"}
    assert set(needs) <= {name for name, one in services.items() if "test" in one.get("healthcheck", {})}
    assert services["api-1"]["depends_on"]["init"]["condition"] == "service_completed_successfully"


def test_the_highly_available_platform_has_three_of_every_server(services: dict[str, Any]) -> None:
    needs = set(services["init"]["depends_on"])

    three = {*(f"pg-{number}" for number in (1, 2, 3)), "rabbitmq", "rabbitmq-2", "rabbitmq-3"}
    assert needs == (three if "pg-1" in services else {"postgres", "rabbitmq"})
    assert ("postgres" in services) is ("pg-1" not in services)


def test_a_worker_is_stopped_no_sooner_than_its_drain_may_take(services: dict[str, Any]) -> None:
    assert services["worker-default"]["stop_grace_period"] == "40s"


def test_a_pool_of_ones_own_is_added_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(services:\n.*?)```", page, re.DOTALL)
    overlay = tmp_path / "gpu.yaml"
    overlay.write_text(shown.replace("file: compose/", f"file: {_COMPOSE}/"))
    (pools,) = re.findall(r"TASKPLATFORM_POOLS=(\S+) docker compose", page)
    monkeypatch.setenv("TASKPLATFORM_POOLS", pools)

    services = _read(_OVERLAYS, overlay)["services"]

    ours = {name: one["environment"] for name, one in services.items() if name in _OURS | {"worker-gpu"}}
    assert ours["worker-gpu"]["TASKPLATFORM_WORKER_POOL"] in pools.split(",")
    assert {said["TASKPLATFORM_POOLS"] for said in ours.values()} == {pools}
    assert services["worker-gpu"]["depends_on"] == services["worker-default"]["depends_on"]


@pytest.mark.parametrize("dockerfile", _DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_dockerfile_keeps_to_the_rules(dockerfile: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(dockerfile)], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")


_ENGINE = {
    # Compose and the engine as far as compose/roll knows them: the files `running` and `ended` hold the workers.
    "compose": """#!/bin/sh
cd "${0%/*}" || exit 2
told="${*#*compose.yaml }"
echo "$told" >>told
case "$told" in
  *services) printf 'api-1\\napi-2\\nautoscaler\\nworker-default\\n' ;;
  *wget*) printf 'api,%s,,UP,\\n' api-1 api-2 ;;
  "ps -q "*) cat running ;;
  "ps -aq --status exited "*) cat ended ;;
  "ps -aq "*) cat running ended ;;
  *--scale*)
    cat ended >>running
    : >ended
    wanted="${told#*=}"
    while [ "$(wc -l <running)" -lt "${wanted% *}" ]; do echo "$IMAGE-$(wc -l <running)" >>running; done ;;
esac
case "$told" in $FAILS) exit 1 ;; esac
""",
    "docker": """#!/bin/sh
cd "${0%/*}" || exit 2
verb="$1"
shift
for one in "$@"; do
  grep -qx "$one" running ended || exit 1
  for list in running ended; do
    grep -vx "$one" "$list" >left
    mv left "$list"
  done
  [ "$verb" != stop ] || echo "$one" >>ended
done
""",
}


@pytest.mark.parametrize(
    "fails",
    [
        "stop autoscaler",
        "*force-recreate*api-1",
        "*force-recreate*api-2",
        "*--scale*",
        "*force-recreate*autoscaler",
    ],
)
def test_a_replacement_that_fails_leaves_what_was_there_at_work_and_may_be_made_again(
    tmp_path: Path, fails: str
) -> None:
    for name, script in _ENGINE.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "running").write_text("old-0\nold-1\n")
    (tmp_path / "ended").write_text("old-2\n")

    failed = _roll(tmp_path, image="bad", fails=fails)
    told = (tmp_path / "told").read_text().splitlines()
    left = (tmp_path / "running").read_text().split()
    done = _roll(tmp_path, image="good", fails="")

    assert (failed, done) == (1, 0)
    assert told[-1] == "start autoscaler"
    assert left == (["bad-2", "bad-3"] if fails.endswith("recreate*autoscaler") else ["old-0", "old-1"])
    assert (tmp_path / "running").read_text().split() == ["good-2", "good-3"]


def test_where_nothing_runs_nothing_is_replaced(tmp_path: Path) -> None:
    for name, script in _ENGINE.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "running").touch()

    assert _roll(tmp_path, image="good", fails="") == 1
    assert (tmp_path / "told").read_text().split("\n") == ["ps -q haproxy", ""]


def _roll(folder: Path, *, image: str, fails: str) -> int:
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "COMPOSE": str(folder / "compose"),
        "IMAGE": image,
        "FAILS": fails,
    }
    return subprocess.run([_COMPOSE / "roll"], env=environment, check=False, capture_output=True, timeout=60).returncode


def test_shellcheck_finds_nothing_in_any_script() -> None:
    folders = (".ci", "compose", "locks", "tests/containers")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    scripts = [path for path in files if path.read_bytes().startswith((b"#!/usr/bin/env bash", b"#!/bin/sh"))]
    assert {path.name for path in scripts} >= {"roll", "make-secrets", "install-servers", "update"}

    done = subprocess.run([tool("shellcheck"), *scripts], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("beside", [(), ("FLOWER",), ("GRAFANA",), ("FLOWER", "GRAFANA")], ids=" ".join)
def test_the_load_balancer_takes_its_settings_whatever_it_serves_beside_the_api(beside: Sequence[str]) -> None:
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed: `make servers` installs it")
    named = ("HAPROXY_API", "HAPROXY_STATS", "API_1", "API_2", *beside)

    done = subprocess.run(
        [program, "-c", "-f", str(ROOT / "config" / "haproxy" / "haproxy.cfg")],
        env={name: f"127.0.0.1:{9000 + port}" for port, name in enumerate(named)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_secrets_are_made_once_and_are_none_of_the_checkout(tmp_path: Path) -> None:
    script = shutil.copy(_COMPOSE / "make-secrets", tmp_path)

    for _ in range(2):
        subprocess.run([script], check=True, capture_output=True, timeout=30)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    named = {Path(one["file"]).name for one in _read(_OVERLAYS)["secrets"].values()}
    assert set(made) == named | {"taskplatform.toml"}
    assert made["postgres_password"] in made["taskplatform.toml"]
    assert tomllib.loads(made["taskplatform-ha.toml"]).keys() >= tomllib.loads(made["taskplatform.toml"]).keys()
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert "compose/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_secrets_that_were_not_all_made_are_made_again(tmp_path: Path) -> None:
    in_the_way = tmp_path / "secrets" / "patroni.yml"
    in_the_way.mkdir(parents=True)
    make = [_COMPOSE / "make-secrets", tmp_path / "secrets"]

    failed = subprocess.run(make, check=False, capture_output=True, timeout=30)
    in_the_way.rmdir()
    done = subprocess.run(make, check=False, capture_output=True, timeout=30)

    assert (failed.returncode, done.returncode) == (1, 0)
    named = {Path(one["file"]).name for one in _read(_OVERLAYS)["secrets"].values()}
    files = list((tmp_path / "secrets").iterdir())
    assert {path.name for path in files} == named | {"taskplatform.toml"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
