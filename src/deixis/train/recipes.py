"""The recipes of all families by name, and what becomes of a paper's learning rates in batches of another size."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from deixis.config import FAMILY_NAMES
from deixis.recipe import RATES, Recipe, check_names, recipe_of_json

__all__ = ["RECIPES", "Recipe", "batch_note", "list_recipes", "recipe", "recipe_of_json", "scaled_for_batch"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    name: make
    for family in FAMILY_NAMES
    for name, make in import_module(f"deixis.models.{family}.recipes").RECIPES.items()
}
_RULES = {"lr": "root of the batch", "pretrained_lr": "root of the batch", "sigma_lr": "batch"}


def list_recipes() -> dict[str, str]:
    """Names and one line about each."""
    return {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in RECIPES.items()}


def recipe(name: str, **overrides: Any) -> Recipe:  # noqa: ANN401  fields have several types
    """The named recipe with fields, given by their flat names, replaced.

    Where its rates are printed for another batch size, those that are not named follow `scaled_for_batch`.

    Raises:
        ValueError: the name or a field is unknown, or a value cannot be.
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe out of {sorted(RECIPES)}, got {name!r}")
    check_names(overrides)
    named = RECIPES[name]()
    if overrides.get("start") and overrides.get("model_fields"):
        raise ValueError(
            "expected model_fields to be left out with start, whose checkpoint has its own sizes, got "
            f"{overrides['model_fields']!r}; leave out one of them"
        )
    if "steps" in overrides and not overrides.get("epochs"):  # so many steps, however many make an epoch
        overrides = {"epochs": 0, "milestones": (), **overrides}
    made = named.replaced(**overrides)
    if not (made.optimiser.printed_images and made.optimiser.scale_lr):
        return made
    rates = scaled_for_batch(named, made.data.images)
    return made.replaced(**{one: rates.get(one) for one in RATES if one not in overrides})


def scaled_for_batch(recipe: Recipe, images: int) -> Recipe:
    """The recipe for batches of ``images`` images: the same epochs at rates that do about the same.

    Weights go by the square root of the batch size. A step of AdamW has the length of its rate whatever the gradient's,
    so over an epoch, whose number of steps goes as 1 / batch, steps that are mostly noise add up to rate * sqrt(1 /
    batch): that is what stays the same (Malladi et al., 2022). The linear rule is SGD's, whose steps shrink with the
    gradient.

    SPSIL's sigma goes by the batch size itself. Its gradient keeps one sign for long, so its steps add up to rate /
    batch in an epoch: the farthest that it can drift in a run stays as printed, and so does its distance from where
    SPSIL fails. At the printed rate, batches of 16 would let it drift 12 times as far.
    """
    rates = _scaled_rates([recipe.get(name) for name in RATES], images / recipe.data.images)
    return recipe.replaced(images=images, **rates)


def _scaled_rates(rates: list[float] | tuple[float, ...], share: float) -> dict[str, float]:
    """`RATES` for ``share`` times the batch size that ``rates`` are for."""
    lr, pretrained_lr, sigma_lr = rates
    root = math.sqrt(share)
    return {"lr": lr * root, "pretrained_lr": pretrained_lr * root, "sigma_lr": sigma_lr * share}


def batch_note(recipe: Recipe) -> str:
    """One line on the rates of a run whose batch size is not the printed one; else an empty string."""
    images, printed_images = recipe.data.images, recipe.optimiser.printed_images
    if printed_images in (0, images):
        return ""
    head = f"batches of {images}, printed are {printed_images}"
    if not recipe.optimiser.printed_rates:
        return f"{head}; rates are {', '.join(f'{name} {recipe.get(name):.2g}' for name in RATES)}"
    moved = _scaled_rates(recipe.optimiser.printed_rates, images / printed_images)
    told = []
    for name, printed in zip(RATES, recipe.optimiser.printed_rates, strict=True):
        rate = recipe.get(name)
        if math.isclose(rate, printed):
            how = "as printed"
        elif math.isclose(rate, moved[name]):
            how = f"moved by the {_RULES[name]} from {printed:.2g}"
        else:
            how = f"your own, printed is {printed:.2g}"
        told.append(f"{name} {rate:.2g} ({how})")
    far = recipe.optimiser.sigma_lr > 1.01 * moved["sigma_lr"]
    return f"{head}; {', '.join(told)}" + ("; sigma may drift farther than in the paper" if far else "")
