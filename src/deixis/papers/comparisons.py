"""The papers' tables against other methods: what is printed of all, and one's own models split by split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean

from deixis.papers import published
from deixis.papers.ablations import Plan, column_value, folder_of, measure
from deixis.papers.checkpoints import GivenModel, measured_report
from deixis.papers.experiments import REC, RES, Experiment, Row
from deixis.papers.parts import MCN_PARTS, SMCIM_PARTS, Part, on_part
from deixis.papers.published import Published


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table."""

    title: str
    column: str
    """What is measured: one of the columns of `deixis.papers.experiments`."""
    parts: tuple[Part, ...]
    others: tuple[Published, ...]
    own: tuple[Published, ...]
    """The paper's own rows."""
    presets: tuple[str, ...]
    """What makes each of them here."""
    main: int
    """Which of them the small model is set beside."""
    recipes: Mapping[str, str]
    """Budget -> recipe."""
    pretraining: Mapping[str, str] = field(default_factory=dict)
    """Budget -> the recipe that comes before; empty for none."""
    small_fields: Mapping[str, object] = field(default_factory=dict)
    """Of the recipe with the budget ``small``."""

    def parts_of(self, budget: str) -> list[Part]:
        """Those with data in that budget."""
        return [part for part in self.parts if budget in part.data]


_WITHOUT_OTHERS = {"val-g", "test"}  # Table II has neither RefCOCOg-google nor ReferItGame
_SMCIM_2_PARTS = tuple(part for part in SMCIM_PARTS if part.name.split()[-1] not in _WITHOUT_OTHERS)

COMPARISONS = {
    "mcn-table-4": Comparison(
        title="MCN Table 4: REC against other methods, Acc@0.5",
        column=REC,
        parts=MCN_PARTS,
        others=published.MCN_TABLE_4,
        own=published.MCN_TABLE_4_OWN,
        presets=("mcn-vgg16", "mcn-darknet53"),
        main=1,
        recipes={"small": "mcn-scenes", "paper": "mcn"},
    ),
    "mcn-table-5": Comparison(
        title="MCN Table 5: RES against other methods, mean IoU",
        column=RES,
        parts=MCN_PARTS,
        others=published.MCN_TABLE_5,
        own=published.MCN_TABLE_5_OWN,
        presets=("mcn-vgg16", "mcn-darknet53"),
        main=1,
        recipes={"small": "mcn-scenes", "paper": "mcn"},
    ),
    "smcim-table-1": Comparison(
        title="SMCIM Table I: against other methods, Acc@0.5",
        column=REC,
        parts=SMCIM_PARTS,
        others=published.SMCIM_TABLE_1,
        own=published.SMCIM_TABLE_1_OWN,
        presets=("smcim-r50", "smcim-r101"),
        main=0,
        recipes={"small": "smcim-scenes", "paper": "smcim"},
    ),
    "smcim-table-2": Comparison(
        title="SMCIM Table II: with large-scale pre-training, Acc@0.5",
        column=REC,
        parts=_SMCIM_2_PARTS,
        others=published.SMCIM_TABLE_2,
        own=published.SMCIM_TABLE_2_OWN,
        presets=("smcim-r50", "smcim-r101"),
        main=0,
        recipes={"small": "smcim-scenes", "paper": "smcim-finetune"},
        pretraining={"small": "smcim-scenes", "paper": "smcim-pretrain"},
        small_fields={"lr": 5e-5, "pretrained_lr": 1.5e-5, "sigma_lr": 2e-4},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on all parts of a table."""

    name: str
    beside: Published
    """The paper's row that it is set beside."""
    values: tuple[tuple[float | None, ...], ...]
    """Of each part: percent by seed; empty where the budget has no data for it."""

    @property
    def means(self) -> tuple[float | None, ...]:
        """Over the seeds."""
        known = [[one for one in part if one is not None] for part in self.values]
        return tuple(mean(part) if part else None for part in known)


def plans(table: Comparison, plan: Plan) -> Iterator[tuple[Part | None, Plan]]:
    """What is trained and measured, in this order: each part, and None for a pre-training before all of them.

    Args:
        table: its rows are the paper's own, with the budget ``small`` the recipe's model alone.
        plan: how; its experiment does not matter.
    """
    for seed in plan.seeds:
        one = replace(plan, seeds=(seed,))
        rows = _rows(table, plan.budget)
        if table.pretraining:
            first = [replace(row, name=f"{row.name}, pre-training") for row in rows]
            before = replace(one, experiment=_experiment(table, first, table.pretraining, plan.budget))
            yield None, before
            starts = [str(folder_of(before, row, seed) / "checkpoint") for row in before.experiment.rows]
            rows = [
                replace(row, recipe_fields={**row.recipe_fields, **_tuning(table, plan.budget), **_from(start)})
                for row, start in zip(rows, starts, strict=True)
            ]
        for part in table.parts_of(plan.budget):
            experiment = _experiment(table, rows, table.recipes, plan.budget)
            printed = [(row.values[table.parts.index(part)],) for row in _beside(table, plan.budget)]
            yield part, replace(one, experiment=on_part(experiment, part, plan.budget, printed))


def measure_trained(table: Comparison, plan: Plan) -> list[Measured]:
    """Train the rows, each on all data sets, and measure them; what is done is not done again.

    Raises:
        FileNotFoundError, ValueError: what a row is trained from, or the data, is not there or cannot be used.
    """
    beside = _beside(table, plan.budget)
    values: list[dict[str, list[float | None]]] = [{} for _ in beside]
    for part, one in plans(table, plan):
        for row, figures in zip(values, measure(one), strict=True):
            if part is not None:
                row.setdefault(part.name, []).extend(seed[0] for seed in figures.seeds)
    names = [row.name for row in _rows(table, plan.budget)]
    return [
        Measured(name=name, beside=other, values=tuple(tuple(row.get(part.name, ())) for part in table.parts))
        for name, other, row in zip(names, beside, values, strict=True)
    ]


def measure_given(table: Comparison, plan: Plan, models: Sequence[GivenModel]) -> list[Measured]:
    """The same of checkpoints that are there; each is set beside the paper's main row.

    Raises:
        FileNotFoundError, ValueError: a model or the data is not there or cannot be used.
    """
    return [
        Measured(
            name=model.name,
            beside=table.own[table.main],
            values=tuple(_given_values(table, plan, model, part) for part in table.parts),
        )
        for model in models
    ]


def _given_values(table: Comparison, plan: Plan, model: GivenModel, part: Part) -> tuple[float | None, ...]:
    data = part.data.get(plan.budget)
    checkpoint = None if data is None else model.checkpoint_for(data)
    if data is None or checkpoint is None:
        return ()
    report = measured_report(checkpoint, data, out=plan.out, root=plan.root, limit=plan.limit, precision=plan.precision)
    return (column_value(report, table.column),)


def _beside(table: Comparison, budget: str) -> tuple[Published, ...]:
    return table.own if budget == "paper" else (table.own[table.main],)


def _rows(table: Comparison, budget: str) -> list[Row]:
    if budget == "paper":
        return [Row(name=name, paper=(None,), recipe_fields={"model": name}) for name in table.presets]
    return [Row(name=table.recipes[budget], paper=(None,))]


def _tuning(table: Comparison, budget: str) -> Mapping[str, object]:
    return table.small_fields if budget == "small" else {}


def _from(start: str) -> Mapping[str, object]:
    """A checkpoint brings its encoders: those named for all rows are for what starts without one."""
    return {"start": start, "image_weights": "", "text_weights": ""}


def any_experiment(table: Comparison, budget: str) -> Experiment:
    """What a plan for this table can be begun with; `plans` puts the others in its place."""
    return _experiment(table, _rows(table, budget), table.recipes, budget)


def _experiment(table: Comparison, rows: Sequence[Row], recipes: Mapping[str, str], budget: str) -> Experiment:
    """The rows by that recipe; measured on the first part unless `on_part` says where."""
    return Experiment(
        title=table.title,
        paper_data="",
        columns=(table.column,),
        rows=tuple(rows),
        recipes=recipes,
        data={budget: table.parts_of(budget)[0].data[budget]},
    )


def format_comparison(table: Comparison, measured: Sequence[Measured], budget: str, where: str) -> str:
    """What is printed of others, then ours beside the paper's row, and the difference with its sign.

    Args:
        table: what is printed.
        measured: one's own models.
        budget: of the measuring.
        where: how it was measured, such as the seeds.
    """
    heads = ["", *(part.name for part in table.parts)]
    printed = [[row.label, *map(_number, row.values)] for row in (*table.others, *table.own)]
    ours = ["", *(part.data.get(budget, "-") for part in table.parts)]
    rows = [line for one in measured for line in _own_lines(table, one, budget)]
    other = (
        "" if budget == "paper" else " Drawn scenes are other data than the paper's: only the order can be compared."
    )
    return (
        f"{table.title}, percent. As printed; measured by their authors, not here:\n\n{_markdown([heads, *printed])}\n"
        f"Measured here, {where}.{other}\n\n{_markdown([ours, *rows])}"
    )


def _own_lines(table: Comparison, one: Measured, budget: str) -> list[list[str]]:
    """Ours, the paper's, the difference; of the paper's own data also how far both lie above the best of the others."""
    ours, paper = one.means, one.beside.values
    lines = [
        [one.name, *map(_with_range, one.values)],
        [f"printed: {one.beside.label}", *map(_number, paper)],
        ["difference", *(_signed(a, b) for a, b in zip(ours, paper, strict=True))],
        ["against the column before", *_steps(ours)],
        ["the same, printed", *_steps([b if a is not None else None for a, b in zip(ours, paper, strict=True)])],
    ]
    if budget == "paper":
        known = [[row.values[i] for row in table.others] for i in range(len(paper))]
        best = [max((value for value in column if value is not None), default=None) for column in known]
        lines.append(["over the best of the others", *(_signed(a, b) for a, b in zip(ours, best, strict=True))])
        lines.append(["the same, printed", *(_signed(a, b) for a, b in zip(paper, best, strict=True))])
    return lines


def _steps(values: Sequence[float | None]) -> list[str]:
    """By how much each differs from the last one that there is."""
    told: list[str] = []
    before: float | None = None
    for value in values:
        told.append(_signed(value, before))
        before = before if value is None else value
    return told


def _signed(value: float | None, other: float | None) -> str:
    return "-" if value is None or other is None else f"{value - other:+.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _with_range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return _number(mean(known)) + (f" ({min(known):.2f} to {max(known):.2f})" if len(known) > 1 else "")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    ruled = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled) + "\n"
