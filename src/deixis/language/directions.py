"""Left and right in phrases: find them, and swap them when the image is mirrored; whole words only.

`deixis.language.invariance` says when not to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SWAPS = {"left": "right", "lft": "rt", "lefthand": "righthand", "lefthanded": "righthanded", "lefty": "righty"}
for _ending in ("most", "side", "ward", "wards", "ish", "est", "er", "s"):
    _SWAPS[f"left{_ending}"] = f"right{_ending}"
_SWAPS |= {other: word for word, other in _SWAPS.items()}

_WORD = re.compile(r"(?<![^\W_])[^\W\d_]+(?![^\W_])")
# fmt: off
_LOCATED = frozenset(
    (
        "on", "the", "to", "at", "far", "from", "in", "top", "bottom", "upper", "lower", "facing", "back",
        "front", "middle", "of", "and", "very", "most", "way's", "extreme", "our", "your", "my", "its", "his",
        "her", "their", "a", "second", "third", "first", "fourth", "last", "looking", "pointing", "turning"
    )
)
# fmt: on
"""Words after which "right" is a side even when "next to" or "behind" follows."""
_CLOSELY = (
    r"next|behind|beside|below|beneath|underneath|under|above|in\s+front|in\s+back|in\s+the\s+middle|near|against|"
    r"after|before|between|around|on\s+top|over"
)
_NEVER_A_SIDE = re.compile(
    r"right\s+(?:now|there|here|where|away|angles?|of\s+way|side\s+up|side\s+out)|"
    r"left\s+(?:over|overs|alone|open|out|behind)"
)
_WHAT_REMAINS = re.compile(r"(?<![^\W_])what(?:['’]?s|\s+is|\s+was)?\s+$")
_INTENSIFIER = re.compile(rf"(?:left|right)\s+(?:{_CLOSELY})(?![^\W_])")
_WORD_BEFORE = re.compile(r"([^\W\d_]+(?:'s)?)[\s,.;:]*$")

_MIDDLE = frozenset(("middle", "mid", "middlemost", "center", "centre", "central", "centered", "centred"))
_DIRECTIONS = frozenset(
    (
        *_SWAPS,
        *_MIDDLE,
        *("top", "topmost", "bottom", "bottommost"),
        *("corner", "corners", "side", "sides", "upper", "uppermost", "lower", "lowermost"),
        *("far", "farthest", "edge", "righthand", "lefthand"),
    )
)


_HOLDS_A_SIDE = re.compile(r"(?<![^\W_])[^\W\d_]*(?:left|right)[^\W\d_]*(?![^\W_])")
_NO_SIDE = re.compile(
    r"(?:brights?|bright(?:er|est|ly|ness|en|ened)|fright\w*|upright\w*|copyright\w*|outright|downright|forthright\w*|"
    r"\w*wright\w*|birthright\w*|righteous\w*|rightful\w*|rightly|alright|aright|leftovers?|cleft|clefts|"
    r"straightforward\w*|\w*[bf]right\w*)"
)


def glued_side(phrase: str) -> str:
    """A word in which a side is glued to something else, such as "bottomleft" or "onleft"; empty if there is none.

    >>> glued_side("Bottomleft dog"), glued_side("bright leftmost leftovers")
    ('bottomleft', '')
    """
    for match in _HOLDS_A_SIDE.finditer(phrase.lower()):
        word = match.group()
        if word not in _SWAPS and _NO_SIDE.fullmatch(word) is None:
            return word
    return ""


def mirror_phrase(phrase: str) -> str:
    """The phrase with left and right swapped, as for the mirrored image; nothing else changes.

    Whole words only ("bright", "copyright", "leftover" stay), keeping their case, with the endings and abbreviations
    that people use (leftmost, left-hand, lft, rt). "right" in the sense of "just" stays ("right behind the dog"). So
    does "left" in its place, so that mirroring twice restores the phrase; `invariance.can_mirror` is then false.

    >>> mirror_phrase("Left bright shirt, right next to the leftmost dog")
    'Right bright shirt, right next to the rightmost dog'
    """
    kept = kept_spans(phrase)

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = _SWAPS.get(word.lower())
        if other is None or any(start <= match.start() < end for start, end in kept):
            return word
        return _in_case_of(word, other)

    return _WORD.sub(swap, phrase)


def names_direction(phrase: str) -> bool:
    """Whether a whole word of the phrase says where in the image: left, top, middle, corner, upper, far and so on.

    Such a phrase may be untrue of a crop. "stop", "laptop", "bright" and "right behind" are no directions.
    """
    return any(_direction_words(phrase)) or bool(glued_side(phrase))


def named_sides(phrase: str) -> frozenset[str]:
    """Which of "left", "right" and "middle" the phrase names, in any form, even glued to another word.

    >>> sorted(named_sides("Leftmost guy right behind the center table")), named_sides("bright top")
    (['left', 'middle'], frozenset())
    """
    glued = glued_side(phrase)
    found = {side for side in ("left", "right") if side in glued}
    for word in _direction_words(phrase):
        if word in _SWAPS:
            found.add("left" if word.startswith("l") else "right")
        elif word in _MIDDLE:
            found.add("middle")
    return frozenset(found)


def _direction_words(phrase: str) -> Iterator[str]:
    """In lower case, without each "left" and "right" that is not a side."""
    kept = kept_spans(phrase)
    for match in _WORD.finditer(phrase):
        word = match.group().lower()
        if word in _DIRECTIONS and not any(start <= match.start() < end for start, end in kept):
            yield word


def kept_spans(phrase: str) -> list[tuple[int, int]]:
    """Where "left" and "right" are not sides, as (start, end); the same for a phrase and its mirror image."""
    lower = phrase.lower()
    if len(lower) != len(phrase):  # a few letters of other scripts grow in lower case, and would shift the spans
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in phrase)
    spans = []
    for match in re.finditer(r"(?<![^\W_])(?:left|right)(?![^\W_])", lower):
        if _is_no_side(lower, match.start()):
            rest = _INTENSIFIER.match(lower, match.start()) or _never_a_side(lower, match.start())
            spans.append((match.start(), rest.end() if rest else match.end()))
    return spans


def _is_no_side(lower: str, start: int) -> bool:
    before = _WORD_BEFORE.search(lower[:start])
    last = before.group(1) if before else ""
    if last == "all" or _WHAT_REMAINS.search(lower[:start]):
        return True
    if last in _LOCATED or last in _SWAPS:
        return False
    if _never_a_side(lower, start) is not None:
        return True
    # at the beginning of the phrase it may be either: "right behind the dog", "left in front"
    return _INTENSIFIER.match(lower, start) is not None


def _never_a_side(lower: str, start: int) -> re.Match[str] | None:
    """Fixed phrases, found with either word, so that a phrase and its mirror image are treated alike."""
    side, other = ("left", "right") if lower.startswith("left", start) else ("right", "left")
    rest = lower[start + len(side) :]
    match = _NEVER_A_SIDE.match(lower, start)
    if match is None and _NEVER_A_SIDE.match(other + rest) is not None:
        match = re.compile(r"\w+\s+\w+(?:\s+(?:up|out|way))?").match(lower, start)
    return match


def _in_case_of(word: str, other: str) -> str:
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
