"""Mirror, crop, zoom out: an annotated image moved by whole pixels; and what becomes of instances at an edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deixis.data.augment.warping import Matrix, move_box, warp_mask
from deixis.geometry.masks import box_from_mask
from deixis.language.directions import mirror_phrase
from deixis.structures import AnnotatedImage, BoxXyxy, Expression, VisibleInstance

WindowXyxy = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels, the far edges excluded."""
Region = TypeVar("Region", VisibleInstance, Expression)

MIN_VISIBLE = 0.6
"""An instance of which less than this share is left is no referent any more, only a distractor (``is_crowd``)."""
MIN_KEPT = 0.05
"""An instance of which less than this share is left is dropped."""


def mirror(image: AnnotatedImage) -> AnnotatedImage:
    """Swap left and right, in the phrases too; `deixis.language.invariance.can_mirror` says which phrases allow it."""
    width = image.hw[1]

    def turned(region: Region) -> Region:
        return _moved(region, lambda b: (width - b[2], b[1], width - b[0], b[3]), lambda mask: mask[:, ::-1])

    return replace(
        image,
        pixels=image.pixels[:, ::-1],
        instances=tuple(map(turned, image.instances)),
        expressions=tuple(replace(turned(one), phrase=mirror_phrase(one.phrase)) for one in image.expressions),
    )


def crop(image: AnnotatedImage, window: WindowXyxy) -> AnnotatedImage:
    """Keep what lies in ``window``, which must hold all that the expressions mean.

    An instance of which less than 60 % of its area (of the mask, else of the box) is left becomes ``is_crowd``; of
    which less than 5 % is left, it is dropped.
    Raises ValueError where the window is empty or leaves the image.
    """
    x1, y1, x2, y2 = window
    check_window(window, image.hw)
    cropped = (_cropped(instance, window) for instance in image.instances)
    return replace(
        image,
        pixels=image.pixels[y1:y2, x1:x2],
        instances=tuple(i for i in cropped if i is not None),
        expressions=tuple(_shifted(one, window) for one in image.expressions),
    )


def zoom_out(
    image: AnnotatedImage, ratio: float, offset: tuple[float, float], fill: tuple[int, int, int]
) -> AnnotatedImage:
    """Put the image on a larger frame, ``ratio`` >= 1 times as high and wide.

    ``offset`` is where: (0, 0) top left, (1, 1) bottom right. ``fill`` is the RGB colour of the frame.
    """
    if ratio < 1 or not (0 <= offset[0] <= 1 and 0 <= offset[1] <= 1):
        raise ValueError(f"expected a ratio >= 1 and an offset in 0..1, got {ratio!r} and {offset!r}; correct them")
    height, width = image.hw
    hw = (round(height * ratio), round(width * ratio))
    dx, dy = int((hw[1] - width) * offset[0]), int((hw[0] - height) * offset[1])
    pixels = np.empty((*hw, 3), np.uint8)
    pixels[:] = np.array(fill, np.uint8)
    pixels[dy : dy + height, dx : dx + width] = image.pixels

    def enlarged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        frame = np.zeros(hw, np.bool_)
        frame[dy : dy + height, dx : dx + width] = mask
        return frame

    def moved(region: Region) -> Region:
        return _moved(region, lambda box: shift_box(box, dx, dy), enlarged)

    instances, expressions = tuple(map(moved, image.instances)), tuple(map(moved, image.expressions))
    return replace(image, pixels=pixels, instances=instances, expressions=expressions)


def warp_instance(instance: VisibleInstance, matrix: Matrix, hw: tuple[int, int]) -> VisibleInstance | None:
    """An instance moved onto a frame of ``hw``; ``is_crowd`` and dropped as by `crop`, by the share of its box."""
    whole = move_box(instance.box_xyxy_px, instance.mask, matrix)
    mask = None if instance.mask is None else warp_mask(instance.mask, matrix, hw)
    seen = intersect(whole, (0.0, 0.0, hw[1], hw[0]))
    if min(seen[2] - seen[0], seen[3] - seen[1]) <= 0 or area(seen) < MIN_KEPT * area(whole):
        return None
    share = area(seen) / area(whole)
    if seen != whole and mask is not None:
        seen = box_from_mask(mask) or seen  # the part of a mask that is left may be smaller than its box cut off
    return replace(instance, box_xyxy_px=seen, mask=mask, is_crowd=instance.is_crowd or share < MIN_VISIBLE)


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


def _moved(
    region: Region,
    move_box: Callable[[BoxXyxy], BoxXyxy],
    move_mask: Callable[[NDArray[np.bool_]], NDArray[np.bool_]],
) -> Region:
    box, mask = region.box_xyxy_px, region.mask
    return replace(
        region,
        box_xyxy_px=None if box is None else move_box(box),
        mask=None if mask is None else move_mask(mask),
    )


def _shifted(region: Region, window: WindowXyxy) -> Region:
    x1, y1, x2, y2 = window
    return _moved(region, lambda box: shift_box(box, -x1, -y1), lambda mask: mask[y1:y2, x1:x2])


def _cropped(instance: VisibleInstance, window: WindowXyxy) -> VisibleInstance | None:
    clipped = intersect(instance.box_xyxy_px, window)
    moved = _shifted(instance, window)
    if clipped == instance.box_xyxy_px:
        return moved
    if instance.mask is None or moved.mask is None:
        share, seen = area(clipped) / area(instance.box_xyxy_px), shift_box(clipped, -window[0], -window[1])
    else:
        share, seen = count(moved.mask) / max(1, count(instance.mask)), box_from_mask(moved.mask)
    if share < MIN_KEPT or seen is None:
        return None
    return replace(moved, box_xyxy_px=seen, is_crowd=instance.is_crowd or share < MIN_VISIBLE)
