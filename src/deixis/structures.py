"""The records that cross module borders. No torch, no I/O: plain data with its checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

BoxXyxy = tuple[float, float, float, float]
"""(x1, y1, x2, y2): pixels of the original image, continuous edges, width = x2 - x1."""


class Rle(TypedDict):
    """A COCO run-length mask: ``size`` is [H, W], ``counts`` the compressed ASCII string."""

    size: list[int]
    counts: str


Mask = Rle | list[list[float]] | Path
"""A mask as a file states it: RLE, polygons [[x, y, x, y, ...], ...] in pixels, or an image file."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One annotated thing in an image."""

    category: str
    box_xyxy_px: BoxXyxy
    mask: Mask | None = None
    is_crowd: bool = False
    attributes: tuple[str, ...] = ()
    """Further words that surely hold for it, such as its colour, where the source knows any."""

    def __post_init__(self) -> None:
        check_box(self.box_xyxy_px)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image, an expression, and the one thing that the expression means.

    ``image`` is a file or a uint8 array [H, W, 3]; ``box_xyxy_px`` is None where the expression means
    nothing in the image; ``instances`` are all annotated things, where the source lists them.
    """

    id: str
    image: Path | NDArray[np.uint8]
    image_id: str
    phrase: str
    box_xyxy_px: BoxXyxy | None
    mask: Mask | None = None
    split: str = ""
    category: str | None = None
    kind: str | None = None
    instances: tuple[Instance, ...] = ()

    def __post_init__(self) -> None:
        if not self.phrase.strip():
            raise ValueError(
                f"expected a phrase with words, got {self.phrase!r} in sample {self.id!r}; write one or drop the sample"
            )
        if self.box_xyxy_px is not None:
            check_box(self.box_xyxy_px)


def check_box(box: BoxXyxy) -> None:
    """Raise ValueError unless ``box`` is four finite numbers with x1 < x2 and y1 < y2."""
    if len(box) != 4 or not all(math.isfinite(v) for v in box) or box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"expected a box (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got {box!r}; correct or drop it")
