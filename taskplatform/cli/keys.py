"""Commands for API keys; they work on the database itself, since the first key has to come from somewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskplatform.auth import Scope
from taskplatform.cli.output import AsJson, fail, say, show, show_json, show_table
from taskplatform.cli.parameters import seconds
from taskplatform.cli.session import with_store

if TYPE_CHECKING:
    from taskplatform.auth import ApiKey


def create(
    *,
    tenant: Annotated[str, typer.Option(help="Whose jobs the key is for.")] = "default",
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What the key may do; may be repeated. All about its tenant's jobs if left out."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires: Annotated[
        float | None, typer.Option(help="End after so long, such as 30d.", parser=seconds, metavar="TIME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it, once: only its hash is stored."""
    from taskplatform.auth import new_key
    from taskplatform.settings import load

    scopes = scope or [each for each in Scope if each not in (Scope.ADMIN, Scope.WATCH)]
    expires_at = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    key, text = new_key(tenant, scopes, name=name, expires_at=expires_at)
    with_store(load(), lambda store: store.add_key(key))
    if as_json:
        show_json({**_shown(key), "key": text})
    else:
        show(text)
        say(f"Key {key.id} of tenant {tenant}: {', '.join(sorted(scopes))}. It is shown this once.")


def ls(*, as_json: AsJson = False) -> None:
    """List API keys, the newest first."""
    from taskplatform.settings import load

    keys = [_shown(key) for key in with_store(load(), lambda store: store.keys())]
    if as_json:
        show_json(keys)
    else:
        columns = ("id", "tenant", "name", "scopes", "created_at", "expires_at", "revoked_at")
        show_table([column.upper() for column in columns], ([key[column] for column in columns] for key in keys))


def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id: the middle of tp_<id>_<secret>.", metavar="ID")],
) -> None:
    """Revoke an API key; services notice within seconds."""
    from taskplatform.settings import load

    if not with_store(load(), lambda store: store.revoke_key(key_id)):
        raise fail(f"no living key has the id {key_id}")
    say(f"Key {key_id} is revoked")


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
