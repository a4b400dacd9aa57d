"""Sample what stands where: things with their looks, arranged so that there is something to say about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deixis.data.scenes.outlines import HOLE_RADIUS
from deixis.data.scenes.vocabulary import COLOURS, HELD_OUT_PAIRS, SHAPES, SIZES, TEXTURES
from deixis.data.scenes.world import Thing

RADIUS: dict[str, tuple[float, float]] = {"small": (0.062, 0.076), "medium": (0.108, 0.128), "large": (0.18, 0.215)}
"""Bounds of a thing's radius in each size: neighbours are at least 1.4 times apart."""

MAX_THINGS = 10
_TURN: dict[str, float] = {"square": 0.2, "triangle": 0.35, "heart": 0.35, "cross": 0.25, "diamond": 0.15}
_CONTAINERS = ("ring", "circle", "square", "heart")
_PLAIN_SHARE = 0.46


@dataclass
class _Stage:
    """The scene while it is being arranged."""

    rng: np.random.Generator
    split: str
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    things: list[Thing]

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def look(self, shape: str | None = None, not_colours: Sequence[str] = ()) -> tuple[str, str]:
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

    def add(self, look: tuple[str, str], size: str, radius: float, x: float, y: float) -> Thing:
        shape, colour = look
        thing = Thing(
            shape=shape,
            colour=colour,
            size=size,
            texture=self.texture(),
            x=x,
            y=y,
            radius=radius,
            angle=self.angle(shape),
        )
        self.things.append(thing)
        return thing

    def is_free(self, x: float, y: float, radius: float) -> bool:
        """Whether a thing may stand there without running into another."""
        return all(math.hypot(x - t.x, y - t.y) > 1.08 * (radius + t.radius) for t in self.things)

    def spot(self, radius: float, tries: int = 25) -> tuple[float, float] | None:
        """A free place for a thing of that radius, which may be cut a little by the image's edge."""
        edge = 0.85 * radius
        for x, y in self.rng.uniform(edge, 1 - edge, (tries, 2)):
            if self.is_free(x, y, radius):
                return float(x), float(y)
        return None


def sample_things(flavour: str, split: str, rng: np.random.Generator) -> list[Thing]:
    """Arrange 2 to 10 things, from back to front; a few may turn out hidden too far and are dropped when drawn."""
    stage = _start(split, rng)
    count = int(rng.integers(6, MAX_THINGS + 1)) if split == "testA" else int(rng.integers(3, 9))
    for place, chance in _ARRANGEMENTS[flavour]:
        if rng.random() < chance and len(stage.things) + 2 <= count:
            place(stage, count)
    sizes = list(SIZES)
    while len(stage.things) < count:
        size = sizes[int(rng.choice(3, p=(0.3, 0.42, 0.28)))]
        radius = stage.radius(size)
        spot = stage.spot(radius)
        if spot is None and size == "small":
            break
        if spot is None:
            size, radius = "small", stage.radius("small")
            spot = stage.spot(radius)
        if spot is None:
            break
        stage.add(stage.look(), size, radius, *spot)
    return stage.things[:MAX_THINGS]


def _start(split: str, rng: np.random.Generator) -> _Stage:
    names, colours = list(SHAPES), list(COLOURS)
    num_shapes = 2 if split == "testA" else int(rng.integers(2, 5))
    shapes = tuple(names[i] for i in rng.permutation(len(names))[:num_shapes])
    if split == "testA":
        shapes = (shapes[0],) * 4 + shapes[1:]
    favoured = tuple(colours[i] for i in rng.permutation(len(colours))[: int(rng.integers(2, 6))])
    return _Stage(rng=rng, split=split, shapes=shapes, colours=favoured, things=[])


def _place_row(stage: _Stage, count: int) -> None:
    """Three or more alike things side by side, or one above the other."""
    num = min(count - len(stage.things), int(stage.rng.integers(3, 6)))
    if num < 3:
        return
    size = "small" if num > 4 or stage.rng.random() < 0.4 else "medium"
    shape = stage.look()[0]
    upright = stage.rng.random() < 0.25
    across = float(stage.rng.uniform(0.2, 0.8))
    gaps = stage.rng.dirichlet(np.full(num + 1, 6.0))
    radius = stage.radius(size)
    start, step = 0.08 + 0.1 * gaps[0], (0.84 - 0.1 * gaps[0]) / (num - 1)
    for k in range(num):
        along = start + k * step + float(stage.rng.uniform(-0.15, 0.15)) * max(0.0, step - 2.2 * radius)
        side = across + float(stage.rng.uniform(-0.05, 0.05))
        x, y = (side, along) if upright else (along, side)
        if stage.is_free(x, y, radius):
            stage.add(stage.look(shape), size, radius, float(np.clip(x, 0.06, 0.94)), y)


def _place_overlap(stage: _Stage, count: int) -> None:
    """One thing half behind another of another colour."""
    size = "large" if stage.rng.random() < 0.5 else "medium"
    radius = stage.radius(size)
    spot = stage.spot(radius)
    if spot is None:
        return
    look = stage.look()
    front_look = stage.look(not_colours=(look[1],))
    front_size = "medium" if size == "large" or stage.rng.random() < 0.6 else "small"
    front_radius = stage.radius(front_size)
    for turn in stage.rng.uniform(0, 2 * math.pi, 8):
        reach = float(stage.rng.uniform(0.62, 0.8)) * (radius + front_radius)
        x, y = spot[0] + reach * math.cos(turn), spot[1] + reach * math.sin(turn)
        inside = min(x, y) > 0.85 * front_radius and max(x, y) < 1 - 0.85 * front_radius
        if inside and stage.is_free(x, y, front_radius):
            stage.add(look, size, radius, *spot)
            stage.add(front_look, front_size, front_radius, x, y)
            return


def _place_inside(stage: _Stage, count: int) -> None:
    """A small thing in a ring's hole, or on a large thing of another colour."""
    radius = stage.radius("large")
    spot = stage.spot(radius, tries=50)
    if spot is None:
        return
    shape = "ring" if stage.rng.random() < 0.6 else stage.pick(_CONTAINERS)
    look = stage.look(shape)
    stage.add(look, "large", radius, *spot)
    slack = 0.25 * (HOLE_RADIUS * radius - RADIUS["small"][0])
    dx, dy = stage.rng.uniform(-slack, slack, 2)
    inner = stage.look(not_colours=(look[1],))
    stage.add(inner, "small", stage.radius("small"), spot[0] + float(dx), spot[1] + float(dy))


def _place_between(stage: _Stage, count: int) -> None:
    """Three things on one line."""
    if len(stage.things) + 3 > count:
        return
    turn = float(stage.rng.uniform(0, math.pi))
    reach = float(stage.rng.uniform(0.24, 0.32))
    x, y = stage.rng.uniform(0.42, 0.58, 2)
    for k in (-1, 0, 1):
        size = "small" if stage.rng.random() < 0.5 else "medium"
        radius = stage.radius(size)
        at = float(x + k * reach * math.cos(turn)), float(y + k * reach * math.sin(turn))
        if stage.is_free(*at, radius):
            stage.add(stage.look(), size, radius, *at)


_Placer = Callable[[_Stage, int], None]
_ARRANGEMENTS: dict[str, tuple[tuple[_Placer, float], ...]] = {
    "scenes": ((_place_inside, 0.15), (_place_overlap, 0.25), (_place_row, 0.4), (_place_between, 0.1)),
    "scenes+": ((_place_inside, 0.1), (_place_overlap, 0.3), (_place_row, 0.15)),
    "scenesg": ((_place_inside, 0.3), (_place_overlap, 0.45), (_place_between, 0.3), (_place_row, 0.2)),
}
