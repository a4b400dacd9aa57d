"""The writer's own judgement of what is plain to see. The checker does not use it: it has its own, in other words.

Every rule comes as two margins: what the referent must reach to be *clearly* so, and what every other thing must
stay below to be clearly *not* so. Lengths are fractions of the image's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from deixis.data.scenes.world import Seen

LONGER = 1.38
"""How many times longer the biggest must be than the next."""


def along(thing: Seen, side: str) -> float:
    """How far the thing's centre is from that side of the image."""
    x, y = thing.centre
    return {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}[side]


def on_side(world: Sequence[Seen], index: int, rivals: Sequence[int], side: str) -> bool:
    """Whether it is the one on that side among itself and its rivals."""
    own = along(world[index], side)
    if own > (0.46 if len(rivals) == 1 else 0.4):
        return False
    return all(along(world[j], side) > max(own + 0.18, 0.37) for j in rivals)


def in_corner(world: Sequence[Seen], index: int, rivals: Sequence[int], sides: tuple[str, str]) -> bool:
    """Whether it, and no rival, is in that corner of the image."""
    if any(along(world[index], side) > 0.37 for side in sides):
        return False
    return all(any(along(world[j], side) > 0.54 for side in sides) for j in rivals)


def in_middle(world: Sequence[Seen], index: int, rivals: Sequence[int]) -> bool:
    """Whether it is the one in the middle of the image, or of a row of three."""
    if len(rivals) == 2:
        return _amid_row(world, index, rivals)
    if _off_middle(world[index]) > 0.13:
        return False
    return all(_off_middle(world[j]) > 0.29 for j in rivals)


def _off_middle(thing: Seen) -> float:
    x, y = thing.centre
    return max(abs(x - 0.5), abs(y - 0.5))


def _amid_row(world: Sequence[Seen], index: int, rivals: Sequence[int]) -> bool:
    """Whether it is in the middle of three in a row, and nothing else could be called the middle."""
    if any(_off_middle(world[j]) < 0.29 for j in rivals):
        return False
    trio = [world[index].centre, *(world[j].centre for j in rivals)]
    spreads = [max(p[axis] for p in trio) - min(p[axis] for p in trio) for axis in (0, 1)]
    axis = 0 if spreads[0] > spreads[1] else 1
    if spreads[1 - axis] > 0.25:
        return False
    a, b = sorted(world[j].centre[axis] for j in rivals)
    return a + 0.15 < world[index].centre[axis] < b - 0.15


def rank_from(world: Sequence[Seen], index: int, rivals: Sequence[int], side: str) -> int | None:
    """Its place in the order from that side, 1 the nearest; None where a rival is too close to tell."""
    own = along(world[index], side)
    if any(abs(along(world[j], side) - own) < 0.085 for j in rivals):
        return None
    return 1 + sum(along(world[j], side) < own for j in rivals)


def is_utmost(world: Sequence[Seen], index: int, rivals: Sequence[int], side: str) -> bool:
    """Whether it is plainly nearer to that side than all its rivals."""
    own = along(world[index], side)
    return own < 0.4 and all(along(world[j], side) > own + 0.12 for j in rivals)


def is_longest(world: Sequence[Seen], index: int, rivals: Sequence[int]) -> bool:
    """Whether it is plainly bigger than all its rivals."""
    return all(world[index].extent > LONGER * world[j].extent for j in rivals)


def is_shortest(world: Sequence[Seen], index: int, rivals: Sequence[int]) -> bool:
    """Whether it is plainly smaller than all its rivals."""
    return all(LONGER * world[index].extent < world[j].extent for j in rivals)


def relates(world: Sequence[Seen], index: int, relation: str, landmark: int, *, clearly: bool) -> bool:
    """Whether a thing clearly (or at all, where ``clearly`` is False) stands in a relation to a landmark."""
    one, other = world[index], world[landmark]
    if relation in ("left", "right", "above", "below"):
        return _is_beside(one, other, relation, clearly=clearly)
    if relation == "behind":
        return one.hidden_by.get(landmark, 0.0) > (0.12 if clearly else 0.0)
    if relation == "front":
        return other.hidden_by.get(index, 0.0) > (0.12 if clearly else 0.0)
    if relation == "inside":
        return _is_inside(one, other, landmark, clearly=clearly)
    gap = _gap(one, other)
    return 0.0 < gap < 0.06 if clearly else gap < 0.23


def _is_beside(one: Seen, other: Seen, relation: str, *, clearly: bool) -> bool:
    side = {"above": "top", "below": "bottom"}.get(relation, relation)
    step = along(other, side) - along(one, side)
    if not clearly:
        return step > 0.0
    across = ("left", "top")[side in ("left", "right")]
    drift = abs(along(other, across) - along(one, across))
    axis = 0 if side in ("left", "right") else 1
    a, b = one.box_xyxy_norm, other.outline_xyxy_norm
    parted = a[axis + 2] < b[axis] + 0.02 if side in ("left", "top") else a[axis] > b[axis + 2] - 0.02
    return step > 0.15 and drift < step and parted


def _is_inside(one: Seen, other: Seen, landmark: int, *, clearly: bool) -> bool:
    x1, y1, x2, y2 = other.outline_xyxy_norm
    x, y = one.centre
    if not clearly:
        return x1 < x < x2 and y1 < y < y2 and one.extent < other.extent
    a1, b1, a2, b2 = one.outline_xyxy_norm
    held = x1 + 0.01 < a1 and y1 + 0.01 < b1 and a2 < x2 - 0.01 and b2 < y2 - 0.01
    return held and one.extent < 0.62 * other.extent and landmark not in one.hidden_by


def _gap(one: Seen, other: Seen) -> float:
    """The distance between two visible boxes, 0 where they touch."""
    a, b = one.box_xyxy_norm, other.box_xyxy_norm
    return math.hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0))


def is_between(world: Sequence[Seen], index: int, pair: tuple[int, int], *, clearly: bool) -> bool:
    """Whether a thing clearly (or at all) stands between two others."""
    (ax, ay), (bx, by) = (world[k].centre for k in pair)
    x, y = world[index].centre
    length = math.hypot(bx - ax, by - ay)
    if length < 1e-6:
        return False
    share = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length**2
    drift = abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length
    if clearly:
        return length > 0.3 and 0.3 < share < 0.7 and drift < 0.07
    return 0.0 < share < 1.0 and drift < 0.4 * length
