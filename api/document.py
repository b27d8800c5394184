"""The OpenAPI document: what FastAPI knows of its routes, and the two hot ones out of their msgspec types."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import views
from api.problems import KINDS, Problem
from taskplatform.overview import Overview
from taskplatform.submission import BatchItem, Submission

_SHOWN = (
    views.JobView,
    views.JobPage,
    views.Attempts,
    views.DeadLetterView,
    views.DeadLetterPage,
    views.KeyView,
    views.Tasks,
    Overview,
    views.ScaleDecisionView,
    views.ScaleDecisions,
    views.BatchAnswers,
    views.RejectedBatch,
    views.Health,
    views.Readiness,
    Problem,
)
PUBLIC = frozenset({"/livez", "/readyz", "/startupz", "/metrics", "/problems/{code}"})
"""Paths that need no key."""
API_VERSION = "1"
_REF = "#/components/schemas/{name}"


def document(app: FastAPI) -> dict[str, Any]:
    """Write the document of an application."""
    written = get_openapi(
        title="taskplatform",
        version=API_VERSION,
        description="Hand in jobs, follow them, cancel them, replay dead ones. Errors are problems (RFC 9457).",
        routes=app.routes,
    )
    paths = written["paths"]
    for path, operation in (("/v1/jobs", _submit()), ("/v1/jobs:batch", _submit_batch())):
        paths.setdefault(path, {})["post"] = operation
    components = written.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key, tp_…"}}
    schemas = components.setdefault("schemas", {})
    schemas.update(_schemas())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in paths.items():
        for operation in operations.values():
            _complete(path, operation)
    return written


def page(written: dict[str, Any]) -> str:
    """Write the document as one page for people, without any script."""
    about = written["info"]["description"]
    parts = [f"<!doctype html><html lang=en><title>taskplatform</title><h1>taskplatform</h1><p>{about}"]
    parts.append('<p>The whole document: <a href="/openapi.json">openapi.json</a>.')
    for path, operations in sorted(written["paths"].items()):
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation.get('description', ''))}<ul>")
            for one in operation.get("parameters", []):
                about = escape(one.get("description") or one["schema"].get("description", ""))
                parts.append(f"<li><code>{escape(one['name'])}</code> ({one['in']}): {about}")
            for code, answer in operation["responses"].items():
                parts.append(f"<li>{code}: {escape(answer['description'])}")
            parts.append("</ul>")
    return "".join(parts)


def _schemas() -> dict[str, Any]:
    _, shown = msgspec.json.schema_components(_SHOWN, ref_template=_REF, schema_hook=_any_json)
    _, sent = msgspec.json.schema_components((Submission, BatchItem), ref_template=_REF, schema_hook=_any_json)
    for name in ("Submission", "BatchItem"):
        sent[name]["properties"]["args"] = {"type": "array"}
        sent[name]["properties"]["kwargs"] = {"type": "object"}
    return {**shown, **sent}


def _any_json(kind: type) -> dict[str, Any]:
    if kind is msgspec.Raw:
        return {}
    raise NotImplementedError(kind)


def _submit() -> dict[str, Any]:
    return {
        "tags": ["jobs"],
        "summary": "Submit Job",
        "description": "Hand in a job. After 202 it is never lost; `Prefer: wait=N` waits for its end.",
        "operationId": "submit_job",
        "parameters": [_header("Idempotency-Key", _KEY), _header("Prefer", {"type": "string"})],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Submission")}}},
        "responses": {
            "200": _answers("The job has ended while the caller waited.", "JobView"),
            "202": _answers("The job is stored for good.", "JobView"),
        },
    }


def _submit_batch() -> dict[str, Any]:
    array = {"type": "array", "items": _ref("BatchItem"), "minItems": 1}
    atomic = {"name": "atomic", "in": "query", "required": False, "schema": {"type": "boolean", "default": False}}
    return {
        "tags": ["jobs"],
        "summary": "Submit Batch",
        "description": "Hand in many jobs. A bad one harms no other; `atomic=true` stores all or none.",
        "operationId": "submit_batch",
        "parameters": [_header("Idempotency-Key", {**_KEY, "maxLength": 249}), atomic],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": array},
                "application/x-ndjson": {"schema": {"type": "string", "description": "One BatchItem a line."}},
            },
        },
        "responses": {
            "202": _answers("All jobs are stored for good.", "BatchAnswers"),
            "207": _answers("Some are stored for good, `items` says which.", "BatchAnswers"),
            "422": {
                "description": "None is stored.",
                "content": {
                    "application/problem+json": {"schema": {"anyOf": [_ref("RejectedBatch"), _ref("Problem")]}}
                },
            },
        },
    }


_KEY = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(name=name)}


def _answers(description: str, name: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(name)}}}


def _complete(path: str, operation: dict[str, Any]) -> None:
    operation["security"] = [] if path in PUBLIC else [{"key": []}]
    responses = operation["responses"]
    if "application/problem+json" not in responses.get("422", {}).get("content", {}):
        responses.pop("422", None)
    codes = ", ".join(sorted(KINDS))
    responses["default"] = {
        "description": f"A problem; its `code` is one of: {codes}.",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
