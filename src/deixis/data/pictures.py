"""What a picture of a training batch tells: phrases with what they mean, and things with their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deixis.data.attributes import word_labels
from deixis.data.captions.writing import VisibleInstance
from deixis.structures import BoxXyxy, Instance


@dataclass(frozen=True)
class Target:
    """A phrase and what it means on one image."""

    phrase: str
    box_xyxy_px: BoxXyxy | None
    mask: NDArray[np.bool_] | None
    category: str


@dataclass(frozen=True)
class Thing:
    """Pixels of an image and the words that hold for them: see `word_labels`."""

    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Boxed:
    """The box of a thing, whether anything is said of it or not, and the words that hold for it: see `word_labels`."""

    box_xyxy_px: BoxXyxy
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """One image with its phrases; ``categories`` is everything in it, or None where that is not known."""

    image: NDArray[np.uint8]
    targets: list[Target]
    categories: frozenset[str] | None
    things: list[Thing] = field(default_factory=list)
    content_xyxy_px: BoxXyxy | None = None
    """Where the photo lies in ``image``, if that is a canvas already; None: it is all of it."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many things of a category are in it, at most, for categories of which that is known."""
    boxed: list[Boxed] = field(default_factory=list)
    """All annotated things of it."""
    complete: bool = False
    """Whether there are no others, of whatever kind."""


def boxed(instances: Iterable[Instance | VisibleInstance]) -> list[Boxed]:
    """The boxes of things that are no crowds."""
    return [
        Boxed(one.box_xyxy_px, word_labels(one.category, one.attributes if isinstance(one, Instance) else ()))
        for one in instances
        if not one.is_crowd
    ]


def counted(instances: Iterable[Instance | VisibleInstance]) -> dict[str, int]:
    """How many of each category there are; a crowd, or what an edge cuts, counts as several."""
    counts: Counter[str] = Counter()
    for instance in instances:
        counts[instance.category] += 2 if instance.is_crowd else 1
    return dict(counts)
