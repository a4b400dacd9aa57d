"""Masks of annotation files: kept small, joined, and read from the arrays that MCN and SimREC write."""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np

from deixis.data.annotation_fields import mask_from_json, shorten
from deixis.geometry.images import MAX_PIXELS
from deixis.geometry.masks import decode_rle, encode_rle, rasterize_polygons
from deixis.structures import Mask, Rle

PackedMask: TypeAlias = "tuple[array[float], ...] | Rle | Path | None"
"""Polygons, an array [x, y, x, y, ...] of eight bytes a number each; run lengths; or a file."""


def pack_mask(segmentation: object) -> PackedMask:
    """A COCO segmentation: polygons, run lengths, or a list of run lengths of parts; None where it is empty.

    Raises:
        ValueError: it is none of these.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, tuple):  # packed already
        return segmentation
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


def merge_masks(masks: list[PackedMask], hw: tuple[int, int]) -> PackedMask:
    """The union of polygons and run lengths on an image of ``hw`` (height, width); None where one is missing.

    Raises:
        ValueError: they are of several sizes, or one cannot be drawn.
    """
    if not masks or any(mask is None for mask in masks):
        return None
    if all(isinstance(mask, tuple) for mask in masks):
        return tuple(polygon for mask in masks for polygon in cast("tuple[array[float], ...]", mask))
    drawn = [rasterize_polygons(mask, hw) if isinstance(mask, tuple) else decode_rle(cast(Rle, mask)) for mask in masks]
    if len({one.shape for one in drawn}) > 1:
        raise ValueError(f"expected masks of one size {hw!r}, got several; correct them or leave them out")
    return encode_rle(np.logical_or.reduce(drawn))


def masks_folder(path: Path) -> Path | None:
    """The folder of arrays ``<referent>.npy`` of a file of annotations, where there is one.

    That is ``<file>.masks`` or ``masks`` beside it; or, as both releases lie, ``masks/refcoco`` where the file is
    ``anns/refcoco/train.txt``, ``anns/refcoco/refcoco.json`` or ``anns/refcoco.json``.
    """
    above = path.absolute().parent
    beside = (path.with_name(f"{path.name}.masks"), path.parent / "masks")
    release = (above.parent.parent / "masks" / above.name, above.parent / "masks" / path.stem)
    return next((folder for folder in (*beside, *release) if folder.is_dir()), None)


def mask_file(folder: Path, name: str) -> Path:
    """The array of a referent in a folder of masks; ValueError where there is none."""
    path = folder / f"{name}.npy"
    if not path.is_file():
        raise ValueError(f"expected {str(path)!r}, got no file; add it")
    return path


def read_mask_array(path: Path) -> Rle:
    """The array of a mask: whole numbers [H, W], where overlapping polygons may have given 2.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such array.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if found.ndim == 3 and found.shape[2] == 1:
            found = found[:, :, 0]
        if found.ndim != 2 or not 0 < found.size <= MAX_PIXELS or found.dtype.kind not in "biuf":
            raise ValueError(f"shape {found.shape!r} of {found.dtype}")
        return encode_rle(np.asarray(found) > 0)
    except FileNotFoundError:
        raise FileNotFoundError(f"expected the mask {str(path)!r}, got no file; add it") from None
    except Exception as error:  # a damaged header raises nearly everything
        raise ValueError(f"expected an array [H, W] in {str(path)!r}, got {error}; write it anew") from error


def _is_polygon(value: object) -> bool:
    """What `mask_from_json` takes for a polygon, found with a tenth of the work."""
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2 or not set(map(type, value)) <= {int, float}:
        return False
    return max(map(abs, value)) < 1e9 and math.isfinite(sum(value))


def _union(parts: list[object]) -> Rle:
    """The run lengths of ReferItGame stand in a list: one for each part of the thing."""
    masks = [mask_from_json(part) for part in parts]
    if not all(isinstance(mask, dict) for mask in masks):
        raise ValueError(f"expected run lengths alone, got {shorten(parts)}; correct it or leave it out")
    whole = cast("list[PackedMask]", masks)
    return cast(Rle, whole[0] if len(whole) == 1 else merge_masks(whole, (0, 0)))
