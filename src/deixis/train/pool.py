"""A pool of pictures whose proposals are computed once, so that choosing among them is learnt in minutes.

The folder holds one ``.npy`` file for each field of `Proposals`, rows by picture, and ``told.jsonl``, a line a picture:
what is said of it. It is written whole or not at all, and read without being loaded.
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
from deixis.data.epochs import Epochs
from deixis.data.loading import TOKEN_STRIDE, CanvasRules, Mixture, TrainingBatch
from deixis.data.rehearsed import joined
from deixis.files import write_text
from deixis.models.criterion import bring, device_of, pixels_of
from deixis.models.deixis.model import DeixisModel
from deixis.models.deixis.proposals import Proposals
from deixis.progress import progress_report
from deixis.recipe import Recipe
from deixis.train.batch_loader import batches
from deixis.train.layouts import Layouts

_DRAWN_AT_ONCE = 8
_MOST_WORDS = 14
"""Longer phrases are few, and all phrases of a batch take as long as its longest."""
_TOLD = "told.jsonl"


@dataclass(frozen=True)
class Told:
    """What is said of a picture of the pool; boxes are xyxy as fractions of the canvas."""

    phrases: list[str]
    boxes: list[list[float]]  # one a phrase
    present: list[bool]  # one a phrase
    boxed_boxes: list[list[float]]
    boxed_labels: list[list[int]]


@dataclass(frozen=True)
class Pool:
    """Pictures of a folder; a batch takes some at random."""

    told: Sequence[Told]
    seen: dict[str, NDArray[Any]]
    layouts: Layouts | None = None
    layouts_share: float = 0.0

    @classmethod
    def read(cls, folder: Path, recipe: Recipe) -> Pool:
        """A pool that `fill_pool` wrote, with the recipe's layouts beside it."""
        lines = (folder / _TOLD).read_text(encoding="utf-8").splitlines()
        seen = {f.name: np.load(folder / f"{f.name}.npy", mmap_mode="r") for f in fields(Proposals)}
        layouts = Layouts.read(recipe.data.layouts) if recipe.data.layouts else None
        return cls([Told(**json.loads(line)) for line in lines], seen, layouts, recipe.data.layouts_share)

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of the layouts; what the pool was drawn from told its own when it was."""
        return self.layouts.problems if self.layouts else ()

    def batch(
        self,
        seed: int,
        step: int,
        *,
        images: int,
        phrases: int,
        size: int,
        absent: float,
        rules: CanvasRules = CanvasRules(),  # noqa: B008  it is frozen
    ) -> TrainingBatch:
        """The batch of that step: ``images`` pictures with up to ``phrases`` phrases each; the rest is the pool's."""
        rng = np.random.default_rng((seed, step))
        unseen = round(images * self.layouts_share) if self.layouts else 0
        rows = np.sort(rng.choice(len(self.told), size=images - unseen, replace=False))
        chosen = [_some(self.told[row], rng, phrases) for row in rows]
        seen = {name: np.ascontiguousarray(values[rows]) for name, values in self.seen.items()}
        own = batch_of(chosen, seen, size)
        if not unseen:
            return own
        assert self.layouts is not None
        told, boxes = self.layouts.draw(rng, unseen, phrases)
        return joined(own, batch_of(told, boxes.as_proposals(own.seen or {}), size))


def _some(told: Told, rng: np.random.Generator, most: int) -> Told:
    """The same picture with up to ``most`` of its phrases, none of them very long."""
    short = [row for row, phrase in enumerate(told.phrases) if len(phrase.split()) <= _MOST_WORDS]
    rows = rng.permutation(np.array(short, np.int64))[:most]
    return replace(
        told,
        phrases=[told.phrases[row] for row in rows],
        boxes=[told.boxes[row] for row in rows],
        present=[told.present[row] for row in rows],
    )


def batch_of(told: Sequence[Told], seen: dict[str, NDArray[Any]], size: int) -> TrainingBatch:
    """A batch without pixels and masks."""
    index = [row for row, one in enumerate(told) for _ in one.phrases]
    boxed = [row for row, one in enumerate(told) for _ in one.boxed_boxes]
    cells = (size // TOKEN_STRIDE) ** 2
    return TrainingBatch(
        pixels=np.zeros((len(told), 0, 0, 3), np.uint8),
        content=seen["content"],
        phrases=[phrase for one in told for phrase in one.phrases],
        image_index=np.array(index, np.int64),
        boxes=np.array([box for one in told for box in one.boxes], np.float32).reshape(-1, 4),
        masks=np.zeros((len(index), 0, 0), np.float32),
        has_mask=np.zeros(len(index), np.bool_),
        present=np.array([value for one in told for value in one.present], np.bool_),
        thing_index=np.zeros(0, np.int64),
        thing_cells=np.zeros((0, cells), np.float32),
        thing_labels=np.zeros((0, len(WORD_GROUPS)), np.int64),
        boxed_index=np.array(boxed, np.int64),
        boxed_boxes=np.array([box for one in told for box in one.boxed_boxes], np.float32).reshape(-1, 4),
        boxed_labels=np.array([labels for one in told for labels in one.boxed_labels], np.int64).reshape(
            -1, len(WORD_GROUPS)
        ),
        complete=np.zeros(len(told), np.bool_),
        seen=seen,
    )


def fill_pool(
    model: DeixisModel, source: Mixture | Epochs, recipe: Recipe, rules: CanvasRules, folder: Path, *, autocast: bool
) -> None:
    """Draw ``pool`` pictures and keep what the image side, as it is now, makes of them.

    A folder that has its last file is left as it is; else it is filled anew.
    """
    if (folder / _TOLD).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    size = recipe.data.pool
    steps = -(-size // _DRAWN_AT_ONCE)
    drawing = recipe.replaced(images=_DRAWN_AT_ONCE, phrases=recipe.data.pool_phrases, steps=steps)
    told: list[Told] = []
    maps: dict[str, NDArray[Any]] = {}
    with progress_report("looking at pictures") as report:
        for batch in batches(source, drawing, 0, rules):
            seen = _look(model, batch, autocast=autocast)
            room = size - len(told)
            for name, values in seen.items():
                if name not in maps:
                    shape = (size, *values.shape[1:])
                    maps[name] = open_memmap(folder / f"{name}.npy", "w+", values.dtype, shape)
                maps[name][len(told) : len(told) + len(values)] = values[:room]
            told += list(_told_of(batch))[:room]
            report(len(told), size, "")
    for values in maps.values():
        values.flush()  # pyright: ignore[reportAttributeAccessIssue]
    write_text(folder / _TOLD, "".join(json.dumps(vars(one)) + "\n" for one in told))


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


def _told_of(batch: TrainingBatch) -> Iterator[Told]:
    for picture in range(len(batch.pixels)):
        rows, boxed = batch.image_index == picture, batch.boxed_index == picture
        yield Told(
            phrases=[phrase for phrase, own in zip(batch.phrases, rows, strict=True) if own],
            boxes=batch.boxes[rows].round(5).tolist(),
            present=batch.present[rows].tolist(),
            boxed_boxes=batch.boxed_boxes[boxed].round(5).tolist(),
            boxed_labels=batch.boxed_labels[boxed].tolist(),
        )
