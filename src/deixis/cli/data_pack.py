"""``deixis data pack``: small pictures that training reads without decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.running import tell_problems


def pack(
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write, new or an earlier pack.", show_default=False)],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    size: Annotated[int, typer.Option(min=32, max=4096, help="The longer side of a picture, at most.")] = 416,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.  [default: all]")] = None,
) -> None:
    """Copy a data set with its pictures resized, for training to read without decoding.

    A run that was broken off goes on where it was; a damaged pack is mended.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"expected a folder to write, got the file {str(out)!r}; choose another name")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder for {str(out)!r}, found none; make it first")
    from deixis.data import default_split, open_dataset, parse_dataset_spec
    from deixis.data.packed import PackedSamples, write_pack
    from deixis.progress import progress_report

    name, split = parse_dataset_spec(dataset)
    samples = open_dataset(name, split=split, root=root, limit=limit)
    if isinstance(samples, PackedSamples) and samples.folder.resolve() == out.resolve():
        raise ValueError(f"expected another folder than the pack {str(out)!r} itself; choose another name")
    with progress_report("images") as progress:
        done = write_pack(samples, out, size, dataset=name, split=split or default_split(name), progress=progress)
    tell_problems(done.problems)
    typer.echo(str(done))
