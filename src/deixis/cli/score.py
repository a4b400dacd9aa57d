"""``deixis score``: the same metrics for any other model's predictions."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.running import check_writable, tell, tell_problems


class BoxFormat(StrEnum):
    """How a box's four numbers are meant: `deixis.evaluate.predictions.BOX_FORMATS`."""

    xyxy = "xyxy"
    xywh = "xywh"
    cxcywh = "cxcywh"


class Units(StrEnum):
    """What they count: `deixis.evaluate.predictions.UNITS`."""

    pixel = "pixel"
    normalised = "normalised"


class OfficialMode(StrEnum):
    """Whose evaluator to reproduce: `deixis.evaluate.metrics.reference.REFERENCE_EVALUATORS`."""

    mcn = "mcn"
    transvg = "transvg"
    seqtr = "seqtr"
    mdetr = "mdetr"
    resc = "resc"
    lavt = "lavt"


def score(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS.jsonl", help="One answer per line.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a .jsonl, or a COCO .json.")],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    box_format: Annotated[BoxFormat, typer.Option(help="The meaning of the four numbers of a box.")] = BoxFormat.xyxy,
    units: Annotated[Units, typer.Option(help="Pixels of the original image, or fractions of it.")] = Units.pixel,
    official: Annotated[OfficialMode | None, typer.Option(help="Also show the figures of this evaluator.")] = None,
    bootstrap: Annotated[int, typer.Option(min=0, max=100_000, help="Draws for the intervals; 0 for none.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON object, with every problem, to this file.")] = None,
) -> None:
    """Measure answers that any model gave to DATASET: {"id", "box": [...] or null, "mask"?, "found"?} a line."""
    from deixis.data import parse_dataset_spec
    from deixis.evaluate.predictions import BoxForm
    from deixis.evaluate.report.tables import format_result
    from deixis.evaluate.result import write_json
    from deixis.evaluate.score import score_command_result

    name, split = parse_dataset_spec(dataset)
    if out is not None:
        check_writable(out, inputs=(predictions, name))
    result = score_command_result(
        predictions,
        name,
        split=split,
        root=root,
        form=BoxForm(format=box_format.value, units=units.value),
        official=None if official is None else official.value,
        replicates=bootstrap,
    )
    tell_problems(result.problems, rest="more" if out is not None else "more; --out FILE.json writes all of them")
    for hint in result.hints:
        tell(hint)
    if out is not None:
        write_json(result.report(), result.problems, out)
    typer.echo(json.dumps(result.report(), allow_nan=False) if as_json else format_result(result))
