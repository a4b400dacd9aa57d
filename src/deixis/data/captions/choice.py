"""Choose among the phrases of a thing so that a whole file sounds like people: as long, and as often by place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deixis.data.captions.writing import Phrase
from deixis.language.directions import names_direction

CANDIDATES = 3
"""Phrases to write for each that is wanted."""
_PLACE_WEIGHT = 0.2
_WORDS_WEIGHTS = ((3, 0.5), (9, 1.0), (1000, 2.2))
"""(at most so many words, weight): chosen so that files of photos come near the human figures."""


def choose_like_people(phrases: Sequence[Phrase], most: int, rng: np.random.Generator) -> list[Phrase]:
    """At most ``most`` phrases of each thing, drawn without return by the weights; things keep their order."""
    of_thing: dict[int, list[Phrase]] = {}
    for phrase in phrases:
        of_thing.setdefault(phrase.index, []).append(phrase)
    return [phrase for group in of_thing.values() for phrase in _draw(group, most, rng)]


def _draw(group: list[Phrase], most: int, rng: np.random.Generator) -> list[Phrase]:
    weights = np.array([phrase_weight(phrase.text) for phrase in group])
    count = min(most, len(group))
    chosen = rng.choice(len(group), size=count, replace=False, p=weights / weights.sum())
    return [group[place] for place in chosen]


def phrase_weight(text: str) -> float:
    """How much a phrase is wanted, above 0."""
    words = len(text.split())
    by_length = next(weight for most, weight in _WORDS_WEIGHTS if words <= most)
    return by_length * (_PLACE_WEIGHT if names_direction(text) else 1.0)
