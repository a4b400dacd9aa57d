"""Which phrases stay true when their image is mirrored, cropped or shifted."""

from __future__ import annotations

import re
from typing import Literal

from deixis.language.directions import glued_side, kept_spans, names_direction

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


CropEffect = Literal["stays", "needs others", "breaks"]


def crop_effect(phrase: str) -> CropEffect:
    """What a crop that keeps the whole referent does to the truth of its phrase.

    "needs others": the phrase stays true of a crop that also keeps all instances that it counts or compares with.

    >>> crop_effect("left dog"), crop_effect("bright shirt"), crop_effect("third cup")
    ('breaks', 'stays', 'needs others')
    """
    lower = phrase.lower()
    if names_direction(phrase) or _PLACE.search(lower) or _MISSPELT_SIDE.search(lower):
        return "breaks"
    return "needs others" if names_order(phrase) or _RELATION.search(lower) else "stays"


def can_mirror(phrase: str) -> bool:
    """Whether `mirror_phrase` certainly gives a phrase that is true of the mirrored image; see `why_not_mirror`.

    >>> can_mirror("second from left"), can_mirror("number 5 jersey"), can_mirror("the dog at 3 o'clock")
    (True, False, False)
    """
    return not why_not_mirror(phrase)


def why_not_mirror(phrase: str) -> str:
    """Why the phrase, with left and right swapped, may be untrue of the mirrored image; empty if it is true.

    It may be untrue if it mentions something to be read (text, numbers, quoted words), clocks, "facing", east and west,
    handedness, a vehicle's sides or misspelt sides, or if "left" or "right" may or may not be a side ("guy left
    behind").
    """
    lower = phrase.lower()
    if _TO_BE_READ.search(lower) or _QUOTED.search(phrase):
        return "names something to be read"
    if any(_ORDINAL.fullmatch(match.group()) is None for match in _FIGURES.finditer(lower)):
        return "names a number"
    if match := _TURNS_WITH_MIRROR.search(lower):
        return f"{match.group()!r} changes in a mirror"
    if match := _MISSPELT_SIDE.search(lower):
        return f"{match.group()!r} may be a misspelt side"
    if word := glued_side(lower):
        return f"{word!r} has a side in it that cannot be swapped alone"
    if match := _PERHAPS_GONE.search(lower):
        return f"{match.group()!r} may or may not be a side"
    for start, end in kept_spans(phrase):
        words = lower[start:end]
        if words.startswith("left") or re.search(r"in\s+front|in\s+back|in\s+the\s+middle|near|over", words):
            return f"{words!r} may or may not be a side"
    return ""


def names_order(phrase: str) -> bool:
    """Whether the phrase counts, so that it may become untrue if another instance leaves the image.

    >>> names_order("2nd from left"), names_order("middle one"), names_order("biggest one")
    (True, True, False)
    """
    return _ORDER.search(phrase.lower()) is not None
