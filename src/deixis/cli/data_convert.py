"""``deixis data convert``: samples of any data set into any form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.running import check_writable, tell_problems


def convert(
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder.")],
    out: Annotated[Path, typer.Option(help="The file to write; for refer the folder.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            help="jsonl, mdetr, transvg, transvg-xyxy, seqtr, mcn or refer.  [default: by the file's ending]",
            show_default=False,
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Name images relative to it.  [default: the deepest that holds all]")
    ] = None,
    masks: Annotated[str, typer.Option(help="keep, rle or polygons.")] = "keep",
    pictures: Annotated[Path | None, typer.Option(help="Save pixels that have no file here, as PNG.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.  [default: all]")] = None,
) -> None:
    """Write a data set in another form, and list what that form cannot hold."""
    from deixis.data import open_dataset, parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.convert import FORMS, SUFFIXES
    from deixis.tools.convert import convert as convert_samples

    name, split = parse_dataset_spec(dataset)
    check_writable(out / "instances.json" if to == "refer" and out.is_dir() else out, inputs=[name])
    form = to or SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise ValueError(f"expected --to out of {', '.join(FORMS)} for {str(out)!r}, got none; add it")
    samples = open_dataset(name, split=split, root=root, limit=limit)
    with progress_report("samples") as progress:
        done = convert_samples(samples, out, form, images=images, masks=masks, pictures=pictures, progress=progress)
    tell_problems([*samples.problems, *done.problems])
    typer.echo(str(done))
