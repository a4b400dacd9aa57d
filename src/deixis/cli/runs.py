"""``deixis runs``: look at trainings that are there."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.running import check_chart, write_image
from deixis.cli.train import read_recipe
from deixis.text_tables import aligned_table, cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deixis.train.curves import Curve

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at trainings that are there.")

_STEPS_SHOWN = 8
_MAX_VALUE_CHARS = 40


@app.callback()
def runs() -> None:
    """Typer takes a group of one command for that command; this keeps the group."""


@app.command(no_args_is_help=True)
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="The folder of a run.")],
    two: Annotated[Path, typer.Argument(metavar="B", help="That of another.")],
    out: Annotated[Path | None, typer.Option(help="A PNG to write with the curves of both.")] = None,
) -> None:
    """Show how two runs differ: their recipes and, side by side, their losses."""
    if out is not None:
        check_chart(out)
    from deixis.train.curves import draw_curves, read_log

    recipes = [read_recipe(folder).flat() for folder in (one, two)]
    curves = [read_log(folder).curves for folder in (one, two)]
    typer.echo(f"A: {one}\nB: {two}\n")
    typer.echo("\n".join(recipe_differences(*recipes)) or "The recipes are the same.")
    typer.echo("\n" + losses_side_by_side(*curves))
    if out is not None:
        write_image(draw_curves({f"A: {one.name}": curves[0], f"B: {two.name}": curves[1]}), out)


def recipe_differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """A line for each field that differs; of fields within a field each by itself."""
    lines = []
    for name in dict.fromkeys((*one, *two)):
        mine, theirs = one.get(name), two.get(name)
        if mine == theirs:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            lines += [f"{name}.{line}" for line in recipe_differences(mine, theirs)]
        else:
            lines.append(f"{name}: {_short(mine)} | {_short(theirs)}")
    return lines


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 3]}..."


def losses_side_by_side(one: Mapping[str, Curve], two: Mapping[str, Curve]) -> str:
    """A table of the loss over the steps that both have, each value the mean since the row before; then all the ends.

    A loss that one of them does not have stands as ``-``.
    """
    last = min(max(step for curve in curves.values() for step, _ in curve) for curves in (one, two))
    count = min(_STEPS_SHOWN, last)
    stops = [0, *(round(last * number / count) for number in range(1, count + 1))]
    rows = [["loss to step", "A", "B", "B - A"]]
    for since, until in pairwise(stops):
        rows.append([str(until), *_means("loss", (one, two), since, until)])
    rows.append(["", "", "", ""])
    rows.append([f"steps {stops[-2] + 1} to {last}", "A", "B", "B - A"])
    rows += [[name, *_means(name, (one, two), stops[-2], last)] for name in dict.fromkeys((*one, *two))]
    return aligned_table(rows)


def _means(name: str, runs: Sequence[Mapping[str, Curve]], since: int, until: int) -> list[str]:
    """The mean of a loss in both runs over those steps, and the difference."""
    means: list[float | None] = []
    for curves in runs:
        values = [value for step, value in curves.get(name, []) if since < step <= until and value is not None]
        means.append(sum(values) / len(values) if values else None)
    mine, theirs = means
    difference = None if mine is None or theirs is None else theirs - mine
    return [cell(mine, ".5g"), cell(theirs, ".5g"), cell(difference, "+.4g")]
