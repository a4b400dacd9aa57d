"""The losses of MCN: Eq. 3, 4 and 5 to 9, with the scales of the authors' code."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.mcn.criterion import co_energy_loss, consistency_literal, segmentation_loss, yolo_loss
from deixis.models.mcn.heads import anchors_as_fractions, decode_boxes

LN2 = math.log(2)
ANCHORS = torch.tensor([[0.25, 0.5], [1.0, 0.125]])  # tall and flat
# centre (0.375, 0.75) is 3/4 through the left and 1/2 through the lower cell of 2 x 2; the tall anchor fits
BOX = torch.tensor([[0.25, 0.5, 0.5, 1.0]])


def softplus(value):
    return math.log1p(math.exp(value))


def a_map(phrases=1, grid=2, confidence=-10.0):
    """Sure that nothing is anywhere: a negative costs log(1 + e^-10) = 4.5e-5."""
    logits = torch.zeros(phrases, 2, 5, grid, grid)
    logits[:, :, 4] = confidence
    return logits


# segmentation


def test_segmentation_when_logits_are_0_and_mask_is_empty_then_a_tenth_is_187_43_a_sample():
    loss = segmentation_loss(torch.zeros(2, 52, 52), torch.zeros(2, 52, 52))
    torch.testing.assert_close(0.1 * loss, torch.full((2,), 187.43), atol=5e-3, rtol=0)
    assert loss[0].item() == pytest.approx(2704 * LN2, rel=1e-6)


def test_segmentation_when_worked_by_hand_then_the_sum_over_positions():
    logits = torch.tensor([[[math.log(3), 0.0], [-math.log(3), 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    target = torch.tensor([[[1.0, 1.0], [1.0, 0.5]], [[0.0, 0.0], [1.0, 1.0]]])
    expected = torch.tensor([math.log(4 / 3) + LN2 + math.log(4) + LN2, 4 * LN2])
    torch.testing.assert_close(segmentation_loss(logits, target), expected)


def test_segmentation_when_bfloat16_and_a_boolean_mask_then_float32():
    loss = segmentation_loss(torch.zeros(1, 4, 4, dtype=torch.bfloat16), torch.ones(1, 4, 4, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.tensor([16 * LN2]))


# the box branch: place and shape


def test_yolo_when_worked_by_hand_then_the_parts_of_one_cell():
    logits = a_map()
    logits[0, 0, :, 1, 0] = torch.tensor([0.0, math.log(3), 0.05, -0.5, 0.0])
    parts = yolo_loss(logits, BOX, ANCHORS)
    weight = 2 - 0.25 * 0.5
    # x: log 2 whatever the target; y: target 1/2 at probability 3/4
    xy = LN2 - 0.5 * math.log(0.75) - 0.5 * math.log(0.25)
    assert parts["xy"].item() == pytest.approx(weight * xy, rel=1e-5)
    # the box has the anchor's size, so 0 is wanted: 9/2 * 0.05^2 within 1/9, 0.5 - 1/18 beyond it
    assert parts["wh"].item() == pytest.approx(weight * 0.5 * (4.5 * 0.05**2 + 0.5 - 1 / 18), rel=1e-5)
    # the positive at 0, the other seven at -10: the tall anchor at (0, 0) overlaps nothing
    assert parts["confidence"].item() == pytest.approx(LN2 + 7 * softplus(-10), rel=1e-4)


def test_yolo_when_the_box_is_an_anchor_then_that_one_is_positive_and_its_logarithms_are_0():
    for one, (width, height) in enumerate(ANCHORS.tolist()):
        box = torch.tensor([[0.5 - width / 2, 0.7 - height / 2, 0.5 + width / 2, 0.7 + height / 2]])
        logits = a_map().requires_grad_()
        parts = yolo_loss(logits, box, ANCHORS)
        assert parts["wh"].item() == pytest.approx(0, abs=1e-6)
        parts["confidence"].sum().backward()
        pulled = logits.grad[0, :, 4] < -0.9  # only a positive is drawn upwards
        assert pulled.nonzero().tolist() == [[one, 1, 1]]


def test_yolo_when_logits_decode_to_the_box_then_no_shape_loss_and_the_least_place_loss():
    logits = a_map()
    box = torch.tensor([[0.1, 0.3, 0.4, 0.8]])  # centre (0.25, 0.55): 1/2 and 1/10 through cell (0, 1)
    logits[0, 0, :4, 1, 0] = torch.tensor([0.0, math.log(0.1 / 0.9), math.log(0.3 / 0.25), 0.0])
    logits[0, 0, 4, 1, 0] = 20.0
    parts = yolo_loss(logits, box, ANCHORS)
    entropy = LN2 - 0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert parts["wh"].item() == pytest.approx(0, abs=1e-8)
    assert parts["xy"].item() == pytest.approx((2 - 0.15) * entropy, rel=1e-5)
    boxes, confidence = decode_boxes(logits, [(104.0, 208.0), (416.0, 52.0)])
    torch.testing.assert_close(boxes[0, confidence[0].argmax()], box[0])


def test_yolo_when_small_and_large_then_the_small_box_weighs_more():
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 1.0, 1.0]])
    parts = yolo_loss(a_map(phrases=2), boxes, ANCHORS)
    torch.testing.assert_close(parts["xy"], 2 * LN2 * torch.tensor([1.99, 1.0]))


@pytest.mark.parametrize(
    ("box", "row", "column"),
    [
        ((1.0, 0.2, 1.0, 0.4), 0, 1),  # centre on the right border
        ((0.2, 1.0, 0.4, 1.0), 1, 0),  # on the bottom border
        ((1.0, 1.0, 1.0, 1.0), 1, 1),
        ((0.9, 0.9, 1.4, 1.7), 1, 1),  # beyond the canvas: cut off
        ((0.4, 0.4, 0.6, 0.6), 1, 1),  # on the line between cells: the one behind it
        ((0.0, 0.0, 0.0, 0.0), 0, 0),
    ],
)
def test_yolo_when_the_centre_lies_on_a_border_then_a_cell_has_it_and_all_is_finite(box, row, column):
    logits = a_map().requires_grad_()
    parts = yolo_loss(logits, torch.tensor([box]), ANCHORS)
    sum(part.sum() for part in parts.values()).backward()
    assert all(torch.isfinite(part).all() for part in parts.values())
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, :, 4] < -0.9).any(0).nonzero().tolist() == [[row, column]]


def test_yolo_when_the_box_reaches_beyond_the_canvas_then_as_its_part_inside():
    boxes = torch.tensor([[0.75, 0.25, 1.75, 0.75], [-3.0, -3.0, 4.0, 4.0]])
    logits = torch.randn(2, 2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    beyond, inside = (yolo_loss(logits, each, ANCHORS) for each in (boxes, boxes.clamp(0, 1)))
    torch.testing.assert_close(beyond, inside)
    assert (beyond["wh"] > 0).all()


# the box branch: confidence


def test_yolo_when_logits_are_0_then_every_candidate_that_counts_costs_ln_2():
    # 13 x 13 x 3 = 507 candidates; the box is the first anchor at the middle of the middle cell
    anchors = torch.tensor([[137.0, 256.0], [248.0, 272.0], [386.0, 271.0]]) / 416
    width, height = anchors[0].tolist()
    box = torch.tensor([[0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2]])
    parts = yolo_loss(torch.zeros(1, 3, 5, 13, 13), box, anchors)
    cell = 416 / 13
    ignored = 0
    for w, h in ((137, 256), (248, 272), (386, 271)):
        for dx in range(-6, 7):
            for dy in range(-6, 7):
                shared_x = min(137 / 2, dx * cell + w / 2) - max(-137 / 2, dx * cell - w / 2)
                shared_y = min(256 / 2, dy * cell + h / 2) - max(-256 / 2, dy * cell - h / 2)
                shared = max(shared_x, 0) * max(shared_y, 0)
                ignored += shared / (w * h + 137 * 256 - shared) >= 0.5 and (w, dx, dy) != (137, 0, 0)
    assert ignored > 5
    assert parts["confidence"].item() == pytest.approx((507 - ignored) * LN2, rel=1e-5)
    assert parts["xy"].item() == pytest.approx((2 - width * height) * 2 * LN2, rel=1e-5)
    assert parts["wh"].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("height", "ignored"), [(0.24, False), (0.26, True), (0.5, True), (0.98, True), (1.1, False)])
def test_yolo_when_a_negatives_own_box_overlaps_by_half_then_it_is_ignored(height, ignored):
    logits = a_map(confidence=0.0)
    # the flat anchor in the positive cell, stretched to the box's width, place and, about, height: IoU = ratio
    logits[0, 1, :4, 1, 0] = torch.tensor([math.log(3), 0.0, math.log(0.25), math.log(height / 0.125)])
    parts = yolo_loss(logits, BOX, ANCHORS)
    assert parts["confidence"].item() == pytest.approx((8 - ignored) * LN2, rel=1e-5)


def test_yolo_when_the_positives_own_box_overlaps_then_it_counts_all_the_same():
    logits = a_map(confidence=0.0)
    logits[0, 0, :2, 1, 0] = torch.tensor([math.log(3), 0.0])  # decodes to the box itself
    assert yolo_loss(logits, BOX, ANCHORS)["confidence"].item() == pytest.approx(8 * LN2, rel=1e-5)


def test_yolo_when_ignored_then_no_gradient_through_the_overlap():
    logits = a_map().requires_grad_()
    yolo_loss(logits, BOX, ANCHORS)["confidence"].sum().backward()
    assert (logits.grad[:, :, :4] == 0).all()


def test_yolo_when_the_phrase_means_nothing_then_only_negatives_and_its_box_is_not_looked_at():
    boxes = torch.cat([BOX, torch.full((1, 4), torch.nan), torch.zeros(1, 4)])
    logits = a_map(phrases=3, confidence=0.0).requires_grad_()
    parts = yolo_loss(logits, boxes, ANCHORS, torch.tensor([True, False, False]))
    assert parts["xy"][1:].tolist() == parts["wh"][1:].tolist() == [0, 0]
    torch.testing.assert_close(parts["confidence"][1:], torch.full((2,), 8 * LN2))
    sum(part.sum() for part in parts.values()).backward()
    assert (logits.grad[1:, :, :4] == 0).all()
    torch.testing.assert_close(logits.grad[1:, :, 4], torch.full((2, 2, 2, 2), 0.5))
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])  # even where a candidate decodes to what stands in for the box
    sure = a_map(confidence=0.0)
    sure[0, 1, :4, 0, 0] = torch.tensor([20.0, 20.0, 0.0, math.log(8)])
    absent = yolo_loss(sure, whole, ANCHORS, torch.tensor([False]))
    assert absent["confidence"].item() == pytest.approx(8 * LN2, rel=1e-5)


def test_yolo_when_rows_are_together_or_alone_then_the_same():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 5, 5, 5, generator=generator)
    low = 0.6 * torch.rand(4, 2, generator=generator)
    boxes = torch.cat([low, low + 0.05 + 0.3 * torch.rand(4, 2, generator=generator)], -1)
    together = yolo_loss(logits, boxes, ANCHORS)
    for row in range(4):
        alone = yolo_loss(logits[row : row + 1], boxes[row : row + 1], ANCHORS)
        for name, part in together.items():
            torch.testing.assert_close(part[row : row + 1], alone[name])


def test_yolo_when_random_then_ignores_by_the_boxes_that_the_model_decodes():
    anchors_px = [(104.0, 208.0), (416.0, 52.0)]
    torch.testing.assert_close(anchors_as_fractions(anchors_px), ANCHORS)
    generator = torch.Generator().manual_seed(1)
    logits = 0.5 * torch.randn(3, 2, 5, 8, 8, generator=generator)
    boxes = torch.tensor([[0.1, 0.2, 0.4, 0.7], [0.0, 0.4, 1.0, 0.55], [0.5, 0.52, 0.8, 1.0]])
    found, _ = decode_boxes(logits, anchors_px)
    shared = torch.minimum(found[..., 2:], boxes[:, None, 2:]) - torch.maximum(found[..., :2], boxes[:, None, :2])
    shared = shared.clamp(min=0).prod(-1)
    area = (found[..., 2:] - found[..., :2]).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(-1)[:, None]
    near = shared / (area - shared) >= 0.5
    positive = torch.tensor([0 * 64 + 3 * 8 + 2, 1 * 64 + 3 * 8 + 4, 0 * 64 + 6 * 8 + 5])  # anchor, row, column
    near[torch.arange(3), positive] = False
    assert near.sum() >= 3
    confidence = logits[:, :, 4].flatten(1)
    sign = torch.ones_like(confidence).scatter_(1, positive[:, None], -1.0)
    expected = (torch.nn.functional.softplus(sign * confidence) * ~near).sum(1)
    torch.testing.assert_close(yolo_loss(logits, boxes, ANCHORS)["confidence"], expected)


def test_yolo_when_under_autocast_in_bfloat16_then_float32_and_finite():
    with torch.autocast("cpu", torch.bfloat16):
        parts = yolo_loss(a_map().bfloat16(), BOX, ANCHORS)
    assert all(part.dtype == torch.float32 and torch.isfinite(part).all() for part in parts.values())


def test_yolo_when_a_size_overflows_then_confidence_is_finite():
    logits = a_map()
    logits[0, :, 2, 0, 0], logits[0, :, 3, 0, 0] = 1000.0, -1000.0
    logits[0, :, 2:4, 0, 1] = 1000.0
    assert torch.isfinite(yolo_loss(logits, BOX, ANCHORS)["confidence"]).all()


# consistency: the three forms


def mean_direction(energy, features, eps=1e-6):
    """The unit features [P, N, D], averaged by the attention of energies [P, N]."""
    weights = energy.softmax(-1) / torch.linalg.vector_norm(features, dim=-1).clamp(min=eps)
    return (weights[:, None] @ features).squeeze(1)


def consistency_loss(energy_a, features_a, energy_b, features_b):
    """The expected form, as `expected_consistency` has it of what GARAN attended to."""
    return co_energy_loss(mean_direction(energy_a, features_a), mean_direction(energy_b, features_b))


def consistency_pairwise(energy_a, features_a, energy_b, features_b, eps=1e-6):
    """MCN Eq. 5 to 9 as they stand: the N_a x N_b table of weighted correlations, summed, clipped as the authors do."""
    attention = energy_a.softmax(-1)[:, :, None] * energy_b.softmax(-1)[:, None, :]
    unit_a, unit_b = (F.normalize(one, dim=-1, eps=eps) for one in (features_a, features_b))
    correlation = ((unit_a @ unit_b.transpose(1, 2) + 1) / 2).clamp(eps, 1 - eps)
    return -torch.log((attention * correlation).sum((1, 2)) + eps)


def random_branches(phrases=2, cells=(7, 5), dim=6, seed=0, spread=2.0):
    """Energies and features of the mask branch and the box branch."""
    generator = torch.Generator().manual_seed(seed)
    branches = []
    for count in cells:
        branches.append(spread * torch.randn(phrases, count, generator=generator))
        branches.append(torch.randn(phrases, count, dim, generator=generator))
    return branches


def orthogonal(cells=(7, 5)):
    """Features of which no pair has a cosine other than 0."""
    features = [torch.zeros(1, count, 2) for count in cells]
    features[0][..., 0], features[1][..., 1] = 2.0, 5.0
    return features


def test_consistency_when_at_full_size_then_factorised_is_pairwise_to_5_places():
    branches = random_branches(phrases=1, cells=(2704, 169), dim=512)
    branches[1] = branches[1] + 1  # a common part, so that the cosines are not all about 0
    branches[3] = branches[3] + 1
    expected, pairwise = consistency_loss(*branches), consistency_pairwise(*branches)
    torch.testing.assert_close(expected, pairwise, atol=1e-5, rtol=0)
    assert 0.1 < expected.item() < 0.6
    energy_a, features_a, energy_b, features_b = (one[0].double() for one in branches)
    unit_a, unit_b = (one / one.norm(dim=-1, keepdim=True) for one in (features_a, features_b))
    exact = -torch.log(energy_a.softmax(-1) @ ((1 + unit_a @ unit_b.T) / 2) @ energy_b.softmax(-1) + 1e-6)
    assert expected.item() == pytest.approx(exact.item(), abs=1e-5)
    assert pairwise.item() == pytest.approx(exact.item(), abs=1e-5)


def test_consistency_when_random_then_both_forms_have_the_same_gradient():
    gradients = []
    for form in (consistency_loss, consistency_pairwise):
        branches = [one.requires_grad_() for one in random_branches()]
        form(*branches).sum().backward()
        gradients.append([one.grad for one in branches])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("form", [consistency_loss, consistency_pairwise])
def test_consistency_when_all_cosines_are_0_then_0_6931(form):
    features_a, features_b = orthogonal()
    loss = form(torch.randn(1, 7), features_a, torch.randn(1, 5), features_b)
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize(("form", "expected"), [(consistency_loss, -1e-6), (consistency_pairwise, 0.0)])
def test_consistency_when_all_features_are_equal_then_0_as_near_as_the_clip_says(form, expected):
    features = torch.tensor([1.0, 0.0, 0.0]).expand(2, 4, 3)
    loss = form(torch.zeros(2, 4), features, torch.zeros(2, 4), 3 * features)
    torch.testing.assert_close(loss, torch.full((2,), expected), atol=2e-7, rtol=0)
    features = torch.tensor([1.0, -2.0, 0.5]).expand(2, 4, 3)
    loss = form(torch.randn(2, 4), features, torch.randn(2, 4), 3 * features)
    torch.testing.assert_close(loss, torch.zeros(2), atol=2e-6, rtol=0)


def test_consistency_when_all_features_are_opposite_then_the_forms_end_as_the_clip_says():
    features = torch.tensor([1.0, 0.0]).expand(1, 4, 2)
    inputs = (torch.zeros(1, 4), features, torch.zeros(1, 4), -features)
    assert consistency_loss(*inputs).item() == pytest.approx(-math.log(1e-6), abs=0.2)  # 13.8
    assert consistency_pairwise(*inputs).item() == pytest.approx(-math.log(2e-6), abs=0.01)  # 13.1
    assert consistency_literal(*inputs).item() == pytest.approx(2 * math.log(4) - math.log(1e-6), abs=0.01)


def test_literal_when_worked_by_hand_then_the_mean_over_pairs():
    energy_a, energy_b = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0, math.log(2)]])
    features_a = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    features_b = torch.tensor([[[0.0, 1.0], [3.0, 0.0], [1.0, math.sqrt(3)]]])
    maps = (3 / 4, 1 / 4), (1 / 4, 1 / 4, 1 / 2)
    table = ((1 / 2, 1 - 1e-6, 3 / 4), (1 - 1e-6, 1 / 2, (1 + math.sqrt(3) / 2) / 2))
    pairs = [math.log(maps[0][i] * table[i][j] * maps[1][j]) for i in range(2) for j in range(3)]
    loss = consistency_literal(energy_a, features_a, energy_b, features_b)
    assert loss.item() == pytest.approx(-sum(pairs) / 6, abs=1e-5)


def test_literal_when_there_are_several_phrases_then_no_table_of_all_pairs_is_kept_for_the_gradient():
    branches = [one.requires_grad_() for one in random_branches(phrases=3, cells=(40, 40))]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        loss = consistency_literal(*branches)
    loss.sum().backward()
    assert 0 < max(kept) < 40 * 40
    (energy_a, features_a, energy_b, features_b), gradients = branches, [one.grad for one in branches]
    cosine = torch.nn.functional.cosine_similarity(features_a[:, :, None], features_b[:, None], dim=-1)
    pairs = energy_a.log_softmax(-1)[:, :, None] + ((1 + cosine) / 2).log() + energy_b.log_softmax(-1)[:, None]
    torch.testing.assert_close(loss, -pairs.mean((1, 2)))
    plain = torch.autograd.grad(-pairs.mean((1, 2)).sum(), branches)
    torch.testing.assert_close(gradients, [*plain], atol=1e-6, rtol=1e-4)
    assert consistency_literal(*(one[:0] for one in branches)).shape == (0,)


def test_literal_when_maps_are_uniform_then_their_gradient_is_0_and_the_value_known():
    features_a, features_b = orthogonal()
    energy_a, energy_b = torch.full((1, 7), 0.3, requires_grad=True), torch.zeros(1, 5, requires_grad=True)
    loss = consistency_literal(energy_a, features_a, energy_b, features_b)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(7) + math.log(5) + LN2, rel=1e-6)
    torch.testing.assert_close(energy_a.grad, torch.zeros(1, 7), atol=1e-7, rtol=0)
    torch.testing.assert_close(energy_b.grad, torch.zeros(1, 5), atol=1e-7, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 5.0), st.sampled_from(["a", "b", "both"]))
def test_literal_when_a_uniform_map_is_disturbed_then_the_loss_rises(seed, spread, which):
    energy_a, features_a, energy_b, features_b = random_branches(phrases=1, seed=seed, spread=spread)
    flat = consistency_literal(torch.zeros(1, 7), features_a, torch.zeros(1, 5), features_b)
    energy_a, energy_b = energy_a * (which != "b"), energy_b * (which != "a")
    assert consistency_literal(energy_a, features_a, energy_b, features_b) > flat


def test_expected_when_maps_move_to_the_most_alike_pair_then_it_falls_where_the_literal_form_rises():
    energy_a, features_a, energy_b, features_b = random_branches(phrases=1, spread=0.0)
    cosine = torch.nn.functional.cosine_similarity(features_a[:, :, None], features_b[:, None], dim=-1)[0]
    i, j = divmod(int(cosine.argmax()), 5)
    sharp_a, sharp_b = energy_a.clone(), energy_b.clone()
    sharp_a[0, i], sharp_b[0, j] = 6.0, 6.0
    flat, sharp = (energy_a, features_a, energy_b, features_b), (sharp_a, features_a, sharp_b, features_b)
    assert consistency_loss(*sharp) < consistency_loss(*flat)
    assert consistency_literal(*sharp) > consistency_literal(*flat)


def test_literal_when_under_autocast_then_as_exact_as_without():
    branches = random_branches(dim=64)
    without = consistency_literal(*branches)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(consistency_literal(*branches), without)


@pytest.mark.parametrize("form", [consistency_loss, consistency_pairwise, consistency_literal])
def test_consistency_when_features_are_shorter_than_eps_then_divided_by_eps(form):
    """A length of half of 1e-6 counts half: T = (1 + 1/2) / 2."""
    features = torch.tensor([[[5e-7, 0.0]]]), torch.tensor([[[3.0, 0.0]]])
    loss = form(torch.zeros(1, 1), features[0], torch.zeros(1, 1), features[1])
    assert loss.item() == pytest.approx(-math.log(0.75), abs=1e-5)


@pytest.mark.parametrize("form", [consistency_loss, consistency_pairwise, consistency_literal])
def test_consistency_when_features_are_0_then_loss_and_gradient_are_finite(form):
    features = torch.zeros(1, 4, 3, requires_grad=True)
    loss = form(torch.zeros(1, 4), features, torch.zeros(1, 4), features)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(features.grad).all()
