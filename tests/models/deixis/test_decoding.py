import pytest
import torch

from deixis.models.deixis.model import Output, decode


def output_of(probabilities, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    nothing = torch.zeros(0)
    return Output(
        choice_logits=torch.tensor(probabilities).log(), boxes=boxes, proposals=nothing, scores=nothing,
        exists_logit=nothing, tokens=nothing,
    )  # fmt: skip


BEST = (0.0, 0.0, 0.5, 0.5)
NEAR = (0.0, 0.0, 0.5, 0.4)  # IoU 0.8 with the best
HALF = (0.0, 0.0, 0.25, 0.5)  # IoU exactly 0.5: does not agree
FAR = (0.6, 0.6, 0.9, 0.9)


def test_decode_when_worked_by_hand_then_peak_consensus_and_weighted_mean():
    found = decode(output_of([[0.5, 0.3, 0.1, 0.1]], [[BEST, NEAR, HALF, FAR]]))
    assert found.token.tolist() == [0]
    torch.testing.assert_close(found.peak, torch.tensor([0.5]))
    torch.testing.assert_close(found.consensus, torch.tensor([0.8]))
    y2 = (0.5 * 0.5 + 0.3 * 0.4) / 0.8  # 0.4625
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 0.5, y2]]))


def test_decode_when_several_agree_then_they_win_over_a_lone_peak():
    # the lone one: 0.4 * sqrt(0.4) = 0.253; the second, with the third: 0.6 * sqrt(0.35) = 0.355
    found = decode(output_of([[0.4, 0.35, 0.25]], [[FAR, BEST, NEAR]]))
    assert found.token.tolist() == [1]
    torch.testing.assert_close(found.peak, torch.tensor([0.35]))
    torch.testing.assert_close(found.consensus, torch.tensor([0.6]))
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 0.5, (0.35 * 0.5 + 0.25 * 0.4) / 0.6]]))


def test_decode_when_a_peak_is_high_enough_then_it_wins_over_several_that_agree():
    # 0.5 * sqrt(0.5) = 0.354 over 0.5 * sqrt(0.26) = 0.255
    assert decode(output_of([[0.5, 0.26, 0.24]], [[FAR, BEST, NEAR]])).token.tolist() == [0]


def test_decode_when_many_agree_then_the_likeliest_of_them_is_the_token():
    assert decode(output_of([[0.2, 0.45, 0.35]], [[FAR, NEAR, BEST]])).token.tolist() == [1]


def test_decode_when_two_phrases_then_each_has_its_own_token():
    tokens = [BEST, NEAR, HALF, FAR]
    found = decode(output_of([[1.0, 0, 0, 0], [0, 0, 0, 1.0]], [tokens, tokens]))
    assert found.token.tolist() == [0, 3]
    torch.testing.assert_close(found.boxes, torch.tensor([BEST, FAR]))
    torch.testing.assert_close(found.consensus, torch.ones(2))


def test_decode_when_box_leaves_the_canvas_then_it_is_clamped():
    found = decode(output_of([[0.9, 0.1]], [[(-0.5, -0.2, 0.4, 1.7), FAR]]))
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 0.4, 1.0]]))


def test_decode_when_tokens_are_no_proposals_then_they_have_no_share():
    found = decode(output_of([[0.0, 0.75, 0.25]], [[FAR, BEST, BEST]]))
    torch.testing.assert_close(found.boxes, torch.tensor([BEST]))
    assert found.peak.item() == pytest.approx(0.75)


def test_decode_when_the_best_box_has_no_area_then_all_is_finite():
    found = decode(output_of([[0.6, 0.4]], [[(0.3, 0.3, 0.3, 0.3), FAR]]))
    assert torch.isfinite(found.boxes).all()
    assert 0 <= found.consensus.item() <= 1
