"""The papers' figures that are charts: of runs' logs and kept states, of measured rows, by length, by speed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deixis.bench.bench import bench
from deixis.bench.report import Point
from deixis.bench.subjects import find_subjects
from deixis.charts import BarPanel, Line, Panel
from deixis.evaluate.evaluate import evaluate
from deixis.files import write_text
from deixis.grounder import Grounder
from deixis.hub import load_checkpoint
from deixis.papers.measure import GivenModel, Measured, Meter, column_value
from deixis.papers.printed import SMCIM_FIG_2_OWN, SMCIM_FIG_5_OVER_TRANSVG
from deixis.papers.tables import (
    REC,
    REFCOCO,
    REFCOCO_PLUS,
    REFCOCOG,
    REFERIT,
    RES,
    SPSIL_AS_PRINTED,
    Experiment,
    Part,
)
from deixis.progress import progress_over, progress_report
from deixis.structures import Sample
from deixis.text_tables import cell, markdown_table
from deixis.train.curves import RunLog, curve_panels, smoothed
from deixis.train.state import kept_states

TIMING_ROUNDS = 10
TEST_SETS: Mapping[str, tuple[Part, ...]] = {
    "RefCOCO": REFCOCO[1:],
    "RefCOCO+": REFCOCO_PLUS[1:],
    "RefCOCOg": REFCOCOG[1:],
    "ReferItGame": (REFERIT,),
}
"""SMCIM Fig. 5 says "test sets"; testA and testB are taken together."""
_LENGTH_METRIC = "rec.acc@0.5"


def smcim_fig_7(run: RunLog) -> list[Panel]:
    """SMCIM Fig. 7: the mean difficulty e^(L^2 / sigma^2) of each loss over training; below, the two sigmas.

    Raises:
        ValueError: the run has no difficulties, as those without SPSIL.
    """
    panels = []
    for part, label in {"difficulty": "mean difficulty of a batch", "sigma": "sigma"}.items():
        known = {name: run.curves.get(f"{part}_{loss}") for loss, name in {"l1": "L1", "giou": "GIoU"}.items()}
        lines = [Line(name=name, points=smoothed(curve)) for name, curve in known.items() if curve]
        if lines:
            panels.append(Panel(up_label=label, across_label="step", lines=lines))
        elif part == "difficulty":
            raise ValueError(
                f"expected a run of the smcim family with spsil on, got {run.name!r} without difficulties; choose "
                "another"
            )
    return panels


def mcn_fig_5(runs: Sequence[RunLog]) -> list[Panel]:
    """The losses of several runs over their steps, one chart for each loss, for MCN Fig. 5 (b).

    The paper draws accuracy there, which is not measured while training: :func:`measure_learning` does it after.
    """
    return curve_panels({run.name: run.curves for run in runs})


def smcim_fig_6(rows: Sequence[Measured], column: str) -> list[Panel]:
    """SMCIM Fig. 6: accuracy against lambda with sigma fixed, and against sigma with lambda fixed.

    Args:
        rows: those of `deixis.papers.tables.SMCIM_FIG_6`, measured; several seeds give whiskers.
        column: what was measured.
    """
    panels = []
    for moved, fixed, label in (("spsil_lambda", "sigma", "lambda"), ("sigma", "spsil_lambda", "sigma at the start")):
        chosen = [one for one in rows if one.row.recipe_fields.get(fixed) == SPSIL_AS_PRINTED[fixed]]
        points = sorted(((one.row.recipe_fields[moved], one) for one in chosen), key=lambda point: point[0])
        ranges = [
            (x, min(known), max(known))
            for x, one in points
            if (known := [value for value in one.values[0] if value is not None])
        ]
        ours = Line(name="ours", points=[(x, one.means[0]) for x, one in points], ranges=ranges)
        paper = Line(name="paper", points=[(x, one.row.paper[0]) for x, one in points])
        panels.append(Panel(up_label=f"{column}, percent", across_label=label, lines=[ours, paper], dots=True))
    return panels


def mcn_fig_5_a(measured: Sequence[tuple[Experiment, Sequence[Measured]]]) -> list[BarPanel]:
    """MCN Fig. 5 (a): bars by structure, in groups by data set; one chart for boxes and one for masks.

    Args:
        measured: each data set's experiment and its measured rows.
    """
    panels = []
    for index, column in enumerate(measured[0][0].columns):
        groups = {
            next(iter(experiment.data.values())): {
                one.row.name: one.means[index] for one in rows if one.means[index] is not None
            }
            for experiment, rows in measured
        }
        if any(groups.values()):
            panels.append(BarPanel(up_label=f"{column}, percent", across_label="data", groups=groups))
    return panels


@dataclass(frozen=True, kw_only=True)
class Learning:
    """A run's accuracy by step."""

    name: str
    steps: tuple[int, ...]
    values: Mapping[str, tuple[float | None, ...]]
    """Column -> percent at each step."""


def measure_learning(run: Path, samples: Sequence[Sample], data: str, *, precision: str = "auto") -> Learning:
    """The averaged weights of every kept state, as `Trainer.averaged_model` has them; done ones are not done again.

    Args:
        run: the folder of a training with ``--keep`` above 1.
        samples: what is measured on.
        data: its name; the figures lie in the run by this name and the number of samples.
        precision: of the computation.

    Raises:
        FileNotFoundError: no kept states, or no checkpoint beside them.
        ValueError: a state is damaged or of another model.
    """
    states = kept_states(run)[::-1]
    if not states:
        raise FileNotFoundError(
            f"expected kept states state-STEP.pt in {str(run)!r}, got none; train with --keep 20, or leave out --data "
            "for losses"
        )
    stored = run / "learning.json"
    key = f"{data}, {len(samples)} samples, {precision}"
    known: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    figures: dict[str, dict[str, float | None]] = known.get(key, {})
    for state in states:
        if state.name not in figures:
            figures[state.name] = _measure_state(run, state, samples, precision)
            write_text(stored, json.dumps({**known, key: figures}, indent=1))
    return Learning(
        name=str(run),
        steps=tuple(int(state.stem.partition("-")[2]) for state in states),
        values={column: tuple(figures[state.name][column] for state in states) for column in (REC, RES)},
    )


def _measure_state(run: Path, state: Path, samples: Sequence[Sample], precision: str) -> dict[str, float | None]:
    checkpoint = load_checkpoint(run / "checkpoint")
    try:
        kept = torch.load(state, weights_only=True, map_location="cpu")
        checkpoint.model.load_state_dict({**kept["model"], **kept["average"]})
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"expected a state of this run in {str(state)!r}, got {reason}; remove it") from error
    progress = partial(progress_over, label=f"measuring {state.name}", total=len(samples))
    grounder = Grounder(checkpoint, precision=precision)
    report = evaluate(grounder, samples, baselines=False, absent=False, progress=progress).report()
    return {column: column_value(report, column) for column in (REC, RES)}


def mcn_fig_5_accuracy(runs: Sequence[Learning], data: str) -> list[Panel]:
    """MCN Fig. 5 (b): a chart for boxes and one for masks, a line a run."""
    panels = []
    for column in (REC, RES):
        known = [run for run in runs if any(value is not None for value in run.values[column])]
        lines = [Line(name=run.name, points=list(zip(run.steps, run.values[column], strict=True))) for run in known]
        if lines:
            panels.append(Panel(up_label=f"{column} on {data}, percent", across_label="step", lines=lines, dots=True))
    return panels


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """Accuracy of several models on one data set."""

    dataset: str
    """As printed."""
    measured_on: str
    groups: tuple[str, ...]
    """Numbers of words, from short to long."""
    counts: tuple[int, ...]
    """Phrases in each group."""
    percent: Mapping[str, tuple[float | None, ...]]
    """Model -> Acc@0.5 of each group."""


def measure_lengths(budget: str, meter: Meter, models: Sequence[GivenModel]) -> list[ByLength]:
    """SMCIM Fig. 5: each data set that has a counterpart in the budget and a checkpoint in a model.

    Raises:
        FileNotFoundError, ValueError: a model or the data is missing or cannot be used.
    """
    found = []
    for dataset, parts in TEST_SETS.items():
        data = [part.data[budget] for part in parts if budget in part.data]
        slices = {
            model.name: [
                meter.report(checkpoint, one)["slices"]["length"]
                for one in data
                if (checkpoint := model.checkpoint_for(one)) is not None
            ]
            for model in models
        }
        known = {name: several for name, several in slices.items() if several}
        if known:
            found.append(_together(dataset, " and ".join(data), known))
    return found


def _together(dataset: str, measured_on: str, slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> ByLength:
    """Groups of several splits added up, each by its number of phrases."""
    names = {group for several in slices.values() for one in several for group in one}
    groups = sorted(names, key=lambda name: int(name.rstrip("+").split("-")[0]))
    first = next(iter(slices.values()))
    return ByLength(
        dataset=dataset,
        measured_on=measured_on,
        groups=tuple(groups),
        counts=tuple(sum(one[group]["n"] for one in first if group in one) for group in groups),
        percent={name: tuple(_pooled(several, group) for group in groups) for name, several in slices.items()},
    )


def _pooled(slices: Sequence[Mapping[str, Any]], group: str) -> float | None:
    known = [one[group] for one in slices if group in one and one[group][_LENGTH_METRIC] is not None]
    samples = sum(one["n"] for one in known)
    return 100 * sum(one["n"] * one[_LENGTH_METRIC] for one in known) / samples if samples else None


def smcim_fig_5(measured: Sequence[ByLength]) -> list[BarPanel]:
    """SMCIM Fig. 5: a chart a data set, with bars by model for each number of words."""
    return [
        BarPanel(
            up_label=f"{one.dataset}: Acc@0.5 on {one.measured_on}, percent",
            across_label="words",
            groups={
                group: {name: values[place] for name, values in one.percent.items()}
                for place, group in enumerate(one.groups)
            },
        )
        for one in measured
    ]


def format_lengths(measured: Sequence[ByLength]) -> str:
    """A Markdown table; of several models also by how much the first exceeds the second, as the paper's text does."""
    names = list(dict.fromkeys(name for one in measured for name in one.percent))
    margins = ["first - second", "SMCIM - TransVG, printed"] if len(names) > 1 else []
    rows = [line for one in measured for line in _length_rows(one, names)]
    return markdown_table([["", "words", "n", *names, *margins], *rows], align="ll") + "\n"


def _length_rows(one: ByLength, names: Sequence[str]) -> list[list[str]]:
    """A row a group. Printed margins belong to four groups: others have none beside them."""
    printed = SMCIM_FIG_5_OVER_TRANSVG[one.dataset]
    rows = []
    for place, group in enumerate(one.groups):
        values = [one.percent.get(name, [None] * len(one.groups))[place] for name in names]
        row = [f"{one.dataset}: {one.measured_on}", group, str(one.counts[place]), *map(cell, values)]
        if len(names) > 1:
            first, second = values[:2]
            row.append(cell(None if first is None or second is None else first - second, "+.2f"))
            row.append(cell(printed[place] if len(one.groups) == len(printed) else None, "+.2f"))
        rows.append(row)
    return rows


def measure_speed(meter: Meter, checkpoints: Mapping[str, str], data: str) -> tuple[list[Point], str]:
    """SMCIM Fig. 2: speed and accuracy of each model that gives boxes, and the processor they were timed on.

    Args:
        meter: how accuracy is measured.
        checkpoints: names of models and where they lie.
        data: what accuracy is measured on.

    Raises:
        FileNotFoundError, ValueError: a model or the data is missing or cannot be used.
    """
    subjects = find_subjects(list(checkpoints.values()))
    accuracy = {path: column_value(meter.report(path, data), REC) for path in checkpoints.values()}
    precision = "bfloat16" if meter.precision == "bfloat16" else "float32"
    with progress_report("timing") as progress:
        timed = bench(subjects, precisions=(precision,), batch_sizes=(), rounds=TIMING_ROUNDS, progress=progress)
    per_second = {row.subject.name: 1000 / statistics.median(row.ms) for row in timed.rows}
    points = [
        Point(name=path, per_second=per_second[path], accuracy=value / 100)
        for path, value in accuracy.items()
        if value is not None
    ]
    return points, str(timed.machine["processor"])


def format_speeds(points: Sequence[Point], data: str, processor: str) -> str:
    """A Markdown table of the measured points above the printed ones."""
    rows = [["", "images a second", "Acc@0.5", "on"]]
    rows += [[one.name, f"{one.per_second:.1f}", f"{100 * one.accuracy:.2f}", f"{processor}; {data}"] for one in points]
    for name, (speed, alone, pretrained) in SMCIM_FIG_2_OWN.items():
        for how, value in (("", alone), (", with large-scale pre-training", pretrained)):
            rows.append([f"printed: {name}{how}", f"{speed:.1f}", f"{value:.2f}", "GTX 1080 Ti; RefCOCO+ val"])
    return markdown_table(rows, align="lrrl")
