"""The command that shows the platform live in a terminal: queues, workers, rates, dead letters."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from taskplatform.cli.output import AsJson, show_json
from taskplatform.cli.parameters import seconds
from taskplatform.cli.session import api_client
from taskplatform.overview import Overview, Rates, rates

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_FIRST_LOOK_SECONDS = 1.0
_EVERY_SECONDS = 2.0
_LEAST_SECONDS = 0.2
_STATES = ("scheduled", "blocked", "queued", "running", "retrying")
_MOST_WORKERS = 30

Look = Callable[[], Overview]


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, as without a terminal.")] = False,
    every: Annotated[
        float | None,
        typer.Option(help="Look anew after so long, such as 5s; 2s if left out.", parser=seconds, metavar="TIME"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show queues, workers, rates and dead letters, live until q is pressed. Needs a key of the scope platform:read."""
    with api_client() as client:
        if as_json:
            earlier, later = _two_looks(client.overview)
            show_json({"overview": later, "per_second": rates(earlier, later)})
        elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _print_once(client.overview)
        else:
            _live(client.overview, _EVERY_SECONDS if every is None else max(every, _LEAST_SECONDS))


def frame(now: Overview, speed: Rates) -> RenderableType:
    """Draw one frame."""
    from rich.console import Group
    from rich.text import Text

    dead = f"{now.dead_letters} dead letters"
    head = Text(f"taskplatform   {now.at:%Y-%m-%d %H:%M:%S}Z   {len(now.workers)} workers   ", style="bold")
    head.append(dead, style="bold red" if now.dead_letters else "")
    head.append(f"   {now.outbox} batches in the outbox")
    pace = Text(
        f"per second: {speed.accepted:.1f} accepted   {speed.attempts:.1f} attempts   {speed.ended:.1f} ended   "
        f"{speed.dead:.1f} dead"
    )
    return Group(head, pace, Text(), _queues(now), Text(), _workers(now))


def _queues(now: Overview) -> RenderableType:
    table = _table("POOL", *(state.upper() for state in _STATES), "OLDEST QUEUED")
    for pool, states in sorted(now.pools.items()):
        counts = [str(states[state].jobs) if state in states else "-" for state in _STATES]
        oldest = _duration(states["queued"].oldest_seconds) if "queued" in states else "-"
        table.add_row(pool, *counts, oldest)
    if not now.pools:
        table.add_row("no live jobs")
    return table


def _workers(now: Overview) -> RenderableType:
    table = _table("WORKER", "POOL", "RUNNING", "AT ONCE", "STATE", "LEASE", "UP")
    for worker in now.workers[:_MOST_WORKERS]:
        silent = worker.lease_seconds < 0
        state = "silent" if silent else "draining" if worker.draining else "ready"
        numbers = str(worker.running), str(worker.processes)
        lease = f"{worker.lease_seconds:.0f} s"
        style = "red" if silent else "yellow" if worker.draining else ""
        table.add_row(worker.id, worker.pool, *numbers, state, lease, _duration(worker.up_seconds), style=style)
    if len(now.workers) > _MOST_WORKERS:
        table.add_row(f"and {len(now.workers) - _MOST_WORKERS} more")
    if not now.workers:
        table.add_row("no workers")
    return table


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _duration(in_seconds: float) -> str:
    for unit, length in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0)):
        if in_seconds >= length:
            return f"{in_seconds / length:.1f} {unit}"
    return f"{in_seconds:.1f} s"


def _two_looks(look: Look) -> tuple[Overview, Overview]:
    earlier = look()
    time.sleep(_FIRST_LOOK_SECONDS)
    return earlier, look()


def _print_once(look: Look) -> None:
    from rich.console import Console

    earlier, later = _two_looks(look)
    Console(file=sys.stdout, width=120, highlight=False).print(frame(later, rates(earlier, later)))


def _live(look: Look, every: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from taskplatform.errors import TaskplatformError

    earlier, later = _two_looks(look)
    shown = frame(later, rates(earlier, later))
    with _keys() as pressed, Live(shown, screen=True, auto_refresh=False) as live:
        live.refresh()
        while pressed(every) not in ("q", "Q"):
            try:
                earlier, later = later, look()
            except TaskplatformError as error:
                # What was seen last stays in sight; the platform may be back by the next look.
                live.update(Group(Text(str(error), style="red"), shown), refresh=True)
                continue
            shown = frame(later, rates(earlier, later))
            live.update(shown, refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read single keys from the terminal: the callable waits so many seconds for one, and gives '' for none."""
    import select
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(within: float) -> str:
        ready, _, _ = select.select([terminal], [], [], within)
        return os.read(terminal, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
