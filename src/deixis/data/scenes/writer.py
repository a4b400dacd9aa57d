"""Write phrases that mean exactly one instance of a drawn scene, in the manner of each flavour.

``scenes`` is terse and full of places, like RefCOCO; ``scenes+`` mentions appearance only, like RefCOCO+; ``scenesg``
is long and relational, like RefCOCOg.

What counts as true is decided by margins, in fractions of the image's side: the referent must be *clearly* left,
bigger or behind, and every distractor must *clearly* not be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from deixis.data.scenes.drawing import InstanceFacts
from deixis.data.scenes.vocabulary import (
    ANY_SHAPE,
    COLOURS,
    KINDS_OF,
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

T = TypeVar("T")

Said = dict[str, str]
"""What a description states: field ('shape', 'colour', 'size', 'texture') -> value."""

_WORDS = {"colour": COLOURS, "size": SIZES, "texture": TEXTURES}
_CORNERS = tuple((vertical, horizontal) for vertical in ("top", "bottom") for horizontal in ("left", "right"))
_TRIES = 60
_SIZE_FACTOR = 1.38
"""The biggest must be more than this many times as big as the next."""


@dataclass(frozen=True, kw_only=True)
class ScenePhrase:
    """A phrase and the index of its referent."""

    index: int
    text: str
    kind: str


def write(
    scene: Sequence[InstanceFacts], flavour: str, rng: np.random.Generator, *, referents: Sequence[int], count: int
) -> list[ScenePhrase]:
    """Write up to ``count`` different phrases about instances in ``referents``, preferring new referents.

    Returns fewer, perhaps none, if the scene gives too little to say.
    """
    speaker = _Speaker(
        scene=scene, rng=rng, is_long=flavour == "scenesg", superlatives=() if flavour == "scenes+" else tuple(MOST)
    )
    kinds, chances = list(KINDS_OF[flavour]), np.array(list(KINDS_OF[flavour].values()))
    found: list[ScenePhrase] = []
    kind = ""
    for turn in range(_TRIES if referents else 0):
        if len(found) == count:
            break
        if turn % 6 == 0 or not kind:  # several tries at each kind, to give rare arrangements a chance
            kind = kinds[int(rng.choice(len(kinds), p=chances / chances.sum()))]
        fresh = [k for k in referents if all(k != done.index for done in found)]
        index = speaker.choose(fresh or list(referents))
        text = _FORMS[kind](speaker, index)
        if text is not None and all(text != done.text for done in found):
            found.append(ScenePhrase(index=index, text=text, kind=kind))
            kind = ""
    return found


@dataclass(frozen=True, kw_only=True)
class _Speaker:
    """Chooses what to state and how to word it."""

    scene: Sequence[InstanceFacts]
    rng: np.random.Generator
    is_long: bool
    superlatives: tuple[str, ...]
    """The sides of which 'leftmost' and the like may be said."""

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return [options[k] for k in self.rng.permutation(len(options))]

    def say(self, forms: Sequence[str]) -> str:
        """One of the surface forms; the first, which is the commonest, in over half of the cases."""
        return forms[0] if len(forms) == 1 or self.chance(0.55) else self.choose(forms[1:])

    def distractors(self, index: int, said: Said) -> list[int]:
        """The other instances that fit what is said."""
        return [
            k
            for k, other in enumerate(self.scene)
            if k != index and all(getattr(other, name) == value for name, value in said.items())
        ]

    def state(self, index: int, names: Sequence[str]) -> Said:
        return {name: getattr(self.scene[index], name) for name in names}

    def fields(self, index: int) -> list[str]:
        """The fields worth stating besides the shape, usually colour first; 'plain' and 'medium' are rarely said."""
        own = self.scene[index]
        rest = ["size"] if own.size != "medium" or self.chance(0.15) else []
        if own.texture != "plain" or self.chance(0.15):
            rest.append("texture")
        rest = self.shuffled(rest)
        return ["colour", *rest] if self.chance(0.6) else self.shuffled(["colour", *rest])

    def distinguish(self, index: int, redundancy: float = 0.0) -> Said | None:
        """State as little as singles out the instance, and now and then more; None if appearance cannot."""
        names = ["shape"] if self.chance(0.88) else []
        for name in self.fields(index):
            if names and not self.distractors(index, self.state(index, names)) and not self.chance(redundancy):
                break
            names.append(name)
        if "shape" not in names and self.distractors(index, self.state(index, names)):
            names.append("shape")
        said = self.state(index, names)
        return None if self.distractors(index, said) else said

    def glance(self, index: int) -> tuple[Said, list[int]]:
        """State little, as people do before a place or a rank; with the distractors that this leaves."""
        said: Said = {}
        if self.is_long or not self.chance(0.22):
            names = ["shape"] if self.chance(0.9) else []
            share = 0.33 if self.is_long else 0.1
            names += [name for name in self.fields(index)[:2] if self.chance(share)]
            said = self.state(index, names)
        return said, self.distractors(index, said)

    def name(self, said: Said, *, before: Sequence[str] = (), may_drop: bool = False) -> str:
        """Word a description: 'big striped red circle'; ``before`` comes first, and the noun may be dropped."""
        words = list(before)
        if "size" in said:
            words.append(self.say(SIZES[said["size"]]))
        texture, after = said.get("texture"), ""
        if texture in TEXTURES_AFTER and self.chance(0.3):
            after, texture = self.say(TEXTURES_AFTER[texture]), None
        appearance = [self.say(COLOURS[said["colour"]])] if "colour" in said else []
        if texture is not None:
            appearance.insert(0 if self.chance(0.6) else len(appearance), self.say(TEXTURES[texture]))
        words += appearance
        if "shape" in said:
            words.append(self.say(SHAPES[said["shape"]]))
        elif not (may_drop and not after and self.chance(0.4)):
            words.append(self.choose(ANY_SHAPE) if self.is_long or self.chance(0.4) else "one")
        return " ".join([*words, after]).strip()

    def article(self, text: str) -> str:
        """Put an article before the phrase as often as the flavour does."""
        return f"the {text}" if self.chance(0.92 if self.is_long else 0.1) else text

    def the(self) -> str:
        """The article within a phrase, or nothing."""
        return "the " if self.is_long or self.chance(0.35) else ""

    def ending(self, probability: float) -> str:
        """'in the picture' and the like, which long phrases often add."""
        if not (self.is_long and self.chance(probability)):
            return ""
        return f" in the {self.choose(('picture', 'image', 'photo', 'scene'))}"


# The kinds of phrases: each returns None if the referent cannot be singled out that way.


def _attribute(speaker: _Speaker, index: int) -> str | None:
    said = speaker.distinguish(index, redundancy=0.8)
    if said is None:
        return None
    return speaker.article(speaker.name(said, may_drop=True)) + speaker.ending(0.9)


def _negation(speaker: _Speaker, index: int) -> str | None:
    """'the circle that is not red': without the last words the phrase would fit another instance too."""
    scene = speaker.scene
    names = speaker.shuffled(["shape", "colour", "size", "texture"])[: int(speaker.rng.integers(1, 3))]
    if "shape" not in names and speaker.chance(0.8):
        names[0] = "shape"
    said = speaker.state(index, names)
    distractors = speaker.distractors(index, said)
    unsaid = [name for name in ("shape", *_WORDS) if name not in said]
    options = {(name, getattr(scene[k], name)) for k in distractors for name in unsaid}
    for name, value in speaker.shuffled(sorted(options)):
        left_over = [k for k in distractors if getattr(scene[k], name) != value]
        if value == getattr(scene[index], name) or value in ("plain", "medium") or left_over:
            continue
        return speaker.article(speaker.name(said) + _denial(speaker, name, value)) + speaker.ending(0.7)
    return None


def _denial(speaker: _Speaker, name: str, value: str) -> str:
    if name == "texture" and speaker.chance(0.4):
        return f" {speaker.say(TEXTURES_LACKED[value])}"
    link = speaker.choose((" that is not ", " that is not ", " that isn't ", " which is not "))
    if not speaker.is_long and speaker.chance(0.5):
        link = " not "
    if name == "shape":
        word = speaker.say(SHAPES[value])
        return f"{link}{'an' if word[0] in 'aeiou' else 'a'} {word}"
    return link + speaker.say(_WORDS[name][value])


def _location(speaker: _Speaker, index: int) -> str | None:
    said, distractors = speaker.glance(index)
    if not distractors and speaker.chance(0.5):
        return None
    own, others = speaker.scene[index], [speaker.scene[k] for k in distractors]
    sides = [(side,) for side in SIDES if _on_side(own, others, side)]
    corners = [corner for corner in _CORNERS if _in_corner(own, others, corner)]
    middle = [()] if _in_middle(own, others) else []
    options = [places for places in (sides, corners, middle) if places]
    if not options:
        return None
    return _worded_place(speaker, said, speaker.choose(speaker.choose(options)))


def _worded_place(speaker: _Speaker, said: Said, sides: Sequence[str]) -> str:
    """Word a place by its sides: none for the middle, one for a side, two for a corner."""
    where = " ".join(speaker.say(SIDES[side]) for side in sides) or speaker.say(MIDDLE)
    if not speaker.is_long and speaker.chance(0.5):
        return speaker.article(speaker.name(said, before=(where,), may_drop=True))
    noun = speaker.name(said)
    if not speaker.is_long and len(sides) == 2 and speaker.chance(0.4):
        return f"{noun} {where}"
    preposition = {"left": "on", "right": "on", "top": "at", "bottom": "at"}[sides[0]] if len(sides) == 1 else "in"
    suffix = ""
    if len(sides) == 2 and speaker.chance(0.6):
        suffix = " corner"
    elif len(sides) == 1 and speaker.chance(0.7 if speaker.is_long else 0.25):
        preposition, suffix = "on", " side"
    where = {"upper": "top", "lower": "bottom"}.get(where, where) if not suffix else where
    owner = ""
    if speaker.is_long and speaker.chance(0.7):
        owner = f" of the {speaker.choose(('picture', 'image', 'photo'))}"
    return speaker.article(f"{noun} {preposition} {speaker.the()}{where}{suffix}{owner}")


def _ordinal(speaker: _Speaker, index: int) -> str | None:
    said, distractors = speaker.glance(index)
    if len(distractors) < 2:
        return None
    own, others = speaker.scene[index], [speaker.scene[k] for k in distractors]
    for side in speaker.shuffled(["left", "right", "left", "right", "top", "bottom"]):
        rank = _rank_from(own, others, side)
        if rank is None or rank not in ORDINALS or rank > (len(others) + 2) // 2:
            continue
        order = speaker.say(ORDINALS[rank])
        origin = f"from {speaker.the()}{side}"
        if not speaker.is_long and speaker.chance(0.25):
            return f"{speaker.name(said)} {order} {origin}"
        drop = not said and not speaker.is_long and speaker.chance(0.5)
        text = f"{order} {origin}" if drop else f"{speaker.name(said, before=(order,))} {origin}"
        return speaker.article(text) + speaker.ending(0.5)
    return None


def _superlative(speaker: _Speaker, index: int) -> str | None:
    said = {name: value for name, value in speaker.glance(index)[0].items() if name != "size"}
    own, others = speaker.scene[index], [speaker.scene[k] for k in speaker.distractors(index, said)]
    if not others:
        return None
    words = [MOST[side] for side in speaker.superlatives if _is_utmost(own, others, side)]
    if all(_SIZE_FACTOR * own.extent < other.extent for other in others):
        words.insert(0, SIZE_MOST["smallest"])
    if all(own.extent > _SIZE_FACTOR * other.extent for other in others):
        words.insert(0, SIZE_MOST["largest"])
    if not words:
        return None
    most = speaker.say(speaker.choose(words))
    return speaker.article(speaker.name(said, before=(most,), may_drop=True)) + speaker.ending(0.8)


def _relation(speaker: _Speaker, index: int) -> str | None:
    said, distractors = speaker.glance(index)
    if not distractors and speaker.chance(0.4):
        return None
    scene = speaker.scene
    others = speaker.shuffled([k for k in range(len(scene)) if k != index])
    if speaker.is_long and speaker.chance(0.25):
        text = _between(speaker, index, said, distractors, others)
        if text is not None:
            return text
    relations = speaker.shuffled(list(RELATIONS))
    relations.sort(key=lambda name: name not in ("behind", "front", "inside"))  # rare, so taken wherever they hold
    for relation in relations:
        for landmark in others:
            if not _relates(scene, index, relation, landmark, clearly=True):
                continue
            if any(_relates(scene, k, relation, landmark, clearly=False) for k in distractors if k != landmark):
                continue
            described = speaker.distinguish(landmark, redundancy=0.05 if speaker.is_long else 0.0)
            if described is not None:
                return _worded_relation(speaker, said, relation, described)
    return None


def _worded_relation(speaker: _Speaker, said: Said, relation: str, landmark: Said) -> str:
    link = ""
    if speaker.is_long and speaker.chance(0.2):
        link = speaker.choose(("that is ", "that is ", "which is "))
    forms = RELATIONS[relation]
    words = forms[1] if speaker.is_long and relation in ("left", "right") else speaker.say(forms)
    if not speaker.is_long and relation in ("left", "right") and speaker.chance(0.5):
        words = forms[0]
    words = words.replace("the ", "") if not speaker.is_long and speaker.chance(0.5) else words
    return speaker.article(f"{speaker.name(said)} {link}{words} {speaker.the()}{speaker.name(landmark)}")


def _between(
    speaker: _Speaker, index: int, said: Said, distractors: Sequence[int], others: Sequence[int]
) -> str | None:
    for position, one in enumerate(others):
        for other in others[position + 1 :]:
            pair = (one, other)
            if not _is_between(speaker.scene, index, pair, clearly=True):
                continue
            if any(_is_between(speaker.scene, k, pair, clearly=False) for k in distractors if k not in pair):
                continue
            described = [speaker.distinguish(k) for k in pair]
            names = [speaker.name(one) for one in described if one is not None and None not in described]
            if names:
                return speaker.article(f"{speaker.name(said)} between the {names[0]} and the {names[1]}")
    return None


_FORMS: dict[str, Callable[[_Speaker, int], str | None]] = {
    "attribute": _attribute,
    "negation": _negation,
    "location": _location,
    "ordinal": _ordinal,
    "superlative": _superlative,
    "relation": _relation,
}


# What is clearly so. The checker in the tests has rules of its own and shares none of these.


def _along(one: InstanceFacts, side: str) -> float:
    """How far the centre is from that side of the image."""
    x, y = one.centre
    return {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}[side]


def _on_side(own: InstanceFacts, others: Sequence[InstanceFacts], side: str) -> bool:
    at = _along(own, side)
    if at > (0.46 if len(others) == 1 else 0.4):
        return False
    return all(_along(other, side) > max(at + 0.18, 0.37) for other in others)


def _in_corner(own: InstanceFacts, others: Sequence[InstanceFacts], sides: tuple[str, str]) -> bool:
    if any(_along(own, side) > 0.37 for side in sides):
        return False
    return all(any(_along(other, side) > 0.54 for side in sides) for other in others)


def _in_middle(own: InstanceFacts, others: Sequence[InstanceFacts]) -> bool:
    """Whether it is the only one in the middle of the image, or the middle one of a row of three."""
    if any(_off_middle(other) < 0.29 for other in others):
        return False
    if len(others) != 2:
        return _off_middle(own) <= 0.13 and all(_off_middle(other) > 0.29 for other in others)
    trio = [own.centre, *(other.centre for other in others)]
    spreads = [max(p[axis] for p in trio) - min(p[axis] for p in trio) for axis in (0, 1)]
    axis = 0 if spreads[0] > spreads[1] else 1
    if spreads[1 - axis] > 0.25:
        return False
    a, b = sorted(other.centre[axis] for other in others)
    return a + 0.15 < own.centre[axis] < b - 0.15


def _off_middle(one: InstanceFacts) -> float:
    return max(abs(v - 0.5) for v in one.centre)


def _rank_from(own: InstanceFacts, others: Sequence[InstanceFacts], side: str) -> int | None:
    """Its rank counted from that side, 1 the nearest; None if a distractor is too close to call."""
    at = _along(own, side)
    if any(abs(_along(other, side) - at) < 0.085 for other in others):
        return None
    return 1 + sum(_along(other, side) < at for other in others)


def _is_utmost(own: InstanceFacts, others: Sequence[InstanceFacts], side: str) -> bool:
    at = _along(own, side)
    return at < 0.4 and all(_along(other, side) > at + 0.12 for other in others)


def _relates(scene: Sequence[InstanceFacts], index: int, relation: str, landmark: int, *, clearly: bool) -> bool:
    """Whether an instance clearly (or, with ``clearly`` False, at all) stands in a relation to a landmark."""
    one, other = scene[index], scene[landmark]
    if relation in ("left", "right", "above", "below"):
        return _is_beside(one, other, relation, clearly=clearly)
    if relation == "behind":
        return one.hidden_by.get(landmark, 0.0) > (0.12 if clearly else 0.0)
    if relation == "front":
        return other.hidden_by.get(index, 0.0) > (0.12 if clearly else 0.0)
    if relation == "inside":
        return _is_inside(one, other, clearly=clearly) and not (clearly and landmark in one.hidden_by)
    gap = _gap(one, other)
    return 0.0 < gap < 0.06 if clearly else gap < 0.23


def _is_beside(one: InstanceFacts, other: InstanceFacts, relation: str, *, clearly: bool) -> bool:
    side = {"above": "top", "below": "bottom"}.get(relation, relation)
    step = _along(other, side) - _along(one, side)
    if not clearly:
        return step > 0.0
    axis = 0 if side in ("left", "right") else 1
    across = "top" if axis == 0 else "left"
    drift = abs(_along(other, across) - _along(one, across))
    a, b = one.box_xyxy_norm, other.outline_xyxy_norm
    parted = a[axis + 2] < b[axis] + 0.02 if side in ("left", "top") else a[axis] > b[axis + 2] - 0.02
    return step > 0.15 and drift < step and parted


def _is_inside(one: InstanceFacts, other: InstanceFacts, *, clearly: bool) -> bool:
    x1, y1, x2, y2 = other.outline_xyxy_norm
    x, y = one.centre
    if not clearly:
        return x1 < x < x2 and y1 < y < y2 and one.extent < other.extent
    a1, b1, a2, b2 = one.outline_xyxy_norm
    held = x1 + 0.01 < a1 and y1 + 0.01 < b1 and a2 < x2 - 0.01 and b2 < y2 - 0.01
    return held and one.extent < 0.62 * other.extent


def _gap(one: InstanceFacts, other: InstanceFacts) -> float:
    """The distance between two visible boxes, 0 if they touch."""
    a, b = one.box_xyxy_norm, other.box_xyxy_norm
    return math.hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0))


def _is_between(scene: Sequence[InstanceFacts], index: int, pair: tuple[int, int], *, clearly: bool) -> bool:
    """Whether an instance clearly (or at all) stands between two others."""
    (ax, ay), (bx, by) = (scene[k].centre for k in pair)
    x, y = scene[index].centre
    length = math.hypot(bx - ax, by - ay)
    if length < 1e-6:
        return False
    share = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length**2
    drift = abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length
    if clearly:
        return length > 0.3 and 0.3 < share < 0.7 and drift < 0.07
    return 0.0 < share < 1.0 and drift < 0.4 * length
