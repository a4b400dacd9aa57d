import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deixis.models.weights.darknet import (
    DarknetConv,
    convolution_shapes,
    parse_darknet_cfg,
    read_darknet,
    read_darknet_folder,
)
from deixis.models.weights.pretrained import find_file, load_exactly, read_torchvision_vgg16

# channels: 3 -> conv 2 -> pool -> conv 4 -> upsample -> route(4 + 2) -> conv 1
CFG = """
[net]
width=32  # a comment
channels = 3

[convolutional]
batch_normalize=1
filters=2
size=3
activation=leaky

[maxpool]
size=2

[convolutional]
filters=4
size=1

[upsample]
stride=2

[route]
layers=-1, 0

[convolutional]
filters=1
size=1

[yolo]
mask = 0,1,2
"""
NUM_VALUES = (4 * 2 + 2 * 3 * 9) + (4 + 4 * 2) + (1 + 1 * 6)  # 62 + 12 + 7 = 81


def write_pair(folder, *, cfg=CFG, values=None, version=(0, 2)):
    (folder / "net.cfg").write_text(cfg)
    counter = np.array([7], np.int64 if version == (0, 2) else np.int32)
    header = np.array([*version, 0], np.int32).tobytes() + counter.tobytes()
    values = np.arange(NUM_VALUES, dtype=np.float32) if values is None else np.asarray(values, np.float32)
    (folder / "net.weights").write_bytes(header + values.tobytes())
    return folder / "net.cfg", folder / "net.weights"


def assert_one_sentence(caught, *words):
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("version", [(0, 1), (0, 2)], ids=["16-byte header", "20-byte header"])
def test_read_darknet_when_pair_fits_then_every_value_stands_in_its_place(tmp_path, version):
    first, second, third = read_darknet(*write_pair(tmp_path, version=version))
    np.testing.assert_array_equal(first.bias, [0, 1])
    np.testing.assert_array_equal(first.bn_scale, [2, 3])
    np.testing.assert_array_equal(first.bn_mean, [4, 5])
    np.testing.assert_array_equal(first.bn_var, [6, 7])
    np.testing.assert_array_equal(first.weight, np.arange(8, 62).reshape(2, 3, 3, 3))
    assert second.bn_scale is None
    np.testing.assert_array_equal(second.bias, [62, 63, 64, 65])
    np.testing.assert_array_equal(second.weight, np.arange(66, 74).reshape(4, 2, 1, 1))
    np.testing.assert_array_equal(third.bias, [74])
    np.testing.assert_array_equal(third.weight, np.arange(75, 81).reshape(1, 6, 1, 1))  # routes add their channels


def test_read_darknet_when_route_is_absolute_then_that_layers_channels_enter(tmp_path):
    cfg = CFG.replace("layers=-1, 0", "layers=2")  # the four channels of the second convolution alone
    *_, last = read_darknet(*write_pair(tmp_path, cfg=cfg, values=np.zeros(NUM_VALUES - 2)))
    assert last.weight.shape == (1, 4, 1, 1)


def test_read_darknet_when_file_is_short_then_one_sentence_says_by_how_much(tmp_path):
    with pytest.raises(ValueError, match=r"81 values .* got 79 .* 2 too few") as caught:
        read_darknet(*write_pair(tmp_path, values=np.zeros(NUM_VALUES - 2)))
    assert_one_sentence(caught, "net.weights", "net.cfg")


def test_read_darknet_when_file_is_long_then_one_sentence_says_both_counts(tmp_path):
    with pytest.raises(ValueError, match="81 values") as caught:
        read_darknet(*write_pair(tmp_path, values=np.zeros(NUM_VALUES + 5)))
    assert_one_sentence(caught, "86", "net.weights")


@pytest.mark.parametrize("length", [0, 19, 22], ids=["empty", "no header", "half a value"])
def test_read_darknet_when_file_is_cut_within_a_value_then_one_sentence(tmp_path, length):
    cfg, weights = write_pair(tmp_path)
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"\.weights") as caught:
        read_darknet(cfg, weights)
    assert_one_sentence(caught)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("[net]", "[convolution]", "[net]"),
        ("[maxpool]", "[lstm]", "[lstm]"),
        ("filters=4\n", "", "filters"),
        ("filters=4", "filters=many", "many"),
        ("layers=-1, 0", "layers=-1, 9", "9"),
        ("layers=-1, 0", "layers=-7", "-7"),
        ("layers=-1, 0", "layers=last", "last"),
        ("layers=-1, 0", "", "[route]"),
        ("filters=4", "filters=0", "0"),
        ("size=3", "size=-3", "-3"),
        ("filters=4", "groups=2\nfilters=4", "groups"),
        ("batch_normalize=1", "batch_normalize=yes", "yes"),
        ("[upsample]", "upsample", "upsample"),
    ],
    ids=str,
)
def test_read_darknet_when_cfg_is_wrong_then_one_sentence_names_it(tmp_path, old, new, word):
    with pytest.raises(ValueError, match=r"net\.cfg") as caught:
        read_darknet(*write_pair(tmp_path, cfg=CFG.replace(old, new)))
    assert_one_sentence(caught, word)


def test_parse_cfg_when_read_then_sections_keep_their_order_and_comments_go(tmp_path):
    sections = parse_darknet_cfg(write_pair(tmp_path)[0])
    kinds = ["net", "convolutional", "maxpool", "convolutional", "upsample", "route", "convolutional", "yolo"]
    assert [section["type"] for section in sections] == kinds
    assert sections[0] == {"type": "net", "width": "32", "channels": "3"}


def test_folded_when_batch_norm_then_equals_convolution_and_norm_in_eval_mode():
    rng = np.random.default_rng(0)
    source = DarknetConv(
        weight=rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
        bias=rng.normal(size=5).astype(np.float32),
        bn_scale=rng.normal(size=5).astype(np.float32),
        bn_mean=rng.normal(size=5).astype(np.float32),
        bn_var=rng.uniform(0.5, 2, 5).astype(np.float32),
    )
    reference = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=1e-5)).eval()
    with torch.no_grad():
        reference[0].weight.copy_(torch.from_numpy(source.weight))
        norm = reference[1]
        for mine, theirs in ((norm.weight, source.bn_scale), (norm.bias, source.bias)):
            mine.copy_(torch.from_numpy(theirs))
        norm.running_mean.copy_(torch.from_numpy(source.bn_mean))
        norm.running_var.copy_(torch.from_numpy(source.bn_var))
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(torch.conv2d(x, *source.folded()), reference(x), atol=1e-5, rtol=1e-5)


def test_folded_when_no_batch_norm_then_own_copy_of_the_same_values():
    source = DarknetConv(
        weight=np.ones((1, 1, 1, 1), np.float32), bias=np.ones(1, np.float32), bn_scale=None, bn_mean=None, bn_var=None
    )
    weight, bias = source.folded()
    weight += 1
    assert (source.weight.item(), bias.item()) == (1, 1)


def test_load_exactly_when_names_and_shapes_fit_then_loaded():
    module = nn.Linear(2, 1)
    load_exactly(module, {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])}, "file")
    assert module.weight.tolist() == [[3, 4]]


def test_load_exactly_when_it_does_not_fit_then_all_three_complaints_and_nothing_loaded():
    module = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {
        "0.weight": torch.zeros(3, 2),
        "0.bias": torch.zeros(1),
        "1.bias": torch.zeros(1),
        "2.bias": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="Sequential") as caught:
        load_exactly(module, state, "some/file")
    assert_one_sentence(
        caught, "'some/file'", "missing: 1.weight (1)", "unexpected: 2.bias (1)", "0.weight (3, 2) for (1, 2)"
    )
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_load_exactly_when_many_are_missing_then_the_list_is_short():
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    with pytest.raises(ValueError, match=r"missing: .* … \(16\)") as caught:
        load_exactly(module, {}, "file")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("values", "count"), [(62, 1), (62 + 12, 2), (NUM_VALUES, 3)])
def test_read_darknet_when_it_ends_early_then_the_convolutions_up_to_there(tmp_path, values, count):
    pair = write_pair(tmp_path, values=np.arange(values))
    convs = read_darknet(*pair)
    assert len(convs) == count
    assert convs[-1].weight.ravel()[-1] == values - 1


@pytest.mark.parametrize("values", [0, 61, 62 + 13, NUM_VALUES + 1])
def test_read_darknet_when_it_ends_within_a_convolution_then_one_sentence(tmp_path, values):
    with pytest.raises(ValueError, match=f"expected {NUM_VALUES} values .* got {values} in") as caught:
        read_darknet(*write_pair(tmp_path, values=np.zeros(values)))
    assert_one_sentence(caught)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_read_darknet_when_a_value_is_not_finite_then_one_sentence_names_its_layer(tmp_path, value):
    values = np.zeros(NUM_VALUES)
    values[63] = value
    with pytest.raises(ValueError, match="layer 2 ") as caught:
        read_darknet(*write_pair(tmp_path, values=values))
    assert_one_sentence(caught, "finite", "net.weights")


def test_read_darknet_when_header_is_of_another_kind_then_lengths_are_told_and_nothing_overflows(tmp_path):
    cfg, weights = write_pair(tmp_path, version=(0, 1))
    weights.write_bytes(np.array([2**31 - 1, 2**31 - 1], np.int32).tobytes() + weights.read_bytes()[8:])
    assert len(read_darknet(cfg, weights)) == 3  # Darknet's own rule: above 1000 the counter is an int32


def test_read_darknet_when_header_stands_alone_then_all_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"got 0 .* 81 too few: convolution 0"):
        read_darknet(*write_pair(tmp_path, values=[]))


@pytest.mark.parametrize("missing", ["net.cfg", "net.weights"])
def test_read_darknet_when_a_file_is_missing_then_one_sentence_names_it(tmp_path, missing):
    pair = write_pair(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing) as caught:
        read_darknet(*pair)
    assert_one_sentence(caught)


def test_read_darknet_when_arrays_are_changed_then_the_file_is_not(tmp_path):
    cfg, weights = write_pair(tmp_path)
    before = weights.read_bytes()
    read_darknet(cfg, weights)[0].weight[:] = 0
    assert weights.read_bytes() == before


def test_convolution_shapes_when_batch_norm_is_there_then_four_vectors_are_counted(tmp_path):
    shapes = convolution_shapes(write_pair(tmp_path)[0])
    assert [(shape.layer, shape.weight, shape.values) for shape in shapes] == [
        (0, (2, 3, 3, 3), 62),
        (2, (4, 2, 1, 1), 12),
        (5, (1, 6, 1, 1), 7),
    ]


def test_torchvision_vgg16_when_read_then_float32_without_the_classifier_in_both_formats(tmp_path):
    state = {"features.0.weight": torch.ones(2, 3, 3, 3), "features.0.bias": torch.zeros(2, dtype=torch.float64)}
    state["classifier.0.weight"] = torch.zeros(1, 1)
    torch.save(state, tmp_path / "vgg16.pth")
    save_file(state, tmp_path / "vgg16.safetensors")
    for name in ("vgg16.pth", "vgg16.safetensors"):
        found = read_torchvision_vgg16(tmp_path / name)
        assert {key: (tensor.sum().item(), tensor.dtype) for key, tensor in found.items()} == {
            "features.0.weight": (54, torch.float32), "features.0.bias": (0, torch.float32),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("features.0.bias", torch.zeros(2, dtype=torch.int64), "finite floats"),
        ("features.0.weight", torch.full((2, 3, 3, 3), torch.nan), "finite floats"),
    ],
    ids=["integers", "nan"],
)
def test_torchvision_vgg16_when_a_tensor_is_wrong_then_one_sentence_names_it(tmp_path, name, tensor, words):
    torch.save({name: tensor}, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=name) as caught:
        read_torchvision_vgg16(tmp_path / "vgg16.pth")
    assert_one_sentence(caught, words)


class Harm:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"features.0.weight": Harm(path.with_name("harmed"))}, path),
        lambda path: path.write_bytes(pickle.dumps(Harm(path.with_name("harmed")))),
        lambda path: torch.save(nn.Linear(1, 1), path),
        lambda path: torch.save({"state_dict": {}}, path),
        lambda path: torch.save([torch.zeros(1)], path),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no weights at all"),
        lambda path: path.write_bytes(b"PK\x03\x04 torn"),
    ],
    ids=["code", "bare code", "module", "nested", "list", "empty", "text", "torn"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_vgg16_when_file_is_none_then_one_sentence_and_no_code_runs(tmp_path, write, suffix):
    write(tmp_path / f"file{suffix}")
    with pytest.raises(ValueError, match=f"file{suffix}") as caught:
        read_torchvision_vgg16(tmp_path / f"file{suffix}")
    assert_one_sentence(caught, "state_dict")
    assert not (tmp_path / "harmed").exists()


def test_torchvision_vgg16_when_file_is_missing_then_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vgg16\.pth") as caught:
        read_torchvision_vgg16(tmp_path / "vgg16.pth")
    assert_one_sentence(caught)


def test_find_file_when_the_hub_cannot_be_reached_then_asked_once_and_one_sentence(put_on_hub, monkeypatch):
    asked = []

    def unreachable(repository, name):
        asked.append((repository, name))
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.file_exists", unreachable)
    monkeypatch.setattr("transformers.utils.hub.cached_file", lambda *told: pytest.fail("waits and tries again"))
    with pytest.raises(FileNotFoundError, match=r"expected a folder with config\.json, or its name on the hub") as told:
        find_file("no-such-folder", "config.json")
    assert "\n" not in str(told.value)
    assert asked == [("no-such-folder", "config.json")]


def test_find_file_when_the_hub_has_the_second_name_alone_then_it_is_fetched(put_on_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_exists", lambda repository, name: name == "pytorch_model.bin")
    monkeypatch.setattr("transformers.utils.hub.cached_file", lambda repository, name: f"/cache/{repository}/{name}")
    found = find_file("someone/swin", "model.safetensors", "pytorch_model.bin")
    assert found == Path("/cache/someone/swin/pytorch_model.bin")


# folders of a Darknet network


@pytest.fixture
def folder(tmp_path):
    """A folder with a network of three convolutions, of which the file of weights holds two."""
    conv = "[convolutional]\nbatch_normalize=1\nfilters=2\nsize=1\n"
    (tmp_path / "net.cfg").write_text(f"[net]\nchannels=3\n{conv * 3}")
    values = np.arange((8 + 6) + (8 + 4), dtype="<f4")
    (tmp_path / "net.weights").write_bytes(np.array([0, 2, 0, 0, 0], "<i4").tobytes() + values.tobytes())
    (tmp_path / "README.md").touch()
    return tmp_path


@pytest.mark.parametrize("file", ["net.weights", "darknet53.conv.74"])
def test_read_darknet_folder_when_the_file_ends_after_the_body_then_its_convolutions(folder, file):
    (folder / "net.weights").rename(folder / file)
    convs = read_darknet_folder(folder)
    assert [conv.weight.shape for conv in convs] == [(2, 3, 1, 1), (2, 2, 1, 1)]
    assert convs[1].weight[-1, -1, 0, 0] == 25


@pytest.mark.parametrize("ending", [".cfg", ".weights"])
def test_read_darknet_folder_when_one_is_missing_or_there_are_two_then_one_sentence(folder, ending):
    (folder / f"other{ending}").touch()
    with pytest.raises(ValueError, match=rf"expected one {ending} file in .*, got \['net{ending}', 'other"):
        read_darknet_folder(folder)
    for file in folder.glob(f"*{ending}"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"expected a {ending} file in the folder .*, got none"):
        read_darknet_folder(folder)


@pytest.mark.parametrize("path", ["none", "file"])
def test_read_darknet_folder_when_there_is_no_such_folder_then_one_sentence(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"expected a \.cfg file in the folder"):
        read_darknet_folder(tmp_path / path)
