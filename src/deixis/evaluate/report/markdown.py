"""The figures of an evaluation as text: for a terminal, for Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deixis.evaluate.metrics.slices import METRICS
from deixis.evaluate.metrics.sums import RATIOS
from deixis.files import write_text

if TYPE_CHECKING:
    from deixis.evaluate.evaluate import EvaluationResult

TITLES = {
    "rec.acc@0.5": "box Acc@0.5",
    "rec.mean_iou": "mean IoU",
    "res.miou": "mask mIoU",
    "res.oiou": "oIoU",
    "res.acc@0.5": "Acc@0.5",
    "res.acc@0.7": "Acc@0.7",
    "res.acc@0.9": "Acc@0.9",
    "ie": "IE",
}
"""Metric -> the title of its column."""
SHOWN_PARTS = 12
"""Parts of a slice that a table shows; all are in metrics.json."""


def format_table(result: EvaluationResult) -> str:
    """Return the figures as a plain text table in percent, the model above the baselines; "-" where there is none."""
    rows = [["", *TITLES.values()], *_rows(result, with_interval=False)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]).rstrip() for r in rows]
    table = "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
    return "\n\n".join(part for part in (headline(result), table, trust_sentence(result)) if part)


def headline(result: EvaluationResult) -> str:
    """What was measured on what, and how much was left out."""
    where = result.dataset + (f":{result.split}" if result.split else "")
    head = f"{where}: {round(result.tally.n)} samples, figures in percent"
    if result.tally.num_no_target:
        share = percent(result.tally.report()["no_target_accuracy"])
        head += f"; {round(result.tally.num_no_target)} of them mean nothing in the image, {share} % of these told so"
    if result.problems:
        head += f"; {len(result.problems)} more left out"
    return head


def trust_sentence(result: EvaluationResult) -> str:
    """What the model's own score and "found" are worth, as far as it was measured."""
    told = []
    if result.calibration is not None:
        gap = percent(result.calibration["expected_calibration_error"])
        told.append(f"the score is off by {gap} points on average (expected calibration error)")
    found = result.found
    if found.get("n_absent"):
        told.append(
            f'"found" is said of {percent(found["found_of_right"])} % of right answers, '
            f"{percent(found['found_of_wrong'])} % of wrong ones, and {percent(found['false_alarm_rate'])} % of "
            f"{found['n_absent']} phrases of other images that mean nothing in theirs"
        )
    return "; ".join(told)


def markdown(result: EvaluationResult) -> str:
    """The table in Markdown, with 95 % intervals, and one for the parts of the data."""
    head = f"`{result.model}` on {headline(result)}" if result.model else headline(result)
    parts = [f"{head}. In brackets: 95 % intervals by bootstrap over images."]
    parts.append(markdown_table([["", *TITLES.values()], *_rows(result, with_interval=True)]))
    if result.slices:
        parts.append(markdown_table(slice_rows(result.slices)))
    sentence = trust_sentence(result)
    return "\n\n".join([*parts, *([f"{sentence[0].upper()}{sentence[1:]}."] if sentence else [])]) + "\n"


def slice_rows(slices: dict[str, dict[str, dict[str, Any]]]) -> list[list[str]]:
    """The parts of the data, a row each below the titles: at most `SHOWN_PARTS` of a kind."""
    rows = [["", "n", *(TITLES[key] for key in METRICS)]]
    for name, parts in slices.items():
        for part, figures in list(parts.items())[:SHOWN_PARTS]:
            cells = [_with_interval(figures[key], figures["ci95"].get(key)) for key in METRICS]
            rows.append([f"{name} {part}", str(figures["n"]), *cells])
        if len(parts) > SHOWN_PARTS:
            rows.append([f"{name}: {len(parts) - SHOWN_PARTS} more in metrics.json", *[""] * (len(METRICS) + 1)])
    return rows


def main_rows(result: EvaluationResult) -> list[list[str]]:
    """Titles, the model with its intervals, and the baselines."""
    return [["", *TITLES.values()], *_rows(result, with_interval=True)]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first is the head."""
    ruled = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in ruled)


def percent(value: float | None) -> str:
    """A share in percent with one digit; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def write_report(result: EvaluationResult, folder: Path) -> None:
    """Write ``metrics.json`` and ``metrics.md`` into a folder, each file whole or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {**result.report(), "problems": list(result.problems)}
    write_text(folder / "metrics.md", markdown(result))
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def _rows(result: EvaluationResult, *, with_interval: bool) -> list[list[str]]:
    own = [
        _with_interval(result.tally.value(metric), result.ci95.get(metric) if with_interval else None)
        for metric in TITLES
    ]
    rows = [[result.model or "model", *own]]
    for name, report in result.baselines.items():
        rows.append([name.replace("_", " "), *(percent(_figure(report or {}, metric)) for metric in TITLES)])
    return rows


def _figure(report: dict[str, Any], metric: str) -> float | None:
    assert metric in RATIOS
    part, _, key = metric.partition(".") if "." in metric else ("", "", metric)
    return ((report.get(part) or {}) if part else report).get(key)


def _with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    if value is None or bounds is None:
        return percent(value)
    return f"{percent(value)} ({percent(bounds[0])} to {percent(bounds[1])})"


def _cell(text: str) -> str:
    """Text that cannot leave its cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
