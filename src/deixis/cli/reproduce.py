"""``deixis reproduce``: a table of a paper, row by row, beside the paper's numbers; or a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis import DEFAULT_MODEL
from deixis.cli.ground import Precision
from deixis.cli.running import check_chart, check_writable, tell, tell_problems, write_image
from deixis.cli.train import parse_fields
from deixis.papers.tables import BUDGETS, BY_PART, COMPARISONS, EXPERIMENTS, Experiment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deixis.charts import BarPanel, Panel
    from deixis.grounder import Grounder
    from deixis.papers.measure import GivenModel, Meter, Plan
    from deixis.recipe import Recipe
    from deixis.structures import Sample

_DATA = {
    "small": ("scenes", "scenes+", "scenesg"),
    "paper": ("refcoco", "refcoco+", "refcocog-umd", "refcocog-google", "referit"),
}
"""What a checkpoint of ``--model`` can be named for."""
DEFAULT_OUT = Path("runs/reproduce")
_SPEED_PX = (960, 640)


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

    def refuse_all_but(self, names: str) -> None:
        """Raise BadParameter where an option was given that makes no difference to this table or figure."""
        ordinary: dict[str, object] = {"seeds": "1", "budget": "small", "precision": "auto", "arguments": ()}
        for name, value in vars(self).items():
            is_given = value not in (None, False) and value != ordinary.get(name)
            if name != "table" and name not in names.split() and is_given:
                option = repr(" ".join(self.arguments)) if name == "arguments" else f"--{name}"
                raise typer.BadParameter(f"{self.table} makes no use of {option}: leave it out")

    @property
    def bound(self) -> int | None:
        """At most so many samples."""
        from deixis.papers.measure import SMALL_LIMIT

        return self.limit or (SMALL_LIMIT if self.budget == "small" else None)

    def meter(self, out: Path = DEFAULT_OUT) -> Meter:
        """How checkpoints are measured."""
        from deixis.papers.measure import Meter

        return Meter(out=out, root=self.root, limit=self.bound, precision=self.precision)

    def models(self) -> list[GivenModel]:
        """Those of ``--model``, by default the bundled one."""
        from deixis.papers.measure import parse_models

        return parse_models(DEFAULT_MODEL if self.model is None else self.model, _DATA[self.budget])

    def samples(self, default: str, limit: int | None) -> tuple[Sequence[Sample], str]:
        """Those of ``--data``, and its name with the split."""
        from deixis.data import default_split, open_dataset, parse_dataset_spec

        name, split = parse_dataset_spec(self.data or default)
        split = split or default_split(name)
        return open_dataset(name, split=split, root=self.root, limit=limit), name + (f":{split}" if split else "")

    def load(self, name: str) -> Grounder:
        """A model by its name or folder."""
        from deixis.grounder import load

        return load(name, precision=self.precision)

    @property
    def file(self) -> Path:
        """Where a figure is written."""
        return self.out or Path(f"{self.table}.png")


def _write_chart(panels: Sequence[Panel | BarPanel], out: Path, *, panel_px: tuple[int, int] | None = None) -> None:
    from deixis.charts import PANEL_PX, draw_panels

    write_image(draw_panels(panels, panel_px=panel_px or PANEL_PX), out)


# Tables of trained variants


def _plan_for(wishes: Wishes, experiment: Experiment) -> Plan:
    """How the rows of an experiment are trained and measured, as far as the options say."""
    from deixis.papers.measure import Plan
    from deixis.train.recipes import recipe

    numbers = wishes.seeds.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"expected --seeds such as 1 or 1,2,3, got {wishes.seeds!r}")
    base = recipe(experiment.recipes[wishes.budget])
    overrides = parse_fields(list(wishes.arguments), base)
    if "seed" in overrides:
        raise typer.BadParameter("expected --seeds for the rows of a table, got --seed")
    _refuse_fields_of_rows(experiment, overrides, base)
    if wishes.budget == "paper" and wishes.root is not None:
        overrides = {"root": str(wishes.root), **overrides}
    seeds = tuple(dict.fromkeys(int(number) for number in numbers))
    meter = wishes.meter(wishes.out or DEFAULT_OUT)
    return Plan(experiment=experiment, budget=wishes.budget, meter=meter, seeds=seeds, overrides=overrides)


def _refuse_fields_of_rows(experiment: Experiment, overrides: Mapping[str, Any], base: Recipe) -> None:
    """Raise BadParameter where an option for all rows would be overruled by what makes one of them."""
    inner = overrides.get("model_fields", {})
    named = [one for one in overrides if one != "model_fields"]
    named += [f"model_fields.{one}" for one, value in inner.items() if value != base.model.fields.get(one)]
    for row in experiment.rows:
        own = [*row.recipe_fields, *(f"model_fields.{one}" for one in row.model_fields)]
        if clash := sorted({*named} & {*own}):
            raise typer.BadParameter(f"expected no --{clash[0]}, which the row {row.name!r} sets itself; leave it out")
        if overrides.get("start") and row.model_fields:
            raise typer.BadParameter(
                f"expected no --start, got {overrides['start']!r}: the row {row.name!r} is a model of its own sizes, "
                "which a checkpoint cannot become; leave it out"
            )


def _how_measured(wishes: Wishes, plan: Plan) -> str:
    several = f"mean (least to largest) of seeds {wishes.seeds}" if len(plan.seeds) > 1 else f"seed {wishes.seeds}"
    return f"n = {plan.meter.limit or 'all'}, {several}"


def _print_plans(plans: Iterable[Plan]) -> None:
    from deixis.papers.measure import plan_commands

    for line in plan_commands(plans):
        typer.echo(line)


def _experiments(wishes: Wishes) -> list[Experiment]:
    from deixis.papers.tables import everywhere, structures_everywhere

    if wishes.table == "mcn-fig-5a":
        return structures_everywhere(wishes.budget)
    return everywhere(wishes.table, wishes.budget) if wishes.everywhere else [EXPERIMENTS[wishes.table]]


def _variants(wishes: Wishes) -> None:
    from deixis.papers.measure import format_rows, measure

    plans = [_plan_for(wishes, experiment) for experiment in _experiments(wishes)]
    if wishes.plan:
        _print_plans(plans)
        return
    is_drawn = "-fig-" in wishes.table
    if is_drawn:
        from deixis.charts import check_matplotlib

        check_matplotlib()
    measured = []
    for plan in plans:
        rows = measure(plan)
        typer.echo(format_rows(plan.experiment, rows, f"{plan.data}, {_how_measured(wishes, plan)}"))
        measured.append((plan.experiment, rows))
    if is_drawn:
        from deixis.papers.figures import mcn_fig_5_a, smcim_fig_6

        experiment, rows = measured[0]
        panels = mcn_fig_5_a(measured) if wishes.table == "mcn-fig-5a" else smcim_fig_6(rows, experiment.columns[0])
        _write_chart(panels, plans[0].meter.out / f"{wishes.table}.png")


# Tables against other methods, and MCN Table 1


def _comparison(wishes: Wishes) -> None:
    from deixis.papers.measure import comparison_plans, format_comparison, measure_given, measure_trained

    table = COMPARISONS[wishes.table]
    rows = table.rows(wishes.budget)
    if wishes.model is not None:
        wishes.refuse_all_but("budget model root limit out precision")
        meter = wishes.meter(wishes.out or DEFAULT_OUT)
        measured = measure_given(table, wishes.budget, meter, wishes.models())
        where = f"n = {meter.limit or 'all'}"
    else:
        plan = _plan_for(wishes, table.experiment(wishes.budget, rows, table.recipes))
        if wishes.plan:
            _print_plans(one for _, one in comparison_plans(table, plan))
            return
        measured, where = measure_trained(table, plan), _how_measured(wishes, plan)
    typer.echo(format_comparison(table, measured, wishes.budget, where))


def _suppressions(wishes: Wishes) -> None:
    from deixis.papers.mcn_table_1 import format_mcn_table_1, mcn_table_1
    from deixis.progress import progress_over

    samples, where = wishes.samples("scenes:val", wishes.limit)
    grounder = wishes.load(wishes.model or DEFAULT_MODEL)
    measured = mcn_table_1(grounder, samples, progress=partial(progress_over, label="evaluating", total=len(samples)))
    tell_problems(measured.problems)
    typer.echo(format_mcn_table_1(measured, f"{grounder.name} on {where}"))


# Figures


def _of_runs(wishes: Wishes) -> None:
    is_one = wishes.table == "smcim-fig-7"
    folders = [Path(part.strip()) for part in (wishes.runs or "").split(",") if part.strip()]
    if not folders or (is_one and len(folders) > 1):
        wanted = "--run RUN, one folder" if is_one else "--runs A,B, folders of runs"
        raise typer.BadParameter(f"{wishes.table} needs {wanted}, got {wishes.runs!r}")
    check_chart(wishes.file)
    from deixis.papers.figures import mcn_fig_5, mcn_fig_5_accuracy, measure_learning, smcim_fig_7
    from deixis.train.curves import read_log

    if wishes.data is not None:
        samples, where = wishes.samples(wishes.data, wishes.limit)
        learnt = [measure_learning(folder, samples, where, precision=wishes.precision) for folder in folders]
        panels = mcn_fig_5_accuracy(learnt, where)
    else:
        logs = [read_log(folder) for folder in folders]
        tell_problems([f"{log.name}: {problem}" for log in logs for problem in log.problems])
        panels = smcim_fig_7(logs[0]) if is_one else mcn_fig_5(logs)
    _write_chart(panels, wishes.file)


def _attention(wishes: Wishes) -> None:
    if len(wishes.arguments) != 2:
        raise typer.BadParameter(f"{wishes.table} needs IMAGE PHRASE, got {' '.join(wishes.arguments)!r}")
    is_one = wishes.table == "smcim-fig-9"
    names = [one.strip() for one in (wishes.model or DEFAULT_MODEL).split(",") if one.strip()]
    if not names or (is_one and len(names) > 1):
        wanted = "--model M, one model" if is_one else "--model A,B, one or several models"
        raise typer.BadParameter(f"{wishes.table} needs {wanted}, got {wishes.model!r}")
    check_writable(wishes.file, suffixes=(".png",))
    from deixis.geometry.images import read_image
    from deixis.grounder import check_phrase
    from deixis.papers.qualitative import mcn_fig_6, smcim_fig_9

    image, phrase = read_image(wishes.arguments[0]), check_phrase(wishes.arguments[1])
    models = ((name, wishes.load(name)) for name in names)
    drawn = smcim_fig_9(next(models)[1], image, phrase) if is_one else mcn_fig_6(models, image, phrase)
    write_image(drawn, wishes.file)


def _lengths(wishes: Wishes) -> None:
    models = wishes.models()
    check_chart(wishes.file)
    from deixis.papers.figures import format_lengths, measure_lengths, smcim_fig_5

    measured = measure_lengths(wishes.budget, wishes.meter(), models)
    typer.echo(format_lengths(measured))
    _write_chart(smcim_fig_5(measured), wishes.file)


def _cases(wishes: Wishes) -> None:
    from deixis.papers.qualitative import describe_cases, find_cases, smcim_fig_8
    from deixis.progress import progress_over

    models = wishes.models()
    check_writable(wishes.file, suffixes=(".png",))
    if len(models) > 2 or any("" not in one.checkpoints for one in models):
        raise typer.BadParameter(f"smcim-fig-8 needs --model A or --model A,BASELINE, got {wishes.model!r}")
    default = "scenesg:val" if wishes.budget == "small" else "refcocog-google:val"
    samples, where = wishes.samples(default, wishes.bound)
    model, baseline = [*(wishes.load(one.checkpoints[""]) for one in models), None][:2]
    assert model is not None
    progress = partial(progress_over, label="evaluating", total=len(samples))
    cases = find_cases(model, baseline, samples, progress=progress)
    tell_problems(cases.problems)
    typer.echo(describe_cases(cases, models[0].name, models[1].name if baseline else None, where))
    write_image(smcim_fig_8(cases), wishes.file)


def _speed(wishes: Wishes) -> None:
    models = wishes.models()
    check_chart(wishes.file)
    from deixis.bench.report import speed_panel
    from deixis.papers.figures import format_speeds, measure_speed

    data = wishes.data or ("scenes+:val" if wishes.budget == "small" else "refcoco+:val")
    found = {one.name: one.checkpoint_for(data) for one in models}
    checkpoints = {name: path for name, path in found.items() if path is not None}
    points, processor = measure_speed(wishes.meter(), checkpoints, data)
    drawn = {point.name for point in points}
    for name, path in checkpoints.items():
        if path not in drawn:
            tell(f"{name} gives no boxes: it is not drawn")
    typer.echo(format_speeds(points, data, processor))
    _write_chart([speed_panel(points, f"Acc@0.5 on {data}")], wishes.file, panel_px=_SPEED_PX)


@dataclass(frozen=True)
class _Target:
    """A table or a figure."""

    title: str
    options: str
    """Those that make a difference, by their names in :class:`Wishes`."""
    make: Callable[[Wishes], None]


_TRAINED = "budget root limit seeds out plan precision arguments"
_OF_MODELS = "budget model root limit out precision"
_OF_PHOTO = "model out precision arguments"
_VARIANTS = {
    name: _Target(one.title, f"{_TRAINED} everywhere" if name in BY_PART else _TRAINED, _variants)
    for name, one in EXPERIMENTS.items()
}
_COMPARISONS = {name: _Target(one.title, f"{_TRAINED} model", _comparison) for name, one in COMPARISONS.items()}
_MCN_TABLE_1 = "MCN Table 1: ways of post-processing the mask by the box"
_MCN_FIG_5 = "MCN Fig. 5 (b): losses of runs over their steps (--runs A,B); accuracy with --data DATASET"
_MCN_FIG_5A = "MCN Fig. 5 (a): the structures of Table 3 on three data sets, trained as there"
_MCN_FIG_6 = "MCN Fig. 6: box, mask and attention of several models (--model A,B IMAGE PHRASE)"
_SMCIM_FIG_2 = "SMCIM Fig. 2: speed against accuracy on RefCOCO+ val or scenes+:val (--model A,B)"
_SMCIM_FIG_8 = "SMCIM Fig. 8: boxes of a model, of a baseline and the target (--model A,BASELINE)"
_SMCIM_FIG_9 = "SMCIM Fig. 9: attention of [CLS] beside the box (--model M IMAGE PHRASE)"
TABLES = {
    "mcn-table-1": _Target(_MCN_TABLE_1, "model data root limit precision", _suppressions),
    **dict(sorted((_VARIANTS | _COMPARISONS).items())),
}
FIGURES = {
    "mcn-fig-5": _Target(_MCN_FIG_5, "runs data root limit out precision", _of_runs),
    "smcim-fig-7": _Target("SMCIM Fig. 7: difficulty over training (--run RUN)", "runs out", _of_runs),
    "mcn-fig-6": _Target(_MCN_FIG_6, _OF_PHOTO, _attention),
    "smcim-fig-9": _Target(_SMCIM_FIG_9, _OF_PHOTO, _attention),
    "mcn-fig-5a": _Target(_MCN_FIG_5A, _TRAINED, _variants),
    "smcim-fig-2": _Target(_SMCIM_FIG_2, f"{_OF_MODELS} data", _speed),
    "smcim-fig-5": _Target("SMCIM Fig. 5: accuracy by number of words (--model A,B)", _OF_MODELS, _lengths),
    "smcim-fig-8": _Target(_SMCIM_FIG_8, f"{_OF_MODELS} data", _cases),
}


def _listed(targets: Mapping[str, _Target]) -> str:
    return "\n".join(f"  {name:14} {one.title}" for name, one in targets.items())


HELP = f"""Print TABLE as measured here, beside the paper's numbers, or write a figure as a PNG.

Each row is trained, except those of mcn-table-1 and those that --model names. A row that is done is not done again:
stop with Ctrl-C, and the same command goes on. Every field of a recipe is an option too, for all rows:
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
    targets = TABLES | FIGURES
    if table not in targets:
        raise typer.BadParameter(f"expected a table out of {', '.join(targets)}, got {table!r}")
    if budget not in BUDGETS:
        raise typer.BadParameter(f"expected a budget out of {', '.join(BUDGETS)}, got {budget!r}")
    wishes = Wishes(
        table=table, budget=budget, model=model, data=data, everywhere=everywhere, root=root, limit=limit,
        seeds=seeds, out=out, runs=runs, plan=plan, precision=precision.value, arguments=tuple(context.args),
    )  # fmt: skip
    wishes.refuse_all_but(targets[table].options)
    targets[table].make(wishes)
