"""Boxes: hand-worked overlaps, changes of form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.geometry.boxes import (
    box_area,
    box_iou,
    clip_box,
    xyxy_from_cxcywh,
    xyxy_from_xywh,
)

NUMBERS = st.floats(-1000, 1000, allow_nan=False)
BOXES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 4, 4), (2, 0, 6, 4), 8 / 24),  # half of each is shared
        ((0, 0, 4, 4), (0, 0, 4, 4), 1.0),
        ((0, 0, 4, 4), (4, 0, 8, 4), 0.0),  # touching edges share nothing
        ((0, 0, 4, 4), (5, 5, 6, 6), 0.0),
        ((0, 0, 10, 10), (2, 3, 4, 8), 0.1),  # inside
        ((1, 1, 1, 1), (1, 1, 1, 1), 0.0),  # no area at all
        ((0, 0, 1, 1), (0.5, 0, 1.5, 1), 0.5 / 1.5),
    ],
)
def test_box_iou_when_worked_by_hand_then_agrees(a, b, expected):
    assert box_iou(a, b) == pytest.approx(expected)


def test_box_iou_when_broadcast_then_gives_the_table():
    a = np.array([[0, 0, 2, 2], [0, 0, 4, 4]])
    b = np.array([[0, 0, 2, 2], [2, 2, 4, 4], [0, 0, 4, 2]])
    table = box_iou(a[:, None], b[None])
    np.testing.assert_allclose(table, [[1, 0, 0.5], [0.25, 0.25, 0.5]])


def test_box_area_when_edges_are_swapped_then_zero():
    np.testing.assert_array_equal(box_area([[0, 0, 2, 3], [2, 0, 0, 3]]), [6, 0])


def test_clip_box_when_box_leaves_the_image_then_edges_stop_at_its_border():
    np.testing.assert_array_equal(clip_box([-5, -1, 30, 8], (10, 20)), [0, 0, 20, 8])


def test_changes_of_form_when_worked_by_hand_then_agree():
    np.testing.assert_array_equal(xyxy_from_xywh([1, 2, 3, 4]), [1, 2, 4, 6])
    np.testing.assert_array_equal(xyxy_from_cxcywh([2.5, 4, 3, 4]), [1, 2, 4, 6])


@settings(max_examples=50, deadline=None)
@given(BOXES, BOXES)
def test_box_iou_when_any_boxes_then_symmetric_and_between_zero_and_one(a, b):
    value = float(box_iou(a, b))
    assert 0 <= value <= 1 + 1e-12
    assert value == pytest.approx(float(box_iou(b, a)))


def test_boxes_when_last_axis_is_not_four_then_error_names_the_shape():
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        box_area([1, 2, 3])
