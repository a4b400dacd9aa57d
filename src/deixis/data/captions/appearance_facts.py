"""Facts that need pixels or neighbours: the colour of an instance, and its relation to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deixis.data.captions.relations import LEFT_OF, RIGHT_OF, relations_between
from deixis.data.captions.spatial_facts import COLOUR, RELATION, Fact, Place, place_facts, place_of
from deixis.language.colours import (
    COLOURS,
    beside_body,
    colour_pair,
    colour_shares,
    dominant_colour,
    may_be_called,
    middle_of,
    sample_pixels,
    thighs,
    upper_body,
)
from deixis.language.synonyms import categories_meant_by, pick, words_for
from deixis.structures import BoxXyxy, VisibleInstance

# fmt: off
_NO_COLOUR = frozenset(
    (
        "zebra", "giraffe", "wine glass", "bottle", "tv", "laptop", "cell phone", "dining table", "traffic light",
        "fork", "knife", "spoon", "tennis racket", "pizza", "sandwich", "hot dog", "skis", "baseball bat", "clock",
        "stop sign", "orange", "broccoli", "carrot"
    )
)
# fmt: on
# fmt: off
_TWO_COLOURED = frozenset(
    (
        "cat", "dog", "cow", "horse", "sheep", "bus", "train", "truck", "airplane", "umbrella", "kite", "bird",
        "boat"
    )
)
# fmt: on
_OTHER_NAMES = {"gray": ("gray", "gray", "grey"), "black": ("black", "black", "black", "dark")}
_SKIN_COLOURS = frozenset(("brown", "pink", "orange"))


@dataclass
class ObservedImage:
    """The instances of an image and their measured colours; each is measured when first needed."""

    instances: Sequence[VisibleInstance]
    hw: tuple[int, int]
    pixels: NDArray[np.uint8] | None
    fully_annotated: bool = True
    places: list[Place] = field(init=False)
    shown: frozenset[int] = field(init=False)
    _shares: dict[int, NDArray[np.float64] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = [place_of(i.category, i.box_xyxy_px, self.hw, is_crowd=i.is_crowd) for i in self.instances]
        self.shown = frozenset(i for i, place in enumerate(self.places) if place.area > 0)

    def meant_by(self, word: str, index: int) -> frozenset[int]:
        """All shown instances that ``word`` may mean, said of ``index``."""
        categories = categories_meant_by(word) | {self.places[index].category}
        return frozenset(i for i in self.shown if self.places[i].category in categories)

    def colours_of(self, index: int) -> NDArray[np.float64] | None:
        """Colour shares of an instance, or of a person's clothes; None where they are not visible."""
        if index not in self._shares:
            box = self._coloured_part(index)
            self._shares[index] = None if box is None else self._measure(index, box)
        return self._shares[index]

    def is_beside(self, index: int, colour: str) -> bool:
        """Whether what surrounds a person without a mask has this colour, so that it may not be the clothes'."""
        instance = self.instances[index]
        body = upper_body(instance.box_xyxy_px, has_mask=False)
        if instance.mask is not None or body is None or self.pixels is None:
            return False
        strips = [sample_pixels(self.pixels, s, None, 100) for s in beside_body(instance.box_xyxy_px, body)]
        return float(colour_shares(np.concatenate(strips))[COLOURS.index(colour)]) > 0.4

    def colour_of_pants(self, index: int) -> str | None:
        """The colour of what a whole standing person wears on the legs; None where it is not clear."""
        instance, place = self.instances[index], self.places[index]
        if instance.mask is None or place.y2 > 0.99 or not self.shows_shirt(index):
            return None
        box = thighs(instance.box_xyxy_px)
        shares = None if box is None else self._measure(index, box)
        return None if shares is None else dominant_colour(shares, least=0.55)

    def shows_shirt(self, index: int) -> bool:
        """Whether a person is upright and not cut at the head, so that its shirt is where a shirt is."""
        place = self.places[index]
        return place.y1 > 0.01 and upper_body(self.instances[index].box_xyxy_px, has_mask=True) is not None

    def _coloured_part(self, index: int) -> BoxXyxy | None:
        instance, place = self.instances[index], self.places[index]
        if place.is_crowd or place.area < 0.002:
            return None
        has_mask = instance.mask is not None
        if instance.category == "person" and (self.shows_shirt(index) or not has_mask):
            return upper_body(instance.box_xyxy_px, has_mask=has_mask) if self.shows_shirt(index) else None
        return instance.box_xyxy_px if has_mask else middle_of(instance.box_xyxy_px)

    def _measure(self, index: int, box: BoxXyxy) -> NDArray[np.float64] | None:
        if self.pixels is None:
            return None
        pixels = sample_pixels(self.pixels, box, self.instances[index].mask)
        return colour_shares(pixels) if len(pixels) >= 20 else None


def colour_fact(observed: ObservedImage, index: int, left: frozenset[int]) -> Fact | None:
    """The colour by which people would call an instance, or a person's clothes; None where none is clear."""
    category, has_mask = observed.places[index].category, observed.instances[index].mask is not None
    shares = None if category in _NO_COLOUR else observed.colours_of(index)
    if shares is None:
        return None
    colour = dominant_colour(shares, least=0.45 if has_mask else 0.55)
    if category == "person":
        clear = colour is not None and colour not in _SKIN_COLOURS and not observed.is_beside(index, colour)
        return _clothes_fact(observed, index, left, colour) if clear and colour else None
    if colour is None:
        pair = colour_pair(shares) if has_mask and category in _TWO_COLOURED else None
        if pair is None:
            return None
        distractors = frozenset(i for i in left if all(_may_be(observed, i, c) for c in pair))
        return Fact(COLOUR, distractors | {index}, (f"{pair[0]} and {pair[1]}",))
    distractors = frozenset(i for i in left if _may_be(observed, i, colour)) | {index}
    return Fact(COLOUR, distractors, _OTHER_NAMES.get(colour, (colour,)))


def _clothes_fact(observed: ObservedImage, index: int, left: frozenset[int], colour: str) -> Fact:
    distractors = frozenset(i for i in left if _may_be(observed, i, colour)) | {index}
    c = "grey" if colour == "gray" and index % 2 else colour
    if not observed.shows_shirt(index):
        return Fact(
            COLOUR, distractors, (), (f"in {c}", f"wearing {c}"), (f"in {c}",), (f"wearing {c}", f"dressed in {c}")
        )
    after = (*(f"in {c}",) * 3, f"in {c} shirt", f"{c} shirt", f"wearing {c}", f"with {c} shirt", f"in a {c} shirt")
    long = (f"in a {c} shirt", f"in the {c} shirt", f"wearing a {c} shirt", f"with a {c} shirt", f"wearing {c}")
    below = observed.colour_of_pants(index)
    if below is not None and below not in _SKIN_COLOURS:
        dress = (f"{c} shirt and {below} pants",) if below != colour else (f"{c} shirt and pants",)
        long = tuple(f"{verb} {what}" for verb in ("wearing a", "in a", "with a") for what in dress) + long[:2]
    return Fact(COLOUR, distractors, (), after, (f"{c} shirt", f"{c} shirt", f"in {c}"), long)


def _may_be(observed: ObservedImage, index: int, colour: str) -> bool:
    shares = observed.colours_of(index)
    return shares is None or may_be_called(shares, colour)


def relation_fact(
    observed: ObservedImage, index: int, left: frozenset[int], rng: np.random.Generator, *, with_place: bool
) -> Fact | None:
    """A relation to a neighbour whose name is unambiguous, or such that any instance of that name would do.

    The neighbour's own place is named only ``with_place``: beside a place of the referent it would be ambiguous.
    """
    mine = observed.places[index]
    near = [i for i in observed.shown if i != index and _is_landmark(observed, i)]
    for other in rng.permutation(np.array(near, dtype=np.intp))[:6].tolist():
        relations = relations_between(mine, observed.places[other])
        if not relations:
            continue
        relation = relations[0] if rng.random() < 0.7 else pick(rng, relations)
        named, meant = _name_neighbour(observed, other, rng, with_place)
        if meant == {index, other} and relation in (LEFT_OF, RIGHT_OF) and left <= meant:
            words = pick(rng, words_for(mine.category))
            named, meant = pick(rng, (f"another {words}", f"the other {words}")), frozenset({other})
        elif index in meant or (other in left and meant != {other}):
            continue
        might = {
            i for i in left - meant if any(relation.may_hold(observed.places[i], observed.places[n]) for n in meant)
        }
        text = (f"{pick(rng, relation.words)} {named}",)
        return Fact(RELATION, frozenset(might | {index}), (), text, text)
    return None


def _is_landmark(observed: ObservedImage, index: int) -> bool:
    return observed.places[index].area > 0.004 and not observed.places[index].is_crowd


def _name_neighbour(
    observed: ObservedImage, index: int, rng: np.random.Generator, with_place: bool
) -> tuple[str, frozenset[int]]:
    """Words for a landmark and all that they may mean: "the dog", "the dog on the left", "a white dog"."""
    word = pick(rng, words_for(observed.places[index].category))
    meant = observed.meant_by(word, index)
    if rng.random() < 0.4:
        colour = colour_fact(observed, index, meant)
        if colour is not None:
            word = f"{pick(rng, colour.before)} {word}" if colour.before else f"{word} {pick(rng, colour.long)}"
            meant &= colour.possible
    if len(meant) == 1:
        roll = rng.random()
        return f"the {word}" if roll < 0.65 else with_article(word) if roll < 0.9 else word, meant
    where = place_facts(observed.places, index, sorted(meant - {index})) if with_place and rng.random() < 0.6 else []
    if where:
        fact = pick(rng, where)
        before = rng.random() < 0.5
        placed = f"{pick(rng, fact.before)} {word}" if before else f"{word} {pick(rng, fact.long)}"
        return f"the {placed}", frozenset({index})
    return with_article(word), meant


def with_article(words: str) -> str:
    """``words`` with "a" or "an", bare where they are a plural or a mass ("skis", "luggage").

    >>> with_article("orange cat"), with_article("skis")
    ('an orange cat', 'skis')
    """
    if words.split()[-1] in ("skis", "scissors", "luggage", "broccoli") or words == "one":
        return words
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
