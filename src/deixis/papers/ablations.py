"""Train and measure the rows of a table; what is done already is not done again."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from deixis.config import config_from_dict, config_to_dict, preset
from deixis.evaluate.evaluate import evaluate_command_result
from deixis.papers.experiments import IE, REC, RES, Experiment, Row
from deixis.recipe import Recipe
from deixis.train.recipes import recipe
from deixis.train.trainer import run, write_whole

BUDGETS = ("small", "paper")
SMALL_STEPS = 300
SMALL_LIMIT = 500
_NO_MATTER = ("workers", "save_every", "keep")
"""Fields of a recipe that change nothing of what is learnt."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the rows of a table are trained and measured."""

    experiment: Experiment
    budget: str
    out: Path
    """Gets a folder for each training, with its run and its figures."""
    seeds: tuple[int, ...] = (1,)
    overrides: Mapping[str, Any]
    """Recipe fields of all rows, such as where pretrained parts lie."""
    limit: int | None = None
    """Measure on so many samples."""
    root: Path | None = None
    precision: str = "auto"
    """Of the measuring."""

    def recipe_of(self, row: Row, seed: int) -> Recipe:
        """The training of that row."""
        name = self.experiment.recipes[self.budget]
        shared = {"steps": SMALL_STEPS} if self.budget == "small" else {}
        shared |= self.experiment.recipe_fields.get(self.budget, {})
        fields = {**shared, **self.overrides, **row.recipe_fields, "seed": seed}
        if not fields.get("start"):  # a checkpoint has its own sizes
            common = self.overrides.get("model_fields", {})
            fields["model_fields"] = {**recipe(name).model.fields, **common, **row.model_fields}
        return recipe(name, **fields)


@dataclass(frozen=True)
class Figures:
    """A row as measured: percent for each column, of each seed."""

    row: Row
    seeds: tuple[tuple[float | None, ...], ...]

    @property
    def means(self) -> tuple[float | None, ...]:
        """Over the seeds; None where there is no such branch."""
        columns = zip(*self.seeds, strict=True)
        return tuple(None if None in column else mean(x for x in column if x is not None) for column in columns)


def measure(plan: Plan) -> list[Figures]:
    """All rows, one after the other; Ctrl-C keeps what is done, and the next call goes on there.

    Raises:
        FileNotFoundError, ValueError: what a row is trained from, or the data, is not there or cannot be used.
    """
    return [Figures(row, tuple(_figures(plan, row, seed) for seed in plan.seeds)) for row in plan.experiment.rows]


def folder_of(plan: Plan, row: Row, seed: int) -> Path:
    """Where that training lies: the same for rows and tables that share it."""
    made = plan.recipe_of(row, seed)
    ordinary = Recipe().flat()
    told = {name: value for name, value in made.flat().items() if value != ordinary[name] and name not in _NO_MATTER}
    sizes = config_to_dict(
        preset(made.model.preset, **made.model.fields)
    )  # a field named with its default changes nothing
    ordinary_sizes = config_to_dict(config_from_dict({"family": sizes["family"]}))
    told["model_fields"] = {name: value for name, value in sizes.items() if value != ordinary_sizes[name]}
    key = json.dumps(told, sort_keys=True)
    return plan.out / f"{made.model.preset}-{hashlib.sha256(key.encode()).hexdigest()[:10]}-seed{seed}"


def _figures(plan: Plan, row: Row, seed: int) -> tuple[float | None, ...]:
    folder = folder_of(plan, row, seed)
    where = "" if plan.precision == "auto" else f"-{plan.precision}"
    data = plan.experiment.data[plan.budget]
    result = folder / f"figures-{data.replace(':', '-')}-{row.suppression or 'own'}-{plan.limit or 'all'}{where}.json"
    if not result.is_file():
        checkpoint = _trained(plan.recipe_of(row, seed), folder, f"{row.name}, seed {seed}")
        name, _, split = data.partition(":")
        measured = evaluate_command_result(
            str(checkpoint), name, split=split, root=plan.root, limit=plan.limit,
            suppression=row.suppression, precision=plan.precision, show_progress=True,
        )  # fmt: skip
        write_whole(result, json.dumps({"row": row.name, "seed": seed, **measured.report()}, indent=1))
    report = json.loads(result.read_text(encoding="utf-8"))
    return tuple(column_value(report, column) for column in plan.experiment.columns)


def _trained(made: Recipe, folder: Path, label: str) -> Path:
    """The checkpoint; trained to the end if it is not."""
    finished = folder / "finished"
    if not finished.is_file():
        if sys.stderr is not None:
            print(f"training {label} in {folder}", file=sys.stderr, flush=True)
        run(made, folder, resume=(folder / "state.pt").is_file())
        write_whole(finished, "")
    return folder / "checkpoint"


def column_value(report: Mapping[str, Any], column: str) -> float | None:
    """The figure of a column in percent; None where the model has no such branch."""
    rec, res = report["rec"] or {}, report["res"] or {}
    share = {REC: rec.get("acc@0.5"), RES: res.get("miou"), IE: report["ie"]}[column]
    return None if share is None else 100 * share


def format_rows(experiment: Experiment, rows: Sequence[Figures], where: str) -> str:
    """A Markdown table: ours, the paper's, and in which direction each row moved in both."""
    titles = ["", *experiment.columns, *(f"paper's {column}" for column in experiment.columns), "against", "signs"]
    lines = [_line(titles), _line(["---", *["---:"] * (2 * len(experiment.columns)), "---", "---"])]
    for index, figures in enumerate(rows):
        other = _compared_with(experiment, rows, index)
        told = "" if other is None else other.row.name
        signs = "" if other is None else _signs(experiment, figures, other)
        ours = [_spread([seed[i] for seed in figures.seeds]) for i in range(len(experiment.columns))]
        lines.append(_line([figures.row.name, *ours, *map(_number, figures.row.paper), told, signs]))
    return f"{experiment.title}. Ours: {where}; the paper's: {experiment.paper_data}.\n\n" + "\n".join(lines) + "\n"


def _compared_with(experiment: Experiment, rows: Sequence[Figures], index: int) -> Figures | None:
    if not experiment.reference:
        return rows[index - 1] if index else None
    if rows[index].row.name == experiment.reference:
        return None
    return next(one for one in rows if one.row.name == experiment.reference)


def _signs(experiment: Experiment, figures: Figures, other: Figures) -> str:
    """Differences of each column, ours and the paper's."""
    told = []
    for column, mine, theirs, printed, printed_there in zip(
        experiment.columns, figures.means, other.means, figures.row.paper, other.row.paper, strict=True
    ):
        if mine is None or theirs is None:
            continue
        ours = f"{mine - theirs:+.2f}"
        paper = "none printed" if printed is None or printed_there is None else f"{printed - printed_there:+.2f}"
        told.append(f"{column} {ours} (paper {paper})")
    return ", ".join(told)


def _spread(values: Sequence[float | None]) -> str:
    """The mean, and the least and the largest of several seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ({min(known):.2f} to {max(known):.2f})" if len(known) > 1 else ""
    return f"{mean(known):.2f}{spread}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
