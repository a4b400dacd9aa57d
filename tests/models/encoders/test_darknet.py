from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deixis.models.encoders.darknet import BatchNorm, ConvNormLeaky, DarknetResidual, build_mcn_encoder
from deixis.models.weights.darknet import DarknetConv

NAMES = ("darknet53", "vgg16", "darknet-tiny")
CHANNELS = {"darknet53": (256, 512, 1024), "vgg16": (512, 512, 1024), "darknet-tiny": (128, 256, 512)}


def count(parameters):
    return sum(p.numel() for p in parameters)


def cbl(a, b, kernel):
    """Numbers of a convolution without bias and its batch-norm."""
    return a * b * kernel * kernel + 2 * b


def meta(name):
    with torch.device("meta"):
        return build_mcn_encoder(name).eval()


def shapes(maps):
    return tuple(tuple(one.shape[1:]) for one in (maps.stride8, maps.stride16, maps.stride32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [32, 416])
def test_encoder_when_run_then_three_maps_of_its_channels(name, side):
    encoder = meta(name)
    maps = encoder(torch.empty(2, 3, side, side, device="meta"))
    assert encoder.channels == CHANNELS[name]
    assert shapes(maps) == tuple((c, side // s, side // s) for c, s in zip(CHANNELS[name], (8, 16, 32), strict=True))


def test_encoder_when_it_has_numbers_then_its_maps_are_finite():
    torch.manual_seed(0)
    encoder = build_mcn_encoder("darknet-tiny").eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last))
    assert shapes(maps) == ((128, 8, 8), (256, 4, 4), (512, 2, 2))
    assert all(torch.isfinite(one).all() for one in (maps.stride8, maps.stride16, maps.stride32))


def test_build_when_the_name_is_unknown_then_one_sentence():
    with pytest.raises(ValueError, match=r"expected an image encoder out of .*darknet53.*, got 'resnet'"):
        build_mcn_encoder("resnet")


SIX = 3 * (cbl(1024, 512, 1) + cbl(512, 1024, 3))
LAST_TWO = cbl(1024, 512, 1) + cbl(512, 1024, 3)


def test_darknet53_when_counted_then_52_and_six_convolutions():
    encoder = meta("darknet53")
    convs = [layer for layer in encoder.modules() if isinstance(layer, ConvNormLeaky)]
    stages = ((32, 64, 1), (64, 128, 2), (128, 256, 8), (256, 512, 8), (512, 1024, 4))
    body = cbl(3, 32, 3) + sum(
        cbl(a, b, 3) + blocks * (cbl(b, b // 2, 1) + cbl(b // 2, b, 3)) for a, b, blocks in stages
    )
    assert len(convs) == 52 + 6
    assert body == 40_584_928  # DarkNet-53 without its classifier, as published
    assert count(encoder.parameters()) == body + SIX
    assert count(encoder.frozen_parameters()) == body + SIX - LAST_TWO


def test_vgg16_when_counted_then_13_and_six_convolutions():
    encoder = meta("vgg16")
    body = 14_714_688  # torchvision's vgg16().features
    six = SIX - cbl(1024, 512, 1) + cbl(512, 512, 1)  # pool5 has 512 channels
    assert count(encoder.body.parameters()) == body
    assert count(encoder.parameters()) == body + six
    assert count(encoder.frozen_parameters()) == body


def test_darknet_tiny_when_counted_then_nine_convolutions():
    encoder = meta("darknet-tiny")
    widths = (3, 16, 32, 64, 128, 256, 512, 1024)
    body = sum(cbl(a, b, 3) for a, b in pairwise(widths))
    last_two = cbl(1024, 256, 1) + cbl(256, 512, 3)
    assert count(encoder.parameters()) == body + last_two
    assert count(encoder.frozen_parameters()) == body


@pytest.mark.parametrize("name", ["darknet53", "darknet-tiny"])
def test_frozen_parameters_when_asked_then_the_last_two_convolutions_are_not_among_them(name):
    encoder = meta(name)
    frozen = {id(p) for p in encoder.frozen_parameters()}
    learning = [key for key, p in encoder.named_parameters() if id(p) not in frozen]
    last = {"darknet-tiny": (0, 1)}.get(name, (4, 5))
    assert learning == [f"head.{i}.{part}" for i in last for part in ("conv.weight", "norm.weight", "norm.bias")]


def darknet_convs(encoder, count):
    """What a Darknet file of so many convolutions holds; those after the encoder's own are never looked at."""
    own = [layer for layer in encoder.modules() if isinstance(layer, ConvNormLeaky)]
    shapes = [tuple(layer.conv.weight.shape) for layer in own][:count]
    return [
        DarknetConv(
            weight=np.broadcast_to(np.float32(0.5), shape),
            **{name: np.full(shape[0], 0.5, np.float32) for name in ("bias", "bn_scale", "bn_mean", "bn_var")},
        )
        for shape in [*shapes, *[(255, 1024, 1, 1)] * (count - len(shapes))]
    ]


@pytest.mark.parametrize(("convs", "stays"), [(52, 52), (58, 56), (75, 56)])
def test_darknet53_when_a_file_is_read_then_only_what_it_filled_is_frozen_and_the_last_two_learn(
    monkeypatch, convs, stays
):
    monkeypatch.setattr(ConvNormLeaky, "__init__", thin(ConvNormLeaky.__init__))
    encoder = build_mcn_encoder("darknet53")
    encoder.load_darknet(darknet_convs(encoder, convs))
    frozen = {id(p) for p in encoder.frozen_parameters()}
    layers = [layer for layer in encoder.modules() if isinstance(layer, ConvNormLeaky)]
    assert [{id(p) in frozen for p in layer.parameters()} for layer in layers] == [{True}] * stays + [{False}] * (
        58 - stays
    )
    filled = [bool((layer.conv.weight == 0.5).all()) for layer in layers]
    assert filled == [True] * min(convs, 58) + [False] * (58 - min(convs, 58))


def thin(make):
    """Convolutions of a sixteenth of the width: all 58 with memory behind them would take seconds."""
    return lambda self, a, b, *rest, **named: make(self, a if a == 3 else a // 16, b // 16, *rest, **named)


def test_vgg16_when_a_file_is_read_then_its_13_convolutions_alone_are_frozen(tmp_path):
    encoder = build_mcn_encoder("vgg16")
    torch.save(encoder.body.state_dict(), tmp_path / "vgg16.pth")
    encoder.load_pretrained(tmp_path / "vgg16.pth")
    frozen = {id(p) for p in encoder.frozen_parameters()}
    learning = {name.split(".")[0] for name, p in encoder.named_parameters() if id(p) not in frozen}
    assert learning == {"head"}
    assert not [p for p in encoder.head.parameters() if id(p) in frozen]
    state = {**encoder.body.state_dict(), "features.1.running_mean": torch.zeros(64)}  # as of the batch-norm variant
    del state["features.17.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"VggBody in .*other\.pth.* missing: features.17.weight \(1\); unexpected: f"):
        encoder.load_pretrained(tmp_path / "other.pth")


@pytest.mark.parametrize("side", [4, 10])
def test_conv_when_of_stride_two_then_it_pads_above_and_left_alone(side):
    torch.manual_seed(0)
    layer = ConvNormLeaky(2, 3, kernel=3, stride=2).eval()
    x = torch.randn(1, 2, side, side)
    with torch.no_grad():
        padded = F.conv2d(F.pad(x, (1, 0, 1, 0)), layer.conv.weight, stride=2)
        torch.testing.assert_close(layer(x), F.leaky_relu(layer.norm(padded), 0.1))


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 6), (3, 18)])
def test_conv_when_dilated_then_the_size_stays(kernel, dilation):
    layer = ConvNormLeaky(2, 3, kernel=kernel, dilation=dilation)
    assert layer(torch.randn(2, 2, 5, 7)).shape == (2, 3, 5, 7)


def test_conv_when_worked_by_hand_then_negative_values_keep_a_tenth():
    layer = ConvNormLeaky(1, 2).eval()
    with torch.no_grad():
        layer.conv.weight.copy_(torch.tensor([2.0, -2.0]).view(2, 1, 1, 1))
        layer.norm.running_var.fill_(1 - layer.norm.eps)
        out = layer(torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(out.flatten(), torch.tensor([2.0, -0.2]))


def test_residual_when_its_last_layer_gives_nothing_then_the_input():
    block = DarknetResidual(4).eval()
    torch.nn.init.zeros_(block.expand.conv.weight)
    x = torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x)


def test_batch_norm_when_one_value_a_channel_then_running_statistics_and_they_stay():
    norm = BatchNorm(2).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.fill_(4 - norm.eps)
    out = norm(torch.tensor([3.0, 0.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, -1.0]))
    assert norm.running_mean.tolist() == [1.0, 2.0]


def test_batch_norm_when_more_values_then_as_usual():
    norm, usual = BatchNorm(2).train(), torch.nn.BatchNorm2d(2).train()
    x = torch.randn(2, 2, 1, 1)
    torch.testing.assert_close(norm(x), usual(x))
    torch.testing.assert_close(norm.running_mean, usual.running_mean)
