"""The kind of a phrase and the kinds of its words, guessed from the text for data sets that do not state them."""

from __future__ import annotations

import re

from deixis.language.colours import COLOURS
from deixis.language.directions import named_sides, names_direction

WORDS = ("left", "right", "middle", "other place", "ordinal", "size", "colour", "relation", "no place word")
"""What `words_said` may return; a phrase may have several."""

_SAME = {"colour": "attribute", "size": "attribute"}


def _words(*words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})(?![^\W_])")


_NEGATION = _words("not", "no", "without", "isn't", "aren't", "doesn't", "don't", "never", "nobody", "none", "except")
_ORDINAL = _words(
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    r"\d+(?:st|nd|rd|th)",
)
_RELATION = _words(
    *("next to", "beside", "behind", "in front of", "near", "nearest to", "closest to", "above", "below", "under"),
    *("underneath", "beneath", "between", "among", "against", "inside", "over", "on top of", "left of", "right of"),
    *("holding", "carrying", "riding", "wearing", "sitting on", "standing on", "lying on", "leaning on", "touching"),
    *("eating", "looking at", "pulling", "pushing", "facing", "surrounded by", "with"),
)
_COLOUR = _words(*COLOURS, "grey")
_SIZES = (
    *("big", "bigger", "biggest", "large", "larger", "largest", "small", "smaller", "smallest", "little", "tiny"),
    *("tall", "taller", "tallest", "short", "shorter", "shortest"),
)
_SIZE = _words(*_SIZES)
_DEPTH = _words(
    *(r"front(?! of)", r"back(?! of)", r"closest(?! to)", r"nearest(?! to)", "closer", "furthest"),
    *("foreground", "background"),
)
_ATTRIBUTE = _words(
    *COLOURS,
    *_SIZES,
    *("grey", "dark", "light", "blonde", "bald", "striped", "dotted", "plaid", "checkered", "shiny", "wooden"),
    *("old", "older", "oldest", "young", "younger", "youngest", "long", "thin", "fat", "empty", "full", "open"),
    "closed",
)


def phrase_kind(phrase: str, stated: str | None = None) -> str:
    """What kind of description singles out the referent.

    Args:
        phrase: the words.
        stated: the kind that the data set states, which is believed; colour and size count as attributes.

    Returns:
        ``stated``, or the first of negation, ordinal, relation, location and attribute of which the phrase has a word,
        or plain. This is a rough guess: good for comparing models on the same phrases, not for counting what people
        say.

    >>> phrase_kind("second guy from the left"), phrase_kind("red shirt"), phrase_kind("dog next to the man")
    ('ordinal', 'attribute', 'relation')
    """
    if stated:
        return _SAME.get(stated, stated)
    lower = phrase.lower().replace("’", "'")
    if _NEGATION.search(lower):
        return "negation"
    if _ORDINAL.search(lower):
        return "ordinal"
    if _RELATION.search(lower):
        return "relation"
    if names_direction(phrase):
        return "location"
    return "attribute" if _ATTRIBUTE.search(lower) else "plain"


def words_said(phrase: str) -> tuple[str, ...]:
    """The kinds of words in the phrase, in the order of `WORDS`.

    "other place" is a place other than left, right or middle: top, corner, front, closest. "no place word" means
    neither a place nor an ordinal, though possibly a relation.

    >>> words_said("second guy from the left"), words_said("big red car"), words_said("woman holding a cup")
    (('left', 'ordinal'), ('size', 'colour', 'no place word'), ('relation', 'no place word'))
    """
    lower = phrase.lower().replace("’", "'")
    said = set(named_sides(phrase))
    if not said and (names_direction(phrase) or _DEPTH.search(lower)):
        said.add("other place")
    if _ORDINAL.search(lower):
        said.add("ordinal")
    if not said:
        said.add("no place word")
    others = {"size": _SIZE, "colour": _COLOUR, "relation": _RELATION}
    said |= {name for name, pattern in others.items() if pattern.search(lower)}
    return tuple(name for name in WORDS if name in said)
