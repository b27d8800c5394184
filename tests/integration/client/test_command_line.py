"""The command line against a real platform."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from taskplatform import wiring
from taskplatform.client import Client
from taskplatform.settings import environment_of
from taskplatform.store.opening import opened
from tests.integration.client.conftest import Run
from tests.integration.client.tasks import add, refuse, wait_for
from tests.native.stack import Stack


def _json(said: tuple[int, str, str]) -> Any:
    return json.loads(said[1])


def test_submit_prints_the_id_alone(run: Run, client: Client) -> None:
    status, out, err = run("submit", "demo.add", "first=1", "second=2")

    assert (status, err) == (0, "")
    assert client.get(out.strip()).kwargs == {"first": 1, "second": 2}


def test_submit_and_wait_prints_the_result(run: Run) -> None:
    said = run("submit", "demo.add", "--args", "[1, 2]", "--wait")

    assert said[0] == 0
    assert _json(said) == {"total": 3, "parts": [1, 2]}


def test_submit_and_wait_fails_as_the_job_does(run: Run) -> None:
    status, out, err = run("submit", "demo.refuse", "why=no photo", "--wait")

    assert (status, out) == (1, "")
    assert "is dead (not_retryable)" in err
    assert "no photo" in err


def test_submit_takes_the_options_of_a_submission(run: Run) -> None:
    words = ("submit", "demo.add", "first=1", "second=2", "--delay", "1h", "-o", "priority=low", "-o", "tags=night")

    job = _json(run(*words, "--json"))

    assert (job["state"], job["priority"], job["tags"]) == ("scheduled", "low", ["night"])


def test_the_same_key_submits_one_job(run: Run) -> None:
    words = ("submit", "demo.add", "first=1", "second=2", "--key", f"order-{uuid4()}")

    assert run(*words)[1] == run(*words)[1]


def test_a_refused_submission_is_bad_usage(run: Run) -> None:
    status, _, err = run("submit", "demo.ad", "first=1")

    assert status == 2
    assert "did you mean 'demo.add'" in err


def test_a_file_is_submitted_and_refused_lines_are_named(run: Run, tmp_path: Path) -> None:
    lines = [{"task": "demo.add", "args": [n, n]} for n in range(5)]
    text = "\n".join([*map(json.dumps, lines), "", '{"task": "demo.add", "arg": []}', '{"task": "demo.nothing"}'])
    (tmp_path / "jobs.ndjson").write_text(text)

    status, out, err = run("submit-many", tmp_path / "jobs.ndjson", "--batch-size", 2, "--ids")

    assert status == 1
    assert len(out.split()) == 5
    assert "line 7: Object contains unknown field `arg`" in err
    assert "line 8: unknown task 'demo.nothing'" in err
    assert err.endswith("5 accepted, 2 refused\n")


def test_a_file_submitted_twice_under_a_prefix_makes_each_job_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jobs.ndjson").write_text('{"task": "demo.add", "args": [1, 2]}\n' * 3)
    words = ("submit-many", tmp_path / "jobs.ndjson", "--key-prefix", f"import-{uuid4().hex[:8]}", "--ids")

    first, second = run(*words), run(*words)

    assert first == second
    assert len(set(first[1].split())) == 3


def test_a_file_can_come_from_another_program(platform: Stack) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "taskplatform.cli", "submit-many", "-", "--json"],
        input=b'{"task": "demo.add", "args": [1, 2]}\n',
        env={**environment_of(platform.settings), "TASKPLATFORM_API_KEY": platform.key},
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert json.loads(said.stdout) == {"accepted": 1, "refused": []}
    assert said.stderr == b""


def test_status_shows_a_job_to_people(run: Run, client: Client) -> None:
    handle = client.submit(add, 1, 2)
    handle.result(30)

    _, out, _ = run("status", handle.id)

    assert "state:         succeeded" in out
    assert 'result:        {"total":3,"parts":[1,2]}' in out


def test_an_unknown_job_is_status_1(run: Run) -> None:
    assert run("status", uuid4())[0] == 1


def test_watch_tells_the_whole_story_and_ends_as_the_job_does(run: Run, client: Client) -> None:
    handle = client.submit(refuse, "no photo")

    status, out, err = run("watch", handle.id)

    assert status == 1
    assert [line.split()[1] for line in out.splitlines()] == ["accepted", "attempt", "attempt", "dead"]
    assert "no photo" in err


def test_watch_of_a_job_that_succeeds_is_status_0(run: Run, client: Client) -> None:
    handle = client.submit(add, 1, 2)

    said = run("watch", handle.id, "--json")

    assert said[0] == 0
    assert _json(said)["attempts"][0]["end"] == "succeeded"


def test_result_without_a_result_is_status_1(run: Run, client: Client, tmp_path: Path) -> None:
    handle = client.submit(wait_for, str(tmp_path / "never"))

    status, out, err = run("result", handle.id, "--wait", "--timeout", "200ms")
    handle.cancel()

    assert (status, out) == (1, "")
    assert "has not ended" in err


def test_result_prints_the_traceback_when_asked(run: Run, client: Client) -> None:
    handle = client.submit(refuse, "no photo")

    _, _, err = run("result", handle.id, "--wait", "--traceback")

    assert "in refuse" in err


def test_ls_finds_jobs_by_filter(run: Run, client: Client) -> None:
    tag = f"ls-{uuid4().hex[:8]}"
    handle = client.submit(add.options(tags=(tag,), delay_seconds=3600), 1, 2)

    _, table, _ = run("ls", "--tag", tag, "--state", "scheduled", "--since", "1h")

    assert [line.split()[:3] for line in table.splitlines()[1:]] == [[str(handle.id), "demo.add", "scheduled"]]
    assert _json(run("ls", "--tag", tag, "--json"))[0]["id"] == str(handle.id)
    assert _json(run("ls", "--tag", tag, "--state", "dead", "--json")) == []


def test_cancel_says_what_became_of_each_job(run: Run, client: Client) -> None:
    live, ended = client.submit(add.options(delay_seconds=3600), 1, 2), client.submit(add, 1, 2)
    ended.result(30)

    assert run("cancel", live.id) == (0, f"{live.id} cancelled\n", "")
    assert run("cancel", ended.id)[:2] == (1, f"{ended.id} succeeded\n")


def test_dead_letters_are_listed_shown_and_replayed(run: Run, client: Client) -> None:
    handle = client.submit(refuse, "no photo")
    handle.wait(30)

    letters = _json(run("dlq", "ls", "--task", "demo.refuse", "--json"))
    letter = next(each for each in letters if each["job_id"] == str(handle.id))

    assert str(handle.id) in run("dlq", "show", letter["id"])[1]
    assert run("dlq", "replay", letter["id"])[:2] == (0, "replayed 1\n")
    assert run("dlq", "replay", letter["id"])[:2] == (1, "replayed 0\n")


def test_a_replay_by_filter_counts_first_and_asks(run: Run, client: Client) -> None:
    client.submit(refuse, "no photo").wait(30)

    status, out, _ = run("dlq", "replay", "--task", "demo.refuse", "--dry-run")
    assert (status, out.startswith("would replay ")) == (0, True)

    assert run("dlq", "replay", "--task", "demo.refuse")[0] == 2

    status, out, _ = run("dlq", "replay", "--task", "demo.refuse", "--yes", "--json")
    assert (status, json.loads(out)["failed"]) == (0, {})


def test_a_key_is_shown_once_works_and_is_revoked(run: Run, platform: Stack) -> None:
    made = _json(run("keys", "create", "--scope", "jobs:read", "--name", "reader", "--expires", "1d", "--json"))

    with Client(platform.settings.api_url, key=made["key"]) as reader:
        assert reader.tasks()
    listed = next(key for key in _json(run("keys", "ls", "--json")) if key["id"] == made["id"])
    assert (listed["scopes"], listed["name"], "key" in listed) == (["jobs:read"], "reader", False)
    assert run("keys", "revoke", made["id"])[0] == 0
    assert run("keys", "revoke", made["id"])[0] == 1


def test_a_key_without_the_scope_is_bad_usage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _json(run("keys", "create", "--scope", "jobs:read", "--json"))
    monkeypatch.setenv("TASKPLATFORM_API_KEY", made["key"])

    status, _, err = run("submit", "demo.add", "first=1", "second=2")

    assert status == 2
    assert "jobs:write" in err


def test_an_api_that_is_away_is_status_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPLATFORM_API_URL", "http://127.0.0.1:1")

    status, _, err = run("ls")

    assert status == 3
    assert err.startswith("taskplatform: no answer from http://127.0.0.1:1")


def test_init_may_be_run_again(run: Run, platform: Stack) -> None:
    status, _, err = run("init")

    assert status == 0
    assert "tasks announced" in err
    assert "demo.add" in asyncio.run(_announced(platform))


async def _announced(platform: Stack) -> set[str]:
    async with opened(wiring.new_store(platform.settings)) as store:
        return set(await store.tasks())
