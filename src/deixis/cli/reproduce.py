"""``deixis reproduce``: a table of a paper, row by row, beside the paper's numbers."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis.cli.ground import Precision
from deixis.cli.running import tell_problems
from deixis.cli.train import parse_fields
from deixis.reproduce.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from deixis.reproduce.ablations import Plan

TABLES = {"mcn-table-1": "MCN Table 1: ways of post-processing the mask by the box"}
TABLES |= {name: experiment.title for name, experiment in EXPERIMENTS.items()}
_LISTED = "\n".join(f"  {name:15} {title}" for name, title in TABLES.items())
HELP = f"""Print TABLE as measured here, beside the paper's numbers.

Every row but those of mcn-table-1 is a training. A row that is done is not done again: stop with Ctrl-C, and the same
command goes on. Every field of a recipe is an option too, for all rows: --image_weights FOLDER --steps 200.

\b
Tables:
{_LISTED}
"""


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    budget: Annotated[
        str, typer.Option(help="small (drawn scenes, a CPU) or paper (its data and schedule).")
    ] = "small",
    model: Annotated[str, typer.Option(help="For mcn-table-1: a bundled name or a checkpoint.")] = "deixis-tiny",
    data: Annotated[str, typer.Option(help="For mcn-table-1: DATASET[:SPLIT] with boxes and masks.")] = "scenes:val",
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each row, such as 1,2,3.")] = "1",
    out: Annotated[Path, typer.Option(help="The folder of the rows' runs.")] = Path("runs/reproduce"),
    plan: Annotated[bool, typer.Option("--plan", help="Print the command of each training and stop.")] = False,
    precision: Annotated[Precision, typer.Option(help="The number format of the computation.")] = Precision.auto,
) -> None:
    """Run it; the help text is :data:`HELP`."""
    if table not in TABLES:
        raise typer.BadParameter(f"expected a table out of {', '.join(TABLES)}, got {table!r}")
    if table == "mcn-table-1":
        if context.args:
            raise typer.BadParameter(f"mcn-table-1 trains nothing, got {' '.join(context.args)!r} too")
        _print_mcn_table_1(model, data, root, limit, precision.value)
        return
    made = _plan(table, budget, context.args, root=root, limit=limit, seeds=seeds, out=out)
    if plan:
        _print_plan(made)
        return
    from deixis.reproduce.ablations import format_rows, measure

    measured = measure(made)
    seeds_told = f"seed {seeds}" if len(made.seeds) == 1 else f"mean (least to largest) of seeds {seeds}"
    where = f"{made.experiment.data[budget]}, n = {made.limit or 'all'}, {seeds_told}"
    typer.echo(format_rows(made.experiment, measured, where))


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
