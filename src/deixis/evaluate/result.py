"""All figures of one measurement: of a model that was asked a data set's phrases, or of a file of its predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deixis.evaluate.metrics import Tally
from deixis.evaluate.metrics.bootstrap import Interval
from deixis.evaluate.predictions import Prediction
from deixis.files import write_text
from deixis.verdict import FOUND_SCORE


@dataclass
class Counts:
    """What became of all lines and all samples of a scored file.

    ``lines`` = ``answered + unusable + conflicting + for_left_out + doubled + unknown + unreadable``, and
    ``samples`` = ``answered + missing + unusable + conflicting + left_out``.
    """

    samples: int = 0
    answered: int = 0
    missing: int = 0
    """Samples without a line: wrong."""
    unusable: int = 0
    """Samples whose line cannot be used: wrong."""
    conflicting: int = 0
    """Samples with lines that differ: wrong."""
    left_out: int = 0
    """Samples whose own mask cannot be used, or whose image's size is needed and not known: not counted at all."""
    without_box: int = 0
    """Answered samples without a box, in a file with boxes: their box is wrong."""
    without_mask: int = 0
    """The same for masks."""
    lines: int = 0
    doubled: int = 0
    """Lines beyond the first of an id."""
    unknown: int = 0
    """Lines whose id is not in the data set."""
    unreadable: int = 0
    """Lines without an id that can be read."""
    for_left_out: int = 0
    """First lines of samples that are left out."""
    data_problems: int = 0
    """Problems of the data set itself: records that give no sample, so that lines for them are ``unknown``."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """All figures; of a scored file those from ``counts`` on, of an evaluated model those from ``model`` to there."""

    dataset: str = ""
    split: str | None = None
    tally: Tally
    ci95: Mapping[str, Interval | None]
    """The intervals of ``tally``'s metrics, by bootstrap over images."""
    slices: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Of `deixis.evaluate.metrics.slices.report_slices`."""
    problems: tuple[str, ...] = ()
    """One sentence for everything that was left out, or counted as wrong without being compared."""

    model: str = ""
    suppression: str | None = None
    """How the box corrected the masks, out of `deixis.config.SUPPRESSIONS`; None where it is not known."""
    predictions: tuple[Prediction, ...] = ()
    baselines: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """Of `deixis.evaluate.baselines.measure_baselines`."""
    found: dict[str, Any] = field(default_factory=dict)
    """Of `deixis.evaluate.calibration.found_report`."""
    found_score: float = FOUND_SCORE
    """The least score that the model records for "found"; see `deixis.verdict`."""
    calibration: dict[str, Any] | None = None
    """Of `deixis.evaluate.calibration.calibration_report`."""
    num_resumed: int = 0
    """How many of the predictions an earlier run, which was cut off, had made."""
    earlier: Path | None = None
    """Where predictions of another evaluation that lay in the report's folder are kept."""

    counts: Counts | None = None
    answered: Tally | None = None
    """Over the samples with one usable answer alone."""
    official: dict[str, Any] | None = None
    """What a reference evaluator gives, beside the exact figures."""
    hints: tuple[str, ...] = ()
    """Signs that the file was read otherwise than it was meant."""

    def report(self) -> dict[str, Any]:
        """Return one object for JSON: the metrics of :meth:`Tally.report`, with all that stands beside them."""
        measured = {"dataset": self.dataset, "split": self.split, **self.tally.report()}
        ci95 = {metric: None if pair is None else list(pair) for metric, pair in self.ci95.items()}
        if self.counts is not None and self.answered is not None:
            return {
                **measured,
                "ci95": ci95,
                "answered": self.answered.report(),
                "counts": asdict(self.counts),
                "slices": self.slices,
                "official": self.official,
                "hints": list(self.hints),
                "n_problems": len(self.problems),
            }
        return {
            "model": self.model,
            "suppression": self.suppression,
            **measured,
            "n_problems": len(self.problems),
            "baselines": self.baselines,
            "ci95": ci95,
            "slices": self.slices,
            "found": self.found,
            "calibration": self.calibration,
        }


def write_json(report: Mapping[str, Any], problems: Sequence[str], path: Path) -> None:
    """Write a report with all problems as one JSON file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    write_text(path, json.dumps({**report, "problems": list(problems)}, indent=2, allow_nan=False) + "\n")
