"""From a noun and facts to words in one of three ways of speaking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from deixis.data.captions.appearance_facts import with_article
from deixis.data.captions.spatial_facts import COLOUR, ORDINAL, PLACE, Fact
from deixis.language.synonyms import pick

Style = Literal["terse", "looks", "long"]
"""RefCOCO's (places, few words), RefCOCO+'s (looks, no left or right) and RefCOCOg's way (a sentence's worth)."""


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
    """Now and then "that is" before what follows a noun, but not before "red shirt"."""
    if not after or rng.random() > 0.3:
        return ""
    first = after[0].split()[0]
    if first in ("who", "with", "left", "right") or (
        after[0].endswith(" shirt") and first not in ("in", "wearing", "dressed")
    ):
        return ""
    return pick(rng, ("that is", "that is", "which is", "that's"))
