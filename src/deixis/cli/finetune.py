"""``deixis train finetune``: its own words for fields, and what it tells at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deixis.cli.running import tell, tell_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deixis.evaluate.compare import Comparison, Difference
    from deixis.evaluate.metrics import Tally
    from deixis.evaluate.prediction_log import Prediction
    from deixis.grounder import Grounder
    from deixis.structures import Sample
    from deixis.train.recipes import Recipe

NAME = "finetune"
REHEARSAL = "0.4"
"""The share of drawn scenes that ``--keep`` stands for."""
SHOWN_WORST = 5
_WORDS = {"--data": "--phrased", "--model": "--start", "--val": "--validation"}
_USELESS = (
    "image_weights", "text_weights", "model_fields", "instances", "partial_instances", "instances_share",
    "partial_share", "scenes_share", "paste_share", "epochs", "printed_images", "printed_rates", "scale_lr",
    "pseudo_instances", "pseudo_share", "min_area",
)  # fmt: skip
_FIGURES = {"rec.acc@0.5": "box Acc@0.5", "rec.mean_iou": "box mean IoU", "res.miou": "mask mIoU"}


def fields_of(arguments: Sequence[str]) -> list[str]:
    """The options as fields of a recipe: ``--data``, ``--model``, ``--val``, and ``--keep`` without a number."""
    told = []
    for word, after in zip(arguments, [*arguments[1:], "--"], strict=True):
        option, equals, value = word.partition("=")
        if word == "--keep" and after.startswith("--"):
            told += ["--rehearsal", REHEARSAL]
        else:
            told.append(_WORDS.get(option, option) + equals + value)
    return told


def check_fields(values: dict[str, Any]) -> None:
    """Refuse a fine-tuning without data, or with fields that it does not read.

    Raises:
        typer.BadParameter: with the field.
    """
    if not values.get("phrased"):
        raise typer.BadParameter("expected --data FILE with own phrases, such as my.jsonl, got none")
    if useless := [name for name in _USELESS if name in values]:
        raise typer.BadParameter(
            f"expected fields that fine-tuning reads, got {', '.join(useless)}: the checkpoint and --data decide these"
        )


def run_finetune(recipe: Recipe, folder: Path, **options: Any) -> Path:  # noqa: ANN401  of `finetune`
    """Train with the evaluator at hand; arguments as of `deixis.train.finetune.finetune`."""
    from deixis.train.finetune import finetune

    return finetune(recipe, folder, measure=measure, **options)


def measure(grounder: Grounder, samples: Sequence[Sample]) -> Tally:
    """What a grounder gets on samples."""
    from deixis.evaluate.evaluate import evaluate

    return evaluate(grounder, samples, baselines=False, absent=False).tally


def report_finetune(folder: Path, *, speaks: bool = True) -> None:
    """Measure the checkpoint before and after on the whole validation part; write RUN/report.html and print it.

    Args:
        folder: of a run that is finished.
        speaks: whether this process writes and prints: of those that torchrun started, which measure together, one.
    """
    from deixis.cli.train import read_recipe
    from deixis.evaluate.compare import compare_command_result
    from deixis.train.finetune import VALIDATION

    comparison = compare_command_result(
        read_recipe(folder).start,
        str(folder / "checkpoint"),
        str(folder / VALIDATION),
        report=folder / "report",
        show_progress=True,
    )
    if not speaks:
        return
    tell_problems(comparison.problems)
    rows, worst = figure_rows(comparison), _worst(comparison)
    _write_page(folder, comparison, rows, worst)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        typer.echo("  ".join(cells).rstrip())
    typer.echo("worst mistakes:")
    for one in worst:
        typer.echo(f"  {one.phrase!r} in {one.image_id}: {_overlap(one)}")
    tell(f"pictures of the worst mistakes, and all figures: {folder / 'report.html'}")


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
    from deixis.evaluate.report.gallery import choose_cases

    chosen = choose_cases(comparison.b.predictions, SHOWN_WORST).get("Worst", [])
    return [one for one in chosen if min(v for v in (one.iou, one.mask_iou, 1.0) if v is not None) <= 0.5]


def _overlap(one: Prediction) -> str:
    known = [f"{name} IoU {v:.2f}" for name, v in (("box", one.iou), ("mask", one.mask_iou)) if v is not None]
    return ", ".join([*known, f"score {one.score:.2f}"])


def _write_page(folder: Path, comparison: Comparison, rows: list[list[str]], worst: list[Prediction]) -> None:
    from deixis.data import open_dataset
    from deixis.evaluate.prediction_log import PredictionLog
    from deixis.evaluate.report import html_page
    from deixis.evaluate.report.gallery import show_cases
    from deixis.train.finetune import VALIDATION

    body = [
        html_page.paragraph(f"{len(comparison.pairs)} phrases of the validation part, which was not trained on."),
        html_page.table(rows),
    ]
    if worst:
        with PredictionLog(folder / "report" / "b" / "predictions.jsonl", resume=True) as log:
            body += [
                html_page.heading("Worst mistakes"),
                show_cases(worst, open_dataset(folder / VALIDATION), log, None, comparison.b.found_score),
            ]
    where = "More: report/comparison.html, report/a/report.html (before), report/b/report.html (after), curves.png."
    names = f"{comparison.a.model}, fine-tuned: before and after"
    html_page.write_page(folder / "report.html", names, [*body, html_page.paragraph(where)])
