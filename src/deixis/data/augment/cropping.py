"""Cut a window out of a view, or out of a picture whose phrase stays true of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deixis.data.augment.mirroring import Phrased
from deixis.data.augment.views import (
    MIN_KEPT,
    MIN_VISIBLE,
    View,
    WindowXyxy,
    area,
    check_window,
    count,
    intersect,
    shift_box,
)
from deixis.data.captions.writing import VisibleInstance
from deixis.geometry.masks import box_from_mask
from deixis.language.invariance import crop_effect
from deixis.structures import BoxXyxy


def crop(view: View, window: WindowXyxy, min_visible: float = MIN_VISIBLE) -> View:
    """Keep what lies in ``window``.

    A thing of which less than ``min_visible`` of its area (of the mask, else of the box) is left becomes ``is_crowd``:
    never meant, but still there to be confused with. Less than 5 %, and it is dropped.
    Raises ValueError where the window is empty or leaves the image.
    """
    x1, y1, x2, y2 = window
    check_window(window, view.hw)
    cropped = (_crop_instance(instance, window, min_visible) for instance in view.instances)
    return View(image=view.image[y1:y2, x1:x2], instances=tuple(i for i in cropped if i is not None))


def random_crop(view: View, rng: np.random.Generator, min_share: float = 0.5, min_area: float = 0.03) -> View:
    """Crop to a window of at least ``min_share`` of the image in which at least one thing stays whole.

    That thing is drawn among those that are no crowd and whose box takes ``min_area`` of the image or more; without any
    the view stays as it is.
    """
    height, width = view.hw
    wide_enough = [i for i in view.instances if not i.is_crowd and area(i.box_xyxy_px) >= min_area * height * width]
    if not wide_enough:
        return view
    anchor = wide_enough[int(rng.integers(len(wide_enough)))]
    return crop(view, window_around(anchor.box_xyxy_px, view.hw, rng, min_share))


def crop_phrased(
    image: NDArray[np.uint8],
    box_xyxy_px: BoxXyxy,
    mask: NDArray[np.bool_] | None,
    phrase: str,
    rng: np.random.Generator,
    min_share: float = 0.5,
) -> Phrased:
    """Crop to a random window around the whole referent; unchanged where the phrase may be untrue of it.

    "the left one" may be in the middle of what is left of the image, and of "the third cup" or "cup by the sink" the
    other two or the sink may be gone; "the red one" stays the red one. See `deixis.language.invariance`.
    """
    if crop_effect(phrase) != "stays":
        return Phrased(image, box_xyxy_px, mask, phrase)
    hw = (image.shape[0], image.shape[1])
    x1, y1, x2, y2 = window_around(box_xyxy_px, hw, rng, min_share)
    cropped_mask = None if mask is None else mask[y1:y2, x1:x2]
    return Phrased(image[y1:y2, x1:x2], shift_box(box_xyxy_px, -x1, -y1), cropped_mask, phrase)


@dataclass(frozen=True, kw_only=True)
class CropRange:
    """How `CropRange.draw` chooses a window; the values are those of TransVG.

    The image counts as scaled to a short side out of ``short_sides``, and the window's sides are drawn in ``sides``.
    """

    chance: float = 0.5
    short_sides: tuple[int, ...] = (400, 500, 600)
    sides: tuple[int, int] = (384, 600)
    tries: int = 20

    def draw(self, rng: np.random.Generator, hw: tuple[int, int], keep: BoxXyxy) -> WindowXyxy | None:
        """A window that holds all of ``keep``, as far as that lies in the image; None where none is drawn."""
        height, width = hw
        x1, y1, x2, y2 = (int(v) for v in intersect((*np.floor(keep[:2]), *np.ceil(keep[2:])), (0, 0, width, height)))
        scale = float(rng.choice(self.short_sides)) / min(hw)
        for _ in range(self.tries if rng.random() < self.chance else 0):
            w, h = (min(side, int(rng.uniform(*self.sides) / scale)) for side in (width, height))
            if min(w, h) < 1 or w < x2 - x1 or h < y2 - y1:
                continue
            left = int(rng.integers(max(0, x2 - w), min(x1, width - w) + 1))
            top = int(rng.integers(max(0, y2 - h), min(y1, height - h) + 1))
            return left, top, left + w, top + h
        return None


def window_around(box: BoxXyxy, hw: tuple[int, int], rng: np.random.Generator, min_share: float) -> WindowXyxy:
    """Draw a window that holds the whole box and at least ``min_share`` of the image."""
    height, width = hw
    share = float(rng.uniform(min_share, 1))
    aspect = float(np.exp(rng.uniform(-0.3, 0.3)))
    bx1, by1 = max(0, int(box[0])), max(0, int(box[1]))
    bx2, by2 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    w = max(min(width, width * (share / aspect) ** 0.5), bx2 - bx1)
    h = max(min(height, height * share * width / w), by2 - by1)
    w, h = min(width, int(np.ceil(w))), min(height, int(np.ceil(h)))
    x1 = int(rng.integers(max(0, bx2 - w), min(bx1, width - w) + 1))
    y1 = int(rng.integers(max(0, by2 - h), min(by1, height - h) + 1))
    return x1, y1, x1 + w, y1 + h


def _crop_instance(instance: VisibleInstance, window: WindowXyxy, min_visible: float) -> VisibleInstance | None:
    x1, y1, x2, y2 = window
    box = instance.box_xyxy_px
    mask = None if instance.mask is None else instance.mask[y1:y2, x1:x2]
    clipped = intersect(box, window)
    if clipped == box:
        return replace(instance, box_xyxy_px=shift_box(box, -x1, -y1), mask=mask)
    if instance.mask is None or mask is None:
        share, seen = area(clipped) / area(box), shift_box(clipped, -x1, -y1)
    else:
        share, seen = count(mask) / max(1, count(instance.mask)), box_from_mask(mask)
    if share < MIN_KEPT or seen is None:
        return None
    return replace(instance, box_xyxy_px=seen, mask=mask, is_crowd=instance.is_crowd or share < min_visible)
