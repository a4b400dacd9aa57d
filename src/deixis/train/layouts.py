"""Expressions of people without their photos: where the boxes lie teaches what words of place mean.

Of an image only the boxes are known that people described, and of some of these their category, by the nouns of all
expressions that mean them. Everything else about them is left blank, as zeros.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.data.attributes import word_labels
from deixis.data.dataset import in_split
from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror
from deixis.language.synonyms import CATEGORY_WORDS, categories_meant_by

COCO_CATEGORIES = tuple(CATEGORY_WORDS)
_UNLIKELY, _LIKELY = -5.0, 0.5
"""Logits of a detector for a category that is not there, and for one that is."""
_DISTRACTORS = 6


@dataclass(frozen=True)
class Described:
    """An image by its phrases and boxes alone; boxes are xyxy as fractions of the canvas."""

    phrases: list[str]
    boxes: list[list[float]]  # one a phrase
    present: list[bool]  # one a phrase
    boxed_boxes: list[list[float]]
    boxed_labels: list[list[int]]


@dataclass(frozen=True)
class Spoken:
    """An instance: its box xyxy as fractions of the image, the phrases that mean it, and its category or ""."""

    box: tuple[float, float, float, float]
    phrases: tuple[str, ...]
    category: str


@dataclass(frozen=True)
class Layout:
    """An image of which only the instances that were described are known."""

    hw: tuple[float, float]
    instances: tuple[Spoken, ...]


@dataclass(frozen=True)
class Drawn:
    """Boxes of a batch of layouts, with kinds where known."""

    boxes: list[NDArray[np.float32]]  # [n, 4] xyxy as fractions of the canvas, one array an image
    kinds: list[list[int]]  # number of the category; -1: not known
    content: NDArray[np.float32]  # [B, 4]

    def as_proposals(self, like: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays of `Proposals` of the same number of rows and features as those of a pool's batch."""
        num, width = like["features"].shape[1:]
        shape = (len(self.boxes), num)
        cells = like["is_cell"][0]
        most = int((~cells).sum())
        seen: dict[str, NDArray[Any]] = {
            "boxes": np.zeros((*shape, 4), np.float32),
            "scores": np.zeros(shape, np.float32),
            "valid": np.zeros(shape, np.bool_),
            "is_cell": np.broadcast_to(cells, shape).copy(),
            "features": np.zeros((*shape, width), np.float16),
            "content": self.content,
        }
        for row, (boxes, kinds) in enumerate(zip(self.boxes, self.kinds, strict=True)):
            count = min(len(boxes), most)
            seen["boxes"][row, :count] = boxes[:count]
            seen["scores"][row, :count] = 0.5
            seen["valid"][row, :count] = True
            seen["features"][row, :count, : len(COCO_CATEGORIES)] = _UNLIKELY
            for number, kind in enumerate(kinds[:count]):
                if kind >= 0:
                    seen["features"][row, number, kind] = _LIKELY
        return seen


class Layouts:
    """Layouts of files with the columns of `read`."""

    def __init__(self, layouts: Sequence[Layout], problems: Sequence[str] = ()) -> None:
        self.layouts, self.problems = layouts, tuple(problems)

    @classmethod
    def read(cls, paths: str) -> Layouts:
        """CSV files, a comma between two, of training images with two instances or more.

        Columns: one that ends in ``image_id``, ``width``, ``height``, ``box_x``, ``box_y``, ``box_w``, ``box_h`` in
        pixels, and ``expression``. A line that cannot be read is left out; ``problems`` says why.

        Raises:
            OSError: a file cannot be opened.
            ValueError: there is no such image.
        """
        images: dict[str, dict[tuple[float, ...], list[str]]] = {}
        sizes: dict[str, tuple[float, float]] = {}
        problems: list[str] = []
        for path in paths.split(","):
            with Path(path.strip()).open(encoding="utf-8", newline="") as file:
                for number, line in enumerate(csv.DictReader(file), start=2):
                    try:
                        key, hw, box = _line(line)
                        is_training = in_split(int(key), "train")
                    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
                        problems.append(f"{path}, line {number}: {error!r}")
                        continue
                    if is_training:
                        sizes[key] = hw
                        images.setdefault(key, {}).setdefault(box, []).append(line["expression"].strip())
        made = [Layout(sizes[key], tuple(_spoken(*one) for one in found.items())) for key, found in images.items()]
        several = [one for one in made if len(one.instances) > 1]
        if not several:
            raise ValueError(
                f"expected training images with two instances or more in {paths!r}, got none; use other layouts"
            )
        return cls(several, problems)

    def draw(self, rng: np.random.Generator, images: int, phrases: int) -> tuple[list[Described], Drawn]:
        """Some of them, half of them mirrored, with instances of other images as distractors."""
        described, boxes, kinds, contents = [], [], [], []
        for one in rng.choice(len(self.layouts), size=images):
            layout = self.layouts[int(one)]
            content = content_of(layout.hw)
            mirrored = rng.random() < 0.5
            instances = [*layout.instances, *self._distractors(layout, rng)]
            at = np.array([instance.box for instance in instances], np.float32)
            at = at[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0] if mirrored else at
            placed = _onto(_shaken(at, rng), content)
            own = _onto(at, content)
            said = [(text, row) for row, instance in enumerate(layout.instances) for text in instance.phrases]
            if mirrored:
                said = [(mirror_phrase(text), row) for text, row in said if can_mirror(text)]
            said = [said[pick] for pick in rng.permutation(len(said))[:phrases]]
            known = [
                (row, word_labels(instance.category, ())) for row, instance in enumerate(instances) if instance.category
            ]
            described.append(
                Described(
                    phrases=[text for text, _ in said],
                    boxes=[own[row].tolist() for _, row in said],
                    present=[True] * len(said),
                    boxed_boxes=[placed[row].tolist() for row, _ in known],
                    boxed_labels=[labels.tolist() for _, labels in known],
                )
            )
            boxes.append(placed.astype(np.float32))
            kinds.append([COCO_CATEGORIES.index(t.category) if t.category else -1 for t in instances])
            contents.append(content)
        return described, Drawn(boxes, kinds, np.array(contents, np.float32))

    def _distractors(self, layout: Layout, rng: np.random.Generator) -> list[Spoken]:
        """Instances of other images of categories that are not in this one; none where a category is not known."""
        present = {instance.category for instance in layout.instances}
        if "" in present:
            return []
        chosen = rng.integers(len(self.layouts), size=int(rng.integers(_DISTRACTORS)))
        others = [self.layouts[int(one)] for one in chosen]
        instances = [other.instances[int(rng.integers(len(other.instances)))] for other in others]
        return [instance for instance in instances if instance.category and instance.category not in present]


def content_of(hw: tuple[float, float]) -> tuple[float, float, float, float]:
    """Where an image lies on a square canvas, centred: xyxy as fractions of it."""
    height, width = (side / max(hw) for side in hw)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


def _line(line: dict[str, str]) -> tuple[str, tuple[float, float], tuple[float, ...]]:
    key = line[next((name for name in line if name and name.endswith("image_id")), "image_id")]
    width, height = float(line["width"]), float(line["height"])
    x, y, w, h = (float(line[f"box_{side}"]) for side in "xywh")
    box = (max(x / width, 0.0), max(y / height, 0.0), min((x + w) / width, 1.0), min((y + h) / height, 1.0))
    if not (box[0] < box[2] and box[1] < box[3] and line["expression"].strip()):
        raise ValueError("expected a box with an area and an expression")
    return key, (height, width), tuple(round(v, 5) for v in box)


def _spoken(box: tuple[float, ...], phrases: list[str]) -> Spoken:
    """The category is the one that most of the phrases name; none where two are named equally often."""
    votes: Counter[str] = Counter()
    for phrase in phrases:
        for word in phrase.lower().split():
            if meant := categories_meant_by(word) or categories_meant_by(word.removesuffix("s")):
                votes.update(meant)
                break
    best = [*votes.most_common(2), ("", 0), ("", 0)]
    category = best[0][0] if best[0][1] > best[1][1] and best[0][0] in COCO_CATEGORIES else ""
    return Spoken((box[0], box[1], box[2], box[3]), tuple(phrases), category)


def _shaken(boxes: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Each side moved a little, as a detector's boxes are never quite right."""
    size = (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]]
    return np.clip(boxes + size * rng.normal(0, 0.04, boxes.shape), 0, 1)


def _onto(boxes: NDArray[Any], content: tuple[float, float, float, float]) -> NDArray[Any]:
    low, high = np.array(content[:2] * 2), np.array(content[2:] * 2)
    return low + boxes * (high - low)
