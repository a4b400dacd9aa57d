"""Recipes: functions that return one typed, frozen config of a whole training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training run depends on; saved with the run."""

    model: str = "deixis-tiny"
    """A preset of ``deixis.config``."""
    start: str = ""
    """Checkpoint to go on from: a bundled name or a folder. Its sizes count, and no pretrained part is read."""
    image_weights: str = ""
    """Folder with yolov3-tiny.cfg and .weights, or the EfficientNet-Lite0 .pth file; empty: from scratch."""
    text_weights: str = ""
    """Folder of a BERT checkpoint with tokenizer.json, or of the packaged GloVe table; empty: from scratch."""
    instances: str = ""
    """COCO instances file, every thing of its categories annotated; id % 7 == 0 and id % 14 == 1 are left out."""
    partial_instances: str = ""
    """COCO instances file where other categories may stand unannotated."""
    instances_share: float = 0.2
    partial_share: float = 0.12
    scenes_share: float = 0.68
    """Shares of the pictures of a batch; of the drawn scenes half are ``scenes``, a quarter each other flavour."""
    paste_share: float = 0.4
    """How often instances of other photos are pasted into a photo."""
    absent: float = 0.25
    """How often an image also gets a phrase that means nothing in it."""
    steps: int = 4000
    images: int = 8
    phrases: int = 3
    """Phrases an image."""
    image_sizes: tuple[int, ...] = (256, 256, 256, 384)
    """Canvas sides, one drawn for each step; drawn scenes, 256 pixels wide, stand only on canvases they fill."""
    lr: float = 6e-4
    pretrained_lr: float = 8e-5
    """Learning rate of the image and text encoders where they start from pretrained weights."""
    weight_decay: float = 1e-4
    warmup: int = 150
    clip: float = 1.0
    ema: float = 0.998
    heat_weight: float = 1.0
    box_weight: float = 1.0
    mask_weight: float = 1.5
    projection_weight: float = 0.5
    exists_weight: float = 0.5
    consistency_weight: float = 0.2
    bfloat16: bool = True
    seed: int = 1
    save_every: int = 200
    workers: int = 1
    model_fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the preset that differ."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, _TYPES[str(one.type)]) or (type(value) is bool) != (one.type == "bool"):
                raise ValueError(f"expected {one.name} of the type {one.type}, got {value!r}; correct it")
            if one.type == "float" and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"expected {one.name} to be a finite number of at least 0, got {value!r}; correct it")
        for names, least in _LEAST.items():
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"expected {name} to be at least {least}, got {getattr(self, name)!r}; raise it")
        for name in ("absent", "paste_share", "ema"):
            if getattr(self, name) > 1:
                raise ValueError(f"expected {name} in 0..1, got {getattr(self, name)!r}; lower it")
        if not self.image_sizes or any(type(one) is not int or one < 1 or one % 32 for one in self.image_sizes):
            raise ValueError(
                f"expected image_sizes to be one or more positive multiples of 32, got {self.image_sizes!r}; "
                "round each to such a number"
            )
        if not (self.instances_share or self.partial_share or self.scenes_share):
            raise ValueError(
                "expected one of instances_share, partial_share and scenes_share above 0, got 0 for all; raise one"
            )


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[int, ...]": (tuple,),
    "dict[str, Any]": (dict,),
}
_LEAST = {("steps", "images", "phrases", "save_every"): 1, ("warmup", "workers", "seed"): 0}


def tiny() -> Recipe:
    """The bundled model: photos, people and drawn scenes together; about two hours on two CPU cores."""
    return Recipe()


def scenes() -> Recipe:
    """Drawn scenes alone: no files needed; for trying things out."""
    return Recipe(instances_share=0.0, partial_share=0.0, scenes_share=1.0, steps=1500, image_sizes=(256,))


def debug() -> Recipe:
    """Ten steps of a very small model on drawn scenes, to see that everything runs."""
    small = {
        "context_dim": 32,
        "context_layers": 1,
        "context_heads": 2,
        "group_dim": 16,
        "merge_heads": 2,
        "group_heads": 2,
    }
    return Recipe(
        model="deixis-tiny-glove",
        model_fields={**small, "text_dim": 32, "vocab_size": 400, "mask_dim": 8, "mask_stride4_dim": 8},
        instances_share=0.0,
        partial_share=0.0,
        scenes_share=1.0,
        steps=10,
        images=2,
        image_sizes=(64,),
        save_every=5,
        warmup=2,
        workers=0,
        bfloat16=False,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"tiny": tiny, "scenes": scenes, "debug": debug}


def list_recipes() -> dict[str, str]:
    """Names and one line about each."""
    return {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in RECIPES.items()}


def recipe(name: str, **overrides: Any) -> Recipe:  # noqa: ANN401  fields have several types
    """The named recipe with fields replaced; unknown names and fields are refused with the valid ones."""
    if name not in RECIPES:
        raise ValueError(f"expected a recipe out of {sorted(RECIPES)}, got {name!r}")
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"expected recipe fields out of {sorted(known)}, got {unknown!r}")
    return replace(RECIPES[name](), **overrides)
