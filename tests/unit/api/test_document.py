"""The OpenAPI document and the page about the API: both say what the code does."""

from pathlib import Path
from typing import Any

import msgspec

from api.app import openapi
from api.problems import KINDS

DOCS = Path(__file__).parents[3] / "docs"


def test_the_committed_document_is_the_one_that_is_served() -> None:
    committed = msgspec.json.decode((DOCS / "openapi.json").read_bytes())

    assert committed == openapi(), "write it anew: python -m api openapi > docs/openapi.json"


def test_every_reference_of_the_document_leads_somewhere() -> None:
    written = openapi()
    schemas = written["components"]["schemas"]

    assert {ref.removeprefix("#/components/schemas/") for ref in _references(written)} == set(schemas)


def test_every_kind_of_problem_is_documented() -> None:
    page = (DOCS / "http_api.md").read_text()

    assert [code for code, kind in KINDS.items() if f"| `{code}` | {kind.status} |" not in page] == []


def test_every_operation_is_documented() -> None:
    page = (DOCS / "http_api.md").read_text()

    written = [f"`{method.upper()} {path}`" for path, methods in openapi()["paths"].items() for method in methods]
    assert [operation for operation in written if operation not in page] == []


def _references(value: Any) -> set[str]:
    match value:
        case dict():
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*map(_references, value.values()))
        case list():
            return set().union(*map(_references, value))
        case _:
            return set()
