"""MCN Fig. 5 (b): accuracy over the steps of a training, measured on the states that a run has kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from deixis.charts import Line, Panel, draw_panels
from deixis.evaluate.evaluate import evaluate
from deixis.files import write_text
from deixis.grounder import Grounder
from deixis.hub import load_checkpoint
from deixis.papers.ablations import column_value
from deixis.papers.experiments import REC, RES
from deixis.progress import progress_over
from deixis.structures import Sample
from deixis.train.state import kept_states


@dataclass(frozen=True, kw_only=True)
class Learning:
    """A run's figures by step."""

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
            figures[state.name] = _measured(run, state, samples, precision)
            write_text(stored, json.dumps({**known, key: figures}, indent=1))
    return Learning(
        name=str(run),
        steps=tuple(int(state.stem.partition("-")[2]) for state in states),
        values={column: tuple(figures[state.name][column] for state in states) for column in (REC, RES)},
    )


def _measured(run: Path, state: Path, samples: Sequence[Sample], precision: str) -> dict[str, float | None]:
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


def mcn_fig_5_accuracy(runs: Sequence[Learning], data: str) -> Image.Image:
    """A chart for boxes and one for masks, a line a run.

    Raises:
        ValueError: nothing was measured.
    """
    panels = []
    for column in (REC, RES):
        known = [run for run in runs if any(value is not None for value in run.values[column])]
        lines = [Line(name=run.name, points=list(zip(run.steps, run.values[column], strict=True))) for run in known]
        panels.append(Panel(up_label=f"{column} on {data}, percent", across_label="step", lines=lines, dots=True))
    return draw_panels([panel for panel in panels if panel.lines])
