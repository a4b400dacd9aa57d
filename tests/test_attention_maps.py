"""Where a model looks, from its energies to the picture: on the canvas, on the original image, on the command line."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from deixis.cli import app
from deixis.config import preset
from deixis.geometry.images import Letterbox, read_image
from deixis.grounder import EncodedImage, load
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import WordTokenizer
from deixis.models.base import energy_map
from deixis.models.deixis.model import DeixisModel
from deixis.models.encoders.darknet import ConvNormLeaky, ThreeScales
from deixis.models.mcn.model import McnModel

IDS = torch.tensor([[2, 4, 3], [5, 2, 0]])
VALID = torch.tensor([[True] * 3, [True, True, False]])
CONTENT = torch.tensor([[0.0, 0.25, 1.0, 0.75], [0.0, 0.0, 1.0, 1.0]])
MCN_FIELDS = {"fusion_dim": 12, "dim": 8, "aspp_dim": 4, "text_dim": 10, "word_dim": 5, "image_size": 64}
HW = (48, 80)


class SmallDarknet(nn.Module):
    """An encoder of MCN of a thousand parameters with the interface of the real ones."""

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
        return []


@pytest.fixture(autouse=True)
def same_precision_everywhere(monkeypatch):
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: False)


@pytest.fixture
def tokenizer(words):
    return WordTokenizer(words, max_tokens=12)


@pytest.fixture
def deixis_model(small_image_encoder, small_fields, tokenizer):
    torch.manual_seed(0)
    return DeixisModel(preset("deixis-tiny-glove", **small_fields, vocab_size=tokenizer.vocab_size)).eval()


@pytest.fixture
def mcn(monkeypatch, tokenizer):
    monkeypatch.setattr("deixis.models.mcn.model.build_mcn_encoder", lambda name: SmallDarknet())

    def build(**values):
        torch.manual_seed(0)
        return McnModel(preset("mcn-tiny", **MCN_FIELDS, vocab_size=tokenizer.vocab_size, **values)).eval()

    return build


@pytest.fixture
def checkpoint(deixis_model, tokenizer, tmp_path):
    save_checkpoint(tmp_path / "model", deixis_model, tokenizer)
    return tmp_path / "model"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)).save(path)
    return path


def attention(model, dtype=torch.float32):
    """The maps of two phrases, each of an image of its own, on a canvas of 64."""
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model.to(dtype).attention(model.encode_image(pixels.to(dtype), CONTENT), IDS, VALID)


def check_maps(maps, sides):
    assert {name: tuple(one.shape) for name, one in maps.items()} == {k: (2, s, s) for k, s in sides.items()}
    for one in maps.values():
        assert one.dtype == torch.float32
        assert (one >= 0).all()
        torch.testing.assert_close(one.sum((-1, -2)), torch.ones(2))
        assert not torch.allclose(one[0], one[1])


# On the canvas


def test_energy_map_when_logits_are_known_then_rows_come_first():
    # exp(log v) / sum: 1, 2, 3 of 6 parts, and nothing for -inf
    energy = torch.tensor([[0.0, math.log(2), math.log(3), -torch.inf]], dtype=torch.bfloat16)
    expected = torch.tensor([[[1 / 6, 2 / 6], [3 / 6, 0.0]]])
    torch.testing.assert_close(energy_map(energy), expected, atol=2e-3, rtol=0)
    assert energy_map(energy).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_when_deixis_then_maps_sum_to_1_and_padding_is_0(deixis_model, dtype):
    maps = attention(deixis_model, dtype)
    check_maps(maps, {"box": 16, "mask": 16})
    box = maps["box"]  # the first picture lies in the middle half of the canvas: rows 4 to 11 of 16
    assert (box[0, :4] == 0).all()
    assert (box[0, 12:] == 0).all()
    assert (box[0, 4:12] > 0).all()
    assert (box[1] > 0).all()


@pytest.mark.parametrize("cem", ["expected", "literal"])
def test_attention_when_mcn_then_maps_are_the_softmax_of_its_energies(mcn, cem):
    model = mcn(cem=cem)
    maps = attention(model)
    check_maps(maps, {"box": 2, "mask": 8})
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model.ground(model.encode_image(pixels, CONTENT), IDS, VALID)
    for name, energy in (("box", output.rec_energy), ("mask", output.res_energy)):
        torch.testing.assert_close(maps[name].flatten(1), energy.exp() / energy.exp().sum(1, keepdim=True))


@pytest.mark.parametrize("values", [{}, {"garan": False}, {"structure": "single-rec-13"}], ids=str)
def test_attention_when_mcn_without_cem_then_there_are_no_maps(mcn, values):
    assert attention(mcn(cem="off", **values)) == {}


# On the original image


class OneSpot:
    """Stands for a grounder whose model looks at a single cell of a grid of 16."""

    def __init__(self, tokenizer, row, column):
        self.tokenizer, self.cell, self.model = tokenizer, (row, column), self

    def attention(self, scene, token_ids, token_valid):
        one = torch.zeros(1, 16, 16)
        one[0][self.cell] = 0.25
        return {"box": one, "mask": torch.full((1, 52, 52), 1 / 52**2)}

    def pick(self, index):
        return self


@pytest.mark.parametrize(
    ("hw", "row", "column"),
    [
        ((160, 160), 3, 12), ((100, 200), 5, 1), ((100, 200), 10, 14), ((300, 100), 2, 6), ((300, 100), 13, 9),
        ((37, 411), 8, 15), ((640, 480), 0, 8),
    ],
    ids=str,
)  # fmt: skip
def test_scene_attention_when_one_cell_is_hot_then_the_peak_stands_there_in_the_image(tokenizer, hw, row, column):
    spot = OneSpot(tokenizer, row, column)
    frame = Letterbox.fit(hw, 256)
    scene = EncodedImage(spot, np.zeros((*hw, 3), dtype=np.uint8), frame, spot, 0.0)
    maps = scene.attention("left dog")
    assert {name: (one.shape, one.dtype) for name, one in maps.items()} == dict.fromkeys(
        ("box", "mask"), (hw, np.float32)
    )
    cell = 256 / 16
    x1, y1, x2, y2 = frame.box_to_image((column * cell, row * cell, (column + 1) * cell, (row + 1) * cell), clip=False)
    heat = maps["box"]
    assert heat.max() == 1
    ys, xs = np.nonzero(heat == 1)
    centre = (min(max((x1 + x2) / 2, 0.5), hw[1] - 0.5), min(max((y1 + y2) / 2, 0.5), hw[0] - 0.5))
    assert np.hypot(xs + 0.5 - centre[0], ys + 0.5 - centre[1]).min() <= 1
    # at the canvas's border the peak is as flat as the outer half of the cell
    assert xs.min() + 1 > x1
    assert xs.max() < x2
    assert ys.min() + 1 > y1
    assert ys.max() < y2
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    far = (x < x1 - (x2 - x1)) | (x > x2 + (x2 - x1)) | (y < y1 - (y2 - y1)) | (y > y2 + (y2 - y1))
    assert (heat[far] == 0).all()
    np.testing.assert_allclose(maps["mask"], 1, rtol=1e-5)  # the same everywhere


def test_scene_attention_when_all_lies_on_the_padding_then_zeros(tokenizer):
    spot = OneSpot(tokenizer, 0, 0)
    scene = EncodedImage(spot, np.zeros((50, 200, 3), dtype=np.uint8), Letterbox.fit((50, 200), 256), spot, 0.0)
    assert (scene.attention("dog")["box"] == 0).all()


@pytest.mark.parametrize("phrase", ["", "  ", "x" * 1001], ids=["empty", "blank", "long"])
def test_scene_attention_when_phrase_cannot_be_used_then_refused(tokenizer, phrase):
    spot = OneSpot(tokenizer, 0, 0)
    scene = EncodedImage(spot, np.zeros((8, 8, 3), dtype=np.uint8), Letterbox.fit((8, 8), 256), spot, 0.0)
    with pytest.raises(ValueError, match="expected a phrase"):
        scene.attention(phrase)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scene_attention_when_image_has_any_shape_then_contract_holds(checkpoint, precision):
    grounder = load(checkpoint, precision=precision)
    for shape in ((1, 1, 3), (1, 50, 3), (3000, 20, 3), (31, 47, 3)):
        image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        maps = grounder.look(image).attention("left dog")
        assert list(maps) == ["box", "mask"]
        for one in maps.values():
            assert one.shape == shape[:2]
            assert one.dtype == np.float32
            assert one.min() >= 0
            assert one.max() == 1


# On the command line


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def assert_one_sentence(result, word):
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    assert word in result.stderr
    assert not result.stdout


def test_ground_attention_when_one_phrase_then_the_name_is_kept_and_the_file_is_whole(checkpoint, photo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    result = run("ground", photo, "left dog", "--model", checkpoint, "--attention", out / "a.png")
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.iterdir()] == ["a.png"]
    height, width, _ = read_image(out / "a.png").shape
    assert height > HW[0]
    assert width == 2 * HW[1] + 6


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_ground_attention_when_two_phrases_then_numbered_files(checkpoint, photo, tmp_path, ending):
    out = tmp_path / "out"
    out.mkdir()
    name = out / f"a{ending}"
    result = run("ground", photo, "left dog", "cat", "--model", checkpoint, "--attention", name, "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 2
    assert sorted(path.name for path in out.iterdir()) == [f"a-1{ending}", f"a-2{ending}"]
    one, two = (read_image(path) for path in sorted(out.iterdir()))
    assert one.shape[1] == two.shape[1] == 2 * HW[1] + 6


def test_ground_attention_when_mcn_has_no_cem_then_one_sentence_and_no_file(mcn, tokenizer, photo, tmp_path):
    save_checkpoint(tmp_path / "mcn", mcn(cem="off"), tokenizer)
    result = run("ground", photo, "dog", "--model", tmp_path / "mcn", "--attention", tmp_path / "a.png")
    assert_one_sentence(result, "--attention")
    assert not list(tmp_path.glob("a*.png"))


def test_ground_attention_when_mcn_has_cem_then_a_picture(mcn, tokenizer, photo, tmp_path):
    save_checkpoint(tmp_path / "mcn", mcn(cem="expected"), tokenizer)
    result = run("ground", photo, "dog", "--model", tmp_path / "mcn", "--attention", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert read_image(tmp_path / "a.png").shape[1] == 2 * HW[1] + 6


@pytest.mark.parametrize(("name", "word"), [("a.txt", ".png"), ("none/a.png", "folder"), ("", "folder")])
def test_ground_attention_when_it_cannot_be_written_then_one_sentence(photo, tmp_path, name, word):
    folder = tmp_path / "there.png"
    folder.mkdir()
    assert_one_sentence(run("ground", photo, "dog", "--attention", folder / name), word)


def test_ground_attention_when_batch_then_wrong_usage(tmp_path):
    result = run("ground", "--batch", tmp_path / "in.jsonl", "--out", tmp_path / "o", "--attention", tmp_path / "a.png")
    assert result.exit_code == 2
