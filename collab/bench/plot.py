"""Curves of load as a picture: latency and CPU of several servers, from idle until they are saturated.

Strategy: one SVG, written by hand, so that a comparison needs no library for it. Two panels share the axis of the
edits a second, which is logarithmic. It has a background of its own, for pages with a dark one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

_WIDTH, _HEIGHT = 900, 400
_TOP, _BOTTOM = 44, 300
_PANELS = ((64, 430), (514, 880))
_COLOURS = ("#1259c3", "#b4470c", "#6d28d9", "#0f766e", "#9d174d")
_SLOWEST_MS, _FASTEST_MS = 1_000.0, 0.1


@dataclass(frozen=True, slots=True)
class Point:
    """One rate of one server: edits a second of all clients, part of a core (0 to 1), latencies in milliseconds."""

    rate: float
    core_share: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One server, its points by rising rates; ``limit``: at the next rate it was saturated."""

    name: str
    points: Sequence[Point]
    limit: bool


def plot(title: str, curves: Sequence[Curve]) -> str:
    """Draw the curves; return the text of an SVG file. Each curve has a point at least."""
    rates = [point.rate for curve in curves for point in curve.points]
    low, high = log10(min(rates) * 0.9), log10(max(rates) * 1.1)

    def x(panel: int) -> Callable[[float], float]:
        left, right = _PANELS[panel]
        return lambda rate: left + (log10(rate) - low) / (high - low) * (right - left)

    def latency(ms: float) -> float:
        bounded = min(max(ms, _FASTEST_MS), _SLOWEST_MS)
        part = log10(bounded / _FASTEST_MS) / log10(_SLOWEST_MS / _FASTEST_MS)
        return _BOTTOM - part * (_BOTTOM - _TOP)

    def share(part: float) -> float:
        return _BOTTOM - min(part, 1.0) * (_BOTTOM - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12" fill="#222" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        *_axes(0, "latency, ms: p50 (line) and p99 (dashes)", [(ms, latency(ms)) for ms in (0.1, 1, 10, 100, 1000)]),
        *_axes(1, "CPU of the server, % of a core", [(part, share(part / 100)) for part in (0, 25, 50, 75, 100)]),
    ]
    for panel in (0, 1):
        ticks = [rate for rate in (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000) if low <= log10(rate) <= high]
        for rate in ticks:
            parts.append(_text(x(panel)(rate), _BOTTOM + 18, f"{rate:,}", "middle"))
        left, right = _PANELS[panel]
        parts.append(_text((left + right) / 2, _BOTTOM + 38, "edits a second, of all clients together", "middle"))
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        parts += [
            _line(((x(0)(p.rate), latency(p.p50_ms)) for p in curve.points), colour),
            _line(((x(0)(p.rate), latency(p.p99_ms)) for p in curve.points), colour, dashes=True),
            _line(((x(1)(p.rate), share(p.core_share)) for p in curve.points), colour),
        ]
        if curve.limit:
            last = curve.points[-1]
            ends = ((x(0), latency(last.p50_ms)), (x(0), latency(last.p99_ms)), (x(1), share(last.core_share)))
            parts += [_text(at(last.rate), y + 5, "×", "middle", colour, 18) for at, y in ends]
        begin = 64 + number * 280
        parts.append(f'<path d="M{begin} {_HEIGHT - 24}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(begin + 32, _HEIGHT - 20, curve.name, "start"))
    return "\n".join([*parts, "</svg>", ""])


def _axes(panel: int, title: str, ticks: Iterable[tuple[float, float]]) -> list[str]:
    left, right = _PANELS[panel]
    parts = [_text(left, _TOP - 18, title, "start", size=13)]
    for value, y in ticks:
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(left - 8, y + 4, f"{value:,g}", "end"))
    return parts


def _line(points: Iterable[tuple[float, float]], colour: str, *, dashes: bool = False) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = ' stroke-dasharray="6 4"' if dashes else ""
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
    )
