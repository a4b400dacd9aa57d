import math
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deixis.config import config_from_dict, config_to_dict, preset
from deixis.models.boxes import cells_inside
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.smcim.interaction import LastStep, sine_position
from deixis.models.smcim.model import SmcimModel, SmcimOutput, SmcimScene, VisualFeatures, share_inside
from deixis.papers.tables import SMCIM_TABLE_3, SMCIM_TABLE_4

IDS = torch.tensor([[2, 4, 6, 3], [2, 7, 3, 0], [2, 5, 9, 3]])
VALID = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
IMAGE_INDEX = torch.tensor([0, 1, 0])
CONTENT = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 1.0, 0.75]])
SMALL = {
    "text_dim": 12, "text_heads": 2, "vocab_size": 13, "image_size": 64, "group_dim": 8, "group_heads": 2,
    "merge_heads": 3, "group_blocks": 1, "merge_blocks": 2, "text_layers": 3, "text_features": (1, 2, 3),
}  # fmt: skip
KINDS = [{}, {"interaction": "encoder"}]
VARIANTS = [
    *KINDS, {"projection": "conv1x1"}, {"position": "learned"}, {"position": "none"}, {"position_at": "tokens"},
    {"position": "learned", "position_at": "attention"}, {"group_blocks": 0},
    {"visual_features": (5,), "text_features": (2,)}, {"visual_features": (3, 5), "text_features": (1, 3)},
    {"activation": "gelu"}, {"merge_blocks": 1, "interaction": "encoder"},
]  # fmt: skip


class SmallEncoder(nn.Module):
    """An encoder of a thousand parameters with the interface of the real ones."""

    channels = (6, 8, 10)
    pixel_mean = (0.1, 0.2, 0.3)
    pixel_std = (1.0, 2.0, 3.0)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, stride=8)
        self.down = nn.ModuleList((nn.Conv2d(6, 8, 2, stride=2), nn.Conv2d(8, 10, 2, stride=2)))

    def forward(self, pixels):
        fine = torch.tanh(3 * self.stem(pixels))
        middle = torch.tanh(3 * self.down[0](fine))
        return ThreeScales(fine, middle, torch.tanh(3 * self.down[1](middle)))

    def frozen_parameters(self):
        return list(self.stem.parameters())


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setattr("deixis.models.smcim.model.build_smcim_encoder", lambda name: SmallEncoder())

    def make(**values):
        torch.manual_seed(0)
        model = SmcimModel(preset("smcim-tiny", **{**SMALL, **values})).eval()
        for name, p in model.text.named_parameters():  # BERT starts with words that hardly differ
            if "LayerNorm" not in name:
                nn.init.normal_(p, std=0.3)
        return model

    return make


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def name_of(values):
    return "-".join(str(value) for value in values.values()) or "default"


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def run(model, pixels, ids=IDS, valid=VALID):
    return model(pixels, CONTENT, IMAGE_INDEX, ids, valid).boxes_cxcywh


# Table V


def count(module):
    return sum(p.numel() for p in module.parameters())


@cache
def on_meta(config):
    """The network and its operations, two a multiplication and addition, at 40 words; nothing is computed."""
    with torch.device("meta"):
        model = SmcimModel(config).eval()
        # its library looks into a mask, which has no values here; none stands for 40 real words
        model.text.body.register_forward_pre_hook(lambda m, a, k: (a, {**k, "attention_mask": None}), with_kwargs=True)
        size = config.image_size
        inputs = torch.empty(1, 3, size, size), torch.empty(1, 4), torch.zeros(1, dtype=torch.long)
        words = torch.zeros(1, 40, dtype=torch.long), torch.ones(1, 40, dtype=torch.bool)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(*inputs, *words)
    return model, counter.get_total_flops()


@pytest.mark.parametrize(
    ("interaction", "parameters", "operations", "stacks"),
    [("ca2m", 147.15e6, 110.76e9, 52_004_352), ("encoder", 121.14e6, 126.89e9, 26_002_176)],
)
def test_smcim_r50_when_counted_then_table_5(interaction, parameters, operations, stacks):
    model, counted = on_meta(preset("smcim-r50", interaction=interaction))
    assert count(model.interaction.groups) + count(model.interaction.merge) == stacks
    assert count(model) == pytest.approx(parameters, rel=0.01)
    assert counted == pytest.approx(operations, rel=0.03)


def test_operations_when_only_the_blocks_are_exchanged_then_the_papers_difference():
    """16.13G in Table V; everything else is the same in both rows."""
    counted = [on_meta(preset("smcim-r50", interaction=kind))[1] for kind in ("encoder", "ca2m")]
    assert counted[0] - counted[1] == pytest.approx(16.13e9, rel=0.01)


def test_operations_when_stages_only_get_a_1x1_convolution_then_too_few_for_table_5():
    model, counted = on_meta(preset("smcim-r50", projection="conv1x1"))
    assert counted < 0.96 * 110.76e9
    assert count(model) < 0.99 * 147.15e6


def test_parts_when_counted_then_as_worked_out():
    with torch.device("meta"):
        model = SmcimModel(preset("smcim-r50"))

    def linear(a, b):
        return a * b + b

    assert count(model.head) == 2 * linear(768, 768) + linear(768, 4)
    stages = sum(linear(c, 256) for c in (512, 1024, 2048)) + 3 * linear(9 * 256, 256)
    assert count(model.image) == stages + 3 * linear(768, 256)
    assert count(model.interaction.textual_in) == 3 * linear(768, 256)
    assert count(model.interaction.visual_merge) == count(model.interaction.textual_merge) == 0


NUMBERS = {"One": 1, "Two": 2, "Three": 3}


@pytest.mark.parametrize("row", SMCIM_TABLE_3.rows, ids=lambda row: row.name)
def test_table_3_when_features_are_left_out_then_nine_blocks_of_the_same_widths(row):
    with torch.device("meta"):
        model = SmcimModel(preset("smcim-r50", **row.model_fields))
    visual, textual = row.name.split(" x ")
    assert len(model.image.features.project) == NUMBERS[visual]
    assert len(model.interaction.groups) == NUMBERS[textual]
    assert count(model.interaction.groups) == 6 * 2 * 789_760
    assert count(model.interaction.merge) == 3 * 2 * 7_087_872


@pytest.mark.parametrize("row", SMCIM_TABLE_4.rows, ids=lambda row: row.name)
def test_table_4_when_blocks_are_counted_then_as_in_its_row(row):
    with torch.device("meta"):
        model = SmcimModel(preset("smcim-r50", **row.model_fields))
    grouping = sum(len(group) for group in model.interaction.groups)
    assert f"{grouping} grouping, {len(model.interaction.merge)} merging" == row.name


# the contract


@pytest.mark.parametrize("values", VARIANTS, ids=name_of)
def test_forward_when_trained_then_shapes_hold_and_every_parameter_learns(build, pixels, values):
    model = build(**values).train()
    output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
    assert output.cls_attention is None
    assert output.boxes_cxcywh.shape == (3, 4)
    assert ((output.boxes_cxcywh > 0) & (output.boxes_cxcywh < 1)).all()
    (torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * output.boxes_cxcywh).sum().backward()
    layers = model.config.text_features[-1]
    unread = [f"text.body.encoder.layer.{i}." for i in range(layers, model.config.text_layers)]
    # moving all keys by the same amount changes no softmax, so their biases have no gradient but rounding
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {n for n in without if not n.endswith("key.bias") and not n.startswith(tuple(unread))} <= {
        "text.body.embeddings.token_type_embeddings.weight"
    }
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("values", KINDS, ids=name_of)
def test_forward_when_batched_then_equals_one_by_one(build, pixels, values):
    model = build(**values)
    together = run(model, pixels)
    with torch.no_grad():
        for p, image in enumerate(IMAGE_INDEX.tolist()):
            length = int(VALID[p].sum())
            alone = model(
                pixels[image : image + 1], CONTENT[image : image + 1], torch.zeros(1, dtype=torch.long),
                IDS[p : p + 1, :length], VALID[p : p + 1, :length],
            )  # fmt: skip
            close(together[p : p + 1], alone.boxes_cxcywh)


@pytest.mark.parametrize("values", KINDS, ids=name_of)
def test_boxes_when_padding_words_are_added_or_changed_then_they_stay(build, pixels, values):
    model = build(**values)
    expected = run(model, pixels)
    changed = torch.where(VALID, IDS, 8)
    close(run(model, pixels, changed), expected)
    close(run(model, pixels, F.pad(changed, (0, 5), value=11), F.pad(VALID, (0, 5))), expected)


@pytest.mark.parametrize("values", KINDS, ids=name_of)
def test_boxes_when_what_stands_in_padding_tokens_changes_then_they_stay(build, pixels, values):
    model = build(**values)
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT)
        assert not scene.valid.all()
        other = tuple(torch.where(scene.valid[..., None], f, 30.0) for f in scene.features)
        other = SmcimScene(other, scene.valid).pick(IMAGE_INDEX)
        expected = model.ground(scene.pick(IMAGE_INDEX), IDS, VALID, attend=True)
        got = model.ground(other, IDS, VALID, attend=True)
        close(got.boxes_cxcywh, expected.boxes_cxcywh)
        close(got.cls_attention, expected.cls_attention)
        all_real = SmcimScene(other.features, torch.ones_like(other.valid))
        moved = (model.ground(all_real, IDS, VALID).boxes_cxcywh - expected.boxes_cxcywh).abs().amax(1)
    assert moved[1] > 1e-3
    close(moved[[0, 2]], torch.zeros(2))


WHOLE = {"text_layers": 3, "text_features": (1, 2, 3), "vocab_size": 13, "image_size": 64}


@pytest.fixture(scope="module")
def on_real_encoder():
    """``smcim-tiny`` and ``smcim-r50`` at 64 pixels with their own image encoders and few layers of words."""

    @cache
    def make(name, **values):
        torch.manual_seed(0)
        return SmcimModel(preset(name, **WHOLE, **values)).eval()

    return make


def bordered(pixels, content, fill):
    """The pictures with another colour around them."""
    low, high = (content * pixels.shape[-1]).round().long().split(2, 1)
    cells = torch.arange(pixels.shape[-1])
    x, y = ((cells >= low[:, i, None]) & (cells < high[:, i, None]) for i in (0, 1))
    return torch.where((y[:, :, None] & x[:, None])[:, None], pixels, fill)


# a wide picture, a tall one, a full one
SHAPES = torch.tensor([[0.0, 13 / 64, 1.0, 50 / 64], [0.25, 0.0, 0.75, 1.0], [0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("name", "values"), [("smcim-tiny", {}), ("smcim-tiny", KINDS[1]), ("smcim-tiny", {"projection": "conv1x1"}),
                         ("smcim-r50", {})], ids=str,
)  # fmt: skip
@torch.no_grad()
def test_boxes_when_padding_pixels_are_black_or_white_then_they_stay(on_real_encoder, name, values):
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    index, moved = torch.tensor([0, 1, 2]), []
    for model in (on_real_encoder(name, **values), on_real_encoder(name, **values, mask_padding=False)):
        black, white = (
            model(bordered(pixels, SHAPES, fill), SHAPES, index, IDS, VALID).boxes_cxcywh for fill in (0.0, 1.0)
        )
        moved.append((black - white).abs().amax(1))
    assert (moved[0] == 0).all()  # at most 1e-4 is asked
    assert (moved[1][:2] > 1e-3).all()
    assert moved[1][2] == 0


@torch.no_grad()
def test_boxes_when_wide_and_tall_pictures_share_a_batch_then_as_one_by_one(on_real_encoder):
    model = on_real_encoder("smcim-tiny")
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    together = model(pixels, SHAPES, torch.tensor([0, 1, 2]), IDS, VALID).boxes_cxcywh
    for row in range(3):
        one = slice(row, row + 1)
        alone = model(pixels[one], SHAPES[one], torch.tensor([0]), IDS[one], VALID[one]).boxes_cxcywh
        close(together[one], alone)


def test_load_when_a_checkpoint_knows_no_mask_padding_then_names_fit_and_it_is_on(on_real_encoder):
    model = on_real_encoder("smcim-tiny")
    told = config_to_dict(model.config)
    del told["mask_padding"]
    assert config_from_dict(told) == model.config
    assert not [name for name in model.state_dict() if "pools" in name]


@pytest.mark.parametrize("values", KINDS, ids=name_of)
def test_boxes_when_the_phrase_or_the_image_is_another_then_they_move(build, pixels, values):
    model = build(**values)
    boxes = run(model, pixels)
    assert (boxes[0] - boxes[2]).abs().max() > 1e-3
    assert (run(model, pixels.flip(-1)) - boxes).abs().amax(1).min() > 1e-5


def test_boxes_when_positions_are_off_then_only_the_set_of_pixels_counts(build, pixels):
    for kind in ("none", "sine", "learned"):
        model = build(position=kind)
        with torch.no_grad():
            scene = model.encode_image(pixels[:1], CONTENT[:1])
            order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
            permuted = SmcimScene(tuple(f[:, order] for f in scene.features), scene.valid)
            one, two = (model.ground(s, IDS[:1], VALID[:1]).boxes_cxcywh for s in (scene, permuted))
        assert torch.allclose(one, two, atol=1e-5) is (kind == "none")


def test_ground_when_image_is_encoded_once_then_the_same_as_all_at_once(build, pixels):
    model = build()
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT)
        close(model.ground(scene.pick(IMAGE_INDEX), IDS, VALID).boxes_cxcywh, run(model, pixels), 1e-6)
    assert [tuple(feature.shape) for feature in scene.features] == [(2, 16, 8)] * 3
    assert torch.equal(scene.valid, cells_inside(CONTENT, 4))


def test_forward_when_autocast_to_bfloat16_then_near_float32_and_float32_comes_out(build, pixels):
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
        seen = model.attention(model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX), IDS, VALID)["box"]
    assert output.boxes_cxcywh.dtype == seen.dtype == torch.float32
    close(output.boxes_cxcywh, run(model, pixels), 0.05)
    close(seen.sum((-1, -2)), torch.ones(3))


def test_train_when_layers_are_computed_again_then_the_same_gradients(build, pixels):
    found = []
    for checkpointing in (False, True):
        model = build().train()
        model.interaction.checkpointing = checkpointing
        model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID).boxes_cxcywh.sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        close(found[0][name], found[1][name], 1e-6)


# parts


def test_visual_features_when_read_from_the_maps_then_stages_side_by_side_at_stride_16():
    """1x1 convolutions that copy: means of 2x2 cells, the cells as they are, and bilinear growth."""
    config = replace(preset("smcim-tiny"), group_dim=4, group_heads=1, merge_heads=1, projection="conv1x1")
    part = VisualFeatures(config, (4, 4, 4))
    with torch.no_grad():
        for conv in part.project:
            conv.weight.copy_(torch.eye(4)[..., None, None])
            conv.bias.zero_()
        ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 4, 4, 4)
        coarse = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2).expand(1, 4, 1, 2)
        got = part(ThreeScales(ramp, ramp[:, :, :2, :2] + 10, coarse[:, :, :, :1] + 7))
    assert got.shape == (1, 4, 12)
    assert got[0, :, 0].tolist() == [0.5, 2.5, 0.5, 2.5]
    assert got[0, :, 4].tolist() == [10, 11, 10, 11]
    assert got[0, :, 8].tolist() == [7, 7, 7, 7]


def test_visual_features_when_stage_5_grows_then_bilinearly():
    config = replace(preset("smcim-tiny"), group_dim=4, group_heads=1, merge_heads=1, projection="conv1x1")
    part = VisualFeatures(config, (4, 4, 4))
    with torch.no_grad():
        part.project[2].weight.copy_(torch.eye(4)[..., None, None])
        part.project[2].bias.zero_()
        deep = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).expand(1, 4, 2, 2)
        got = part(ThreeScales(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 4, 4), deep))
    assert got[0, :, 8].tolist() == [0, 1, 3, 4, 2, 3, 5, 6, 6, 7, 9, 10, 8, 9, 11, 12]


def test_ground_when_computed_plainly_then_each_grain_meets_its_group_and_all_of_them_merge(build, pixels):
    """SMCIM section III-B2, Fig. 3, written out: F_v^0 and grain i of the words in group i, all merged, then [CLS]."""
    model = build(group_blocks=2, merge_blocks=2, mask_padding=False)
    parts = model.interaction
    content, ids, valid = CONTENT[1:], IDS[:1], VALID[:1]
    with torch.no_grad():
        scene = model.encode_image(pixels[1:], content)
        first = model.image.features(model.encoder(pixels[1:]))
        grains = model.text(ids, valid)
        first = first + sine_position(4, 24, first)
        visuals, textuals = [], []
        for i in range(3):
            into, words_into = model.image.to_groups[i], parts.textual_in[i]
            visual = F.linear(first, into.weight, into.bias)
            textual = F.linear(grains[i], words_into.weight, words_into.bias)
            for layer in parts.groups[i]:
                visual, textual = layer(visual, textual, scene.valid, valid, sine_position(4, 8, visual))
            visuals.append(visual)
            textuals.append(textual)
        visual, textual = torch.cat(visuals, 2), torch.cat(textuals, 2)
        for layer in parts.merge:
            visual, textual = layer(visual, textual, scene.valid, valid, sine_position(4, 24, visual))
        hidden = textual[:, 0]
        for layer in (model.head[0], model.head[2]):
            hidden = F.linear(hidden, layer.weight, layer.bias).clamp(min=0)
        box = 1 / (1 + torch.exp(-F.linear(hidden, model.head[4].weight, model.head[4].bias)))
        close(model.ground(scene, ids, valid).boxes_cxcywh, box, 1e-6)


@pytest.mark.parametrize(("at", "tokens", "attention"), [("both", 1, 1), ("tokens", 1, 0), ("attention", 0, 1)])
def test_position_when_placed_then_sines_of_the_width_where_it_says(build, at, tokens, attention):
    position = build(position_at=at).position
    found = position.of_tokens(torch.zeros(2, 16, 24))
    close(found, tokens * sine_position(4, 24, found).expand(2, -1, -1))
    found = position.of_attention(torch.zeros(2, 16, 8))
    assert (found is not None) is bool(attention)
    if found is not None:
        close(found, sine_position(4, 8, found))


def test_position_when_learned_then_one_row_a_cell_on_the_canvas_it_was_made_for(build, pixels):
    model = build(position="learned")
    assert model.position.table.weight.shape == (16, 24)
    close(model.position.of_attention(torch.zeros(1, 16, 8)), model.position.table.weight[:, :8])
    with pytest.raises(ValueError, match=r"expected a canvas of 64 pixels a side.*got 32"):
        model.encode_image(pixels[:, :, :32, :32], CONTENT)
    assert build().encode_image(pixels[:, :, :32, :32], CONTENT).valid.shape == (2, 4)


@pytest.mark.parametrize("shape", [(48, 64), (60, 60), (64, 32)])
def test_encode_image_when_the_canvas_cannot_be_then_one_sentence(build, shape):
    with pytest.raises(ValueError, match=r"expected a square canvas of a multiple of 32, got \("):
        build().encode_image(torch.zeros(1, 3, *shape), CONTENT[:1])


# answers


def test_share_inside_when_worked_by_hand_then_cells_count_by_their_area():
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]])  # 2 x 2 cells
    boxes = {
        (0.0, 0.0, 1.0, 1.0): 1.0,
        (0.5, 0.0, 1.0, 1.0): 0.6,
        (0.25, 0.0, 1.0, 0.5): 0.05 + 0.2,
        (0.25, 0.25, 0.75, 0.75): 0.25,
        (0.5, 0.75, 1.0, 1.0): 0.2,
        (0.3, 0.3, 0.3, 0.9): 0.0,
    }
    for box, expected in boxes.items():
        close(share_inside(weights, torch.tensor([box])), torch.tensor([expected]), 1e-6)


def test_answer_when_asked_then_clipped_box_and_share_of_attention(build, pixels, monkeypatch):
    model = build()
    seen = torch.zeros(3, 16)
    seen[:, [0, 5]] = torch.tensor([0.75, 0.25])  # the first cell, and the second of the second row
    boxes = torch.tensor([[0.0, 0.125, 0.5, 0.25], [0.5, 0.5, 1.0, 1.0], [0.875, 0.875, 0.1, 0.1]])
    monkeypatch.setattr(model, "ground", lambda *inputs, attend: SmcimOutput(boxes, None, seen if attend else None))
    answer = model.answer(model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX), IDS, VALID)
    close(answer.boxes, torch.tensor([[0, 0, 0.25, 0.25], [0, 0, 1, 1], [0.825, 0.825, 0.925, 0.925]]), 1e-6)
    assert answer.mask_probability is None
    close(answer.confidence, torch.tensor([0.75, 1.0, 0.0]), 1e-6)
    close(answer.signs, torch.tensor([[math.log(3)], [math.log(9999)], [-math.log(9999)]]), 1e-3)
    assert answer.signs.shape[1] + 1 == len(model.score_weights)


@pytest.mark.parametrize("values", KINDS, ids=name_of)
def test_attention_when_drawn_then_maps_of_sum_1_and_nothing_on_padding(build, pixels, values):
    model = build(**values)
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        maps, words = model.attention(scene, IDS, VALID), model.word_attention(scene, IDS, VALID)
        output = model.ground(scene, IDS, VALID, attend=True)
    assert set(maps) == {"box"}
    close(maps["box"].flatten(1), output.cls_attention)
    close(maps["box"].sum((-1, -2)), torch.ones(3))
    assert torch.equal(maps["box"].flatten(1) > 0, scene.valid)
    close(words.sum(-1), torch.ones(3))
    assert torch.equal(words > 0, VALID)
    close(output.boxes_cxcywh, run(model, pixels))


def test_attention_when_one_pixel_draws_all_then_the_last_block_is_what_is_shown(build, pixels):
    model = build(position="none")
    last = model.interaction.merge[-1].textual.attention
    with torch.no_grad():
        last.query.weight.zero_()
        scene = model.encode_image(pixels[:1], CONTENT[:1])
        close(model.attention(scene, IDS[:1], VALID[:1])["box"], torch.full((1, 4, 4), 1 / 16))
        last.query.bias.normal_(std=30)
        assert model.attention(scene, IDS[:1], VALID[:1])["box"].max() > 0.1


@pytest.mark.parametrize("values", KINDS, ids=name_of)
def test_attention_when_two_blocks_merge_then_of_what_the_last_one_was_given(build, pixels, values):
    model = build(**values, merge_blocks=2)
    steps = []

    def keep(layer, inputs, outputs):
        visual, textual, pixel_valid, token_valid, position = inputs
        steps.append(LastStep(visual, textual, outputs[0], pixel_valid, token_valid, position))

    model.interaction.merge[1].register_forward_hook(keep)
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        boxes, words = model.attention(scene, IDS, VALID)["box"], model.word_attention(scene, IDS, VALID)
        close(boxes.flatten(1), model.interaction.last.pixels_seen(steps[0]))
        close(words, model.interaction.last.words_seen(steps[1]))


# parameters and preprocessing


def test_parameters_when_grouped_then_encoders_and_what_is_frozen(build):
    model = build()
    names = {id(p): name for name, p in model.named_parameters()}
    parts = model.pretrained_parameters()
    assert {names[id(p)] for p in parts["image"]} == {n for n in names.values() if n.startswith("encoder.")}
    assert {names[id(p)] for p in parts["text"]} == {n for n in names.values() if n.startswith("text.")}
    frozen = {names[id(p)] for p in model.frozen_parameters(image_pretrained=True)}
    assert frozen == {"encoder.stem.weight", "encoder.stem.bias"}
    assert model.frozen_parameters(image_pretrained=False) == []


def test_preprocessing_when_asked_then_the_encoders_and_the_configurations(build):
    found = build(resize="squash", fill=90).preprocessing()
    assert found["resize"].startswith("squash")
    assert (found["largest_size"], found["fill"]) == (64, 90)
    assert (found["mean"], found["std"]) == ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    assert build().preprocessing()["resize"].startswith("letterbox")


def test_model_when_fresh_then_biases_are_zero_and_weights_even(build):
    model = build(dropout=0.1)
    for part in (model.image, model.interaction, model.head):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                assert not layer.bias.any()
                size = layer.weight[0, 0].numel()
                bound = math.sqrt(6 / (size * (layer.weight.shape[0] + layer.weight.shape[1])))
                assert 0.5 * bound < layer.weight.abs().max() <= bound


def test_smcim_tiny_when_counted_then_pinned_so_that_stored_checkpoints_load():
    model, operations = on_meta(preset("smcim-tiny"))
    assert count(model) == 35_898_004
    assert operations == pytest.approx(4.25e9, rel=0.01)
