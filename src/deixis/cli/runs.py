"""``deixis runs``: look at trainings that are there."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.running import check_writable
from deixis.cli.train import read_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Say in what two runs differ and put their losses side by side."""
    if out is not None:
        check_writable(out, suffixes=(".png",))
    from deixis.train.curves import draw_curves

    recipes = [read_recipe(folder).flat() for folder in (one, two)]
    curves = [_curves(folder) for folder in (one, two)]
    typer.echo(f"A: {one}\nB: {two}\n")
    typer.echo("\n".join(recipe_differences(*recipes)) or "The recipes are the same.")
    typer.echo("\n" + losses_side_by_side(*curves))
    if out is not None:
        from deixis.train.run_logging import write_picture

        write_picture(out, draw_curves({f"A: {one.name}": curves[0], f"B: {two.name}": curves[1]}))
        typer.echo(f"\ncurves: {out}")


def _curves(folder: Path) -> dict[str, Curve]:
    from deixis.train.curves import LOG, curves_of, read_rows

    curves = curves_of(read_rows(folder / LOG))
    if not any(curves.values()):
        raise ValueError(
            f"expected the losses of at least one step in {str(folder / LOG)!r}, got none; let the run go on first"
        )
    return curves


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
    rows = [("loss to step", "A", "B", "B - A")]
    for since, until in pairwise(stops):
        rows.append(_row(str(until), *(_mean(curves.get("loss", []), since, until) for curves in (one, two))))
    rows.append(("", "", "", ""))
    rows.append((f"steps {stops[-2] + 1} to {last}", "A", "B", "B - A"))
    for name in dict.fromkeys((*one, *two)):
        rows.append(_row(name, *(_mean(curves.get(name, []), stops[-2], last) for curves in (one, two))))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{a:{width}}{b:>12}{c:>12}{d:>12}".rstrip() for a, b, c, d in rows)


def _mean(curve: Curve, since: int, until: int) -> float | None:
    values = [value for step, value in curve if since < step <= until]
    return sum(values) / len(values) if values else None


def _row(name: str, mine: float | None, theirs: float | None) -> tuple[str, str, str, str]:
    difference = None if mine is None or theirs is None else theirs - mine
    return name, _number(mine), _number(theirs), "-" if difference is None else f"{difference:+.4g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
