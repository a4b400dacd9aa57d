"""A run's losses, read from its metrics.jsonl and drawn over its steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deixis.charts import Line, Panel, draw_panels

if TYPE_CHECKING:
    from PIL import Image

Curve = list[tuple[int, float | None]]
"""Steps, rising, and values; None where the value was not finite."""

LOG = "metrics.jsonl"
MAX_POINTS = 200
"""A longer curve is drawn as the means of so many windows."""
MAX_PANELS = 30
_COLUMNS, _PANEL_PX = 3, (400, 250)
_MAX_LINE_BYTES = 100_000
_LARGEST = 1e30
"""A larger number is no loss, but the sign of a damaged file."""


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """What a run wrote of its steps."""

    name: str
    curves: Mapping[str, Curve]
    """By the name of a loss or of another value."""
    problems: tuple[str, ...] = ()
    """One sentence for each line that was left out."""


def read_log(folder: Path) -> RunLog:
    """Read the ``metrics.jsonl`` of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it has no step that can be read.
    """
    path = folder / LOG
    if not path.is_file():
        raise FileNotFoundError(f"expected a run with {LOG} in {str(folder)!r}, got none; check the path")
    curves: dict[str, Curve] = {}
    problems: list[str] = []
    last = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                last, row = _parse_line(line, last)
            except ValueError as error:
                problems.append(f"{LOG} line {number}: {error}; it is left out")
                continue
            for name, value in row.items():
                curves.setdefault(name, []).append((last, value))
    if not curves:
        reason = f" ({problems[0]})" if problems else ""
        raise ValueError(
            f"expected the losses of at least one step in {str(path)!r}, got none{reason}; let the run go on first"
        )
    return RunLog(name=str(folder), curves=curves, problems=tuple(problems))


def _parse_line(line: bytes, after: int) -> tuple[int, dict[str, float | None]]:
    """The step, which is above ``after``, and the values of a line."""
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError(f"expected at most {_MAX_LINE_BYTES} bytes, got {len(line)}")
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"expected a JSON object, got {line[:40]!r}") from None
    step = found.get("step") if isinstance(found, dict) else None
    if type(step) is not int or not after < step < 2**53:
        raise ValueError(f"expected an object with a step above {after}, got {line[:40]!r}")
    values = {name: one for name, one in found.items() if name not in ("step", "seconds")}
    for name, one in values.items():
        if one is not None and (type(one) not in (int, float) or abs(one) > _LARGEST):
            raise ValueError(f"expected {name!r} to be a number or null, got {str(one)[:40]!r}")
    return step, {name: None if one is None or math.isnan(one) else float(one) for name, one in values.items()}


def smoothed(curve: Curve, max_points: int = MAX_POINTS) -> list[tuple[float, float | None]]:
    """The means of at most so many windows of neighbouring steps; None where a window has no value."""
    width = -(-len(curve) // max_points) or 1
    points: list[tuple[float, float | None]] = []
    for start in range(0, len(curve), width):
        steps, values = zip(*curve[start : start + width], strict=True)
        known = [value for value in values if value is not None]
        points.append((sum(steps) / len(steps), sum(known) / len(known) if known else None))
    return points


def curve_panels(runs: Mapping[str, Mapping[str, Curve]]) -> list[Panel]:
    """A chart for each loss of which any run has a value, with a line for each run that has it.

    Args:
        runs: by a run's label, its curves by their names.
    """
    known = {
        label: {name: curve for name, curve in curves.items() if any(value is not None for _, value in curve)}
        for label, curves in runs.items()
    }
    names = dict.fromkeys(name for curves in known.values() for name in curves)
    return [
        Panel(
            up_label=name,
            across_label="step",
            lines=[
                Line(name=label, points=smoothed(curves[name])) for label, curves in known.items() if name in curves
            ],
        )
        for name in names
    ]


def draw_curves(runs: Mapping[str, Mapping[str, Curve]]) -> Image.Image:
    """The charts of :func:`curve_panels` side by side, at most `MAX_PANELS`.

    Raises:
        ValueError: no run has a value.
        ImportError: matplotlib is not installed.
    """
    panels: Sequence[Panel] = curve_panels(runs)[:MAX_PANELS]
    if not panels:
        raise ValueError("expected losses of at least one step to draw, got none; let the run go on first")
    return draw_panels(panels, columns=_COLUMNS, panel_px=_PANEL_PX)
