"""``deixis reproduce``: a table of a paper, row by row, beside the paper's numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.ground import Precision
from deixis.cli.running import tell_problems


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="mcn-table-1")],
    model: Annotated[str, typer.Option(help="A bundled name or a checkpoint folder.")] = "deixis-tiny",
    data: Annotated[str, typer.Option(help="DATASET[:SPLIT] with boxes and masks.")] = "scenes:val",
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    precision: Annotated[Precision, typer.Option(help="The number format of the computation.")] = Precision.auto,
) -> None:
    """Print TABLE as measured on DATA, then as the paper prints it."""
    from deixis.data import default_split, open_dataset, parse_dataset_spec
    from deixis.evaluate.reproduce import TABLES, format_mcn_table_1, mcn_table_1
    from deixis.grounder import load
    from deixis.progress import progress_over

    if table not in TABLES:
        raise typer.BadParameter(f"expected a table out of {', '.join(TABLES)}, got {table!r}")
    name, split = parse_dataset_spec(data)
    split = split or default_split(name)
    samples = open_dataset(name, split=split, root=root, limit=limit)
    grounder = load(model, precision=precision.value)
    progress = partial(progress_over, label="evaluating", total=len(samples))
    measured = mcn_table_1(grounder, samples, progress=progress)
    tell_problems(measured.problems)
    typer.echo(format_mcn_table_1(measured, f"{grounder.name} on {name}" + (f":{split}" if split else "")))
