import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.captions.statistics import compare_statistics
from deixis.data.captions.writing import KINDS, write_phrases
from deixis.language.synonyms import words_for
from deixis.structures import VisibleInstance

HW = (300, 400)


def thing(category, x1, y1, x2, y2, **more):
    return VisibleInstance(category, (x1, y1, x2, y2), **more)


def texts(instances, index, image=None, seeds=60, **options):
    """Every phrase that many seeds write for one instance."""
    found = set()
    for seed in range(seeds):
        written = write_phrases(instances, HW, image, np.random.default_rng(seed), **options)
        found |= {phrase.text for phrase in written if phrase.index == index}
    return found


def words(phrases):
    return {word for text in phrases for word in text.split()}


TWO_DOGS = [thing("dog", 20, 100, 140, 220), thing("dog", 260, 100, 380, 220)]


def test_write_phrases_when_two_dogs_stand_apart_then_each_has_its_own_side():
    left, right = texts(TWO_DOGS, 0), texts(TWO_DOGS, 1)

    assert any("left" in text.split() and "dog" in text.split() for text in left)
    assert any("right" in text.split() for text in right)
    assert not left & right
    assert "dog" not in left
    assert not any("right" in text.split() and "to the right of" not in text and "left" not in text for text in left)


def test_write_phrases_when_twins_overlap_then_neither_is_named():
    twins = [thing("dog", 100, 100, 220, 220), thing("dog", 102, 101, 222, 221)]

    assert write_phrases(twins, HW, None, np.random.default_rng(0)) == []


def test_write_phrases_when_alone_then_the_noun_is_enough_and_nothing_is_compared():
    found = texts([thing("couch", 20, 100, 150, 220)], 0)

    assert {"couch", "sofa"} <= found
    assert words(found).isdisjoint({"leftmost", "biggest", "second", "right", "closest"})


def test_write_phrases_when_a_word_fits_two_categories_then_it_does_not_stand_alone():
    bikes = [thing("bicycle", 20, 100, 150, 220), thing("motorcycle", 250, 100, 390, 220)]
    found = texts(bikes, 0)

    assert "bicycle" in found
    assert "bike" not in found
    assert any("bike" in text.split() and "left" in text.split() for text in found)


def test_write_phrases_when_three_stand_in_a_row_then_the_middle_one_is_second_from_both_sides():
    row = [thing("cup", x, 120, x + 80, 220) for x in (20, 160, 300)]
    found = texts(row, 1, seeds=200)

    assert any(text.startswith(("second", "the second", "2nd", "the 2nd")) and text.endswith("left") for text in found)
    assert any("middle" in text.split() for text in found)
    assert words(found).isdisjoint({"first", "third", "leftmost", "far"})


def test_write_phrases_when_one_is_much_larger_then_it_is_the_big_one_and_the_other_the_small_one():
    sizes = [thing("pizza", 20, 60, 220, 260), thing("pizza", 280, 100, 380, 180)]

    assert {"big pizza", "biggest pizza"} & texts(sizes, 0)
    assert words(texts(sizes, 0)).isdisjoint({"small", "smallest"})
    assert {"small pizza", "smallest pizza"} & texts(sizes, 1)


def test_write_phrases_when_one_is_larger_and_lower_then_it_is_the_closest():
    depth = [thing("cow", 100, 120, 300, 290), thing("cow", 150, 60, 250, 130)]

    assert words(texts(depth, 0)) & {"closest", "front", "foreground"}
    assert words(texts(depth, 1)) & {"back", "background", "farthest"}
    assert words(texts(depth, 1)).isdisjoint({"closest", "foreground", "nearest"})


def test_write_phrases_when_colours_differ_then_each_is_named_by_its_own_only():
    image = np.full((*HW, 3), 90, np.uint8)
    image[100:220, 20:140], image[100:220, 260:380] = (220, 20, 20), (20, 40, 200)
    cars = [thing("car", 20, 100, 140, 220), thing("car", 260, 100, 380, 220)]

    assert "red car" in texts(cars, 0, image)
    assert "blue" not in words(t for t in texts(cars, 0, image) if "of the" not in t and " by " not in t)
    assert "blue car" in texts(cars, 1, image)
    assert words(texts(cars, 0, None)).isdisjoint({"red", "blue"})


def test_write_phrases_when_a_mask_is_given_then_the_colour_is_that_of_the_mask():
    image = np.full((*HW, 3), 20, np.uint8)
    mask = np.zeros(HW, np.bool_)
    mask[110:210, 30:70] = True
    image[mask] = (20, 160, 40)

    assert "green bus" in texts([thing("bus", 20, 100, 200, 220, mask=mask)], 0, image)


def test_write_phrases_when_a_shirt_is_seen_then_the_person_wears_it():
    image = np.full((*HW, 3), 128, np.uint8)
    image[76:142, 60:140] = (210, 15, 25)
    people = [thing("person", 50, 30, 150, 270), thing("person", 250, 30, 350, 270)]
    found = texts(people, 0, image)

    assert any("red shirt" in text for text in found)
    assert any("in red" in text for text in found)


def test_write_phrases_when_a_neighbour_is_of_another_category_then_relations_are_told():
    room = [
        thing("person", 40, 60, 130, 280),
        thing("person", 280, 60, 370, 280),
        thing("dog", 135, 180, 225, 280),
    ]
    found = texts(room, 0, seeds=150)

    assert {"person next to the dog", "person by the dog", "person beside the dog", "person left of the dog"} & found
    assert not any("right of the dog" in text for text in found)


def test_write_phrases_when_instances_are_small_or_a_crowd_then_they_are_rivals_only():
    crowded = [thing("person", 100, 50, 200, 280), thing("person", 300, 100, 320, 120), thing("dog", 20, 200, 90, 280)]
    found = texts(crowded, 0)
    crowd = [thing("person", 100, 50, 200, 280), thing("person", 0, 40, 400, 150, is_crowd=True)]

    assert "person" not in found
    assert not texts(crowded, 1)
    assert texts(crowded, 1, min_area=0.001)
    assert "person" not in texts(crowd, 0)
    assert not texts(crowd, 1)


def test_write_phrases_when_synonyms_are_not_loose_then_no_sex_or_age_is_asserted():
    person = [thing("person", 100, 50, 200, 280)]
    asserted = {"man", "woman", "boy", "girl", "kid", "lady", "dude"}

    assert words(texts(person, 0)).isdisjoint(asserted)
    assert words(texts(person, 0, loose_synonyms=True)) & asserted


def test_write_phrases_when_the_category_is_unknown_then_it_names_itself():
    assert "fire_truck toy".replace("_", " ") in texts([thing("Fire_truck toy", 100, 50, 200, 280)], 0)


def test_write_phrases_when_nothing_is_there_or_boxes_are_empty_then_nothing_is_written():
    rng = np.random.default_rng(0)

    assert write_phrases([], HW, None, rng) == []
    assert write_phrases([thing("dog", -50, -50, -10, -10), thing("cat", 5, 5, 5, 9)], HW, None, rng) == []


@pytest.mark.parametrize("per_instance", [1, 2, 5])
def test_write_phrases_when_seeded_then_equal_and_at_most_as_many_as_asked(per_instance):
    image = np.random.default_rng(1).integers(0, 255, (*HW, 3), dtype=np.uint8)
    first, second = (
        write_phrases(TWO_DOGS, HW, image, np.random.default_rng(7), per_instance=per_instance) for _ in range(2)
    )

    assert first == second
    assert {phrase.index for phrase in first} == {0, 1}
    assert all(sum(p.index == i for p in first) <= per_instance for i in (0, 1))
    assert len({(p.index, p.text) for p in first}) == len(first)


BOXES = st.tuples(st.floats(-20, 380), st.floats(-20, 280), st.floats(1, 300), st.floats(1, 250))
CATEGORIES = st.sampled_from(
    ["person", "dog", "car", "bicycle", "motorcycle", "cup", "dining table", "tie", "umbrella"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CATEGORIES, BOXES, st.booleans()), max_size=9), st.integers(0, 2**32 - 1))
def test_write_phrases_when_any_layout_then_phrases_are_clean_and_no_text_means_two(layout, seed):
    instances = [thing(c, x, y, x + w, y + h, is_crowd=crowd) for c, (x, y, w, h), crowd in layout]
    image = np.random.default_rng(0).integers(0, 255, (*HW, 3), dtype=np.uint8)
    written = write_phrases(instances, HW, image, np.random.default_rng(seed))

    owner = {}
    for phrase in written:
        assert phrase.text == " ".join(phrase.text.split())
        assert phrase.text == phrase.text.lower()
        assert "{" not in phrase.text
        assert phrase.kind in KINDS
        assert not instances[phrase.index].is_crowd
        assert owner.setdefault(phrase.text, phrase.index) == phrase.index


@settings(max_examples=80, deadline=None)
@given(st.lists(BOXES, min_size=2, max_size=5), st.integers(0, 1000))
def test_write_phrases_when_sides_are_named_then_the_boxes_agree(boxes, seed):
    dogs = [thing("dog", x, y, x + w, y + h) for x, y, w, h in boxes]
    centres = [(max(d.box_xyxy_px[0], 0) + min(d.box_xyxy_px[2], HW[1])) / 2 for d in dogs]
    seen = [i for i, d in enumerate(dogs) if d.box_xyxy_px[2] > 0 and d.box_xyxy_px[3] > 0]
    for phrase in write_phrases(dogs, HW, None, np.random.default_rng(seed)):
        if phrase.text in ("left dog", "dog on left", "leftmost dog", "the dog on the left"):
            assert centres[phrase.index] == min(centres[i] for i in seen)
        if phrase.text in ("right dog", "dog on right", "rightmost dog", "the dog on the right"):
            assert centres[phrase.index] == max(centres[i] for i in seen)


@pytest.mark.parametrize("loose", [False, True])
def test_write_phrases_when_partly_annotated_then_a_noun_that_means_nothing_else(loose):
    room = [thing("dog", 20, 100, 140, 220), thing("person", 260, 30, 390, 290)]
    full = [texts(room, i, per_instance=6, loose_synonyms=loose) for i in (0, 1)]
    partial = [texts(room, i, per_instance=6, loose_synonyms=loose, fully_annotated=False) for i in (0, 1)]

    assert "left" in full[0]
    assert "animal" in words(full[0])
    assert partial[0]
    assert all("dog" in text.split() for text in partial[0])
    nouns = {*words_for("person", loose=loose)}
    assert partial[1]
    assert all(nouns & set(text.split()) for text in partial[1])


def test_write_phrases_when_every_word_is_shared_and_partly_annotated_then_the_least_shared():
    found = texts([thing("car", 20, 100, 140, 220)], 0, fully_annotated=False)

    assert "car" in words(found)
    assert "vehicle" not in words(found)


# --- how people talk --------------------------------------------------------------------------------------------------

HUMAN_AND_TOLERANCE = {
    # Figures of about 30,000 human expressions. People also tell what annotations do not (clothes, poses), so that
    # the writer, for want of these, falls back on places and on few words: there, the tolerance is wide. Elsewhere it
    # is what random layouts differ in from photographs. A writer that lost a style or a kind of fact leaves these.
    "words, mean": (6.34, 0.8),
    "names a place": (0.449, 0.30),
    "three words or fewer": (0.257, 0.13),
    "ten words or more": (0.190, 0.06),
    "has a colour word": (0.337, 0.08),
}


def random_scene(rng):
    """Two to seven things of up to three categories, 120 x 160 pixels; every second one is of one plain colour."""
    names = ("person", "person", "person", "car", "dog", "cup", "chair", "cat", "bus", "horse", "bottle", "couch",
             "pizza", "umbrella")  # fmt: skip
    colours = ((200, 30, 30), (30, 40, 200), (240, 240, 240), (20, 20, 20))
    image = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    instances, kinds = [], rng.choice(len(names), size=3)
    for _ in range(int(rng.integers(2, 8))):
        category = names[int(rng.choice(kinds))]
        width, height = int(rng.integers(12, 80)), int(rng.integers(15, 90))
        x, y = int(rng.integers(0, 160 - width)), int(rng.integers(0, 120 - height))
        mask = np.zeros((120, 160), np.bool_)
        mask[y : y + height, x : x + width] = True
        if rng.random() < 0.5:
            image[mask] = colours[int(rng.integers(4))]
        instances.append(thing(category, x, y, x + width, y + height, mask=mask))
    return image, instances


def test_write_phrases_when_many_scenes_then_their_statistics_are_near_those_of_people():
    phrases = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        image, instances = random_scene(rng)
        phrases += [p.text for p in write_phrases(instances, (120, 160), image, rng)]
    written = {row.name: row.written for row in compare_statistics(phrases, phrases)}

    for name, (human, tolerance) in HUMAN_AND_TOLERANCE.items():
        assert abs(written[name] - human) <= tolerance, (name, written[name])
