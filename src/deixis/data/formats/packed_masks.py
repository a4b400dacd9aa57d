"""Masks of annotation files kept small: eight bytes a coordinate instead of thirty-two."""

from __future__ import annotations

import math
import reprlib
from array import array
from typing import TypeAlias, cast

import numpy as np

from deixis.data.annotation_fields import mask_from_json
from deixis.geometry.masks import decode_rle, encode_rle, rasterize_polygons
from deixis.structures import Mask, Rle

PackedMask: TypeAlias = "tuple[array[float], ...] | Rle | None"
"""Polygons, an array [x, y, x, y, ...] each; or run lengths."""


def pack_mask(segmentation: object) -> PackedMask:
    """A COCO segmentation: polygons, run lengths, or a list of run lengths of parts; None where it is empty.

    Raises:
        ValueError: it is none of these.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list) and isinstance(segmentation[0], dict):
        return _union(segmentation)
    mask = mask_from_json(segmentation)
    return mask if isinstance(mask, dict) else tuple(array("d", one) for one in cast("list[list[float]]", mask))


def pack_polygons(segmentation: object) -> object:
    """Good polygons as a tuple of arrays; anything else as it came."""
    if not isinstance(segmentation, list) or not all(_is_polygon(polygon) for polygon in segmentation):
        return segmentation
    return tuple(array("d", polygon) for polygon in segmentation) or None


def unpack_mask(mask: PackedMask) -> Mask | None:
    """The mask as a `Sample` holds it."""
    return [polygon.tolist() for polygon in mask] if isinstance(mask, tuple) else mask


def merge_masks(masks: list[Mask | None], hw: tuple[int, int]) -> Mask | None:
    """The union of polygons and run lengths on an image of ``hw`` (height, width); None where one is missing."""
    if not masks or any(mask is None for mask in masks):
        return None
    if all(isinstance(mask, list) for mask in masks):
        return [polygon for mask in masks for polygon in cast("list[list[float]]", mask)]
    drawn = [
        rasterize_polygons(cast("list[list[float]]", mask), hw)
        if isinstance(mask, list)
        else decode_rle(cast(Rle, mask))
        for mask in masks
    ]
    if len({one.shape for one in drawn}) > 1:
        raise ValueError(f"expected masks of one size {hw!r}, got several; correct them or leave them out")
    return encode_rle(np.logical_or.reduce(drawn))


def _is_polygon(value: object) -> bool:
    """What `mask_from_json` takes for a polygon, found with a tenth of the work."""
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2 or not set(map(type, value)) <= {int, float}:
        return False
    return max(map(abs, value)) < 1e9 and math.isfinite(sum(value))


def _union(parts: list[object]) -> Rle:
    """The run lengths of ReferItGame stand in a list: one for each part of the thing."""
    masks = [mask_from_json(part) for part in parts]
    if not all(isinstance(mask, dict) for mask in masks):
        raise ValueError(f"expected run lengths alone, got {reprlib.repr(parts)}; correct it or leave it out")
    whole = cast("list[Rle]", masks)
    if len(whole) == 1:
        return whole[0]
    decoded = [decode_rle(mask) for mask in whole]
    if len({mask.shape for mask in decoded}) > 1:
        raise ValueError("expected run lengths of one size, got several; correct them or leave them out")
    return encode_rle(np.logical_or.reduce(decoded))
