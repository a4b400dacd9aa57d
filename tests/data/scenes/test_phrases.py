"""Writer against checker over many scenes, and the manner of each flavour."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from scene_checker import find_referents

from deixis.data.scenes import compose_scene, seed_scene
from deixis.data.scenes.vocabulary import COLOURS, FLAVOURS, KINDS_OF, SPLITS

NUM_EACH = 180
SIZE = 96
PLACE_WORDS = set(
    re.findall(
        r"\w+",
        "left right top bottom upper lower middle center centre leftmost rightmost topmost highest lowest corner side "
        "far from above below under beneath over behind front inside in between beside next most second third fourth",
    )
)


def draw_phrases(flavour, num_each, start=0):
    """(split, scene, written, is_first) of ``num_each`` scenes of every split."""
    rows = []
    for split in SPLITS:
        for index in range(start, start + num_each):
            drawing, written, _ = compose_scene(flavour, split, SIZE, seed_scene(flavour, split, index), phrases=2)
            rows += [(split, drawing.facts, phrase, k == 0) for k, phrase in enumerate(written)]
    return rows


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour_rows(request):
    return request.param, draw_phrases(request.param, NUM_EACH)


def assert_one_referent(rows):
    assert rows
    for split, scene, written, _ in rows:
        assert find_referents(written.text, scene) == [written.index], (split, written)


def test_phrase_when_read_back_by_checker_then_exactly_its_referent(flavour_rows):
    assert_one_referent(flavour_rows[1])


@pytest.mark.slow
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_phrase_when_read_back_by_checker_over_many_scenes_then_exactly_its_referent(flavour):
    assert_one_referent(draw_phrases(flavour, 5000, start=10_000))


def test_phrase_when_left_and_right_are_swapped_then_no_longer_its_referent(flavour_rows):
    flavour, rows = flavour_rows
    swapped = 0
    for _, scene, written, _ in rows:
        if written.kind == "ordinal" or not re.search("left|right", written.text):
            continue
        other = re.sub("left|right", lambda m: {"left": "right", "right": "left"}[m[0]], written.text)
        assert find_referents(other, scene) != [written.index], written
        swapped += 1
    assert (swapped > 100) == (flavour != "scenes+")


def test_phrase_when_a_colour_is_changed_then_no_longer_its_referent(flavour_rows):
    names = [form for forms in COLOURS.values() for form in forms]
    changed = 0
    for _, scene, written, _ in flavour_rows[1]:
        match = re.search(rf"\b({'|'.join(names)})\b", written.text)
        if match is None or written.kind in ("negation", "relation"):
            continue  # there the colour may be that of something else
        colour = "orange" if match[0] != "orange" else "blue"
        assert find_referents(re.sub(rf"\b{match[0]}\b", colour, written.text), scene) != [written.index], written
        changed += 1
    assert changed > 40


def test_phrase_when_referent_has_a_twin_beside_it_then_no_longer_its_referent(flavour_rows):
    for _, scene, written, _ in flavour_rows[1]:
        assert find_referents(written.text, add_twin(scene, written.index)) != [written.index], written


def add_twin(scene, index):
    """The scene with the thing doubled, a hair away, hiding and hidden as the thing itself is."""
    twin = len(scene)
    things = []
    for thing in scene:
        hidden_by = dict(thing.hidden_by)
        if index in hidden_by:
            hidden_by[twin] = hidden_by[index]
        things.append(dataclasses.replace(thing, hidden_by=hidden_by))
    x1, y1, x2, y2 = scene[index].box_xyxy_norm
    shifted = (x1 + 1e-4, y1 + 1e-4, x2 + 1e-4, y2 + 1e-4)
    return [*things, dataclasses.replace(things[index], box_xyxy_norm=shifted)]


@pytest.mark.parametrize(("flavour", "length"), [("scenes", 3.5), ("scenes+", 3.5), ("scenesg", 8.4)])
def test_phrase_length_when_averaged_then_near_that_of_the_public_set(flavour_rows, flavour, length):
    if flavour_rows[0] == flavour:
        lengths = [len(written.text.split()) for _, _, written, is_first in flavour_rows[1] if is_first]
        assert np.mean(lengths) == pytest.approx(length, abs=0.5)


def test_phrase_kinds_when_many_are_written_then_each_kind_of_the_flavour_occurs(flavour_rows):
    flavour, rows = flavour_rows
    counts = Counter(written.kind for _, _, written, _ in rows)
    assert set(counts) == set(KINDS_OF[flavour])
    assert min(counts.values()) >= 20


def test_phrase_words_when_flavour_is_of_looks_then_never_a_place(flavour_rows):
    flavour, rows = flavour_rows
    words = {word for _, _, written, _ in rows for word in written.text.split()}
    assert bool(words & PLACE_WORDS) == (flavour != "scenes+")
    assert words == {word.lower() for word in words}


def test_phrase_wording_when_many_are_written_then_varied(flavour_rows):
    texts = [written.text for _, _, written, _ in flavour_rows[1]]
    assert len(set(texts)) > 0.5 * len(texts)


def test_relations_when_flavour_is_relational_then_every_relation_occurs():
    text = " | ".join(written.text for _, _, written, _ in draw_phrases("scenesg", 100, start=500))
    for word in ("left of", "right of", "above", "below", "behind", "in front of", "inside", "between", "next to"):
        assert word in text
