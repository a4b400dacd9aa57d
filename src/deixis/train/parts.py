"""A batch in parts, by pictures, and what each part's losses count for in those of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deixis.structures import TrainingBatch

AVERAGED_OVER = {
    "exists": "phrases",
    "xy": "phrases",
    "wh": "phrases",
    "confidence": "phrases",
    "mask": "mask_known",
    "pixels": "has_mask",
    "projection": "boxed",
    "place": "has_mask",
    "place_box": "has_mask",
    "attention": "has_mask",
    "words": "labels",
    "told": "told",
    "things": "things",
}
"""Losses that are means over something else than the phrases that mean something."""
_LARGEST = ("difficulty_max", "sigma")
"""Beginnings of names of what is no mean: of several parts the largest counts."""


@dataclass(frozen=True)
class Part:
    """Some pictures of a batch with all that belongs to them."""

    batch: TrainingBatch
    shares: dict[str, float] = field(default_factory=dict)
    """By what a mean is over, the part's share of it, 0..1. Nothing: it is the whole batch."""

    def share(self, name: str) -> float | None:
        """What this part's loss of that name counts for in the whole batch's; None: it is that."""
        return self.shares[AVERAGED_OVER.get(name, "present")] if self.shares else None


def split_batch(batch: TrainingBatch, count: int) -> list[Part]:
    """``count`` parts of about as many pictures each, whose losses times their shares add up to the batch's.

    Where pictures are fewer, some parts hold a copy of the first one that counts for nothing: so every process takes
    every step that the others wait for.
    """
    if count == 1:
        return [Part(batch)]
    whole = _counts(batch)
    parts = []
    for pictures in np.array_split(np.arange(len(batch.pixels)), count):
        chosen = pictures_of(batch, pictures if len(pictures) else np.arange(1))
        own = _counts(chosen) if len(pictures) else dict.fromkeys(whole, 0)
        parts.append(Part(chosen, {name: own[name] / max(whole[name], 1) for name in whole}))
    return parts


def pictures_of(batch: TrainingBatch, pictures: np.ndarray) -> TrainingBatch:
    """Neighbouring pictures of a batch, with their phrases and things."""
    rows = np.isin(batch.image_index, pictures)
    things = np.isin(batch.thing_index, pictures)
    boxed = np.isin(batch.boxed_index, pictures)
    return replace(
        batch,
        pixels=batch.pixels[pictures],
        content=batch.content[pictures],
        phrases=[phrase for phrase, one in zip(batch.phrases, rows, strict=True) if one],
        image_index=batch.image_index[rows] - pictures[0],
        boxes=batch.boxes[rows],
        masks=batch.masks[rows],
        has_mask=batch.has_mask[rows],
        present=batch.present[rows],
        thing_index=batch.thing_index[things] - pictures[0],
        thing_cells=batch.thing_cells[things],
        thing_labels=batch.thing_labels[things],
        boxed_index=batch.boxed_index[boxed] - pictures[0],
        boxed_boxes=batch.boxed_boxes[boxed],
        boxed_labels=batch.boxed_labels[boxed],
        complete=batch.complete[pictures],
        seen=batch.seen and {name: values[pictures] for name, values in batch.seen.items()},
    )


def _counts(batch: TrainingBatch) -> dict[str, int]:
    counted = {
        "phrases": np.ones_like(batch.present),
        "present": batch.present,
        "has_mask": batch.has_mask,
        "mask_known": batch.has_mask | ~batch.present,
        "boxed": batch.present & ~batch.has_mask,
        "labels": batch.thing_labels >= 0,
        "told": batch.boxed_labels >= 0,
        "things": things_in(batch),
    }
    return {name: int(one.sum()) for name, one in counted.items()}


def things_in(batch: TrainingBatch) -> NDArray[np.int64]:
    """int64 [B]: what each picture counts for in the detector's loss, its annotated things.

    One without any counts as one thing if it is known that there are none.
    """
    counts = np.bincount(batch.boxed_index, minlength=len(batch.pixels))
    return np.maximum(counts, batch.complete)


def scaled(part: Part, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """A part's losses as what they add to the whole batch's."""
    shares = {name: part.share(name) for name in losses}
    return {
        name: value if (share := shares[name]) is None or is_largest(name) else value * share
        for name, value in losses.items()
    }


def is_largest(name: str) -> bool:
    """Whether of several parts the largest value counts; else they add up."""
    return name.startswith(_LARGEST)


def merged(one: dict[str, Tensor], two: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scaled losses of two parts together; ``one`` may still be empty."""
    if not one:
        return two
    return {
        name: torch.maximum(one[name], value) if is_largest(name) else one[name] + value for name, value in two.items()
    }
