import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import ConvNextConfig, Dinov2Config, ResNetConfig, SwinConfig

from deixis.config import preset
from deixis.models.encoders.resnet import BackboneEncoder, TinyEncoder
from deixis.models.padding import mean_inside, only_pictures, watch
from deixis.models.smcim.model import VisualFeatures

SIZE = 128
ALIGNED = [(0, 32, 128, 96), (32, 0, 96, 128)]
STRIDES = (8, 16, 32)
MAKERS = {
    "resnet": lambda: BackboneEncoder(
        ResNetConfig(embedding_size=4, hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1])
    ),
    "convnext": lambda: BackboneEncoder(
        ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_scale_init_value=1.0)
    ),
    "darknet-tiny": TinyEncoder,
    "swin": lambda: BackboneEncoder(
        SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=2)
    ),
    "dino": lambda: BackboneEncoder(
        Dinov2Config(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, patch_size=16, image_size=64)
    ),
}
CONVOLUTIONS = ["resnet", "convnext", "darknet-tiny"]


@pytest.fixture(scope="module", params=MAKERS)
def encoder(request):
    return made(request.param)


@pytest.fixture(scope="module", params=CONVOLUTIONS)
def convolutions(request):
    return made(request.param)


def made(kind):
    """An encoder whose layers have made zero something else: shifts and statistics away from 0."""
    torch.manual_seed(0)
    network = MAKERS[kind]()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias, std=0.3)
    watch(network)
    return network.eval()


def content_of(*boxes):
    return torch.tensor(boxes, dtype=torch.float32) / SIZE


def canvas_of(picture, box, fill):
    canvas = torch.full((1, 3, SIZE, SIZE), fill)
    canvas[:, :, box[1] : box[3], box[0] : box[2]] = picture
    return canvas


def random_picture(box):
    return torch.rand(1, 3, box[3] - box[1], box[2] - box[0], generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(network, canvas, content):
    with only_pictures(content, SIZE):
        maps = network(canvas)
    return maps.stride8, maps.stride16, maps.stride32


def inside(features, box, stride):
    """The cells that the box covers any part of."""
    x1, y1, x2, y2 = box[0] // stride, box[1] // stride, -(-box[2] // stride), -(-box[3] // stride)
    return features[..., y1:y2, x1:x2]


@pytest.mark.parametrize("box", [(0, 32, 128, 96), (0, 13, 128, 100), (37, 3, 90, 128)], ids=str)
def test_features_when_the_padding_has_another_colour_then_the_same_inside(encoder, box):
    picture = random_picture(box)
    dark, bright = (run(encoder, canvas_of(picture, box, fill), content_of(box)) for fill in (0.0, 1.0))
    if box[1] % 32:  # else the windows of a Swin end at the picture's border by chance
        seen = [inside(encoder(canvas_of(picture, box, fill)).stride16, box, 16) for fill in (0.0, 1.0)]
        assert (seen[0] - seen[1]).abs().max() > 1e-3  # without all this
    for one, two, stride in zip(dark, bright, STRIDES, strict=True):
        assert torch.equal(inside(one, box, stride), inside(two, box, stride))


@pytest.mark.parametrize("box", ALIGNED, ids=str)
def test_features_when_borders_lie_on_cells_then_those_of_the_picture_alone(convolutions, box):
    picture = random_picture(box)
    got = run(convolutions, canvas_of(picture, box, 0.7), content_of(box))
    with torch.no_grad():
        alone = convolutions(picture)
    expected = alone.stride8, alone.stride16, alone.stride32
    for one, two, stride in zip(got, expected, STRIDES, strict=True):
        torch.testing.assert_close(inside(one, box, stride), two, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("projection", ["conv1x1", "conv3x3"])
@pytest.mark.parametrize("box", ALIGNED, ids=str)
def test_visual_features_when_borders_lie_on_cells_then_those_of_the_picture_alone(convolutions, box, projection):
    """Bilinear growth, means of 2x2 cells and 3x3 convolutions see no padding either."""
    torch.manual_seed(0)
    part = VisualFeatures(
        replace(preset("smcim-tiny"), group_dim=8, group_heads=1, merge_heads=1, projection=projection),
        convolutions.channels,
    )
    watch(part)
    picture = random_picture(box)
    with torch.no_grad():
        alone = part(convolutions(picture)).transpose(1, 2)
        with only_pictures(content_of(box), SIZE):
            got = part(convolutions(canvas_of(picture, box, 0.7))).transpose(1, 2).unflatten(2, (8, 8))
    torch.testing.assert_close(inside(got, box, 16).flatten(2), alone, atol=2e-5, rtol=2e-5)


def test_features_when_wide_tall_and_full_pictures_share_a_batch_then_as_one_by_one(encoder):
    boxes = [(0, 20, 128, 90), (40, 0, 72, 128), (0, 0, 128, 128)]
    canvases = [canvas_of(random_picture(box), box, 0.4) for box in boxes]
    together = run(encoder, torch.cat(canvases), content_of(*boxes))
    for row, (canvas, box) in enumerate(zip(canvases, boxes, strict=True)):
        for one, two in zip(together, run(encoder, canvas, content_of(box)), strict=True):
            torch.testing.assert_close(one[row : row + 1], two, atol=1e-5, rtol=1e-5)


def test_features_when_pictures_fill_the_canvas_then_nothing_is_computed_for_it(encoder, monkeypatch):
    monkeypatch.setattr("deixis.models.padding.torch.where", lambda *_: pytest.fail("hidden"))
    full = (0, 0, SIZE, SIZE)
    pixels = random_picture(full)
    found = run(encoder, pixels, content_of(full))
    with torch.no_grad():
        assert torch.equal(found[2], encoder(pixels).stride32)


def test_gradient_when_trained_then_none_reaches_the_padding_and_all_is_finite(encoder):
    box = (0, 13, 128, 100)
    pixels = canvas_of(random_picture(box), box, 0.7).requires_grad_()
    with only_pictures(content_of(box), SIZE):
        inside(encoder(pixels).stride16, box, 16).square().sum().backward()
    assert torch.isfinite(pixels.grad).all()
    assert not pixels.grad[:, :, :13].any()
    assert not pixels.grad[:, :, 100:].any()
    assert pixels.grad[:, :, 13:100].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolution_when_pixels_stand_channels_last_then_so_do_hidden_ones_and_of_the_same_type(dtype):
    layer, seen = nn.Conv2d(3, 4, 3, dtype=dtype), []
    watch(layer)
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # what the convolution is given
    with only_pictures(content_of((0, 32, 128, 96)), SIZE):
        layer(torch.ones(1, 3, SIZE, SIZE, dtype=dtype).contiguous(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0].dtype == dtype
    assert seen[0].sum() == 3 * 128 * 64


def test_mean_inside_when_worked_by_hand_then_the_outermost_cell_goes_on():
    x = torch.tensor([9.0, 2.0, 4.0, 9.0]).expand(1, 1, 4, 4)  # columns 1 and 2 of 4 are the picture's

    def grown(y):
        return nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear")

    with only_pictures(torch.tensor([[0.25, 0.0, 0.75, 1.0]]), 4):
        assert mean_inside(grown, x)[0, 0, 0, 2:6].tolist() == [2.0, 2.5, 3.5, 4.0]
        assert mean_inside(lambda y: nn.functional.avg_pool2d(y, 2), x)[0, 0, 0].tolist() == [2.0, 4.0]
    assert mean_inside(grown, x)[0, 0, 0, 2:6].tolist() == [3.75, 2.5, 3.5, 5.25]


def test_cells_when_a_side_is_no_power_of_two_then_rounding_moves_no_border():
    """Borders at 7 / 15 of 480 pixels: on the border of two cells, but not in float32."""
    seen = []
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    watch(layer)
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # what the convolution is given
    with only_pictures(torch.tensor([[7 / 15, 0.0, 8 / 15, 1.0]]), 480):
        for side in (480, 240, 120, 60, 30, 15):
            layer(torch.ones(1, 1, side, side))
    assert [int(one[0, 0, 0].sum()) for one in seen] == [32, 16, 8, 4, 2, 1]


def test_only_pictures_when_another_thread_encodes_then_it_is_not_touched(convolutions):
    box = (0, 32, 128, 96)
    canvas, found = canvas_of(random_picture(box), box, 0.7), []
    with torch.no_grad():
        expected = convolutions(canvas).stride32
    with only_pictures(content_of(box), SIZE):
        other = threading.Thread(target=lambda: found.append(convolutions(canvas).stride32.detach()))
        other.start()
        other.join()
        assert not torch.allclose(run(convolutions, canvas, content_of(box))[2], expected)
    assert torch.equal(found[0], expected)


def test_only_pictures_when_encoding_fails_then_nothing_stays_hidden(convolutions):
    canvas = canvas_of(random_picture((0, 0, 128, 64)), (0, 0, 128, 64), 0.7)
    with torch.no_grad():
        expected = convolutions(canvas).stride16
        with pytest.raises(KeyError), only_pictures(content_of((0, 0, 128, 64)), SIZE):
            raise KeyError
        assert torch.equal(convolutions(canvas).stride16, expected)
