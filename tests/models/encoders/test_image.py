import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deixis.models.encoders.image import (
    EfficientNetLite0Encoder,
    YoloTinyEncoder,
    _same_pad,
    build_image_encoder,
)
from deixis.models.weights.darknet import DarknetConv


def plain_conv(shape, fill=0.0):
    weight = np.full(shape, fill, np.float32)
    return DarknetConv(weight=weight, bias=np.zeros(shape[0], np.float32), bn_scale=None, bn_mean=None, bn_var=None)


@pytest.fixture(scope="module")
def lite0():
    torch.manual_seed(0)
    return EfficientNetLite0Encoder().eval()


@pytest.mark.parametrize("name", ["yolov3-tiny", "efficientnet-lite0"])
@pytest.mark.parametrize("side", [64, 96])
def test_encoder_when_run_then_maps_have_declared_channels_and_strides(name, side):
    encoder = build_image_encoder(name)
    with torch.no_grad():
        pyramid = encoder(torch.rand(1, 3, side, side))
    maps = (pyramid.stride4, pyramid.stride8, pyramid.stride16, pyramid.stride32)
    for one, channels, stride in zip(maps, encoder.channels, (4, 8, 16, 32), strict=True):
        assert one.shape == (1, channels, side // stride, side // stride)
        assert torch.isfinite(one).all()


@pytest.mark.parametrize("name", ["yolov3-tiny", "efficientnet-lite0"])
def test_early_parameters_when_asked_then_they_are_the_first_of_the_encoder(name):
    encoder = build_image_encoder(name)
    early = {id(p) for p in encoder.early_parameters()}
    names = [key for key, p in encoder.named_parameters() if id(p) in early]
    first = {
        "yolov3-tiny": ("body.0.", "body.1.", "body.2."),
        "efficientnet-lite0": ("stem.", "blocks.0.", "blocks.1.", "blocks.2."),
    }
    assert all(key.startswith(first[name]) for key in names)
    assert len(names) == len(early) > 0


def test_yolo_when_last_pool_runs_then_it_looks_right_and_down_and_keeps_the_size():
    """Darknet's pool of stride 1: the value at (y, x) is the highest of (y..y+1, x..x+1)."""
    x = torch.arange(9.0).view(1, 1, 3, 3)
    pooled = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
    encoder = YoloTinyEncoder()
    seen = []
    encoder.body[6].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    last = []
    encoder.body[5].register_forward_hook(lambda module, inputs, output: last.append(output.clone()))
    with torch.no_grad():
        encoder(torch.rand(1, 3, 96, 96))
    assert pooled.flatten().tolist() == [4, 5, 5, 7, 8, 8, 7, 8, 8]
    before, after = last[0], seen[0]
    assert before.shape == after.shape == (1, 512, 3, 3)
    torch.testing.assert_close(after[..., 0, 0], before[..., :2, :2].amax((-1, -2)))
    torch.testing.assert_close(after[..., 2, 2], before[..., 2, 2])


def test_yolo_when_darknet_convolutions_come_then_they_land_in_file_order():
    encoder = YoloTinyEncoder()
    shapes = [tuple(conv.weight.shape) for conv in encoder.convolutions()]
    assert [s[0] for s in shapes] == [16, 32, 64, 128, 256, 512, 1024, 256, 512, 255, 128, 256, 255]  # yolov3-tiny.cfg
    encoder.load_darknet([plain_conv(shape, index) for index, shape in enumerate(shapes)])
    assert [conv.weight.unique().tolist() for conv in encoder.convolutions()] == [[i] for i in range(13)]


def test_yolo_when_convolutions_are_too_few_then_one_sentence():
    with pytest.raises(ValueError, match="expected the 13 convolutions of YOLOv3-tiny, got 1"):
        YoloTinyEncoder().load_darknet([plain_conv((16, 3, 3, 3))])


def test_yolo_when_a_convolution_has_another_shape_then_one_sentence():
    encoder = YoloTinyEncoder()
    convs = [plain_conv(tuple(conv.weight.shape)) for conv in encoder.convolutions()]
    convs[0] = plain_conv((16, 3, 1, 1))
    with pytest.raises(ValueError, match=r"\(16, 3, 3, 3\).*\(16, 3, 1, 1\)"):
        encoder.load_darknet(convs)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "before", "after"),
    [(8, 3, 2, 0, 1), (7, 3, 2, 1, 1), (8, 5, 2, 1, 2), (8, 5, 1, 2, 2), (8, 3, 1, 1, 1), (8, 1, 1, 0, 0)],
)
def test_same_pad_when_odd_then_the_extra_pixel_is_right_and_below(side, kernel, stride, before, after):
    padded = _same_pad(torch.ones(1, 1, side, side), kernel, stride)
    row = torch.tensor([0.0] * before + [1.0] * side + [0.0] * after)
    assert torch.equal(padded[0, 0, before], row)
    assert torch.equal(padded[0, 0, :, before], row)


def published_state(encoder, seed=0):
    """Random weights under the names of the published EfficientNet-Lite0 file."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def add(conv, weight, norm):
        state[weight] = torch.randn(conv.weight.shape, generator=generator) * 0.1
        for part in ("weight", "bias", "running_mean"):
            state[f"{norm}.{part}"] = torch.randn(len(conv.weight), generator=generator)
        state[f"{norm}.running_var"] = torch.rand(len(conv.weight), generator=generator) + 0.5

    add(encoder.stem, "_conv_stem.weight", "_bn0")
    for i, block in enumerate(encoder.blocks):
        if block.expand is not None:
            add(block.expand, f"_blocks.{i}._expand_conv.weight", f"_blocks.{i}._bn0")
        add(block.depthwise, f"_blocks.{i}._depthwise_conv.weight", f"_blocks.{i}._bn1")
        add(block.project, f"_blocks.{i}._project_conv.weight", f"_blocks.{i}._bn2")
    return state


def test_lite0_when_published_weights_load_then_first_block_equals_convolutions_and_norms(lite0, tmp_path):
    state = published_state(lite0)
    torch.save(state, tmp_path / "lite0.pth")
    lite0.load_pretrained(tmp_path / "lite0.pth")

    def norm(x, name):
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y = F.relu6(norm(F.conv2d(F.pad(x, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2), "_bn0"))
    y = F.conv2d(y, state["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    y = norm(F.conv2d(F.relu6(norm(y, "_blocks.0._bn1")), state["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    with torch.no_grad():
        own = lite0.blocks[0](F.relu6(lite0.stem(_same_pad(x, 3, 2))))
    torch.testing.assert_close(own, y, atol=1e-4, rtol=1e-4)


def test_lite0_when_a_name_is_missing_then_one_sentence_names_it(lite0, tmp_path):
    state = published_state(lite0)
    del state["_blocks.5._bn1.running_var"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"_blocks\.5\._bn1\.running_var.*other\.pth"):
        lite0.load_pretrained(tmp_path / "other.pth")


def test_lite0_when_block_keeps_its_shape_then_the_input_is_added(lite0):
    kept = [(i, block.residual) for i, block in enumerate(lite0.blocks)]
    assert [i for i, residual in kept if residual] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    block = lite0.blocks[2]
    with torch.no_grad():
        project = {name: p.clone() for name, p in block.project.named_parameters()}
        for p in block.project.parameters():
            p.zero_()
        x = torch.rand(1, 24, 8, 8)
        torch.testing.assert_close(block(x), x)
        for name, p in block.project.named_parameters():
            p.copy_(project[name])
