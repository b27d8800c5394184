"""The file with the retention of single tenants and tasks."""

from pathlib import Path

import pytest

from taskplatform.errors import SettingsError
from taskplatform.keeping import Policy, Rule
from taskplatform.retention_rules import policy_of
from taskplatform.settings import load
from tests.architecture.sources import ROOT

_FILE = """
[[rules]]
tenant = "acme"
task = "reports.*"
retention_days = 365
dead_retention_days = 730

[[rules]]
task = "mail.send"
retention_days = 2.5
"""


def policy(folder: Path, text: str) -> Policy:
    path = folder / "retention.toml"
    path.write_text(text)
    return policy_of(load({}, retention_file=path))


def test_the_rules_are_read_in_their_order(tmp_path: Path) -> None:
    assert policy(tmp_path, _FILE) == Policy(
        default_days=30.0,
        rules=(
            Rule(tenant="acme", task="reports.*", retention_days=365, dead_retention_days=730),
            Rule(task="mail.send", retention_days=2.5, dead_retention_days=2.5),
        ),
    )


def test_without_a_file_there_is_the_default(tmp_path: Path) -> None:
    assert policy_of(load({}, retention_days=3)) == Policy(default_days=3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rules]]\ntenant = 'acme'", "retention_days"),
        ("[[rules]]\nretention_days = 0", "retention_file: .*> 0"),
        ("[[rules]]\nretention_day = 1", "retention_day"),
        ("[rules]\nretention_days = 3", "retention_file: "),
        ("[[rule]]\nretention_days = 3", "rule"),
        ("[[rules]]\nretention_days = 3\ntask = 'a*b'", "a star stands at the end"),
        ("[[rules]]\nretention_days = 3\ntenant = ''", "retention_file: "),
        ("[[rules]]\nretention_days = nan", "retention_file: |retention of"),
        ("[[rules", "is not TOML"),
        ("[[rules]]\nretention_days = 0.5", "less than key_lifetime_seconds"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        policy(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nowhere\.toml"):
        policy_of(load({}, retention_file=tmp_path / "nowhere.toml"))


def test_jobs_outlive_their_keys() -> None:
    with pytest.raises(SettingsError, match="key_lifetime_seconds"):
        policy_of(load({}, retention_days=1, key_lifetime_seconds=2 * 86_400))


def test_the_example_is_valid() -> None:
    assert policy_of(load({}, retention_file=ROOT / "config" / "taskplatform" / "retention.toml")).rules
