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
    from deixis.evaluate.evaluate import EvaluationResult


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
            help="A bundled name or a checkpoint folder, one or two; then a name, a .jsonl, or a COCO .json.",
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write predictions.jsonl as it comes, metrics.json, metrics.md and report.html here."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    precision: Annotated[Precision, typer.Option(help="The number format of the computation.")] = Precision.auto,
    suppression: Annotated[
        Suppression | None, typer.Option(help="How the box corrects the mask.  [default: the model's own]")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="How many share the work; same figures.")] = 1,
    resume: Annotated[
        bool, typer.Option(help="Go on where the same evaluation was cut off, if it was, in the report's folder.")
    ] = True,
) -> None:
    """Measure MODEL on every phrase of DATASET, beside baselines that know nothing of the phrase.

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
    if len(models) == 1:
        _one(models[0], name, report, as_json, options)
    else:
        _two(models, name, report, as_json, options)


def _tell_leak(model: str, name: str, split: str | None) -> None:
    """Warn where the model's training, as its checkpoint tells it, may have seen what is measured on."""
    from deixis.data import default_split
    from deixis.hub import find_checkpoint
    from deixis.tools.leaks import leak_warning

    try:
        config = json.loads((find_checkpoint(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # what is wrong with it, loading tells
    if warning := leak_warning(config, name, split or default_split(name)):
        tell(warning)


def _one(model: str, name: str, report: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from deixis.evaluate.evaluate import evaluate_command_result, format_table

    _tell_leak(model, name, options["split"])
    result = evaluate_command_result(model, name, report=report, **options)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun starts, the first speaks
    tell_problems(result.problems)
    _tell_earlier(result)
    if result.num_resumed:
        tell(f"{result.num_resumed} of {len(result.predictions)} answers were there from the run that was cut off")
    typer.echo(json.dumps(result.report(), allow_nan=False) if as_json else format_table(result))


def _tell_earlier(result: EvaluationResult) -> None:
    if result.earlier is not None:
        tell(f"the report's folder held answers of another evaluation; they are kept as {result.earlier}")


def _two(models: list[str], name: str, report: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from deixis.evaluate.compare import compare_command_result, format_comparison

    for model in models:
        _tell_leak(model, name, options["split"])
    comparison = compare_command_result(models[0], models[1], name, report=report, **options)
    if os.environ.get("RANK", "0") != "0":
        return
    tell_problems(comparison.problems)
    for one in (comparison.a, comparison.b):
        _tell_earlier(one)
    typer.echo(json.dumps(comparison.report(), allow_nan=False) if as_json else format_comparison(comparison))
