"""Which instances of a drawn scene a phrase may mean: checks the writer, with which it shares nothing but words.

The phrase is parsed back into meanings, which are judged on the facts of the scene (``InstanceFacts``). Because people
draw the line in different places, a comparing word has two sets: the instances that it *may* mean, to a generous
reader, and those that it *must* mean, to a strict one. A phrase is good if exactly one instance may be meant, and must
be. Lengths are fractions of the image's side; u is a centre's distance from the side that is named.

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
of the ring. A landmark must itself be unambiguous; a reading whose landmark is not is dropped. Readings are joined:
what any of them may mean, may be meant.

Parsing: words become lexemes by the longest match; articles, 'that is' and 'of the picture' carry nothing and are
skipped. A phrase is a noun phrase: colours, sizes, textures, places and ranks around a noun, then what follows the
noun. What follows a landmark ('the star left of the circle that is not red') may belong to the landmark or to what
stands before it, so a phrase may have several readings; all are returned.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deixis.data.scenes.drawing import InstanceFacts
from deixis.data.scenes.vocabulary import (
    ANY_SHAPE,
    COLOURS,
    MIDDLE,
    MOST,
    ORDINALS,
    RELATIONS,
    SHAPES,
    SIDES,
    SIZE_MOST,
    SIZES,
    TEXTURES,
    TEXTURES_AFTER,
    TEXTURES_LACKED,
)

Judged = tuple[set[int], set[int]]
"""(may be meant, must be meant)."""

_OPPOSITE_AXIS = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
_SIDE_OF = {"left": "left", "right": "right", "above": "top", "below": "bottom"}


def find_referents(phrase: str, scene: Sequence[InstanceFacts]) -> list[int]:
    """The indices of the instances that the phrase may mean: exactly one for a good phrase.

    Empty if nothing fits, or if the only instance that may be meant need not be, to a strict reader.

    Raises:
        ValueError: words outside the vocabulary, or no noun phrase.
    """
    may: set[int] = set()
    must: set[int] = set()
    for meaning in parse(phrase):
        possible, certain = judge(meaning, scene)
        may |= possible
        must |= certain
    return [] if len(may) == 1 and not may <= must else sorted(may)


def judge(meaning: Meaning, scene: Sequence[InstanceFacts]) -> Judged:
    """The instances that one reading may mean and must mean."""
    fitting = {k for k, one in enumerate(scene) if _fits(one, meaning)}
    may_relate, must_relate = set(fitting), set(fitting)
    for relation, landmarks in meaning.relations:
        marks = [judge(landmark, scene) for landmark in landmarks]
        if any(len(may) != 1 or may != must for may, must in marks):
            return set(), set()
        found = [min(may) for may, _ in marks]
        may_relate &= {k for k in fitting if _relates(scene, k, relation, found, 0)}
        must_relate &= {k for k in fitting if _relates(scene, k, relation, found, 1)}
    if not meaning.picks:
        return may_relate, must_relate
    if len(meaning.picks) > 1:
        return set(), set()
    return _pick_either_way(meaning.picks[0], scene, fitting, may_relate, must_relate)


def _pick_either_way(
    pick: Pick, scene: Sequence[InstanceFacts], fitting: set[int], may: set[int], must: set[int]
) -> Judged:
    """Compare within those that relate, and relate those that win the comparison."""
    choose = _PICKS[pick.name]
    within = [choose(scene, group, pick) for group in (may, must) if group]
    overall = choose(scene, fitting, pick) if fitting else (set(), set())
    possible = set().union(*(chosen for chosen, _ in within), overall[0] & may)
    certain = set().union(*(chosen & must for _, chosen in within), overall[1] & must)
    return possible, certain


def _fits(one: InstanceFacts, meaning: Meaning) -> bool:
    appearance = {("shape", one.shape), ("colour", one.colour), ("size", one.size), ("texture", one.texture)}
    return appearance.issuperset(meaning.wanted) and appearance.isdisjoint(meaning.unwanted)


def _from_side(scene: Sequence[InstanceFacts], group: Iterable[int], side: str) -> dict[int, float]:
    """Each instance's distance from a side of the image."""
    axis, sign = _OPPOSITE_AXIS[side]
    return {k: (1 - sign) / 2 + sign * scene[k].centre[axis] for k in group}


def _pick_side(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    far = _from_side(scene, group, pick.sides[0])
    least = min(far.values())
    may = {k for k, u in far.items() if u < 0.5 and (u < 1 / 3 or u - least < 0.15)}
    return may, {k for k, u in far.items() if u == least and u < 0.48}


def _pick_corner(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    both = [_from_side(scene, group, side) for side in pick.sides]
    worst = {k: max(far[k] for far in both) for k in group}
    return {k for k in group if worst[k] < 0.5}, {k for k in group if worst[k] < 0.42}


def _pick_middle(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    off = {k: max(abs(v - 0.5) for v in scene[k].centre) for k in group}
    may, must = {k for k in group if off[k] < 0.25}, {k for k in group if off[k] < 0.17}
    if len(group) == 3:
        for axis in (0, 1):
            low, median, high = sorted(group, key=lambda k: scene[k].centre[axis])
            a, b, c = (scene[k].centre[axis] for k in (low, median, high))
            cross = [scene[k].centre[1 - axis] for k in group]
            if c - a > 0.3:
                may.add(median)
            if min(b - a, c - b) > 0.1 and max(cross) - min(cross) < 0.35:
                must.add(median)
    return may, must


def _pick_most(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    far = _from_side(scene, group, pick.sides[0])
    least = min(far.values())
    return {k for k, u in far.items() if u - least < 0.08}, {k for k, u in far.items() if u == least and u < 0.5}


def _pick_rank(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    far = _from_side(scene, group, pick.sides[0])
    may = set()
    for k, u in far.items():
        before = sum(v < u - 0.05 for v in far.values())
        not_after = sum(v <= u + 0.05 for v in far.values())
        if before < pick.rank <= not_after:
            may.add(k)
    return may, set(may)


def _pick_largest(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    most = max(scene[k].extent for k in group)
    return {k for k in group if scene[k].extent * 1.25 > most}, {k for k in group if scene[k].extent == most}


def _pick_smallest(scene: Sequence[InstanceFacts], group: set[int], pick: Pick) -> Judged:
    least = min(scene[k].extent for k in group)
    return {k for k in group if scene[k].extent < least * 1.25}, {k for k in group if scene[k].extent == least}


_PICKS: dict[str, Callable[[Sequence[InstanceFacts], set[int], Pick], Judged]] = {
    "side": _pick_side,
    "corner": _pick_corner,
    "middle": _pick_middle,
    "most": _pick_most,
    "rank": _pick_rank,
    "largest": _pick_largest,
    "smallest": _pick_smallest,
}


def _relates(scene: Sequence[InstanceFacts], k: int, relation: str, marks: Sequence[int], strict: int) -> bool:
    """Whether instance k stands in the relation to the landmarks, to a generous (0) or a strict (1) reader."""
    if k in marks:
        return False
    one, mark = scene[k], scene[marks[0]]
    if relation == "between":
        return _stands_between(one, mark, scene[marks[1]], strict)
    if relation == "behind":
        return one.hidden_by.get(marks[0], 0.0) > (0.0, 0.08)[strict]
    if relation == "front":
        return mark.hidden_by.get(k, 0.0) > (0.0, 0.08)[strict]
    if relation == "inside":
        return _lies_inside(one, mark, strict) and not (strict and marks[0] in one.hidden_by)
    if relation == "next":
        apart = _apart(one, mark)
        return 0 < apart < 0.08 if strict else apart < 0.2
    return _stands_aside(one, mark, _SIDE_OF[relation], strict)


def _stands_aside(one: InstanceFacts, mark: InstanceFacts, side: str, strict: int) -> bool:
    axis, sign = _OPPOSITE_AXIS[side]
    lead = sign * (mark.centre[axis] - one.centre[axis])
    if not strict:
        return lead > 0.02
    drift = abs(mark.centre[1 - axis] - one.centre[1 - axis])
    near_edge = mark.outline_xyxy_norm[axis if sign > 0 else axis + 2]
    far_edge = one.box_xyxy_norm[axis + 2 if sign > 0 else axis]
    return lead > 0.12 and lead > 0.8 * drift and sign * (near_edge - far_edge) > -0.03


def _lies_inside(one: InstanceFacts, mark: InstanceFacts, strict: int) -> bool:
    x1, y1, x2, y2 = mark.outline_xyxy_norm
    inner = one.outline_xyxy_norm if strict else (*one.centre, *one.centre)
    held = x1 < inner[0] and y1 < inner[1] and inner[2] < x2 and inner[3] < y2
    return held and one.extent < mark.extent


def _apart(a: InstanceFacts, b: InstanceFacts) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.box_xyxy_norm, b.box_xyxy_norm
    return math.hypot(max(bx1 - ax2, ax1 - bx2, 0), max(by1 - ay2, ay1 - by2, 0))


def _stands_between(one: InstanceFacts, a: InstanceFacts, b: InstanceFacts, strict: int) -> bool:
    start, way = complex(*a.centre), complex(*b.centre) - complex(*a.centre)
    if way == 0:
        return False
    step = (complex(*one.centre) - start) / way  # real part: share of the way; imaginary: off the line
    if strict:
        return 0.25 < step.real < 0.75 and abs(step.imag) * abs(way) < 0.1
    return 0.1 < step.real < 0.9 and abs(step.imag) < 0.3


# Parsing.

_SKIPPED = frozenset({"the", "a", "an", "that", "which", "is", "but"})
_OWNERS = frozenset({"picture", "image", "photo", "scene"})
_PREPOSITIONS = ("on", "at", "in", "to")


@dataclass(frozen=True)
class Pick:
    """The part of a meaning that compares: 'left', 'second from the left', 'biggest'."""

    name: str
    """'side', 'corner', 'middle', 'most', 'largest', 'smallest' or 'rank'."""
    sides: tuple[str, ...] = ()
    rank: int = 0


@dataclass
class Meaning:
    """What a noun phrase demands of an instance."""

    wanted: list[tuple[str, str]] = field(default_factory=list)
    """(field, value) pairs that must hold."""
    unwanted: list[tuple[str, str]] = field(default_factory=list)
    """(field, value) pairs that must not hold."""
    picks: list[Pick] = field(default_factory=list)
    relations: list[tuple[str, tuple[Meaning, ...]]] = field(default_factory=list)
    """(relation, landmarks): two landmarks for 'between', one for every other."""


@dataclass(frozen=True)
class _Lexeme:
    kind: str
    value: str | int | tuple[str, ...] = ""


_Words = tuple[str, ...]


def parse(phrase: str) -> list[Meaning]:
    """Read a phrase in all the ways that its grammar allows.

    Raises:
        ValueError: a word that the drawn scenes do not use, or words in an order that makes no noun phrase.
    """
    lexemes = list(_lexemes(_words(phrase)))
    heads, later = _split(lexemes, phrase)
    return [_attach(heads, later, choice) for choice in _choices(later)]


def _words(phrase: str) -> list[str]:
    words = re.findall(r"[a-z0-9]+", phrase.lower().replace("isn't", "is not"))
    kept = [word for word in words if word not in _SKIPPED]
    pairs = zip(kept, [*kept[1:], ""], strict=True)
    is_owner = [word in ("of", "in") and after in _OWNERS for word, after in pairs]
    return [word for k, word in enumerate(kept) if not (is_owner[k] or (k and is_owner[k - 1]))]


def _lexemes(words: Sequence[str]) -> Iterator[_Lexeme]:
    position = 0
    while position < len(words):
        for length in range(_LONGEST, 0, -1):
            lexemes = _LEXICON.get(tuple(words[position : position + length]))
            if lexemes is not None and position + length <= len(words):
                yield from lexemes
                position += length
                break
        else:
            raise ValueError(f"expected the words of drawn scenes, got {words[position]!r}; use its vocabulary")


@dataclass
class _Later:
    """A modifier that follows a noun, and the heads that it may belong to, the nearest last."""

    open_heads: list[int]
    modifier: _Lexeme
    landmarks: tuple[int, ...] = ()


def _split(lexemes: Sequence[_Lexeme], phrase: str) -> tuple[list[list[_Lexeme]], list[_Later]]:
    """Cut the lexemes into heads, each the words up to and with one noun, and what follows them."""
    heads: list[list[_Lexeme]] = [[]]
    later: list[_Later] = []
    open_heads, has_noun = [0], False
    queue = _joined(lexemes)
    while queue:
        lexeme = queue.pop(0)
        if lexeme.kind == "relation":
            landmarks: list[int] = []
            if lexeme.value == "between":
                heads.append(_take_until_and(queue, phrase))
                landmarks.append(len(heads) - 1)
            heads.append(_take_head(queue, phrase))
            landmarks.append(len(heads) - 1)
            later.append(_Later(list(open_heads), lexeme, tuple(landmarks)))
            open_heads.append(landmarks[-1])
            has_noun = True
        elif lexeme.kind == "and":
            raise ValueError(f"expected 'and' only after 'between', got {phrase!r}; drop it")
        elif has_noun:
            later.append(_Later(list(open_heads), lexeme))
        else:
            heads[0].append(lexeme)
            has_noun = lexeme.kind in ("shape", "noun")
    return heads, later


def _joined(lexemes: Sequence[_Lexeme]) -> list[_Lexeme]:
    """Join 'not' with the attribute after it, and a rank with its 'from the left'."""
    queue = list(lexemes)
    done: list[_Lexeme] = []
    while queue:
        lexeme = queue.pop(0)
        if lexeme.kind == "not":
            if not queue or queue[0].kind not in ("shape", "colour", "size", "texture"):
                raise ValueError("expected a shape, colour, size or texture after 'not'; name one")
            denied = queue.pop(0)
            done.append(_Lexeme("not", (denied.kind, str(denied.value))))
        elif lexeme.kind == "order":
            origin = next((k for k, other in enumerate(queue) if other.kind == "from"), None)
            if origin is None:
                raise ValueError("expected 'from' and a side after an ordinal; say from where to count")
            side = queue.pop(origin).value
            done.append(_Lexeme("rank", (str(side), str(lexeme.value))))
        else:
            done.append(lexeme)
    return done


def _take_head(queue: list[_Lexeme], phrase: str) -> list[_Lexeme]:
    """Take the lexemes up to and with the next noun."""
    taken: list[_Lexeme] = []
    while queue:
        taken.append(queue.pop(0))
        if taken[-1].kind in ("shape", "noun"):
            return taken
        if taken[-1].kind in ("relation", "and"):
            break
    raise ValueError(f"expected a noun after a relation, got {phrase!r}")


def _take_until_and(queue: list[_Lexeme], phrase: str) -> list[_Lexeme]:
    """Take the first landmark of 'between'."""
    end = next((k for k, lexeme in enumerate(queue) if lexeme.kind == "and"), None)
    if end is None:
        raise ValueError(f"expected 'between X and Y', got {phrase!r}")
    taken, queue[: end + 1] = queue[:end], []
    if any(lexeme.kind == "relation" for lexeme in taken) or not taken:
        raise ValueError(f"expected a description without a relation after 'between', got {phrase!r}")
    return taken


def _choices(later: Sequence[_Later]) -> Iterator[tuple[int, ...]]:
    """Every way to attach the later modifiers: one that skips a landmark closes it for all that follow."""
    for choice in itertools.product(*(item.open_heads for item in later)):
        closed: set[int] = set()
        for item, head in zip(later, choice, strict=True):
            if head in closed:
                break
            closed |= {other for other in item.open_heads if other > head}
        else:
            yield choice


def _attach(heads: Sequence[Sequence[_Lexeme]], later: Sequence[_Later], choice: Sequence[int]) -> Meaning:
    meanings = [Meaning() for _ in heads]
    for meaning, head in zip(meanings, heads, strict=True):
        for lexeme in head:
            _demand(meaning, lexeme)
    for item, head in zip(later, choice, strict=True):
        if item.landmarks:
            landmarks = tuple(meanings[k] for k in item.landmarks)
            meanings[head].relations.append((str(item.modifier.value), landmarks))
        else:
            _demand(meanings[head], item.modifier)
    return meanings[0]


def _demand(meaning: Meaning, lexeme: _Lexeme) -> None:
    value = lexeme.value
    if lexeme.kind in ("shape", "colour", "size", "texture"):
        meaning.wanted.append((lexeme.kind, str(value)))
    elif lexeme.kind == "not" and isinstance(value, tuple):
        meaning.unwanted.append((value[0], value[1]))
    elif lexeme.kind == "rank" and isinstance(value, tuple):
        meaning.picks.append(Pick("rank", (value[0],), int(value[1])))
    elif lexeme.kind == "place" and isinstance(value, tuple):
        meaning.picks.append(Pick(("middle", "side", "corner")[len(value)], value))
    elif lexeme.kind == "most":
        meaning.picks.append(Pick("most", (str(value),)))
    elif lexeme.kind == "size most":
        meaning.picks.append(Pick(str(value)))


def _lexicon() -> dict[_Words, list[_Lexeme]]:
    """Every entry's words -> its lexemes."""
    entries: dict[_Words, list[_Lexeme]] = {}

    def enter(form: str, *lexemes: _Lexeme) -> None:
        words = tuple(word for word in form.split() if word not in _SKIPPED)
        if words in entries and entries[words] != list(lexemes):
            raise ValueError(f"expected one meaning a form, got two for {form!r}; correct the vocabulary")
        entries[words] = list(lexemes)

    tables: list[tuple[str, Mapping[str, Sequence[str]] | Mapping[int, Sequence[str]]]] = [
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("size", SIZES),
        ("texture", TEXTURES),
        ("texture", TEXTURES_AFTER),
        ("most", MOST),
        ("size most", SIZE_MOST),
        ("order", ORDINALS),
        ("relation", RELATIONS),
    ]
    for kind, table in tables:
        for value, forms in table.items():
            for form in forms:
                enter(form, _Lexeme(kind, value))
    for value, forms in TEXTURES_LACKED.items():
        for form in forms:
            enter(form, _Lexeme("not"), _Lexeme("texture", value))
    for form in ANY_SHAPE:
        enter(form, _Lexeme("noun"))
    for form, lexeme in (("not", "not"), ("and", "and")):
        enter(form, _Lexeme(lexeme))
    enter("between", _Lexeme("relation", "between"))
    for side in SIDES:
        enter(f"from {side}", _Lexeme("from", side))
    for form, sides in _places():
        enter(form, _Lexeme("place", sides))
        for preposition in _PREPOSITIONS:
            enter(f"{preposition} {form}", _Lexeme("place", sides))
    return entries


def _places() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every wording of a place, without preposition, and its sides."""
    for form in MIDDLE:
        yield form, ()
    for side, forms in SIDES.items():
        for form in forms:
            yield form, (side,)
            yield f"{form} side", (side,)
    for tall, wide in itertools.product(("top", "bottom"), ("left", "right")):
        for form in SIDES[tall]:
            for end in ("", " corner", " side"):
                yield f"{form} {wide}{end}", (tall, wide)


_LEXICON = _lexicon()
_LONGEST = max(len(words) for words in _LEXICON)
