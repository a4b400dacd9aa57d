"""``deixis reproduce``: a table of a paper, row by row, beside the paper's numbers; or a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deixis.cli import figures, measured_figures, tables
from deixis.cli.ground import Precision
from deixis.cli.tables import Wishes

TABLES = tables.TABLES
FIGURES = {**figures.OF_RUNS, **figures.OF_MODELS, **measured_figures.OF_DATA}


def _listed(titles: dict[str, str]) -> str:
    return "\n".join(f"  {name:14} {title}" for name, title in titles.items())


HELP = f"""Print TABLE as measured here, beside the paper's numbers, or write a figure as a PNG.

Rows are trainings, but for mcn-table-1 and where --model names checkpoints. A row that is done is not done again: stop
with Ctrl-C, and the same command goes on. Every field of a recipe is an option too, for all rows:
--image_weights FOLDER --steps 200.

\b
Tables:
{_listed(TABLES)}

\b
Figures:
{_listed(FIGURES)}
"""


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    budget: Annotated[
        str, typer.Option(help="small (drawn scenes, a CPU) or paper (its data and schedule).")
    ] = "small",
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoints to measure: A, or A,B, or one a data set: scenes=A,scenes+=B.  [default: deixis-tiny; "
            "tables against other methods train their own]"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For mcn-table-1 and figures of one data set: DATASET[:SPLIT].")
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Tables 2 and V: on every data set that the paper prints.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each row, such as 1,2,3.")] = "1",
    out: Annotated[
        Path | None, typer.Option(help="The folder of the rows' runs, or a figure's file.  [default: runs/reproduce]")
    ] = None,
    runs: Annotated[str | None, typer.Option("--runs", "--run", help="For figures of runs: their folders.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the command of each training and stop.")] = False,
    precision: Annotated[Precision, typer.Option(help="The number format of the computation.")] = Precision.auto,
) -> None:
    """Run it; the help text is :data:`HELP`."""
    if table not in TABLES and table not in FIGURES:
        raise typer.BadParameter(f"expected a table out of {', '.join([*TABLES, *FIGURES])}, got {table!r}")
    if runs is not None and table not in figures.OF_RUNS:
        raise typer.BadParameter(f"--runs goes with {' and '.join(figures.OF_RUNS)}, got {runs!r} for {table}")
    wishes = Wishes(
        table=table, budget=budget, model=model, data=data, everywhere=everywhere, root=root, limit=limit,
        seeds=seeds, out=out, runs=runs, plan=plan, precision=precision.value, arguments=tuple(context.args),
    )  # fmt: skip
    if table in figures.OF_RUNS:
        figures.draw_runs(wishes)
    elif table in figures.OF_MODELS:
        figures.draw_models(wishes)
    elif table in measured_figures.OF_DATA:
        measured_figures.draw(wishes)
    else:
        tables.print_table(wishes)
