"""What a transform moves: an image with all its annotated things; and the small geometry that transforms share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.captions.writing import VisibleInstance
from deixis.structures import BoxXyxy

WindowXyxy = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels, the far edges excluded."""

MIN_VISIBLE = 0.6
"""A thing of which less than this share is left is no referent any more, only a distractor (``is_crowd``)."""
MIN_KEPT = 0.05
"""A thing of which less than this share is left is forgotten."""


@dataclass(frozen=True)
class View:
    """An image and every annotated thing in it, as far as it is to be seen.

    ``image`` is uint8 [H, W, 3]; masks of the instances, where known, are bool [H, W] of the same image.
    Raises ValueError where a dtype or a shape is another.
    """

    image: NDArray[np.uint8]
    instances: tuple[VisibleInstance, ...]

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"expected a uint8 image [H, W, 3], got {self.image.dtype} {self.image.shape}; read it with read_image"
            )
        for instance in self.instances:
            if instance.mask is not None and instance.mask.shape != self.hw:
                raise ValueError(
                    f"expected masks of the image's size {self.hw}, got {instance.mask.shape} for "
                    f"{instance.category!r}; rasterise the masks at the image's size"
                )

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


def as_pil(image: NDArray[np.uint8]) -> Image.Image:
    """An array uint8 [H, W, 3] or [H, W] as an image; a mirrored view of one is copied."""
    return Image.fromarray(np.ascontiguousarray(image))


def check_window(window: WindowXyxy, hw: tuple[int, int]) -> None:
    """Raise ValueError unless the window has pixels and lies inside an image of ``hw``."""
    (x1, y1, x2, y2), (height, width) = window, hw
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f"expected a window inside the image of {width} x {height} pixels, got {window!r}; clip it")


def area(box: BoxXyxy) -> float:
    """Square pixels."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def count(mask: NDArray[np.bool_]) -> int:
    """How many pixels are True."""
    return int(np.count_nonzero(mask))


def intersect(a: BoxXyxy, b: BoxXyxy) -> BoxXyxy:
    """What two boxes share; its far edges may lie before its near ones where they share nothing."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def shift_box(box: BoxXyxy, dx: float, dy: float) -> BoxXyxy:
    """The box, moved."""
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy
