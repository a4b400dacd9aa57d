import numpy as np
import pytest

from deixis.data.attributes import WORD_GROUPS
from deixis.train.layouts import COCO_CATEGORIES, Layout, Layouts, Spoken, content_of

COLUMNS = "coco_image_id,width,height,box_x,box_y,box_w,box_h,expression"
LEFT, RIGHT = (0.0, 0.0, 0.4, 0.8), (0.5, 0.0, 0.9, 0.8)
DOG, CAT = COCO_CATEGORIES.index("dog"), COCO_CATEGORIES.index("cat")
LIKE = {"features": np.zeros((1, 13, 100), np.float16), "is_cell": np.array([[False] * 9 + [True] * 4])}


@pytest.fixture
def write(tmp_path):
    def made(*lines, name="a.csv", columns=COLUMNS):
        path = tmp_path / name
        path.write_text("\n".join([columns, *lines]) + "\n")
        return str(path)

    return made


def line(key, box, phrase, hw=(50, 100)):
    """A line of a picture of 100 x 50 pixels, its box a fraction of that."""
    height, width = hw
    x1, y1, x2, y2 = box
    numbers = (x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height)
    return ",".join(str(one) for one in (key, width, height, *numbers, phrase))


def two_things(first="left dog", second="right cat", hw=(50.0, 100.0)):
    kinds = [word if word in COCO_CATEGORIES else "" for word in (first.split()[-1], second.split()[-1])]
    return Layout(hw, (Spoken(LEFT, (first,), kinds[0]), Spoken(RIGHT, (second,), kinds[1])))


class Fixed:
    """A generator that mirrors or does not, and shakes nothing."""

    def __init__(self, *, mirrored):
        self.mirrored, self.real = mirrored, np.random.default_rng(0)

    def random(self):
        return 0.1 if self.mirrored else 0.9

    def normal(self, mean, deviation, shape):
        return np.zeros(shape)

    def integers(self, most, size=None):
        return 0 if size is None else np.zeros(0, int) if most == 6 else np.zeros(size, int)

    def __getattr__(self, name):
        return getattr(self.real, name)


# reading


def test_categories_when_listed_then_the_80_of_the_detector_in_its_order():
    assert len(COCO_CATEGORIES) == 80
    known = {0: "person", 16: "dog", 17: "horse", 31: "snowboard", 56: "chair", 79: "toothbrush"}
    assert {number: COCO_CATEGORIES[number] for number in known} == known


def test_read_when_lines_are_of_a_picture_then_things_with_their_phrases_and_kind(write):
    path = write(line(2, LEFT, "left dog"), line(2, RIGHT, "black cat"), line(2, LEFT, "a dog"), line(4, LEFT, "alone"))
    (layout,) = Layouts.read(path).layouts  # a picture of one thing teaches no place
    assert layout.hw == (50, 100)
    assert [thing.phrases for thing in layout.instances] == [("left dog", "a dog"), ("black cat",)]
    assert [thing.category for thing in layout.instances] == ["dog", "cat"]
    assert layout.instances[0].box == pytest.approx(LEFT, abs=1e-4)


def test_read_when_pictures_are_held_out_then_left_out(write):
    lines = [line(key, box, "one") for key in (1, 7, 14, 15, 16) for box in (LEFT, RIGHT)]
    found = Layouts.read(write(*lines))
    assert len(found.layouts) == 1  # 7 and 14 are of test; 1 and 15 of val
    assert found.problems == ()


def test_read_when_there_are_several_files_then_all_of_them(write):
    one = write(line(2, LEFT, "one"), line(2, RIGHT, "two"))
    two = write(line(3, LEFT, "one"), line(3, RIGHT, "two"), name="b.csv", columns=COLUMNS.removeprefix("coco_"))
    assert len(Layouts.read(f"{one}, {two}").layouts) == 2


BAD = {
    "no number": "2,100,50,a,0,10,10,dog",
    "no such id": "x,100,50,0,0,10,10,dog",
    "no width": "2,0,50,0,0,10,10,dog",
    "no area": "2,100,50,0,0,0,10,dog",
    "off the picture": "2,100,50,120,0,10,10,dog",
    "not a number": "2,100,50,nan,0,10,10,dog",
    "nothing said": "2,100,50,0,0,10,10, ",
    "too short": "2,100,50,0",
    "without its end": "2,100,50,0,0,10,10",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_read_when_a_line_is_bad_then_left_out_and_told_with_its_number(write, bad):
    path = write(line(2, LEFT, "one"), bad, line(2, RIGHT, "two"))
    found = Layouts.read(path)
    assert [len(layout.instances) for layout in found.layouts] == [2]
    (problem,) = found.problems
    assert problem.startswith(f"{path}, line 3: ")


def test_read_when_a_column_is_missing_then_one_sentence(write):
    with pytest.raises(ValueError, match=r"expected training images with two instances .*a\.csv', got none"):
        Layouts.read(write("2,100", columns="image,width"))


def test_read_when_a_line_is_too_long_then_what_is_more_does_not_count(write):
    found = Layouts.read(write(line(2, LEFT, "one") + ",more", line(2, RIGHT, "two")))
    assert (len(found.layouts), found.problems) == (1, ())


def test_kind_when_phrases_disagree_then_the_one_that_most_name(write):
    lines = [line(2, LEFT, phrase) for phrase in ("left dog", "dogs", "a cat", "thing with a horse", "the brown one")]
    things = Layouts.read(write(*lines, line(2, RIGHT, "the tall one"))).layouts[0].instances
    assert [thing.category for thing in things] == ["dog", ""]


def test_kind_when_two_are_named_equally_often_then_not_known(write):
    lines = [line(2, LEFT, phrase) for phrase in ("left dog", "left cat")]
    # a bear may be a teddy bear
    things = Layouts.read(write(*lines, line(2, RIGHT, "right bears"))).layouts[0].instances
    assert [thing.category for thing in things] == ["", ""]


def test_kind_when_a_phrase_names_several_then_its_first(write):
    lines = [line(2, LEFT, "dog beside the cat"), line(2, RIGHT, "cat beside the dog")]
    assert [thing.category for thing in Layouts.read(write(*lines)).layouts[0].instances] == ["dog", "cat"]


# drawing


def test_content_when_the_picture_is_wide_or_high_then_centred():
    assert content_of((50, 100)) == (0, 0.25, 1, 0.75)
    assert content_of((100, 50)) == (0.25, 0, 0.75, 1)


def test_draw_when_as_it_is_then_boxes_on_the_canvas():
    told, drawn = Layouts([two_things()]).draw(Fixed(mirrored=False), 1, 4)
    on_canvas = [[0, 0.25, 0.4, 0.65], [0.5, 0.25, 0.9, 0.65]]
    np.testing.assert_allclose(drawn.boxes[0], on_canvas, atol=1e-6)
    np.testing.assert_allclose(drawn.content, [[0, 0.25, 1, 0.75]])
    assert drawn.kinds == [[DOG, CAT]]
    said = dict(zip(told[0].phrases, told[0].boxes, strict=True))
    assert said == {"left dog": pytest.approx(on_canvas[0]), "right cat": pytest.approx(on_canvas[1])}
    assert told[0].present == [True, True]
    assert [labels[0] for labels in told[0].boxed_labels] == [WORD_GROUPS[0].index(kind) for kind in ("dog", "cat")]


def test_draw_when_mirrored_then_words_and_boxes_are():
    told, drawn = Layouts([two_things()]).draw(Fixed(mirrored=True), 1, 4)
    np.testing.assert_allclose(drawn.boxes[0], [[0.6, 0.25, 1, 0.65], [0.1, 0.25, 0.5, 0.65]], atol=1e-6)
    said = dict(zip(told[0].phrases, told[0].boxes, strict=True))
    assert said == {
        "right dog": pytest.approx([0.6, 0.25, 1, 0.65]), "left cat": pytest.approx([0.1, 0.25, 0.5, 0.65]),
    }  # fmt: skip


def test_draw_when_a_phrase_may_not_be_mirrored_then_left_out():
    told, drawn = Layouts([two_things("left dog", "number 5 on the cat")]).draw(Fixed(mirrored=True), 1, 4)
    assert told[0].phrases == ["right dog"]
    assert len(drawn.boxes[0]) == 2  # what it speaks of is there all the same


def test_draw_when_phrases_are_many_then_at_most_so_many():
    told, _ = Layouts([two_things()]).draw(np.random.default_rng(0), 5, 1)
    assert [len(one.phrases) for one in told] == [1] * 5


def test_draw_when_shaken_then_near_the_thing_and_within_the_picture():
    told, drawn = Layouts([two_things()]).draw(np.random.default_rng(0), 50, 2)
    for one, boxes in zip(told, drawn.boxes, strict=True):
        assert (boxes[:, 1::2] >= 0.25 - 1e-6).all()
        assert (boxes[:, 1::2] <= 0.75 + 1e-6).all()
        assert all(np.abs(boxes - np.array(box, np.float32)).max(1).min() < 0.1 for box in one.boxes)
    assert len({tuple(boxes[0]) for boxes in drawn.boxes}) == 50


def test_draw_when_others_may_stand_there_then_of_kinds_that_are_not():
    horses = Layout((50.0, 100.0), (Spoken(LEFT, ("horse",), "horse"), Spoken(RIGHT, ("one",), "")))
    _, drawn = Layouts([two_things(), horses]).draw(np.random.default_rng(0), 60, 2)
    kinds = {tuple(one) for one in drawn.kinds}
    assert (DOG, CAT) in kinds
    horse = COCO_CATEGORIES.index("horse")
    assert any(one[:2] == (DOG, CAT) and horse in one[2:] for one in kinds)
    # nothing joins a picture in which a kind is not known; nor a dog one with a dog
    assert all(one == (horse, -1) or (one[:2] == (DOG, CAT) and set(one[2:]) <= {horse}) for one in kinds)


def test_proposals_when_kinds_are_known_then_their_logit_and_blank_else():
    _, drawn = Layouts([two_things("left dog", "right one")]).draw(Fixed(mirrored=False), 1, 2)
    seen = drawn.as_proposals(LIKE)
    assert seen["valid"].tolist() == [[True] * 2 + [False] * 11]
    assert seen["is_cell"].tolist() == LIKE["is_cell"].tolist()
    np.testing.assert_allclose(seen["boxes"][0, :2], drawn.boxes[0])
    assert not seen["boxes"][0, 2:].any()
    assert seen["scores"][0].tolist() == [0.5] * 2 + [0] * 11
    assert seen["features"].shape == (1, 13, 100)
    assert seen["features"][0, 0, DOG] == 0.5
    others = np.delete(seen["features"][0, 0, :80], DOG)
    assert (others == -5).all()
    assert (seen["features"][0, 1, :80] == -5).all()
    assert not seen["features"][0, :2, 80:].any()
    assert not seen["features"][0, 2:].any()


def test_proposals_when_things_are_more_than_candidates_then_the_first_and_no_cell_is_touched():
    things = tuple(Spoken(LEFT, (f"dog {one}",), "dog") for one in range(20))
    _, drawn = Layouts([Layout((50.0, 100.0), things)]).draw(Fixed(mirrored=False), 1, 2)
    seen = drawn.as_proposals(LIKE)
    assert seen["valid"].tolist() == [[True] * 9 + [False] * 4]
