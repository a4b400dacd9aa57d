from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from deixis.config import preset
from deixis.models.encoders.darknet import BatchNorm, ConvNormLeaky, ThreeScales
from deixis.models.mcn.config import JOINT_STRUCTURES, STRUCTURES, McnConfig
from deixis.models.mcn.garan import Attended, Garan
from deixis.models.mcn.heads import AsppHead
from deixis.models.mcn.model import Branch, Fusion, McnModel, McnOutput, StepDown, StepUp

IDS = torch.tensor([[2, 4, 6], [5, 7, 0], [1, 3, 0]])
VALID = torch.tensor([[True] * 3, [True, True, False], [True, True, False]])
IMAGE_INDEX = torch.tensor([0, 1, 0])
CONTENT = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 1.0, 0.75]])
SMALL = {
    "fusion_dim": 12, "dim": 8, "aspp_dim": 4, "text_dim": 10, "word_dim": 5, "vocab_size": 9, "image_size": 64,
}  # fmt: skip
OUTPUTS = tuple(field.name for field in fields(McnOutput))


class SmallEncoder(nn.Module):
    """An encoder of a thousand parameters with the interface of the real ones."""

    channels = (6, 8, 10)
    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, stride=8)
        self.down = nn.ModuleList((ConvNormLeaky(6, 8, 3, stride=2), ConvNormLeaky(8, 10, 3, stride=2)))

    def forward(self, pixels):
        fine = self.stem(pixels)
        middle = self.down[0](fine)
        return ThreeScales(fine, middle, self.down[1](middle))

    def frozen_parameters(self):
        return [*self.stem.parameters(), *self.down[0].parameters()]


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setattr("deixis.models.mcn.model.build_mcn_encoder", lambda name: SmallEncoder())

    def make(structure="mcn", **values):
        torch.manual_seed(0)
        joint = structure in JOINT_STRUCTURES and values.get("garan", True)
        values.setdefault("cem", "expected" if joint else "off")
        return McnModel(preset("mcn-tiny", **{**SMALL, "structure": structure, **values}))

    return make


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def run(model, pixels):
    return model(pixels, CONTENT, IMAGE_INDEX, IDS, VALID)


def tensors(output):
    """What there is of it; F_att as all of its rows."""
    values = {name: getattr(output, name) for name in OUTPUTS if getattr(output, name) is not None}
    return {name: value.rows() if isinstance(value, Attended) else value for name, value in values.items()}


SIDES = {  # of the box branch and of the mask branch on a canvas of 64
    "mcn": (2, 8), "single-rec-13": (2, None), "single-rec-52": (8, None), "single-res-13": (None, 2),
    "single-res-52": (None, 8), "only-head-different-13": (2, 2), "only-head-different-52": (8, 8),
    "only-backbone-shared": (2, 8),
}  # fmt: skip

SWITCHES = [
    *({"structure": structure} for structure in STRUCTURES),
    {"text_attention": False}, {"garan": False}, {"garan": False, "structure": "only-backbone-shared"},
    {"garan": False, "structure": "single-res-13"}, {"cem": "literal"}, {"cem": "off"}, {"fusion": "paper"},
    {"top_down": "paper"}, {"garan_order": "paper"}, {"frozen_norm": "batch"}, {"mask_padding": False},
    {"train_words": True}, {"garan_heads": 1}, {"anchors_px": ((30, 40),)}, {"fusion_dim": 8}, {"fusion_dim": 10},
    {"fusion": "paper", "top_down": "paper", "garan_order": "paper", "dim": 9, "text_dim": 9, "garan_heads": 3},
]  # fmt: skip


def name_of(values):
    return "-".join(str(value) for value in values.values())


def expected_shapes(config):
    rec, res = SIDES[config.structure]
    energy = config.cem != "off"
    shapes = {
        "box_logits": (3, len(config.anchors_px), 5, rec, rec) if rec else None,
        "mask_logits": (3, res, res) if res else None,
        "rec_attended": (3, rec * rec, config.dim) if rec and config.garan else None,
        "res_attended": (3, res * res, config.dim) if res and config.garan else None,
        "rec_energy": (3, rec * rec) if rec and energy else None,
        "res_energy": (3, res * res) if res and energy else None,
    }
    return {name: shape for name, shape in shapes.items() if shape is not None}


def test_table_3_when_listed_here_then_whole():
    assert set(SIDES) == set(STRUCTURES)


@pytest.mark.parametrize("values", SWITCHES, ids=name_of)
def test_contract_when_trained_then_shapes_hold_and_every_parameter_learns(build, pixels, values):
    model = build(**values)
    for parameter in model.frozen_parameters(image_pretrained=True):
        parameter.requires_grad_(False)
    model.train()
    output = run(model, pixels)
    assert {name: tuple(value.shape) for name, value in tensors(output).items()} == expected_shapes(model.config)
    generator = torch.Generator().manual_seed(0)
    sum((torch.randn(value.shape, generator=generator) * value).sum() for value in tensors(output).values()).backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    without = {name for name, p in learning.items() if p.grad is None or not p.grad.any()}
    # moving all keys by the same amount changes no softmax, so its bias has no gradient but rounding
    assert {name for name in without if not name.endswith("collect_key.bias")} == set()
    assert all(torch.isfinite(p.grad).all() for p in learning.values() if p.grad is not None)
    assert any(name.startswith("encoder.down.1.") for name in learning)


@pytest.mark.parametrize("values", SWITCHES, ids=name_of)
def test_ground_when_another_phrase_then_every_output_differs(build, pixels, values):
    model = build(**values).eval()
    with torch.no_grad():
        scene = model.encode_image(pixels[:1], CONTENT[:1]).pick(torch.zeros(2, dtype=torch.long))
        output = model.ground(scene, IDS[:2, :2], VALID[:2, :2])
    for name, (first, second) in tensors(output).items():
        assert not torch.allclose(first, second, atol=1e-7), name


@pytest.mark.parametrize("structure", STRUCTURES)
def test_forward_when_batched_then_equals_one_by_one(build, pixels, structure):
    model = build(structure).eval()
    with torch.no_grad():
        together = tensors(run(model, pixels))
        for p, image in enumerate(IMAGE_INDEX.tolist()):
            length = int(VALID[p].sum())
            scene = model.encode_image(pixels[image : image + 1], CONTENT[image : image + 1])
            alone = tensors(model.ground(scene, IDS[p : p + 1, :length], VALID[p : p + 1, :length]))
            for name, value in alone.items():
                torch.testing.assert_close(value, together[name][p : p + 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [32, 96, 160])
def test_forward_when_the_canvas_is_another_multiple_of_32_then_maps_follow(build, side):
    with torch.no_grad():
        output = run(build().eval(), torch.rand(2, 3, side, side))
    assert output.box_logits.shape == (3, 3, 5, side // 32, side // 32)
    assert output.mask_logits.shape == (3, side // 8, side // 8)


def test_encode_image_when_the_canvas_is_no_multiple_of_32_then_one_sentence(build):
    with pytest.raises(ValueError, match=r"multiples of 32, got \(64, 80\)"):
        build().encode_image(torch.rand(1, 3, 64, 80), CONTENT[:1])


def test_forward_when_channels_last_then_the_same(build, pixels):
    model = build().eval()
    with torch.no_grad():
        plain = tensors(run(model, pixels))
        model.to(memory_format=torch.channels_last)
        last = tensors(run(model, pixels.contiguous(memory_format=torch.channels_last)))
    for name, value in plain.items():
        torch.testing.assert_close(last[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [32, 64])
def test_training_when_the_batch_holds_one_phrase_then_it_still_learns(build, side):
    model = build().train()
    output = model(torch.rand(1, 3, side, side), CONTENT[:1], IMAGE_INDEX[:1], IDS[:1], VALID[:1])
    sum(value.sum() for value in tensors(output).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert torch.isfinite(output.mask_logits).all()


def test_mcn_darknet53_when_at_416_then_the_widths_and_sides_of_the_official_network():
    with torch.device("meta"):
        model = McnModel(preset("mcn-darknet53", mask_padding=False)).eval()
        seen: dict[str, tuple[int, ...]] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: tuple(getattr(output, "shape", ()))})
            )
        scene = model.encode_image(torch.empty(1, 3, 416, 416), torch.empty(1, 4))
        model.ground(scene, torch.zeros(1, 15, dtype=torch.long), torch.ones(1, 15, dtype=torch.bool))
        assert seen["text"] == (1, 1024)
        assert seen["encoder.head"] == (1, 1024, 13, 13)
        assert seen["inference.res.fusion.image.0.reduce"] == (1, 512, 13, 13)
        assert seen["inference.res.fusion"] == (1, 1024, 13, 13)  # F_m1
        assert seen["inference.res.up16.lateral"] == (1, 512, 26, 26)
        assert seen["inference.res.up16"] == (1, 512, 26, 26)  # F_m2
        assert seen["inference.res.up8.lateral"] == (1, 256, 52, 52)
        assert seen["inference.res.up8"] == (1, 512, 52, 52)  # F_m3
        assert seen["inference.down16"] == (1, 1024, 26, 26)
        assert seen["inference.down32"] == (1, 1536, 13, 13)
        assert seen["inference.narrow"] == (1, 512, 13, 13)
        assert seen["box.conv"] == (1, 15, 13, 13)
        assert model.mask.conv.in_channels == 1280
        assert seen["mask"] == (1, 52, 52)


def cbl(a, b, kernel=1):
    """Numbers of a convolution without bias and its batch-norm."""
    return a * b * kernel * kernel + 2 * b


def garan(dim, query):
    return 3 * ((dim // 2) ** 2 + dim // 2) + (query // 2 * dim // 2 + dim // 2) + 2 * dim


def worked_out(encoder, channels, config):
    """Numbers of the whole of MCN in its official variant."""
    c8, c16, c32 = channels
    fused, dim, query, width = config.fusion_dim, config.dim, config.text_dim, config.aspp_dim
    text = config.vocab_size * config.word_dim + 6 * query * (config.word_dim + query + 2) + query * query + query
    fusion = (0 if c32 == fused else cbl(c32, fused)) + cbl(fused, fused // 2) + cbl(fused // 2, fused, 3)
    fusion += cbl(query, fused) + 2 * fused
    up = cbl(c16, min(c16, dim)) + cbl(fused + min(c16, dim), dim)
    up += cbl(c8, min(c8, dim)) + cbl(dim + min(c8, dim), dim)
    down = 2 * (cbl(dim, dim // 2) + cbl(dim // 2, dim, 3)) + cbl(2 * dim, dim) + cbl(dim + fused, dim)
    aspp = 2 * cbl(dim, width) + 3 * cbl(dim, width, 3) + 5 * width + 1
    return encoder + text + fusion + up + down + 2 * garan(dim, query) + 15 * dim + 15 + aspp + 2 * (dim + 1)


@pytest.mark.parametrize(
    ("name", "encoder", "channels", "expected"),
    [
        ("mcn-tiny", 7_737_744, (128, 256, 512), 10_465_058),
        ("mcn-darknet53", 56_322_784, (256, 512, 1024), 87_739_250),
        ("mcn-vgg16", 30_190_400, (512, 512, 1024), 61_935_058),
    ],
)
def test_presets_when_counted_then_as_worked_out(name, encoder, channels, expected):
    config = preset(name)
    assert isinstance(config, McnConfig)
    with torch.device("meta"):
        model = McnModel(config)
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.parameters()) == worked_out(encoder, channels, config) == expected


def test_fusion_when_as_printed_then_the_product_of_two_leaky_projections():
    """Eq. 1 with one channel: the image gives 3 * 2 = 6, the phrase leaky(-5) = -0.5; nothing follows the product."""
    config = McnConfig(fusion="paper", fusion_dim=1, text_dim=2)
    fusion = Fusion(config, channels=1)
    with torch.no_grad():
        fusion.image.conv.weight.fill_(2.0)
        fusion.phrase.conv.weight.copy_(torch.tensor([-5.0, 1.0]).view(1, 2, 1, 1))
        out = fusion(fusion.image_side(torch.full((1, 1, 1, 1), 3.0)), torch.tensor([[1.0, 0.0]]))
    assert out.item() == pytest.approx(-3.0)
    assert sum(p.numel() for p in fusion.parameters()) == 1 + 2


def fill(conv, *values):
    """Set the weights of a convolution; of a larger kernel those of its middle, the others are 0."""
    with torch.no_grad():
        conv.weight.zero_()
        middle = conv.weight.shape[-1] // 2
        conv.weight[:, :, middle, middle] = torch.tensor(values).view(conv.weight.shape[:2])


def test_fusion_when_official_then_the_product_is_normalised_before_the_last_leaky():
    """One cell (3, 1): reduced to 4, expanded to (2, leaky(-2) = -0.2), and itself added: (5, 0.8).

    The phrase 1 gives (2, leaky(-10) = -1), so the product is (10, -0.8). The norm takes off (4, 0.2) and divides by
    (2, 1): (3, -1), of which LeakyReLU makes (3, -0.1). In the other order it would be (3, -0.28).
    """
    fusion = Fusion(McnConfig(fusion_dim=2, text_dim=2), channels=2).eval()
    fill(fusion.image[0].reduce.conv, 1.0, 1.0)
    fill(fusion.image[0].expand.conv, 0.5, -0.5)
    fill(fusion.phrase.conv, 2.0, 0.0, -10.0, 0.0)
    fusion.norm.running_mean.copy_(torch.tensor([4.0, 0.2]))
    fusion.norm.running_var.copy_(torch.tensor([4.0, 1.0]))
    with torch.no_grad():
        out = fusion(fusion.image_side(torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)), torch.tensor([[1.0, 7.0]]))
    torch.testing.assert_close(out.flatten(), torch.tensor([3.0, -0.1]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_step_up_when_run_then_each_cell_of_the_coarse_map_covers_four(variant):
    torch.manual_seed(0)
    step = StepUp(McnConfig(top_down=variant, dim=2), coarse_channels=1, channels=1).eval()
    coarse = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    with torch.no_grad():
        out = step(coarse, step.image_side(torch.zeros(1, 1, 4, 4)))
    assert out.shape == (1, 2, 4, 4)
    for row in (0, 2):
        for column in (0, 2):
            block = out[..., row : row + 2, column : column + 2]
            assert torch.equal(block, block[..., :1, :1].expand_as(block))
    assert len(out[0, 0].unique()) == 4


def test_step_up_when_as_printed_then_two_projections_side_by_side():
    """Eq. 2: [leaky(F_m W_m), leaky(F_v W_v)], F_m = 2 by weight -1, F_v = 3 by weight 4."""
    step = StepUp(McnConfig(top_down="paper", dim=2), coarse_channels=1, channels=1)
    with torch.no_grad():
        step.coarse.conv.weight.fill_(-1.0)
        step.lateral.conv.weight.fill_(4.0)
        out = step(torch.full((1, 1, 1, 1), 2.0), step.image_side(torch.full((1, 1, 2, 2), 3.0)))
    torch.testing.assert_close(out[0, :, 1, 0], torch.tensor([-0.2, 12.0]))


def test_step_up_when_official_then_as_one_convolution_of_both_maps_side_by_side():
    torch.manual_seed(0)
    step = StepUp(McnConfig(dim=4), coarse_channels=3, channels=5).eval()
    coarse, visual = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 4, 4)
    with torch.no_grad():
        together = torch.cat([torch.nn.functional.interpolate(coarse, scale_factor=2.0), step.lateral(visual)], 1)
        torch.testing.assert_close(step(coarse, step.image_side(visual)), step.merge(together))


def test_coordinates_when_on_then_equal_cells_are_told_apart_by_their_place():
    fusion = Fusion(McnConfig(fusion="paper", fusion_dim=2, text_dim=2, coordinates=True), channels=1)
    fill(fusion.image.conv, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    with torch.no_grad():
        x, y = fusion.image_side(torch.ones(1, 1, 2, 3))[0]
    torch.testing.assert_close(x, torch.tensor([[-0.1, 0.0, 1.0], [-0.1, 0.0, 1.0]]))
    torch.testing.assert_close(y, torch.tensor([[-0.1, -0.1, -0.1], [1.0, 1.0, 1.0]]))


def test_step_down_when_worked_by_hand_then_the_mean_of_four_cells_beside_the_coarse_map():
    """Means of 2 x 2 cells are 1, 2, -3 and 4, their greatest values 4, 8, 0 and 16; 1x1 keeps the first channel.

    LeakyReLU makes -0.3 of -3, the 3x3 convolution's middle doubles, or turns the sign of, what it gets.
    """
    step = StepDown(McnConfig(dim=2), channels=2).eval()
    assert [type(layer) for layer in step.path] == [nn.AvgPool2d, ConvNormLeaky, ConvNormLeaky]
    fill(step.path[1].conv, 1.0, 0.0)
    fill(step.path[2].conv, 2.0, -1.0)
    fine = torch.tensor([[4.0, 0, 8, 0], [0, 0, 0, 0], [0, 0, 16, 0], [-12, 0, 0, 0]])
    coarse = torch.full((1, 1, 2, 2), 9.0)
    with torch.no_grad():
        out = step(torch.stack([fine, torch.full_like(fine, 100.0)])[None], coarse)
    expected = torch.tensor([[[2.0, 4], [-0.06, 8]], [[-0.1, -0.2], [0.3, -0.4]], [[9, 9], [9, 9]]])
    torch.testing.assert_close(out[0], expected, atol=1e-4, rtol=1e-4)


def test_step_down_when_the_map_is_wider_then_it_is_narrowed_first():
    step = StepDown(McnConfig(dim=2), channels=4)
    assert [type(layer) for layer in step.path] == [ConvNormLeaky, nn.AvgPool2d, ConvNormLeaky, ConvNormLeaky]
    assert step.path[0].conv.weight.shape == (2, 4, 1, 1)


def test_aspp_when_one_cell_is_lit_then_each_wide_view_sees_it_6_12_and_18_cells_away():
    head = AsppHead(McnConfig(dim=1, aspp_dim=1, garan_heads=1)).eval()
    lit = torch.zeros(1, 1, 41, 41)
    lit[..., 20, 20] = 1.0
    for view, distance in zip(head.wide, (6, 12, 18), strict=True):
        nn.init.ones_(view.conv.weight)
        with torch.no_grad():
            seen = view(lit)[0, 0].nonzero()
        steps = (20 - distance, 20, 20 + distance)
        assert seen.tolist() == [[row, column] for row in steps for column in steps]


def test_aspp_when_a_far_cell_changes_then_the_whole_map_feels_it_through_the_mean():
    torch.manual_seed(0)
    head = AsppHead(McnConfig(dim=4, aspp_dim=3)).eval()
    x = torch.randn(1, 4, 16, 16)
    changed = x.clone()
    changed[..., 15, 14] += 100
    with torch.no_grad():
        difference = (head(changed) - head(x)).abs()[0]
    assert difference.min() > 0
    assert difference[15, 14 - 6] > 2 * difference[0, 0]  # dilation 6


def gradient_of(model, output, *, of):
    """Whether a backward pass from ``output`` reaches the parameters whose names begin so."""
    model.zero_grad()
    output.sum().backward(retain_graph=True)
    return any(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if name.startswith(of))


@pytest.mark.parametrize(("order", "reached"), [("official", True), ("paper", False)])
def test_bottom_up_path_when_box_learns_then_the_mask_branch_does_and_its_garan_in_the_official_order(
    build, pixels, order, reached
):
    model = build(garan_order=order).train()
    output = run(model, pixels)
    assert gradient_of(model, output.box_logits, of="inference.res.up8")
    assert gradient_of(model, output.box_logits, of="inference.res.refinement.garan") == reached
    assert not gradient_of(model, output.mask_logits, of="inference.down")


def test_only_backbone_shared_when_one_task_learns_then_the_other_branch_does_not(build, pixels):
    model = build("only-backbone-shared").train()
    output = run(model, pixels)
    assert gradient_of(model, output.box_logits, of="inference.rec")
    assert not gradient_of(model, output.box_logits, of="inference.res")
    assert not gradient_of(model, output.mask_logits, of="inference.rec")
    for task in (output.box_logits, output.mask_logits):
        assert gradient_of(model, task, of="text.gru")
        assert gradient_of(model, task, of="encoder")


@pytest.mark.parametrize("structure", ["only-head-different-13", "only-head-different-52"])
def test_only_head_different_when_run_then_both_heads_read_one_map(build, pixels, structure):
    model = build(structure).eval()
    with torch.no_grad():
        output = run(model, pixels)
    assert output.rec_attended is output.res_attended
    assert sum(isinstance(module, Garan) for module in model.modules()) == 1


def freeze(model):
    for parameter in model.frozen_parameters(image_pretrained=True):
        parameter.requires_grad_(False)


@pytest.mark.parametrize("choice", ["eval", "batch"])
def test_frozen_norm_when_trained_then_its_statistics_stay_and_by_batch_it_normalises_by_the_batch(
    build, pixels, choice
):
    model = build(frozen_norm=choice)
    freeze(model)
    frozen, learning = model.encoder.down[0].norm, model.encoder.down[1].norm
    seen = []
    frozen.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    run(model.train(), pixels)
    assert not frozen.running_mean.any()
    assert (frozen.running_var == 1).all()
    zero_mean = seen[0].mean((0, 2, 3)).abs().max() < 1e-5
    assert bool(zero_mean) == (choice == "batch")
    assert learning.running_mean.any()
    assert learning.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_frozen_norm_when_it_learns_again_then_its_statistics_move(build, pixels):
    model = build(frozen_norm="batch")
    freeze(model)
    model.train()
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(True)
    run(model.train(), pixels)
    assert model.encoder.down[0].norm.running_mean.any()


def test_train_when_nothing_is_frozen_then_every_norm_learns(build):
    model = build().train()
    assert all(module.training for module in model.modules() if isinstance(module, BatchNorm))


def test_frozen_parameters_when_the_encoder_is_not_pretrained_then_the_words_alone(build):
    model = build()
    assert [id(p) for p in model.frozen_parameters(image_pretrained=False)] == [id(model.text.vectors.weight)]
    assert build(train_words=True).frozen_parameters(image_pretrained=False) == []


@pytest.mark.parametrize("structure", STRUCTURES)
def test_answer_when_asked_then_boxes_lie_in_the_canvas_and_confidence_in_0_to_1(build, pixels, structure):
    model = build(structure).eval()
    with torch.no_grad():
        answer = model.answer(model.encode_image(pixels, CONTENT).pick(IMAGE_INDEX), IDS, VALID)
    rec, res = SIDES[structure]
    assert (answer.boxes is None, answer.mask_probability is None) == (rec is None, res is None)
    if answer.boxes is not None:
        assert answer.boxes.shape == (3, 4)
        assert ((answer.boxes >= 0) & (answer.boxes <= 1)).all()
    if answer.mask_probability is not None:
        assert ((answer.mask_probability >= 0) & (answer.mask_probability <= 1)).all()
        assert answer.mask_probability.shape[-1] * model.mask_stride == 64
    assert answer.confidence.shape == (3,)
    assert answer.signs.shape == (3, len(model.score_weights) - 1)


def test_biases_when_untrained_then_the_heads_begin_at_zero(build):
    model = build()
    for conv in (model.box.conv, model.mask.conv, model.rec_energy, model.res_energy):
        assert not conv.bias.any()


def test_branch_when_garan_is_off_then_the_map_as_it_is(build):
    model = build(garan=False)
    x = torch.randn(1, 8, 2, 2)
    branch = model.inference.refinement(x, torch.randn(1, 10))
    assert isinstance(branch, Branch)
    assert branch.features is x
    assert branch.attended is None


def test_frozen_norm_when_of_another_word_then_one_sentence():
    with pytest.raises(ValueError, match=r"expected frozen_norm to be one of .*'eval', 'batch'.*, got 'off'"):
        replace(McnConfig(), frozen_norm="off")


def test_prior_when_set_then_an_untrained_head_gives_about_it_everywhere(build, pixels):
    output = run(build(prior=0.01).eval(), pixels)
    assert output.mask_logits.sigmoid().median().item() == pytest.approx(0.01, rel=1)
    assert output.box_logits[:, :, 4].sigmoid().median().item() == pytest.approx(0.01, rel=1)
    assert output.box_logits[:, :, :4].sigmoid().median().item() == pytest.approx(0.5, rel=0.2)
