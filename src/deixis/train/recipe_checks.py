"""What the fields of a recipe may hold."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from deixis.train.batch_advice import RATES

if TYPE_CHECKING:
    from deixis.train.recipes import Recipe

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[int, ...]": (tuple,),
    "tuple[float, ...]": (tuple,),
    "dict[str, Any]": (dict,),
}
_LEAST = {
    (
        "steps",
        "images",
        "phrases",
        "save_every",
        "accumulate",
        "keep",
        "non_finite_limit",
        "patience",
        "pool_phrases",
    ): 1,
    ("warmup", "workers", "seed", "epochs", "printed_images", "check_every", "frozen_steps", "freeze_text", "pool"): 0,
}
_CHOICES = {
    "optimiser": ("adamw", "adam"),
    "schedule": ("cosine", "steps"),
    "mask_target": ("area", "nearest"),
    "spsil": ("on", "off"),
    "one_per": ("referent", "expression", "image"),
    "flavour": ("", "scenes", "scenes+", "scenesg"),
    "augment": ("", "none", "mcn", "smcim", "transvg"),
    "precision": ("auto", "float32", "bfloat16"),
}
_RENAMED = {"heat_weight": "choice_weight"}
PATIENCE = 4
"""What a recipe says that looks at no validation part."""
MIN_SIGMA = 0.1
"""The least floor of sigma: its gradient, which has sigma^3 below the line, is still an ordinary number."""


def renamed(stored: dict[str, Any]) -> dict[str, Any]:
    """The fields that a run stored, as they are called today.

    ``bfloat16`` true or false is ``precision``, ``heat_weight`` is ``choice_weight``, and ``consistency_weight``, which
    only the ``deixis`` family of before had, is left out.
    """
    kept = {_RENAMED.get(name, name): value for name, value in stored.items() if name != "consistency_weight"}
    if type(kept.get("bfloat16")) is bool and "precision" not in kept:
        kept["precision"] = "bfloat16" if kept.pop("bfloat16") else "float32"
    return kept


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError, one sentence with the field and its value, where a recipe cannot be or ignores a field."""
    for one in fields(recipe):
        value = getattr(recipe, one.name)
        if not isinstance(value, _TYPES[str(one.type)]) or (type(value) is bool) != (one.type == "bool"):
            raise ValueError(f"expected {one.name} of the type {one.type}, got {value!r}; correct it")
        if one.type == "float" and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"expected {one.name} to be a finite number of at least 0, got {value!r}; correct it")
    for name, allowed in _CHOICES.items():
        if getattr(recipe, name) not in allowed:
            raise ValueError(f"expected {name} out of {allowed}, got {getattr(recipe, name)!r}; choose one")
    for names, least in _LEAST.items():
        for name in names:
            if getattr(recipe, name) < least:
                raise ValueError(f"expected {name} to be at least {least}, got {getattr(recipe, name)!r}; raise it")
    if recipe.printed_rates and (
        len(recipe.printed_rates) != len(RATES) or not all(type(one) in (int, float) for one in recipe.printed_rates)
    ):
        raise ValueError(
            f"expected printed_rates to be three numbers or none, got {recipe.printed_rates!r}; correct them"
        )
    for name in ("absent", "paste_share", "ema", "min_area"):
        if getattr(recipe, name) > 1:
            raise ValueError(f"expected {name} in 0..1, got {getattr(recipe, name)!r}; lower it")
    if not recipe.image_sizes or any(type(one) is not int or one < 1 or one % 32 for one in recipe.image_sizes):
        raise ValueError(
            f"expected image_sizes to be one or more positive multiples of 32, got {recipe.image_sizes!r}; "
            "round each to such a number"
        )
    for name, least, what in (("sigma_floor", MIN_SIGMA, ""), ("sigma", recipe.sigma_floor, ", its floor")):
        if getattr(recipe, name) < least:
            raise ValueError(
                f"expected {name} to be at least {least!r}{what}, got {getattr(recipe, name)!r}; correct one of them"
            )
    _check_start(recipe)
    _check_phrased(recipe)
    _check_shares(recipe)
    _check_pool(recipe)


def _check_pool(recipe: Recipe) -> None:
    """Raise ValueError where a pool is smaller than a batch, or layouts stand without one or leave no room for it."""
    if recipe.pool and recipe.pool < recipe.images:
        raise ValueError(
            f"expected a pool of at least {recipe.images} pictures, as many as a batch has, got {recipe.pool!r}; raise "
            "it or lower images"
        )
    if recipe.layouts and not (recipe.pool and recipe.layouts_share):
        raise ValueError(
            f"expected pool and layouts_share above 0 with layouts, got {recipe.pool!r} and {recipe.layouts_share!r}; "
            "set both, or leave layouts out"
        )
    if recipe.layouts_share >= 1:
        raise ValueError(
            f"expected layouts_share below 1, got {recipe.layouts_share!r}; lower it, so that a batch has pictures too"
        )


def _check_shares(recipe: Recipe) -> None:
    """Raise ValueError where a mixture has nothing to draw from, or a detector's boxes without a share."""
    if not (recipe.instances_share or recipe.partial_share or recipe.pseudo_share or recipe.scenes_share):
        raise ValueError(
            "expected one of instances_share, partial_share and scenes_share above 0, got 0 for all; raise one"
        )
    if recipe.pseudo_instances and not recipe.pseudo_share:
        raise ValueError(
            f"expected a pseudo_share above 0 with pseudo_instances, got 0.0 with {recipe.pseudo_instances!r}; say how "
            "many pictures are to be of that file, or leave it out"
        )


def _check_start(recipe: Recipe) -> None:
    """Raise ValueError where a checkpoint to start from brings what another field names too."""
    for name in ("image_weights", "text_weights") if recipe.start else ():
        if getattr(recipe, name):
            raise ValueError(
                f"expected {name} to be left out with start, whose checkpoint brings its own, got "
                f"{getattr(recipe, name)!r}; leave out one of them"
            )


def _check_phrased(recipe: Recipe) -> None:
    """Raise ValueError where epochs, milestones or what becomes of expressions do not go with the data."""
    if recipe.epochs and not recipe.phrased:
        raise ValueError(
            f"expected epochs to be 0 without phrased, got {recipe.epochs!r}; name the data in phrased, or set steps"
        )
    for name, default in (("augment", ""), ("one_per", "referent"), ("rehearsal", 0.0), ("check_every", 0)):
        if not recipe.phrased and getattr(recipe, name) != default:
            raise ValueError(
                f"expected {name} to be {default!r} without phrased, got {getattr(recipe, name)!r}; name the data in "
                "phrased, or leave it out"
            )
    for name in ("instances", "partial_instances", "pseudo_instances") if recipe.phrased else ():
        if getattr(recipe, name) and not recipe.rehearsal:
            raise ValueError(
                f"expected {name} to be '' with phrased, got {getattr(recipe, name)!r}; train on one of them, or set "
                "rehearsal"
            )
    _check_rehearsal(recipe)
    if recipe.validation and not recipe.check_every:
        raise ValueError(
            f"expected validation to be '' without check_every, got {recipe.validation!r}; set check_every, as the "
            "recipe finetune does, or leave it out"
        )
    if recipe.patience != PATIENCE and not recipe.check_every:
        raise ValueError(
            f"expected patience to be {PATIENCE} without check_every, got {recipe.patience!r}; set check_every, or "
            "leave it out"
        )
    if recipe.frozen_steps and not recipe.start:
        raise ValueError(
            f"expected frozen_steps to be 0 without start, got {recipe.frozen_steps!r}; name a checkpoint to start "
            "from, or leave it out"
        )
    earliest = 1 if recipe.epochs else 0
    if any(type(one) is not int or one < earliest for one in recipe.milestones):
        raise ValueError(
            f"expected milestones to be whole numbers of at least {earliest}, got {recipe.milestones!r}; correct them"
        )


def _check_rehearsal(recipe: Recipe) -> None:
    """Raise ValueError where what is drawn beside ``phrased`` cannot be, or is told about without being there."""
    if recipe.rehearsal >= 1:
        raise ValueError(
            f"expected rehearsal below 1, so that something of phrased is left, got {recipe.rehearsal!r}; lower it"
        )
    if recipe.rehearsal and recipe.epochs:
        raise ValueError(f"expected epochs to be 0 with rehearsal, got {recipe.epochs!r}; set steps instead")
    if recipe.flavour and recipe.phrased and not recipe.rehearsal:
        raise ValueError(
            f"expected flavour to be '' with phrased and without rehearsal, got {recipe.flavour!r}; leave it out"
        )
