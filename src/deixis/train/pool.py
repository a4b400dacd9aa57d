"""A pool of images whose proposals are computed once, so that choosing among them is learnt in minutes.

The folder holds one ``.npy`` file for each field of `Proposals`, a row an image, and ``told.jsonl`` a line with the
phrases of each image. It is written whole or not at all, and read without being loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from deixis.data.attributes import WORD_GROUPS
from deixis.data.batches import TOKEN_STRIDE, BatchShape, BatchSource, CanvasRules, joined
from deixis.files import write_text
from deixis.models.criterion import bring, device_of, pixels_of
from deixis.models.deixis.model import DeixisModel
from deixis.models.deixis.proposals import Proposals
from deixis.progress import progress_report
from deixis.recipe import Recipe
from deixis.structures import TrainingBatch
from deixis.train.batch_loader import batches
from deixis.train.layouts import Described, Layouts

_DRAWN_AT_ONCE = 8
_MOST_WORDS = 14
"""Longer phrases are few, and all phrases of a batch take as long as its longest."""
_TOLD = "told.jsonl"


@dataclass(frozen=True)
class Pool:
    """Images of a folder; a batch takes some at random."""

    described: Sequence[Described]
    seen: dict[str, NDArray[Any]]
    layouts: Layouts | None = None
    layouts_share: float = 0.0

    @classmethod
    def read(cls, folder: Path, recipe: Recipe) -> Pool:
        """A pool that `fill_pool` wrote, with the recipe's layouts beside it."""
        lines = (folder / _TOLD).read_text(encoding="utf-8").splitlines()
        seen = {f.name: np.load(folder / f"{f.name}.npy", mmap_mode="r") for f in fields(Proposals)}
        layouts = Layouts.read(recipe.data.layouts) if recipe.data.layouts else None
        return cls([Described(**json.loads(line)) for line in lines], seen, layouts, recipe.data.layouts_share)

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of the layouts; those of the pool's data were reported when it was filled."""
        return self.layouts.problems if self.layouts else ()

    def batch(self, seed: int, step: int, shape: BatchShape) -> TrainingBatch:
        """The batch of that step; whether a phrase is absent, and the rules, are those by which the pool was filled."""
        rng = np.random.default_rng((seed, step))
        unseen = round(shape.images * self.layouts_share) if self.layouts else 0
        rows = np.sort(rng.choice(len(self.described), size=shape.images - unseen, replace=False))
        chosen = [_some(self.described[row], rng, shape.phrases) for row in rows]
        seen = {name: np.ascontiguousarray(values[rows]) for name, values in self.seen.items()}
        own = batch_of(chosen, seen, shape.size)
        if not unseen or self.layouts is None:
            return own
        described, boxes = self.layouts.draw(rng, unseen, shape.phrases)
        return joined(own, batch_of(described, boxes.as_proposals(seen), shape.size))


def _some(image: Described, rng: np.random.Generator, most: int) -> Described:
    """The same image with up to ``most`` of its phrases, none of them very long."""
    short = [row for row, phrase in enumerate(image.phrases) if len(phrase.split()) <= _MOST_WORDS]
    rows = rng.permutation(np.array(short, np.int64))[:most]
    chosen = {name: [getattr(image, name)[row] for row in rows] for name in ("phrases", "boxes", "present")}
    return replace(image, **chosen)


def batch_of(images: Sequence[Described], seen: dict[str, NDArray[Any]], size: int) -> TrainingBatch:
    """A batch without pixels and masks."""
    index = [row for row, one in enumerate(images) for _ in one.phrases]
    boxed = [row for row, one in enumerate(images) for _ in one.boxed_boxes]
    cells = (size // TOKEN_STRIDE) ** 2
    return TrainingBatch(
        pixels=np.zeros((len(images), 0, 0, 3), np.uint8),
        content=seen["content"],
        phrases=[phrase for one in images for phrase in one.phrases],
        image_index=np.array(index, np.int64),
        boxes=np.array([box for one in images for box in one.boxes], np.float32).reshape(-1, 4),
        masks=np.zeros((len(index), 0, 0), np.float32),
        has_mask=np.zeros(len(index), np.bool_),
        present=np.array([value for one in images for value in one.present], np.bool_),
        thing_index=np.zeros(0, np.int64),
        thing_cells=np.zeros((0, cells), np.float32),
        thing_labels=np.zeros((0, len(WORD_GROUPS)), np.int64),
        boxed_index=np.array(boxed, np.int64),
        boxed_boxes=np.array([box for one in images for box in one.boxed_boxes], np.float32).reshape(-1, 4),
        boxed_labels=np.array([labels for one in images for labels in one.boxed_labels], np.int64).reshape(
            -1, len(WORD_GROUPS)
        ),
        complete=np.zeros(len(images), np.bool_),
        seen=seen,
    )


def fill_pool(
    model: DeixisModel, source: BatchSource, recipe: Recipe, rules: CanvasRules, folder: Path, *, autocast: bool
) -> None:
    """Draw ``pool`` images and keep what the image side, as it is now, makes of them.

    A folder that has its last file is left as it is; else it is filled anew.
    """
    if (folder / _TOLD).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    size = recipe.data.pool
    steps = -(-size // _DRAWN_AT_ONCE)
    drawing = recipe.replaced(images=_DRAWN_AT_ONCE, phrases=recipe.data.pool_phrases, steps=steps)
    described: list[Described] = []
    maps: dict[str, NDArray[Any]] = {}
    with progress_report("computing proposals") as report:
        for batch in batches(source, drawing, 0, rules):
            seen = _look(model, batch, autocast=autocast)
            room = size - len(described)
            for name, values in seen.items():
                if name not in maps:
                    shape = (size, *values.shape[1:])
                    maps[name] = open_memmap(folder / f"{name}.npy", "w+", values.dtype, shape)
                maps[name][len(described) : len(described) + len(values)] = values[:room]
            described += list(_described(batch))[:room]
            report(len(described), size, "")
    for values in maps.values():
        values.flush()  # pyright: ignore[reportAttributeAccessIssue]
    write_text(folder / _TOLD, "".join(json.dumps(vars(one)) + "\n" for one in described))


@torch.inference_mode()
def _look(model: DeixisModel, batch: TrainingBatch, *, autocast: bool) -> dict[str, NDArray[Any]]:
    device = device_of(model)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        _, _, found = model.image.see(pixels_of(batch, device), bring(batch.content, device))
    arrays = {f.name: getattr(found, f.name) for f in fields(Proposals)}
    return {
        name: (value.half() if name == "features" else value).contiguous().cpu().numpy()
        for name, value in arrays.items()
    }


def _described(batch: TrainingBatch) -> Iterator[Described]:
    for image in range(len(batch.pixels)):
        rows, boxed = batch.image_index == image, batch.boxed_index == image
        yield Described(
            phrases=[phrase for phrase, own in zip(batch.phrases, rows, strict=True) if own],
            boxes=batch.boxes[rows].round(5).tolist(),
            present=batch.present[rows].tolist(),
            boxed_boxes=batch.boxed_boxes[boxed].round(5).tolist(),
            boxed_labels=batch.boxed_labels[boxed].tolist(),
        )
