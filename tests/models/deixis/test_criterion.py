import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deixis.data.attributes import WORD_GROUPS
from deixis.data.batches import collate
from deixis.models.criterion import giou_loss
from deixis.models.deixis.criterion import (
    DeixisCriterion,
    around,
    box_loss,
    choice_loss,
    choice_target,
    dice_loss,
    mask_loss,
    projection_loss,
    thing_loss,
    told_loss,
)
from deixis.models.deixis.detector import Detections
from deixis.models.deixis.proposals import Proposals
from deixis.structures import AnnotatedImage, Expression, TrainingBatch, VisibleInstance
from deixis.train import setup as starting

SIZES = [len(group) for group in WORD_GROUPS]
NAMES = ("choice", "box", "exists", "told", "pixels", "projection", "things")


@pytest.fixture
def criterion(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    return DeixisCriterion(model, tokenizer, small_recipe.losses, SIZES)


def half_picture(side, value, category="dog", *, with_mask=True, attributes=(), complete=True):
    """Grey, with a brighter half: its box is known, its mask perhaps."""
    image = np.full((32, 32, 3), 60, np.uint8)
    mask = np.zeros((32, 32), bool)
    columns = slice(0, 16) if side == "left" else slice(16, 32)
    image[:, columns] = value
    mask[:, columns] = True
    box = (float(columns.start), 0.0, float(columns.stop), 32.0)
    target = Expression(f"{side} {category}", box, mask if with_mask else None, category)
    thing = VisibleInstance(category, box, attributes=tuple(attributes))
    return AnnotatedImage(image, (thing,), (target,), frozenset({category}), complete=complete)


def collated(*pictures, absent=0.0):
    return collate(list(pictures), 64, np.random.default_rng(0), absent)


# all together


def test_losses_when_mask_is_unknown_then_projection_and_else_pixels(criterion):
    known = criterion(collated(half_picture("left", 200)))
    unknown = criterion(collated(half_picture("left", 200, with_mask=False)))
    assert (known["pixels"] > 0, known["projection"] == 0) == (True, True)
    assert (unknown["pixels"] == 0, unknown["projection"] > 0) == (True, True)


def test_losses_when_phrase_means_nothing_then_existence_alone_tells_of_it(criterion):
    pictures = [half_picture("left", 200, "dog"), half_picture("right", 200, "cat")]
    whole = collated(*(dataclasses.replace(p, instances=(), complete=False) for p in pictures), absent=1.0)
    chosen = ~whole.present
    absent = dataclasses.replace(
        whole, phrases=[p for p, c in zip(whole.phrases, chosen, strict=True) if c],
        **{name: getattr(whole, name)[chosen] for name in ("image_index", "boxes", "masks", "has_mask", "present")},
    )  # fmt: skip
    assert len(absent.phrases)
    parts = criterion(absent)
    assert {name for name, value in parts.items() if value > 0} == {"exists"}


def test_losses_when_trained_then_every_trainable_parameter_gets_a_gradient(small_recipe):
    fields = {**small_recipe.model.fields, "candidates": 85}  # every place of the detector is read
    model, tokenizer = starting.start_model(small_recipe.replaced(model_fields=fields))
    criterion = DeixisCriterion(model, tokenizer, small_recipe.losses, SIZES)
    for linear in (model.box.refine[2], *model.fusion.modulate, *model.image.head.thing):
        torch.nn.init.normal_(linear.weight, std=0.1)  # zeros let nothing through
    bins = model.image.head.gfl_cls[3].bias.data[80:].view(4, 8)
    bins[:2, 0] = bins[2:, 1] = 9  # the only place at stride 64 is a corner; its box shall have its middle inside
    one = half_picture("left", 200, attributes=("red", "striped"))
    batch = collated(one, half_picture("right", 30, "cat", with_mask=False), absent=1.0)
    sum(criterion(batch).values()).backward()
    parameters = [*model.named_parameters(), *criterion.helper.named_parameters()]
    without = {n for n, p in parameters if p.requires_grad and (p.grad is None or not p.grad.any())}
    # a softmax does not see what is added to all of its inputs: at most rounding reaches these
    assert {name for name in without if not name.endswith("key.bias")} == set()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for _, p in parameters)


def test_weights_when_asked_then_the_recipes_for_every_loss(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    fields = ("choice", "box", "exists", "words", "mask", "projection", "detection")
    made = small_recipe.replaced(**{f"{name}_weight": 1.0 + k for k, name in enumerate(fields)})
    held = DeixisCriterion(model, tokenizer, made.losses, SIZES)
    assert held.weights == {name: 1.0 + k for k, name in enumerate(NAMES)}
    parts = held(collated(half_picture("left", 200)))
    assert parts.keys() == held.weights.keys()
    assert held.total(parts).item() == pytest.approx(sum(held.weights[n] * v.item() for n, v in parts.items()))


def test_weights_when_choice_has_none_then_the_detector_alone_learns(small_recipe):
    made = small_recipe.replaced(choice_weight=0.0)
    model, tokenizer = starting.start_model(made)
    parts = DeixisCriterion(model, tokenizer, made.losses, SIZES)(collated(half_picture("left", 200)))
    assert set(parts) == {"things"}
    parts["things"].backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(name.startswith(("image.encoder.", "image.neck.", "image.head.")) for name in learning)


def test_losses_when_proposals_are_known_already_then_the_same_choice_and_none_of_pixels(criterion):
    pictures = half_picture("left", 200), half_picture("right", 90, "cat")
    batch = collated(*pictures, absent=1.0)
    criterion.model.eval()
    whole = criterion(batch)
    with torch.no_grad():
        pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float() / 255
        _, _, found = criterion.model.image.see(pixels, torch.from_numpy(batch.content))
    seen = {field.name: getattr(found, field.name).numpy() for field in dataclasses.fields(Proposals)}
    empty = np.zeros((2, 0, 0, 3), np.uint8)
    pooled = criterion(dataclasses.replace(batch, pixels=empty, seen=seen))
    assert set(pooled) == {"choice", "box", "exists", "told"}
    for name, value in pooled.items():
        torch.testing.assert_close(value, whole[name], atol=1e-5, rtol=1e-5, msg=name)


# which proposals stand for a thing

THING = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
CELLS = [(x / 2, y / 2, x / 2 + 0.5, y / 2 + 0.5) for y in (0, 1) for x in (0, 1)]


def target_of(*candidates, box=THING, valid=None):
    proposals = torch.tensor([[*candidates, *CELLS]])
    return choice_target(
        proposals, torch.ones(proposals.shape[:2]).bool() if valid is None else valid, box, len(candidates)
    )[0]


def test_target_when_candidates_fit_then_the_square_of_their_overlap_by_the_best():
    # IoU 0.9, 0.6, exactly 0.5 (which is not enough) and 0
    found = target_of((0, 0, 0.5, 0.45), (0, 0, 0.5, 0.3), (0, 0, 0.5, 0.25), (0.6, 0.6, 0.9, 0.9))
    torch.testing.assert_close(found, torch.tensor([1, (0.6 / 0.9) ** 2, 0, 0, 0, 0, 0, 0]))


def test_target_when_the_best_candidate_is_not_valid_then_the_next():
    valid = torch.tensor([[False, True, True, True, True, True]])
    found = target_of((0, 0, 0.5, 0.45), (0, 0, 0.5, 0.3), valid=valid)
    assert found.tolist() == [0, 1, 0, 0, 0, 0]


def test_target_when_no_candidate_fits_then_the_cells_whose_middles_it_covers():
    assert target_of((0.6, 0.6, 0.9, 0.9)).tolist() == [0, 1, 0, 0, 0]
    wide = torch.tensor([[0.1, 0.1, 0.9, 0.4]])
    assert target_of((0.6, 0.6, 0.9, 0.9), box=wide).tolist() == [0, 1, 1, 0, 0]


def test_target_when_it_covers_no_middle_then_the_nearest_cell():
    small = torch.tensor([[0.55, 0.40, 0.6, 0.45]])  # its middle is nearest to (0.75, 0.25)
    assert target_of((0.0, 0.6, 0.1, 0.9), box=small).tolist() == [0, 0, 1, 0, 0]


def test_target_when_phrases_differ_then_each_has_its_own_and_the_best_is_1():
    proposals = torch.rand(5, 9, 2, generator=torch.Generator().manual_seed(0))
    proposals = torch.cat([proposals, proposals + 0.3], -1)
    found = choice_target(proposals, torch.ones(5, 9).bool(), proposals[torch.arange(5), torch.arange(5)], 5)
    assert (found.amax(-1) == 1).all()
    assert found.argmax(-1).tolist() == list(range(5))


def test_choice_loss_when_by_hand_then_the_logarithm_of_what_fits_by_how_well():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    for target, expected in (((1.0, 0, 0), 0.5), ((1.0, 1.0, 0), 0.8), ((0.5, 1.0, 0.0), 0.55)):
        assert choice_loss(logits, torch.tensor([target])).item() == pytest.approx(-math.log(expected), rel=1e-5)


def test_choice_loss_when_what_fits_is_no_proposal_then_large_and_finite():
    logits = torch.tensor([[-torch.inf, 1.0, 0.0]], requires_grad=True)
    loss = choice_loss(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    loss.sum().backward()
    assert 20 < loss.item() <= 30
    assert torch.isfinite(logits.grad).all()


# words


def told_batch(*labels, index=None, boxes=None):
    """Things with these labels; each lies on the left half of its picture, which is the first unless told."""
    count = len(labels)
    batch = collated(half_picture("left", 9), half_picture("left", 9))
    return dataclasses.replace(
        batch, boxed_index=np.array(index or [0] * count, np.int64),
        boxed_boxes=np.array(boxes or [[0, 0, 0.5, 1]] * count, np.float32).reshape(-1, 4),
        boxed_labels=np.array(labels, np.int64).reshape(-1, 3),
    )  # fmt: skip


HALVES = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]]).expand(2, -1, -1)


def test_told_when_nothing_is_told_apart_then_the_logarithm_of_how_many_words_there_are():
    batch = told_batch([3, 1, -1], [5, -1, -1])
    expected = (2 * math.log(SIZES[0]) + math.log(SIZES[1])) / 3
    assert told_loss(torch.zeros(2, 2, sum(SIZES)), HALVES, batch, SIZES).item() == pytest.approx(expected, rel=1e-6)


def test_told_when_told_by_the_proposal_that_fits_then_0_whatever_the_others_tell():
    logits = torch.randn(2, 2, sum(SIZES), generator=torch.Generator().manual_seed(0))
    logits[1, 0] = 0
    logits[1, 0, [3, SIZES[0] + 1]] = 100
    batch = told_batch([3, 1, -1], index=[1])
    assert told_loss(logits, HALVES, batch, SIZES).item() == pytest.approx(0, abs=1e-6)


def test_told_when_no_proposal_fits_then_it_counts_as_told():
    away = [[0.25, 0, 0.75, 1], [0, 0, 0.5, 1]]  # IoU 1/3 with both halves, and 1
    batch = told_batch([3, -1, -1], [5, -1, -1], boxes=away)
    logits = torch.zeros(2, 2, sum(SIZES), requires_grad=True)
    loss = told_loss(logits, HALVES, batch, SIZES)
    assert loss.item() == pytest.approx(math.log(SIZES[0]) / 2)
    loss.backward()
    assert not logits.grad[0, 1].any()


def test_told_when_nothing_is_known_then_0():
    logits = torch.randn(2, 2, sum(SIZES))
    assert told_loss(logits, HALVES, told_batch(), SIZES).item() == 0
    assert told_loss(logits, HALVES, told_batch([-1, -1, -1]), SIZES).item() == 0


# masks


def test_around_when_by_hand_then_twice_the_box_within_the_picture():
    box = torch.tensor([[0.25, 0.5, 0.5, 0.75]])  # twice as large: 0.125..0.625 and 0.375..0.875
    found = around(box, torch.tensor([[0.0, 0.0, 1.0, 0.7]]), 8)[0]  # places at 1/16, 3/16, ...
    assert found.any(0).tolist() == [False, True, True, True, True, False, False, False]
    assert found.any(1).tolist() == [False, False, False, True, True, True, False, False]
    assert found.sum() == 12


# the detector's own


def detections(boxes, logits):
    nothing = torch.zeros(0)
    return Detections([], nothing, nothing, torch.tensor(logits), torch.tensor(boxes, dtype=torch.float32))


def things_batch(things, complete):
    """Pictures with these boxes of things each."""
    index = [row for row, boxes in enumerate(things) for _ in boxes]
    empty = TrainingBatch(
        **{field.name: np.zeros((len(things), 0)) for field in dataclasses.fields(TrainingBatch)}
    )  # only what is replaced is read
    return dataclasses.replace(
        empty, boxed_index=np.array(index, np.int64), complete=np.array(complete),
        boxed_boxes=np.array([box for boxes in things for box in boxes], np.float32).reshape(-1, 4),
    )  # fmt: skip


NEAR, NONE = [0.0, 0.0, 0.5, 0.4], [0.6, 0.6, 0.9, 0.9]
WANTED = [0.0, 0.0, 0.5, 0.5]


def focal_of(logit, quality):
    logit, quality = torch.tensor(logit), torch.tensor(quality)
    return (logit.sigmoid() - quality).square() * F.binary_cross_entropy_with_logits(logit, quality)


def giou_of(*boxes):
    return sum(giou_loss(torch.tensor(box), torch.tensor(WANTED)) for box in boxes) / len(boxes)


def test_things_when_complete_then_far_places_are_nothing_by_hand():
    seen = detections([[NEAR, NONE]], [[0.3, 0.7]])
    found = thing_loss(seen, things_batch([[WANTED]], [True]))
    expected = focal_of(0.3, 0.8) + focal_of(0.7, 0.0) + giou_of(NEAR, NONE)
    torch.testing.assert_close(found, expected)  # the sum of qualities, 0.8, counts as 1


def test_things_when_incomplete_then_far_places_are_ignored():
    seen = detections([[NEAR, NONE]], [[0.3, 0.7]])
    found = thing_loss(seen, things_batch([[WANTED]], [False]))
    torch.testing.assert_close(found, focal_of(0.3, 0.8) + giou_of(NEAR, NONE))


def test_things_when_a_places_middle_lies_outside_then_its_quality_is_0():
    shifted = [0.3, 0.0, 0.8, 0.5]  # IoU 0.25, its middle at 0.55
    found = thing_loss(detections([[shifted]], [[0.3]]), things_batch([[WANTED]], [True]))
    torch.testing.assert_close(found, focal_of(0.3, 0.0) + giou_of(shifted))


def test_things_when_there_are_none_then_every_place_of_a_complete_picture_is_nothing():
    seen = detections([[NEAR, NONE]] * 2, [[0.3, 0.7]] * 2)
    nothing = focal_of(0.3, 0.0) + focal_of(0.7, 0.0)
    torch.testing.assert_close(thing_loss(seen, things_batch([[], []], [True, False])), nothing)
    assert thing_loss(seen, things_batch([[], []], [False, False])) == 0


def test_things_when_pictures_differ_then_a_mean_over_the_things():
    seen = detections([[NEAR, NONE]] * 3, [[0.3, 0.7]] * 3)
    one = thing_loss(detections([[NEAR, NONE]], [[0.3, 0.7]]), things_batch([[WANTED]], [True]))
    two = thing_loss(detections([[NEAR, NONE]], [[0.3, 0.7]]), things_batch([[WANTED, NONE]], [True]))
    found = thing_loss(seen, things_batch([[WANTED], [WANTED, NONE], []], [True, True, False]))
    torch.testing.assert_close(found, (one + 2 * two) / 3)


def test_things_when_trained_then_boxes_move_only_by_their_own_loss():
    boxes = torch.tensor([[NEAR, NONE]], requires_grad=True)
    logits = torch.zeros(1, 2, requires_grad=True)
    seen = Detections([], torch.zeros(0), torch.zeros(0), logits, boxes)
    thing_loss(seen, things_batch([[WANTED]], [True])).backward()
    own = torch.tensor([NEAR, NONE], requires_grad=True)
    giou_loss(own, torch.tensor([WANTED]).expand(2, -1)).mean().backward()
    torch.testing.assert_close(boxes.grad[0], own.grad)
    assert logits.grad.all()


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
