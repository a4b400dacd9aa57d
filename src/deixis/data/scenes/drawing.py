"""Place things in an image: rasterise each, and say exactly which of its pixels can be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deixis.data.scenes.outlines import OUTLINES
from deixis.data.scenes.world import Seen, Thing
from deixis.structures import BoxXyxy

VISIBLE_ENOUGH = 0.5
"""A thing of which less than this fraction can be seen is left out of the scene."""

_OVERSAMPLE = 4
_HALF = 128


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A thing's coverage on a small canvas of its own, and where that canvas lies in the image."""

    coverage: Image.Image
    """Mode L: 255 within the thing, less on its soft edge."""
    inside: NDArray[np.bool_]
    """[h, w]: the pixels that are the thing's, those covered by half or more."""
    left: int
    top: int

    def window(self, size: int) -> tuple[slice, slice]:
        """The (rows, columns) of a size x size image upon which the stamp falls."""
        height, width = self.inside.shape
        y1, x1 = max(0, self.top), max(0, self.left)
        return slice(y1, max(y1, min(size, self.top + height))), slice(x1, max(x1, min(size, self.left + width)))

    def cut(self, size: int) -> NDArray[np.bool_]:
        """The part of ``inside`` that falls upon the image."""
        rows, cols = self.window(size)
        return self.inside[rows.start - self.top : rows.stop - self.top, cols.start - self.left : cols.stop - self.left]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The things that can be seen well enough, from back to front, with their pixels."""

    things: tuple[Thing, ...]
    seen: tuple[Seen, ...]
    masks: NDArray[np.bool_]  # [N, size, size]: the visible pixels
    stamps: tuple[Stamp, ...]
    size: int


def place(things: Sequence[Thing], size: int) -> Drawing:
    """Find every thing's visible pixels in a size x size image; things hidden too far are dropped, hindmost first."""
    kept = list(things)
    stamps = [_stamp(thing, size) for thing in kept]
    while True:
        whole = np.zeros((len(kept), size, size), dtype=bool)
        for k, stamp in enumerate(stamps):
            whole[k, *stamp.window(size)] = stamp.cut(size)
        areas = np.array([np.count_nonzero(stamp.inside) for stamp in stamps])
        visible = _uncovered(whole)
        left_over = np.array([np.count_nonzero(mask) for mask in visible])
        poor = np.flatnonzero(left_over < VISIBLE_ENOUGH * np.maximum(areas, 1))
        if not poor.size:
            break
        del kept[poor[0]], stamps[poor[0]]
    seen = tuple(_see(k, kept, whole, visible, areas, stamps[k]) for k in range(len(kept)))
    return Drawing(things=tuple(kept), seen=seen, masks=visible, stamps=tuple(stamps), size=size)


def _uncovered(whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take from each mask [N, H, W] the pixels of those in front of it."""
    visible = whole.copy()
    covered = np.zeros(whole.shape[1:], dtype=bool)
    for k in range(len(whole) - 1, -1, -1):
        visible[k] &= ~covered
        covered |= whole[k]
    return visible


def _see(
    k: int,
    things: Sequence[Thing],
    whole: NDArray[np.bool_],
    visible: NDArray[np.bool_],
    areas: NDArray[np.int_],
    stamp: Stamp,
) -> Seen:
    size = whole.shape[1]
    rows, cols = stamp.window(size)
    hidden_by: dict[int, float] = {}
    for other in range(k + 1, len(things)):
        shared = np.count_nonzero(whole[k, rows, cols] & whole[other, rows, cols])
        if shared:
            hidden_by[other] = float(shared / areas[k])
    thing = things[k]
    return Seen(
        shape=thing.shape,
        colour=thing.colour,
        size=thing.size,
        texture=thing.texture,
        extent=2 * thing.radius,
        box_xyxy_norm=_box_norm(visible[k, rows, cols], cols.start, rows.start, size),
        outline_xyxy_norm=_box_norm(stamp.inside, stamp.left, stamp.top, size),
        hidden_by=hidden_by,
    )


def _box_norm(mask: NDArray[np.bool_], left: int, top: int, size: int) -> BoxXyxy:
    """The box of a mask's pixels, as fractions of the image, where the mask's corner is at (left, top) pixels."""
    xs, ys = np.flatnonzero(mask.any(axis=0)) + left, np.flatnonzero(mask.any(axis=1)) + top
    return float(xs[0] / size), float(ys[0] / size), float((xs[-1] + 1) / size), float((ys[-1] + 1) / size)


def _stamp(thing: Thing, size: int) -> Stamp:
    """Rasterise a thing with soft edges; big enough that nothing is cut by the stamp's own border."""
    outer, hole = OUTLINES[thing.shape]
    turn = np.array([[math.cos(thing.angle), math.sin(thing.angle)], [-math.sin(thing.angle), math.cos(thing.angle)]])
    points = outer @ turn * (thing.radius * size) + (thing.x * size, thing.y * size)
    left, top = (int(v) - 1 for v in np.floor(points.min(axis=0)))
    right, bottom = (int(v) + 1 for v in np.ceil(points.max(axis=0)))
    canvas = Image.new("L", ((right - left) * _OVERSAMPLE, (bottom - top) * _OVERSAMPLE))
    draw = ImageDraw.Draw(canvas)
    draw.polygon(_corners(points, left, top), fill=255)
    if hole is not None:
        inner = hole @ turn * (thing.radius * size) + (thing.x * size, thing.y * size)
        draw.polygon(_corners(inner, left, top), fill=0)
    coverage = canvas.reduce(_OVERSAMPLE)
    return Stamp(coverage=coverage, inside=np.asarray(coverage) >= _HALF, left=left, top=top)


def _corners(points: NDArray[np.float64], left: int, top: int) -> list[float]:
    return ((points - (left, top)) * _OVERSAMPLE).ravel().tolist()
