"""The Helm chart as Helm renders it, and what a cluster would make of what it renders."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from tests.containers.tools import ROOT, tool

CHART = ROOT / "compose" / "kubernetes"
VALUES = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
"""The sets of values that every test about the whole chart holds for."""
RELEASE = "tp"
NAMESPACE = "jobs"

Resource = dict[str, Any]
Peer = tuple[str, ...]


class ChartError(Exception):
    """What Helm says of a chart, or of values, that it does not take."""


def helm(*words: str) -> str:
    """Run Helm. Raises ChartError with what it says."""
    done = subprocess.run([tool("helm"), *words], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise ChartError(done.stderr + done.stdout)
    return done.stdout


@cache
def rendered(values: str, *options: str) -> tuple[Resource, ...]:
    """Render the chart with a set of values, and further options of `helm template`."""
    text = helm("template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(CHART / "ci" / f"{values}.yaml"), *options)
    return tuple(found for found in yaml.safe_load_all(text) if found)


def of_kind(resources: tuple[Resource, ...], *kinds: str) -> list[Resource]:
    """Give the resources of these kinds."""
    return [resource for resource in resources if resource["kind"] in kinds]


def pods(resources: tuple[Resource, ...]) -> Iterator[tuple[str, Resource]]:
    """Yield the name and the template of every kind of pod that the resources make."""
    for resource in of_kind(resources, "Deployment", "Job"):
        yield resource["metadata"]["name"], resource["spec"]["template"]


def component(template: Resource) -> str:
    """Tell which process runs in a pod."""
    return str(template["metadata"]["labels"]["app.kubernetes.io/component"])


def container(template: Resource) -> Resource:
    """Give the one container of a pod."""
    (found,) = template["spec"]["containers"]
    return dict(found)


def environment(template: Resource) -> dict[str, str]:
    """Give the environment of a pod's container."""
    return {one["name"]: one["value"] for one in container(template)["env"]}


def secret_files(template: Resource) -> dict[str, tuple[str, str]]:
    """Give the secrets that a pod sees: name of the file → name of the Secret and key."""
    (volume,) = (one for one in template["spec"]["volumes"] if one["name"] == "secrets")
    sources = [source["secret"] for source in volume["projected"]["sources"]]
    return {item["path"]: (source["name"], item["key"]) for source in sources for item in source["items"]}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector takes something with these labels."""
    for one in selector.get("matchExpressions", ()):
        assert one["operator"] == "In", "only In is used"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def reach(resources: tuple[Resource, ...], template: Resource) -> tuple[set[Peer], set[Peer]]:
    """Give whom a pod may speak to and who may speak to it, by the network policies: peers with ports.

    Without a policy that selects the pod everything is allowed, which no test expects: ("anybody", "all").
    """
    labels = template["metadata"]["labels"]
    policies = [one["spec"] for one in of_kind(resources, "NetworkPolicy")]
    mine = [policy for policy in policies if selects(policy["podSelector"], labels)]
    ways: list[set[Peer]] = []
    for direction, word, peers in (("Egress", "egress", "to"), ("Ingress", "ingress", "from")):
        closed = [policy for policy in mine if direction in policy["policyTypes"]]
        rules = [rule for policy in closed for rule in policy.get(word) or ()]
        open_: set[Peer] = {
            (_named(peer), f"{port['port']}/{port.get('protocol', 'TCP')}")
            for rule in rules
            for peer in rule.get(peers) or [{}]
            for port in rule["ports"]
        }
        ways.append(open_ if closed else {("anybody", "all")})
    return ways[0], ways[1]


def _named(peer: Mapping[str, Any]) -> str:
    if "namespaceSelector" in peer:
        return f"namespace {peer['namespaceSelector']['matchLabels']['kubernetes.io/metadata.name']}"
    if "podSelector" in peer:
        labels = peer["podSelector"]["matchLabels"]
        ours = labels.get("app.kubernetes.io/component")
        return f"our {ours}" if ours else ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return "anybody"
