"""The papers' figures that are curves, from the logs of runs; and those of measured rows: MCN 5 (a), SMCIM 6."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from deixis.charts import BarPanel, Line, Panel, draw_bars, draw_panels
from deixis.papers.ablations import Figures
from deixis.papers.experiments import SPSIL_AS_PRINTED, Experiment

MAX_POINTS = 200
"""Of a curve: each is the mean of so many neighbouring steps that there are no more."""
_MAX_LINE_BYTES = 100_000
_LARGEST = 1e30
_LOSSES = {"l1": "L1", "giou": "GIoU"}


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """What a run wrote of its steps."""

    name: str
    steps: tuple[int, ...]
    values: Mapping[str, tuple[float | None, ...]]
    """By name, one for each step; None where it was not finite or not written."""
    problems: tuple[str, ...] = ()
    """One sentence for each line that was left out."""


def read_run(folder: Path) -> RunLog:
    """The ``metrics.jsonl`` of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: no line of it can be used.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"expected a run with metrics.jsonl in {str(folder)!r}, got none; check the path")
    steps: list[int] = []
    rows: list[dict[str, float | None]] = []
    problems: list[str] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                step, row = _read_line(line, steps[-1] if steps else 0)
            except ValueError as error:
                problems.append(f"{path.name} line {number}: {error}; it is left out")
                continue
            steps.append(step)
            rows.append(row)
    if not steps:
        reason = f" ({problems[0]})" if problems else ""
        raise ValueError(f"expected steps in {str(path)!r}, got none{reason}; name the folder of a training")
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: tuple(row.get(name) for row in rows) for name in names}
    return RunLog(name=str(folder), steps=tuple(steps), values=values, problems=tuple(problems))


def _read_line(line: bytes, after: int) -> tuple[int, dict[str, float | None]]:
    """The step, which is above ``after``, and the numbers of a line."""
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError(f"expected at most {_MAX_LINE_BYTES} bytes, got {len(line)}")
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"expected a JSON object, got {line[:40]!r}") from None
    step = found.get("step") if isinstance(found, dict) else None
    if type(step) is not int or not after < step < 2**53:
        raise ValueError(f"expected an object with a step above {after}, got {line[:40]!r}")
    numbers = {name: one for name, one in found.items() if name not in ("step", "seconds")}
    for name, one in numbers.items():
        if one is not None and (type(one) not in (int, float) or abs(one) > _LARGEST):
            raise ValueError(f"expected {name!r} to be a number or null, got {str(one)[:40]!r}")
    return step, {name: one if one is None or math.isnan(one) else float(one) for name, one in numbers.items()}


def smoothed(steps: Sequence[int], values: Sequence[float | None]) -> list[tuple[float, float | None]]:
    """Means of neighbouring steps, at most `MAX_POINTS`; None where none of them has a value."""
    width = -(-len(steps) // MAX_POINTS)
    points: list[tuple[float, float | None]] = []
    for start in range(0, len(steps), width):
        at = steps[start : start + width]
        known = [value for value in values[start : start + width] if value is not None]
        points.append((sum(at) / len(at), sum(known) / len(known) if known else None))
    return points


def smcim_fig_7(run: RunLog) -> Image.Image:
    """SMCIM Fig. 7: the mean difficulty e^(L^2 / sigma^2) of each loss over training; below, the two sigmas.

    Raises:
        ValueError: the run has no difficulties, as those without SPSIL.
    """
    if not any(f"difficulty_{loss}" in run.values for loss in _LOSSES):
        raise ValueError(
            f"expected a run of the smcim family with spsil on, got {run.name!r} without difficulties; choose another"
        )
    parts = {"difficulty": "mean difficulty of a batch", "sigma": "sigma"}
    panels = []
    for part, label in parts.items():
        known = {told: run.values[f"{part}_{loss}"] for loss, told in _LOSSES.items() if f"{part}_{loss}" in run.values}
        lines = [Line(name=told, points=smoothed(run.steps, values)) for told, values in known.items()]
        panels.append(Panel(up_label=label, across_label="step", lines=lines))
    return draw_panels([panel for panel in panels if panel.lines])


def mcn_fig_5(runs: Sequence[RunLog]) -> Image.Image:
    """The losses of several runs over their steps, one chart for each loss, for MCN Fig. 5 (b).

    The paper draws accuracy there, which is not measured while training: `deixis.papers.learning` does it after.

    Raises:
        ValueError: the runs have no losses.
    """
    names = dict.fromkeys(name for run in runs for name in run.values)
    panels = []
    for name in names:
        known = [run for run in runs if any(value is not None for value in run.values.get(name, ()))]
        lines = [Line(name=run.name, points=smoothed(run.steps, run.values[name])) for run in known]
        panels.append(Panel(up_label=name, across_label="step", lines=lines))
    return draw_panels([panel for panel in panels if panel.lines])


def smcim_fig_6(rows: Sequence[Figures], column: str) -> Image.Image:
    """SMCIM Fig. 6: accuracy against lambda with sigma fixed, and against sigma with lambda fixed.

    Args:
        rows: those of `deixis.papers.experiments.SMCIM_FIG_6`, measured; several seeds give whiskers.
        column: what was measured.
    """
    panels = []
    for moved, fixed, label in (("spsil_lambda", "sigma", "lambda"), ("sigma", "spsil_lambda", "sigma at the start")):
        chosen = [one for one in rows if one.row.recipe_fields.get(fixed) == SPSIL_AS_PRINTED[fixed]]
        points = sorted(((one.row.recipe_fields[moved], one) for one in chosen), key=lambda point: point[0])
        ours = Line(
            name="ours",
            points=[(x, one.means[0]) for x, one in points],
            ranges=[
                (x, min(known), max(known))
                for x, one in points
                if (known := [seed[0] for seed in one.seeds if seed[0] is not None])
            ],
        )
        paper = Line(name="paper", points=[(x, one.row.paper[0]) for x, one in points])
        panels.append(Panel(up_label=f"{column}, percent", across_label=label, lines=[ours, paper], dots=True))
    return draw_panels(panels)


def mcn_fig_5_a(measured: Sequence[tuple[Experiment, Sequence[Figures]]]) -> Image.Image:
    """MCN Fig. 5 (a): bars by structure, in groups by data set; one chart for boxes and one for masks.

    Args:
        measured: each data set's experiment and its measured rows.
    """
    panels = []
    columns = measured[0][0].columns
    for index, column in enumerate(columns):
        groups = {
            next(iter(experiment.data.values())): {
                one.row.name: one.means[index] for one in rows if one.means[index] is not None
            }
            for experiment, rows in measured
        }
        panels.append(BarPanel(up_label=f"{column}, percent", across_label="data", groups=groups))
    return draw_bars([panel for panel in panels if any(panel.groups.values())])
