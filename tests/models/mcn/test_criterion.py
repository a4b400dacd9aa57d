"""The overall loss of MCN: Eq. 12 with the weights and scales of the authors' code."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deixis.data.attributes import WORD_GROUPS
from deixis.data.batches import CanvasRules
from deixis.models.mcn.config import JOINT_STRUCTURES, STRUCTURES
from deixis.models.mcn.criterion import McnCriterion, consistency_literal, yolo_loss
from deixis.models.mcn.garan import Attended
from deixis.models.mcn.heads import anchors_as_fractions
from deixis.models.mcn.model import McnOutput
from deixis.structures import TrainingBatch
from deixis.train.batch_loader import batches
from deixis.train.recipes import recipe
from deixis.train.setup import start_data, start_model
from deixis.train.trainer import Trainer

LN2 = math.log(2)
SIZES = [len(group) for group in WORD_GROUPS]
SIDE = 416
BOX = (0.25, 0.5, 0.5, 1.0)


@pytest.fixture
def make_criterion(make_mcn):
    def make(structure="mcn", made=None, **values):
        return McnCriterion(*make_mcn(structure, **values), (made or recipe("mcn")).losses, SIZES)

    return make


def batch_of(*rows, side=52):
    """A batch of phrases on one black canvas; each row is (what fills its mask, has_mask, present)."""
    count = len(rows)
    return TrainingBatch(
        pixels=np.zeros((1, 64, 64, 3), np.uint8),
        content=np.array([[0, 0, 1, 1]], np.float32),
        phrases=["red dog"] * count,
        image_index=np.zeros(count, np.int64),
        boxes=np.array([BOX] * count, np.float32),
        masks=np.stack([np.full((side, side), fill, np.float32) for fill, _, _ in rows]),
        has_mask=np.array([has_mask for _, has_mask, _ in rows]),
        present=np.array([present for _, _, present in rows]),
        thing_index=np.zeros(0, np.int64),
        thing_cells=np.zeros((0, 16), np.float32),
        thing_labels=np.zeros((0, 3), np.int64),
        boxed_index=np.zeros(0, np.int64),
        boxed_boxes=np.zeros((0, 4), np.float32),
        boxed_labels=np.zeros((0, 3), np.int64),
        complete=np.zeros(1, np.bool_),
    )


def zeros(count, *, boxes=True, masks=True):
    """An untrained model's answer at 416: all logits 0, all features the same."""
    vectors = torch.ones(count, 2, 4)
    attended = Attended(torch.ones(count, 169, 2), vectors), Attended(torch.ones(count, 2704, 2), vectors.clone())
    both = boxes and masks
    return McnOutput(
        box_logits=torch.zeros(count, 3, 5, 13, 13) if boxes else None,
        mask_logits=torch.zeros(count, 52, 52) if masks else None,
        rec_attended=attended[0] if boxes else None,
        res_attended=attended[1] if masks else None,
        rec_energy=torch.zeros(count, 169) if both else None,
        res_energy=torch.zeros(count, 2704) if both else None,
    )


# scales and weights


@pytest.mark.parametrize("count", [1, 3])
def test_mask_when_logits_are_0_and_it_is_empty_then_187_43_a_sample_through_the_criterion(make_criterion, count):
    held = make_criterion("single-res-52")
    parts = held.output_losses(zeros(count, boxes=False), batch_of(*[(0.0, True, True)] * count))
    assert parts.keys() == {"mask"}
    assert held.total(parts).item() == pytest.approx(187.43, abs=5e-3)
    assert parts["mask"].item() == pytest.approx(2704 * LN2, rel=1e-6)


def test_total_when_all_logits_are_0_then_the_parts_of_eq_12_by_hand(make_criterion):
    held = make_criterion()
    batch = batch_of((0.0, True, True))
    parts = held.output_losses(zeros(1), batch)
    boxes = yolo_loss(zeros(1).box_logits, torch.tensor([BOX]), anchors_as_fractions(held.model.config.anchors_px))
    weight = 2 - 0.25 * 0.5
    assert parts["xy"].item() == pytest.approx(weight * 2 * LN2, rel=1e-6)
    assert parts["confidence"].item() == pytest.approx(boxes["confidence"].item())
    assert 400 * LN2 < parts["confidence"].item() <= 507 * LN2  # some decode near the box and are ignored
    # the nearest anchor is 137 x 256 of 416 pixels; both differences are above 1/9, so |d| - 1/18 each
    differences = [abs(math.log(size * SIDE / anchor)) for size, anchor in ((0.25, 137), (0.5, 256))]
    assert parts["wh"].item() == pytest.approx(0.5 * weight * sum(d - 1 / 18 for d in differences), rel=1e-4)
    assert parts["cem"].item() == pytest.approx(0, abs=1e-5)  # all features are the same
    expected = sum(parts[name].item() for name in ("xy", "wh", "confidence", "cem")) + 0.1 * parts["mask"].item()
    assert held.total(parts).item() == pytest.approx(expected, rel=1e-6)


def test_weights_when_the_recipe_has_others_then_these(make_criterion):
    made = recipe("mcn", rec_weight=2.0, res_weight=3.0, cem_weight=5.0)
    held = make_criterion(made=made)
    assert held.weights == {"xy": 2.0, "wh": 2.0, "confidence": 2.0, "mask": 3.0, "cem": 5.0}
    assert make_criterion().weights == {"xy": 1.0, "wh": 1.0, "confidence": 1.0, "mask": 0.1, "cem": 1.0}


def row_of(value, k):
    if isinstance(value, Attended):
        return Attended(value.gate[k : k + 1], value.vectors[k : k + 1])
    return value[k : k + 1]


def test_parts_when_phrases_differ_then_their_mean(make_criterion):
    held = make_criterion()
    output = zeros(2)
    output.mask_logits[1] = 100.0
    output.box_logits[1, :, 4] = -100.0
    batch = batch_of((0.0, True, True), (1.0, True, True))
    both = held.output_losses(output, batch)
    alone = [
        held.output_losses(
            McnOutput(*(row_of(getattr(output, f.name), k) for f in dataclasses.fields(output))),
            batch_of((float(k), True, True)),
        )
        for k in range(2)
    ]
    for name, value in both.items():
        mean = (alone[0][name] + alone[1][name]).item() / 2
        assert value.item() == pytest.approx(mean, rel=1e-5, abs=2e-5), name  # energies: differences of logs
    assert alone[1]["mask"].item() == pytest.approx(0, abs=1e-6)
    assert alone[1]["confidence"].item() == pytest.approx(100, rel=1e-4)  # the one positive


# what takes part


def test_mask_when_a_phrase_has_none_then_the_mean_is_over_the_others(make_criterion):
    held = make_criterion("single-res-52")
    batch = batch_of((0.0, True, True), (0.0, False, True), (0.0, False, False))
    output = dataclasses.replace(zeros(3, boxes=False), mask_logits=torch.zeros(3, 52, 52))
    output.mask_logits[1] = 1000.0
    assert held.output_losses(output, batch)["mask"].item() == pytest.approx(2704 * LN2, rel=1e-6)
    nobody = batch_of((0.0, False, True))
    assert held.output_losses(zeros(1, boxes=False), nobody)["mask"].item() == 0


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_mask_when_a_cell_is_partly_covered_then_its_share_is_the_target(make_criterion, share):
    held = make_criterion("single-res-52")
    output = dataclasses.replace(zeros(1, boxes=False), mask_logits=torch.full((1, 52, 52), math.log(3)))
    each = -share * math.log(0.75) - (1 - share) * math.log(0.25)
    parts = held.output_losses(output, batch_of((share, True, True)))
    assert parts["mask"].item() == pytest.approx(2704 * each, rel=1e-5)


def test_losses_when_a_phrase_means_nothing_then_all_is_negative_and_the_mask_empty(make_criterion):
    held = make_criterion()
    batch = dataclasses.replace(batch_of((0.0, False, False)), boxes=np.zeros((1, 4), np.float32))
    parts = held.output_losses(zeros(1), batch)
    assert {name: value.item() for name, value in parts.items() if name in ("xy", "wh", "cem")} == {
        "xy": 0, "wh": 0, "cem": 0,
    }  # fmt: skip
    assert parts["confidence"].item() == pytest.approx(507 * LN2, rel=1e-6)
    assert parts["mask"].item() == pytest.approx(2704 * LN2, rel=1e-6)


def test_cem_when_a_phrase_means_nothing_then_the_mean_is_over_the_others(make_criterion):
    held = make_criterion()
    output = zeros(2)
    output.rec_attended.vectors[0, 0] = -1.0  # a cosine of 0
    batch = batch_of((0.0, True, True), (0.0, False, False))
    assert held.output_losses(output, batch)["cem"].item() == pytest.approx(LN2, rel=1e-4)


def consistency_pairwise(energy_a, features_a, energy_b, features_b, eps=1e-6):
    """MCN Eq. 5 to 9 as they stand: the N_a x N_b table of weighted correlations, summed, clipped as the authors do."""
    attention = energy_a.softmax(-1)[:, :, None] * energy_b.softmax(-1)[:, None, :]
    unit_a, unit_b = (F.normalize(one, dim=-1, eps=eps) for one in (features_a, features_b))
    correlation = ((unit_a @ unit_b.transpose(1, 2) + 1) / 2).clamp(eps, 1 - eps)
    return -torch.log((attention * correlation).sum((1, 2)) + eps)


@pytest.mark.parametrize(("form", "loss"), [("expected", consistency_pairwise), ("literal", consistency_literal)])
def test_cem_when_of_a_form_then_that_loss_over_positions_of_both_branches(make_criterion, form, loss):
    held = make_criterion(cem=form)
    generator = torch.Generator().manual_seed(0)
    res_energy, rec_energy, res_vectors, rec_vectors, res_gate, rec_gate = (
        torch.randn(shape, generator=generator)
        for shape in ((2, 25), (2, 9), (2, 2, 4), (2, 2, 4), (2, 25, 2), (2, 9, 2))
    )
    res, rec = Attended(res_gate, res_vectors), Attended(rec_gate, rec_vectors)
    output = dataclasses.replace(
        zeros(2), res_energy=res_energy, rec_energy=rec_energy, res_attended=res, rec_attended=rec
    )
    expected = loss(res_energy, res.rows(), rec_energy, rec.rows()).mean()
    parts = held.output_losses(output, batch_of((0.0, True, True), (0.0, True, True)))
    torch.testing.assert_close(parts["cem"], expected)


PARTS = {"rec": {"xy", "wh", "confidence"}, "res": {"mask"}, "cem": {"cem"}}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_losses_when_of_a_structure_then_the_parts_that_it_has(make_criterion, structure):
    held = make_criterion(structure)
    single = structure.removeprefix("single-")[:3]
    expected = PARTS[single] if structure.startswith("single-") else set().union(*PARTS.values())
    side = 64 // held.model.mask_stride
    parts = held(batch_of((1.0, True, True), (0.0, False, False), side=side))
    assert parts.keys() == expected
    assert parts.keys() <= held.weights.keys()
    assert all(value.ndim == 0 and torch.isfinite(value) for value in parts.values())


@pytest.mark.parametrize("structure", JOINT_STRUCTURES)
def test_losses_when_cem_is_off_then_without_it(make_criterion, structure):
    held = make_criterion(structure, cem="off")
    parts = held(batch_of((1.0, True, True), side=64 // held.model.mask_stride))
    assert parts.keys() == PARTS["rec"] | PARTS["res"]


# learning


def drawn(made, model):
    rules = CanvasRules(model.mask_stride, made.data.mask_target, model.fill)
    return next(iter(batches(start_data(made), made, 0, rules)))


def test_losses_when_trained_then_every_trainable_parameter_gets_a_gradient(small_mcn_recipe):
    model, tokenizer = start_model(small_mcn_recipe)
    held = McnCriterion(model.train(), tokenizer, small_mcn_recipe.losses, SIZES)
    held.total(held(drawn(small_mcn_recipe.replaced(images=4), model))).backward()
    without = {
        n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or p.grad.abs().max() == 0)
    }
    # a softmax does not see what is added to all of its inputs: at most rounding reaches these
    assert without <= {"rec_energy.bias", "res_energy.bias"} | {n for n in without if n.endswith("collect_key.bias")}
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("structure", ["mcn", "single-rec-52", "single-res-13"])
def test_training_when_one_drawn_batch_repeats_then_its_loss_falls(small_mcn_recipe, structure, precision):
    fields = {**small_mcn_recipe.model.fields, "structure": structure}
    fields["cem"] = "expected" if structure == "mcn" else "off"
    made = small_mcn_recipe.replaced(model_fields=fields, precision=precision, steps=30, images=4, warmup=0, lr=1e-2)
    held = Trainer(made)
    fixed = drawn(made, held.model)
    losses = [held.train_step(fixed) for _ in range(30)]
    assert all(math.isfinite(value) for step in losses for value in step.values())
    assert losses[-1]["loss"] < 0.6 * losses[0]["loss"]
    if structure == "mcn":
        assert losses[-1]["mask"] < losses[0]["mask"]
        assert losses[-1]["confidence"] < losses[0]["confidence"]


def test_words_when_wanted_then_told_from_the_encoder_alone(small_mcn_recipe):
    made = small_mcn_recipe.replaced(words_weight=5.0)
    model, tokenizer = start_model(made)
    held = McnCriterion(model.train(), tokenizer, made.losses, SIZES)
    held(drawn(made, model))["words"].backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"encoder"}
    assert all(p.grad.abs().sum() > 0 for p in held.helper.parameters())
    assert held.weights["words"] == 5.0


def test_words_when_not_wanted_then_no_part_and_no_parameters(small_mcn_recipe):
    made = small_mcn_recipe.replaced(words_weight=0.0)
    model, tokenizer = start_model(made)
    held = McnCriterion(model.train(), tokenizer, made.losses, SIZES)
    assert "words" not in held(drawn(made, model))
    assert [*held.helper.parameters()] == []
