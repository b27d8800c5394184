"""What must hold for every pod that the chart makes, whatever the values are."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import yaml

from api.__main__ import FINISH_SECONDS
from taskplatform.autoscale.drivers.kubernetes import POOL_LABEL
from taskplatform.settings import Settings, load
from tests.containers.chart import (
    CHART,
    VALUES,
    ChartError,
    Resource,
    component,
    container,
    environment,
    helm,
    of_kind,
    pods,
    rendered,
    secret_files,
    selects,
)
from tests.containers.tools import ROOT

_SECRET = "postgresql://somewhere/jobs"
_LONG_SECRET = "0123456789" * 4
_OPTIONAL = {"database_replica_urls", "database_cluster_urls", "cache_url"}
_SECRETS = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


@pytest.fixture(params=VALUES)
def resources(request: pytest.FixtureRequest) -> tuple[Resource, ...]:
    """Everything that the chart makes of one set of values."""
    return rendered(request.param)


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_nothing_to_say_against_it(values: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{values}.yaml"))


def test_a_pod_has_no_rights_and_a_root_that_it_cannot_write(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        spec, its = template["spec"], container(template)
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 10001, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert its["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert {"hostPath"}.isdisjoint(key for volume in spec["volumes"] for key in volume), name


def test_a_pod_says_what_it_needs_and_the_most_that_it_takes(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        its = container(template)["resources"]
        assert {"cpu", "memory"} <= set(its["limits"]), name
        assert {"cpu", "memory"} <= set(its["requests"]), name


def test_a_process_is_asked_how_it_is_on_a_port_that_it_has(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        its, process = container(template), component(template)
        asked = {
            probe: its[f"{probe}Probe"]["httpGet"]
            for probe in ("startup", "readiness", "liveness")
            if process != "init"
        }
        pages = {probe: get["path"] for probe, get in asked.items()}
        ours = {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}
        flowers = dict.fromkeys(ours, "/flower/healthcheck")
        assert pages == {"init": {}, "flower": flowers}.get(process, ours), name
        ports = {port["name"]: str(port["containerPort"]) for port in its.get("ports", ())}
        said = environment(template)
        listens = {"api": "API_PORT", "flower": "FLOWER_PORT"}.get(process, "METRICS_PORT")
        assert {ports[get["port"]] for get in asked.values()} <= {said[f"TASKPLATFORM_{listens}"]}, name


def test_a_pod_is_stopped_no_sooner_than_what_it_does_may_take(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        grace, said = template["spec"]["terminationGracePeriodSeconds"], environment(template)
        if component(template) == "worker":
            assert grace >= float(said["TASKPLATFORM_WORKER_DRAIN_SECONDS"]) + 15, name
        if component(template) == "api":
            assert grace >= float(said["TASKPLATFORM_API_DRAIN_SECONDS"]) + FINISH_SECONDS + 5, name


def test_no_pod_goes_before_the_one_that_takes_its_place_is_ready(resources: tuple[Resource, ...]) -> None:
    for deployment in of_kind(resources, "Deployment"):
        strategy = deployment["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0
        assert strategy["rollingUpdate"]["maxSurge"] not in (0, "0%")


def test_every_setting_that_a_pod_is_given_is_one_and_is_taken(resources: tuple[Resource, ...], tmp_path: Path) -> None:
    for name, template in pods(resources):
        folder = tmp_path / name
        folder.mkdir()
        for file in secret_files(template):
            (folder / file).write_text(_LONG_SECRET if file == "signing_keys" else _SECRET)
        said = {key: value for key, value in environment(template).items() if key.startswith("TASKPLATFORM_")}

        settings = load(said | {"TASKPLATFORM_SECRETS_DIR": str(folder)})

        assert settings.database_url.get_secret_value() == _SECRET
        assert settings.worker_pool in settings.pools
        assert template["metadata"]["labels"].get(POOL_LABEL, settings.worker_pool) == settings.worker_pool


def test_no_environment_holds_a_secret_and_no_variable_of_a_link_is_taken_for_a_setting(
    resources: tuple[Resource, ...],
) -> None:
    for name, template in pods(resources):
        assert {f"TASKPLATFORM_{one.upper()}" for one in _SECRETS}.isdisjoint(environment(template)), name
        assert "envFrom" not in container(template) or component(template) == "dispatcher", name
        assert template["spec"]["enableServiceLinks"] is False, name


def test_only_what_needs_a_secret_sees_it(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        process, said = component(template), environment(template)
        expected = {"database_url", "broker_url"}
        expected |= {"signing_keys"} if process != "init" else set()
        expected |= {"api_key"} if "TASKPLATFORM_CANARY_SECONDS" in said else set()
        assert set(secret_files(template)) - _OPTIONAL == expected, name


def test_replicas_and_cache_are_for_the_api_and_every_process_knows_every_cluster() -> None:
    for name, template in pods(rendered("autoscaler")):
        expected = _OPTIONAL if component(template) == "api" else {"database_cluster_urls"}
        assert set(secret_files(template)) & _OPTIONAL == expected, name


def test_only_dispatchers_have_the_credentials_of_the_archive_and_only_when_they_are_named() -> None:
    for values in VALUES:
        named = [{"secretRef": {"name": "platform-archive"}}] if values == "autoscaler" else None
        for name, template in pods(rendered(values)):
            expected = named if component(template) == "dispatcher" else None
            assert container(template).get("envFrom") == expected, name


def test_no_secret_is_taken_for_a_setting_of_every_process() -> None:
    assert {"database_cluster_urls", "signing_keys", "autoscale_agent_token"} < set(_SECRETS)
    for secret in _SECRETS:
        variable = f"TASKPLATFORM_{secret.upper()}"
        with pytest.raises(ChartError, match=secret):
            rendered("autoscaler", "--set-string", f"settings.{secret}=postgresql://me:word@there/jobs")
        with pytest.raises(ChartError, match=f"{variable} in env of pool default is set by the chart"):
            rendered("autoscaler", "--set-string", f"pools[0].env.{variable}=secret")


def test_only_the_autoscaler_that_patches_deployments_has_an_account(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        patches = environment(template).get("TASKPLATFORM_AUTOSCALE_DRIVER") == "kubernetes"
        assert template["spec"]["automountServiceAccountToken"] is patches, name
        assert ("serviceAccountName" in template["spec"]) is patches, name


def test_whatever_chooses_pods_finds_some_and_deployments_keep_to_their_own(resources: tuple[Resource, ...]) -> None:
    templates = dict(pods(resources))
    labels = {name: template["metadata"]["labels"] for name, template in templates.items()}
    for resource in of_kind(resources, "Deployment", "PodDisruptionBudget", "Service", "PodMonitor"):
        name, spec = resource["metadata"]["name"], resource["spec"]
        selector = {"matchLabels": spec["selector"]} if resource["kind"] == "Service" else spec["selector"]
        chosen = {found for found, its in labels.items() if selects(selector, its)}
        if resource["kind"] == "Deployment":
            assert chosen == {name}
        elif not name.endswith("rabbitmq"):
            assert chosen, f"{resource['kind']} {name}"


def test_whatever_a_pod_may_lose_to_an_eviction_is_said_for_api_dispatcher_and_every_pool(
    resources: tuple[Resource, ...],
) -> None:
    budgets = [one["spec"] for one in of_kind(resources, "PodDisruptionBudget")]
    for name, template in pods(resources):
        labels = template["metadata"]["labels"]
        of_a_pool = POOL_LABEL in labels
        found = [one for one in budgets if selects(one["selector"], labels)]
        assert len(found) == (component(template) in ("api", "dispatcher") or of_a_pool), name
        assert all(one["maxUnavailable"] not in (0, "0%") for one in found), name


def test_monitors_scrape_ports_that_there_are_and_name_the_part_that_alerts_ask_for() -> None:
    resources = rendered("monitoring")
    scraped: dict[str, str] = {}
    for monitor in of_kind(resources, "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        for _, template in pods(resources):
            if selects(monitor["spec"]["selector"], template["metadata"]["labels"]):
                scraped[component(template)] = endpoint["port"]
                assert endpoint["port"] in {port["name"] for port in container(template)["ports"]}
        assert "part" in {rule["targetLabel"] for rule in endpoint["relabelings"]}

    assert set(scraped) == {"api", "worker", "dispatcher", "autoscaler", "exporter"}


def test_rules_dashboards_and_servers_settings_are_those_of_config() -> None:
    resources = rendered("monitoring")
    rules = ROOT / "config" / "prometheus" / "rules"
    found = {one["metadata"]["name"]: one["spec"] for one in of_kind(resources, "PrometheusRule")}
    (boards,) = (one["data"] for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"].endswith("boards"))
    (rabbitmq,) = of_kind(resources, "RabbitmqCluster")

    assert found == {f"tp-taskplatform-{file.stem}": yaml.safe_load(file.read_text()) for file in rules.glob("*.yml")}
    assert {name: yaml.safe_load(text) for name, text in boards.items()} == {
        file.name: yaml.safe_load(file.read_text()) for file in (ROOT / "config/grafana/dashboards").glob("*.json")
    }
    assert rabbitmq["spec"]["rabbitmq"]["additionalConfig"].split() == (
        (ROOT / "config/rabbitmq/rabbitmq.conf").read_text().split()
    )


def test_postgres_is_set_as_everywhere_but_for_what_the_operator_keeps_to_itself() -> None:
    (cluster,) = of_kind(rendered("operators"), "Cluster")
    written = [line.partition(" = ") for line in (ROOT / "config/postgres/postgresql.conf").read_text().splitlines()]
    expected = {name: value.strip("'") for name, equals, value in written if equals and not name.startswith("#")}

    assert cluster["spec"]["postgresql"]["parameters"] == {
        name: value for name, value in expected.items() if name != "hot_standby"
    }
    assert cluster["spec"]["postgresql"]["synchronous"]["number"] == 1


def test_a_package_of_the_chart_holds_the_files_that_it_links_to(tmp_path: Path) -> None:
    helm("package", str(CHART), "-d", str(tmp_path))

    (package,) = tmp_path.iterdir()
    with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as archive:
        packed = {
            member.name.removeprefix("taskplatform/files/"): read.read()
            for member in archive
            if member.name.startswith("taskplatform/files/") and (read := archive.extractfile(member))
        }
        names = archive.getnames()

    files = [path for path in (CHART / "files").rglob("*") if path.is_file()]
    files += [path for folder in (CHART / "files").iterdir() for path in folder.resolve().glob("*.*")]
    linked = {path.name: path.read_bytes() for path in files}
    assert {name.rpartition("/")[2]: content for name, content in packed.items()} == linked
    assert not any(name.startswith("taskplatform/ci/") for name in names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["secrets.database.name="], "secrets.database.name is empty: name a Secret with the connection string"),
        (["secrets.broker.name="], "secrets.broker.name is empty: name a Secret with the URL of RabbitMQ"),
        (["exporter.canarySeconds=30"], "exporter.canarySeconds needs secrets.canary.name"),
        (["autoscaling.driver=keda"], "autoscaling.driver is keda: secrets.keda.name names a Secret"),
        (["settings.database_url=x"], "database_url"),
        (["pools[0].name=Bad_Pool"], "does not match pattern"),
        (["pools[0].name=a-pool-with-a-name-that-is-far-too-long-for-it"], "46 at most"),
        (["pools[0].name=default", "pools[0].scaling.grace_seconds=5"], "grace_seconds"),
        (["pools[0].name=default", "pools[0].scaling.maximum=5"], "maximum"),
        (["pools[0].name=default", "pools[0].scaling.min_workers=9"], "min_workers is above max_workers"),
        (
            ["pools[0].name=a", "pools[0].scaling.floors[0].workers=1", "pools[0].scaling.floors[0].start=99:99"],
            "start",
        ),
        (["pools[0].name=default", "pools[1].name=default"], "two of the name default"),
        (["api.resources.limits.cpu=null"], "cpu"),
        (["apii.replicas=3"], "apii"),
    ],
    ids=lambda case: case[0] if isinstance(case, list) else "",
)
def test_values_that_cannot_work_are_refused_with_the_reason(options: list[str], said: str) -> None:
    words = [word for option in options for word in ("--set", option)]

    with pytest.raises(ChartError, match=said):
        rendered("minimal", *words)


def test_a_worker_is_not_the_first_process_of_its_pod_which_would_have_to_reap(resources: tuple[Resource, ...]) -> None:
    for name, template in pods(resources):
        assert template["spec"].get("shareProcessNamespace", False) is (component(template) == "worker"), name


def test_a_migration_that_has_ended_is_removed_in_the_end(resources: tuple[Resource, ...]) -> None:
    for job in of_kind(resources, "Job"):
        assert job["spec"]["ttlSecondsAfterFinished"] == 86_400


def test_what_the_chart_sets_itself_is_refused_as_a_value_and_the_right_place_is_named() -> None:
    chosen = set(yaml.safe_load((CHART / "ci" / "autoscaler.yaml").read_text(encoding="utf-8"))["settings"])
    said = {name for values in VALUES for _, template in pods(rendered(values)) for name in environment(template)}
    owned = {name.removeprefix("TASKPLATFORM_").lower() for name in said if name.startswith("TASKPLATFORM_")} - chosen

    assert "metrics_port" in owned
    for setting in owned:
        with pytest.raises(ChartError, match=f"settings.{setting} is set by the chart itself"):
            rendered("autoscaler", "--set", f"settings.{setting}=1")
    with pytest.raises(ChartError, match=r"settings.worker_kind is set by the chart itself: use pools\[\].kind"):
        rendered("autoscaler", "--set", "settings.worker_kind=async")


@pytest.mark.parametrize(
    "variable", ["TASKPLATFORM_METRICS_PORT", "TASKPLATFORM_worker_kind", "TASKPLATFORM_BROKER_URL"]
)
def test_a_pool_cannot_take_a_variable_from_the_chart(variable: str) -> None:
    with pytest.raises(ChartError, match=f"{variable} in env of pool default is set by the chart itself"):
        rendered("autoscaler", "--set-string", f"pools[0].env.{variable}=1")

    ours = rendered("autoscaler", "--set-string", "pools[0].env.TASKPLATFORM_CLAIM_WINDOW_JOBS=8")
    assert "8" in {environment(template).get("TASKPLATFORM_CLAIM_WINDOW_JOBS") for _, template in pods(ours)}
