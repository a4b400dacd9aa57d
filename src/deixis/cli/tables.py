"""The tables of ``deixis reproduce``: trained variants, comparisons with other methods, ways of post-processing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deixis import DEFAULT_MODEL
from deixis.cli.running import tell_problems
from deixis.cli.train import command_for, parse_fields
from deixis.papers.experiments import EXPERIMENTS, Experiment

if TYPE_CHECKING:
    from deixis.papers.ablations import Plan
    from deixis.papers.checkpoints import GivenModel
    from deixis.recipe import Recipe

_SCENES = ("scenes", "scenes+", "scenesg")
_REFER = ("refcoco", "refcoco+", "refcocog-umd", "refcocog-google", "referit")
_AGAINST_OTHERS = {
    "mcn-table-4": "MCN Table 4: REC against other methods, Acc@0.5",
    "mcn-table-5": "MCN Table 5: RES against other methods, mean IoU",
    "smcim-table-1": "SMCIM Table I: against other methods, Acc@0.5",
    "smcim-table-2": "SMCIM Table II: with large-scale pre-training, Acc@0.5",
}
TABLES = {
    "mcn-table-1": "MCN Table 1: ways of post-processing the mask by the box",
    **{name: one.title for name, one in EXPERIMENTS.items()},
    **_AGAINST_OTHERS,
}
TABLES = dict(sorted(TABLES.items()))
BY_PART = ("mcn-table-2", "smcim-table-5")
"""Those that ``--everywhere`` goes with."""
DEFAULT_OUT = Path("runs/reproduce")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was asked of ``deixis reproduce``."""

    table: str
    budget: str
    model: str | None
    data: str | None
    everywhere: bool
    root: Path | None
    limit: int | None
    seeds: str
    out: Path | None
    runs: str | None
    plan: bool
    precision: str
    arguments: tuple[str, ...]

    def refuse(self, *names: str) -> None:
        """Raise BadParameter where one of these options was given, as the table does nothing with it."""
        ordinary = {"seeds": "1", "budget": "small", "arguments": ()}
        given = [
            name
            for name in names
            if getattr(self, name) not in (None, False) and getattr(self, name) != ordinary.get(name)
        ]
        if given:
            told = " ".join(self.arguments) if given[0] == "arguments" else f"--{given[0]}"
            raise typer.BadParameter(f"{self.table} does nothing with {told}: leave it out")


def print_table(wishes: Wishes) -> None:
    """Measure what is not measured yet, and print."""
    if wishes.table == "mcn-table-1":
        wishes.refuse("arguments", "plan", "seeds", "everywhere", "budget", "out")
        _print_mcn_table_1(wishes)
        return
    wishes.refuse("data")
    if wishes.everywhere and wishes.table not in BY_PART:
        raise typer.BadParameter(f"--everywhere goes with {' and '.join(BY_PART)}, got {wishes.table}")
    if wishes.table in _AGAINST_OTHERS:
        _print_comparison(wishes)
    else:
        wishes.refuse("model")
        _print_variants(wishes)


def experiments_of(wishes: Wishes) -> list[Experiment]:
    """The table as it stands, or on every data set."""
    from deixis.papers.parts import everywhere

    check_budget(wishes.budget)
    return everywhere(wishes.table, wishes.budget) if wishes.everywhere else [EXPERIMENTS[wishes.table]]


def check_budget(budget: str) -> None:
    """Raise BadParameter for another than those that there are."""
    from deixis.papers.ablations import BUDGETS

    if budget not in BUDGETS:
        raise typer.BadParameter(f"expected a budget out of {', '.join(BUDGETS)}, got {budget!r}")


def plan_for(wishes: Wishes, experiment: Experiment) -> Plan:
    """How the rows of an experiment are trained and measured, as far as the options say."""
    from deixis.papers.ablations import SMALL_LIMIT, Plan
    from deixis.train.recipes import recipe

    check_budget(wishes.budget)
    numbers = wishes.seeds.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"expected --seeds such as 1 or 1,2,3, got {wishes.seeds!r}")
    base = recipe(experiment.recipes[wishes.budget])
    overrides = parse_fields(list(wishes.arguments), base)
    if "seed" in overrides:
        raise typer.BadParameter("expected --seeds for the rows of a table, got --seed")
    _refuse_what_rows_say(experiment, overrides, base)
    if wishes.budget == "paper" and wishes.root is not None:
        overrides = {"root": str(wishes.root), **overrides}
    return Plan(
        experiment=experiment,
        budget=wishes.budget,
        out=wishes.out or DEFAULT_OUT,
        seeds=tuple(dict.fromkeys(int(number) for number in numbers)),
        overrides=overrides,
        limit=wishes.limit or (SMALL_LIMIT if wishes.budget == "small" else None),
        root=wishes.root,
        precision=wishes.precision,
    )


def _refuse_what_rows_say(experiment: Experiment, overrides: Mapping[str, Any], base: Recipe) -> None:
    """Raise BadParameter where an option for all rows would be put aside by what makes one of them."""
    inner = overrides.get("model_fields", {})
    named = [one for one in overrides if one != "model_fields"]
    named += [f"model_fields.{one}" for one, value in inner.items() if value != base.model.fields.get(one)]
    for row in experiment.rows:
        said = [*row.recipe_fields, *(f"model_fields.{one}" for one in row.model_fields)]
        if clash := sorted({*named} & {*said}):
            raise typer.BadParameter(f"expected no --{clash[0]}, which the row {row.name!r} says itself; leave it out")
        if overrides.get("start") and row.model_fields:
            raise typer.BadParameter(
                f"expected no --start, got {overrides['start']!r}: the row {row.name!r} is a model of its own sizes, "
                "which a checkpoint cannot become; leave it out"
            )


def given_models(wishes: Wishes) -> list[GivenModel]:
    """Those of ``--model``, by default the bundled one."""
    from deixis.papers.checkpoints import parse_models

    check_budget(wishes.budget)
    names = _SCENES if wishes.budget == "small" else _REFER
    return parse_models(DEFAULT_MODEL if wishes.model is None else wishes.model, names)


def how_measured(wishes: Wishes, plan: Plan) -> str:
    """Number of samples, and seeds where something is trained."""
    several = f"mean (least to largest) of seeds {wishes.seeds}" if len(plan.seeds) > 1 else f"seed {wishes.seeds}"
    return f"n = {plan.limit or 'all'}, {several}"


def _print_variants(wishes: Wishes) -> None:
    from deixis.cli.figures import write_picture
    from deixis.papers.ablations import format_rows, measure

    planned = [plan_for(wishes, experiment) for experiment in experiments_of(wishes)]
    if wishes.plan:
        print_plans(planned)
        return
    for one in planned:
        measured = measure(one)
        where = f"{one.experiment.data[one.budget]}, {how_measured(wishes, one)}"
        typer.echo(format_rows(one.experiment, measured, where))
        if wishes.table == "smcim-fig-6":
            from deixis.papers.figures import smcim_fig_6

            write_picture(smcim_fig_6(measured, one.experiment.columns[0]), one.out / f"{wishes.table}.png")


def _print_comparison(wishes: Wishes) -> None:
    from deixis.papers.comparisons import (
        COMPARISONS,
        any_experiment,
        format_comparison,
        measure_given,
        measure_trained,
        plans,
    )

    comparison = COMPARISONS[wishes.table]
    check_budget(wishes.budget)
    plan = plan_for(wishes, any_experiment(comparison, wishes.budget))
    if wishes.model is not None:
        wishes.refuse("plan", "seeds", "arguments")
        measured, where = measure_given(comparison, plan, given_models(wishes)), f"n = {plan.limit or 'all'}"
    elif wishes.plan:
        print_plans(one for _, one in plans(comparison, plan))
        return
    else:
        measured, where = measure_trained(comparison, plan), how_measured(wishes, plan)
    typer.echo(format_comparison(comparison, measured, wishes.budget, where))


def print_plans(planned: Iterable[Plan]) -> None:
    """A command for each training, once, and how each row is measured."""
    from deixis.papers.ablations import folder_of

    told: set[Path] = set()
    for plan in planned:
        base = plan.experiment.recipes[plan.budget]
        for row in plan.experiment.rows:
            for seed in plan.seeds:
                folder = folder_of(plan, row, seed)
                typer.echo(f"# {row.name}")
                if folder not in told:
                    typer.echo(command_for(base, plan.recipe_of(row, seed), folder))
                told.add(folder)
                typer.echo(shlex.join(_measuring(plan, folder, row.suppression)))


def _measuring(plan: Plan, folder: Path, suppression: str | None) -> Sequence[str]:
    words = ["deixis", "evaluate", str(folder / "checkpoint"), plan.experiment.data[plan.budget]]
    words += ["--limit", str(plan.limit)] if plan.limit else []
    words += ["--root", str(plan.root)] if plan.root else []
    words += ["--precision", plan.precision] if plan.precision != "auto" else []
    return words + (["--suppression", suppression] if suppression else [])


def _print_mcn_table_1(wishes: Wishes) -> None:
    from deixis.data import default_split, open_dataset, parse_dataset_spec
    from deixis.grounder import load
    from deixis.papers.mcn_table_1 import format_mcn_table_1, mcn_table_1
    from deixis.progress import progress_over

    name, split = parse_dataset_spec(wishes.data or "scenes:val")
    split = split or default_split(name)
    samples = open_dataset(name, split=split, root=wishes.root, limit=wishes.limit)
    grounder = load(wishes.model or DEFAULT_MODEL, precision=wishes.precision)
    progress = partial(progress_over, label="evaluating", total=len(samples))
    measured = mcn_table_1(grounder, samples, progress=progress)
    tell_problems(measured.problems)
    typer.echo(format_mcn_table_1(measured, f"{grounder.name} on {name}" + (f":{split}" if split else "")))
