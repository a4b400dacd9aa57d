"""Phrases that surely mean nothing in their image: another image's, its own in a wrong colour, nonsense."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from deixis.data.attributes import WORD_GROUPS
from deixis.data.scenes.vocabulary import COLOURS, SHAPES
from deixis.language.colours import COLOURS as MEASURED
from deixis.language.colours import NEAR_COLOURS, colour_shares, may_be_called, sample_pixels
from deixis.language.synonyms import categories_meant_by, is_surely_absent, words_for
from deixis.structures import AnnotatedImage, Expression, VisibleInstance

NONSENSE_SHARE = 0.1
"""Of the absent phrases that are wanted; what an image shows need not be known for these."""
SWAP_SHARE = 0.35
"""Of the others, how often a wrong colour is tried before a phrase of another image."""

OPPOSITES: dict[str, tuple[str, ...]] = {
    "black": ("white", "yellow"),
    "white": ("black", "red"),
    "red": ("blue", "green"),
    "orange": ("blue", "green"),
    "yellow": ("blue", "purple"),
    "green": ("red", "purple"),
    "blue": ("red", "yellow"),
    "purple": ("green", "yellow"),
    "pink": ("green", "blue"),
}
"""Colours that nobody takes for the first, in any light."""
_MOST_OF_OPPOSITE = 0.1
"""Share of an instance's pixels that may have the wrong colour all the same: a person in red may wear blue shoes."""

_COLOUR_OF = {word: colour for colour, words in COLOURS.items() for word in words}
_SHAPE_OF = {word: shape for shape, words in SHAPES.items() for word in words}
_KINDS = WORD_GROUPS[0]
_SHAPES_ALIKE = (frozenset(("circle", "ring")), frozenset(("square", "diamond")))
_NEGATIONS = frozenset("not no non isn aren without except but other than nor neither".split())  # noqa: SIM905
_WORN = frozenset(
    "shirt tshirt top jacket coat sweater hoodie dress vest uniform jersey suit pants shorts skirt".split()  # noqa: SIM905
)
_AFTER_WORN = frozenset(("on", "at", "left", "right", "standing", "sitting", "with", "near", "next", "to", "closest"))
_WORD = re.compile(r"[a-z]+")

_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def absent_expressions(
    images: Sequence[AnnotatedImage], rng: np.random.Generator, share: float
) -> list[tuple[int, Expression]]:
    """For a ``share`` of the images, a phrase that surely means nothing in it, with the image's index.

    About one in ten is nonsense, for any image. The others are phrases of other images (see `is_surely_absent`), where
    everything in the image is known, or the image's own with another colour, where that is surely wrong.
    """
    if not share:
        return []
    candidates = [one for image in images for one in image.expressions]
    rows = []
    for index, image in enumerate(images):
        if rng.random() >= share:
            continue
        expression = _absent_from(image, candidates, rng)
        if expression is not None:
            rows.append((index, expression))
    return rows


def nonsense(rng: np.random.Generator) -> str:
    """One to three words of letters that mean nothing: "asdf qwer", "xkqj", or a single "blorap"."""
    roll = rng.random()
    if roll < 0.25:
        return _unlike_words("".join(_pick(rng, part) for _ in range(3) for part in (_CONSONANTS, _VOWELS)) + "x")
    make = _from_a_row if roll < 0.6 else _from_letters
    return " ".join(_unlike_words(make(rng)) for _ in range(int(rng.integers(1, 4))))


def swapped_colours(expression: Expression, image: AnnotatedImage) -> list[str]:
    """The phrase with other colours, each of which surely fits nothing in the image; often none.

    In a drawn scene, where the colour of every instance is known, no such instance is there. In a photo the phrase
    gives the colour of the only instance of its category, and the pixels of that do not have the other one.
    """
    words = list(_WORD.finditer(expression.phrase.lower()))
    spoken = [word.group() for word in words]
    places = [place for place, word in enumerate(spoken) if word in _COLOUR_OF]
    if expression.box_xyxy_px is None or len(places) != 1 or not _NEGATIONS.isdisjoint(spoken):
        return []
    place = places[0]
    masked = [one for one in image.instances if one.mask is not None]
    if masked and all(map(_colour_of, masked)):
        allowed = [] if image.categories is None else _wrong_in_scene(spoken, place, masked)
    else:
        allowed = _wrong_in_photo(spoken, place, expression, image)
    if place and spoken[place - 1] in ("a", "an"):  # "an orange one" is no "an blue one"
        allowed = [colour for colour in allowed if "orange" not in (colour, spoken[place])]
    start, end = words[place].span()
    return [f"{expression.phrase[:start]}{colour}{expression.phrase[end:]}" for colour in allowed]


def _colour_of(instance: VisibleInstance) -> str | None:
    return next((word for word in instance.attributes if word in COLOURS), None)


def _absent_from(
    image: AnnotatedImage, candidates: Sequence[Expression], rng: np.random.Generator
) -> Expression | None:
    if rng.random() < NONSENSE_SHARE:
        return Expression(nonsense(rng), None, None, "")
    makers = [_in_wrong_colour, _of_another_image]
    for make in makers if rng.random() < SWAP_SHARE else reversed(makers):
        expression = make(image, candidates, rng)
        if expression is not None:
            return expression
    return None


def _of_another_image(
    image: AnnotatedImage, candidates: Sequence[Expression], rng: np.random.Generator
) -> Expression | None:
    present = image.categories
    if present is None:
        return None
    foreign = [one for one in candidates if is_surely_absent(one.phrase, one.category, present)]
    if not foreign:
        return None
    chosen = foreign[rng.integers(len(foreign))]
    return Expression(chosen.phrase, None, None, chosen.category)


def _in_wrong_colour(image: AnnotatedImage, _: Sequence[Expression], rng: np.random.Generator) -> Expression | None:
    swapped = [(phrase, one.category) for one in image.expressions for phrase in swapped_colours(one, image)]
    if not swapped:
        return None
    phrase, category = swapped[rng.integers(len(swapped))]
    return Expression(phrase, None, None, category)


def _wrong_in_scene(spoken: Sequence[str], place: int, instances: Sequence[VisibleInstance]) -> list[str]:
    """Colours that no instance has, or no instance of the shape that is named right after the colour."""
    old = _COLOUR_OF[spoken[place]]
    shape = _SHAPE_OF.get(spoken[place + 1]) if place + 1 < len(spoken) else None
    alike = {shape}.union(*(group for group in _SHAPES_ALIKE if shape in group))
    there = {
        colour
        for one in instances
        if (colour := _colour_of(one)) and (shape is None or one.category not in _KINDS or one.category in alike)
    }
    taken = {old, *there}.union(*(NEAR_COLOURS[colour] for colour in {old, *there}))
    return [colour for colour in COLOURS if colour not in taken]


def _wrong_in_photo(spoken: Sequence[str], place: int, expression: Expression, image: AnnotatedImage) -> list[str]:
    """Colours far from the one that the phrase gives the only instance of its category, and not among its pixels."""
    assert expression.box_xyxy_px is not None
    named = _noun_of_colour(spoken, place, expression.category)
    others = [category for category in image.counts if category != expression.category]
    if named is None or image.counts.get(expression.category) != 1 or not is_surely_absent(named, named, others):
        return []
    shares = colour_shares(sample_pixels(image.pixels, expression.box_xyxy_px, expression.mask))
    return [
        colour
        for colour in OPPOSITES.get(_COLOUR_OF[spoken[place]], ())
        if shares[MEASURED.index(colour)] < _MOST_OF_OPPOSITE and not may_be_called(shares, colour)
    ]


def _noun_of_colour(spoken: Sequence[str], place: int, category: str) -> str | None:
    """A word for the category where the instance, or what a person wears, is what has the colour; else None."""
    after = spoken[place + 1] if place + 1 < len(spoken) else ""
    if category != "person":  # an orange is a fruit, too
        return after if category != "orange" and after in {word.split()[0] for word in words_for(category)} else None
    is_worn = place > 0 and spoken[place - 1] in ("in", "wearing") and (not after or after in _AFTER_WORN)
    return "person" if is_worn or after in _WORN else None


def _pick(rng: np.random.Generator, letters: str) -> str:
    return letters[int(rng.integers(len(letters)))]


def _from_a_row(rng: np.random.Generator) -> str:
    """Four or five keys beside each other."""
    row = _KEY_ROWS[int(rng.integers(len(_KEY_ROWS)))]
    start, length = int(rng.integers(len(row) - 4)), int(rng.integers(4, 6))
    return row[start : start + length]


def _from_letters(rng: np.random.Generator) -> str:
    return "".join(_pick(rng, _LETTERS) for _ in range(int(rng.integers(4, 8))))


def _unlike_words(word: str) -> str:
    """The word, or one that nothing is called by."""
    return f"{word}qx" if categories_meant_by(word) or word in _COLOUR_OF or word in _SHAPE_OF else word
