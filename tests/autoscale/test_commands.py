"""The commands about scaling, as an operator types them."""

import json
from collections.abc import Callable

import pytest

from taskplatform import autoscaling
from taskplatform.autoscale.contract import LEASE
from taskplatform.cli import main
from tests.autoscale.test_store import a_choice
from tests.fixtures.store import DrivenStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(store: DrivenStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the store's database; gives status, stdout and stderr."""
    monkeypatch.setenv("TASKPLATFORM_DATABASE_URL", store.dsn)
    # It would hold for the process of the tests, and for those that come after.
    monkeypatch.setattr(autoscaling, "configure_logging", lambda *_: None)

    def command(*words: str) -> tuple[int, str, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def test_why_names_every_term_of_the_newest_decision(store: DrivenStore, run: Run) -> None:
    store.wait(store.services.hold_lease(LEASE, "one", 60.0))
    store.wait(store.services.record_decisions("one", [a_choice(ready=70)]))

    status, out, _ = run("scale", "why", "default")

    assert status == 0
    assert "default: 0 → 3 by load:" in out
    assert "70 ready need 2.33 to drain" in out


def test_pools_are_listed_for_people_and_for_programs(store: DrivenStore, run: Run) -> None:
    store.wait(store.services.hold_lease(LEASE, "one", 60.0))
    store.wait(store.services.record_decisions("one", [a_choice(ready=70), a_choice("gpu")]))

    lines = run("scale", "ls")[1].splitlines()
    found = json.loads(run("scale", "ls", "--json")[1])

    assert [line.split()[:4] for line in lines[1:]] == [["default", "0", "3", "load"], ["gpu", "0", "1", "load"]]
    assert [one["facts"]["ready"] for one in found] == [70, 0]


def test_a_pool_about_which_nothing_was_decided_is_named(run: Run) -> None:
    assert run("scale", "why", "gpu") == (1, "", "taskplatform: nothing was decided about the pool gpu\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "autoscale_driver is none"),
        ({"AUTOSCALE_DRIVER": "docker"}, "autoscale_agent_token is not set"),
        ({"AUTOSCALE_DRIVER": "process", "AUTOSCALE_MAX_WORKERS": "2", "AUTOSCALE_MIN_WORKERS": "3"}, "max_workers"),
        ({"AUTOSCALE_DRIVER": "podman"}, "autoscale_driver"),
    ],
)
def test_an_autoscaler_that_cannot_work_says_why_in_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"TASKPLATFORM_{name}", value)

    status, out, err = run("autoscaler")

    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_an_agent_without_a_secret_lets_nobody_in(run: Run) -> None:
    status, _, err = run("scaler-agent")

    assert status == 2
    assert "autoscale_agent_token is not set" in err
