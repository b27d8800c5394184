"""Everything that the chart makes, against the schemas of Kubernetes and of the operators that read it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.containers.chart import VALUES, Resource, rendered
from tests.containers.tools import tool

_SCHEMAS = Path(__file__).parent / "schemas"
_MODELS = {
    "cloudcoil.models.keda.v1alpha1": ["ScaledObject", "TriggerAuthentication"],
    "cloudcoil.models.prometheus_operator.v1": ["PodMonitor", "PrometheusRule"],
}
"""Models that a package has of operators' resources, made of the operators' own definitions."""
_SHOW = """
import importlib, json, sys
schemas = {}
for module, kinds in json.load(sys.stdin).items():
    models = importlib.import_module(module)
    schemas |= {kind: getattr(models, kind).model_json_schema(by_alias=True) for kind in kinds}
print(json.dumps(schemas))
"""
_FALLBACK = {"behavior": {"type": "string"}}
"""KEDA has had it since 2.17; the models for Pythons before 3.14 are of 2.16."""
_KUBERNETES = "1.37"


def custom(values: str) -> list[Resource]:
    """Give the resources that Kubernetes itself has no schema of."""
    return [one for one in rendered(values) if "." in one["apiVersion"] and "k8s.io" not in one["apiVersion"]]


@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_takes_what_the_chart_makes_and_knows_every_field(values: str, tmp_path: Path) -> None:
    own = [one for one in rendered(values) if one not in custom(values)]
    file = tmp_path / "resources.yaml"
    file.write_text(yaml.safe_dump_all(own))

    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "-k", _KUBERNETES, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed for resource ") == len(own)


@pytest.mark.parametrize("values", VALUES)
def test_operators_take_what_the_chart_makes_for_them_and_know_every_field(values: str) -> None:
    wrong = [
        f"{one['kind']} {one['metadata']['name']}: {'.'.join(map(str, error.instance_path))}: {error.message}"
        for one in custom(values)
        for error in _validator(one["kind"]).iter_errors(one)
    ]

    assert wrong == []


def test_a_field_that_an_operator_does_not_know_is_found() -> None:
    tool("helm")
    scaled = next(one for one in rendered("keda") if one["kind"] == "ScaledObject")
    misspelt = scaled | {"spec": scaled["spec"] | {"cooldownPeriods": 3}}

    assert not _validator("ScaledObject").is_valid(misspelt)
    assert _validator("ScaledObject").is_valid(scaled)


@pytest.mark.skipif("DEPLOY_CRDS" not in os.environ, reason="DEPLOY_CRDS names no folder with the operators' CRDs")
@pytest.mark.parametrize("values", VALUES)
def test_the_definitions_of_the_operators_themselves_take_it(values: str) -> None:
    defined = _definitions(Path(os.environ["DEPLOY_CRDS"]))
    found = custom(values)
    wrong = [
        f"{one['kind']} {one['metadata']['name']}: {'.'.join(map(str, error.instance_path))}: {error.message}"
        for one in found
        for error in jsonschema_rs.validator_for(defined[one["apiVersion"], one["kind"]]).iter_errors(one)
    ]

    assert wrong == []


@cache
def _models() -> dict[str, Any]:
    # One and the same environment has the program and the models.
    python = Path(tool("kubernetes-validate")).parent / "python"
    done = subprocess.run(
        [str(python), "-c", _SHOW],
        input=json.dumps(_MODELS),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    schemas: dict[str, Any] = json.loads(done.stdout)
    schemas["ScaledObject"]["$defs"]["Fallback"]["properties"] |= _FALLBACK
    return schemas


@cache
def _validator(kind: str) -> jsonschema_rs.Validator:
    if (_SCHEMAS / f"{kind}.json").exists():
        return jsonschema_rs.validator_for(json.loads((_SCHEMAS / f"{kind}.json").read_text()))
    return jsonschema_rs.validator_for(_closed(_models()[kind]))


def _definitions(folder: Path) -> dict[tuple[str, str], Any]:
    found = {}
    for document in (one for path in sorted(folder.iterdir()) for one in yaml.safe_load_all(path.read_text())):
        if document and document["kind"] == "CustomResourceDefinition":
            spec = document["spec"]
            for version in spec["versions"]:
                schema = _closed(version["schema"]["openAPIV3Schema"])
                # It says only that this is an object.
                schema["properties"]["metadata"] = {}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Forbid, in every object of a schema, what it does not name: an API server would drop it without a word."""
    for one in _schemas(schema):
        if one.get("properties") and not one.get("x-kubernetes-preserve-unknown-fields"):
            one.setdefault("additionalProperties", False)
        # Not every dialect of patterns has flags in the middle.
        if re.search(r"\(\?[a-z]", str(one.get("pattern", ""))):
            del one["pattern"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(schema, dict):
        return
    yield schema
    for word in ("properties", "$defs", "definitions"):
        for below in (schema.get(word) or {}).values():
            yield from _schemas(below)
    for word in ("anyOf", "allOf", "oneOf"):
        for below in schema.get(word) or ():
            yield from _schemas(below)
    for word in ("items", "additionalProperties"):
        yield from _schemas(schema.get(word))
