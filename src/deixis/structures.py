"""The records that cross module borders. No torch, no I/O: plain data with its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

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
    """An annotated instance as its file states it."""

    category: str
    box_xyxy_px: BoxXyxy
    mask: Mask | None = None
    is_crowd: bool = False
    attributes: tuple[str, ...] = ()
    """Further words that are known to hold for it, such as its colour."""

    def __post_init__(self) -> None:
        check_box(self.box_xyxy_px)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image, an expression, and the one instance that the expression means.

    ``image`` is a file or a uint8 array [H, W, 3]; ``box_xyxy_px`` is None where the expression means
    nothing in the image; ``instances`` are all annotated ones, where the source lists them.
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


@dataclass(frozen=True)
class VisibleInstance:
    """An instance in decoded pixels: ``mask`` is bool [H, W] of its image, None where only the box is known."""

    category: str
    box_xyxy_px: BoxXyxy
    mask: NDArray[np.bool_] | None = None
    is_crowd: bool = False
    """A crowd, or what is hardly visible: never a referent, but still there to be confused with one."""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expression:
    """A phrase and the part of an image that it means; a box of None: it means nothing there."""

    phrase: str
    box_xyxy_px: BoxXyxy | None
    mask: NDArray[np.bool_] | None
    category: str


@dataclass(frozen=True)
class AnnotatedImage:
    """Decoded pixels and what is known of them: what augmentation changes and training batches are made of.

    ``pixels`` is uint8 [H, W, 3]; all masks have its height and width.
    Raises ValueError where a dtype or a shape is another.
    """

    pixels: NDArray[np.uint8]
    instances: tuple[VisibleInstance, ...] = ()
    expressions: tuple[Expression, ...] = ()
    categories: frozenset[str] | None = None
    """Of everything in the image; None: not known."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """At most how many instances of a category there are, for categories of which that is known."""
    complete: bool = False
    """Whether all instances are annotated, whatever their category."""
    content_xyxy_px: BoxXyxy | None = None
    """Where the photo lies, if ``pixels`` is a canvas already; None: it is all of it."""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"expected a uint8 image [H, W, 3], got {pixels.dtype} {pixels.shape}; read it with read_image"
            )
        for one in (*self.instances, *self.expressions):
            if one.mask is not None and one.mask.shape != self.hw:
                raise ValueError(
                    f"expected masks of the image's size {self.hw}, got {one.mask.shape} for {one.category!r}; "
                    "rasterise the masks at the image's size"
                )

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def check_box(box: BoxXyxy) -> None:
    """Raise ValueError unless ``box`` is four finite numbers with x1 < x2 and y1 < y2."""
    if len(box) != 4 or not all(math.isfinite(v) for v in box) or box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"expected a box (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got {box!r}; correct or drop it")


@dataclass(frozen=True)
class TrainingBatch:
    """Arrays of one training step. Letters: B images, P phrases, S canvas side, K and I annotated instances."""

    pixels: NDArray[np.uint8]  # [B, S, S, 3]
    content: NDArray[np.float32]  # [B, 4] the picture's xyxy as fractions of the canvas
    phrases: list[str]
    image_index: NDArray[np.int64]  # [P]
    boxes: NDArray[np.float32]  # [P, 4] xyxy as fractions of the canvas
    masks: NDArray[np.float32]  # [P, S/stride, S/stride], 0..1
    has_mask: NDArray[np.bool_]  # [P]
    present: NDArray[np.bool_]  # [P], False: the phrase means nothing in its image
    thing_index: NDArray[np.int64]  # [K] the image of each thing whose kind, colour or texture is known
    thing_cells: NDArray[np.float32]  # [K, S/16 * S/16] each cell's share of the thing, sums to 1
    thing_labels: NDArray[np.int64]  # [K, groups] see `deixis.data.attributes.word_labels`
    boxed_index: NDArray[np.int64]  # [I] the image of each annotated thing, spoken of or not
    boxed_boxes: NDArray[np.float32]  # [I, 4] xyxy as fractions of the canvas
    boxed_labels: NDArray[np.int64]  # [I, groups] see `deixis.data.attributes.word_labels`
    complete: NDArray[np.bool_]  # [B] whether all things of the picture are annotated
    seen: dict[str, NDArray[Any]] | None = None
    """What the image side made of the pixels, by the names of the ``deixis`` family's `Proposals`, if known."""

    @property
    def thing_counts(self) -> NDArray[np.int64]:
        """int64 [B]: what each image counts for in a detector's loss, its annotated instances.

        An image without any counts as one if it is known that there are none.
        """
        counts = np.bincount(self.boxed_index, minlength=len(self.pixels))
        return np.maximum(counts, self.complete)
