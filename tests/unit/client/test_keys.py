"""API keys that cannot be sent."""

import pytest

from taskplatform.client import Client
from taskplatform.errors import SettingsError


@pytest.mark.parametrize("key", ["", "tp_secret\n", "tp_sec ret", "tp_s\u00e9cret", "tp_\u2603"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(SettingsError, match="the API key") as refused:
        Client("http://127.0.0.1:1", key=key)

    assert "tp_" not in str(refused.value)
