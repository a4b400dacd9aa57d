"""What becomes of a paper's learning rates in batches of another size, and how that is told."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deixis.train.recipes import Recipe

RATES = ("lr", "pretrained_lr", "sigma_lr")
_RULES = {"lr": "root of the batch", "pretrained_lr": "root of the batch", "sigma_lr": "batch"}


def scaled_for_batch(recipe: Recipe, images: int) -> Recipe:
    """The recipe for batches of ``images`` pictures: the same epochs at rates that do about the same.

    Weights go by the square root of the batch. A step of AdamW has the length of its rate whatever the gradient's, so
    over an epoch, whose steps are as 1 / batch, steps that are mostly noise add up to rate * sqrt(1 / batch): it is
    this that stays (Malladi et al., 2022). The linear rule is SGD's, whose steps shrink with the gradient.

    SPSIL's sigma goes by the batch itself. Its gradient keeps one sign for long, so its steps add up to rate / batch
    an epoch: the farthest that it can drift in a run stays as printed, and so does its distance from where SPSIL
    fails. At the printed rate, batches of 16 would let it drift 12 times as far.
    """
    rates = scaled_rates([getattr(recipe, name) for name in RATES], images / recipe.images)
    return replace(recipe, images=images, **rates)


def scaled_rates(rates: list[float] | tuple[float, ...], share: float) -> dict[str, float]:
    """`RATES` for ``share`` times the batch that ``rates`` are for."""
    lr, pretrained_lr, sigma_lr = rates
    root = math.sqrt(share)
    return {"lr": lr * root, "pretrained_lr": pretrained_lr * root, "sigma_lr": sigma_lr * share}


def batch_note(recipe: Recipe) -> str:
    """One line on the rates of a run whose batch is not the printed one, told by their values; else nothing."""
    if recipe.printed_images in (0, recipe.images):
        return ""
    head = f"batches of {recipe.images}, printed are {recipe.printed_images}"
    if not recipe.printed_rates:
        return f"{head}; rates are {', '.join(f'{name} {getattr(recipe, name):.2g}' for name in RATES)}"
    moved = scaled_rates(recipe.printed_rates, recipe.images / recipe.printed_images)
    told = []
    for name, printed in zip(RATES, recipe.printed_rates, strict=True):
        rate = getattr(recipe, name)
        if math.isclose(rate, printed):
            how = "as printed"
        elif math.isclose(rate, moved[name]):
            how = f"moved by the {_RULES[name]} from {printed:.2g}"
        else:
            how = f"your own, printed is {printed:.2g}"
        told.append(f"{name} {rate:.2g} ({how})")
    far = recipe.sigma_lr > 1.01 * moved["sigma_lr"]
    return f"{head}; {', '.join(told)}" + ("; sigma may drift farther than in the paper" if far else "")
