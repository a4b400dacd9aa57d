"""``deixis evaluate``: all metrics of a model on a data set, beside baselines; or of two models, compared."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.ground import Precision
from deixis.cli.running import tell, tell_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deixis.evaluate.compare import Comparison
    from deixis.evaluate.result import Result


class Suppression(StrEnum):
    """How the box corrects the mask: `deixis.config.SUPPRESSIONS`."""

    none = "none"
    crop = "crop"
    soft = "soft"
    adaptive = "adaptive"


def evaluate(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [MODEL_B] DATASET[:SPLIT]",
            help="One or two models (bundled name or checkpoint folder), then a data set (name, .jsonl or COCO .json).",
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="The folder for predictions.jsonl, metrics.json, metrics.md and report.html."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    precision: Annotated[Precision, typer.Option(help="The number format of the computation.")] = Precision.auto,
    suppression: Annotated[
        Suppression | None, typer.Option(help="How the box corrects the mask.  [default: the model's own]")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Number of processes; the figures stay the same.")] = 1,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted evaluation in the report's folder.")] = True,
) -> None:
    """Measure MODEL on every phrase of DATASET, beside baselines that ignore the phrase.

    With two models: by how much the second is better, and where they differ.
    """
    if len(what) not in (2, 3):
        raise typer.BadParameter(f"expected MODEL DATASET or MODEL MODEL_B DATASET, got {len(what)} words")
    if report is not None and report.is_file():
        raise NotADirectoryError(f"expected a folder for the report, got the file {str(report)!r}; choose another name")
    from deixis.data import parse_dataset_spec

    *models, spec = what
    name, split = parse_dataset_spec(spec)
    options: dict[str, Any] = {
        "split": split, "root": root, "limit": limit, "precision": precision.value, "processes": processes,
        "suppression": None if suppression is None else suppression.value, "resume": resume, "show_progress": True,
    }  # fmt: skip
    for model in models:
        _warn_of_leak(model, name, split)
    if len(models) == 2:
        from deixis.evaluate.compare import compare_command_result, format_comparison

        comparison = compare_command_result(models[0], models[1], name, report=report, **options)
        _print(comparison, (comparison.a, comparison.b), "" if as_json else format_comparison(comparison))
    else:
        from deixis.evaluate.evaluate import evaluate_command_result
        from deixis.evaluate.report.tables import format_result

        result = evaluate_command_result(models[0], name, report=report, **options)
        _print(result, (result,), "" if as_json else format_result(result))


def _warn_of_leak(model: str, name: str, split: str | None) -> None:
    """Warn where the model may have seen the data in training, by what its checkpoint records."""
    from deixis.data import default_split
    from deixis.hub import find_checkpoint
    from deixis.tools.leaks import leak_warning

    try:
        config = json.loads((find_checkpoint(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # loading reports what is wrong with it
    if warning := leak_warning(config, name, split or default_split(name)):
        tell(warning)


def _print(measured: Result | Comparison, results: Sequence[Result], text: str) -> None:
    """Print the text, or JSON where it is empty; what was left out, kept or resumed goes to stderr."""
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun starts, the first prints
    tell_problems(measured.problems)
    for one in results:
        if one.earlier is not None:
            tell(f"the report's folder held answers of another evaluation; they are kept as {one.earlier}")
        if one.num_resumed:
            tell(f"{one.num_resumed} of {len(one.predictions)} answers were there from the run that was cut off")
    typer.echo(text or json.dumps(measured.report(), allow_nan=False))
