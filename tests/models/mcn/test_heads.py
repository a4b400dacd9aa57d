import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.mcn.heads import anchors_as_fractions, best_box, decode_boxes

ANCHORS = ((104.0, 208.0), (416.0, 52.0))  # 1/4 x 1/2 and 1 x 1/8 of a canvas of 416


def a_map(grid=2, phrases=1, confidence=-3.0):
    logits = torch.zeros(phrases, 2, 5, grid, grid)
    logits[:, :, 4] = confidence
    return logits


def test_decode_when_logits_are_0_then_anchors_lie_in_the_middle_of_the_cells():
    boxes, confidence = decode_boxes(torch.zeros(1, 2, 5, 2, 2), ANCHORS)
    assert boxes.shape == (1, 8, 4)
    expected = [
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        for w, h in ((0.25, 0.5), (1.0, 0.125))  # anchor by anchor
        for y in (0.25, 0.75)  # row by row
        for x in (0.25, 0.75)
    ]
    torch.testing.assert_close(boxes[0], torch.tensor(expected))
    torch.testing.assert_close(confidence, torch.full((1, 8), 0.5))


def test_decode_when_worked_by_hand_then_sigmoid_exponential_and_cell():
    logits = a_map()
    logits[0, 1, :, 1, 0] = torch.tensor([math.log(3), -math.log(3), math.log(0.5), math.log(2), math.log(4)])
    boxes, confidence = decode_boxes(logits, ANCHORS)
    # centre ((0.75 + 0) / 2, (0.25 + 1) / 2) = (0.375, 0.625), size (0.5, 0.25)
    torch.testing.assert_close(boxes[0, 4 + 2], torch.tensor([0.125, 0.5, 0.625, 0.75]))
    assert confidence[0, 4 + 2].item() == pytest.approx(0.8)


@pytest.mark.parametrize("grid", [3, 10, 13])
def test_decode_when_grid_grows_then_anchors_keep_their_share_of_the_canvas(grid):
    boxes, _ = decode_boxes(torch.zeros(1, 2, 5, grid, grid), ANCHORS)
    size = (boxes[0, :, 2:] - boxes[0, :, :2]).view(2, grid * grid, 2)
    torch.testing.assert_close(size, anchors_as_fractions(ANCHORS)[:, None].expand_as(size))


def test_decode_when_map_is_bfloat16_then_boxes_are_float32():
    boxes, confidence = decode_boxes(a_map().bfloat16(), ANCHORS)
    assert boxes.dtype == confidence.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 3, 5, 2, 2), (1, 2, 6, 2, 2), (1, 2, 5, 2, 3)])
def test_decode_when_map_does_not_fit_the_anchors_then_refused(shape):
    with pytest.raises(ValueError, match=r"expected a map \[P, 2, 5, g, g\]"):
        decode_boxes(torch.zeros(shape), ANCHORS)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1),
    st.integers(0, 4),
    st.integers(0, 4),
    st.tuples(*[st.floats(0.05, 0.95)] * 2),
    st.tuples(*[st.floats(0.05, 0.9)] * 2),
)
def test_decode_when_a_box_is_encoded_then_it_comes_back(anchor, row, column, offset, size):
    logits = a_map(grid=5)
    anchors = anchors_as_fractions(ANCHORS)
    logits[0, anchor, :2, row, column] = torch.tensor(offset).logit()
    logits[0, anchor, 2:4, row, column] = (torch.tensor(size) / anchors[anchor]).log()
    logits[0, anchor, 4, row, column] = 2.0
    boxes, confidence = decode_boxes(logits, ANCHORS)
    index = anchor * 25 + row * 5 + column
    assert confidence[0].argmax() == index
    x, y = (column + offset[0]) / 5, (row + offset[1]) / 5
    expected = torch.tensor([x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2])
    torch.testing.assert_close(boxes[0, index], expected, atol=1e-5, rtol=0)


def test_best_box_when_each_phrase_has_its_own_candidate_then_that():
    logits = a_map(phrases=2)
    logits[0, 0, 4, 0, 1] = math.log(9)
    logits[1, 1, 4, 1, 0] = math.log(3)
    boxes, confidence = best_box(logits, ANCHORS)
    torch.testing.assert_close(boxes, torch.tensor([[0.625, 0.0, 0.875, 0.5], [0.0, 0.6875, 0.75, 0.8125]]))
    torch.testing.assert_close(confidence, torch.tensor([0.9, 0.75]))


def test_best_box_when_its_size_overflows_then_the_whole_canvas():
    logits = a_map()
    logits[0, 0, 2:, 1, 1] = 1000.0
    boxes, confidence = best_box(logits, ANCHORS)
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert confidence.item() == 1.0


def test_best_box_when_no_phrase_then_no_box():
    boxes, confidence = best_box(a_map(phrases=0), ANCHORS)
    assert boxes.shape == (0, 4)
    assert confidence.shape == (0,)
