"""The ``deixis`` command: one typed function a command, each in a file of its own.

Nothing here imports torch or numpy; a command imports what it needs when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from deixis.cli import bench, calibrate, data, evaluate, ground, models, reproduce, runs, score, train
from deixis.cli.running import Commands

RECIPE_FIELDS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Of a command that takes every field of a recipe as an option."""

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Point at what a phrase means in an image: box, mask and confidence.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import deixis

        typer.echo(f"deixis {deixis.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before the command; ``Commands`` reads ``debug``."""


app.command("ground", no_args_is_help=True)(ground.ground)
app.command("evaluate", no_args_is_help=True)(evaluate.evaluate)
app.command("score", no_args_is_help=True)(score.score)
app.command("reproduce", help=reproduce.HELP, no_args_is_help=True, context_settings=RECIPE_FIELDS)(reproduce.reproduce)
app.command("calibrate", no_args_is_help=True)(calibrate.calibrate)
app.command("models")(models.models)
app.command("bench")(bench.bench)
app.command("train", help=train.HELP, no_args_is_help=True, context_settings=RECIPE_FIELDS)(train.train)
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line: status 0 done, 1 the work failed, 2 wrong usage, 130 interrupted."""
    app(prog_name="deixis")
