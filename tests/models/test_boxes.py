import pytest
import torch

from deixis.models.boxes import box_iou, cell_centres, cells_inside, cxcywh_from_xyxy, grid_places, xyxy_from_cxcywh


def test_boxes_when_turned_there_and_back_then_by_hand():
    corners = torch.tensor([[0.0, 0.25, 0.5, 0.75]])
    assert cxcywh_from_xyxy(corners).tolist() == [[0.25, 0.5, 0.5, 0.5]]
    assert xyxy_from_cxcywh(cxcywh_from_xyxy(corners)).tolist() == corners.tolist()


def test_cell_centres_when_2_by_2_then_rows_first():
    centres = cell_centres(2, torch.zeros(1))
    assert centres.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert grid_places(4, centres).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_cells_inside_when_the_image_fills_the_upper_half_then_those():
    assert cells_inside(torch.tensor([[0.0, 0.0, 1.0, 0.5]]), 2).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("middle", [0.001, 0.25, 0.5, 0.501, 0.999])
def test_cells_inside_when_the_image_is_a_thin_strip_then_some(middle):
    content = torch.tensor([[0.0, middle - 1e-3, 1.0, middle + 1e-3]]).clamp(0, 1)
    assert cells_inside(content, 4).any()


BEST = (0.0, 0.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (BEST, (0.0, 0.0, 0.5, 0.4), 0.8), (BEST, (0.0, 0.0, 0.25, 0.5), 0.5), (BEST, (0.6, 0.6, 0.9, 0.9), 0.0),
        (BEST, BEST, 1.0), ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7), ((0.3,) * 4, (0.3,) * 4, 0.0),
    ],
)  # fmt: skip
def test_box_iou_when_by_hand_then_that(a, b, expected):
    a, b = torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
    assert box_iou(a, b).item() == pytest.approx(expected, abs=1e-6)
    assert box_iou(b, a).item() == pytest.approx(expected, abs=1e-6)
