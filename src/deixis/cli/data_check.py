"""``deixis data check``: what is wrong with a data set."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deixis.tools.check import SplitCheck


class Images(StrEnum):
    """Of how many images the pixels are looked at: `deixis.tools.check.IMAGES`."""

    sample = "sample"
    all = "all"
    none = "none"


def check(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder; without a split, all of them.")
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    images: Annotated[
        Images, typer.Option(help="Decode a sample of 200 images, all, or none; boxes and masks need the decoded ones.")
    ] = Images.sample,
    published: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Compare the counts with this data set's, or none.  [default: by the name]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is wrong with a data set: images, boxes, masks, phrases, counts. Status 1 where there are errors."""
    from deixis.data import parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.check import check_dataset

    name, split = parse_dataset_spec(dataset)
    with progress_report("samples") as progress:
        checks = check_dataset(name, split, root, images=images.value, published=published, progress=progress)
    errors = sum(one.count("error") for one in checks)
    if as_json:
        report = {"dataset": name, "errors": errors, "splits": [one.report() for one in checks]}
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _print(checks)
    if errors:
        raise typer.Exit(1)


def _print(checks: list[SplitCheck]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(emoji=False)  # or refcoco:train: would end in a picture of one
    for check in checks:
        where = check.dataset + (f":{check.split}" if check.split else "")
        lines = [
            f"{where}: {check.samples} samples, {check.left_out} left out, {check.images} images; looked at the pixels "
            f"of {check.images_decoded}, at {check.boxes_checked} boxes and {check.masks_checked} masks",
            *check.notes,
        ]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
        if not check.findings:
            console.print("nothing wrong was found\n", highlight=False)
            continue
        table = Table("", "number", "what", Column("such as", overflow="fold"))
        for one in check.findings:
            table.add_row(one.severity, str(one.count), escape(one.what), escape("\n".join(one.examples)))
        console.print(table)
    errors, warnings = (sum(one.count(kind) for one in checks) for kind in ("error", "warning"))
    console.print(f"{errors} errors, {warnings} warnings", highlight=False)
