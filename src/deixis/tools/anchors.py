"""Anchors of a box branch for own data: k-means over the boxes' shapes, by IoU (YOLO9000, section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deixis.geometry.boxes import FloatArray, box_iou
from deixis.geometry.images import Letterbox, image_hw
from deixis.structures import Sample

_MAX_ROUNDS = 300
_STARTS = 5


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Widths and heights of a data set's boxes; ``problems`` holds one sentence for each image left out."""

    sizes_px: FloatArray  # [N, 2] on the canvas
    problems: tuple[str, ...] = ()


def read_shapes(samples: Iterable[Sample], size: int) -> Shapes:
    """Measure the boxes as they lie on a letterboxed canvas of side ``size`` pixels.

    A box counts once, however many phrases mean it; a phrase that means nothing has none. Of an image file the header
    alone is read.

    Raises:
        OSError, ValueError: no image can be read; the error of the first.
    """
    scales: dict[str, tuple[float, float] | None] = {}
    boxes: dict[tuple[object, ...], tuple[float, float]] = {}
    failures: list[OSError | ValueError] = []
    for sample in samples:
        if sample.box_xyxy_px is None:
            continue
        image = sample.image_id if isinstance(sample.image, np.ndarray) else str(sample.image)
        if image not in scales:
            try:
                scales[image] = _scale(sample, size)
            except (OSError, ValueError) as error:
                scales[image] = None
                failures.append(error)
        if (scale := scales[image]) is not None:
            x1, y1, x2, y2 = sample.box_xyxy_px
            boxes[image, sample.box_xyxy_px] = ((x2 - x1) * scale[0], (y2 - y1) * scale[1])
    if failures and not boxes:
        raise failures[0]
    sizes = np.array(list(boxes.values()), np.float64).reshape(-1, 2)
    return Shapes(sizes_px=sizes, problems=tuple(str(error) for error in failures))


def find_anchors(sizes: FloatArray, number: int, rng: np.random.Generator) -> FloatArray:
    """Find the ``number`` shapes that fit the boxes best: k-means with the distance 1 - IoU and medians.

    Starts as k-means++ does, some times over, and keeps the anchors with the highest mean IoU.

    Args:
        sizes: [N, 2] widths and heights above 0, in any unit.
        number: how many anchors.
        rng: the same state gives the same anchors.

    Returns:
        [number, 2] in the unit of ``sizes``, the smallest area first.

    Raises:
        ValueError: fewer different boxes than anchors, or a shape that is none.
    """
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"expected widths and heights [N, 2] above 0, got {sizes!r}; correct or drop these boxes")
    different = len(np.unique(sizes, axis=0))
    if number < 1 or different < number:
        raise ValueError(
            f"expected 1 to as many anchors as there are boxes of different shape, got {number!r} for {different} such "
            "boxes; ask for fewer anchors or give more data"
        )
    runs = [_settle(sizes, _spread_start(sizes, number, rng)) for _ in range(_STARTS)]
    best = max(runs, key=lambda anchors: shape_iou(sizes, anchors).max(1).mean())
    return best[np.lexsort((best[:, 0], best.prod(1)))]


def shape_iou(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """IoU [N, A] of boxes [N, 2] and anchors [A, 2] (widths and heights) that share a corner."""
    boxes, others = (np.concatenate([np.zeros_like(one), one], axis=1) for one in (sizes, anchors))
    return box_iou(boxes[:, None], others)


def _scale(sample: Sample, size: int) -> tuple[float, float]:
    return Letterbox.fit(image_hw(sample.image), size).scale_xy


def _spread_start(sizes: FloatArray, number: int, rng: np.random.Generator) -> FloatArray:
    """Boxes far from each other: each is drawn by its squared distance to the nearest one before (k-means++)."""
    chosen = [int(rng.integers(len(sizes)))]
    while len(chosen) < number:
        squared = (1 - shape_iou(sizes, sizes[chosen]).max(1)) ** 2
        chosen.append(int(rng.choice(len(sizes), p=squared / squared.sum())))
    return sizes[chosen]


def _settle(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """Move anchors to the medians of the boxes that they fit best, until no box changes its anchor."""
    nearest = None
    for _ in range(_MAX_ROUNDS):
        iou = shape_iou(sizes, anchors)
        if nearest is not None and (iou.argmax(1) == nearest).all():
            break
        nearest = iou.argmax(1)
        groups = [sizes[nearest == one] for one in range(len(anchors))]
        # an anchor that fits nothing best stays where it is
        anchors = np.stack([np.median(g, axis=0) if len(g) else a for g, a in zip(groups, anchors, strict=True)])
    return anchors
