import dataclasses
import math

import pytest
import torch

from deixis.config import preset
from deixis.models.deixis import model as deixis
from deixis.models.deixis.model import (
    Decoded,
    DeixisModel,
    EncodedImage,
    Output,
    decode,
    masked_mean,
    places_in,
    places_of,
    refined,
    spread,
)

IDS = torch.tensor([[2, 4, 6, 3], [2, 7, 3, 0], [2, 5, 9, 3]])
VALID = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
IMAGE_INDEX = torch.tensor([0, 1, 0])
CONTENT = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 1.0, 0.75]])
FIELDS = tuple(field.name for field in dataclasses.fields(Output))
TOKENS = 12 + 3 * 3


@pytest.fixture(params=["minilm", "glove-gru"])
def model(request, small_image_encoder, small_fields):
    torch.manual_seed(0)
    name = {"minilm": "deixis-tiny", "glove-gru": "deixis-tiny-glove"}[request.param]
    made = DeixisModel(preset(name, **{**small_fields, "vocab_size": 13})).eval()
    for linear in (*made.fusion.modulate, made.box.refine[2]):  # an untrained model has zeros here
        torch.nn.init.normal_(linear.weight, std=0.1)
    return made


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def assert_outputs_close(a, b, tolerance):
    """Values of tokens that are no proposals are of no account."""
    valid = torch.isfinite(a.choice_logits)
    assert torch.equal(valid, torch.isfinite(b.choice_logits))
    for field in FIELDS:
        one, two = getattr(a, field), getattr(b, field)
        if field in ("boxes", "tokens"):
            one, two = one[valid], two[valid]
        torch.testing.assert_close(one, two, atol=tolerance, rtol=tolerance, msg=field)


def rows(output, index):
    return Output(*(getattr(output, field)[index] for field in FIELDS))


def test_forward_when_run_then_shapes_as_declared(model, pixels):
    with torch.no_grad():
        output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
        scene = model.encode_image(pixels, CONTENT)
        masks = model.masks(output, torch.tensor([0, 1, 20]), scene.pick(IMAGE_INDEX))
    assert {field: tuple(getattr(output, field).shape) for field in FIELDS} == {
        "choice_logits": (3, TOKENS), "boxes": (3, TOKENS, 4), "proposals": (3, TOKENS, 4), "scores": (3, TOKENS),
        "exists_logit": (3,), "tokens": (3, TOKENS, 24),
    }  # fmt: skip
    assert {name: tuple(value.shape) for name, value in vars(scene).items()} == {
        "tokens": (2, TOKENS, 24), "where": (2, TOKENS, 24), "proposals": (2, TOKENS, 4), "scores": (2, TOKENS),
        "valid": (2, TOKENS), "prototypes": (2, 8, 16, 16),
    }  # fmt: skip
    assert (masks.shape, masks.dtype) == ((3, 16, 16), torch.float32)


@pytest.mark.parametrize("side", [32, 96])
def test_forward_when_the_canvas_is_another_then_all_works(small_image_encoder, small_fields, side):
    fields = {**small_fields, "vocab_size": 13, "image_size": side}
    model = DeixisModel(preset("deixis-tiny-glove", **fields)).eval()
    with torch.no_grad():
        answer = model.answer(model.encode_image(torch.rand(3, 3, side, side), CONTENT[[0, 1, 0]]), IDS, VALID)
    assert answer.mask_probability.shape == (3, side // 4, side // 4)
    assert torch.isfinite(answer.signs).all()


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


def test_ground_when_another_phrase_then_choice_boxes_existence_and_masks_differ(model, pixels):
    with torch.no_grad():
        scene = model.encode_image(pixels[:1], CONTENT[:1]).pick(torch.zeros(2, dtype=torch.long))
        output = model.ground(scene, torch.tensor([[2, 4, 6, 3], [2, 5, 9, 3]]), torch.ones(2, 4, dtype=torch.bool))
        masks = model.masks(output, torch.tensor([3, 3]), scene)
    for values in (output.choice_logits, output.boxes, output.exists_logit, output.tokens, masks):
        assert not torch.allclose(values[0], values[1], atol=1e-7)
    assert torch.equal(output.proposals[0], output.proposals[1])


def test_ground_when_padding_words_change_then_nothing_changes(model, pixels):
    changed = torch.where(VALID, IDS, 8)
    wider = torch.nn.functional.pad(changed, (0, 2), value=11)
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        expected = model.ground(scene, IDS, VALID)
        assert_outputs_close(model.ground(scene, changed, VALID), expected, 1e-5)
        assert_outputs_close(model.ground(scene, wider, torch.nn.functional.pad(VALID, (0, 2))), expected, 1e-5)


def test_choice_when_tokens_are_no_proposals_then_minus_infinity_there_alone_and_they_change_nothing(model, pixels):
    with torch.no_grad():
        strip = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.49, 1.0, 0.51]])
        pyramid, seen, proposals = model.image.see(pixels, strip)
        assert proposals.valid.sum(1).tolist()[0] == TOKENS > proposals.valid.sum(1).tolist()[1]
        prototypes = model.image.prototypes(pyramid, seen.maps[0])
        scene = model.image.encoded(proposals, prototypes).pick(IMAGE_INDEX)
        output = model.ground(scene, IDS, VALID)
        assert torch.equal(torch.isfinite(output.choice_logits), proposals.valid[IMAGE_INDEX])
        noise = torch.where(proposals.valid[..., None], proposals.features, 9.0)
        other = model.image.encoded(dataclasses.replace(proposals, features=noise), prototypes).pick(IMAGE_INDEX)
        assert_outputs_close(model.ground(other, IDS, VALID), output, 1e-5)


def test_image_when_pixels_come_then_normalised_by_the_encoders_mean_and_deviation(model, pixels):
    got = []
    model.image.encoder.register_forward_pre_hook(lambda module, inputs: got.append(inputs[0]))
    with torch.no_grad():
        model.encode_image(pixels, CONTENT)
    torch.testing.assert_close(got[0], (pixels - 0.5) / 0.25)


# box and mask from the same token


def test_box_and_mask_when_one_token_changes_then_both_of_it_and_no_others_do(model, pixels):
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        output = model.ground(scene, IDS, VALID)
        tokens = output.tokens.clone()
        tokens[:, 2] += torch.randn(24, generator=torch.Generator().manual_seed(0))
        logits, boxes = model.box(tokens, scene)
        unmoved = [k for k in range(TOKENS) if k != 2]
        torch.testing.assert_close(boxes[:, unmoved], output.boxes[:, unmoved])
        torch.testing.assert_close(logits[:, unmoved], output.choice_logits[:, unmoved])
        assert not torch.allclose(boxes[:, 2], output.boxes[:, 2])
        changed = dataclasses.replace(output, tokens=tokens)
        for token, is_same in ((2, False), (5, True)):
            chosen = torch.full((3,), token)
            before, after = model.masks(output, chosen, scene), model.masks(changed, chosen, scene)
            assert torch.allclose(before, after) == is_same


def test_mask_when_worked_by_hand_then_three_convolutions_made_from_the_token(model):
    generator = torch.Generator().manual_seed(0)
    prototypes, token = torch.randn(1, 8, 4, 4, generator=generator), torch.randn(1, 24, generator=generator)
    box = torch.tensor([[0.2, 0.1, 0.7, 0.9]])
    with torch.no_grad():
        made = model.mask.filters(token)[0]
        found = model.mask(token, box, prototypes)
    x = torch.cat([prototypes, places_in(box, prototypes)], 1)[0, :, 1, 3]
    assert len(made) == 8 * 12 + 8 + 8 * 8 + 8 + 8 + 1
    x = (made[:96].view(8, 12) @ x + made[96:104]).relu()
    x = (made[104:168].view(8, 8) @ x + made[168:176]).relu()
    torch.testing.assert_close(found[0, 1, 3], made[176:184] @ x + made[184])


def test_masks_when_trained_then_no_gradient_moves_the_box(model, pixels):
    scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
    output = model.ground(scene, IDS, VALID)
    model.masks(output, torch.tensor([0, 0, 0]), scene).sum().backward()
    assert model.box.refine[2].weight.grad is None


def test_refined_when_nothing_changes_then_the_same_box():
    boxes = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0)).sort(-1).values[..., [0, 1, 2, 3]]
    torch.testing.assert_close(refined(boxes, torch.zeros_like(boxes)), boxes)


def test_refined_when_by_hand_then_moved_by_sizes_and_stretched_by_a_logarithm():
    box = torch.tensor([0.2, 0.4, 0.4, 0.8])
    change = torch.tensor([0.5, -0.25, math.log(2), math.log(0.5)])
    # centre (0.3, 0.6) moves to (0.4, 0.5); sizes 0.2 and 0.4 become 0.4 and 0.2
    torch.testing.assert_close(refined(box, change), torch.tensor([0.2, 0.4, 0.6, 0.6]))


def test_refined_when_a_logarithm_is_huge_then_at_most_e_to_the_third():
    found = refined(torch.tensor([0.4, 0.4, 0.6, 0.6]), torch.tensor([0.0, 0.0, 99.0, -99.0]))
    torch.testing.assert_close(found[2] - found[0], torch.tensor(0.2 * math.e**3))
    torch.testing.assert_close(found[3] - found[1], torch.tensor(0.2 * math.e**-3), atol=1e-6, rtol=0)


def test_box_when_untrained_then_the_proposals_themselves(small_image_encoder, small_fields, pixels):
    model = DeixisModel(preset("deixis-tiny-glove", **small_fields, vocab_size=13)).eval()
    with torch.no_grad():
        output = model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)
    wide = (output.proposals[..., 2:] - output.proposals[..., :2] > 1e-4).all(-1)
    assert wide.any()
    torch.testing.assert_close(output.boxes[wide], output.proposals[wide])


def test_places_in_when_by_hand_then_steps_from_the_middle_in_sizes_and_how_far_outside():
    box = torch.tensor([[0.25, 0.0, 0.75, 1.0]])
    found = places_in(box, torch.zeros(1, 7, 4, 4))  # places at 1/8, 3/8, 5/8, 7/8
    across, down, left_or_right, above_or_below = found[0]
    assert across[2].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert down[:, 1].tolist() == [-0.375, -0.125, 0.125, 0.375]
    assert left_or_right[0].tolist() == [0.5, 0, 0, 0.5]
    assert (above_or_below == 0).all()


def test_places_in_when_far_away_then_at_most_2_and_1():
    across, _, outside, _ = places_in(torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.zeros(1, 1, 2, 2))[0]
    assert (across == 2).all()
    assert (outside == 1).all()


def test_places_of_when_the_picture_is_a_band_then_fractions_of_it():
    found = places_of(torch.tensor([[[0.0, 0.25, 0.5, 0.5], [0.5, 0.0, 1.0, 1.0]]]), CONTENT[1:])
    torch.testing.assert_close(found, torch.tensor([[[0, 0, 0.5, 0.5, 0.5, 0.5], [0.5, 0, 1, 1, 0.5, 1]]]))


def test_masked_mean_when_some_are_padding_then_of_the_others():
    tokens = torch.tensor([[[1.0], [3.0], [100.0]], [[1.0], [1.0], [1.0]]])
    valid = torch.tensor([[True, True, False], [False] * 3])
    assert masked_mean(tokens, valid).flatten().tolist() == [2.0, 0.0]


# answers


def test_answer_when_asked_then_the_decoded_boxes_and_the_masks_of_the_same_tokens(model, pixels):
    with torch.no_grad():
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        answer, output = model.answer(scene, IDS, VALID), model.ground(scene, IDS, VALID)
        decoded = decode(output)
        masks = model.masks(output, decoded.token, scene).sigmoid()
    assert torch.equal(answer.boxes, decoded.boxes)
    assert torch.equal(answer.confidence, decoded.consensus)
    assert torch.equal(answer.mask_probability, masks)
    assert torch.equal(answer.signs[:, 0], output.exists_logit)
    assert answer.signs.shape == (3, len(model.score_weights) - 1)


@pytest.mark.parametrize(
    ("peak", "consensus", "expected"),
    [(0.5, 0.75, (0.0, math.log(3))), (1.0, 1.0, (math.log(9999),) * 2), (0.0, 0.0, (-math.log(9999),) * 2)],
)
def test_answer_signs_when_by_hand_then_existence_and_log_odds(model, pixels, monkeypatch, peak, consensus, expected):
    found = Decoded(
        token=torch.tensor([20, 0, 20]), boxes=torch.zeros(3, 4), peak=torch.full((3,), peak),
        consensus=torch.full((3,), consensus),
    )  # fmt: skip
    monkeypatch.setattr(deixis, "decode", lambda output: found)
    with torch.no_grad():
        model.exists[-1].weight.zero_()
        scene = model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX)
        score = scene.scores[1, 0].clamp(1e-4).logit().item()  # the second is a candidate, the others are cells
        for bias, existence in ((1.5, 1.5), (1e9, 12.0), (-1e9, -12.0)):
            model.exists[-1].bias.fill_(bias)
            signs = model.answer(scene, IDS, VALID).signs
            wanted = [[existence, *expected, one] for one in (-math.log(9999), score, -math.log(9999))]
            torch.testing.assert_close(signs, torch.tensor(wanted), atol=1e-3, rtol=0)


def output_with(proposals, probabilities):
    nothing = torch.zeros(0)
    logits = torch.tensor(probabilities).log()
    return Output(logits, nothing, torch.tensor(proposals, dtype=torch.float32), nothing, nothing, nothing)


def test_spread_when_by_hand_then_each_share_evenly_over_its_box():
    boxes = [[[0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 1.0, 1.0], [0.9, 0.9, 0.95, 0.95]]]
    found = spread(output_with(boxes, [[0.4, 0.4, 0.2]]), 4)
    # on 4 places, on 8, and on the one that the middle of the third, which covers none, lies in
    expected = torch.tensor([[0.1, 0.1, 0, 0]] * 2 + [[0.05] * 4, [0.05, 0.05, 0.05, 0.25]])
    torch.testing.assert_close(found, expected[None])


def test_spread_when_a_picture_is_thinner_than_a_place_then_its_sum_is_1_all_the_same():
    found = spread(output_with([[[0.499, 0.0, 0.5, 0.5], [0.499, 0.5, 0.5, 1.0]]], [[0.25, 0.75]]), 4)
    expected = torch.zeros(1, 4, 4)
    expected[0, :, 1] = torch.tensor([0.125, 0.125, 0.375, 0.375])
    torch.testing.assert_close(found, expected)


def test_spread_when_of_a_model_then_sums_to_1_and_nothing_off_the_picture(model, pixels):
    with torch.no_grad():
        found = spread(model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID), 16)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(3))
    assert (found[1, :4] == 0).all()
    assert (found[1, 12:] == 0).all()


# parameters


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
    detector = ("image.encoder.", "image.neck.", "image.head.")
    assert named(parts["image"]) == {name for name in names.values() if name.startswith(detector)}
    assert named(parts["text"]) == {name for name in names.values() if name.startswith("text.bert.")}


def test_every_trainable_parameter_when_trained_then_gets_a_gradient(small_image_encoder, small_fields, pixels):
    fields = {**small_fields, "vocab_size": 13, "candidates": 85}  # so that every level of the detector is read
    torch.manual_seed(0)
    model = DeixisModel(preset("deixis-tiny-glove", **fields)).train()
    for linear in (model.box.refine[2], *model.fusion.modulate):
        torch.nn.init.normal_(linear.weight, std=0.1)
    pyramid, seen, proposals = model.image.see(pixels, CONTENT[[0, 0]])
    scene = model.image.encoded(proposals, model.image.prototypes(pyramid, seen.maps[0])).pick(IMAGE_INDEX)
    output = model.ground(scene, IDS, VALID)
    masks = model.masks(output, torch.tensor([0, 40, 90]), scene)
    generator = torch.Generator().manual_seed(0)
    values = (output.choice_logits, output.boxes, output.exists_logit, masks, seen.boxes, seen.thing_logits)
    total = sum((torch.randn(v.shape, generator=generator) * v.masked_fill(v.isinf(), 0)).sum() for v in values)
    total.backward()
    # moving all keys by the same amount changes no softmax, so their biases have no gradient but rounding
    frozen = {id(p) for p in model.frozen_parameters(image_pretrained=False)}
    without = {n for n, p in model.named_parameters() if id(p) not in frozen and (p.grad is None or not p.grad.any())}
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
    # each of two merging layers: words and tokens alternate, tokens among themselves, gain and shift
    fusion = 3 * (linear(text, group) + 2 * block(group)) + 2 * (3 * block(merged) + linear(merged, 2 * merged))
    assert count(model.fusion) == fusion
    assert count(model.image.context) == block(context)
    assert count(model.image.to_groups) == linear(context, merged)
    assert count(model.image.propose) == 0
    features = {"classes": 80, "thing": 1, "tower": 128, "levels": 3 * 128, "body8": 12, "colours": 3 * 64}
    width = sum(features.values())
    norms = 2 * (width - 1)  # a single number has none
    assert count(model.image.look) == norms + linear(width, 2 * context) + linear(2 * context, context) + 2 * context
    assert count(model.box) == 2 * linear(merged, merged) + linear(merged, 1) + linear(merged, 4)
    assert count(model.mask) == linear(merged, 8 * 12 + 8 + 8 * 8 + 8 + 8 + 1)
    thin, wide = 8, 16
    laterals = linear(12, wide) + linear(8, thin) + linear(128, wide)
    prototypes = laterals + linear(9 * wide, thin) + linear(9 * thin, thin) + linear(thin, thin)
    assert count(model.image.prototypes) == prototypes
    assert count(model.exists) == linear(2 * merged + 1, merged) + linear(merged, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("deixis-tiny", 29_836_699), ("deixis-tiny-lite0", 30_859_299), ("deixis-tiny-glove", 8_266_715)],
)
def test_presets_when_counted_then_pinned_so_that_stored_checkpoints_load(name, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in DeixisModel(preset(name)).parameters()) == expected


def test_pick_when_rows_repeat_then_each_field_follows():
    names = [field.name for field in dataclasses.fields(EncodedImage)]
    scene = EncodedImage(*(torch.arange(3)[:, None] + 10 * k for k in range(len(names))))
    picked = scene.pick(torch.tensor([2, 0, 2]))
    for k, field in enumerate(names):
        assert getattr(picked, field).flatten().tolist() == [10 * k + 2, 10 * k, 10 * k + 2]
