import pytest
import torch

from deixis.models.decoding import decode, pairwise_iou
from deixis.models.deixis import Output


def output_of(probabilities, boxes):
    heat = torch.tensor(probabilities).log()
    boxes = torch.tensor(boxes, dtype=torch.float32)
    nothing = torch.zeros(0)
    return Output(
        heat_logits=heat, boxes=boxes, mask_logits=nothing, exists_logit=nothing,
        mask_energy=nothing, mask_features=nothing, box_features=nothing,
    )  # fmt: skip


BEST = (0.0, 0.0, 0.5, 0.5)
NEAR = (0.0, 0.0, 0.5, 0.4)  # IoU 0.8 with the best
HALF = (0.0, 0.0, 0.25, 0.5)  # IoU exactly 0.5: does not agree
FAR = (0.6, 0.6, 0.9, 0.9)


def test_decode_when_worked_by_hand_then_peak_consensus_and_weighted_mean():
    found = decode(output_of([[0.5, 0.3, 0.1, 0.1]], [[BEST, NEAR, HALF, FAR]]))
    torch.testing.assert_close(found.peak, torch.tensor([0.5]))
    torch.testing.assert_close(found.consensus, torch.tensor([0.8]))
    y2 = (0.5 * 0.5 + 0.3 * 0.4) / 0.8  # 0.4625
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 0.5, y2]]))


def test_decode_when_two_phrases_then_each_has_its_own_cell():
    cells = [BEST, NEAR, HALF, FAR]
    found = decode(output_of([[1.0, 0, 0, 0], [0, 0, 0, 1.0]], [cells, cells]))
    torch.testing.assert_close(found.boxes, torch.tensor([BEST, FAR]))
    torch.testing.assert_close(found.consensus, torch.ones(2))


def test_decode_when_box_leaves_the_canvas_then_it_is_clamped():
    found = decode(output_of([[0.9, 0.1]], [[(-0.5, -0.2, 0.4, 1.7), FAR]]))
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 0.4, 1.0]]))


def test_decode_when_cells_are_padding_then_they_have_no_share():
    found = decode(output_of([[0.0, 0.75, 0.25]], [[FAR, BEST, BEST]]))
    torch.testing.assert_close(found.boxes, torch.tensor([BEST]))
    assert found.peak.item() == pytest.approx(0.75)


def test_decode_when_the_best_box_has_no_area_then_all_is_finite():
    found = decode(output_of([[0.6, 0.4]], [[(0.3, 0.3, 0.3, 0.3), FAR]]))
    assert torch.isfinite(found.boxes).all()
    assert 0 <= found.consensus.item() <= 1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(BEST, NEAR, 0.8), (BEST, HALF, 0.5), (BEST, FAR, 0.0), (BEST, BEST, 1.0), ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7)],
)
def test_pairwise_iou_when_by_hand_then_that(a, b, expected):
    assert pairwise_iou(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(expected, abs=1e-6)
    assert pairwise_iou(torch.tensor(b), torch.tensor(a)).item() == pytest.approx(expected, abs=1e-6)
