"""``deixis data leaks``: which images that are measured on are also trained on."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis.cli.running import check_writable, tell, tell_problems

if TYPE_CHECKING:
    from deixis.tools.leaks import LeakCheck


class Hashing(StrEnum):
    """When pictures are compared: `deixis.tools.leaks.HASHING`."""

    auto = "auto"
    always = "always"
    never = "never"


def leaks(
    train: Annotated[
        list[str], typer.Option(metavar="DATASET[:SPLIT]", help="What is trained on; name it again for more.")
    ],
    evaluation: Annotated[
        list[str], typer.Option("--eval", metavar="DATASET[:SPLIT]", help="What is measured on; again for more.")
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data sets' files.")] = None,
    hashing: Annotated[
        Hashing, typer.Option("--hash", help="Compare pictures: auto does where an image has no id that tells it.")
    ] = Hashing.auto,
    write_exclusions: Annotated[
        Path | None, typer.Option(help="Write the list of images that no training may see.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which images are both trained and measured on. Status 1 where there are any."""
    if write_exclusions is not None:
        check_writable(write_exclusions)
    from deixis.progress import progress_report
    from deixis.tools.image_keys import write_exclusions as write
    from deixis.tools.leaks import find_leaks

    with progress_report("samples") as progress:
        found = find_leaks(train, evaluation, root, hashing=hashing.value, progress=progress)
    tell_problems(found.problems)
    for leak in found.leaks:
        if leak.unread or leak.unknown:
            tell(
                f"{leak.train} and {leak.eval}: {leak.unread + leak.unknown} images without an id could not be "
                "compared by their looks, or were not to be"
            )
    if write_exclusions is not None:
        write(write_exclusions, found.exclusions)
        tell(f"{len(found.exclusions.keys)} images to leave out of training written to {write_exclusions}")
    if as_json:
        report = {"clean": found.is_clean, "pairs": [leak.report() for leak in found.leaks]}
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _print(found)
    if not found.is_clean:
        raise typer.Exit(1)


def _print(found: LeakCheck) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(emoji=False)
    names = (Column(name, overflow="fold") for name in ("trained on", "measured on"))
    table = Table(*names, "images shared", "samples on them", "same box and phrase", "told by")
    for leak in found.leaks:
        by = "\n".join(f"{how}: {count}" for how, count in leak.by.items())
        images, samples = f"{leak.images} of {leak.eval_images}", f"{leak.samples} of {leak.eval_samples}"
        table.add_row(escape(leak.train), escape(leak.eval), images, samples, str(leak.triples), escape(by))
    console.print(table)
    for leak in found.leaks:
        for example in leak.examples:
            console.print(f"{leak.train} and {leak.eval}: {example}", highlight=False, markup=False, soft_wrap=True)
    told = "nothing leaks" if found.is_clean else "images that are measured on are also trained on"
    console.print(told, highlight=False)
