"""What a fine-tuning gained: the checkpoint before and after on the validation part, as a table and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deixis.data import open_dataset
from deixis.evaluate.compare import Comparison, Difference, compare_command_result
from deixis.evaluate.evaluate import evaluate
from deixis.evaluate.metrics import Tally
from deixis.evaluate.predictions import Prediction, PredictionLog
from deixis.evaluate.report import html_page
from deixis.evaluate.report.gallery import choose_cases, show_cases
from deixis.grounder import Grounder
from deixis.structures import Sample
from deixis.text_tables import aligned_table
from deixis.train.finetune import VALIDATION

SHOWN_WORST = 5
_FIGURES = {"rec.acc@0.5": "box Acc@0.5", "rec.mean_iou": "box mean IoU", "res.miou": "mask mIoU"}


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """The figures before and after, and the worst mistakes after."""

    comparison: Comparison
    rows: list[list[str]]
    worst: list[Prediction]

    def text(self) -> str:
        """A table, and a line for each of the worst mistakes."""
        mistakes = [f"  {one.phrase!r} in {one.image_id}: {_overlap(one)}" for one in self.worst]
        return "\n".join([aligned_table(self.rows), "worst mistakes:", *mistakes])


def measure(grounder: Grounder, samples: Sequence[Sample]) -> Tally:
    """The figures of a grounder on samples."""
    return evaluate(grounder, samples, baselines=False, absent=False).tally


def measure_finetune(start: str, folder: Path) -> FinetuneReport:
    """Measure the checkpoint before and after on the whole validation part; the figures go into ``folder``/report.

    Args:
        start: the checkpoint that was fine-tuned.
        folder: of the finished run.
    """
    comparison = compare_command_result(
        start, str(folder / "checkpoint"), str(folder / VALIDATION), report=folder / "report", show_progress=True
    )
    return FinetuneReport(comparison=comparison, rows=figure_rows(comparison), worst=_worst(comparison))


def write_page(found: FinetuneReport, folder: Path) -> Path:
    """Write ``folder``/report.html, with images of the worst mistakes.

    Raises:
        OSError: it cannot be written.
    """
    comparison = found.comparison
    body = [
        html_page.paragraph(f"{len(comparison.pairs)} phrases of the validation part, which was not trained on."),
        html_page.table(found.rows),
    ]
    if found.worst:
        with PredictionLog(folder / "report" / "b" / "predictions.jsonl", resume=True) as log:
            body += [
                html_page.heading("Worst mistakes"),
                show_cases(found.worst, open_dataset(folder / VALIDATION), log, None, comparison.b.found_score),
            ]
    where = "More: report/comparison.html, report/a/report.html (before), report/b/report.html (after), curves.png."
    title = f"{comparison.a.model}, fine-tuned: before and after"
    html_page.write_page(folder / "report.html", title, [*body, html_page.paragraph(where)])
    return folder / "report.html"


def figure_rows(comparison: Comparison) -> list[list[str]]:
    """Titles, and a row a figure: before, after, what was gained and its interval, in percent."""
    rows = [["validation part, percent", "before", "after", "gain", "95 % interval"]]
    known = [name for name in _FIGURES if name in comparison.differences]
    return [*rows, *(_row(_FIGURES[name], comparison.differences[name]) for name in known)]


def _row(name: str, one: Difference) -> list[str]:
    between = "-" if one.ci95 is None else f"{100 * one.ci95[0]:+.1f} to {100 * one.ci95[1]:+.1f}"
    return [name, f"{100 * one.a:.1f}", f"{100 * one.b:.1f}", f"{100 * one.difference:+.1f}", between]


def _worst(comparison: Comparison) -> list[Prediction]:
    """The worst answers that are wrong, each image once."""
    chosen = choose_cases(comparison.b.predictions, SHOWN_WORST).get("Worst", [])
    return [one for one in chosen if min(v for v in (one.iou, one.mask_iou, 1.0) if v is not None) <= 0.5]


def _overlap(one: Prediction) -> str:
    known = [f"{name} IoU {v:.2f}" for name, v in (("box", one.iou), ("mask", one.mask_iou)) if v is not None]
    return ", ".join([*known, f"score {one.score:.2f}"])
