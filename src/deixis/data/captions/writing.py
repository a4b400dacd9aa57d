"""Write the phrases that people might use for the instances of an image: true, unambiguous, mostly terse.

A phrase is a noun and up to three facts (place, order, size, depth, colour, relation). Each fact knows of which
rivals it might also be said; a phrase is kept only where noun and facts together leave the referent alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deixis.data.captions.appearance_facts import ObservedScene, VisibleInstance, colour_fact, relation_fact
from deixis.data.captions.relations import roles_of
from deixis.data.captions.rendering import Style, render
from deixis.data.captions.spatial_facts import (
    COLOUR,
    DEPTH,
    ORDINAL,
    PLACE,
    RELATION,
    SIZE,
    Fact,
    depth_facts,
    ordinal_facts,
    place_facts,
    size_facts,
    standing_alone,
)
from deixis.language.synonyms import categories_meant_by, hypernyms_for, pick, words_for

T = TypeVar("T")

__all__ = ["KINDS", "Phrase", "VisibleInstance", "write_phrases"]

KINDS = ("location", "ordinal", "size", "colour", "relation", "plain")
"""What a phrase mainly rests on; nearness to the camera, which is judged by size, counts as ``size``."""

_KIND_OF_SLOT = {
    RELATION: "relation",
    ORDINAL: "ordinal",
    PLACE: "location",
    DEPTH: "size",
    SIZE: "size",
    COLOUR: "colour",
}
Recipe = tuple[float, tuple[str, ...]]
_RECIPES: dict[Style, tuple[Recipe, ...]] = {
    # RefCOCO's way: places, few words
    "terse": (
        (0.15, ()),
        (0.40, (PLACE,)),
        (0.14, (COLOUR, PLACE)),
        (0.07, (ORDINAL,)),
        (0.08, (DEPTH,)),
        (0.03, (COLOUR, DEPTH)),
        (0.04, (SIZE,)),
        (0.08, (COLOUR,)),
        (0.03, (RELATION,)),
        (0.02, (SIZE, PLACE)),
    ),
    # RefCOCO+'s way: how it looks, never left or right
    "looks": (
        (0.12, ()),
        (0.36, (COLOUR,)),
        (0.20, (RELATION,)),
        (0.07, (SIZE,)),
        (0.12, (DEPTH,)),
        (0.08, (COLOUR, RELATION)),
        (0.03, (COLOUR, SIZE)),
        (0.05, (COLOUR, DEPTH)),
    ),
    # RefCOCOg's way: a sentence's worth
    "long": (
        (0.24, (RELATION,)),
        (0.26, (COLOUR, RELATION)),
        (0.06, (RELATION, PLACE)),
        (0.10, (COLOUR, RELATION, PLACE)),
        (0.10, (COLOUR, PLACE)),
        (0.04, (COLOUR, SIZE, PLACE)),
        (0.06, (COLOUR, DEPTH)),
        (0.05, (RELATION, DEPTH)),
        (0.04, (COLOUR, ORDINAL)),
        (0.05, (PLACE,)),
        (0.06, (COLOUR,)),
    ),
}
_STYLES: tuple[tuple[float, Style], ...] = ((0.24, "terse"), (0.35, "looks"), (0.41, "long"))
_LAST_RESORTS = ((PLACE,), (DEPTH,), (COLOUR, PLACE), (ORDINAL,), (SIZE,), (PLACE,), ())
_TRIES: dict[Style, int] = {"terse": 2, "looks": 6, "long": 8}


@dataclass(frozen=True)
class Phrase:
    """A phrase for the instance at ``index``; ``kind`` is one of KINDS."""

    index: int
    text: str
    kind: str


def write_phrases(
    instances: Sequence[VisibleInstance],
    hw: tuple[int, int],
    image: NDArray[np.uint8] | None,
    rng: np.random.Generator,
    *,
    per_instance: int = 3,
    min_area: float = 0.03,
    loose_synonyms: bool = False,
    fully_annotated: bool = True,
) -> list[Phrase]:
    """Write up to ``per_instance`` different phrases for each instance that words can single out.

    Args:
        instances: everything annotated in the image; all of them count as rivals. Boxes may reach over the border.
        hw: height and width of the image in pixels.
        image: uint8 [H, W, 3] RGB, for colours; None writes no colour.
        rng: decides style and words; equal seeds write equal phrases.
        per_instance: most phrases for one instance.
        min_area: a referent's box has at least this share of the image; smaller ones and crowds are rivals only.
        loose_synonyms: also call a person "man", "woman", "boy" and the like, which the annotation does not tell.
            More like people talk, but often untrue: for training only, never for measuring.
        fully_annotated: whether all things in the image are among ``instances``. Where they are not, a phrase always
            has a noun, and one that means as few categories as any: "left" or "animal" may mean what is not annotated.

    Returns:
        Phrases in the order of their instances. Instances that cannot be told apart have none.
    """
    scene = ObservedScene(instances, hw, image, fully_annotated)
    written: list[Phrase] = []
    for index, place in enumerate(scene.places):
        if place.area >= min_area and not place.is_crowd:
            written += _write_for_one(scene, index, rng, per_instance, loose_synonyms)
    meant: dict[str, set[int]] = {}
    for phrase in written:
        meant.setdefault(phrase.text, set()).add(phrase.index)
    return [phrase for phrase in written if len(meant[phrase.text]) == 1]


def _write_for_one(scene: ObservedScene, index: int, rng: np.random.Generator, most: int, loose: bool) -> list[Phrase]:
    found: dict[str, Phrase] = {}
    for _ in range(2 * most + 2):
        if len(found) >= most:
            break
        style = _draw(rng, _STYLES)
        for _ in range(_TRIES[style]):
            phrase = _try_phrase(scene, index, style, rng, loose)
            if phrase is not None:
                found.setdefault(phrase.text, phrase)
                break
    for recipe in () if found else _LAST_RESORTS:
        phrase = _try_recipe(scene, index, "terse", recipe, rng, loose)
        if phrase is not None:
            return [phrase]
    return list(found.values())


def _try_phrase(scene: ObservedScene, index: int, style: Style, rng: np.random.Generator, loose: bool) -> Phrase | None:
    """One random recipe in a style; None where it does not single the instance out."""
    if style == "terse" and rng.random() < 0.12 and scene.fully_annotated:
        alone = [fact for fact in standing_alone(scene.places, index) if fact.alone]
        if alone:
            return Phrase(index, pick(rng, pick(rng, alone).alone), "location")
    return _try_recipe(scene, index, style, _draw(rng, _RECIPES[style]), rng, loose)


def _try_recipe(
    scene: ObservedScene, index: int, style: Style, recipe: tuple[str, ...], rng: np.random.Generator, loose: bool
) -> Phrase | None:
    """A random noun with random facts of the recipe's kinds; None where they do not single the instance out."""
    noun, left = _choose_noun(scene, index, rng, loose)
    facts: list[Fact] = []
    for slot in recipe:
        fact = _choose_fact(scene, index, slot, left, rng, with_place=not {PLACE, ORDINAL} & set(recipe))
        if fact is None:
            return None
        facts.append(fact)
        left &= fact.possible
    if left != {index}:
        return None
    kinds = [_KIND_OF_SLOT[slot] for slot in _KIND_OF_SLOT if any(fact.slot == slot for fact in facts)]
    bare = scene.places[index].category == "person" or noun in ("one", "thing")
    text = render(noun, facts, style, rng, noun_may_go=bare and scene.fully_annotated)
    return Phrase(index, text, kinds[0] if kinds else "plain")


def _choose_noun(scene: ObservedScene, index: int, rng: np.random.Generator, loose: bool) -> tuple[str, frozenset[int]]:
    """A noun for the instance and all that it may mean."""
    category = scene.places[index].category
    roll = rng.random()
    if not scene.fully_annotated:
        words = words_for(category, loose=loose)
        fewest = min(len(categories_meant_by(word)) for word in words)
        word = pick(rng, [word for word in words if len(categories_meant_by(word)) == fewest])
        return word, scene.meant_by(word, index)
    if roll < 0.04:
        near_size = {i for i in scene.shown if scene.places[i].area >= 0.1 * scene.places[index].area}
        if len({scene.places[i].category for i in near_size}) == 1 and len(near_size) > 1:
            return "one", scene.meant_by(category, index)
    elif roll < 0.12 and hypernyms_for(category):
        word = pick(rng, hypernyms_for(category))
        return word, scene.meant_by(word, index)
    elif roll < 0.25 and category == "person":
        roles = roles_of(scene.places, index)
        if roles:
            return pick(rng, roles)
    word = pick(rng, words_for(category, loose=loose))
    return word, scene.meant_by(word, index)


def _choose_fact(
    scene: ObservedScene, index: int, slot: str, left: frozenset[int], rng: np.random.Generator, *, with_place: bool
) -> Fact | None:
    """A random fact of the kind ``slot``, told against the rivals that are ``left``; None if there is none."""
    if slot == COLOUR:
        return colour_fact(scene, index, left)
    if slot == RELATION:
        return relation_fact(scene, index, left, rng, with_place=with_place)
    tell = {PLACE: place_facts, ORDINAL: ordinal_facts, SIZE: size_facts, DEPTH: depth_facts}[slot]
    facts = tell(scene.places, index, sorted(left - {index}))
    return _draw(rng, [(fact.weight, fact) for fact in facts]) if facts else None


def _draw(rng: np.random.Generator, weighted: Sequence[tuple[float, T]]) -> T:
    """One of the values of ``weighted`` (weight, value) by weight; the weights need not sum to one."""
    roll = rng.random() * sum(weight for weight, _ in weighted)
    for weight, value in weighted:
        roll -= weight
        if roll < 0:
            return value
    return weighted[-1][1]
