"""``deixis train``: run a named recipe, or continue a run."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.running import sentence, tell, tell_problems
from deixis.recipe import FIELD_NAMES, RETIRED, Recipe, recipe_of_json, with_todays_names
from deixis.train.recipes import list_recipes, recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTED = "\n".join(f"  {name:15} {line}" for name, line in list_recipes().items())
FINETUNE = "finetune"
REHEARSAL = "0.4"
"""The share of drawn scenes that ``--keep`` stands for."""
_FINETUNE_OPTIONS = {"--data": "--phrased", "--model": "--start", "--val": "--validation"}
_UNREAD_BY_FINETUNE = (
    "image_weights", "text_weights", "model_fields", "instances", "partial_instances", "instances_share",
    "partial_share", "scenes_share", "paste_share", "epochs", "printed_images", "printed_rates", "scale_lr",
    "pseudo_instances", "pseudo_share", "min_area",
)  # fmt: skip
HELP = f"""Train a model by RECIPE, or continue a run.

Every field of a recipe is an option too: --steps 200 --lr 1e-3 --image_sizes "[256, 320]"; --show lists them.
Steps run in bfloat16 if the processor supports it and the recipe says auto; --precision float32 or bfloat16 decides.
The recipe finetune takes --data FILE, --model CHECKPOINT, --val FILE, and --keep to retain what the model knew.

\b
Recipes:
{_LISTED}
"""


def train(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="RECIPE", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the run.  [default: runs/RECIPE]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as JSON and stop.")] = False,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop after this many minutes; resume later.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard.")] = False,
    find_batch: Annotated[
        bool, typer.Option("--find_batch", "--find-batch", help="Find the largest --images that fits, and stop.")
    ] = False,
    memory_gb: Annotated[
        float | None,
        typer.Option("--memory_gb", "--memory-gb", min=0.1, help="With --find_batch.  [default: 90 % of free memory]"),
    ] = None,
) -> None:
    """Run it; the help text is :data:`HELP`."""
    if (name is None) == (resume is None):
        raise typer.BadParameter("expected a RECIPE or --resume RUN, one of them")
    if resume is not None:
        if out is not None:
            raise typer.BadParameter(f"--resume continues in the folder of the run, got --out {str(out)!r} too")
        if context.args:
            raise typer.BadParameter(f"--resume continues with its own recipe, got {' '.join(context.args)!r} too")
        chosen, values = read_recipe(resume), {}
    else:
        chosen, values = _choose(str(name), context.args)
    if show:
        typer.echo(chosen.to_json())
    elif find_batch:
        _find_batch(chosen, memory_gb)
    elif memory_gb is not None:
        raise typer.BadParameter(f"expected --find_batch beside --memory_gb {memory_gb!r}, got none")
    else:
        options = {"resume": resume is not None, "minutes": minutes, "tensorboard": tensorboard}
        _train(chosen, resume or out or Path("runs") / str(name), frozenset(values), options)


def _choose(name: str, arguments: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
    """A recipe with the fields that the options name, and these."""
    if name not in list_recipes():
        raise typer.BadParameter(f"expected a recipe out of {', '.join(list_recipes())}, got {name!r}")
    if name != FINETUNE:
        values = parse_fields(arguments, recipe(name))
        if values.get("start") and values.get("model"):
            raise typer.BadParameter(f"expected --model or --start, got both: {values['model']!r}, {values['start']!r}")
    else:
        values = parse_fields(finetune_fields(arguments), recipe(name))
        _check_finetune_fields(values)
    return recipe(name, **values), values


def finetune_fields(arguments: Sequence[str]) -> list[str]:
    """The options as fields of a recipe: ``--data``, ``--model``, ``--val``, and ``--keep`` without a number."""
    words = []
    for word, after in zip(arguments, [*arguments[1:], "--"], strict=True):
        option, equals, value = word.partition("=")
        if word == "--keep" and after.startswith("--"):
            words += ["--rehearsal", REHEARSAL]
        else:
            words.append(_FINETUNE_OPTIONS.get(option, option) + equals + value)
    return words


def _check_finetune_fields(values: dict[str, Any]) -> None:
    """Raise BadParameter for a fine-tuning without data, or with fields that it does not read."""
    if not values.get("phrased"):
        raise typer.BadParameter("expected --data FILE with own phrases, such as my.jsonl, got none")
    if unread := [name for name in _UNREAD_BY_FINETUNE if name in values]:
        raise typer.BadParameter(
            f"expected fields that fine-tuning reads, got {', '.join(unread)}: the checkpoint and --data decide these"
        )


def _train(chosen: Recipe, folder: Path, named: frozenset[str], options: dict[str, Any]) -> None:
    speaks = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, the first
    if speaks:
        tell(f"training in {folder}; losses go to {folder / 'metrics.jsonl'}")
        from deixis.tools.leaks import leak_warning

        if warning := leak_warning(chosen.flat()):
            tell(warning)
    try:
        if chosen.run.check_every:
            from deixis.train.finetune import finetune
            from deixis.train.finetune_report import measure

            checkpoint = finetune(chosen, folder, named=named, measure=measure, **options)
            _report_finetune(folder, speaks=speaks)
        else:
            from deixis.train.trainer import run

            checkpoint = run(chosen, folder, **options)
        if speaks:
            typer.echo(checkpoint)
    except KeyboardInterrupt:
        if not speaks:
            raise
        if (folder / "state.pt").is_file():
            tell(f"stopped; the state is saved, continue with: deixis train --resume {shlex.quote(str(folder))}")
        else:
            tell("stopped before the first step; nothing is saved")
        raise  # ends with the status of an interruption


def _report_finetune(folder: Path, *, speaks: bool) -> None:
    """Measure before and after; of processes that torchrun started, which measure together, one ``speaks``."""
    from deixis.train.finetune_report import measure_finetune, write_page

    found = measure_finetune(read_recipe(folder).model.start, folder)
    if speaks:
        tell_problems(found.comparison.problems)
        page = write_page(found, folder)
        typer.echo(found.text())
        tell(f"images of the worst mistakes, and all figures: {page}")


def _find_batch(chosen: Recipe, memory_gb: float | None) -> None:
    """Tell each try on stderr, and the largest batch that fits with what it does to the rates."""
    from deixis.train import batch_finder

    free = batch_finder.free_bytes()
    limit = round(memory_gb * 1e9) if memory_gb else None if free is None else round(batch_finder.SHARE * free)
    if limit is not None:
        tell(f"trying batches in processes that may hold {limit / 1e9:.1f} GB each; a GPU has its own limit")

    def tell_try(one: batch_finder.Try) -> None:
        how = f"fits, {one.megabytes:.0f} MB, {one.seconds:.2f} s a step" if one.fits else "does not fit"
        tell(f"{one.images} images: {how}")

    best = batch_finder.find_batch(chosen, lambda images: batch_finder.try_batch(chosen, limit, images), tell_try)
    rate = best.images / max(best.seconds, 1e-3)
    typer.echo(f"{best.images} images a step fit, in {best.megabytes:.0f} MB; {rate:.2f} a second")
    typer.echo(batch_finder.advice(chosen, best.images))


def parse_fields(arguments: Sequence[str], base: Recipe) -> dict[str, Any]:
    """``["--lr", "1e-3", "--model_fields.context_dim", "64"]`` as recipe fields of the right types.

    Raises:
        typer.BadParameter: an unknown field, a missing value, or one of another type.
    """
    values: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        option, equals, raw = word.removeprefix("--").partition("=")
        name, _, inner = option.replace("-", "_").partition(".")
        if not word.startswith("--") or name not in FIELD_NAMES:
            if RETIRED.get(name):
                raise typer.BadParameter(f"expected --{RETIRED[name]}, as the field is called now, got {word!r}")
            raise typer.BadParameter(f"expected --FIELD out of {', '.join(FIELD_NAMES)}, got {word!r}")
        if not equals:
            raw = next(words, "--")
            if raw.startswith("--"):
                raise typer.BadParameter(f"expected a value after {word}, got {'none' if raw == '--' else repr(raw)}")
        if inner:
            values[name] = {**base.get(name), **values.get(name, {}), inner: _typed(word, raw, None)}
        else:
            values[name] = _typed(word, raw, base.get(name))
    return values


def command_for(name: str, made: Recipe, out: Path) -> str:
    """``deixis train`` with every field that differs from the recipe of that name."""
    base = recipe(name).flat()
    words = ["deixis", "train", name]
    for field_name, value in made.flat().items():
        if value != base[field_name]:
            words += [f"--{field_name}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join([*words, "--out", str(out)])


def _typed(option: str, raw: str, default: object) -> object:
    """The text as a value of the default's type; anything where the default says nothing."""
    if isinstance(default, str):
        return raw
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = raw if default is None else None
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        raise typer.BadParameter(f"expected a value like {json.dumps(default)} after {option}, got {raw!r}")
    return value


def read_recipe(folder: Path) -> Recipe:
    """The recipe that a run was started with.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: its recipe.json is damaged, of another version, or has a value that cannot be.
    """
    path = folder / "recipe.json"
    if not path.is_file():
        raise FileNotFoundError(f"expected a run with recipe.json, found none in {str(folder)!r}; check the path")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"expected a whole JSON object in {str(path)!r}, got {sentence(error)!r}; train anew in another folder"
        ) from error
    if not isinstance(stored, dict):
        raise ValueError(
            f"expected an object of fields in {str(path)!r}, got {type(stored).__name__}; train anew in another folder"
        )
    if unknown := sorted(set(with_todays_names(stored)) - set(FIELD_NAMES)):
        raise ValueError(
            f"expected the fields of a recipe in {str(path)!r}, got {unknown!r} too; resume with the version that "
            "wrote it"
        )
    try:
        return recipe_of_json(stored)
    except ValueError as error:
        raise ValueError(f"expected a recipe that can be run in {str(path)!r}: {error}") from error
