"""Bars of the medians as SVG, legible on light and dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from benchmarks.figures import Spread
from benchmarks.outcome import Outcome

_WIDTH, _LABELS, _FIGURES = 760, 190, 90
_ROW, _BAR, _TOP = 26, 16, 40
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.ours { fill: #0969da } .peer { fill: #8c959f } .spread { stroke: #57606a; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ours { fill: #4493f8 } .peer { fill: #6e7681 } .spread { stroke: #c9d1d9 }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One picture; several keys are stacked in one bar, darkest first, and named in the title in this order."""

    name: str
    title: str
    keys: tuple[str, ...]
    digits: int = 0


CHARTS = (
    Chart(name="noop", title="No-op jobs per second, end to end", keys=("noop_per_s",)),
    Chart(name="nap", title="20 ms jobs per second", keys=("nap_per_s",)),
    Chart(name="submit", title="Confirmed submits per second, one at a time", keys=("submit_one_per_s",)),
    Chart(name="start", title="Milliseconds from submit to start at 50 jobs/s, p50", keys=("start_p50_ms",), digits=1),
    Chart(
        name="cpu",
        title="CPU seconds per 1,000 no-op jobs: own processes, servers, client",
        keys=("cpu_own_s_per_1000", "cpu_servers_s_per_1000", "cpu_client_s_per_1000"),
        digits=2,
    ),
)


def draw(chart: Chart, outcome: Outcome) -> str:
    """Draw one chart; a thin line is the spread over the rounds."""
    rows = [
        (key, [spreads[name] for name in chart.keys])
        for key in outcome.sides
        if all(name in (spreads := outcome.spreads.get(key, {})) for name in chart.keys)
    ]
    most = max((sum(part.high for part in parts) for _, parts in rows), default=0.0) or 1.0
    scale = (_WIDTH - _LABELS - _FIGURES) / most
    height = _TOP + _ROW * len(rows) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(chart.title)}</text>',
    ]
    for at, (key, parts) in enumerate(rows):
        top = _TOP + _ROW * at
        lines.append(f'<text x="8" y="{top + 13}">{escape(outcome.sides[key].title)}</text>')
        lines += _bar("ours" if key.startswith("platform") else "peer", parts, top, scale)
        total = sum(part.median for part in parts)
        end = _LABELS + scale * max(total, parts[0].high if len(parts) == 1 else 0.0)
        lines.append(f'<text x="{end + 8:.1f}" y="{top + 13}">{total:,.{chart.digits}f}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _bar(kind: str, parts: list[Spread], top: int, scale: float) -> list[str]:
    lines, left = [], float(_LABELS)
    for at, part in enumerate(parts):
        width = part.median * scale
        lines.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" '
            f'opacity="{1 - 0.3 * at:.1f}"/>'
        )
        left += width
    if len(parts) == 1 and parts[0].low != parts[0].high:
        low, high = (_LABELS + scale * value for value in (parts[0].low, parts[0].high))
        middle = top + _BAR / 2
        lines.append(f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
    return lines
