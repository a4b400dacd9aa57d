"""Write the phrases that people might use for the instances of an image: true, unambiguous, mostly terse.

A phrase is a noun and up to three facts (place, order, size, depth, colour, relation). Each fact lists the distractors
of which it might be true too; a phrase is kept only where noun and facts together leave the referent alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from deixis.data.captions.appearance_facts import ObservedImage, colour_fact, relation_fact, with_article
from deixis.data.captions.relations import roles_of
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
from deixis.structures import VisibleInstance

T = TypeVar("T")

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
Style = Literal["terse", "appearance", "long"]
"""RefCOCO's (places, few words), RefCOCO+'s (appearance, no left or right) and RefCOCOg's way (a sentence's worth)."""
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
    # RefCOCO+'s way: appearance, never left or right
    "appearance": (
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
_STYLES: tuple[tuple[float, Style], ...] = ((0.24, "terse"), (0.35, "appearance"), (0.41, "long"))
_LAST_RESORTS = ((PLACE,), (DEPTH,), (COLOUR, PLACE), (ORDINAL,), (SIZE,), (PLACE,), ())
_TRIES: dict[Style, int] = {"terse": 2, "appearance": 6, "long": 8}


@dataclass(frozen=True)
class Phrase:
    """A phrase for the instance at ``index``; ``kind`` is one of KINDS."""

    index: int
    text: str
    kind: str


def write_phrases(
    instances: Sequence[VisibleInstance],
    hw: tuple[int, int],
    pixels: NDArray[np.uint8] | None,
    rng: np.random.Generator,
    *,
    per_instance: int = 3,
    min_area: float = 0.03,
    loose_synonyms: bool = False,
    fully_annotated: bool = True,
) -> list[Phrase]:
    """Write up to ``per_instance`` different phrases for each instance that words can single out.

    Args:
        instances: all that are annotated in the image; each is a distractor of the others. Boxes may cross the border.
        hw: height and width of the image in pixels.
        pixels: uint8 [H, W, 3] RGB, for colours; None: no phrase names a colour.
        rng: decides style and words; equal seeds write equal phrases.
        per_instance: most phrases for one instance.
        min_area: a referent's box has at least this share of the image; smaller ones and crowds are distractors only.
        loose_synonyms: also call a person "man", "woman", "boy" and the like, which the annotation does not say.
            This is more like people talk, but often untrue: for training only, never for measuring.
        fully_annotated: whether everything in the image is among ``instances``. Where it is not, a phrase always
            has a noun, and one that means as few categories as any: "left" or "animal" may mean what is not annotated.

    Returns:
        Phrases in the order of their instances. Instances that words cannot single out have none.
    """
    observed = ObservedImage(instances, hw, pixels, fully_annotated)
    written: list[Phrase] = []
    for index, place in enumerate(observed.places):
        if place.area >= min_area and not place.is_crowd:
            written += _write_for_one(observed, index, rng, per_instance, loose_synonyms)
    meant: dict[str, set[int]] = {}
    for phrase in written:
        meant.setdefault(phrase.text, set()).add(phrase.index)
    return [phrase for phrase in written if len(meant[phrase.text]) == 1]


def _write_for_one(
    observed: ObservedImage, index: int, rng: np.random.Generator, most: int, loose: bool
) -> list[Phrase]:
    found: dict[str, Phrase] = {}
    for _ in range(2 * most + 2):
        if len(found) >= most:
            break
        style = _draw(rng, _STYLES)
        for _ in range(_TRIES[style]):
            phrase = _try_phrase(observed, index, style, rng, loose)
            if phrase is not None:
                found.setdefault(phrase.text, phrase)
                break
    for recipe in () if found else _LAST_RESORTS:
        phrase = _try_recipe(observed, index, "terse", recipe, rng, loose)
        if phrase is not None:
            return [phrase]
    return list(found.values())


def _try_phrase(
    observed: ObservedImage, index: int, style: Style, rng: np.random.Generator, loose: bool
) -> Phrase | None:
    """One random recipe in a style; None where it does not single the instance out."""
    if style == "terse" and rng.random() < 0.12 and observed.fully_annotated:
        alone = [fact for fact in standing_alone(observed.places, index) if fact.alone]
        if alone:
            return Phrase(index, pick(rng, pick(rng, alone).alone), "location")
    return _try_recipe(observed, index, style, _draw(rng, _RECIPES[style]), rng, loose)


def _try_recipe(
    observed: ObservedImage, index: int, style: Style, recipe: tuple[str, ...], rng: np.random.Generator, loose: bool
) -> Phrase | None:
    """A random noun with random facts of the recipe's kinds; None where they do not single the instance out."""
    noun, left = _choose_noun(observed, index, rng, loose)
    facts: list[Fact] = []
    for slot in recipe:
        fact = _choose_fact(observed, index, slot, left, rng, with_place=not {PLACE, ORDINAL} & set(recipe))
        if fact is None:
            return None
        facts.append(fact)
        left &= fact.possible
    if left != {index}:
        return None
    kinds = [_KIND_OF_SLOT[slot] for slot in _KIND_OF_SLOT if any(fact.slot == slot for fact in facts)]
    bare = observed.places[index].category == "person" or noun in ("one", "thing")
    text = render(noun, facts, style, rng, noun_may_go=bare and observed.fully_annotated)
    return Phrase(index, text, kinds[0] if kinds else "plain")


def _choose_noun(
    observed: ObservedImage, index: int, rng: np.random.Generator, loose: bool
) -> tuple[str, frozenset[int]]:
    """A noun for the instance and all that it may mean."""
    category = observed.places[index].category
    roll = rng.random()
    if not observed.fully_annotated:
        words = words_for(category, loose=loose)
        fewest = min(len(categories_meant_by(word)) for word in words)
        word = pick(rng, [word for word in words if len(categories_meant_by(word)) == fewest])
        return word, observed.meant_by(word, index)
    if roll < 0.04:
        near_size = {i for i in observed.shown if observed.places[i].area >= 0.1 * observed.places[index].area}
        if len({observed.places[i].category for i in near_size}) == 1 and len(near_size) > 1:
            return "one", observed.meant_by(category, index)
    elif roll < 0.12 and hypernyms_for(category):
        word = pick(rng, hypernyms_for(category))
        return word, observed.meant_by(word, index)
    elif roll < 0.25 and category == "person":
        roles = roles_of(observed.places, index)
        if roles:
            return pick(rng, roles)
    word = pick(rng, words_for(category, loose=loose))
    return word, observed.meant_by(word, index)


def _choose_fact(
    observed: ObservedImage, index: int, slot: str, left: frozenset[int], rng: np.random.Generator, *, with_place: bool
) -> Fact | None:
    """A random fact of the kind ``slot`` against the distractors that are ``left``; None if there is none."""
    if slot == COLOUR:
        return colour_fact(observed, index, left)
    if slot == RELATION:
        return relation_fact(observed, index, left, rng, with_place=with_place)
    facts_of = {PLACE: place_facts, ORDINAL: ordinal_facts, SIZE: size_facts, DEPTH: depth_facts}[slot]
    facts = facts_of(observed.places, index, sorted(left - {index}))
    return _draw(rng, [(fact.weight, fact) for fact in facts]) if facts else None


def _draw(rng: np.random.Generator, weighted: Sequence[tuple[float, T]]) -> T:
    """One of the values of ``weighted`` (weight, value) by weight; the weights need not sum to one."""
    roll = rng.random() * sum(weight for weight, _ in weighted)
    for weight, value in weighted:
        roll -= weight
        if roll < 0:
            return value
    return weighted[-1][1]


def render(noun: str, facts: Sequence[Fact], style: Style, rng: np.random.Generator, *, noun_may_go: bool) -> str:
    """Write the phrase for ``noun`` with ``facts``: "left dog", "a dog that is next to the couch on the left".

    Args:
        noun: the word for the referent.
        facts: at most one of a slot.
        style: how wordy; ``long`` takes articles and relative clauses.
        rng: picks among words that mean the same.
        noun_may_go: whether the noun may be dropped beside a fact that can stand alone ("red shirt").
    """
    long = style == "long"
    before, after = _place_words(facts, long, rng)
    if noun_may_go and not long and facts and not before and rng.random() < 0.3:
        nounless = [fact.alone for fact in facts]
        if all(nounless):
            return " ".join(pick(rng, options) for options in nounless)
    phrase = " ".join([*before, noun])
    frame = next((words for words in after if "{n}" in words), None)
    if frame is not None:
        after.remove(frame)
        phrase = frame.replace("{n}", phrase)
    definite = frame is not None or any(f.slot != COLOUR for f in facts if f.before and _used(f, before))
    phrase = _with_article(phrase, definite, long, rng)
    clause = _clause(noun, after, rng) if long else ""
    return " ".join(part for part in (phrase, clause, *after) if part)


def _used(fact: Fact, before: Sequence[str]) -> bool:
    return any(word in before for word in fact.before)


def _place_words(facts: Sequence[Fact], long: bool, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """The words before the noun and the words behind it, each in spoken order."""
    before: list[str] = []
    after: list[str] = []
    taken = False
    for fact in sorted(facts, key=lambda f: f.slot in (PLACE, ORDINAL)):
        prefer_before = fact.before and (not fact.after or rng.random() < (0.12 if long else 0.32))
        if prefer_before and not (taken and fact.after):
            # "left big white dog": place or size comes before the colour
            before.insert(0 if fact.slot != COLOUR else len(before), pick(rng, fact.before))
            taken = taken or fact.slot != COLOUR
        else:
            words = pick(rng, fact.long if long and fact.long else fact.after)
            after.insert(0 if fact.slot == COLOUR else len(after), words)
    return before, after


def _with_article(phrase: str, definite: bool, long: bool, rng: np.random.Generator) -> str:
    roll = rng.random()
    if roll < (0.42 if long else 0.07) or (long and definite and roll < 0.9):
        return f"the {phrase}"
    if not definite and roll < (0.9 if long else 0.1):
        return with_article(phrase)
    return phrase


def _clause(noun: str, after: Sequence[str], rng: np.random.Generator) -> str:
    """Sometimes "that is" before what follows the noun, but not before "red shirt"."""
    if not after or rng.random() > 0.3:
        return ""
    first = after[0].split()[0]
    if first in ("who", "with", "left", "right") or (
        after[0].endswith(" shirt") and first not in ("in", "wearing", "dressed")
    ):
        return ""
    return pick(rng, ("that is", "that is", "which is", "that's"))
