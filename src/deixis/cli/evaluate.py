"""``deixis evaluate``: all metrics of a model on a data set, beside baselines."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.ground import Precision
from deixis.cli.running import tell_problems


class Suppression(StrEnum):
    """How the box corrects the mask: `deixis.config.SUPPRESSIONS`."""

    none = "none"
    crop = "crop"
    soft = "soft"
    adaptive = "adaptive"


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled name or a checkpoint folder.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a .jsonl, or a COCO .json.")],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write metrics.json and predictions.jsonl into this folder.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    precision: Annotated[Precision, typer.Option(help="The number format of the computation.")] = Precision.auto,
    suppression: Annotated[
        Suppression | None, typer.Option(help="How the box corrects the mask.  [default: the model's own]")
    ] = None,
) -> None:
    """Measure MODEL on every phrase of DATASET, beside baselines that know nothing of the phrase."""
    if report is not None and report.is_file():
        raise NotADirectoryError(f"expected a folder for the report, got the file {str(report)!r}; choose another name")
    from deixis.data import parse_dataset_spec
    from deixis.evaluate.evaluate import evaluate_command_result, format_table

    name, split = parse_dataset_spec(dataset)
    result = evaluate_command_result(
        model,
        name,
        split=split,
        root=root,
        report=report,
        limit=limit,
        precision=precision.value,
        suppression=None if suppression is None else suppression.value,
        show_progress=True,
    )
    tell_problems(result.problems)
    typer.echo(json.dumps(result.report(), allow_nan=False) if as_json else format_table(result))
