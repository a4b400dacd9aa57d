"""``deixis data make``: data sets made of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis.cli.running import tell, tell_problems

if TYPE_CHECKING:
    from deixis.tools.mix import Mix

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a data set of others.")


@app.callback()
def make() -> None:
    """Make a data set of others."""


@app.command(no_args_is_help=True)
def mixed(
    root: Annotated[Path, typer.Option(help="The folder of the data sets' files.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The folder to write into.  [default: mixed below the root]")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="DATASET:SPLIT", help="What to mix; again for more.  [default: what is there of SMCIM's]"),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="A list of images to leave out too, or a COCO instances file; again for more."),
    ] = None,
    keep_measured: Annotated[
        bool, typer.Option("--keep-measured", help="Leave in the images of val and test splits: results are worthless.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the large-scale mix, without the images of the val and test splits of all data sets below the root."""
    from deixis.progress import progress_report
    from deixis.tools.mix import make_mixed

    folder = out if out is not None else root / "mixed"
    if folder.is_file():
        raise NotADirectoryError(f"expected a folder for the mix, got the file {str(folder)!r}; choose another name")
    with progress_report("samples") as progress:
        mix = make_mixed(
            root,
            folder,
            parts=part or (),
            exclude=exclude or (),
            keep_measured=keep_measured,
            progress=progress,
        )
    tell_problems(mix.problems)
    if mix.not_there:
        tell(f"not in the mix, as they are not below {str(root)!r}: {', '.join(mix.not_there)}")
    if mix.not_known:
        tell(f"not left out of the mix, as they are not below {str(root)!r}: images of {', '.join(mix.not_known)}")
    if mix.without_keys:
        tell(f"of {mix.without_keys} images nothing tells which they are; look with: deixis data leaks")
    if as_json:
        typer.echo(json.dumps(mix.report(), allow_nan=False))
    else:
        _print(mix, folder)


def _print(mix: Mix, folder: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(emoji=False)
    table = Table(
        Column("part", overflow="fold"), "samples", "measured on", "images of these", "repeated", "unusable", "written"
    )
    for one in mix.parts:
        counts = (one.samples, one.measured_on, one.images_left_out, one.repeated, one.unusable, one.written)
        table.add_row(escape(one.spec), *map(str, counts))
    console.print(table)
    told = f"{mix.written} samples written to {folder}; images left out for: {', '.join(mix.left_out_for) or 'none'}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
