"""``deixis reproduce``: a table of a paper, row by row, beside the paper's numbers; or a figure."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis.cli.figures import OF_MODELS, OF_RUNS, draw_models, draw_runs, write_picture
from deixis.cli.ground import Precision
from deixis.cli.running import tell_problems
from deixis.cli.train import parse_fields
from deixis.reproduce.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from deixis.reproduce.ablations import Plan

TABLES = {"mcn-table-1": "MCN Table 1: ways of post-processing the mask by the box"}
TABLES |= {name: experiment.title for name, experiment in EXPERIMENTS.items()}
FIGURES = {**OF_RUNS, **OF_MODELS}
_LISTED = "\n".join(f"  {name:15} {title}" for name, title in TABLES.items())
_DRAWN = "\n".join(f"  {name:15} {title}" for name, title in FIGURES.items())
HELP = f"""Print TABLE as measured here, beside the paper's numbers, or write a figure as a PNG.

Every row but those of mcn-table-1 is a training. A row that is done is not done again: stop with Ctrl-C, and the same
command goes on. Every field of a recipe is an option too, for all rows: --image_weights FOLDER --steps 200.

\b
Tables:
{_LISTED}

\b
Figures:
{_DRAWN}
"""


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    budget: Annotated[
        str, typer.Option(help="small (drawn scenes, a CPU) or paper (its data and schedule).")
    ] = "small",
    model: Annotated[
        str, typer.Option(help="For mcn-table-1, mcn-fig-6, smcim-fig-9: a bundled name or a checkpoint.")
    ] = "deixis-tiny",
    data: Annotated[str, typer.Option(help="For mcn-table-1: DATASET[:SPLIT] with boxes and masks.")] = "scenes:val",
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
    if table in OF_RUNS:
        draw_runs(table, runs, context.args, out or Path(f"{table}.png"))
        return
    if table in OF_MODELS:
        draw_models(table, model, context.args, out or Path(f"{table}.png"), precision.value)
        return
    if table not in TABLES:
        raise typer.BadParameter(f"expected a table out of {', '.join([*TABLES, *FIGURES])}, got {table!r}")
    if runs is not None:
        raise typer.BadParameter(f"--runs goes with {' and '.join(OF_RUNS)}, got {runs!r} for {table}")
    if table == "mcn-table-1":
        if context.args or plan or seeds != "1":
            raise typer.BadParameter("mcn-table-1 trains nothing: leave out --plan, --seeds and fields of a recipe")
        _print_mcn_table_1(model, data, root, limit, precision.value)
        return
    out = out or Path("runs/reproduce")
    if (model, data) != ("deixis-tiny", "scenes:val"):
        raise typer.BadParameter(f"the rows of {table} say model and data: leave out --model and --data")
    made = replace(
        _plan(table, budget, context.args, root=root, limit=limit, seeds=seeds, out=out), precision=precision.value
    )
    if plan:
        _print_plan(made)
        return
    from deixis.reproduce.ablations import format_rows, measure

    measured = measure(made)
    seeds_told = f"seed {seeds}" if len(made.seeds) == 1 else f"mean (least to largest) of seeds {seeds}"
    where = f"{made.experiment.data[budget]}, n = {made.limit or 'all'}, {seeds_told}"
    typer.echo(format_rows(made.experiment, measured, where))
    if table == "smcim-fig-6":
        from deixis.reproduce.figures import smcim_fig_6

        write_picture(smcim_fig_6(measured, made.experiment.columns[0]), out / f"{table}.png")


def _plan(
    table: str, budget: str, fields: list[str], *, root: Path | None, limit: int | None, seeds: str, out: Path
) -> Plan:
    from deixis.reproduce.ablations import BUDGETS, SMALL_LIMIT, Plan
    from deixis.train.recipes import recipe

    if budget not in BUDGETS:
        raise typer.BadParameter(f"expected a budget out of {', '.join(BUDGETS)}, got {budget!r}")
    numbers = seeds.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"expected --seeds such as 1 or 1,2,3, got {seeds!r}")
    experiment = EXPERIMENTS[table]
    overrides = parse_fields(fields, recipe(experiment.recipes[budget]))
    if "seed" in overrides:
        raise typer.BadParameter("expected --seeds for the rows of a table, got --seed")
    if budget == "paper" and root is not None:
        overrides = {"root": str(root), **overrides}
    return Plan(
        experiment=experiment,
        budget=budget,
        out=out,
        seeds=tuple(dict.fromkeys(int(number) for number in numbers)),
        overrides=overrides,
        limit=limit or (SMALL_LIMIT if budget == "small" else None),
        root=root,
    )


def _print_plan(plan: Plan) -> None:
    """A command for each training, and how it is measured."""
    from deixis.cli.train import command_for
    from deixis.reproduce.ablations import folder_of

    base = plan.experiment.recipes[plan.budget]
    told: set[Path] = set()
    for row in plan.experiment.rows:
        for seed in plan.seeds:
            folder = folder_of(plan, row, seed)
            typer.echo(f"# {row.name}")
            if folder not in told:
                typer.echo(command_for(base, plan.recipe_of(row, seed), folder))
            told.add(folder)
            measure = ["deixis", "evaluate", str(folder / "checkpoint"), plan.experiment.data[plan.budget]]
            measure += ["--limit", str(plan.limit)] if plan.limit else []
            measure += ["--root", str(plan.root)] if plan.root else []
            measure += ["--precision", plan.precision] if plan.precision != "auto" else []
            measure += ["--suppression", row.suppression] if row.suppression else []
            typer.echo(shlex.join(measure))


def _print_mcn_table_1(model: str, data: str, root: Path | None, limit: int | None, precision: str) -> None:
    from deixis.data import default_split, open_dataset, parse_dataset_spec
    from deixis.grounder import load
    from deixis.progress import progress_over
    from deixis.reproduce.mcn_table_1 import format_mcn_table_1, mcn_table_1

    name, split = parse_dataset_spec(data)
    split = split or default_split(name)
    samples = open_dataset(name, split=split, root=root, limit=limit)
    grounder = load(model, precision=precision)
    progress = partial(progress_over, label="evaluating", total=len(samples))
    measured = mcn_table_1(grounder, samples, progress=progress)
    tell_problems(measured.problems)
    typer.echo(format_mcn_table_1(measured, f"{grounder.name} on {name}" + (f":{split}" if split else "")))
