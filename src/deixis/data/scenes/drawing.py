"""Place instances in an image: rasterise each one, and work out exactly which of its pixels are visible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deixis.data.scenes.layout import HOLE_RADIUS, SceneInstance
from deixis.geometry.masks import box_from_mask
from deixis.structures import BoxXyxy

VISIBLE_ENOUGH = 0.5
"""An instance of which a smaller fraction is visible is left out of the scene."""

_OVERSAMPLE = 4
_HALF = 128


@dataclass(frozen=True, kw_only=True)
class InstanceFacts:
    """What is visible of one instance: all that a phrase may mention. Boxes are fractions of the image's side."""

    shape: str
    colour: str
    size: str
    texture: str
    extent: float
    """Twice the radius of the whole instance, even if part of it is hidden."""
    box_xyxy_norm: BoxXyxy
    """The box of the visible pixels."""
    outline_xyxy_norm: BoxXyxy
    """The box of the whole instance, hidden parts included."""
    hidden_by: Mapping[int, float] = field(default_factory=dict)
    """Index of an instance in front -> the fraction of this one's pixels that it covers; only fractions above 0."""

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the visible box's centre, as fractions of the image's side."""
        x1, y1, x2, y2 = self.box_xyxy_norm
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """An instance's coverage on a small canvas of its own, and where that canvas lies in the image."""

    coverage: Image.Image
    """Mode L: 255 inside the instance, less on its soft edge."""
    inside: NDArray[np.bool_]
    """[h, w]: the pixels that belong to the instance, covered by half or more."""
    left: int
    top: int

    def window(self, size: int) -> tuple[slice, slice]:
        """The (rows, columns) of a size x size image that the stamp covers."""
        height, width = self.inside.shape
        y1, x1 = max(0, self.top), max(0, self.left)
        return slice(y1, max(y1, min(size, self.top + height))), slice(x1, max(x1, min(size, self.left + width)))

    def cut(self, size: int) -> NDArray[np.bool_]:
        """The part of ``inside`` that lies in the image."""
        rows, cols = self.window(size)
        return self.inside[rows.start - self.top : rows.stop - self.top, cols.start - self.left : cols.stop - self.left]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The instances that are visible enough, from back to front, with their pixels."""

    instances: tuple[SceneInstance, ...]
    facts: tuple[InstanceFacts, ...]
    masks: NDArray[np.bool_]  # [N, size, size]: the visible pixels
    stamps: tuple[Stamp, ...]
    size: int


def place(instances: Sequence[SceneInstance], size: int) -> Drawing:
    """Find the visible pixels of every instance in a size x size image; drop the mostly hidden, rearmost first."""
    kept = list(instances)
    stamps = [_stamp(instance, size) for instance in kept]
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
    facts = tuple(_facts(k, kept, whole, visible, areas, stamps[k]) for k in range(len(kept)))
    return Drawing(instances=tuple(kept), facts=facts, masks=visible, stamps=tuple(stamps), size=size)


def _uncovered(whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove from each mask [N, H, W] the pixels of the masks in front of it."""
    visible = whole.copy()
    covered = np.zeros(whole.shape[1:], dtype=bool)
    for k in range(len(whole) - 1, -1, -1):
        visible[k] &= ~covered
        covered |= whole[k]
    return visible


def _facts(
    k: int,
    instances: Sequence[SceneInstance],
    whole: NDArray[np.bool_],
    visible: NDArray[np.bool_],
    areas: NDArray[np.int_],
    stamp: Stamp,
) -> InstanceFacts:
    size = whole.shape[1]
    rows, cols = stamp.window(size)
    hidden_by: dict[int, float] = {}
    for other in range(k + 1, len(instances)):
        shared = np.count_nonzero(whole[k, rows, cols] & whole[other, rows, cols])
        if shared:
            hidden_by[other] = float(shared / areas[k])
    instance = instances[k]
    return InstanceFacts(
        shape=instance.shape,
        colour=instance.colour,
        size=instance.size,
        texture=instance.texture,
        extent=2 * instance.radius,
        box_xyxy_norm=_box_norm(visible[k, rows, cols], cols.start, rows.start, size),
        outline_xyxy_norm=_box_norm(stamp.inside, stamp.left, stamp.top, size),
        hidden_by=hidden_by,
    )


def _box_norm(mask: NDArray[np.bool_], left: int, top: int, size: int) -> BoxXyxy:
    """The box of a mask's pixels as fractions of the image, with the mask's corner at (left, top) pixels."""
    box = box_from_mask(mask)
    assert box is not None
    x1, y1, x2, y2 = box
    return (x1 + left) / size, (y1 + top) / size, (x2 + left) / size, (y2 + top) / size


def _stamp(instance: SceneInstance, size: int) -> Stamp:
    """Rasterise an instance with soft edges, on a canvas large enough to hold all of it."""
    outer, hole = OUTLINES[instance.shape]
    cos, sin = math.cos(instance.angle), math.sin(instance.angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    points = outer @ turn * (instance.radius * size) + (instance.x * size, instance.y * size)
    left, top = (int(v) - 1 for v in np.floor(points.min(axis=0)))
    right, bottom = (int(v) + 1 for v in np.ceil(points.max(axis=0)))
    canvas = Image.new("L", ((right - left) * _OVERSAMPLE, (bottom - top) * _OVERSAMPLE))
    draw = ImageDraw.Draw(canvas)
    draw.polygon(_corners(points, left, top), fill=255)
    if hole is not None:
        inner = hole @ turn * (instance.radius * size) + (instance.x * size, instance.y * size)
        draw.polygon(_corners(inner, left, top), fill=0)
    coverage = canvas.reduce(_OVERSAMPLE)
    return Stamp(coverage=coverage, inside=np.asarray(coverage) >= _HALF, left=left, top=top)


def _corners(points: NDArray[np.float64], left: int, top: int) -> list[float]:
    return ((points - (left, top)) * _OVERSAMPLE).ravel().tolist()


def _outlines() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
    """Each shape's outline and hole, centred on its box, whose area is scaled to 4."""
    turn = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    spikes = np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    star = spikes * np.stack([np.sin(np.arange(10) * math.pi / 5), -np.cos(np.arange(10) * math.pi / 5)], axis=1)
    heart_y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn))
    heart = np.stack([16 * np.sin(turn) ** 3, heart_y], axis=1)
    arm, end = 0.34, 1.0
    quarter = [(arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm), (arm, end)]
    cross = np.array([*quarter, *((-x, -y) for x, y in quarter)], dtype=float)
    arrow = [(-1, -0.28), (0.1, -0.28), (0.1, -0.78), (1, 0), (0.1, 0.78), (0.1, 0.28), (-1, 0.28)]
    raw = {
        "circle": circle,
        "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float),
        "triangle": np.array([(0, -1), (1, 0.8), (-1, 0.8)], dtype=float),
        "star": star,
        "heart": heart,
        "cross": cross,
        "ring": circle,
        "diamond": np.array([(0, -1.3), (0.9, 0), (0, 1.3), (-0.9, 0)], dtype=float),
        "crescent": _crescent(),
        "arrow": np.array(arrow, dtype=float),
    }
    fitted = {name: fit_outline(points) for name, points in raw.items()}
    return {name: (points, HOLE_RADIUS * circle if name == "ring" else None) for name, points in fitted.items()}


def _crescent() -> NDArray[np.float64]:
    """A unit circle with a bite out of it."""
    moon_x, moon_r = 0.42, 0.78  # the bite's centre and radius
    tip = (1 - moon_r**2 + moon_x**2) / (2 * moon_x)
    back = np.linspace(math.acos(tip), 2 * math.pi - math.acos(tip), 48)
    bite_end = math.atan2(math.sqrt(1 - tip**2), tip - moon_x)
    bite = np.linspace(2 * math.pi - bite_end, bite_end, 48)
    outer = np.stack([np.cos(back), np.sin(back)], axis=1)
    inner = np.stack([moon_r * np.cos(bite) + moon_x, moon_r * np.sin(bite)], axis=1)
    return np.concatenate([outer, inner])


def fit_outline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre an outline [P, 2] on its box and scale the box's area to 4."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) * 2 / math.sqrt(float(np.prod(high - low)))


OUTLINES = _outlines()
"""Shape -> its outline [P, 2] and that of its hole, or None: x to the right, y down, centred on the outline's box, the
area of which is 4, so that a radius of 1 means about the same size for every shape."""
