import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from deixis.config import preset
from deixis.models.deixis.detector import CLASSES, WIDTH, DetectionHead, GhostPan, _boxes, _places
from deixis.models.deixis.model import DeixisModel
from deixis.models.encoders.image import Pyramid, ShuffleNetEncoder

PARTS = {"backbone": "encoder", "fpn": "neck", "head": "head"}


@pytest.fixture(scope="module")
def neck():
    torch.manual_seed(0)
    return GhostPan((4, 6, 8)).eval()


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return DetectionHead().eval()


def pyramid_of(side, batch=2):
    generator = torch.Generator().manual_seed(1)
    sizes = ((3, 4), (4, 8), (6, 16), (8, 32))
    return Pyramid(*(torch.rand(batch, c, side // s, side // s, generator=generator) for c, s in sizes))


# neck and head


@pytest.mark.parametrize(("side", "sides"), [(64, (8, 4, 2, 1)), (96, (12, 6, 3, 2)), (32, (4, 2, 1, 1))])
def test_detector_when_run_then_a_map_for_each_stride_and_all_places_after_one_another(neck, head, side, sides):
    with torch.no_grad():
        maps = neck(pyramid_of(side))
        seen = head(maps)
    assert [tuple(one.shape) for one in maps] == [(2, WIDTH, one, one) for one in sides]
    places = sum(one**2 for one in sides)
    assert preset("deixis-tiny", image_size=side, candidates=1).places == places
    assert seen.towers.shape == (2, places, WIDTH)
    assert seen.class_logits.shape == (2, places, CLASSES)
    assert seen.thing_logits.shape == (2, places)
    assert (seen.boxes.shape, seen.boxes.dtype) == ((2, places, 4), torch.float32)
    assert (seen.boxes[..., :2] <= seen.boxes[..., 2:]).all()


def test_head_when_untrained_then_a_thing_is_as_likely_as_a_hundredth_everywhere(neck, head):
    with torch.no_grad():
        probability = head(neck(pyramid_of(64))).thing_logits.sigmoid()
    torch.testing.assert_close(probability, torch.full_like(probability, 0.01), atol=1e-4, rtol=0)


def test_head_when_levels_are_told_apart_then_each_has_its_own_convolutions(neck, head):
    maps = neck(pyramid_of(64))
    moved = [one + 1 if level == 1 else one for level, one in enumerate(maps)]
    with torch.no_grad():
        changed = (head(moved).class_logits != head(maps).class_logits).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == list(range(64, 80))  # after 8 x 8 places come 4 x 4


def test_head_when_a_tower_is_read_then_logits_are_a_convolution_of_it(neck, head):
    with torch.no_grad():
        seen = head(neck(pyramid_of(64)))
        weight, bias = head.gfl_cls[3].weight[:CLASSES, :, 0, 0], head.gfl_cls[3].bias[:CLASSES]
        torch.testing.assert_close(F.linear(seen.towers[:, -1], weight, bias), seen.class_logits[:, -1])


def test_neck_when_only_the_coarsest_map_changes_then_every_level_does(neck):
    pyramid = pyramid_of(64)
    other = Pyramid(pyramid.stride4 + 1, pyramid.stride8, pyramid.stride16, pyramid.stride32 + 1)
    unseen = Pyramid(pyramid.stride4 + 1, pyramid.stride8, pyramid.stride16, pyramid.stride32)
    with torch.no_grad():
        maps = neck(pyramid)
        assert all(not torch.equal(a, b) for a, b in zip(maps, neck(other), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(maps, neck(unseen), strict=True))  # stride 4 is not read


# boxes


def test_places_when_two_by_two_then_upper_left_corners_in_pixels_rows_first():
    assert _places(torch.zeros(1, 1, 2, 2), 16).tolist() == [[0, 0, 16], [16, 0, 16], [0, 16, 16], [16, 16, 16]]


def test_boxes_when_distances_are_sure_then_so_many_strides_from_the_corner():
    bins = torch.full((1, 1, 4, 8), -100.0)
    for side, distance in enumerate((1, 0, 2, 7)):  # left, top, right, bottom
        bins[0, 0, side, distance] = 100
    place = torch.tensor([[16.0, 32.0, 8.0]])
    expected = torch.tensor([[[(16 - 8) / 64, 32 / 64, (16 + 16) / 64, (32 + 56) / 64]]])
    torch.testing.assert_close(_boxes(bins.flatten(2), place, 64), expected)


def test_boxes_when_two_distances_are_likely_then_their_mean_by_probability():
    bins = torch.full((1, 1, 4, 8), -torch.inf)
    bins[..., 0], bins[..., 4] = math.log(3), 0.0  # 0 at 3/4, 4 at 1/4: one stride
    expected = torch.tensor([[[(16 - 8) / 64, (32 - 8) / 64, (16 + 8) / 64, (32 + 8) / 64]]])
    torch.testing.assert_close(_boxes(bins.flatten(2), torch.tensor([[16.0, 32.0, 8.0]]), 64), expected)


def test_boxes_when_logits_are_bfloat16_then_float32():
    assert _boxes(torch.zeros(1, 1, 32, dtype=torch.bfloat16), torch.zeros(1, 3), 64).dtype == torch.float32


# NanoDet's file


@pytest.fixture
def image(small_fields):
    torch.manual_seed(0)
    return DeixisModel(preset("deixis-tiny-glove", **small_fields, vocab_size=9)).image


def published(image):
    """Random weights under the names of the file, which tells nothing of things of whatever category."""
    generator = torch.Generator().manual_seed(3)
    return {
        f"{prefix}.{name}": torch.randn(value.shape, generator=generator)
        for prefix, part in PARTS.items()
        for name, value in getattr(image, part).state_dict().items()
        if not name.startswith("thing.")
    }


def test_nanodet_when_loaded_then_every_tensor_is_the_files_and_the_first_sees_red_first(image, tmp_path):
    state = published(image)
    things = {name: value.clone() for name, value in image.head.state_dict().items() if name.startswith("thing.")}
    save_file({**state, "aux_head.other": torch.zeros(1)}, tmp_path / "nanodet.safetensors")
    image.load_nanodet(tmp_path / "nanodet.safetensors")
    for prefix, part in PARTS.items():
        for name, value in getattr(image, part).state_dict().items():
            if name.startswith("thing."):
                assert torch.equal(value, things[name])
                continue
            is_first = (prefix, name) == ("backbone", "conv1.0.weight")
            wanted = state[f"{prefix}.{name}"]
            assert torch.equal(value, wanted.flip(1) if is_first else wanted), name
    assert torch.equal(image.encoder.conv1[0].weight[:, 0], state["backbone.conv1.0.weight"][:, 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("fpn.reduce_layers.1.conv.bias"), "missing: reduce_layers.1.conv.bias"),
        (lambda state: state.update({"head.distribution": torch.zeros(1)}), "unexpected: distribution"),
        (lambda state: state.update({"backbone.conv1.0.bias": torch.zeros(3)}), r"other shape: conv1.0.bias \(3,\)"),
        (lambda state: state.clear(), "expected the weights of ShuffleNetEncoder"),
    ],
)
def test_nanodet_when_names_or_shapes_are_others_then_one_sentence(image, tmp_path, change, words):
    state = published(image)
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=words) as caught:
        image.load_nanodet(tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)
    assert "other.safetensors" in str(caught.value)


def test_nanodet_when_the_file_is_missing_then_one_sentence(image, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none at .*none\.safetensors"):
        image.load_nanodet(tmp_path / "none.safetensors")


def test_shufflenet_when_another_file_than_nanodets_is_named_then_one_sentence(tmp_path):
    held = DeixisModel.__new__(DeixisModel)
    torch.nn.Module.__init__(held)
    held.image = torch.nn.Module()
    held.image.encoder = ShuffleNetEncoder()
    with pytest.raises(ValueError, match=r"expected image_weights to be a \.safetensors file of NanoDet-Plus.*darknet"):
        held.load_pretrained("image", tmp_path / "darknet")
