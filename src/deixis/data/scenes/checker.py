"""Tell which things of a scene a phrase may mean: the judge of the writer, from whom it takes nothing but words.

The phrase is parsed back into meanings (``parser``), and these are judged upon the facts of the scene (``Seen``).
Because people draw lines at different places, a comparing word has two sets: the things that it *may* mean, by a
generous reader, and those that it *must* mean, by a strict one. A phrase is good where one thing alone may be meant,
and must be. Lengths are fractions of the image's side; u is a centre's distance from the side that is named.

=================  ======================================================  =====================================
word               may be meant                                            must be meant
=================  ======================================================  =====================================
shape, colour ...  exact                                                   exact
'left' ...         u < 0.5 and (u < 1/3 or u within 0.15 of the least)     least u, and u < 0.48
'top left' ...     both u < 0.5                                            both u < 0.42
'middle'           centre within 0.25 of the middle both ways, or the      within 0.17, or the median of a row of
                   median of three either way that they spread over 0.3    three with gaps over 0.1
'leftmost' ...     u within 0.08 of the least                              least u, and u < 0.5
'biggest' ...      extent within a factor 1.25 of the extreme              the extreme
'2nd from left'    the place it may have if centres within 0.05 tie        the same
'left of' ...      centre over 0.02 farther to that side                   over 0.12, more than 0.8 of the drift
                                                                           across, and clear of the landmark's box
'behind'           the landmark hides some of it                           hides over 0.08 of it
'in front of'      it hides some of the landmark                           hides over 0.08 of it
'inside'           its centre is in the landmark's box, and it is smaller  its whole box is, and it is not hidden
'next to'          boxes less than 0.2 apart                               over 0 and less than 0.08
'between'          share of the way 0.1 to 0.9, off the line by less       0.25 to 0.75, off by less than 0.1
                   than 0.3 of its length
=================  ======================================================  =====================================

Two comparing words in one noun phrase are refused. Where a comparing word and a relation meet ('the biggest star
left of the ring') both orders are judged: the biggest of those left of the ring, and the biggest star, which is left
of the ring. A landmark must itself be meant alone; a reading whose landmark is not falls away. Readings are joined:
what any of them may mean, may be meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from deixis.data.scenes.parser import Meaning, Pick, parse
from deixis.data.scenes.world import Seen

Judged = tuple[set[int], set[int]]
"""(may be meant, must be meant)."""

_OPPOSITE_AXIS = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
_SIDE_OF = {"left": "left", "right": "right", "above": "top", "below": "bottom"}


def find_referents(phrase: str, world: Sequence[Seen]) -> list[int]:
    """The indices of the things that the phrase may mean: exactly one for a good phrase.

    Empty where nothing fits, or where the one thing that may be meant need not be, by a strict reader.

    Raises:
        ValueError: words outside the vocabulary, or no noun phrase.
    """
    may: set[int] = set()
    must: set[int] = set()
    for meaning in parse(phrase):
        possible, certain = judge(meaning, world)
        may |= possible
        must |= certain
    return [] if len(may) == 1 and not may <= must else sorted(may)


def judge(meaning: Meaning, world: Sequence[Seen]) -> Judged:
    """The things that one reading may mean and must mean."""
    fitting = {k for k, thing in enumerate(world) if _has_looks(thing, meaning)}
    may_relate, must_relate = set(fitting), set(fitting)
    for relation, landmarks in meaning.relations:
        marks = [judge(landmark, world) for landmark in landmarks]
        if any(len(may) != 1 or may != must for may, must in marks):
            return set(), set()
        found = [min(may) for may, _ in marks]
        may_relate &= {k for k in fitting if _relates(world, k, relation, found, 0)}
        must_relate &= {k for k in fitting if _relates(world, k, relation, found, 1)}
    if not meaning.picks:
        return may_relate, must_relate
    if len(meaning.picks) > 1:
        return set(), set()
    return _pick_either_way(meaning.picks[0], world, fitting, may_relate, must_relate)


def _pick_either_way(pick: Pick, world: Sequence[Seen], fitting: set[int], may: set[int], must: set[int]) -> Judged:
    """Compare within those that relate, and relate those that win the comparison."""
    choose = _PICKS[pick.name]
    within = [choose(world, group, pick) for group in (may, must) if group]
    overall = choose(world, fitting, pick) if fitting else (set(), set())
    possible = set().union(*(chosen for chosen, _ in within), overall[0] & may)
    certain = set().union(*(chosen & must for _, chosen in within), overall[1] & must)
    return possible, certain


def _has_looks(thing: Seen, meaning: Meaning) -> bool:
    looks = {("shape", thing.shape), ("colour", thing.colour), ("size", thing.size), ("texture", thing.texture)}
    return looks.issuperset(meaning.wanted) and looks.isdisjoint(meaning.unwanted)


def _from_side(world: Sequence[Seen], group: Iterable[int], side: str) -> dict[int, float]:
    """Each thing's distance from a side of the image."""
    axis, sign = _OPPOSITE_AXIS[side]
    return {k: (1 - sign) / 2 + sign * world[k].centre[axis] for k in group}


def _pick_side(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    far = _from_side(world, group, pick.sides[0])
    least = min(far.values())
    may = {k for k, u in far.items() if u < 0.5 and (u < 1 / 3 or u - least < 0.15)}
    return may, {k for k, u in far.items() if u == least and u < 0.48}


def _pick_corner(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    both = [_from_side(world, group, side) for side in pick.sides]
    worst = {k: max(far[k] for far in both) for k in group}
    return {k for k in group if worst[k] < 0.5}, {k for k in group if worst[k] < 0.42}


def _pick_middle(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    off = {k: max(abs(v - 0.5) for v in world[k].centre) for k in group}
    may, must = {k for k in group if off[k] < 0.25}, {k for k in group if off[k] < 0.17}
    if len(group) == 3:
        for axis in (0, 1):
            low, median, high = sorted(group, key=lambda k: world[k].centre[axis])
            a, b, c = (world[k].centre[axis] for k in (low, median, high))
            cross = [world[k].centre[1 - axis] for k in group]
            if c - a > 0.3:
                may.add(median)
            if min(b - a, c - b) > 0.1 and max(cross) - min(cross) < 0.35:
                must.add(median)
    return may, must


def _pick_most(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    far = _from_side(world, group, pick.sides[0])
    least = min(far.values())
    return {k for k, u in far.items() if u - least < 0.08}, {k for k, u in far.items() if u == least and u < 0.5}


def _pick_rank(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    far = _from_side(world, group, pick.sides[0])
    may = set()
    for k, u in far.items():
        before = sum(v < u - 0.05 for v in far.values())
        not_after = sum(v <= u + 0.05 for v in far.values())
        if before < pick.rank <= not_after:
            may.add(k)
    return may, set(may)


def _pick_largest(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    most = max(world[k].extent for k in group)
    return {k for k in group if world[k].extent * 1.25 > most}, {k for k in group if world[k].extent == most}


def _pick_smallest(world: Sequence[Seen], group: set[int], pick: Pick) -> Judged:
    least = min(world[k].extent for k in group)
    return {k for k in group if world[k].extent < least * 1.25}, {k for k in group if world[k].extent == least}


_PICKS: dict[str, Callable[[Sequence[Seen], set[int], Pick], Judged]] = {
    "side": _pick_side,
    "corner": _pick_corner,
    "middle": _pick_middle,
    "most": _pick_most,
    "rank": _pick_rank,
    "largest": _pick_largest,
    "smallest": _pick_smallest,
}


def _relates(world: Sequence[Seen], k: int, relation: str, marks: Sequence[int], strict: int) -> bool:
    """Whether thing k stands in the relation to the landmarks, by a generous (0) or a strict (1) reader."""
    if k in marks:
        return False
    thing, mark = world[k], world[marks[0]]
    if relation == "between":
        return _stands_between(thing, mark, world[marks[1]], strict)
    if relation == "behind":
        return thing.hidden_by.get(marks[0], 0.0) > (0.0, 0.08)[strict]
    if relation == "front":
        return mark.hidden_by.get(k, 0.0) > (0.0, 0.08)[strict]
    if relation == "inside":
        return _lies_inside(thing, mark, strict) and not (strict and marks[0] in thing.hidden_by)
    if relation == "next":
        apart = _apart(thing, mark)
        return 0 < apart < 0.08 if strict else apart < 0.2
    return _stands_aside(thing, mark, _SIDE_OF[relation], strict)


def _stands_aside(thing: Seen, mark: Seen, side: str, strict: int) -> bool:
    axis, sign = _OPPOSITE_AXIS[side]
    lead = sign * (mark.centre[axis] - thing.centre[axis])
    if not strict:
        return lead > 0.02
    drift = abs(mark.centre[1 - axis] - thing.centre[1 - axis])
    near_edge = mark.outline_xyxy_norm[axis if sign > 0 else axis + 2]
    far_edge = thing.box_xyxy_norm[axis + 2 if sign > 0 else axis]
    return lead > 0.12 and lead > 0.8 * drift and sign * (near_edge - far_edge) > -0.03


def _lies_inside(thing: Seen, mark: Seen, strict: int) -> bool:
    x1, y1, x2, y2 = mark.outline_xyxy_norm
    inner = thing.outline_xyxy_norm if strict else (*thing.centre, *thing.centre)
    held = x1 < inner[0] and y1 < inner[1] and inner[2] < x2 and inner[3] < y2
    return held and thing.extent < mark.extent


def _apart(a: Seen, b: Seen) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.box_xyxy_norm, b.box_xyxy_norm
    return math.hypot(max(bx1 - ax2, ax1 - bx2, 0), max(by1 - ay2, ay1 - by2, 0))


def _stands_between(thing: Seen, a: Seen, b: Seen, strict: int) -> bool:
    start, way = complex(*a.centre), complex(*b.centre) - complex(*a.centre)
    if way == 0:
        return False
    step = (complex(*thing.centre) - start) / way  # real part: share of the way; imaginary: off the line
    if strict:
        return 0.25 < step.real < 0.75 and abs(step.imag) * abs(way) < 0.1
    return 0.1 < step.real < 0.9 and abs(step.imag) < 0.3
