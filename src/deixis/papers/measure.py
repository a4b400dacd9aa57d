"""From the rows of a table to its figures: train or load, measure, and set beside what the paper prints.

What is done already is not done again: trainings and measurements lie in folders named by what makes them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from deixis.config import config_from_dict, config_to_dict, preset
from deixis.data import parse_dataset_spec
from deixis.evaluate.evaluate import evaluate_command_result
from deixis.files import write_text
from deixis.hub import find_checkpoint
from deixis.papers.tables import IE, REC, RES, Comparison, Experiment, Part, Row, on_part
from deixis.recipe import Recipe
from deixis.text_tables import cell, markdown_table
from deixis.train.recipes import recipe
from deixis.train.trainer import run

SMALL_STEPS = 300
SMALL_LIMIT = 500
_UNLEARNT = ("workers", "save_every", "keep")
"""Fields of a recipe that do not change what is learnt."""
_ANSWERING_FILES = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Meter:
    """How checkpoints are measured, and where their figures are kept."""

    out: Path
    root: Path | None = None
    """The folder of the data sets' files."""
    limit: int | None = None
    """At most so many samples of each data set."""
    precision: str = "auto"

    def report(self, model: str, data: str, suppression: str | None = None) -> dict[str, Any]:
        """All figures of a checkpoint on ``DATASET[:SPLIT]``, as `Result.report` gives them.

        Args:
            model: a bundled name or a folder.
            data: what is measured on.
            suppression: of the mask by the box, in place of the model's own.

        Raises:
            FileNotFoundError, ValueError: the model or the data is missing or cannot be used.
        """
        name = re.sub(r"[^A-Za-z0-9+.]+", "-", data)
        key = hashlib.sha256(f"{data} {self.root} {suppression} {self.precision}".encode()).hexdigest()[:6]
        stored = self.out / f"measured-{_digest(model)}" / f"{name}-{self.limit or 'all'}-{key}.json"
        if not stored.is_file():
            dataset, split = parse_dataset_spec(data)
            result = evaluate_command_result(
                model, dataset, split=split, root=self.root, limit=self.limit, suppression=suppression,
                precision=self.precision, show_progress=True,
            )  # fmt: skip
            stored.parent.mkdir(parents=True, exist_ok=True)
            write_text(stored, json.dumps({"measured": model, **result.report()}, indent=1))
        return json.loads(stored.read_text(encoding="utf-8"))

    def command(self, checkpoint: Path, data: str, suppression: str | None) -> str:
        """The command that measures the same."""
        words = ["deixis", "evaluate", str(checkpoint), data]
        words += ["--limit", str(self.limit)] if self.limit else []
        words += ["--root", str(self.root)] if self.root else []
        words += ["--precision", self.precision] if self.precision != "auto" else []
        return shlex.join(words + (["--suppression", suppression] if suppression else []))


def _digest(model: str) -> str:
    """Of the files that make a checkpoint answer as it does."""
    folder = find_checkpoint(model)
    made = hashlib.sha256()
    for path in sorted(folder / name for name in _ANSWERING_FILES):
        if path.is_file():
            made.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    made.update(block)
    return made.hexdigest()[:10]


def column_value(report: Mapping[str, Any], column: str) -> float | None:
    """The figure of a column in percent; None where the model has no such branch."""
    rec, res = report["rec"] or {}, report["res"] or {}
    share = {REC: rec.get("acc@0.5"), RES: res.get("miou"), IE: report["ie"]}[column]
    return None if share is None else 100 * share


@dataclass(frozen=True, kw_only=True)
class GivenModel:
    """One checkpoint for all data, or one for each data set."""

    name: str
    checkpoints: Mapping[str, str]
    """Data set -> a bundled name or a folder; the empty name: for all."""

    def checkpoint_for(self, data: str) -> str | None:
        """That of ``DATASET[:SPLIT]``; None where there is none."""
        return self.checkpoints.get(parse_dataset_spec(data)[0], self.checkpoints.get(""))


def parse_models(text: str, datasets: Sequence[str]) -> list[GivenModel]:
    """``A,B`` as two models; ``scenes=A,scenes+=B`` as one with a checkpoint for each data set.

    Args:
        text: as it is typed.
        datasets: the names that may stand before "=".

    Raises:
        ValueError: no model, one data set twice, or a name that is none of these.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    pairs = [(word.partition("=")[0], word.partition("=")[2]) for word in words if "=" in word]
    if not words or len({name for name, _ in pairs}) < len(pairs):
        raise ValueError(f"expected models as A,B or DATASET=A,DATASET=B, each data set once, got {text!r}")
    if wrong := [name for name, path in pairs if name not in datasets or not path]:
        raise ValueError(f"expected DATASET=CHECKPOINT with a data set out of {sorted(datasets)!r}, got {wrong[0]!r}")
    whole = [GivenModel(name=word, checkpoints={"": word}) for word in words if "=" not in word]
    if not pairs:
        return whole
    names = ", ".join(dict.fromkeys(path for _, path in pairs))
    return [*whole, GivenModel(name=names, checkpoints=dict(pairs))]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the rows of an experiment are trained and measured."""

    experiment: Experiment
    budget: str
    meter: Meter
    seeds: tuple[int, ...] = (1,)
    overrides: Mapping[str, Any]
    """Recipe fields of all rows, such as where pretrained parts lie."""

    @property
    def data(self) -> str:
        """What is measured on."""
        return self.experiment.data[self.budget]

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

    def folder_of(self, row: Row, seed: int) -> Path:
        """Where that training lies: the same for rows and tables that share it."""
        made = self.recipe_of(row, seed)
        ordinary = Recipe().flat()
        key = {name: one for name, one in made.flat().items() if one != ordinary[name] and name not in _UNLEARNT}
        chosen = made.model
        sizes = config_to_dict(preset(chosen.preset, **chosen.fields))  # a default that is named changes nothing
        ordinary_sizes = config_to_dict(config_from_dict({"family": sizes["family"]}))
        key["model_fields"] = {name: value for name, value in sizes.items() if value != ordinary_sizes[name]}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:10]
        return self.meter.out / f"{chosen.preset}-{digest}-seed{seed}"

    def train(self, row: Row, seed: int) -> Path:
        """The checkpoint of that row; trained to the end if it is not."""
        folder = self.folder_of(row, seed)
        finished = folder / "finished"
        if not finished.is_file():
            if sys.stderr is not None:
                print(f"training {row.name}, seed {seed} in {folder}", file=sys.stderr, flush=True)
            run(self.recipe_of(row, seed), folder, resume=(folder / "state.pt").is_file())
            write_text(finished, "")
        return folder / "checkpoint"


@dataclass(frozen=True)
class Measured:
    """A row as measured here."""

    row: Row
    values: tuple[tuple[float | None, ...], ...]
    """Of each column: percent by seed; empty where nothing can be measured."""
    beside: str = ""
    """What the paper calls the row whose numbers stand in ``row.paper``."""

    @property
    def means(self) -> tuple[float | None, ...]:
        """Over the seeds; None where there is no figure."""
        known = [[one for one in column if one is not None] for column in self.values]
        return tuple(mean(column) if column else None for column in known)


def measure(plan: Plan) -> list[Measured]:
    """Train and measure all rows; Ctrl-C keeps what is done, and the next call goes on there.

    Raises:
        FileNotFoundError, ValueError: the data, or what a row is trained from, is missing or cannot be used.
    """
    found = []
    for row in plan.experiment.rows:
        reports = [plan.meter.report(str(plan.train(row, seed)), plan.data, row.suppression) for seed in plan.seeds]
        columns = plan.experiment.columns
        found.append(Measured(row, tuple(tuple(column_value(one, column) for one in reports) for column in columns)))
    return found


def plan_commands(plans: Iterable[Plan]) -> Iterator[str]:
    """A command for each training, once, and one that measures each row."""
    seen: set[Path] = set()
    for plan in plans:
        for row in plan.experiment.rows:
            for seed in plan.seeds:
                folder = plan.folder_of(row, seed)
                yield f"# {row.name}"
                if folder not in seen:
                    yield _training_command(plan.experiment.recipes[plan.budget], plan.recipe_of(row, seed), folder)
                seen.add(folder)
                yield plan.meter.command(folder / "checkpoint", plan.data, row.suppression)


def _training_command(name: str, made: Recipe, out: Path) -> str:
    """``deixis train`` with every field that differs from the recipe of that name."""
    base = recipe(name).flat()
    words = ["deixis", "train", name]
    for field_name, value in made.flat().items():
        if value != base[field_name]:
            words += [f"--{field_name}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join([*words, "--out", str(out)])


def format_rows(experiment: Experiment, rows: Sequence[Measured], where: str) -> str:
    """A Markdown table: ours, the paper's, and in which direction each row moved in both."""
    columns = experiment.columns
    lines = [["", *columns, *(f"paper's {column}" for column in columns), "against", "signs"]]
    for index, one in enumerate(rows):
        other = _compared_with(experiment, rows, index)
        moved = ["", ""] if other is None else [other.row.name, _signs(columns, one, other)]
        lines.append([one.row.name, *map(_with_range, one.values), *map(cell, one.row.paper), *moved])
    table = markdown_table(lines, align=f"l{'r' * 2 * len(columns)}ll")
    return f"{experiment.title}. Ours: {where}; the paper's: {experiment.paper_data}.\n\n{table}\n"


def _compared_with(experiment: Experiment, rows: Sequence[Measured], index: int) -> Measured | None:
    if not experiment.reference:
        return rows[index - 1] if index else None
    if rows[index].row.name == experiment.reference:
        return None
    return next(one for one in rows if one.row.name == experiment.reference)


def _signs(columns: Sequence[str], one: Measured, other: Measured) -> str:
    """Differences of each column, ours and the paper's."""
    ours = [_difference(a, b) for a, b in zip(one.means, other.means, strict=True)]
    papers = [_difference(a, b) for a, b in zip(one.row.paper, other.row.paper, strict=True)]
    return ", ".join(
        f"{column} {mine:+.2f} (paper {'none printed' if paper is None else f'{paper:+.2f}'})"
        for column, mine, paper in zip(columns, ours, papers, strict=True)
        if mine is not None
    )


def comparison_plans(table: Comparison, plan: Plan) -> Iterator[tuple[Part | None, Plan]]:
    """What is trained and measured, in this order: each part, and None for a pre-training before all of them.

    Args:
        table: its rows are the paper's own, with the budget ``small`` the recipe's model alone.
        plan: how; its experiment does not matter.
    """
    budget = plan.budget
    for seed in plan.seeds:
        one = replace(plan, seeds=(seed,))
        rows = table.rows(budget)
        if table.pretraining:
            first = [replace(row, name=f"{row.name}, pre-training") for row in rows]
            before = replace(one, experiment=table.experiment(budget, first, table.pretraining))
            yield None, before
            rows = [
                _tuned(table, budget, row, before.folder_of(pre, seed)) for row, pre in zip(rows, first, strict=True)
            ]
        experiment = table.experiment(budget, rows, table.recipes)
        for part in table.parts_of(budget):
            paper = [(row.values[table.parts.index(part)],) for row in table.beside(budget)]
            yield part, replace(one, experiment=on_part(experiment, part, budget, paper))


def _tuned(table: Comparison, budget: str, row: Row, start: Path) -> Row:
    """The row trained on from a run; a checkpoint brings its encoders, so that those named for all rows are not."""
    tuning = table.small_fields if budget == "small" else {}
    begun = {"start": str(start / "checkpoint"), "image_weights": "", "text_weights": ""}
    return replace(row, recipe_fields={**row.recipe_fields, **tuning, **begun})


def measure_trained(table: Comparison, plan: Plan) -> list[Measured]:
    """Train the rows, each on all data sets, and measure them; what is done is not done again.

    Raises:
        FileNotFoundError, ValueError: as of :func:`measure`.
    """
    values: list[dict[str, list[float | None]]] = [{} for _ in table.beside(plan.budget)]
    for part, one in comparison_plans(table, plan):
        for row, found in zip(values, measure(one), strict=True):
            if part is not None:
                row.setdefault(part.name, []).extend(found.values[0])
    rows = zip(table.rows(plan.budget), table.beside(plan.budget), values, strict=True)
    return [
        Measured(
            replace(row, paper=other.values), tuple(tuple(mine.get(part.name, ())) for part in table.parts), other.label
        )
        for row, other, mine in rows
    ]


def measure_given(table: Comparison, budget: str, meter: Meter, models: Sequence[GivenModel]) -> list[Measured]:
    """The same of checkpoints that are there; each is set beside the paper's main row.

    Raises:
        FileNotFoundError, ValueError: a model or the data is missing or cannot be used.
    """

    def values(model: GivenModel, part: Part) -> tuple[float | None, ...]:
        data = part.data.get(budget)
        checkpoint = None if data is None else model.checkpoint_for(data)
        if data is None or checkpoint is None:
            return ()
        return (column_value(meter.report(checkpoint, data), table.column),)

    paper = table.own[table.main]
    return [
        Measured(
            Row(name=model.name, paper=paper.values), tuple(values(model, part) for part in table.parts), paper.label
        )
        for model in models
    ]


def format_comparison(table: Comparison, measured: Sequence[Measured], budget: str, where: str) -> str:
    """What is printed of others, then ours beside the paper's row, and the difference with its sign.

    Args:
        table: what is printed.
        measured: one's own models.
        budget: of the measuring.
        where: how it was measured, such as the seeds.
    """
    heads = ["", *(part.name for part in table.parts)]
    printed = [[row.label, *map(cell, row.values)] for row in (*table.others, *table.own)]
    ours = ["", *(part.data.get(budget, "-") for part in table.parts)]
    rows = [line for one in measured for line in _own_lines(table, one, budget)]
    note = "" if budget == "paper" else " Drawn scenes are other data than the paper's: only the order can be compared."
    return (
        f"{table.title}, percent. As printed; measured by their authors, not here:\n\n"
        f"{markdown_table([heads, *printed])}\n\nMeasured here, {where}.{note}\n\n{markdown_table([ours, *rows])}\n"
    )


def _own_lines(table: Comparison, one: Measured, budget: str) -> list[list[str]]:
    """Ours, the paper's, the difference; on the paper's own data also how far both lie above the best of the others."""
    ours, paper = one.means, one.row.paper
    where_ours = [b if a is not None else None for a, b in zip(ours, paper, strict=True)]
    lines = [
        [one.row.name, *map(_with_range, one.values)],
        [f"printed: {one.beside}", *map(cell, paper)],
        ["difference", *_differences(ours, paper)],
        ["against the column before", *_steps(ours)],
        ["the same, printed", *_steps(where_ours)],
    ]
    if budget == "paper":
        known = [[value for row in table.others if (value := row.values[i]) is not None] for i in range(len(paper))]
        best = [max(column, default=None) for column in known]
        lines.append(["over the best of the others", *_differences(ours, best)])
        lines.append(["the same, printed", *_differences(paper, best)])
    return lines


def _steps(values: Sequence[float | None]) -> list[str]:
    """By how much each differs from the last one that there is."""
    steps: list[str] = []
    before: float | None = None
    for value in values:
        steps.append(cell(_difference(value, before), "+.2f"))
        before = before if value is None else value
    return steps


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _differences(values: Sequence[float | None], others: Sequence[float | None]) -> list[str]:
    return [cell(_difference(a, b), "+.2f") for a, b in zip(values, others, strict=True)]


def _with_range(values: Sequence[float | None]) -> str:
    """The mean, and the least and the largest of several seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{mean(known):.2f}" + (f" ({min(known):.2f} to {max(known):.2f})" if len(known) > 1 else "")
