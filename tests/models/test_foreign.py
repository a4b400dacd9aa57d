import numpy as np
import pytest
import torch
from torch import nn

from deixis.models.foreign import DarknetConv, load_exactly, parse_darknet_cfg, read_darknet, read_glove_table

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


def test_read_darknet_when_cut_off_then_only_the_body_is_read(tmp_path):
    body = read_darknet(*write_pair(tmp_path, values=np.zeros(62 + 12)), cutoff=3)
    assert [conv.weight.shape for conv in body] == [(2, 3, 3, 3), (4, 2, 1, 1)]


def test_read_darknet_when_file_is_short_then_one_sentence_says_by_how_much(tmp_path):
    with pytest.raises(ValueError, match="2 beyond the 79") as caught:
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
        ("[upsample]", "upsample", "upsample"),
    ],
    ids=["no net", "unknown layer", "no filters", "no number", "route ahead", "route before", "no section"],
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


def test_read_glove_when_index_is_shuffled_then_word_and_row_meet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vectors = np.arange(150, dtype=np.float32).reshape(3, 50)
    np.save(tmp_path / "glove_6B_50d_emb.npy", vectors)
    parquet.write_table(pa.table({"word": ["b", "c", "a"], "row": [1, 2, 0]}), tmp_path / "glove_6B_index.parquet")
    words, read = read_glove_table(tmp_path)
    assert words == ["a", "b", "c"]
    np.testing.assert_array_equal(read, vectors)
