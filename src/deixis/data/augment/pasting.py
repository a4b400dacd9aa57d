"""Cut instances out of one photo and paste them into another whose phrases are not written yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from deixis.data.augment.photometric import as_pil
from deixis.data.augment.transforms import (
    MIN_KEPT,
    MIN_VISIBLE,
    WindowXyxy,
    area,
    check_window,
    count,
    intersect,
    shift_box,
)
from deixis.geometry.masks import box_from_mask
from deixis.structures import AnnotatedImage, VisibleInstance

MAX_COVERED_BOX = 0.3
"""Without a mask nobody knows which part of a box is the instance, so less of it may be covered."""


@dataclass(frozen=True)
class Cutout:
    """An instance to paste into another photo: ``pixels`` uint8 [h, w, 3], ``mask`` bool [h, w]."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    category: str


def cut_out(image: AnnotatedImage, index: int, min_side_px: int = 40) -> Cutout | None:
    """Copy an instance out of a photo; None where it is not worth pasting elsewhere.

    That is: no mask, a crowd, less than ``min_side_px`` high or wide, or cut off by the photo's edge.
    """
    instance = image.instances[index]
    box = None if instance.mask is None or instance.is_crowd else box_from_mask(instance.mask)
    if instance.mask is None or box is None:
        return None
    x1, y1, x2, y2 = (int(v) for v in box)
    is_whole = x1 > 0 and y1 > 0 and x2 < image.hw[1] and y2 < image.hw[0]
    if not is_whole or min(x2 - x1, y2 - y1) < min_side_px:
        return None
    # copies, so that a drawer full of cutouts does not hold the photos in memory
    return Cutout(image.pixels[y1:y2, x1:x2].copy(), instance.mask[y1:y2, x1:x2].copy(), instance.category)


def paste(image: AnnotatedImage, cutout: Cutout, window: WindowXyxy, feather_px: float = 0.0) -> AnnotatedImage:
    """Put a cutout, scaled to ``window``, over the image; it becomes the last instance.

    What it covers is not seen any more: masks lose the covered pixels, boxes shrink to what is left. An instance of
    which less than 60 % is left, or without a mask more than 30 % of the box is covered, becomes ``is_crowd``; of which
    less than 5 % is left, it is dropped. ``feather_px`` softens the edge of the pixels, not of the mask.
    Raises ValueError where the window is empty or leaves the image.
    """
    x1, y1, x2, y2 = window
    check_window(window, image.hw)
    size_wh = (x2 - x1, y2 - y1)
    shape = np.asarray(as_pil(cutout.mask.astype(np.uint8) * 255).resize(size_wh, Image.Resampling.BILINEAR)) >= 128
    shape_box = box_from_mask(shape)
    if shape_box is None:
        return image  # too thin to show at this size
    mask = np.zeros(image.hw, np.bool_)
    mask[y1:y2, x1:x2] = shape
    pixels = image.pixels.copy()
    _blend(pixels[y1:y2, x1:x2], cutout.pixels, shape, feather_px)
    covered = (_cover_instance(instance, shape, window) for instance in image.instances)
    pasted = VisibleInstance(category=cutout.category, box_xyxy_px=shift_box(shape_box, x1, y1), mask=mask)
    return replace(image, pixels=pixels, instances=(*(i for i in covered if i is not None), pasted))


def random_paste(
    image: AnnotatedImage, donors: Sequence[AnnotatedImage], rng: np.random.Generator, max_pastes: int = 2
) -> AnnotatedImage:
    """Paste one or two instances of the donors at a random place and size, half of them mirrored.

    A place that would hide more than half of a referent's box is not taken. Where only some categories are annotated
    (only persons, say), pass donors with those alone: else a pasted dog stands beside a dog that is not annotated.
    """
    for _ in range(int(rng.integers(1, max_pastes + 1)) if donors else 0):
        cutout = _random_cutout(donors[int(rng.integers(len(donors)))], rng)
        window = None if cutout is None else _free_window(image, cutout, rng)
        if cutout is not None and window is not None:
            image = paste(image, cutout, window, feather_px=float(rng.choice([0.0, 0.7, 1.2])))
    return image


def _cover_instance(instance: VisibleInstance, shape: NDArray[np.bool_], window: WindowXyxy) -> VisibleInstance | None:
    x1, y1, x2, y2 = window
    box = instance.box_xyxy_px
    if area(intersect(box, window)) == 0:
        return instance
    if instance.mask is None:
        bx1, by1, bx2, by2 = (round(v) for v in box)
        hidden = count(shape[max(0, by1 - y1) : max(0, by2 - y1), max(0, bx1 - x1) : max(0, bx2 - x1)])
        share = 1 - hidden / area(box)
        is_crowd = instance.is_crowd or share < 1 - MAX_COVERED_BOX
        return None if share < MIN_KEPT else replace(instance, is_crowd=is_crowd)
    mask = instance.mask.copy()
    mask[y1:y2, x1:x2] &= ~shape
    before, after = count(instance.mask), count(mask)
    if before == after:
        return instance
    seen = box_from_mask(mask)
    if seen is None or after < MIN_KEPT * before:
        return None
    return replace(instance, box_xyxy_px=seen, mask=mask, is_crowd=instance.is_crowd or after < MIN_VISIBLE * before)


def _blend(target: NDArray[np.uint8], pixels: NDArray[np.uint8], shape: NDArray[np.bool_], feather_px: float) -> None:
    """Write ``pixels``, resized, into ``target`` uint8 [h, w, 3] where ``shape`` bool [h, w] is True."""
    source = as_pil(pixels).resize((shape.shape[1], shape.shape[0]), Image.Resampling.BILINEAR)
    alpha = as_pil(shape.astype(np.uint8) * 255)
    if feather_px > 0:
        alpha = alpha.filter(ImageFilter.GaussianBlur(feather_px))
    target[:] = np.asarray(Image.composite(source, as_pil(target), alpha))


def _random_cutout(donor: AnnotatedImage, rng: np.random.Generator) -> Cutout | None:
    for index in rng.permutation(len(donor.instances)):
        cutout = cut_out(donor, int(index))
        if cutout is not None:
            is_mirrored = rng.random() < 0.5
            return replace(cutout, pixels=cutout.pixels[:, ::-1], mask=cutout.mask[:, ::-1]) if is_mirrored else cutout
    return None


def _free_window(image: AnnotatedImage, donor: Cutout, rng: np.random.Generator) -> WindowXyxy | None:
    """A random place and size for the donor that hides no referent; None after five tries."""
    height, width = image.hw
    donor_h, donor_w = donor.mask.shape
    for _ in range(5):
        # the mean side of the box, 20 % to 55 % of the image's; enlarged at most 1.5 times, else it shows
        side = float(rng.uniform(0.2, 0.55)) * (height * width) ** 0.5
        scale = min(side / (donor_h * donor_w) ** 0.5, 1.5, 0.9 * height / donor_h, 0.9 * width / donor_w)
        h, w = max(1, round(donor_h * scale)), max(1, round(donor_w * scale))
        x1, y1 = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        window = (x1, y1, x1 + w, y1 + h)
        hides = (
            area(intersect(i.box_xyxy_px, window)) > 0.5 * area(i.box_xyxy_px)
            for i in image.instances
            if not i.is_crowd
        )
        if not any(hides):
            return window
    return None
