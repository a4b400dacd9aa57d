"""Relations to a neighbour of another category, as far as two boxes prove them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deixis.data.captions.spatial_facts import Place
from deixis.language.synonyms import ROLE_WORDS

_RIDDEN = frozenset(("bicycle", "motorcycle", "horse", "elephant"))
_BOARDS = frozenset(("skateboard", "surfboard", "snowboard", "skis"))
# fmt: off
_CARRIED = frozenset(
    (
        "umbrella", "handbag", "backpack", "tie", "frisbee", "tennis racket", "baseball bat", "baseball glove",
        "surfboard", "skateboard", "snowboard", "skis", "cell phone", "suitcase", "kite", "teddy bear", "remote",
        "wine glass", "hot dog", "banana", "book", "toothbrush", "hair drier"
    )
)
# fmt: on
_SEATS = frozenset(("couch", "bed", "bench", "chair"))
_ON_SEATS = frozenset(("person", "cat", "dog", "bird", "teddy bear", "laptop", "book", "backpack", "handbag", "remote"))
# fmt: off
_ON_TABLES = frozenset(
    (
        "bottle", "wine glass", "cup", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot",
        "hot dog", "pizza", "donut", "cake", "laptop", "mouse", "remote", "keyboard", "cell phone", "book", "vase",
        "scissors", "teddy bear", "cat", "potted plant", "tv", "fork", "knife", "spoon", "handbag", "backpack"
    )
)
# fmt: on


def overlap_share(a: Place, b: Place) -> float:
    """Share of ``a``'s box that lies in ``b``'s."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    return max(width, 0.0) * max(height, 0.0) / max(a.area, 1e-9)


def _shared(a: Place, b: Place, axis: int) -> float:
    """Overlap along ``axis`` as a share of the shorter extent; negative for a gap."""
    low, high = (max(a.x1, b.x1), min(a.x2, b.x2)) if axis == 0 else (max(a.y1, b.y1), min(a.y2, b.y2))
    return (high - low) / max(min(a.extent(axis), b.extent(axis)), 1e-9)


def _gap_x(a: Place, b: Place) -> float:
    return max(a.x1, b.x1) - min(a.x2, b.x2)


def _beside(a: Place, b: Place) -> bool:
    apart = abs(a.centre(0) - b.centre(0)) > 0.4 * (a.width + b.width)
    return apart and _gap_x(a, b) < 0.15 * max(a.width, b.width) and _shared(a, b, 1) > 0.5


def _near(a: Place, b: Place) -> bool:
    reach = 0.5 * max(a.width, b.width)
    return _gap_x(a, b) < reach and max(a.y1, b.y1) - min(a.y2, b.y2) < reach


def _left_of(a: Place, b: Place) -> bool:
    return a.x2 < b.x1 + 0.2 * b.width and a.centre(0) < b.x1 and _gap_x(a, b) < 0.3 and _shared(a, b, 1) > 0.3


def _right_of(a: Place, b: Place) -> bool:
    return a.x1 > b.x2 - 0.2 * b.width and a.centre(0) > b.x2 and _gap_x(a, b) < 0.3 and _shared(a, b, 1) > 0.3


def _above(a: Place, b: Place) -> bool:
    if "person" in (a.category, b.category):  # nobody says that a person is above a cup
        return False
    return a.y2 < b.y1 + 0.1 * b.height and b.y1 - a.y2 < 0.12 and _shared(a, b, 0) > 0.6


def _rides(a: Place, b: Place) -> bool:
    if a.category != "person" or _shared(a, b, 0) < 0.6 or a.y1 > b.y1 - 0.2 * a.height or a.y2 < b.y1:
        return False
    if b.category in _RIDDEN:
        return a.y2 < b.y2 - 0.06 * b.height and a.centre(1) < b.centre(1) and overlap_share(a, b) > 0.25
    feet = a.y1 + 0.8 * a.height
    return b.category in _BOARDS and b.centre(1) > feet and b.y1 < a.y2 + 0.02 and b.height < 0.4 * a.height


def _carries(a: Place, b: Place) -> bool:
    return a.category == "person" and b.category in _CARRIED and overlap_share(b, a) > 0.6 and b.area < 0.6 * a.area


def _sits_on(a: Place, b: Place) -> bool:
    if a.category not in _ON_SEATS or b.category not in _SEATS or (a.category == "person" and b.category == "chair"):
        return False
    inside = a.y2 < b.y2 - 0.02 and b.y1 < a.y2 - 0.2 * b.height
    return inside and b.x1 < a.centre(0) < b.x2 and overlap_share(a, b) > 0.5 and a.area < b.area


def _lies_on_table(a: Place, b: Place) -> bool:
    if a.category not in _ON_TABLES or b.category != "dining table" or a.area > 0.5 * b.area:
        return False
    return (
        a.y2 < b.y2 - 0.02 and a.y2 > b.y1 + 0.1 * b.height and b.x1 < a.centre(0) < b.x2 and overlap_share(a, b) > 0.4
    )


def _at_table(a: Place, b: Place) -> bool:
    if a.category != "person" or b.category != "dining table" or not 0.1 < overlap_share(a, b) < 0.8:
        return False
    return a.y1 < b.y1 - 0.1 and a.y2 < b.y2 + 0.02


def _under_umbrella(a: Place, b: Place) -> bool:
    if b.category != "umbrella" or a.category != "person":
        return False
    return (
        b.centre(1) < a.y1 + 0.15 * a.height
        and b.y2 > a.y1 - 0.05
        and b.width > 0.8 * a.width
        and _shared(a, b, 0) > 0.8
    )


def _roughly_over(a: Place, b: Place) -> bool:
    return _shared(a, b, 0) > 0.15


@dataclass(frozen=True)
class Relation:
    """A relation: its words, when it surely holds of (instance, neighbour), and when it might."""

    words: tuple[str, ...]
    holds: Callable[[Place, Place], bool]
    may_hold: Callable[[Place, Place], bool]


LEFT_OF = Relation(("left of", "to the left of", "to left of"), _left_of, lambda a, b: a.centre(0) < b.centre(0) + 0.03)
RIGHT_OF = Relation(
    ("right of", "to the right of", "to right of"), _right_of, lambda a, b: a.centre(0) > b.centre(0) - 0.03
)
RELATIONS: tuple[Relation, ...] = (
    Relation(("on", "riding", "on"), _rides, _near),
    Relation(("with", "with", "who has"), _carries, lambda a, b: overlap_share(b, a) > 0.1),
    Relation(("on",), _sits_on, lambda a, b: overlap_share(a, b) > 0),
    Relation(("on",), _lies_on_table, lambda a, b: overlap_share(a, b) > 0),
    Relation(("at",), _at_table, _near),
    Relation(("under", "below"), _under_umbrella, _roughly_over),
    Relation(("next to", "beside", "by", "near"), _beside, _near),
    LEFT_OF,
    RIGHT_OF,
    Relation(("above",), _above, _roughly_over),
    Relation(("below",), lambda a, b: _above(b, a), _roughly_over),
)


def relations_between(a: Place, b: Place) -> list[Relation]:
    """Every relation of ``a`` to ``b`` that their boxes prove, the most specific first."""
    return [relation for relation in RELATIONS if relation.holds(a, b)]


def roles_of(places: Sequence[Place], index: int) -> list[tuple[str, frozenset[int]]]:
    """Nouns for a person by what it rides or carries ("surfer"), each with all whom it may mean; often none."""
    for other in places:
        if other.category in ROLE_WORDS and (_rides(places[index], other) or _plays_with(places[index], other)):
            return [(word, _meant_by_role(places, word) | {index}) for word in ROLE_WORDS[other.category]]
    return []


def _meant_by_role(places: Sequence[Place], word: str) -> frozenset[int]:
    """All persons near an instance of any category that may give them this role: a rider may have a horse or a bike."""
    givers = [place for place in places if word in ROLE_WORDS.get(place.category, ())]
    return frozenset(i for i, p in enumerate(places) if p.category == "person" and any(_near(p, o) for o in givers))


def _plays_with(a: Place, b: Place) -> bool:
    return b.category not in _RIDDEN and _carries(a, b)
