"""Plots of HTML pages, as inline SVG: bars with intervals, curves, histograms; sized to be read on a phone.

Charts that are files of their own, as PNG, are in `deixis.charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deixis.evaluate.report.html_page import text

COLOURS = ("#2563eb", "#d97706", "#059669")
"""One a series, in order; told apart by people who do not tell red from green."""
_INK, _GRID = "#1b1f24", "#d0d7de"
_WIDTH = 360
_LETTER = 11
_LABEL_CHARS = 20
_LEFT, _TOP, _SIDE, _HIGH = 38, 22, 308, 200  # of the plotting field, in units of the drawing


@dataclass(frozen=True)
class Bar:
    """A share, 0..1, and its interval where there is one."""

    label: str
    value: float
    bounds: Sequence[float] | None = None


def bar_chart(bars: Sequence[Bar]) -> str:
    """Bars to the right, one below the other, 0 to 100 percent."""
    left, wide, row = 128, 176, 18
    lines: list[str] = []
    for number, bar in enumerate(bars):
        y = row * number
        middle = y + row / 2
        shown = bar.label if len(bar.label) <= _LABEL_CHARS else f"{bar.label[: _LABEL_CHARS - 1]}…"
        lines.append(_text(left - 6, middle + 4, shown, "end"))
        lines.append(
            f'<rect x="{left}" y="{y + 3}" width="{wide * bar.value:.1f}" height="{row - 6}" fill="{COLOURS[0]}"/>'
        )
        if bar.bounds is not None:
            low, high = (left + wide * value for value in bar.bounds)
            lines.append(_line(low, middle, high, middle, _INK))
        lines.append(_text(_WIDTH - 2, middle + 4, f"{100 * bar.value:.1f}", "end"))
    return _drawing(row * len(bars) + 4, [_line(left, 0, left, row * len(bars), _GRID), *lines])


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    *,
    top: float = 1.0,
    diagonal: bool = False,
) -> str:
    """Lines through points of 0..1 across and 0..``top`` up, ``diagonal`` drawn from corner to corner."""
    lines = _field(across, up, f"{100 * top:g} %")
    if diagonal:
        lines.append(_line(*_at(0, 0), *_at(1, 1), _GRID))
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_at(x, y / top) for x, y in points))
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) <= 10:
            lines += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (_at(*p) for p in points)
            ]
        lines.append(_text(_LEFT + 100 * number, 12, name, "start", colour))
    return _drawing(_TOP + _HIGH + 34, lines)


def histogram(series: Mapping[str, Sequence[float]], across: str, bins: int = 10) -> str:
    """How many values of 0..1 are in each of equally wide bins, series side by side."""
    counts = {name: [0] * bins for name in series}
    for name, values in series.items():
        for value in values:
            counts[name][min(int(value * bins), bins - 1)] += 1
    most = max((count for column in counts.values() for count in column), default=0) or 1
    lines = _field(across, "samples", str(most))
    wide = _SIDE / bins / (len(counts) + 0.4)
    for number, (name, column) in enumerate(counts.items()):
        colour = COLOURS[number % len(COLOURS)]
        for place, count in enumerate(column):
            x, y = _at((place + 0.1) / bins, count / most)
            lines.append(
                f'<rect x="{x + number * wide:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                f'height="{_TOP + _HIGH - y:.1f}" fill="{colour}"/>'
            )
        lines.append(_text(_LEFT + 100 * number, 12, name, "start", colour))
    return _drawing(_TOP + _HIGH + 34, lines)


def _field(across: str, up: str, top_label: str) -> list[str]:
    """The axes with their names; the upper end is ``top_label``."""
    bottom, right = _TOP + _HIGH, _LEFT + _SIDE
    lines = [_line(_LEFT, bottom, right, bottom, _INK), _line(_LEFT, _TOP, _LEFT, bottom, _INK)]
    for share in (0.25, 0.5, 0.75, 1.0):
        lines.append(_line(_LEFT, bottom - share * _HIGH, right, bottom - share * _HIGH, _GRID))
    for share in (0.0, 0.5, 1.0):
        lines.append(_text(_LEFT + share * _SIDE, bottom + 14, f"{share:g}", "middle"))
    lines.append(_text(_LEFT - 4, _TOP + 4, top_label, "end"))
    lines.append(_text(_LEFT - 4, bottom, "0", "end"))
    lines.append(_text(_LEFT + _SIDE / 2, bottom + 28, across, "middle"))
    lines.append(_text(right, 12, up, "end"))
    return lines


def _at(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * _SIDE, _TOP + (1 - y) * _HIGH


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str, colour: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text(words)}</text>'


def _drawing(height: float, lines: Sequence[str]) -> str:
    box = f'viewBox="0 0 {_WIDTH} {height:g}"'
    font = f'font-family="system-ui, sans-serif" font-size="{_LETTER}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box} {font}>{"".join(lines)}</svg>'
