"""`make test-containers`: brings the Compose platform up on a real engine, loads it, hurts it, and counts."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.containers.trial import images
from tests.containers.trial.engine import CommandFailed, Engine, NoEngine, engine
from tests.containers.trial.ledger import Ledger
from tests.containers.trial.load import Load
from tests.containers.trial.stack import MOST_WORKERS, Stack
from tests.containers.trial.story import Story

NO_ENGINE = 77
"""The exit status of a trial that could not be made; test harnesses read it as skipped."""
_SHOWN = 10
_BEGAN = time.monotonic()


def main() -> int:
    """Carry out one trial; 0 when every promise was kept, 77 where no engine can be had."""
    try:
        with engine() as found:
            broken = list(_trial(found))
    except NoEngine as reason:
        _tell(f"NOT TRIED, there is no container engine: {reason}")
        return NO_ENGINE
    except (CommandFailed, AssertionError) as error:
        broken = [str(error)]
    for case in broken[:_SHOWN]:
        _tell(f"BROKEN {case}")
    _tell("broken" if broken else "every promise was kept")
    return 1 if broken else 0


def _trial(found: Engine) -> Iterator[str]:
    """Do everything on this engine, and give what was not as promised."""
    _tell(f"Engine {found.docker('version', '--format', '{{.Server.Version}}').strip()}")
    images.build(found, _tell)
    _tell(f"Its SBOM names {len(images.bill_of_materials(found))} packages")
    with tempfile.TemporaryDirectory(prefix="taskplatform-trial-") as folder, Stack(found, Path(folder)) as stack:
        _tell("Bringing the platform up")
        stack.up()
        pages = {path: stack.status_of(path) for path in ("/readyz", "/flower/healthcheck")}
        yield from (f"{path} is answered {status}" for path, status in pages.items() if status != 200)
        story = Story(stack, stack.new_key())
        yield from _scaled(story)
        yield from _replaced(story)
        _tell("Taking it away")


def _scaled(story: Story) -> Iterator[str]:
    _tell("Handing in jobs; killing a worker and an API process")
    load, fleet = story.scale()
    yield from _told(story, load).breaches
    for name, sizes in (("workers", fleet.sizes), ("not draining", fleet.working)):
        _tell(f"{name:<17} {' → '.join(map(str, sizes))}")
    statuses = story.exit_statuses()
    _tell(f"scaled in         {len(statuses)} workers, exit statuses {sorted(set(statuses))}")
    yield from fleet.breaches(MOST_WORKERS)
    if len(statuses) < MOST_WORKERS - 1:
        yield f"only {len(statuses)} ends of workers were seen"
    yield from (f"a worker that was scaled in ended with {status}" for status in statuses if status)


def _replaced(story: Story) -> Iterator[str]:
    _tell("Replacing every process under load")
    load = story.roll()
    yield from _told(story, load).breaches
    yield from load.troubles


def _told(story: Story, load: Load) -> Ledger:
    ledger = story.ledger(load)
    _tell(f"requests          {load.statuses.total()}, not 2xx (0: cut off): {load.failed or 'none'}")
    for line in ledger.lines:
        _tell(line)
    return ledger


def _tell(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:4.0f} s  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
