"""Facts of place, order, size and depth that distinguish an instance from its distractors.

Positions are shares of the image's width and height, 0 at the left and top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from deixis.structures import BoxXyxy

PLACE, ORDINAL, SIZE, DEPTH, COLOUR, RELATION = "place", "ordinal", "size", "depth", "colour", "relation"
_PICTURE = ("picture", "photo", "image")
_NOT_BY_DEPTH = frozenset(("airplane", "kite", "bird", "tv", "clock", "traffic light", "sports ball", "frisbee", "tie"))


@dataclass(frozen=True)
class Fact:
    """Something that is true of an instance, in words.

    ``before`` stands before the noun ("left dog"), ``after`` behind it ("dog on the left"), ``alone`` without
    any noun ("far left"), ``long`` behind it in a sentence (by default ``after``). ``possible`` are the instance and
    all distractors of which it may be true too. ``weight`` is how readily people choose it among others of its slot.
    """

    slot: str
    possible: frozenset[int]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    long: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Place:
    """An instance's geometry in shares of the image."""

    category: str
    x1: float
    y1: float
    x2: float
    y2: float
    area: float
    is_crowd: bool

    @property
    def width(self) -> float:
        """Share of the image's width."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Share of the image's height."""
        return self.y2 - self.y1

    def centre(self, axis: int) -> float:
        """Centre along ``axis``, 0 for x and 1 for y."""
        return (self.x1 + self.x2) / 2 if axis == 0 else (self.y1 + self.y2) / 2

    def extent(self, axis: int) -> float:
        """Extent along ``axis``, 0 for x and 1 for y."""
        return self.width if axis == 0 else self.height


def place_of(category: str, box_xyxy_px: BoxXyxy, hw: tuple[int, int], *, is_crowd: bool) -> Place:
    """The place of a box in an image of ``hw`` pixels; its area is the box's."""
    x1, y1, x2, y2 = box_xyxy_px
    x1, x2 = (min(max(x / hw[1], 0.0), 1.0) for x in (x1, x2))
    y1, y2 = (min(max(y / hw[0], 0.0), 1.0) for y in (y1, y2))
    return Place(category, x1, y1, x2, y2, max(x2 - x1, 0.0) * max(y2 - y1, 0.0), is_crowd)


def place_facts(places: Sequence[Place], index: int, distractors: Sequence[int]) -> list[Fact]:
    """Where ``index`` is among ``distractors`` (itself left out), or in the image where it has none."""
    only_me = frozenset({index})
    sides = [s for s in ("left", "right", "top", "bottom") if _is_outermost(places, index, distractors, s)]
    sideways = not {"left", "right"}.isdisjoint(sides)
    facts = []
    for side in sides:
        weight = 3.0 if side in ("left", "right") else 0.5 if sideways or not distractors else 1.2
        words = _side_words(side, _edge_distance(places[index], side) < 0.3, several=bool(distractors))
        facts.append(Fact(PLACE, only_me, *words, weight=weight))
    corner = _corner(places, index, distractors)
    if corner:
        facts.append(Fact(PLACE, only_me, *_corner_words(*corner)))
    if _is_in_middle(places, index, distractors):
        before = ("middle", "center", "middle") if distractors else ("center",)
        after = ("in the middle", "in middle", "in the center", "in center", "middle", "at center")
        alone = ("middle", "center", "in the middle")
        long = tuple(f"in the {m} of the {p}" for m in ("middle", "center") for p in _PICTURE)
        facts.append(Fact(PLACE, only_me, before, after, alone, long, weight=2.0 if distractors else 0.4))
    return facts


def ordinal_facts(places: Sequence[Place], index: int, distractors: Sequence[int]) -> list[Fact]:
    """Its count from the left or right in a row of three to six clearly separate instances; often none."""
    row = [*distractors, index]
    if not 3 <= len(row) <= 6 or any(places[i].is_crowd for i in row):
        return []
    areas = [places[i].area for i in row]
    if min(areas) < 0.2 * max(areas) or np.ptp([places[i].centre(1) for i in row]) > 0.25:
        return []
    row.sort(key=lambda i: places[i].centre(0))
    gaps = [places[b].centre(0) - places[a].centre(0) for a, b in pairwise(row)]
    needed = max(0.05, 0.3 * float(np.median([places[i].width for i in row])))
    if min(gaps) < needed:
        return []
    facts = []
    for side, rank in (("left", row.index(index)), ("right", len(row) - 1 - row.index(index))):
        if rank <= 2 and rank < len(row) - 1:
            facts.append(Fact(ORDINAL, frozenset({index}), *_ordinal_words(rank, side)))
    return facts


def size_facts(places: Sequence[Place], index: int, distractors: Sequence[int]) -> list[Fact]:
    """Biggest, smallest or tallest among ``distractors`` by a clear margin; none without distractors."""
    mine = places[index]
    if not distractors:
        return []
    others = [places[i].area for i in distractors]
    only_me = frozenset({index})
    facts = []
    if mine.area >= 1.8 * max(others) and not any(places[i].is_crowd for i in distractors):
        facts.append(Fact(SIZE, only_me, ("big", "biggest", "largest", "large", "bigger")))
    if mine.area <= min(others) / 1.8:
        facts.append(Fact(SIZE, only_me, ("small", "smallest", "little", "smaller", "tiny")))
    # a person's height in the image says who sits and who stands far away, not who is tall
    upright = mine.category != "person" and all(places[i].height > 1.2 * places[i].width for i in (*distractors, index))
    if upright and mine.height >= 1.4 * max(places[i].height for i in distractors):
        facts.append(Fact(SIZE, only_me, ("tallest", "tall")))
    return facts


def depth_facts(places: Sequence[Place], index: int, distractors: Sequence[int]) -> list[Fact]:
    """Nearest or farthest: of what stands on the ground, the much larger and lower one is nearer the camera."""
    mine = places[index]
    if mine.category in _NOT_BY_DEPTH or any(places[i].is_crowd for i in distractors):
        return []
    others = [places[i] for i in distractors]
    only_me = frozenset({index})
    if not distractors:
        words = ("in the foreground", "in front", "in the front", "up front")
        return [Fact(DEPTH, only_me, (), words)] if mine.area > 0.2 and mine.y2 > 0.9 else []
    if all(_is_nearer(mine, o) for o in others):
        before = ("front", "closest", "nearest", "front")
        after = ("in front", "closest to us", "in the front", "closest", "in the foreground", "front")
        after += ("closest to the camera", "nearest to us", "up front", "closest to camera")
        long = ("closest to the camera", "in the foreground", "in the front of the picture", "nearest to the camera")
        return [Fact(DEPTH, only_me, before, after, ("closest to us", "front", "closest"), long)]
    if all(_is_nearer(o, mine) and mine.height < 0.85 * o.height for o in others):
        after = ("in back", "in the back", "in background", "in the background", "farthest away", "furthest back")
        long = ("in the background", "in the background of the photo", "farthest away from the camera", "in the back")
        return [Fact(DEPTH, only_me, ("back", "farthest", "furthest"), after, ("in back", "in the back"), long)]
    return []


def standing_alone(places: Sequence[Place], index: int) -> list[Fact]:
    """Places that need no noun: ``index`` is by far the foremost instance there, whatever the category."""
    mine = places[index]
    if mine.area < 0.05:
        return []
    others = [i for i, p in enumerate(places) if i != index and p.area >= 0.2 * mine.area]
    facts = []
    for fact in place_facts(places, index, others):
        if fact.weight >= 1 and (others or not _spans(mine)):
            facts.append(Fact(PLACE, fact.possible, alone=fact.alone))
    return facts


def _is_nearer(a: Place, b: Place) -> bool:
    """True where ``a`` surely is nearer the camera: larger and reaching lower, or much larger and as low."""
    return (a.area >= 1.6 * b.area and a.y2 >= b.y2 + 0.03) or (a.area >= 2.5 * b.area and a.y2 >= b.y2 - 0.005)


def _spans(place: Place) -> bool:
    return place.width > 0.7 and place.height > 0.7


def _edge_distance(place: Place, side: str) -> float:
    centre = place.centre(0 if side in ("left", "right") else 1)
    return centre if side in ("left", "top") else 1.0 - centre


def _is_outermost(places: Sequence[Place], index: int, distractors: Sequence[int], side: str) -> bool:
    """True where ``index`` lies nearest to ``side`` by a clear margin (and there at all, without distractors)."""
    axis, sign = (0 if side in ("left", "right") else 1), (1.0 if side in ("left", "top") else -1.0)
    mine = places[index]
    if not distractors:
        far_edge = (mine.x2, 1 - mine.x1, mine.y2, 1 - mine.y1)[("left", "right", "top", "bottom").index(side)]
        return _edge_distance(mine, side) < 0.4 and far_edge < (0.7 if axis == 0 else 0.62)
    least = 0.06 if axis == 0 else 0.12
    if _edge_distance(mine, side) > 0.52:
        return False
    for i in distractors:
        other = places[i]
        at = other.centre(axis)
        if other.is_crowd:  # a crowd reaches to its edge, not to its centre
            at -= sign * other.extent(axis) / 2
        if sign * (at - mine.centre(axis)) < max(least, 0.35 * min(mine.extent(axis), other.extent(axis))):
            return False
    return True


def _corner(places: Sequence[Place], index: int, distractors: Sequence[int]) -> tuple[str, str] | None:
    """("top", "left") and so on, where ``index`` and no distractor is in that corner."""
    mine = places[index]
    if mine.width > 0.6 or mine.height > 0.6:
        return None
    row = "top" if mine.centre(1) < 0.36 else "bottom" if mine.centre(1) > 0.64 else None
    column = "left" if mine.centre(0) < 0.36 else "right" if mine.centre(0) > 0.64 else None
    if row is None or column is None:
        return None
    mine_away = _edge_distance(mine, row) + _edge_distance(mine, column)
    for other in (places[i] for i in distractors):
        dx, dy = _edge_distance(other, column), _edge_distance(other, row)
        if other.is_crowd or dx + dy - mine_away < 0.25 or (dx < 0.45 and dy < 0.45):
            return None
    return row, column


def _is_in_middle(places: Sequence[Place], index: int, distractors: Sequence[int]) -> bool:
    """True for the only one near the middle of the width, with all distractors clearly to the sides."""
    mine = places[index].centre(0)
    if not 0.36 < mine < 0.64 or any(places[i].is_crowd for i in distractors):
        return False
    if not distractors:
        return 0.42 < mine < 0.58 and places[index].width < 0.6
    others = [places[i].centre(0) for i in distractors]
    margins = [max(0.12, 0.4 * min(places[i].width, places[index].width)) for i in distractors]
    flanked = min(others) < mine < max(others)
    return flanked and all(abs(o - mine) > m and abs(o - 0.5) > 0.15 for o, m in zip(others, margins, strict=True))


Words = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _side_words(side: str, at_edge: bool, *, several: bool) -> Words:
    """Words before, behind, instead of and, in a sentence, behind the noun; without distractors none is "leftmost"."""
    whole = tuple(f"on the {side} side of the {p}" for p in _PICTURE)
    if side in ("top", "bottom"):
        other = {"top": "upper", "bottom": "lower"}[side]
        after = (f"on {side}", f"at the {side}", f"on the {side}", f"at {side}", side, f"at the {side} of the picture")
        long = (f"at the {side}", *(f"at the {side} of the {p}" for p in _PICTURE))
        return (side, side, other), after, (side, f"at the {side}"), long
    before = (side, side, side)
    after = (*(f"on {side}",) * 3, *(f"on the {side}",) * 4, side, f"to the {side}", f"on {side} side", f"at {side}")
    after += (f"on the {side} side",)
    alone = (side, f"on {side}", f"on the {side}", f"{side} side")
    long = (f"on the {side}", f"on the {side} side", f"on the {side} hand side", f"to the {side}", *whole)
    if several:
        before += (f"{side} most", f"{side}most")
    if at_edge:
        before += (f"far {side}", f"far {side}")
        after += (f"far {side}", f"on far {side}", f"on the far {side}", whole[0], f"to the far {side}")
        alone += (f"far {side}", f"far {side}")
        long += (f"on the far {side}", *(f"on the far {side} of the {p}" for p in _PICTURE))
    return before, after, alone, long


def _corner_words(row: str, column: str) -> Words:
    other = {"top": "upper", "bottom": "lower"}[row]
    after = (f"{row} {column}", f"on {row} {column}", f"in {row} {column}", f"{column} {row}", f"{other} {column}")
    after += (f"{row} {column} corner", f"in the {row} {column}", f"in {other} {column}")
    alone = (f"{row} {column}", f"{row} {column} corner", f"{other} {column}", f"{column} {row}")
    long = tuple(f"in the {r} {column} corner of the {p}" for r in (row, other) for p in _PICTURE)
    return (f"{row} {column}", f"{other} {column}", f"{row} {column}"), after, alone, (*long, f"in the {row} {column}")


def _ordinal_words(rank: int, side: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    word, digits = (("first", "1st"), ("second", "2nd"), ("third", "3rd"))[rank]
    tails = (
        f"from {side}",
        f"from the {side}",
        f"from {side}",
        f"on the {side}" if rank == 0 else f"in from the {side}",
    )
    # "second ... from the left": the ordinal goes before the noun and the side behind it; {n} marks the noun
    framed = tuple(f"{w} {{n}} {t}" for w in (word, word, digits) for t in tails)
    return (), framed, tuple(f"{w} {t}" for w in (word, word, digits) for t in tails[:3])
