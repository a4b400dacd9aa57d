"""``deixis data``: write phrases for instances, look at samples, find anchors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deixis.cli import data_check, data_convert, data_leaks, data_make, data_pack, data_show, data_stats
from deixis.cli.running import check_writable, tell, tell_problems

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Write phrases for instances; look at samples; find anchors."
)

app.command("show", no_args_is_help=True)(data_show.show)
app.command("stats", no_args_is_help=True)(data_stats.stats)
app.command("pack", no_args_is_help=True)(data_pack.pack)
app.command("convert", no_args_is_help=True)(data_convert.convert)
app.command("check", no_args_is_help=True)(data_check.check)
app.command("leaks", no_args_is_help=True)(data_leaks.leaks)
app.add_typer(data_make.app, name="make")

_DRAWN_FOR_ANCHORS = 2000


@app.command(no_args_is_help=True)
def phrases(
    instances: Annotated[Path, typer.Argument(metavar="INSTANCES.json", help="A COCO instances file.")],
    out: Annotated[Path, typer.Option(help="The JSONL file to write.", show_default=False)],
    images: Annotated[Path | None, typer.Option(help="Their folder.  [default: images beside the file]")] = None,
    per_instance: Annotated[int, typer.Option(min=1, help="At most so many phrases an instance.")] = 3,
    min_area: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out instances that cover less of the image.")
    ] = 0.03,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same phrases.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="A CSV with a column expression: compare with people's words.")
    ] = None,
) -> None:
    """Write unambiguous phrases for every instance that can be told apart."""
    check_writable(out, inputs=[instances])
    from deixis.data.captions.phrase_file import write_phrase_file
    from deixis.progress import progress_report

    with progress_report("images") as progress:
        summary = write_phrase_file(
            instances,
            out,
            images=images,
            seed=seed,
            per_instance=per_instance,
            min_area=min_area,
            compare=compare,
            progress=progress,
        )
    typer.echo(summary)


@app.command(no_args_is_help=True)
def anchors(
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a .jsonl, or a COCO .json.")],
    number: Annotated[int, typer.Option(min=1, max=100, help="So many anchors.")] = 3,
    size: Annotated[int, typer.Option(min=32, help="The side in pixels of the canvas to measure on.")] = 416,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"At most so many samples.  [default: all, or {_DRAWN_FOR_ANCHORS} drawn scenes]"),
    ] = None,
) -> None:
    """Find the widths and heights that fit the boxes best: the anchors of an mcn model (measured at 416)."""
    import numpy as np

    from deixis.data import SCENES, default_split, open_dataset, parse_dataset_spec
    from deixis.progress import progress_over
    from deixis.tools.anchors import find_anchors, read_shapes, shape_iou

    name, split = parse_dataset_spec(dataset)
    samples = open_dataset(name, split=split, root=root, limit=limit)
    if limit is None and name in SCENES and len(samples) > _DRAWN_FOR_ANCHORS:
        tell(f"drawing {_DRAWN_FOR_ANCHORS} of {len(samples)} scenes; --limit sets how many")
        samples = samples[:_DRAWN_FOR_ANCHORS]
    shapes = read_shapes(progress_over(samples, "samples"), size)
    tell_problems([*samples.problems, *shapes.problems])
    found = find_anchors(shapes.sizes_px, number, np.random.default_rng(0))
    iou = shape_iou(shapes.sizes_px, found)
    result = {
        "dataset": name,
        "split": split or default_split(name),
        "n": len(iou),
        "size": size,
        "anchors": [[round(float(side), 1) for side in pair] for pair in found],
        "shares": [float((iou.argmax(1) == one).mean()) for one in range(number)],
        "mean_iou": float(iou.max(1).mean()),
    }
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_anchors(result)


def _print_anchors(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("anchor", "width px", "height px", "boxes that it fits best")
    for row, ((width, height), share) in enumerate(zip(result["anchors"], result["shares"], strict=True), start=1):
        table.add_row(str(row), f"{width:.1f}", f"{height:.1f}", f"{share:.1%}")
    console = Console()
    console.print(table)
    told = f"{result['n']} boxes on a canvas of {result['size']} pixels, mean IoU {result['mean_iou']:.3f}"
    console.print(told, highlight=False)
