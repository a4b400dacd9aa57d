"""The overall loss of SMCIM: Eq. 7 to 11, its two widths in the optimiser, and what is logged."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from deixis.config import preset
from deixis.data.attributes import NUM_WORDS, WORD_GROUPS
from deixis.data.batches import CanvasRules
from deixis.language.tokenizers import WordTokenizer
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.smcim.criterion import (
    NEGATIVE_TOTAL,
    SelfPacing,
    SmcimCriterion,
)
from deixis.models.smcim.model import SmcimModel
from deixis.structures import TrainingBatch
from deixis.train import trainer
from deixis.train.batch_loader import batches
from deixis.train.optimisers import build_optimiser
from deixis.train.recipes import recipe
from deixis.train.setup import start_data
from deixis.train.trainer import Trainer, log_line, notes

WANTED = (0.25, 0.25, 0.75, 0.75)
SIZES = [len(group) for group in WORD_GROUPS]


class Standing(nn.Module):
    """Stands for SmcimModel: says the same box of all phrases; its features are the mean colour of each cell."""

    def __init__(self, box_cxcywh=(0.5, 0.5, 0.5, 0.5)):
        super().__init__()
        self.config = SimpleNamespace(text_features=(6,), group_dim=3, merge_dim=4)
        self.box = nn.Parameter(torch.tensor(box_cxcywh))
        self.gain = nn.Parameter(torch.ones(3))

    def encode_image(self, pixels, content):
        cells = nn.functional.avg_pool2d(pixels, 16).flatten(2).transpose(1, 2) * self.gain
        return SimpleNamespace(features=(cells,), pick=lambda index: len(index))

    def ground(self, count, token_ids, token_valid, *, attend=False):
        assert count == len(token_ids)
        seen = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).expand(count, 4) if attend else None
        pixels = torch.eye(4).expand(count, 4, 4)
        return SimpleNamespace(boxes_cxcywh=self.box.expand(count, 4), pixels=pixels, cls_attention=seen)

    def pretrained_parameters(self):
        return {"image": [], "text": []}


def make(box_cxcywh=(0.5, 0.5, 0.5, 0.5), **fields):
    made = recipe("smcim", **fields)
    return SmcimCriterion(Standing(box_cxcywh), WordTokenizer(["dog"], max_tokens=3), made.losses, SIZES)


def batch_of(present=(True,), boxes=None):
    """Phrases on one grey canvas of 2 x 2 cells, in whose first one lies a thing that is red."""
    count = len(present)
    labels = np.full((1, len(WORD_GROUPS)), -1)
    labels[0, 1] = 0
    return TrainingBatch(
        pixels=np.full((1, 32, 32, 3), 100, np.uint8),
        content=np.array([[0, 0, 1, 1]], np.float32),
        phrases=["dog"] * count,
        image_index=np.zeros(count, np.int64),
        boxes=np.array(boxes or [WANTED] * count, np.float32),
        masks=np.zeros((count, 8, 8), np.float32),
        has_mask=np.zeros(count, bool),
        present=np.array(present),
        thing_index=np.zeros(1, np.int64),
        thing_cells=np.array([[1, 0, 0, 0]], np.float32),
        thing_labels=labels,
        boxed_index=np.zeros(0, np.int64),
        boxed_boxes=np.zeros((0, 4), np.float32),
        boxed_labels=np.zeros((0, 3), np.int64),
        complete=np.zeros(1, np.bool_),
    )


def paced(loss, sigma=2.5, lambda_=0.75):
    return (loss - lambda_) * math.exp(loss**2 / sigma**2)


# boxes


def test_losses_when_a_box_is_a_quarter_beside_then_eq_7_and_8_by_hand():
    parts = make((0.75, 0.5, 0.5, 0.5), spsil="off")(batch_of())
    assert parts.keys() == {"l1", "giou"}
    assert parts["l1"].item() == pytest.approx(0.25)
    assert parts["giou"].item() == pytest.approx(1 - 1 / 3)  # half of each overlaps, the hull is the union


def test_losses_when_a_box_reaches_out_of_the_canvas_then_it_is_not_cut():
    parts = make((0.5, 0.5, 2.0, 1.0), spsil="off")(batch_of())
    assert parts["l1"].item() == pytest.approx(1.5 + 0.5)
    assert parts["giou"].item() == pytest.approx(1 - 0.25 / 2)


# the total


@pytest.mark.parametrize("detach", [False, True])
def test_total_when_spsil_is_on_then_eq_11_by_hand(detach):
    held = make((0.75, 0.5, 0.5, 0.5), detach_difficulty=detach)
    parts = held(batch_of())
    assert held.total(parts).item() == pytest.approx(paced(0.25) + paced(2 / 3), rel=1e-5)
    assert parts["paced_l1"].item() == pytest.approx(paced(0.25), rel=1e-5)
    assert parts["difficulty_giou"].item() == pytest.approx(math.exp((2 / 3) ** 2 / 6.25), rel=1e-5)


def test_total_when_all_is_right_then_minus_two_lambda_and_a_log_that_takes_it():
    held = make(spsil_lambda=0.5)
    total = held.total(held(batch_of())).item()
    assert total == pytest.approx(-1.0)
    assert json.loads(log_line(1, 0.0, {"loss": total}))["loss"] == pytest.approx(-1.0)


def test_total_when_spsil_is_off_then_the_plain_sum_and_no_width():
    held = make((0.75, 0.5, 0.5, 0.5), spsil="off")
    assert held.total(held(batch_of())).item() == pytest.approx(0.25 + 2 / 3, rel=1e-5)
    assert [*held.helper.parameters()] == []


@pytest.mark.parametrize("spsil", ["on", "off"])
def test_total_when_weights_are_given_then_after_the_difficulty(spsil):
    held = make((0.75, 0.5, 0.5, 0.5), spsil=spsil, l1_weight=5.0, giou_weight=2.0)
    one, two = (paced(0.25), paced(2 / 3)) if spsil == "on" else (0.25, 2 / 3)
    assert held.total(held(batch_of())).item() == pytest.approx(5 * one + 2 * two, rel=1e-5)


def test_logged_when_phrases_differ_then_the_mean_of_each_ones_own_difficulty():
    held = make((0.75, 0.5, 0.5, 0.5), sigma=1.5)
    beside = (0.5, 0.25, 1.0, 0.75)  # this one is right
    parts = held(batch_of((True, True), [WANTED, beside]))
    hard = math.exp((2 / 3) ** 2 / 2.25)
    assert parts["giou"].item() == pytest.approx(1 / 3, rel=1e-5)
    assert parts["paced_giou"].item() == pytest.approx((paced(2 / 3, 1.5) - 0.75) / 2, rel=1e-5)
    assert parts["difficulty_giou"].item() == pytest.approx((hard + 1) / 2, rel=1e-5)
    assert parts["difficulty_max_giou"].item() == pytest.approx(hard, rel=1e-5)
    assert (parts["sigma_l1"].item(), parts["sigma_giou"].item()) == (1.5, 1.5)
    logged = {name for name in parts if name.startswith(("difficulty", "sigma"))}
    assert not any(parts[name].requires_grad for name in logged)


def test_losses_when_a_phrase_means_nothing_then_it_takes_no_part():
    held = make((0.75, 0.5, 0.5, 0.5))
    alone = held(batch_of())
    both = held(batch_of((True, False), [WANTED, (0, 0, 0, 0)]))
    for name, value in both.items():
        assert value.item() == pytest.approx(alone[name].item(), rel=1e-6), name
    nobody = held(batch_of((False,), [(0, 0, 0, 0)]))
    held.total(nobody).backward()
    assert held.total(nobody).item() == 0
    assert held.model.box.grad.abs().max() == 0
    assert all(sigma.grad == 0 for sigma in held.helper.parameters())


def test_gradients_when_detached_then_the_boxs_differ_and_the_widths_do_not():
    found = []
    for detach in (False, True):
        held = make((0.75, 0.5, 0.5, 0.5), detach_difficulty=detach)
        held.total(held(batch_of())).backward()
        found.append((held.model.box.grad, [sigma.grad.item() for sigma in held.helper.parameters()]))
    assert not torch.allclose(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] != [0, 0]


# the words


def test_words_when_wanted_then_told_from_the_images_features_alone():
    held = make(words_weight=2.0)
    assert held.helper["words"].out_features == NUM_WORDS
    parts = held(batch_of())
    parts["words"].backward()
    assert held.model.gain.grad.abs().sum() > 0
    assert held.model.box.grad is None
    boxes = parts["paced_l1"] + parts["paced_giou"]
    assert held.total(parts).item() == pytest.approx((boxes + 2 * parts["words"]).item(), rel=1e-5)


def test_words_when_not_wanted_then_no_part_and_no_parameters():
    held = make()
    assert "words" not in held(batch_of())
    assert {name for name, _ in held.helper.named_parameters()} == {"pacing.sigma.l1", "pacing.sigma.giou"}


# the widths in the optimiser


def masked_batch():
    """Two phrases on a grid of 2 x 2 cells: a mask that covers all of the first cell and half of the last, and none."""
    batch = batch_of((True, True))
    masks = np.zeros((2, 2, 2), np.float32)
    masks[0, 0, 0], masks[0, 1, 1] = 1.0, 0.5
    return dataclasses.replace(batch, masks=masks, has_mask=np.array([True, False]))


def test_attention_when_wanted_then_minus_the_log_of_its_share_on_the_mask():
    criterion = make(attention_weight=2.0)
    parts = criterion(masked_batch())  # half of the attention on the first cell, none on the last
    assert parts["attention"].item() == pytest.approx(-math.log(0.5), rel=1e-6)
    without = {name: part for name, part in parts.items() if name != "attention"}
    assert criterion.total(parts).item() == pytest.approx(make().total(without).item() + 2 * math.log(2), rel=1e-6)
    assert "attention" not in make()(masked_batch())


def test_place_when_wanted_then_cross_entropy_of_all_cells_and_the_box_of_covered_ones():
    criterion = make(place_weight=1.0)
    with torch.no_grad():
        criterion.place.weight.zero_()
        criterion.place.bias.zero_()
        criterion.place.weight[0, 0] = 2.0  # the first pixel says that it lies on the thing
        criterion.place.weight[1, 3] = math.log(3)  # the last one that the box's centre lies at 3 / 4
    parts = criterion(masked_batch())
    cells = [math.log(1 + math.exp(-2)), math.log(2), math.log(2), math.log(2)]
    assert parts["place"].item() == pytest.approx(sum(cells) / 4, rel=1e-6)
    # all other numbers are a half, as of the box that is wanted; the last pixel counts half as much as the first
    assert parts["place_box"].item() == pytest.approx(0.25 * 0.5 / 1.5, rel=1e-6)


def test_optimiser_when_there_are_widths_then_a_group_of_their_own_without_decay():
    made = recipe("smcim", words_weight=1.0, sigma_lr=0.125, lr=0.25)
    held = SmcimCriterion(Standing(), WordTokenizer(["dog"], max_tokens=3), made.losses, SIZES)
    groups = build_optimiser(held.model, held, made).param_groups
    names = {id(p): name for name, p in held.helper.named_parameters()}
    found = {
        frozenset(names[id(p)] for p in group["params"]): (group["lr"], group["peak_lr"], group["weight_decay"])
        for group in groups if id(group["params"][0]) in names
    }  # fmt: skip
    assert found == {
        frozenset({"words.weight", "words.bias"}): (0.25, 0.25, 0.0),
        frozenset({"pacing.sigma.l1", "pacing.sigma.giou"}): (0.125, 0.125, 0.0),
    }
    every = [p for group in groups for p in group["params"]]
    assert len(every) == len({id(p) for p in every}) == 2 + 4


def sigmas(pacing):
    return [pacing.sigma[name].item() for name in ("l1", "giou")]


def paced_optimiser(**fields):
    held = make(**fields)
    assert isinstance(held.pacing, SelfPacing)
    return held.pacing, build_optimiser(Standing(), held, recipe("smcim", **fields))


def test_width_when_all_losses_stay_small_for_10000_steps_then_at_its_floor_and_never_below():
    # at 20 times the printed rate, so that it could go five times as far
    pacing, optimiser = paced_optimiser(sigma_lr=1e-3)
    loss, least = torch.tensor(0.3), torch.tensor(0.6).item()
    sigma = pacing.sigma["l1"]
    for _ in range(10_000):
        optimiser.zero_grad()
        pacing("l1", loss).backward()
        optimiser.step()
        assert sigma.item() >= least
    assert sigma.item() == least


def test_widths_when_one_loss_is_hard_then_that_one_grows_and_the_other_shrinks_by_a_step_of_the_rate():
    pacing, optimiser = paced_optimiser(sigma_lr=0.01)
    (pacing("l1", torch.tensor(0.3)) + pacing("giou", torch.tensor(1.5))).backward()
    optimiser.step()
    assert sigmas(pacing) == pytest.approx([2.49, 2.51], abs=1e-5)


def test_widths_when_a_step_would_take_them_below_then_at_the_floor_of_the_recipe():
    pacing, optimiser = paced_optimiser(sigma_lr=1.0, sigma=1.2, sigma_floor=1.0)
    (pacing("l1", torch.tensor(0.3)) + pacing("giou", torch.tensor(0.3))).backward()
    optimiser.step()
    assert sigmas(pacing) == [1.0, 1.0]


# the whole step


class SmallEncoder(nn.Module):
    """Stands for the image encoder."""

    channels = (4, 6, 8)
    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(
            nn.Conv2d(one, two, stride, stride=stride) for one, two, stride in ((3, 4, 8), (4, 6, 2), (6, 8, 2))
        )

    def forward(self, pixels):
        maps = []
        for conv in self.down:
            pixels = torch.tanh(conv(pixels))
            maps.append(pixels)
        return ThreeScales(*maps)

    def frozen_parameters(self):
        return []


@pytest.fixture
def small(monkeypatch):
    """Makes a trainer of a very small SmcimModel; save and restore without the checkpoint."""
    monkeypatch.setattr("deixis.models.smcim.model.build_smcim_encoder", lambda name: SmallEncoder())
    monkeypatch.setattr(trainer, "save_checkpoint", lambda *_, **__: None)
    config = preset(
        "smcim-tiny", image_size=64, group_dim=8, group_heads=2, group_blocks=1, merge_heads=2, merge_blocks=1,
        text_dim=12, text_layers=2, text_heads=2, text_features=(1, 2), vocab_size=10, max_tokens=6,
    )  # fmt: skip

    def make_trainer(**fields):
        def start(made, samples):
            torch.manual_seed(made.run.seed)
            return SmcimModel(config), WordTokenizer(["left", "right", "red"], max_tokens=6)

        monkeypatch.setattr(trainer, "start_model", start)
        made = recipe("debug", words_weight=0.0, lr=1e-2, steps=25, absent=0.0, sigma_lr=1e-2, **fields)
        return Trainer(made)

    return make_trainer


def drawn(made):
    return next(iter(batches(start_data(made), made, 0, CanvasRules(16))))


def test_criterion_when_the_model_is_of_the_family_then_this_one(small):
    held = small()
    assert type(held.criterion) is SmcimCriterion
    told = notes(held.recipe, held.criterion, autocast=True)
    assert told[0] == NEGATIVE_TOTAL
    assert ["image_weights" in told[1], "text_weights" in told[2], len(told)] == [True, True, 4]
    assert told[3] == "precision: bfloat16"
    assert notes(held.recipe, small(spsil="off").criterion, autocast=True) == told[1:]
    assert notes(held.recipe, held.criterion, autocast=False)[3] == "precision: float32"


@pytest.mark.parametrize(
    ("fields", "unsafe"),
    [
        ({}, False),
        ({"spsil_lambda": 2.0}, True),
        ({"spsil_lambda": 2.0, "sigma_floor": 1.42}, False),
        ({"sigma_floor": 0.5}, True),
        ({"spsil_lambda": 2.0, "detach_difficulty": True}, False),
        ({"spsil_lambda": 2.0, "spsil": "off"}, False),
    ],
    ids=str,
)
def test_notes_when_sigma_may_fall_to_where_errors_are_rewarded_then_it_is_told(small, fields, unsafe):
    held = small(**fields)
    told = notes(held.recipe, held.criterion, autocast=False)
    assert sum("sigma may fall below lambda" in one for one in told) == unsafe


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_when_one_drawn_scene_repeats_then_plain_losses_fall_and_the_total_below_0(small, precision):
    held = small(precision=precision, images=1, phrases=1)
    fixed = drawn(held.recipe)
    logged = [held.train_step(fixed) for _ in range(25)]
    assert all(math.isfinite(value) for step in logged for value in step.values())
    assert logged[-1]["l1"] < 0.6 * logged[0]["l1"]
    assert logged[-1]["giou"] < 0.6 * logged[0]["giou"]
    assert logged[-1]["loss"] < 0
    assert logged[0]["sigma_l1"] == 2.5
    assert (logged[1]["sigma_l1"] - 2.5) * (logged[0]["l1"] - 0.75) > 0  # a hard scene widens, an easy one narrows


def test_gradients_when_trained_then_every_parameter_gets_one_told_words_included(small):
    held = small()
    made = held.recipe.replaced(words_weight=1.0)
    criterion = SmcimCriterion(held.model.train(), held.criterion.tokenizer, made.losses, SIZES)
    criterion.total(criterion(drawn(made))).backward()
    parameters = [*held.model.named_parameters(), *criterion.helper.named_parameters()]
    assert [name for name, p in parameters if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for _, p in parameters)


def test_restore_when_widths_have_moved_then_they_and_the_next_step_are_as_they_were(small, tmp_path):
    held, again = small(), small()
    fixed = drawn(held.recipe)
    for _ in range(3):
        held.train_step(fixed)
    held.save(tmp_path)
    again.restore(tmp_path)
    assert sigmas(again.criterion.pacing) == sigmas(held.criterion.pacing) != [2.5, 2.5]
    after = held.train_step(fixed)
    again.restore(tmp_path)
    assert again.train_step(fixed) == after


def test_run_when_of_this_family_then_told_once_that_totals_are_negative_and_all_parts_are_logged(
    small, tmp_path, capsys
):
    made = small(images=1, phrases=1).recipe.replaced(steps=2, printed_images=192)
    trainer.run(made, tmp_path / "run")
    told = capsys.readouterr().err
    assert told.count("negative by design") == 1
    assert told.count("batches of 1, printed are 192") == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    parts = {f"{part}_{name}" for part in ("paced", "difficulty", "difficulty_max", "sigma") for name in ("l1", "giou")}
    assert [set(row) for row in rows] == [{"step", "seconds", "loss", "l1", "giou", *parts}] * 2
    assert rows[0]["loss"] == pytest.approx(rows[0]["paced_l1"] + rows[0]["paced_giou"], rel=1e-5)
