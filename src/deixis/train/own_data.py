"""Own data for a fine-tuning: what is trained on and what it is stopped by, no image in both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deixis.data import open_dataset, parse_dataset_spec
from deixis.data.formats.jsonl import write_jsonl
from deixis.geometry.images import image_hw
from deixis.grounder import canvas_side
from deixis.recipe import Recipe
from deixis.structures import Sample

TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
"""Files of a run's folder with its two parts."""
_SHARE = 0.2
_MEASURED_IMAGES = 50
"""Images whose sizes decide the canvas."""


def write_parts(recipe: Recipe, folder: Path) -> list[str]:
    """Write `TRAIN` and `VALIDATION` into a folder that is there.

    Where ``validation`` is empty, lines of the split ``val`` are the validation part; where there are none, one
    image in five, drawn by the recipe's seed, with all that is said of it.

    Returns:
        One sentence for each thing that surprises: what was left out, and images that are in both parts.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: there is nothing to train on or to stop by.
    """
    samples, told = _open(recipe.data.phrased, recipe, "train")
    if recipe.run.validation:
        held, more = _open(recipe.run.validation, recipe, None)
        told = [*told, *more]
    else:
        held = [one for one in samples if one.split == "val"]
    train = [one for one in samples if one.split in ("", "train")]
    if others := len(samples) - len(train) - (0 if recipe.run.validation else len(held)):
        told.append(f"{others} lines of {recipe.data.phrased!r} are of other splits than 'train', and left out")
    if not held and not recipe.run.validation:
        train, held = split_by_image(train, recipe.run.seed, recipe.data.phrased)
    for part, name in ((train, recipe.data.phrased), (held, recipe.run.validation or recipe.data.phrased)):
        _check_boxes(part, name)
    if both := {image_key(one) for one in train} & {image_key(one) for one in held}:
        told.append(
            f"{len(both)} images of {recipe.run.validation or recipe.data.phrased!r} are trained on too, so its "
            "figures flatter"
        )
    write_jsonl(folder / TRAIN, [replace(one, split="train") for one in train])
    write_jsonl(folder / VALIDATION, [replace(one, split="val") for one in held])
    return told


def _open(spec: str, recipe: Recipe, default: str | None) -> tuple[list[Sample], list[str]]:
    """Samples and what is wrong with others; a split stays told only where a JSONL file was opened as a whole."""
    name, split = parse_dataset_spec(spec)
    is_whole = split is None and Path(name).suffix.lower() == ".jsonl"
    samples = open_dataset(name, split=None if is_whole else split or default, root=recipe.data.root or None)
    problems: list[str] = list(samples.problems)
    ours = list(samples) if is_whole else [replace(one, split="") for one in samples]
    if not ours:
        raise ValueError(f"expected phrases to learn from in {spec!r}, got none; add lines")
    return ours, problems


def _check_boxes(part: Sequence[Sample], name: str) -> None:
    if not part:
        raise ValueError(f"expected phrases of the split 'train', or of none, in {name!r}, got others; name FILE:SPLIT")
    if all(one.box_xyxy_px is None for one in part):
        raise ValueError(
            f"expected phrases with a box in {name!r}, got {len(part)} without one; say with boxes what they mean"
        )


def image_key(sample: Sample) -> str:
    """What tells whether two samples are of one image: its file."""
    return os.path.abspath(sample.image) if isinstance(sample.image, Path) else sample.image_id


def split_by_image(samples: Sequence[Sample], seed: int, name: str) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on and to stop by, in the order that the seed gives to the images.

    Only what has a box counts as an image to choose from: a part of phrases without any could not be measured.

    Raises:
        ValueError: there is but one image.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(image_key(sample), []).append(sample)
    keys = sorted(key for key, group in groups.items() if any(one.box_xyxy_px is not None for one in group))
    if len(keys) < 2:
        _check_boxes(samples, name)
        raise ValueError(
            f"expected two or more images with boxes in {name!r}, so that one is kept to stop by, got {len(keys)}; add "
            "images, or name a file with --val"
        )
    order = [keys[index] for index in np.random.default_rng(seed).permutation(len(keys))]
    held = set(order[: max(1, round(_SHARE * len(order)))])
    others = [key for key in groups if key not in held]
    return (
        [sample for key in others for sample in groups[key]],
        [sample for key in order if key in held for sample in groups[key]],
    )


def canvas_for(samples: Sequence[Sample], largest: int) -> int:
    """The side of the canvas on which a model with an adaptive one would see the middle-sized of the images.

    Raises:
        ValueError: none of the first images can be read.
    """
    sides, problem = [], ""
    for path in list(dict.fromkeys(one.image for one in samples if isinstance(one.image, Path)))[:_MEASURED_IMAGES]:
        try:
            sides.append(canvas_side(image_hw(path), largest))
        except (OSError, ValueError) as error:
            problem = str(error)
    if not sides:
        raise ValueError(f"expected images that can be read, got none of the first ({problem}); check their paths")
    return sorted(sides)[len(sides) // 2]
