import math

import pytest
import torch

from deixis.config import preset
from deixis.models import deixis
from deixis.models.decoding import Decoded, decode
from deixis.models.deixis import DeixisModel, SceneFeatures, cell_centres, grid_positions, pool_tokens

IDS = torch.tensor([[2, 4, 6, 3], [2, 7, 3, 0], [2, 5, 9, 3]])
VALID = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
IMAGE_INDEX = torch.tensor([0, 1, 0])
CONTENT = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 1.0, 0.75]])
FIELDS = ("heat_logits", "boxes", "mask_logits", "exists_logit", "mask_energy", "mask_features", "box_features")


@pytest.fixture(params=["minilm", "glove-gru"])
def model(request, small_image_encoder, small_fields):
    torch.manual_seed(0)
    name = {"minilm": "deixis-tiny", "glove-gru": "deixis-tiny-glove"}[request.param]
    return DeixisModel(preset(name, **{**small_fields, "vocab_size": 13})).eval()


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def assert_outputs_close(a, b, tolerance):
    for field in FIELDS:
        torch.testing.assert_close(getattr(a, field), getattr(b, field), atol=tolerance, rtol=tolerance, msg=field)


def rows(output, index):
    return type(output)(*(getattr(output, field)[index] for field in FIELDS))


def test_forward_when_run_then_shapes_as_declared(model, pixels):
    with torch.no_grad():
        output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
    shapes = {field: tuple(getattr(output, field).shape) for field in FIELDS}
    assert shapes == {
        "heat_logits": (3, 16), "boxes": (3, 16, 4), "mask_logits": (3, 16, 16), "exists_logit": (3,),
        "mask_energy": (3, 16), "mask_features": (3, 16, 8), "box_features": (3, 16, 8),
    }  # fmt: skip
    assert (output.boxes[..., :2] < output.boxes[..., 2:]).all()


def test_forward_when_batched_then_equals_one_by_one(model, pixels):
    with torch.no_grad():
        together = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
        for p, image in enumerate(IMAGE_INDEX.tolist()):
            length = int(VALID[p].sum())
            alone = model(
                pixels[image : image + 1], CONTENT[image : image + 1], torch.zeros(1, dtype=torch.long),
                IDS[p : p + 1, :length], VALID[p : p + 1, :length],
            )  # fmt: skip
            assert_outputs_close(rows(together, slice(p, p + 1)), alone, 1e-4)


def test_ground_when_image_is_encoded_once_then_the_same_as_all_at_once(model, pixels):
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT)
        assert_outputs_close(
            model.ground(scene.pick(IMAGE_INDEX), IDS, VALID), model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID), 1e-5
        )


def test_ground_when_another_phrase_then_every_output_differs(model, pixels):
    with torch.no_grad():
        scene = model.encode_image(pixels[:1], CONTENT[:1]).pick(torch.zeros(2, dtype=torch.long))
        output = model.ground(scene, torch.tensor([[2, 4, 6, 3], [2, 5, 9, 3]]), torch.ones(2, 4, dtype=torch.bool))
    for field in FIELDS:
        first, second = getattr(output, field)
        assert not torch.allclose(first, second, atol=1e-7), field


def test_ground_when_padding_words_change_then_nothing_changes(model, pixels):
    changed = torch.where(VALID, IDS, 8)
    wider = torch.nn.functional.pad(changed, (0, 2), value=11)
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        expected = model.ground(scene, IDS, VALID)
        assert_outputs_close(model.ground(scene, changed, VALID), expected, 1e-5)
        assert_outputs_close(model.ground(scene, wider, torch.nn.functional.pad(VALID, (0, 2))), expected, 1e-5)


def test_heat_when_cells_are_padding_then_minus_infinity_there_alone(model, pixels):
    with torch.no_grad():
        output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
    lies_inside = grid_positions(CONTENT, 4)[1][IMAGE_INDEX]
    for maps in (output.heat_logits, output.mask_energy):
        assert torch.equal(torch.isfinite(maps), lies_inside)


def test_answer_when_asked_then_the_decoded_boxes_and_the_masks_probabilities(model, pixels):
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        answer, output = model.answer(scene, IDS, VALID), model.ground(scene, IDS, VALID)
    decoded = decode(output)
    assert torch.equal(answer.boxes, decoded.boxes)
    assert torch.equal(answer.confidence, decoded.consensus)
    assert torch.equal(answer.mask_probability, output.mask_logits.sigmoid())
    assert torch.equal(answer.signs[:, 0], output.exists_logit)


@pytest.mark.parametrize(
    ("peak", "consensus", "expected"),
    [(0.5, 0.75, (0.0, math.log(3))), (1.0, 1.0, (math.log(9999),) * 2), (0.0, 0.0, (-math.log(9999),) * 2)],
)
def test_answer_signs_when_by_hand_then_existence_and_log_odds(model, pixels, monkeypatch, peak, consensus, expected):
    found = Decoded(boxes=torch.zeros(3, 4), peak=torch.full((3,), peak), consensus=torch.full((3,), consensus))
    monkeypatch.setattr(deixis, "decode", lambda output: found)
    with torch.no_grad():
        model.exists[-1].weight.zero_()
        for bias, existence in ((1.5, 1.5), (1e9, 12.0), (-1e9, -12.0)):
            model.exists[-1].bias.fill_(bias)
            signs = model.answer(model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX), IDS, VALID).signs
            torch.testing.assert_close(signs, torch.tensor([[existence, *expected]] * 3), atol=1e-3, rtol=0)


def test_frozen_when_pretrained_then_early_filters_too_and_pretrained_parts_are_the_encoders(model):
    names = {id(p): name for name, p in model.named_parameters()}

    def named(parameters):
        return {names[id(p)] for p in parameters}

    early = {name for name in names.values() if name.startswith("image.encoder.stem.")}
    assert early
    assert (
        named(model.frozen_parameters(image_pretrained=True)) - named(model.frozen_parameters(image_pretrained=False))
        == early
    )
    assert all(name.startswith("text.") for name in named(model.frozen_parameters(image_pretrained=False)))
    parts = model.pretrained_parameters()
    assert named(parts["image"]) == {name for name in names.values() if name.startswith("image.encoder.")}
    assert named(parts["text"]) == {name for name in names.values() if name.startswith("text.bert.")}


def test_every_trainable_parameter_when_trained_then_gets_a_gradient(model, pixels):
    model.train()
    output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (torch.randn(value.shape, generator=generator) * value.masked_fill(value.isinf(), 0)).sum()
        for value in (getattr(output, field) for field in FIELDS)
    )
    total.backward()
    # moving all keys by the same amount changes no softmax, so their biases have no gradient but rounding
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert {name for name in without if not name.endswith("key.bias")} == set()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_parameters_when_counted_then_as_worked_out(model):
    def linear(a, b):
        return a * b + b

    def block(dim):  # attention, feed-forward of twice the width, two norms
        return 4 * linear(dim, dim) + linear(dim, 2 * dim) + linear(2 * dim, dim) + 4 * dim

    def count(module):
        return sum(p.numel() for p in module.parameters())

    context, group, merged, text = 16, 8, 24, 12
    fusion = 3 * (linear(text, group) + 2 * block(group)) + 2 * 2 * block(merged) + block(merged)
    fusion += 2 * linear(merged, 2 * merged)  # gain and shift before each merging layer
    assert count(model.fusion) == fusion
    assert count(model.image.to_groups) == linear(context, merged)
    # raw pixels in patches of 4 x 4, then 4 x 4 of these
    assert count(model.image.patches) == linear(3 * 4 * 4, 64) + linear(64 * 4 * 4, context)
    box = linear(9 * merged, merged // 3) + linear(merged // 3, 1) + linear(merged, merged) + linear(merged, 4)
    assert count(model.box) == box
    thin, wide = 4, 8
    mask = 2 * linear(merged, wide) + linear(wide, 1) + 2 * linear(9 * wide, wide) + linear(wide, thin)
    assert count(model.mask) == mask + linear(9 * thin, thin) + linear(thin, 1)
    assert count(model.exists) == linear(2 * merged, merged) + linear(merged, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("deixis-tiny", 36_896_150), ("deixis-tiny-lite0", 30_510_376), ("deixis-tiny-glove", 15_326_166)],
)
def test_presets_when_counted_then_pinned_so_that_stored_checkpoints_load(name, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in DeixisModel(preset(name)).parameters()) == expected


def test_pick_when_rows_repeat_then_each_field_follows():
    scene = SceneFeatures(*(torch.arange(3)[:, None] + 10 * k for k in range(5)))
    picked = scene.pick(torch.tensor([2, 0, 2]))
    for k, field in enumerate(("tokens", "position", "pixel_valid", "stride8", "stride4")):
        assert getattr(picked, field).flatten().tolist() == [10 * k + 2, 10 * k, 10 * k + 2]


def test_cell_centres_when_2_by_2_then_rows_first():
    centres = cell_centres(2, torch.zeros(1))
    assert centres.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_grid_positions_when_picture_fills_the_upper_half_then_fractions_of_it():
    xy, valid = grid_positions(torch.tensor([[0.0, 0.0, 1.0, 0.5]]), 2)
    assert xy[0].tolist() == [[0.25, 0.5], [0.75, 0.5], [0.25, 1.0], [0.75, 1.0]]
    assert valid[0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("middle", [0.001, 0.25, 0.5, 0.501, 0.999])
def test_grid_positions_when_picture_is_a_thin_strip_then_some_cell_is_valid(middle):
    content = torch.tensor([[0.0, middle - 1e-3, 1.0, middle + 1e-3]]).clamp(0, 1)
    xy, valid = grid_positions(content, 4)
    assert valid.any()
    assert ((xy >= 0) & (xy <= 1)).all()


def test_pool_tokens_when_some_cells_are_padding_then_mean_of_the_real_ones():
    tokens = torch.arange(16.0)[None, :, None]
    valid = torch.ones(1, 16, dtype=torch.bool)
    valid[0, [0, 1, 4, 10, 11, 14, 15]] = False
    pooled, pooled_valid = pool_tokens(tokens, valid)
    # the corner keeps cell 5 alone; 2, 3, 6, 7 -> 4.5; 8, 9, 12, 13 -> 10.5; the last has no real cell
    assert pooled[0, :3, 0].tolist() == [5.0, 4.5, 10.5]
    assert pooled_valid[0].tolist() == [True, True, True, False]
