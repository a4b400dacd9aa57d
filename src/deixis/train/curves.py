"""A run's losses, read from its metrics.jsonl and drawn as curves; numpy and Pillow only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from deixis.charts import Axis, round_axis
from deixis.drawing import COLOURS

Curve = list[tuple[int, float]]
"""Steps and values, steps rising."""

LOG = "metrics.jsonl"
NO_LOSSES = ("step", "seconds")
WINDOWS = 120
"""A curve of more steps is drawn as the means of so many windows."""
PANEL_W_PX, PANEL_H_PX, COLUMNS = 400, 250, 3
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 66, 14, 34, 30
LEGEND_PX = 30
FONT_PX = 13
GRID, INK = (225, 225, 225), (40, 40, 40)
MAX_PANELS = 30
_LARGEST = 1e30
"""A number beyond it is no loss: of a damaged file."""


def read_rows(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics.jsonl that are whole; none where there is no file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        row = parse_row(line)
        if row is not None:
            rows.append(row)
    return rows


def parse_row(line: str) -> dict[str, float | None] | None:
    """One line as an object with a whole number ``step``, numbers and nulls; None where it is anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    if not all(value is None or (type(value) in (int, float) and abs(value) <= _LARGEST) for value in row.values()):
        return None
    return row


def curves_of(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Curve]:
    """Each loss by its name; values that were not finite are left out."""
    curves: dict[str, Curve] = {}
    for row in rows:
        for name, value in row.items():
            if name not in NO_LOSSES:
                curve = curves.setdefault(name, [])
                if value is not None:
                    curve.append((int(row["step"] or 0), float(value)))
    return curves


def smoothed(curve: Curve, windows: int = WINDOWS) -> Curve:
    """The means of at most ``windows`` windows of about as many points, each at its last step."""
    size = -(-len(curve) // windows) or 1
    points = iter(curve)
    means = []
    while window := list(islice(points, size)):
        means.append((window[-1][0], sum(value for _, value in window) / len(window)))
    return means


def draw_curves(runs: Mapping[str, Mapping[str, Curve]]) -> Image.Image:
    """One panel a loss, one colour a run.

    Args:
        runs: by a run's label, its curves by their names; the first run's names come first.

    Raises:
        ValueError: no run has a point.
    """
    names = list(dict.fromkeys(name for curves in runs.values() for name, curve in curves.items() if curve))
    if not names:
        raise ValueError("expected losses of at least one step to draw, got none; let the run go on first")
    names = names[:MAX_PANELS]
    top = LEGEND_PX if len(runs) > 1 else 0
    columns = min(COLUMNS, len(names))
    height = top + -(-len(names) // columns) * PANEL_H_PX
    picture = Image.new("RGB", (columns * PANEL_W_PX, height), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT_PX)
    if top:
        _draw_legend(pen, list(runs), font)
    for index, name in enumerate(names):
        corner = (index % columns * PANEL_W_PX, top + index // columns * PANEL_H_PX)
        _draw_panel(pen, font, corner, name, [smoothed(curves.get(name, [])) for curves in runs.values()])
    return picture


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _draw_legend(pen: ImageDraw.ImageDraw, labels: Sequence[str], font: Font) -> None:
    x = LEFT_PX
    for index, label in enumerate(labels):
        pen.rectangle((x, 10, x + 12, 22), fill=COLOURS[index % len(COLOURS)])
        shown = label[-60:].encode("utf-8", "replace").decode("utf-8")
        pen.text((x + 18, 16), shown, fill=INK, font=font, anchor="lm")
        x += 36 + round(font.getlength(shown))


def _draw_panel(
    pen: ImageDraw.ImageDraw, font: Font, corner: tuple[int, int], name: str, curves: Sequence[Curve]
) -> None:
    points = [point for curve in curves for point in curve]
    across, up = round_axis([step for step, _ in points]), round_axis([value for _, value in points])
    left, top = corner[0] + LEFT_PX, corner[1] + TOP_PX
    right, bottom = corner[0] + PANEL_W_PX - RIGHT_PX, corner[1] + PANEL_H_PX - BOTTOM_PX
    box = (left, top, right, bottom)
    for value in up.ticks():
        y = _place(across, up, (0, value), box)[1]
        pen.line((left, y, right, y), fill=GRID)
        pen.text((left - 6, y), up.label(value), fill=INK, font=font, anchor="rm")
    for value in (across.low, across.high):
        x = left if value == across.low else right
        pen.text((x, bottom + 5), across.label(value), fill=INK, font=font, anchor="lt" if x == left else "rt")
    pen.rectangle(box, outline=INK)
    pen.text((left, top - 8), name, fill=INK, font=font, anchor="lb")
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        places = [_place(across, up, point, box) for point in curve]
        if len(places) == 1:
            x, y = places[0]
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        elif places:
            pen.line(places, fill=colour, width=2, joint="curve")


def _place(across: Axis, up: Axis, point: tuple[float, float], box: tuple[int, int, int, int]) -> tuple[float, float]:
    left, top, right, bottom = box
    return left + (right - left) * across.share(point[0]), bottom - (bottom - top) * up.share(point[1])
