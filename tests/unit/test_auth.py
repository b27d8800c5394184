"""API keys."""

from datetime import UTC, datetime, timedelta

import pytest

from taskplatform.auth import Scope, new_key, parse_key
from taskplatform.errors import NotAllowed, NotAuthenticated

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_text_of_a_key_leads_to_the_key_and_opens_it() -> None:
    key, text = new_key("acme", [Scope.READ])

    key_id, secret = parse_key(text)

    assert key_id == key.id
    key.check(secret, NOW)


def test_a_stored_key_does_not_hold_its_secret() -> None:
    key, text = new_key("acme", [Scope.READ])

    assert parse_key(text)[1] not in repr(key)


def test_another_secret_does_not_open_a_key() -> None:
    key, _ = new_key("acme", [Scope.READ])
    _, other = new_key("acme", [Scope.READ])

    with pytest.raises(NotAuthenticated):
        key.check(parse_key(other)[1], NOW)


def test_an_expired_key_is_refused_from_its_last_moment_on() -> None:
    key, text = new_key("acme", [Scope.READ], expires_at=NOW)
    secret = parse_key(text)[1]

    key.check(secret, NOW - timedelta(seconds=1))
    with pytest.raises(NotAuthenticated, match="expired"):
        key.check(secret, NOW)


def test_a_key_allows_its_scopes_only() -> None:
    key, _ = new_key("acme", [Scope.READ])

    key.require(Scope.READ)
    with pytest.raises(NotAllowed, match="jobs:write"):
        key.require(Scope.WRITE)


@pytest.mark.parametrize("scope", list(Scope))
def test_an_administrator_may_do_everything(scope: Scope) -> None:
    key, _ = new_key("acme", [Scope.ADMIN])

    key.require(scope)


@pytest.mark.parametrize("damage", ["", "x", "tp_", "tp_a_b", "Bearer", "tp_é_" + "0" * 72])
def test_what_cannot_be_a_key_is_refused(damage: str) -> None:
    with pytest.raises(NotAuthenticated, match="malformed"):
        parse_key(damage)


def test_a_mistyped_key_is_told_apart_without_a_look_up() -> None:
    _, text = new_key("acme", [Scope.READ])
    mistyped = text[:-20] + ("0" if text[-20] != "0" else "1") + text[-19:]

    with pytest.raises(NotAuthenticated, match="malformed"):
        parse_key(mistyped)
