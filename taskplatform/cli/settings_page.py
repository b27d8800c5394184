"""The command that shows every setting, and writes the page about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskplatform.cli.output import AsJson, show, show_json, show_table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def settings(
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/settings.md.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print every setting with the value that holds here; secrets are masked."""
    if markdown:
        show(page())
        return
    from taskplatform.settings import Settings, load

    now = load()
    values = {name: _plain(getattr(now, name)) for name in Settings.model_fields}
    if as_json:
        show_json(values)
    else:
        show_table(("SETTING", "VALUE"), values.items())


def page() -> str:
    """Write docs/settings.md."""
    from taskplatform.settings import PREFIX, Settings

    rows = [
        f"| `{PREFIX}{name.upper()}` | {_kind(field)} | {_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([_HEAD, *rows])


_HEAD = """\
# Settings

Every process reads the same settings, once, when it starts: defaults, then a TOML file, then a folder of secrets, then
the environment, which wins. The file is the one that `TASKPLATFORM_CONFIG` names, or `taskplatform.toml` in the working
directory where there is one; in it a setting is called by its name in lower case, without the prefix. The folder is the
one that `TASKPLATFORM_SECRETS_DIR` names; each file in it is called like a setting of the TOML file and holds its
value, as Kubernetes mounts a Secret. Lists are comma-separated in the environment and in the folder. A misspelt setting
is refused, with the nearest real name. `taskplatform settings` prints what holds where it is run.

This page is written by `taskplatform settings --markdown > docs/settings.md`.

| variable | type | default | meaning |
|---|---|---|---|"""


def _plain(value: Any) -> Any:
    match value:
        case tuple():
            return [_plain(each) for each in value]
        case Path():
            return str(value)
        case int() | float() | None:
            return value
        case _:
            return str(value)


def _kind(field: FieldInfo) -> str:
    text = str(field.annotation)
    if "tuple" in text:
        return "list of secrets" if "SecretStr" in text else "list"
    for word, kind in (
        ("SecretStr", "secret"),
        ("Path", "path"),
        ("bool", "bool"),
        ("float", "number"),
        ("int", "integer"),
    ):
        if word in text:
            return kind + _bounds(field)
    return "text"


def _bounds(field: FieldInfo) -> str:
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    bounds = [f"{sign} {getattr(one, name)}" for one in field.metadata for name, sign in signs if hasattr(one, name)]
    return f", {' and '.join(bounds)}" if bounds else ""


def _default(field: FieldInfo) -> str:
    value = field.default
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"
