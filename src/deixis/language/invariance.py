"""Which phrases stay true when their picture is mirrored, cropped or pushed aside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from deixis.language.directions import glued_side, kept_spans, mirror_phrase, names_direction

_TO_BE_READ = re.compile(
    r"""(?<![^\W_])(?:
        numbers? | numbered | no\. | nr\.? | digits? | letters? | lettering | lettered | text | words? | wording |
        says | saying | reads | written | writing | spells? | spelled | spelling | logos? | labell?ed | inscription |
        initials | captions? | titled | slogan | licen[cs]e\s+plate | mirrored | backwards\s+text
    )(?![^\W_])""",
    re.VERBOSE,
)
_TURNS_WITH_MIRROR = re.compile(
    r"""(?<![^\W_])(?:
        clocks? | o['’]?\s?clock | clockwise | counter-?clockwise | anti-?clockwise | facing |
        (?:north|south)?-?(?:east|west)(?:ern|erly|ward|wards|bound)? |
        (?:left|right)-?\s?handed | left(?:y|ies) | right(?:y|ies) | south\s?paw |
        port\s+side | starboard | driver['’]?s?\s+side | passenger['’]?s?\s+side
    )(?![^\W_])""",
    re.VERBOSE,
)
_MISSPELT_SIDE = re.compile(r"(?<![^\W_])(?:ri(?:gth|hgt|gt|ghtt)|rght|lef|leftt)(?![^\W_])")
_PERHAPS_GONE = re.compile(
    r"(?<![^\W_])(?:what(?:['’]?s|\s+is|\s+was)?|who|has|had|have|been|being)\s+(?:left|right)\b"
)
_FIGURES = re.compile(r"\d+(?:st|nd|rd|th)?(?![^\W_])|\d")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)(?![^\W_])")
_QUOTED = re.compile(r"[\"“”‘]|(?:^|\s)['’][^'’]+['’](?:\s|$)")
_PLACE = re.compile(r"(?<![^\W_])(?:(?:north|south)?-?(?:east|west)|north|south|o['’]?\s?clock)(?![^\W_])")
_ORDER = re.compile(
    r"""(?<![^\W_])(?:
        \d+(?:st|nd|rd|th) | first | second | third | fourth | fifth | sixth | seventh | eighth | ninth | tenth |
        last | middle | mid | middlemost | cent(?:er|re|ral|ered|red)
    )(?![^\W_])""",
    re.VERBOSE,
)
_RELATION = re.compile(
    r"""(?<![^\W_])(?:
        next\s+to | beside | besides | behind | in\s+front\s+of | in\s+back\s+of | near | nearest | nearer | by |
        between | amongst? | under | underneath | beneath | below | above | on\s+top\s+of | against | around | across |
        opposite | along | adjacent | (?:far|close|clos(?:er|est)|furthest|farthest)\s+(?:to|from) |
        over\s+(?:the|a|an|his|her|their|its)
    )(?![^\W_])(?!\s+(?:to\s+)?(?:the\s+)?(?:us|me|you|viewer|camera|photographer)(?![^\W_]))""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What becomes of a phrase's truth when its picture moves; ``reason`` says why where something breaks."""

    mirror: Literal["stays", "swaps", "breaks"]
    """``swaps``: true of the mirrored picture once left and right change places in the words."""
    crop: Literal["stays", "needs others", "breaks"]
    """``needs others``: true of a crop that keeps all the things that the phrase counts or compares with."""
    reason: str = ""


def truth_of(phrase: str) -> Truth:
    """Mark a phrase by what a mirror and a crop around the thing meant do to its truth.

    >>> truth_of("left dog").mirror, truth_of("bright shirt").mirror, truth_of("number 5 jersey").mirror
    ('swaps', 'stays', 'breaks')
    >>> truth_of("left dog").crop, truth_of("bright shirt").crop, truth_of("third cup").crop
    ('breaks', 'stays', 'needs others')
    """
    reason = why_not_mirror(phrase)
    mirror = "breaks" if reason else "stays" if mirror_phrase(phrase) == phrase else "swaps"
    if names_place(phrase):
        return Truth(mirror=mirror, crop="breaks", reason=reason or "says where in the picture")
    crop = "needs others" if names_order(phrase) or names_relation(phrase) else "stays"
    return Truth(mirror=mirror, crop=crop, reason=reason)


def can_mirror(phrase: str) -> bool:
    """Whether `mirror_phrase` surely gives a phrase that is true of the mirrored image; see `why_not_mirror`.

    >>> can_mirror("second from left"), can_mirror("number 5 jersey"), can_mirror("the dog at 3 o'clock")
    (True, False, False)
    """
    return not why_not_mirror(phrase)


def why_not_mirror(phrase: str) -> str:
    """Why the phrase, its left and right swapped, may be untrue of the mirrored image; empty where it is true.

    Phrases about what must be read (text, numbers, quoted words), clocks, "facing", east and west, handedness, a
    vehicle's sides, misspelt sides, and the few where "left" or "right" may be a side or not ("guy left behind").
    """
    lower = phrase.lower()
    if _TO_BE_READ.search(lower) or _QUOTED.search(phrase):
        return "names what must be read"
    if any(_ORDINAL.fullmatch(match.group()) is None for match in _FIGURES.finditer(lower)):
        return "names a number"
    if match := _TURNS_WITH_MIRROR.search(lower):
        return f"{match.group()!r} is another in the mirror"
    if match := _MISSPELT_SIDE.search(lower):
        return f"{match.group()!r} may be a misspelt side"
    if word := glued_side(lower):
        return f"{word!r} holds a side that cannot be told apart from it"
    if match := _PERHAPS_GONE.search(lower):
        return f"{match.group()!r} may be a side or not"
    for start, end in kept_spans(phrase):
        words = lower[start:end]
        if words.startswith("left") or re.search(r"in\s+front|in\s+back|in\s+the\s+middle|near|over", words):
            return f"{words!r} may be a side or not"
    return ""


def names_place(phrase: str) -> bool:
    """Whether the phrase says where in the picture, as `names_direction` does, or by compass, clock or a misspelling.

    >>> names_place("tower at 3 o'clock"), names_place("rigth guy"), names_place("clock tower")
    (True, True, False)
    """
    lower = phrase.lower()
    return names_direction(phrase) or _PLACE.search(lower) is not None or _MISSPELT_SIDE.search(lower) is not None


def names_order(phrase: str) -> bool:
    """Whether the phrase counts: another thing at the edge of the picture, gone, makes it untrue.

    >>> names_order("2nd from left"), names_order("middle one"), names_order("biggest one")
    (True, True, False)
    """
    return _ORDER.search(phrase.lower()) is not None


def names_relation(phrase: str) -> bool:
    """Whether the phrase says where the thing is beside another, which so has to be seen; the viewer is none.

    >>> names_relation("dog behind the truck"), names_relation("dog closest to us"), names_relation("stand by me")
    (True, False, False)
    """
    return _RELATION.search(phrase.lower()) is not None
