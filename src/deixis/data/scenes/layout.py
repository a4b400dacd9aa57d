"""Sample a scene's layout: instances with their appearance, arranged so that there is something to say about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deixis.data.scenes.vocabulary import COLOURS, HELD_OUT_PAIRS, SHAPES, SIZES, TEXTURES

HOLE_RADIUS = 0.58
"""The ring's hole, as a fraction of its radius."""
RADIUS: dict[str, tuple[float, float]] = {"small": (0.062, 0.076), "medium": (0.108, 0.128), "large": (0.18, 0.215)}
"""Bounds of the radius for each size; neighbouring sizes are at least a factor of 1.4 apart."""

_MAX_INSTANCES = 10
_TURN: dict[str, float] = {"square": 0.2, "triangle": 0.35, "heart": 0.35, "cross": 0.25, "diamond": 0.15}
_CONTAINERS = ("ring", "circle", "square", "heart")
_PLAIN_SHARE = 0.46


@dataclass(frozen=True, kw_only=True)
class SceneInstance:
    """One instance to draw. Lengths are fractions of the image's side; lists of instances run from back to front."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    """Half the square root of the area of the box around the unrotated shape."""
    angle: float = 0.0
    """Radians, clockwise on the screen."""


@dataclass
class _Layout:
    """The scene while it is being arranged."""

    rng: np.random.Generator
    split: str
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    instances: list[SceneInstance]

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def appearance(self, shape: str | None = None, not_colours: Sequence[str] = ()) -> tuple[str, str]:
        """A (shape, colour) pair that the split may draw."""
        shape = shape or self.shapes[0 if self.rng.random() < 0.5 else int(self.rng.integers(len(self.shapes)))]
        held_out = [colour for colour in COLOURS if (shape, colour) in HELD_OUT_PAIRS and colour not in not_colours]
        if self.split == "testB" and held_out and self.rng.random() < 0.55:
            return shape, self.pick(held_out)
        free = [c for c in COLOURS if (shape, c) not in HELD_OUT_PAIRS and c not in not_colours]
        favoured = [colour for colour in free if colour in self.colours]
        return shape, self.pick(favoured if favoured and self.rng.random() < 0.75 else free)

    def texture(self) -> str:
        return "plain" if self.rng.random() < _PLAIN_SHARE else self.pick(list(TEXTURES)[1:])

    def radius(self, size: str) -> float:
        return float(self.rng.uniform(*RADIUS[size]))

    def angle(self, shape: str) -> float:
        turn = _TURN.get(shape, math.pi)
        return float(self.rng.uniform(-turn, turn))

    def add(self, appearance: tuple[str, str], size: str, radius: float, x: float, y: float) -> None:
        shape, colour = appearance
        texture, angle = self.texture(), self.angle(shape)
        self.instances.append(
            SceneInstance(shape=shape, colour=colour, size=size, texture=texture, x=x, y=y, radius=radius, angle=angle)
        )

    def is_free(self, x: float, y: float, radius: float) -> bool:
        """Whether an instance fits there without touching another."""
        return all(math.hypot(x - t.x, y - t.y) > 1.08 * (radius + t.radius) for t in self.instances)

    def spot(self, radius: float, tries: int = 25) -> tuple[float, float] | None:
        """A free place for an instance of that radius, which the image's edge may cut slightly."""
        edge = 0.85 * radius
        for x, y in self.rng.uniform(edge, 1 - edge, (tries, 2)):
            if self.is_free(x, y, radius):
                return float(x), float(y)
        return None


def sample_layout(flavour: str, split: str, rng: np.random.Generator) -> list[SceneInstance]:
    """Arrange 2 to 10 instances, from back to front; drawing drops those that turn out mostly hidden."""
    layout = _start(split, rng)
    count = int(rng.integers(6, _MAX_INSTANCES + 1)) if split == "testA" else int(rng.integers(3, 9))
    for place, chance in _ARRANGEMENTS[flavour]:
        if rng.random() < chance and len(layout.instances) + 2 <= count:
            place(layout, count)
    sizes = list(SIZES)
    while len(layout.instances) < count:
        size = sizes[int(rng.choice(3, p=(0.3, 0.42, 0.28)))]
        radius = layout.radius(size)
        spot = layout.spot(radius)
        if spot is None and size == "small":
            break
        if spot is None:
            size, radius = "small", layout.radius("small")
            spot = layout.spot(radius)
        if spot is None:
            break
        layout.add(layout.appearance(), size, radius, *spot)
    return layout.instances[:_MAX_INSTANCES]


def _start(split: str, rng: np.random.Generator) -> _Layout:
    names, colours = list(SHAPES), list(COLOURS)
    num_shapes = 2 if split == "testA" else int(rng.integers(2, 5))
    shapes = tuple(names[i] for i in rng.permutation(len(names))[:num_shapes])
    if split == "testA":
        shapes = (shapes[0],) * 4 + shapes[1:]
    favoured = tuple(colours[i] for i in rng.permutation(len(colours))[: int(rng.integers(2, 6))])
    return _Layout(rng=rng, split=split, shapes=shapes, colours=favoured, instances=[])


def _place_row(layout: _Layout, count: int) -> None:
    """Three or more similar instances in a row or a column."""
    num = min(count - len(layout.instances), int(layout.rng.integers(3, 6)))
    if num < 3:
        return
    size = "small" if num > 4 or layout.rng.random() < 0.4 else "medium"
    shape = layout.appearance()[0]
    upright = layout.rng.random() < 0.25
    across = float(layout.rng.uniform(0.2, 0.8))
    gaps = layout.rng.dirichlet(np.full(num + 1, 6.0))
    radius = layout.radius(size)
    start, step = 0.08 + 0.1 * gaps[0], (0.84 - 0.1 * gaps[0]) / (num - 1)
    for k in range(num):
        along = start + k * step + float(layout.rng.uniform(-0.15, 0.15)) * max(0.0, step - 2.2 * radius)
        side = across + float(layout.rng.uniform(-0.05, 0.05))
        x, y = (side, along) if upright else (along, side)
        if layout.is_free(x, y, radius):
            layout.add(layout.appearance(shape), size, radius, float(np.clip(x, 0.06, 0.94)), y)


def _place_overlap(layout: _Layout, count: int) -> None:
    """One instance half hidden by another of a different colour."""
    size = "large" if layout.rng.random() < 0.5 else "medium"
    radius = layout.radius(size)
    spot = layout.spot(radius)
    if spot is None:
        return
    appearance = layout.appearance()
    front_appearance = layout.appearance(not_colours=(appearance[1],))
    front_size = "medium" if size == "large" or layout.rng.random() < 0.6 else "small"
    front_radius = layout.radius(front_size)
    for turn in layout.rng.uniform(0, 2 * math.pi, 8):
        reach = float(layout.rng.uniform(0.62, 0.8)) * (radius + front_radius)
        x, y = spot[0] + reach * math.cos(turn), spot[1] + reach * math.sin(turn)
        inside = min(x, y) > 0.85 * front_radius and max(x, y) < 1 - 0.85 * front_radius
        if inside and layout.is_free(x, y, front_radius):
            layout.add(appearance, size, radius, *spot)
            layout.add(front_appearance, front_size, front_radius, x, y)
            return


def _place_inside(layout: _Layout, count: int) -> None:
    """A small instance in the hole of a ring, or on a large instance of a different colour."""
    radius = layout.radius("large")
    spot = layout.spot(radius, tries=50)
    if spot is None:
        return
    shape = "ring" if layout.rng.random() < 0.6 else layout.pick(_CONTAINERS)
    appearance = layout.appearance(shape)
    layout.add(appearance, "large", radius, *spot)
    slack = 0.25 * (HOLE_RADIUS * radius - RADIUS["small"][0])
    dx, dy = layout.rng.uniform(-slack, slack, 2)
    inner = layout.appearance(not_colours=(appearance[1],))
    layout.add(inner, "small", layout.radius("small"), spot[0] + float(dx), spot[1] + float(dy))


def _place_between(layout: _Layout, count: int) -> None:
    """Three instances on one line."""
    if len(layout.instances) + 3 > count:
        return
    turn = float(layout.rng.uniform(0, math.pi))
    reach = float(layout.rng.uniform(0.24, 0.32))
    x, y = layout.rng.uniform(0.42, 0.58, 2)
    for k in (-1, 0, 1):
        size = "small" if layout.rng.random() < 0.5 else "medium"
        radius = layout.radius(size)
        at = float(x + k * reach * math.cos(turn)), float(y + k * reach * math.sin(turn))
        if layout.is_free(*at, radius):
            layout.add(layout.appearance(), size, radius, *at)


_Placer = Callable[[_Layout, int], None]
_ARRANGEMENTS: dict[str, tuple[tuple[_Placer, float], ...]] = {
    "scenes": ((_place_inside, 0.15), (_place_overlap, 0.25), (_place_row, 0.4), (_place_between, 0.1)),
    "scenes+": ((_place_inside, 0.1), (_place_overlap, 0.3), (_place_row, 0.15)),
    "scenesg": ((_place_inside, 0.3), (_place_overlap, 0.45), (_place_between, 0.3), (_place_row, 0.2)),
}
