"""Phrases that mean nothing in their picture."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scene_checker import judge, parse

from deixis.data.absent import NONSENSE_SHARE, OPPOSITES, absent_expressions, nonsense, swapped_colours
from deixis.data.batches import BatchShape, Mixture
from deixis.data.image_sources import SceneSource
from deixis.data.scenes import compose_scene, seed_scene
from deixis.data.scenes.vocabulary import COLOURS, FLAVOURS
from deixis.language.colours import NEAR_COLOURS
from deixis.language.synonyms import categories_meant_by
from deixis.structures import AnnotatedImage, Expression, VisibleInstance

BOX = (0.0, 0.0, 40.0, 40.0)
RED, BLUE, GREEN = (200, 20, 20), (20, 20, 200), (20, 160, 20)
LEFT, CAT = Expression("left dog", BOX, None, "dog"), Expression("cat", (40.0, 20.0, 80.0, 40.0), None, "cat")


def picture_of(*targets, categories=None, things=(), counts=None, paint=(RED, GREEN)):
    """40 x 80 pixels: the first colour left, where BOX is, and the second right."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :40], image[:, 40:] = paint
    return AnnotatedImage(image, tuple(things), targets, categories, counts or {})


def absent(pictures, seed=0, share=1.0):
    """Without nonsense, which has no category."""
    rows = absent_expressions(pictures, np.random.default_rng(seed), share)
    return [(index, target.phrase) for index, target in rows if target.category]


# phrases of other pictures


def test_absent_when_category_is_there_or_unknown_or_unnamed_then_none():
    vague = Expression("the one on the left", (0, 0, 9, 9), None, "cat")
    pictures = [
        picture_of(LEFT, categories=frozenset({"dog"})),  # lacks the cat, but its phrase does not say cat
        picture_of(vague, categories=None),  # nobody knows what else is there
    ]
    assert all(absent(pictures, seed) == [] for seed in range(20))


@pytest.mark.parametrize(
    ("phrase", "category", "present"),
    [("left bear", "bear", "teddy bear"), ("left car", "car", "truck"), ("the cup", "cup", "bottle")],
)
def test_absent_when_a_like_thing_is_there_then_none(phrase, category, present):
    told = Expression(phrase, (0, 0, 9, 9), None, category)
    pictures = [picture_of(told), picture_of(LEFT, categories=frozenset({"dog", present}))]
    assert absent(pictures) == []
    pictures[1] = picture_of(LEFT, categories=frozenset({"dog"}))
    assert absent(pictures) == [(1, phrase)]


def test_absent_when_share_is_given_then_about_that_many_and_a_tenth_is_nonsense():
    pictures = [picture_of(LEFT, categories=frozenset({"dog"})) for _ in range(2000)]
    rows = absent_expressions([*pictures, picture_of(CAT)], np.random.default_rng(0), 0.25)
    assert 430 < len(rows) < 570
    assert all(target.box_xyxy_px is None and target.mask is None for _, target in rows)
    assert {target.phrase for _, target in rows if target.category} == {"cat"}
    assert 0.5 * NONSENSE_SHARE < sum(not target.category for _, target in rows) / len(rows) < 1.6 * NONSENSE_SHARE


def test_absent_when_share_is_0_then_none_and_nothing_is_drawn():
    assert absent_expressions([picture_of(LEFT)], None, 0.0) == []


def test_absent_when_all_is_unknown_then_nonsense_alone():
    rows = absent_expressions([picture_of(LEFT), picture_of(CAT)] * 500, np.random.default_rng(0), 1.0)
    assert 60 < len(rows) < 150
    assert {target.category for _, target in rows} == {""}


def test_absent_when_seed_is_the_same_then_the_same_and_else_not():
    pictures = [picture_of(LEFT, categories=frozenset({"dog"})), picture_of(CAT, categories=frozenset({"cat"}))] * 50
    one, again, other = (absent_expressions(pictures, np.random.default_rng(seed), 0.5) for seed in (4, 4, 5))
    assert one == again
    assert one != other


# nonsense


def test_nonsense_when_written_then_one_to_three_words_that_mean_nothing():
    rng = np.random.default_rng(0)
    phrases = [nonsense(rng) for _ in range(500)]
    assert set(Counter(len(phrase.split()) for phrase in phrases)) == {1, 2, 3}
    words = {word for phrase in phrases for word in phrase.split()}
    assert all(word.isalpha() and len(word) >= 4 for word in words)
    assert not any(categories_meant_by(word) or word in COLOURS for word in words)
    assert any(word in "qwertyuiop" for word in words)
    assert len(set(phrases)) > 400


# another colour: drawn scenes


def thing(shape, colour, texture="plain"):
    return VisibleInstance(shape, BOX, np.ones((40, 80), bool), attributes=(colour, texture))


def scene(phrase, *things):
    target = Expression(phrase, BOX, None, "circle")
    return target, picture_of(target, categories=frozenset({"circle", "square"}), things=things)


def swapped(phrase, *things):
    target, picture = scene(phrase, *things)
    return swapped_colours(target, picture)


def test_swapped_when_a_scene_then_colours_that_no_such_thing_has_nor_one_near_it():
    # red is near orange, pink, brown; the blue square is no circle, so that a "blue circle" is not there
    told = swapped("left red circle", thing("circle", "red"), thing("square", "blue"))
    colours = ("yellow", "green", "blue", "purple", "gray", "white", "black")
    assert told == [f"left {colour} circle" for colour in colours]


def test_swapped_when_the_shape_is_not_named_then_colours_of_all_things_are_left_out():
    told = swapped("the red thing", thing("circle", "red"), thing("square", "blue"))
    colours = ("yellow", "green", "gray", "white", "black")  # purple is near blue
    assert told == [f"the {colour} thing" for colour in colours]


def test_swapped_when_a_like_shape_has_the_colour_then_that_is_left_out():
    assert "blue circle" not in swapped("red circle", thing("circle", "red"), thing("ring", "blue"))
    assert "blue circle" in swapped("red circle", thing("circle", "red"), thing("star", "blue"))


@pytest.mark.parametrize(
    "phrase",
    ["circle", "the circle that is not red", "circle that isn't red", "red circle left of the blue square"],
)
def test_swapped_when_no_colour_or_several_or_a_negation_then_none(phrase):
    assert swapped(phrase, thing("circle", "red"), thing("square", "blue")) == []


def test_swapped_when_an_orange_thing_then_the_article_stays_right():
    assert swapped("an orange circle", thing("circle", "orange")) == []
    assert "a orange circle" not in swapped("a blue circle", thing("circle", "blue"))
    assert "the orange circle" in swapped("the blue circle", thing("circle", "blue"))


def test_swapped_when_what_is_behind_a_scene_is_unknown_then_none():
    target, picture = scene("red circle", thing("circle", "red"))
    unknown = replace(picture, categories=None)
    assert swapped_colours(target, unknown) == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_swapped_when_scenes_are_drawn_then_their_checker_finds_nothing_that_fits(flavour):
    count = 0
    for index in range(40):
        drawing, written, _ = compose_scene(flavour, "train", 64, seed_scene(flavour, "train", index), 3)
        things = [thing(seen.shape, seen.colour, seen.texture) for seen in drawing.facts]
        targets = [Expression(one.text, BOX, None, drawing.facts[one.index].shape) for one in written]
        picture = picture_of(*targets, categories=frozenset(s.shape for s in drawing.facts), things=things)
        for target in targets:
            for phrase in swapped_colours(target, picture):
                count += 1
                assert not any(judge(meaning, drawing.facts)[0] for meaning in parse(phrase)), phrase
    assert count > 40


# another colour: photos


@pytest.mark.parametrize(
    ("phrase", "category", "told"),
    [
        ("the red bus on the left", "bus", ["the blue bus on the left", "the green bus on the left"]),
        ("person in red", "person", ["person in blue", "person in green"]),
        ("guy in red shirt", "person", ["guy in blue shirt", "guy in green shirt"]),
        ("man in red on left", "person", ["man in blue on left", "man in green on left"]),
        ("person in red car", "person", []),  # who says that the car is red
        ("bus behind the red car", "bus", []),
        ("red orange", "orange", []),
        ("white man", "person", []),
        ("bus", "bus", []),
    ],
)
def test_swapped_when_a_photo_then_only_the_colour_of_the_thing_itself(phrase, category, told):
    target = Expression(phrase, BOX, None, category)
    picture = picture_of(target, counts={category: 1}, paint=(RED, BLUE))
    # BOX ends where blue begins, and its last column counts as seen: too little to be taken for the colour
    assert swapped_colours(target, picture) == told


def test_swapped_when_another_of_the_category_or_its_like_may_be_there_then_none():
    target = Expression("red bus", BOX, None, "bus")
    assert swapped_colours(target, picture_of(target, counts={"bus": 1, "person": 3}))
    for counts in ({"bus": 2}, {}, {"bus": 1, "truck": 1}):
        assert swapped_colours(target, picture_of(target, counts=counts)) == []


def test_swapped_when_the_thing_has_the_other_colour_too_then_that_is_left_out():
    target = Expression("red bus", (0.0, 0.0, 80.0, 39.0), None, "bus")
    assert swapped_colours(target, picture_of(target, counts={"bus": 1}, paint=(RED, GREEN))) == ["blue bus"]
    assert swapped_colours(target, picture_of(target, counts={"bus": 1}, paint=(RED, BLUE))) == ["green bus"]


def test_opposites_when_read_then_none_is_near_its_colour():
    for colour, others in OPPOSITES.items():
        assert not {colour, *NEAR_COLOURS[colour]} & set(others)
        assert not any(colour in NEAR_COLOURS[other] for other in others)


def test_batch_when_absent_is_wanted_then_swapped_foreign_and_nonsense_all_occur():
    mixture = Mixture([SceneSource("scenes", count=50)], [1.0])
    options = {"images": 4, "phrases": 2, "size": 64, "absent": 1.0}
    batch = mixture.batch(1, 2, BatchShape(**options))
    assert batch.phrases == mixture.batch(1, 2, BatchShape(**options)).phrases
    assert not batch.present.all()
    assert not batch.boxes[~batch.present].any()
