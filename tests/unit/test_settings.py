"""Settings: one frozen value, and clear words about a wrong one."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from taskplatform.errors import SettingsError
from taskplatform.settings import Settings, environment_of, load

SECRET = "correct-horse-battery-staple-9876543210"


def test_without_anything_the_defaults_hold() -> None:
    assert load({}).api_port == 8080


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('api_port = 1\nworker_pool = "video"\n')

    settings = load({"TASKPLATFORM_CONFIG": str(file), "TASKPLATFORM_API_PORT": "2"})

    assert (settings.api_port, settings.worker_pool) == (2, "video")


def test_a_mounted_secret_is_a_folder_with_a_file_for_each_setting(tmp_path: Path) -> None:
    # As Kubernetes lays it out: the names are links into a folder that is replaced as a whole.
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "database_url").write_text("postgresql://mounted/jobs\n")
    (data / "signing_keys").write_text(f"{SECRET},{SECRET[::-1]}")
    (tmp_path / "..data").symlink_to(data.name)
    for name in ("database_url", "signing_keys"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    settings = load({"TASKPLATFORM_SECRETS_DIR": str(tmp_path), "TASKPLATFORM_DATABASE_URL": "postgresql://said/jobs"})

    assert settings.database_url.get_secret_value() == "postgresql://said/jobs"
    assert settings.signing_secrets() == [SECRET.encode(), SECRET[::-1].encode()]


def test_a_folder_of_secrets_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the secrets in .*/none: No such file"):
        load({"TASKPLATFORM_SECRETS_DIR": str(tmp_path / "none")})


def test_lists_are_split_at_commas() -> None:
    assert load({"TASKPLATFORM_POOLS": "default, video,"}).pools == ("default", "video")


def test_a_misspelt_setting_is_answered_with_the_nearest_real_one() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'databse_url'; did you mean 'database_url'\?"):
        load({"TASKPLATFORM_DATABSE_URL": "x"})


def test_a_misspelt_setting_in_the_file_is_answered_alike(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("api_prot = 1\n")

    with pytest.raises(SettingsError, match="did you mean 'api_port'"):
        load({"TASKPLATFORM_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("API_PORT", "many", "integer"),
        ("API_PORT", "70000", "less than or equal to 65535"),
        ("LEASE_SECONDS", "0", "greater than 0"),
        ("LEASE_RENEW_SECONDS", "20", "less than lease_seconds"),
        ("LOG_LEVEL", "LOUD", "match pattern"),
        ("SIGNING_KEYS", "short", "at least 32 characters"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"setting {name.lower()}: .*{expected}"):
        load({f"TASKPLATFORM_{name}": value})


def test_a_bad_secret_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"TASKPLATFORM_SIGNING_KEYS": "hunter2"})

    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load({"TASKPLATFORM_CONFIG": str(tmp_path / "none.toml")})


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("= 1")

    with pytest.raises(SettingsError, match="is not TOML"):
        load({"TASKPLATFORM_CONFIG": str(file)})


def test_secrets_are_masked() -> None:
    settings = load({"TASKPLATFORM_SIGNING_KEYS": SECRET, "TASKPLATFORM_DATABASE_URL": f"postgresql://u:{SECRET}@h/d"})

    assert SECRET not in repr(settings)


def test_settings_cannot_be_changed() -> None:
    settings = load({})

    with pytest.raises(ValidationError, match="frozen"):
        settings.api_port = 1


def test_another_process_loads_the_same_settings() -> None:
    settings = load({"TASKPLATFORM_SIGNING_KEYS": f"{SECRET},{SECRET[::-1]}", "TASKPLATFORM_TASK_MODULES": "a,b"})

    assert load(environment_of(settings)) == settings


def test_signing_needs_a_key() -> None:
    with pytest.raises(SettingsError, match="TASKPLATFORM_SIGNING_KEYS"):
        load({}).signing_secrets()


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_with_some_changed_are_checked_and_pass_on_what_was_given() -> None:
    changed = load({"TASKPLATFORM_API_PORT": "1"}).changed(worker_pool="video")

    assert load(environment_of(changed)) == load({}, api_port=1, worker_pool="video")
    with pytest.raises(ValidationError, match="less_than_equal"):
        changed.changed(api_port=70_000)
