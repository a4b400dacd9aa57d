"""Write phrases that mean one thing of a drawn scene, in the manner of each flavour.

``scenes`` is terse and full of places, as RefCOCO; ``scenes+`` speaks of looks only, as RefCOCO+; ``scenesg`` is
long and relational, as RefCOCOg.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from deixis.data.scenes import clarity
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
from deixis.data.scenes.world import Seen

T = TypeVar("T")

Said = dict[str, str]
"""What a description states: field ('shape', 'colour', 'size', 'texture') -> value."""

_WORDS = {"colour": COLOURS, "size": SIZES, "texture": TEXTURES}
_CORNERS = tuple((tall, wide) for tall in ("top", "bottom") for wide in ("left", "right"))
_TRIES = 60


@dataclass(frozen=True, kw_only=True)
class Written:
    """A phrase and the index of the one thing that it means."""

    index: int
    text: str
    kind: str


def write(
    world: Sequence[Seen], flavour: str, rng: np.random.Generator, *, referents: Sequence[int], count: int
) -> list[Written]:
    """Write up to ``count`` different phrases about things among ``referents``, other things first.

    Returns fewer, perhaps none, where the scene gives too little to say.
    """
    pen = _Pen(world=world, rng=rng, is_long=flavour == "scenesg")
    kinds, chances = list(KINDS_OF[flavour]), np.array(list(KINDS_OF[flavour].values()))
    forms = _FORMS_OF_LOOKS if flavour == "scenes+" else _FORMS
    found: list[Written] = []
    kind = ""
    for turn in range(_TRIES if referents else 0):
        if len(found) == count:
            break
        if turn % 6 == 0 or not kind:  # a few tries at each kind, so that rare arrangements get their chance
            kind = kinds[int(rng.choice(len(kinds), p=chances / chances.sum()))]
        fresh = [k for k in referents if all(k != done.index for done in found)]
        index = pen.choose(fresh or list(referents))
        text = forms[kind](pen, index)
        if text is not None and all(text != done.text for done in found):
            found.append(Written(index=index, text=text, kind=kind))
            kind = ""
    return found


@dataclass(frozen=True, kw_only=True)
class _Pen:
    """Chooses what to state and how to word it."""

    world: Sequence[Seen]
    rng: np.random.Generator
    is_long: bool

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return [options[k] for k in self.rng.permutation(len(options))]

    def say(self, forms: Sequence[str]) -> str:
        """One of the surface forms; the first, which is the commonest, in over half of the cases."""
        return forms[0] if len(forms) == 1 or self.chance(0.55) else self.choose(forms[1:])

    def rivals(self, index: int, said: Said) -> list[int]:
        """The other things that fit what is said."""
        return [
            k
            for k, thing in enumerate(self.world)
            if k != index and all(getattr(thing, name) == value for name, value in said.items())
        ]

    def state(self, index: int, names: Sequence[str]) -> Said:
        return {name: getattr(self.world[index], name) for name in names}

    def fields(self, index: int) -> list[str]:
        """The fields worth stating besides the shape, colour first as a rule; 'plain' and 'medium' are rarely said."""
        thing = self.world[index]
        rest = ["size"] if thing.size != "medium" or self.chance(0.15) else []
        if thing.texture != "plain" or self.chance(0.15):
            rest.append("texture")
        rest = self.shuffled(rest)
        return ["colour", *rest] if self.chance(0.6) else self.shuffled(["colour", *rest])

    def distinguish(self, index: int, redundancy: float = 0.0) -> Said | None:
        """State as little as tells the thing apart, and now and then more; None where nothing does."""
        names = ["shape"] if self.chance(0.88) else []
        for name in self.fields(index):
            if names and not self.rivals(index, self.state(index, names)) and not self.chance(redundancy):
                break
            names.append(name)
        if "shape" not in names and self.rivals(index, self.state(index, names)):
            names.append("shape")
        said = self.state(index, names)
        return None if self.rivals(index, said) else said

    def glance(self, index: int) -> Said:
        """State little: what people say before a place or a rank tells the thing apart."""
        if not self.is_long and self.chance(0.22):
            return {}
        names = ["shape"] if self.chance(0.9) else []
        share = 0.33 if self.is_long else 0.1
        names += [name for name in self.fields(index)[:2] if self.chance(share)]
        return self.state(index, names)

    def name(self, said: Said, *, before: Sequence[str] = (), may_drop: bool = False) -> str:
        """Word a description: 'big striped red circle'; ``before`` comes first, and the noun may be dropped."""
        words = list(before)
        if "size" in said:
            words.append(self.say(SIZES[said["size"]]))
        texture, after = said.get("texture"), ""
        if texture in TEXTURES_AFTER and self.chance(0.3):
            after, texture = self.say(TEXTURES_AFTER[texture]), None
        looks = [self.say(COLOURS[said["colour"]])] if "colour" in said else []
        if texture is not None:
            looks.insert(0 if self.chance(0.6) else len(looks), self.say(TEXTURES[texture]))
        words += looks
        if "shape" in said:
            words.append(self.say(SHAPES[said["shape"]]))
        elif not (may_drop and not after and self.chance(0.4)):
            words.append(self.choose(ANY_SHAPE) if self.is_long or self.chance(0.4) else "one")
        return " ".join([*words, after]).strip()

    def article(self, text: str) -> str:
        """Put an article before the phrase as often as the flavour does."""
        if not self.chance(0.92 if self.is_long else 0.1):
            return text
        return f"the {text}"

    def the(self) -> str:
        """The article within a phrase, or nothing."""
        return "the " if self.is_long or self.chance(0.35) else ""

    def ending(self, probability: float) -> str:
        """'in the picture' and the like, which long phrases like to add."""
        if not (self.is_long and self.chance(probability)):
            return ""
        return f" in the {self.choose(('picture', 'image', 'photo', 'scene'))}"


def _attribute(pen: _Pen, index: int) -> str | None:
    said = pen.distinguish(index, redundancy=0.8)
    if said is None:
        return None
    return pen.article(pen.name(said, may_drop=True)) + pen.ending(0.9)


def _negation(pen: _Pen, index: int) -> str | None:
    """'the circle that is not red': without the last words the phrase would fit something else too."""
    thing = pen.world[index]
    names = pen.shuffled(["shape", "colour", "size", "texture"])[: int(pen.rng.integers(1, 3))]
    if "shape" not in names and pen.chance(0.8):
        names[0] = "shape"
    said = pen.state(index, names)
    rivals = pen.rivals(index, said)
    options = [(name, getattr(pen.world[k], name)) for k in rivals for name in ("shape", *_WORDS) if name not in said]
    for name, value in pen.shuffled(sorted(set(options))):
        left_over = [k for k in rivals if getattr(pen.world[k], name) != value]
        if value == getattr(thing, name) or value in ("plain", "medium") or left_over:
            continue
        return pen.article(pen.name(said) + _denial(pen, name, value)) + pen.ending(0.7)
    return None


def _denial(pen: _Pen, name: str, value: str) -> str:
    if name == "texture" and pen.chance(0.4):
        return f" {pen.say(TEXTURES_LACKED[value])}"
    link = pen.choose((" that is not ", " that is not ", " that isn't ", " which is not "))
    if not pen.is_long and pen.chance(0.5):
        link = " not "
    if name == "shape":
        word = pen.say(SHAPES[value])
        return f"{link}{'an' if word[0] in 'aeiou' else 'a'} {word}"
    return link + pen.say(_WORDS[name][value])


def _location(pen: _Pen, index: int) -> str | None:
    said = pen.glance(index)
    rivals = pen.rivals(index, said)
    if not rivals and pen.chance(0.5):
        return None
    world = pen.world
    sides = [(side,) for side in SIDES if clarity.on_side(world, index, rivals, side)]
    corners = [corner for corner in _CORNERS if clarity.in_corner(world, index, rivals, corner)]
    middle = [()] if clarity.in_middle(world, index, rivals) else []
    options = [places for places in (sides, corners, middle) if places]
    if not options:
        return None
    return _worded_place(pen, said, pen.choose(pen.choose(options)))


def _worded_place(pen: _Pen, said: Said, sides: Sequence[str]) -> str:
    """Word a place by its sides: none for the middle, one for a side, two for a corner."""
    where = " ".join(pen.say(SIDES[side]) for side in sides) or pen.say(MIDDLE)
    if not pen.is_long and pen.chance(0.5):
        return pen.article(pen.name(said, before=(where,), may_drop=True))
    noun = pen.name(said)
    if not pen.is_long and len(sides) == 2 and pen.chance(0.4):
        return f"{noun} {where}"
    preposition = {"left": "on", "right": "on", "top": "at", "bottom": "at"}[sides[0]] if len(sides) == 1 else "in"
    suffix = ""
    if len(sides) == 2 and pen.chance(0.6):
        suffix = " corner"
    elif len(sides) == 1 and pen.chance(0.7 if pen.is_long else 0.25):
        preposition, suffix = "on", " side"
    where = {"upper": "top", "lower": "bottom"}.get(where, where) if not suffix else where
    owner = f" of the {pen.choose(('picture', 'image', 'photo'))}" if pen.is_long and pen.chance(0.7) else ""
    return pen.article(f"{noun} {preposition} {pen.the()}{where}{suffix}{owner}")


def _ordinal(pen: _Pen, index: int) -> str | None:
    said = pen.glance(index)
    rivals = pen.rivals(index, said)
    if len(rivals) < 2:
        return None
    for side in pen.shuffled(["left", "right", "left", "right", "top", "bottom"]):
        rank = clarity.rank_from(pen.world, index, rivals, side)
        if rank is None or rank not in ORDINALS or rank > (len(rivals) + 2) // 2:
            continue
        order = pen.say(ORDINALS[rank])
        origin = f"from {pen.the()}{side}"
        if not pen.is_long and pen.chance(0.25):
            return f"{pen.name(said)} {order} {origin}"
        drop = "shape" not in said and len(said) == 0 and not pen.is_long and pen.chance(0.5)
        text = f"{order} {origin}" if drop else f"{pen.name(said, before=(order,))} {origin}"
        return pen.article(text) + pen.ending(0.5)
    return None


def _superlative(pen: _Pen, index: int) -> str | None:
    said = {name: value for name, value in pen.glance(index).items() if name != "size"}
    rivals = pen.rivals(index, said)
    if not rivals:
        return None
    tests: list[tuple[tuple[str, ...], bool]] = [
        (SIZE_MOST["largest"], clarity.is_longest(pen.world, index, rivals)),
        (SIZE_MOST["smallest"], clarity.is_shortest(pen.world, index, rivals)),
    ]
    tests += [(MOST[side], clarity.is_utmost(pen.world, index, rivals, side)) for side in MOST]
    words = [forms for forms, holds in tests if holds]
    if not words:
        return None
    return pen.article(pen.name(said, before=(pen.say(pen.choose(words)),), may_drop=True)) + pen.ending(0.8)


def _size_superlative(pen: _Pen, index: int) -> str | None:
    """As ``_superlative``, but never of places."""
    said = {name: value for name, value in pen.glance(index).items() if name != "size"}
    rivals = pen.rivals(index, said)
    if not rivals:
        return None
    for key, holds in (("largest", clarity.is_longest), ("smallest", clarity.is_shortest)):
        if holds(pen.world, index, rivals):
            return pen.article(pen.name(said, before=(pen.say(SIZE_MOST[key]),), may_drop=True))
    return None


def _relation(pen: _Pen, index: int) -> str | None:
    said = pen.glance(index)
    rivals = pen.rivals(index, said)
    if not rivals and pen.chance(0.4):
        return None
    others = pen.shuffled([k for k in range(len(pen.world)) if k != index])
    if pen.is_long and pen.chance(0.25):
        text = _between(pen, index, said, rivals, others)
        if text is not None:
            return text
    relations = pen.shuffled(list(RELATIONS))
    relations.sort(key=lambda name: name not in ("behind", "front", "inside"))  # rare, so seized where they hold
    for relation in relations:
        for landmark in others:
            if not clarity.relates(pen.world, index, relation, landmark, clearly=True):
                continue
            if any(clarity.relates(pen.world, k, relation, landmark, clearly=False) for k in rivals if k != landmark):
                continue
            mark = pen.distinguish(landmark, redundancy=0.05 if pen.is_long else 0.0)
            if mark is not None:
                return _worded_relation(pen, said, relation, mark)
    return None


def _worded_relation(pen: _Pen, said: Said, relation: str, mark: Said) -> str:
    link = pen.choose(("that is ", "that is ", "which is ")) if pen.is_long and pen.chance(0.2) else ""
    forms = RELATIONS[relation]
    words = forms[1] if pen.is_long and relation in ("left", "right") else pen.say(forms)
    if not pen.is_long and relation in ("left", "right") and pen.chance(0.5):
        words = forms[0]
    words = words.replace("the ", "") if not pen.is_long and pen.chance(0.5) else words
    return pen.article(f"{pen.name(said)} {link}{words} {pen.the()}{pen.name(mark)}")


def _between(pen: _Pen, index: int, said: Said, rivals: Sequence[int], others: Sequence[int]) -> str | None:
    for position, one in enumerate(others):
        for other in others[position + 1 :]:
            pair = (one, other)
            if not clarity.is_between(pen.world, index, pair, clearly=True):
                continue
            if any(clarity.is_between(pen.world, k, pair, clearly=False) for k in rivals if k not in pair):
                continue
            marks = [pen.distinguish(k) for k in pair]
            if marks[0] is not None and marks[1] is not None:
                names = [pen.name(mark) for mark in marks if mark is not None]
                return pen.article(f"{pen.name(said)} between the {names[0]} and the {names[1]}")
    return None


_FORMS: dict[str, Callable[[_Pen, int], str | None]] = {
    "attribute": _attribute,
    "negation": _negation,
    "location": _location,
    "ordinal": _ordinal,
    "superlative": _superlative,
    "relation": _relation,
}
_FORMS_OF_LOOKS = {**_FORMS, "superlative": _size_superlative}
