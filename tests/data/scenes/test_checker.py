"""The checker on scenes made by hand, with answers worked out by hand."""

import pytest
from scene_checker import find_referents, parse

from deixis.data.scenes.drawing import InstanceFacts


def facts(shape, x, y, colour="red", size="medium", texture="plain", extent=0.1, hidden_by=None):
    half = extent / 2
    box = (x - half, y - half, x + half, y + half)
    return InstanceFacts(
        shape=shape,
        colour=colour,
        size=size,
        texture=texture,
        extent=extent,
        box_xyxy_norm=box,
        outline_xyxy_norm=box,
        hidden_by=hidden_by or {},
    )


ROW = [
    facts("star", 0.10, 0.50, "red"),
    facts("star", 0.35, 0.50, "blue", "small", extent=0.06),
    facts("star", 0.60, 0.50, "red", texture="striped"),
    facts("star", 0.90, 0.50, "green", "large", extent=0.19),
    facts("ring", 0.90, 0.15, "gray", texture="dotted"),
]


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("ring", [4]),
        ("the grey donut", [4]),
        ("star", [0, 1, 2, 3]),
        ("red star", [0, 2]),
        ("stripy red star", [2]),
        ("red star with stripes", [2]),
        ("red star without stripes", [0]),
        ("polka dot thing", [4]),
        ("large star", [3]),
        ("the medium sized star that is not striped", [0]),
        ("red star not striped", [0]),
        ("star that isn't red", [1, 3]),
        ("thing that is not a star", [4]),
        ("green ring", []),
        ("biggest star", [3]),
        ("tiniest one", [1]),
        ("biggest red star", [0, 2]),
        ("left star", [0]),
        ("the red one on the left", [0]),
        ("leftmost", [0]),
        ("far right star", [3]),
        ("rightmost", [3, 4]),
        ("star on the right side of the picture", [3]),
        ("thing in the top right corner", [4]),
        ("upper right", [4]),
        ("bottom left star", []),
        ("top", [4]),
        ("second star from the left", [1]),
        ("2nd from left", [1]),
        ("third star from right", [1]),
        ("star 2nd from right", [2]),
        ("blue star left of the striped star", [1]),
        ("star to the left of the blue star", [0]),
        ("star right of the red star", []),
        ("star below the ring", [0, 1, 2, 3]),
        ("thing above the green star", [4]),
        ("star between the blue star and the green star", [2]),
        ("red star between the blue star and the big star in the picture", [2]),
        ("star left of the ring", [0, 1, 2]),  # the fourth is level with it
        ("smallest star to the left of the green star", [1]),
    ],
)
def test_find_referents_when_scene_is_a_row_of_stars_then_those_that_may_be_meant(phrase, expected):
    assert find_referents(phrase, ROW) == expected


STACK = [
    facts("square", 0.3, 0.3, "green", "large", extent=0.4, hidden_by={1: 0.04, 3: 0.2}),
    facts("heart", 0.3, 0.3, "pink", "small", extent=0.1),
    facts("heart", 0.75, 0.7, "pink", "small", extent=0.1),
    facts("circle", 0.52, 0.3, "blue", extent=0.2),
    facts("circle", 0.75, 0.3, "blue", extent=0.2),
    facts("star", 0.75, 0.58, "white", extent=0.1),
]


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("heart inside the square", [1]),
        ("heart in square", [1]),
        ("circle inside the square", []),  # half over its edge: not even its centre is in it
        ("square behind the blue circle", []),  # two blue circles: the landmark is not one
        ("circle in front of the square", [3]),
        ("heart in front of the square", []),  # may be said, but hides too little to be plain
        ("thing in front of the square", [1, 3]),
        ("square behind the white star", []),
        ("heart next to the star", [2]),
        ("heart beside the square", []),  # the box distance is 0: it lies on it
        ("circle above the star", [3, 4]),  # both are higher, and either may be meant by a generous reader
        ("the circle above the pink heart", []),  # which heart
        ("star under the square", []),
    ],
)
def test_find_referents_when_things_overlap_then_depth_and_place_decide(phrase, expected):
    assert find_referents(phrase, STACK) == expected


def test_find_referents_when_left_is_a_close_call_then_both_may_be_meant():
    close = [facts("star", 0.20, 0.2), facts("star", 0.33, 0.8), facts("star", 0.8, 0.5)]
    assert find_referents("left star", close) == [0, 1]
    assert find_referents("leftmost star", close) == [0]
    assert find_referents("second star from the left", close) == [1]
    tied = [facts("star", 0.20, 0.2), facts("star", 0.23, 0.8), facts("star", 0.8, 0.5)]
    assert find_referents("leftmost star", tied) == [0, 1]
    assert find_referents("second star from the left", tied) == [0, 1]


def test_find_referents_when_one_thing_is_said_to_be_where_it_is_not_then_empty():
    assert find_referents("left star", [facts("star", 0.8, 0.5), facts("ring", 0.1, 0.5)]) == []
    assert find_referents("star in the middle", [facts("star", 0.8, 0.5), facts("ring", 0.1, 0.5)]) == []


def test_find_referents_when_middle_then_centre_of_image_or_of_three():
    assert find_referents("middle star", [facts("star", 0.5, 0.45), facts("star", 0.9, 0.5)]) == [0]
    three = [facts("star", x, 0.2) for x in (0.1, 0.35, 0.7)]
    assert find_referents("star in the center", three) == [1]
    assert find_referents("middle star", [*three, facts("star", 0.5, 0.5)]) == [3]
    off_row = [facts("star", 0.1, 0.1), facts("star", 0.3, 0.5), facts("star", 0.52, 0.52)]
    assert find_referents("centre star", off_row) == [1, 2]


def test_find_referents_when_modifier_may_belong_to_either_noun_then_both_readings_count():
    scene = [
        facts("heart", 0.1, 0.5, texture="striped"),
        facts("heart", 0.3, 0.5),
        facts("ring", 0.8, 0.5, texture="striped"),
    ]
    # "heart left of (the ring with stripes)" fits both hearts, "(heart with stripes) left of the ring" one.
    assert find_referents("heart left of the ring with stripes", scene) == [0, 1]
    scene.append(facts("ring", 0.5, 0.9))
    # Two rings: only the first reading has one landmark.
    assert find_referents("heart to the left of the ring with stripes", scene) == [0, 1]


def test_find_referents_when_superlative_meets_relation_then_both_orders_count():
    scene = [
        facts("star", 0.1, 0.5, extent=0.1),
        facts("star", 0.3, 0.3, extent=0.06),
        facts("ring", 0.6, 0.5),
        facts("star", 0.85, 0.5, extent=0.2),
    ]
    assert find_referents("biggest star left of the ring", scene) == [0]
    assert find_referents("biggest star right of the ring", scene) == [3]
    assert find_referents("left star left of the ring", scene[:1] + scene[2:]) == [0]


@pytest.mark.parametrize(
    "phrase", ["star between the ring", "star and ring", "star left of", "second star", "star not"]
)
def test_parse_when_words_make_no_noun_phrase_then_value_error(phrase):
    with pytest.raises(ValueError, match="expected"):
        parse(phrase)


def test_parse_when_word_is_unknown_then_value_error_names_it():
    with pytest.raises(ValueError, match="'giraffe'"):
        parse("left giraffe")


def test_parse_when_modifier_follows_landmark_then_two_readings():
    readings = parse("the star left of the circle that is not red")
    assert len(readings) == 2
    landmark_first = {tuple(r.relations[0][1][0].unwanted) for r in readings}
    assert landmark_first == {(("colour", "red"),), ()}
