"""Writes the table of values in the chart's README from their schema: `python -m tests.containers.values_page`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.containers.chart import CHART

README = CHART / "README.md"
_BEGIN, _END = "<!-- values: begin -->\n", "<!-- values: end -->"


GROUP = object()
"""In place of a default: the path is that of several values."""


def rows() -> Iterator[tuple[str, Any, str]]:
    """Yield every value and every group of them: path, default, meaning. Raises KeyError for one without a meaning."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    del schema["properties"]["global"]
    yield from _rows(schema, defaults, "")


def table() -> str:
    """Write the table."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, meaning in rows():
        shown = "" if default is GROUP else f"`{json.dumps(default)}`"
        lines.append(f"| `{path}` | {shown} | {meaning} |")
    return "\n".join(lines)


def page() -> str:
    """Give the README with the table as it should be."""
    head, _, rest = README.read_text(encoding="utf-8").partition(_BEGIN)
    return f"{head}{_BEGIN}\n{table()}\n\n{_END}{rest.partition(_END)[2]}"


def _rows(schema: Mapping[str, Any], defaults: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any, str]]:
    for name, one in schema["properties"].items():
        path = f"{above}{name}"
        if one.get("additionalProperties") is False:
            yield f"{path}.*", GROUP, one["description"]
            yield from _rows(one, defaults[name], f"{path}.")
        else:
            yield path, defaults[name], one["description"]


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8")
