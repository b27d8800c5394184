"""Runs an embedded platform from a terminal until it is told to stop."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from taskplatform.embedded.platform import Platform
from taskplatform.errors import TaskplatformError
from taskplatform.servers.lifetime import started
from taskplatform.settings import Settings

_WATCH_SECONDS = 0.5
_INTERRUPTED = 130


def run(settings: Settings) -> int:
    """Run the embedded platform until SIGINT, SIGTERM or SIGHUP; gives the exit status.

    Tells on stdout what runs where. A second such signal ends everything at once.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    _say("Starting the platform on this machine: for development, with one Postgres and no replicas")
    try:
        with started(Platform(settings, _say)) as platform:
            _say(f"Ready after {time.monotonic() - began:.1f} s")
            for line in _first_steps(platform):
                _say(line)
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(_WATCH_SECONDS)
                    platform.watch_once()
            _say("Stopping: the worker gives back what it has not started")
    except KeyboardInterrupt:
        _say("Stopped at once")
        return _INTERRUPTED
    except TaskplatformError as error:
        with suppress(OSError):
            sys.stderr.write(f"taskplatform: {error}\n")
        return 1
    _say("Stopped; the data stays")
    return 0


def _first_steps(platform: Platform) -> list[str]:
    settings = platform.settings
    command = "taskplatform"
    if shutil.which(command) is None:
        command = _shown(Path(sys.executable).with_name(command))
    task, arguments, words = "TASK", "{}", "name=value"
    if "examples.documents" in settings.task_modules:
        task, arguments, words = "documents.terms", '{"title": "assert"}', "title=assert"
    key = _shown(platform.data_dir / "api_key")
    return [
        "",
        f"  export TASKPLATFORM_CONFIG={_shown(platform.client_file)}",
        f"  {command} submit {task} {words} --wait",
        "",
        f'  curl -H "Authorization: Bearer $(cat {key})" \\',
        "    -H 'Content-Type: application/json' -H 'Prefer: wait=10' \\",
        f"""    -d '{{"task": "{task}", "kwargs": {arguments}}}' {settings.api_url}/v1/jobs""",
        "",
        "Ctrl-C stops everything; the data stays.",
    ]


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _say(line: str) -> None:
    # Whoever read this may have gone; the platform goes on.
    with suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
