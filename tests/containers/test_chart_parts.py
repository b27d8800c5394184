"""What the parts of the chart are to each other: who reaches whom, who scales whom, what comes first."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.views import ScaleDecisionView
from taskplatform.autoscale.contract import Member
from taskplatform.autoscale.drivers.kubernetes import POOL_LABEL, Pods
from taskplatform.autoscale.rules import plans_of
from taskplatform.settings import load
from taskplatform.topology import work_queues
from tests.containers.chart import (
    Resource,
    component,
    container,
    environment,
    of_kind,
    pods,
    reach,
    rendered,
)
from tests.containers.tools import ROOT

_NAMES = {("namespace kube-system", "53/TCP"), ("namespace kube-system", "53/UDP")}
_ANY_SERVER = {("anybody", "5432/TCP"), ("anybody", "5672/TCP"), ("anybody", "5671/TCP")}
_OWN_SERVERS = {
    ("cnpg.io/cluster=tp-taskplatform-postgres", "5432/TCP"),
    ("app.kubernetes.io/name=tp-taskplatform-rabbitmq", "5672/TCP"),
    ("app.kubernetes.io/name=tp-taskplatform-rabbitmq", "5671/TCP"),
}
_OWN_BROKER = {("anybody", "5432/TCP"), *(peer for peer in _OWN_SERVERS if "rabbitmq" in peer[0])}
_CLUSTER = {("anybody", "443/TCP"), ("anybody", "6443/TCP")}
_METRICS = {("namespace monitoring", "9100/TCP")}

# By the set of values: whom everybody may reach, then what single processes may besides, and who may reach them.
_REACH: dict[str, tuple[set[Any], dict[str, set[Any]], dict[str, set[Any]]]] = {
    "minimal": (_NAMES | _ANY_SERVER, {}, {"api": {("anybody", "8080/TCP")}}),
    "autoscaler": (
        _NAMES | _ANY_SERVER,
        {
            "autoscaler": _CLUSTER,
            "worker mail": {("anybody", "587/TCP")},
            "api": {("anybody", "6379/TCP")},
            "dispatcher": {("anybody", "443/TCP")},
        },
        {"api": {("anybody", "8080/TCP")}},
    ),
    "keda": (
        _NAMES | _ANY_SERVER,
        {},
        {"api": {("namespace ingress", "8080/TCP"), ("namespace keda", "8080/TCP")}},
    ),
    "operators": (_NAMES | _OWN_SERVERS, {"autoscaler": _CLUSTER}, {"api": {("anybody", "8080/TCP")}}),
    "monitoring": (
        _NAMES | _OWN_BROKER,
        {"autoscaler": _CLUSTER, "exporter": {("our api", "8080/TCP")}},
        {
            "api": {
                ("namespace ingress", "8080/TCP"),
                ("namespace monitoring", "8080/TCP"),
                ("our exporter", "8080/TCP"),
            },
            "flower": {("anybody", "5555/TCP")},
            **dict.fromkeys(("worker", "dispatcher", "autoscaler", "exporter"), _METRICS),
        },
    ),
}


@pytest.mark.parametrize("values", _REACH)
def test_every_process_reaches_what_it_must_and_nothing_else(values: str) -> None:
    everybody, besides, callers = _REACH[values]
    resources = rendered(values)

    for name, template in pods(resources):
        process = component(template)
        pool = template["metadata"]["labels"].get(POOL_LABEL)
        to, by = reach(resources, template)
        assert to == everybody | besides.get(process, set()) | besides.get(f"{process} {pool}", set()), name
        assert by == callers.get(process, set()), name


class _Asked(Pods):
    """The driver, which writes down what it asks of the cluster instead of asking."""

    def __init__(self, deployment: str) -> None:
        super().__init__(deployment=deployment, account=Path("/nowhere"), server="http://127.0.0.1:9")
        self.asked: set[tuple[str, str, str]] = set()
        self.scaled: set[str] = set()

    async def _ask(self, method: str, group: str, path: str, *, body: Any = None, params: Any = None) -> Any:
        del body, params
        verb = {"GET": "list", "PATCH": "patch"}[method]
        kind, _, name = path.removeprefix("/").partition("/")
        if name.endswith("/scale"):
            self.scaled.add(name.removesuffix("/scale"))
            kind = f"{kind}/scale"
        self.asked.add((group.removeprefix("/apis/").removeprefix("/api/v1").removesuffix("/v1"), kind, verb))
        return {}


def test_the_autoscaler_may_do_what_its_driver_asks_for_and_nothing_else() -> None:
    resources = rendered("autoscaler")
    (autoscaler,) = (template for _, template in pods(resources) if component(template) == "autoscaler")
    said = environment(autoscaler)
    driver = _Asked(said["TASKPLATFORM_AUTOSCALE_SERVICE"])
    victim = Member(id="a", pool="gpu", host="a", pid=None, age_seconds=1.0, draining=False)

    async def use() -> None:
        for pool in said["TASKPLATFORM_POOLS"].split(","):
            await driver.members(pool)
            await driver.grow(pool, 2)
            await driver.shrink(pool, [victim], 1)
        await driver.close()

    asyncio.run(use())

    (role,) = of_kind(resources, "Role")
    granted = {
        (group, kind, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == driver.asked
    assert {name for rule in role["rules"] for name in rule.get("resourceNames", ())} == driver.scaled
    deployments = {one["metadata"]["name"] for one in of_kind(resources, "Deployment")}
    assert driver.scaled <= deployments


def test_the_autoscaler_is_told_of_every_pool_what_the_values_say(tmp_path: Path) -> None:
    resources = rendered("autoscaler")
    (file,) = (one["data"]["autoscale.toml"] for one in of_kind(resources, "ConfigMap"))
    (tmp_path / "rules.toml").write_text(file)
    (autoscaler,) = (template for _, template in pods(resources) if component(template) == "autoscaler")
    said = {name: value for name, value in environment(autoscaler).items() if name != "TASKPLATFORM_SECRETS_DIR"}

    plans = plans_of(load(said | {"TASKPLATFORM_AUTOSCALE_FILE": str(tmp_path / "rules.toml")}))

    gpu = plans["gpu"]
    assert (gpu.rules.min_workers, gpu.rules.max_workers, gpu.rules.target_seconds) == (0, 2, 120.0)
    assert (gpu.grace_seconds, gpu.rules.budget_worker_hours) == (1800.0, 300.0)
    assert gpu.floor_at(datetime(2026, 1, 5, 9, tzinfo=UTC).timestamp()) == 2
    assert plans["default"].rules.max_workers == 20


@pytest.mark.parametrize("values", ["autoscaler", "keda"])
def test_whoever_counts_the_workers_is_not_overruled_by_the_chart(values: str) -> None:
    workers = [one for one in of_kind(rendered(values), "Deployment") if "-worker-" in one["metadata"]["name"]]

    assert workers
    assert all("replicas" not in worker["spec"] for worker in workers)


def test_keda_asks_for_the_number_where_the_api_gives_it() -> None:
    resources = rendered("keda")
    (scaled,) = of_kind(resources, "ScaledObject")
    number, *depths = scaled["spec"]["triggers"]
    services = {
        f"http://{one['metadata']['name']}.jobs.svc:{port['port']}": one
        for one in of_kind(resources, "Service")
        for port in one["spec"]["ports"]
    }
    where, _, path = number["metadata"]["url"].partition("/v1/")
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]

    assert where in services
    assert f"/v1/{path}".replace("default", "{pool}") in paths
    assert number["metadata"]["valueLocation"] in ScaleDecisionView.__struct_fields__
    assert {depth["metadata"]["queueName"] for depth in depths} == set(work_queues("default"))
    assert scaled["spec"]["scaleTargetRef"]["name"] in {
        one["metadata"]["name"] for one in of_kind(resources, "Deployment")
    }
    references = {trigger["authenticationRef"]["name"] for trigger in scaled["spec"]["triggers"]}
    assert references == {one["metadata"]["name"] for one in of_kind(resources, "TriggerAuthentication")}


@pytest.mark.parametrize(
    ("values", "options", "hook"),
    [
        ("minimal", (), "pre-install,pre-upgrade"),
        ("operators", (), None),
        ("operators", ("--is-upgrade",), "pre-install,pre-upgrade"),
    ],
    ids=["servers of yours", "own servers, first time", "own servers, upgrade"],
)
def test_tables_are_migrated_before_anything_that_needs_them(
    values: str, options: tuple[str, ...], hook: str | None
) -> None:
    (job,) = of_kind(rendered(values, *options), "Job")

    annotations = job["metadata"].get("annotations", {})
    assert annotations.get("helm.sh/hook") == hook
    assert container(job["spec"]["template"])["args"] == ["init"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_hook_needs_nothing_that_the_chart_makes_after_it() -> None:
    resources = rendered("minimal")
    (job,) = of_kind(resources, "Job")
    made = {one["metadata"]["name"] for one in of_kind(resources, "Secret", "ConfigMap", "ServiceAccount")}

    text = json.dumps(job["spec"])

    assert made
    assert not [name for name in made if name in text]


def test_a_canary_is_served_like_the_others_and_counted_by_no_autoscaler() -> None:
    resources = rendered("monitoring")
    by_track: dict[str, dict[str, Resource]] = {"stable": {}, "canary": {}}
    for name, template in pods(resources):
        by_track[template["metadata"]["labels"]["taskplatform/track"]][name] = template
    (service,) = (one for one in of_kind(resources, "Service") if one["metadata"]["name"].endswith("-api"))
    canary = by_track["canary"]["tp-taskplatform-api-canary"]
    worker = by_track["canary"]["tp-taskplatform-worker-default-canary"]

    assert service["spec"]["selector"].items() <= canary["metadata"]["labels"].items()
    assert POOL_LABEL not in worker["metadata"]["labels"]
    assert environment(worker) == environment(by_track["stable"]["tp-taskplatform-worker-default"])
    assert {container(template)["image"] for template in by_track["canary"].values()} == {"taskplatform:0.2.0"}
    assert {container(template)["image"] for template in by_track["stable"].values()} == {"taskplatform:0.1.0"}
    # Its tables have to be there too: the job that migrates them is of its image.
    assert "tp-taskplatform-init-1" in by_track["canary"]


def test_a_signing_key_is_made_once_long_enough_and_kept() -> None:
    (secret,) = of_kind(rendered("minimal"), "Secret")
    made = base64.b64decode(secret["data"]["signing_keys"]).decode()

    assert load({"TASKPLATFORM_SIGNING_KEYS": made}).signing_secrets() == [made.encode()]
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert of_kind(rendered("autoscaler"), "Secret") == []
