import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.grids import cell_centres
from deixis.models.losses import (
    box_loss,
    centre_target,
    consistency_loss,
    dice_loss,
    giou_loss,
    heat_loss,
    mask_loss,
    projection_loss,
    word_loss,
)

GRID = cell_centres(4, torch.zeros(1))  # centres at 1/8, 3/8, 5/8, 7/8
ALL = torch.ones(1, 16, dtype=torch.bool)


def boxes_of(draw_xywh):
    x, y, w, h = draw_xywh
    return torch.tensor([x, y, x + w, y + h])


some_box = st.tuples(*[st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.01, 0.5), st.floats(0.01, 0.5)]).map(boxes_of)


# giou


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 0.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 - 1 / 3),  # hull is the union
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 - 1 / 7 + 2 / 9),  # union 7, hull 9
        ((0, 0, 1, 1), (2, 0, 3, 1), 1 + 1 / 3),  # apart: union 2, hull 3
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 - 4 / 16),  # one in the other
    ],
)
def test_giou_when_worked_by_hand_then_that(a, b, expected):
    a, b = torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
    assert giou_loss(a, b).item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(some_box, some_box)
def test_giou_when_any_boxes_then_symmetric_and_within_0_and_2(a, b):
    loss = giou_loss(a, b)
    torch.testing.assert_close(loss, giou_loss(b, a))
    assert -1e-5 <= loss.item() <= 2


def test_giou_when_a_box_has_no_area_then_loss_and_gradient_are_finite():
    box = torch.tensor([0.3, 0.3, 0.3, 0.3], requires_grad=True)
    loss = giou_loss(box, torch.tensor([0.6, 0.6, 0.6, 0.6]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(box.grad).all()


# centre_target


@settings(max_examples=50, deadline=None)
@given(some_box)
def test_centre_target_when_any_box_then_sums_to_1_and_nearest_cell_is_highest(box):
    target = centre_target(GRID, box[None], ALL)
    assert target.sum().item() == pytest.approx(1, abs=1e-5)
    middle = (box[:2] + box[2:]) / 2
    size = (box[2:] - box[:2]).clamp(min=0.125)
    nearest = (((GRID - middle) / size) ** 2).sum(-1)
    assert nearest[target.argmax()] <= nearest.min() + 1e-5


def test_centre_target_when_box_is_tiny_then_all_on_its_cell():
    target = centre_target(GRID, torch.tensor([[0.37, 0.62, 0.38, 0.63]]), ALL)
    assert target[0].nonzero().flatten().tolist() == [2 * 4 + 1]


def test_centre_target_when_worked_by_hand_then_gaussian_cut_at_the_box():
    # centre on the cell (1, 1), half as wide as the canvas: sigma is 0.1, so neighbours are 2.5 sigma away
    target = centre_target(GRID, torch.tensor([[0.125, 0.125, 0.625, 0.625]]), ALL)[0].view(4, 4)
    side, corner = math.exp(-0.5 * 2.5**2), math.exp(-(2.5**2))
    total = 1 + 4 * side + 4 * corner
    expected = torch.zeros(4, 4)
    expected[:3, :3] = torch.tensor([[corner, side, corner], [side, 1, side], [corner, side, corner]]) / total
    torch.testing.assert_close(target, expected)


def test_centre_target_when_cells_are_padding_then_they_get_nothing():
    valid = (torch.arange(16) >= 8)[None]  # the lower half
    target = centre_target(GRID, torch.tensor([[0.0, 0.0, 0.6, 0.6]]), valid)
    assert target[0, :8].sum() == 0
    assert target.sum().item() == pytest.approx(1)


# heat_loss


def test_heat_loss_when_logits_are_the_targets_logarithm_then_its_entropy():
    target = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert heat_loss(target.log(), target).item() == pytest.approx(entropy)


def test_heat_loss_when_logits_move_then_it_only_grows():
    target = torch.tensor([[0.5, 0.25, 0.15, 0.1]])
    logits = target.log().requires_grad_()
    least = heat_loss(logits, target)
    least.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 4), atol=1e-6, rtol=0)
    moved = logits.detach() + torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert (heat_loss(moved, target.expand(20, 4)) > least).all()


def test_heat_loss_when_padding_is_minus_infinity_then_loss_and_gradient_are_finite():
    logits = torch.tensor([[0.3, -0.2, -torch.inf]], requires_grad=True)
    loss = heat_loss(logits, torch.tensor([[0.6, 0.4, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


# box_loss


def test_box_loss_when_every_box_is_the_target_then_0():
    box = torch.tensor([[0.1, 0.2, 0.5, 0.9]])
    assert box_loss(box[:, None].expand(1, 3, 4), box, torch.tensor([[0.2, 0.3, 0.5]])).item() == pytest.approx(
        0, abs=1e-6
    )


def test_box_loss_when_worked_by_hand_then_five_l1_and_two_giou_by_weight():
    target = torch.tensor([[0.0, 0.0, 0.2, 0.2]])
    boxes = torch.tensor([[[0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.3, 0.2], [0.5, 0.5, 0.9, 0.9]]])
    each = 5 * 0.2 + 2 * (1 - 1 / 3)
    assert box_loss(boxes, target, torch.tensor([[0.75, 0.25, 0.0]])).item() == pytest.approx(0.25 * each, abs=1e-5)


# masks


@pytest.mark.parametrize(
    ("probability", "target", "expected"),
    [
        ([1.0, 1, 0, 0], [1.0, 1, 0, 0], 0.0),
        ([0.0, 0, 0, 0], [0.0, 0, 0, 0], 0.0),
        ([1.0, 0, 0, 0], [0.0, 1, 0, 0], 1 - 1 / 3),
        ([0.5, 0.5, 0, 0], [1.0, 1, 0, 0], 1 - 3 / 3.5),
    ],
)
def test_dice_when_worked_by_hand_then_that(probability, target, expected):
    assert dice_loss(torch.tensor([probability]), torch.tensor([target])).item() == pytest.approx(expected, abs=1e-6)


def test_mask_loss_when_worked_by_hand_then_cross_entropy_inside_and_dice():
    logits = torch.tensor([[[0.0, 0.0], [0.0, 30.0]]])
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    inside = torch.tensor([[[True, True], [True, False]]])  # the wrong 30 is padding
    dice = 1 - (2 * 1.0 + 1) / (3 * 0.25 + 2 + 1)
    assert mask_loss(logits, target, inside).item() == pytest.approx(math.log(2) + dice, abs=1e-6)


def test_mask_loss_when_sure_and_right_then_near_0():
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    inside = torch.ones(1, 2, 2, dtype=torch.bool)
    assert mask_loss((2 * target - 1) * 30, target, inside).item() == pytest.approx(0, abs=1e-5)


def test_projection_when_shadows_equal_the_boxs_then_near_0_whatever_the_shape():
    logits = torch.full((1, 4, 4), -30.0)
    logits[0, [0, 1], [0, 1]] = 30.0  # a diagonal casts the shadows of the 2 x 2 box
    assert projection_loss(logits, torch.tensor([[0.0, 0.0, 0.5, 0.5]])).item() == pytest.approx(0, abs=1e-5)


def test_projection_when_worked_by_hand_then_dice_of_both_shadows():
    logits = torch.full((1, 4, 4), -30.0)
    logits[0, 0, :2] = 30.0  # shadow on x: 2 cells, as wanted; on y: 1 cell of the 3 wanted
    loss = projection_loss(logits, torch.tensor([[0.0, 0.0, 0.5, 0.75]]))
    assert loss.item() == pytest.approx(0 + 1 - (2 * 1 + 1) / (1 + 3 + 1), abs=1e-5)


def test_projection_when_x_and_y_are_swapped_then_it_is_the_same_on_the_transposed_mask():
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.1, 0.1, 0.9, 0.4], [0.0, 0.0, 0.3, 1.0]])
    torch.testing.assert_close(
        projection_loss(logits, boxes), projection_loss(logits.transpose(1, 2), boxes[:, [1, 0, 3, 2]])
    )


# consistency


def pairwise_consistency(energy_a, features_a, energy_b, features_b, eps=1e-6):
    """MCN Eq. 5 to 9 as they stand: the N_a x N_b table of weighted similarities, summed."""
    attention = energy_a.softmax(-1)[:, :, None] * energy_b.softmax(-1)[:, None, :]
    cosine = F.cosine_similarity(features_a[:, :, None], features_b[:, None], dim=-1)
    return -torch.log((attention * (cosine + 1) / 2).sum((1, 2)) + eps)


def test_consistency_when_random_then_equals_the_pairwise_form():
    generator = torch.Generator().manual_seed(0)
    energy_a, energy_b = (2 * torch.randn(3, n, generator=generator) for n in (7, 5))
    features_a, features_b = (torch.randn(3, n, 6, generator=generator) for n in (7, 5))
    energy_a[:, -2:] = -torch.inf  # padding
    inputs = (energy_a, features_a, energy_b, features_b)
    torch.testing.assert_close(consistency_loss(*inputs), pairwise_consistency(*inputs), atol=1e-5, rtol=1e-5)


def test_consistency_when_all_cosines_are_0_then_ln_2():
    features_a, features_b = torch.zeros(1, 4, 2), torch.zeros(1, 3, 2)
    features_a[..., 0], features_b[..., 1] = 2.0, 5.0
    loss = consistency_loss(torch.randn(1, 4), features_a, torch.randn(1, 3), features_b)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)


def test_consistency_when_all_features_point_the_same_way_then_0():
    features = torch.tensor([1.0, -2.0, 0.5]).expand(2, 4, 3)
    loss = consistency_loss(torch.randn(2, 4), features, torch.randn(2, 4), 3 * features)
    torch.testing.assert_close(loss, torch.zeros(2), atol=1e-5, rtol=0)


def test_consistency_when_features_are_opposite_then_large_but_finite():
    features = torch.tensor([1.0, 0.0]).expand(1, 4, 2).clone().requires_grad_()
    loss = consistency_loss(torch.zeros(1, 4), features, torch.zeros(1, 4), -features.detach())
    loss.sum().backward()
    assert loss.item() == pytest.approx(-math.log(1e-6), abs=0.5)
    assert torch.isfinite(features.grad).all()


# word_loss


def test_word_loss_when_worked_by_hand_then_the_cells_cross_entropies_by_their_share():
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0], [9.0, 0.0]]])  # the first word at 3/4, at 1/2, ...
    cells = torch.tensor([[0.75, 0.25, 0.0]])
    first = -0.75 * math.log(0.75) - 0.25 * math.log(0.5)
    second = -0.75 * math.log(0.25) - 0.25 * math.log(0.5)
    for label, expected in ((0, first), (1, second)):
        assert word_loss(logits, torch.tensor([label]), cells).item() == pytest.approx(expected, rel=1e-6)


def test_word_loss_when_the_word_is_not_known_then_0_and_no_gradient():
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = word_loss(logits, torch.tensor([-1, 2]), torch.full((2, 4), 0.25))
    assert loss.shape == (2,)
    assert loss[0].item() == 0
    loss.sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_word_loss_when_uniform_then_the_logarithm_of_how_many():
    loss = word_loss(torch.zeros(1, 4, 11, dtype=torch.bfloat16), torch.tensor([7]), torch.full((1, 4), 0.25))
    torch.testing.assert_close(loss, torch.tensor([math.log(11)]))


def test_word_loss_when_there_are_no_things_then_none():
    assert word_loss(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)).shape == (0,)
