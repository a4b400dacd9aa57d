"""Pictures of groundings: where the colours fall, at every size, with any words."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.drawing import COLOURS, Mark, draw_grounding, draw_marks, draw_sheet
from deixis.verdict import VERDICTS


@dataclass
class Answer:
    phrase: str
    box: tuple[float, float, float, float]
    mask: np.ndarray | None
    score: float = 0.9
    verdict: str = "found"


def grey(height, width):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def test_draw_grounding_when_mask_given_then_it_is_tinted_and_the_rest_stays():
    image = grey(200, 300)
    mask = np.zeros((200, 300), dtype=bool)
    mask[100:150, 100:200] = True
    before = image.copy()
    drawn = np.array(draw_grounding(image, [Answer("dog", (100.0, 100.0, 200.0, 150.0), mask)]))
    np.testing.assert_array_equal(image, before)
    red, green, blue = drawn[125, 150].tolist()
    assert red > 128 > green
    assert green == blue
    assert drawn[180, 250].tolist() == [128, 128, 128]


def test_draw_grounding_when_box_given_then_its_edge_has_the_colour():
    drawn = np.array(draw_grounding(grey(100, 100), [Answer("", (10.0, 50.0, 60.0, 90.0), None, verdict="unsure")]))
    assert drawn.shape == (100, 100, 3)
    for y, x in ((50, 30), (89, 30), (70, 10), (70, 59)):
        assert tuple(drawn[y, x]) == COLOURS[0]
    assert drawn[70, 60].tolist() == [128, 128, 128]


def test_draw_grounding_when_one_answer_without_a_list_then_the_same_picture():
    answer = Answer("dog", (10.0, 50.0, 60.0, 90.0), None)
    np.testing.assert_array_equal(draw_grounding(grey(99, 70), answer), draw_grounding(grey(99, 70), [answer]))


def test_draw_grounding_when_not_found_then_the_words_say_so(monkeypatch):
    seen = []
    monkeypatch.setattr("deixis.drawing.draw_marks", lambda _image, marks: seen.extend(one.text for one in marks))
    draw_grounding(grey(9, 9), [Answer("dog", (1.0, 1.0, 5.0, 5.0), None, verdict=one) for one in VERDICTS])
    assert seen == ["dog 0.90", "dog 0.90 (unsure)", "dog 0.90 (not found)"]


def test_draw_grounding_when_several_then_colours_differ():
    answers = [Answer("", (5.0, 40.0, 45.0, 80.0), None), Answer("", (50.0, 40.0, 95.0, 80.0), None)]
    drawn = np.array(draw_grounding(grey(100, 100), answers))
    assert tuple(drawn[60, 5]) == COLOURS[0]
    assert tuple(drawn[60, 50]) == COLOURS[1]


def test_draw_marks_when_labels_meet_then_they_stand_apart():
    marks = [Mark(text="the same place", box_xyxy_px=(50.0, 60.0, 150.0, 120.0)) for _ in range(3)]
    drawn = np.array(draw_marks(grey(200, 200), marks))
    filled = [int((drawn == colour).all(axis=-1).sum()) for colour in COLOURS[:3]]
    assert min(filled) > 500  # a label is a filled box; a hidden one would leave a thin frame at most


@settings(max_examples=40, deadline=None)
@given(
    hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    text=st.text(max_size=200),
    edges=st.lists(st.floats(-50, 150), min_size=4, max_size=4),
)
def test_draw_marks_when_any_size_words_and_box_then_the_picture_has_the_images_size(hw, text, edges):
    x1, x2, y1, y2 = *sorted(edges[:2]), *sorted(edges[2:])
    mask = np.zeros(hw, dtype=bool)
    mask[: hw[0] // 2 + 1] = True
    drawn = draw_marks(grey(*hw), [Mark(text=text, box_xyxy_px=(x1, y1, x2 + 1, y2 + 1), mask=mask)])
    assert drawn.size == (hw[1], hw[0])


@pytest.mark.parametrize("text", ["собака слева", "左边的狗", "الكلب", "🐕" * 50, "\ud800", "a\nb\tc", "w" * 5000])
def test_draw_marks_when_words_are_unusual_then_no_error(text):
    assert draw_marks(grey(60, 200), [Mark(text=text, box_xyxy_px=None)]).size == (200, 60)


def test_draw_marks_when_image_is_huge_then_the_label_can_be_read():
    drawn = np.array(draw_marks(grey(3000, 4000), [Mark(text="dog", box_xyxy_px=(1000.0, 1000.0, 3000.0, 2000.0))]))
    label = (drawn[:995] == COLOURS[0]).all(axis=-1)
    assert np.flatnonzero(label.any(axis=1)).size > 100  # rows: letters of more than a fortieth of the height


def test_draw_marks_when_words_are_long_then_the_label_keeps_inside():
    drawn = np.array(draw_marks(grey(300, 200), [Mark(text="word " * 400, box_xyxy_px=(50.0, 150.0, 150.0, 250.0))]))
    rows = np.flatnonzero((drawn == COLOURS[0]).all(axis=-1).sum(axis=1) > 45)
    assert 30 < rows.size < 100


def test_draw_marks_when_mask_has_another_size_then_refused():
    with pytest.raises(ValueError, match="mask of the image's size"):
        draw_marks(grey(10, 20), [Mark(text="", box_xyxy_px=None, mask=np.ones((20, 10), dtype=bool))])


def test_draw_marks_when_image_is_not_uint8_then_refused():
    with pytest.raises(ValueError, match="uint8 image"):
        draw_marks(np.zeros((10, 20, 3)), [])  # pyright: ignore[reportArgumentType]


def test_draw_sheet_when_five_pictures_in_three_columns_then_two_rows():
    sheet = draw_sheet([Image.new("RGB", (40, 20), "black")] * 5, columns=3, cell_px=100)
    assert sheet.size == (3 * 106 + 6, 2 * 106 + 6)
    pixels = np.array(sheet)
    assert pixels[6 + 50, 6 + 50].tolist() == [0, 0, 0]
    assert pixels[6 + 106 + 50, 6 + 2 * 106 + 50].tolist() == [255, 255, 255]  # the sixth cell


def test_draw_sheet_when_empty_then_refused():
    with pytest.raises(ValueError, match="at least one image"):
        draw_sheet([])
