"""Figures of the papers: what is read from a run's log, what is drawn of it, and the commands."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from deixis.attention_drawing import COLOUR_STOPS
from deixis.charts import PANEL_PX
from deixis.cli import app
from deixis.config import preset
from deixis.drawing import COLOURS
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.smcim.model import SmcimModel
from deixis.papers.ablations import Figures
from deixis.papers.experiments import EXPERIMENTS, SMCIM_FIG_6
from deixis.papers.figures import MAX_POINTS, mcn_fig_5, read_run, smcim_fig_6, smcim_fig_7, smoothed

PACED = {"difficulty_l1": 1.5, "difficulty_giou": 1.25, "sigma_l1": 2.5, "sigma_giou": 2.4}
HW = (40, 60)


@pytest.fixture
def make_run(tmp_path):
    def make(*rows, name="run"):
        folder = tmp_path / name
        folder.mkdir()
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows]
        (folder / "metrics.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        return folder

    return make


def run(*arguments):
    return CliRunner().invoke(app, ["reproduce", *(str(one) for one in arguments)])


def heights(picture, colour, panel=0):
    """Rows of a colour inside one chart, from its top."""
    inside = np.asarray(picture)[panel * PANEL_PX[1] : (panel + 1) * PANEL_PX[1], : PANEL_PX[0]]
    return np.argwhere((inside == colour).all(-1))[:, 0]


# Logs


def test_read_run_when_written_by_training_then_steps_and_numbers(make_run):
    made = read_run(make_run({"step": 1, "seconds": 0.5, "loss": 3.0}, {"step": 2, "seconds": 1.0, "loss": None}))
    assert made.optimiser.steps == (1, 2)
    assert made.values == {"loss": (3.0, None)}
    assert made.problems == ()


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": 2, "lo', b"\xff\xfe{}", b"[" * 60_000, b"[1]", b"null", b'{"loss": 1}', b'{"step": true}',
        b'{"step": 1, "loss": 2}', b'{"step": 1e400}', b'{"step": 2, "loss": "low"}', b'{"step": 2, "loss": 1e999}',
        b'{"step": 2, "loss": 1' + b"0" * 400 + b"}", b'{"step": 2, "loss": "' + b"x" * 200_000 + b'"}', b"",
    ],
    ids=lambda line: str(line[:24]),
)  # fmt: skip
def test_read_run_when_a_line_is_bad_then_told_once_and_the_others_are_kept(make_run, line):
    made = read_run(make_run({"step": 1, "loss": 3.0}, line, {"step": 3, "loss": 1.0}))
    assert made.optimiser.steps == (1, 3)
    assert made.values == {"loss": (3.0, 1.0)}
    assert len(made.problems) == 1
    assert "line 2" in made.problems[0]
    assert len(made.problems[0]) < 200


@settings(max_examples=30, deadline=None)
@given(content=st.lists(st.binary(max_size=40), max_size=5))
def test_read_run_when_any_bytes_then_lines_are_kept_or_told(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 1}\n' + b"\n".join(content))
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    made = read_run(folder)
    whole = b"".join(lines).count(b"\n") + (not b"".join(lines).endswith(b"\n"))
    assert len(made.optimiser.steps) + len(made.problems) == whole


def test_read_run_when_there_is_none_or_nothing_in_it_then_one_sentence(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        read_run(tmp_path / "none")
    with pytest.raises(ValueError, match=r"expected steps .* line 1"):
        read_run(make_run(b"no"))


def test_smoothed_when_more_steps_than_points_then_means_of_neighbours():
    steps = range(1, 2 * MAX_POINTS + 1)
    points = smoothed(steps, [1.0, 3.0] * (MAX_POINTS - 1) + [None, 5.0])
    assert len(points) == MAX_POINTS
    assert points[0] == (1.5, 2.0)
    assert points[-1] == (2 * MAX_POINTS - 0.5, 5.0)
    assert smoothed([7], [None]) == [(7.0, None)]


# Curves


def test_smcim_fig_7_when_difficulty_falls_then_its_line_does_and_sigma_stands_below(make_run):
    rows = [{"step": n, "loss": -1.0, **PACED, "difficulty_l1": 3 - n / 10} for n in range(1, 11)]
    picture = smcim_fig_7(read_run(make_run(*rows)))
    assert picture.height == 2 * PANEL_PX[1]
    first, second = heights(picture, COLOURS[0]), heights(picture, COLOURS[0], panel=1)
    assert first.max() - first.min() > 50  # L1 falls
    assert second.max() - second.min() < 5  # its sigma stays
    assert heights(picture, COLOURS[1]).min() > first.min()  # GIoU is the easier one


def test_smcim_fig_7_when_the_run_had_no_spsil_then_one_sentence(make_run):
    with pytest.raises(ValueError, match="spsil on"):
        smcim_fig_7(read_run(make_run({"step": 1, "loss": 1.0})))


def test_mcn_fig_5_when_runs_have_other_branches_then_a_chart_a_loss_with_those_that_have_it(make_run):
    both = read_run(make_run({"step": 1, "xy": 2.0, "mask": 9.0}, {"step": 2, "xy": 1.0, "mask": 7.0}, name="both"))
    box = read_run(make_run({"step": 1, "xy": 3.0, "never": None}, {"step": 2, "xy": 2.0}, name="box"))
    picture = mcn_fig_5([box, both])
    assert picture.height == 2 * PANEL_PX[1]  # xy and mask
    assert heights(picture, COLOURS[0]).mean() < heights(picture, COLOURS[1]).mean()
    assert len(heights(picture, COLOURS[0], panel=1)) == 0


def test_smcim_fig_6_when_listed_then_one_value_moves_and_the_best_is_printed():
    rows = {row.name: row for row in SMCIM_FIG_6.rows}
    assert EXPERIMENTS["smcim-fig-6"] is SMCIM_FIG_6
    assert rows["λ 0.75, σ 2.5"].paper == (73.87,)
    assert rows["without SPSIL"].paper == (72.86,)
    assert [row.paper for row in rows.values()].count((None,)) == len(rows) - 2
    for row in rows.values():
        fields = row.recipe_fields
        if fields.get("spsil") != "off":
            assert fields["spsil_lambda"] == 0.75 or fields["sigma"] == 2.5
            assert fields.get("sigma_floor", 0.6) > fields["spsil_lambda"] / 2**0.5  # below, SPSIL fails


def test_smcim_fig_6_when_drawn_then_lambda_above_sigma_each_with_the_papers_point():
    measured = [
        Figures(row, ((50.0 + 10 * row.recipe_fields.get("spsil_lambda", 0),), (52.0,))) for row in SMCIM_FIG_6.rows
    ]
    picture = smcim_fig_6(measured, "REC Acc@0.5")
    assert picture.height == 2 * PANEL_PX[1]
    for panel in (0, 1):
        assert len(heights(picture, COLOURS[0], panel)) > 100
        assert 20 < len(heights(picture, COLOURS[1], panel)) < 120  # one dot


def test_reproduce_smcim_fig_7_when_run_then_a_whole_file_and_bad_lines_are_told(make_run, tmp_path):
    out = tmp_path / "f.png"
    result = run("smcim-fig-7", "--run", make_run({"step": 1, **PACED}, b"{", {"step": 2, **PACED}), "--out", out)
    assert result.exit_code == 0, result.output
    assert "line 2" in result.stderr
    with Image.open(out) as picture:
        assert picture.height == 2 * PANEL_PX[1]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["f.png", "run"]


def test_reproduce_mcn_fig_5_when_two_runs_then_both_in_one_picture(make_run, tmp_path):
    one = make_run({"step": 1, "xy": 1.0}, {"step": 2, "xy": 2.0}, name="one")
    two = make_run({"step": 1, "xy": 3.0}, {"step": 2, "xy": 2.5}, name="two")
    result = run("mcn-fig-5", "--runs", f"{one},{two}", "--out", tmp_path / "f.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "f.png") as picture:
        assert all(len(heights(picture.convert("RGB"), colour)) for colour in COLOURS[:2])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["smcim-fig-7"], 2, "--run RUN"),
        (["smcim-fig-7", "--run", "a,b"], 2, "one folder"),
        (["smcim-fig-7", "--run", "none"], 1, "metrics.jsonl"),
        (["mcn-fig-5", "--runs", " , "], 2, "--runs A,B"),
        (["mcn-fig-5", "--runs", "a", "more"], 2, "'more'"),
        (["mcn-fig-5", "--runs", "a", "--out", "f.gif"], 1, ".png"),
        (["smcim-fig-9", "photo.png"], 2, "IMAGE PHRASE"),
        (["smcim-fig-9", "--model", "a,b", "photo.png", "dog"], 2, "one model"),
        (["smcim-fig-9", "none.png", "dog"], 1, "none.png"),
        (["mcn-table-1", "--runs", "a"], 2, "--runs goes with"),
        (["smcim-fig-3"], 2, "smcim-fig-9"),
    ],
)
def test_reproduce_when_a_figure_is_asked_for_wrongly_then_one_sentence(
    tmp_path, monkeypatch, arguments, status, words
):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


# Pictures of a model


class SmallEncoder(nn.Module):
    """An image encoder of a thousand parameters with the interface of the real ones."""

    channels = (6, 8, 10)
    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, stride=8)
        self.down = nn.ModuleList((nn.Conv2d(6, 8, 2, stride=2), nn.Conv2d(8, 10, 2, stride=2)))

    def forward(self, pixels):
        fine = self.stem(pixels)
        middle = self.down[0](fine)
        return ThreeScales(fine, middle, self.down[1](middle))

    def frozen_parameters(self):
        return []


@pytest.fixture
def checkpoint(monkeypatch, bert_folder, tmp_path):
    monkeypatch.setattr("deixis.models.smcim.model.build_smcim_encoder", lambda name: SmallEncoder())
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=12)
    torch.manual_seed(0)
    fields = {"text_dim": 12, "text_heads": 2, "image_size": 64, "group_dim": 8, "group_heads": 2, "merge_heads": 3}
    model = SmcimModel(preset("smcim-tiny", **fields, vocab_size=tokenizer.vocab_size, max_tokens=12)).eval()
    save_checkpoint(tmp_path / "model", model, tokenizer)
    return tmp_path / "model"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (*HW, 3), dtype=np.uint8)).save(path)
    return path


def test_reproduce_smcim_fig_9_when_run_then_the_photo_with_its_box_stands_beside_the_attention(
    checkpoint, photo, tmp_path
):
    out = tmp_path / "f.png"
    result = run("smcim-fig-9", "--model", checkpoint, photo, "red balls", "--out", out)
    assert result.exit_code == 0, result.output
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 2 * HW[1] + 6
    red = (pixels[-HW[0] :] == (255, 64, 64)).all(-1)
    assert red[:, : HW[1]].any()
    np.testing.assert_array_equal(red[:, : HW[1]], red[:, -HW[1] :])


def test_ground_attention_when_smcim_then_its_words_stand_above_the_map(checkpoint, photo, tmp_path):
    out = tmp_path / "a.png"
    arguments = ["ground", photo, "red balls", "--model", checkpoint, "--attention", out]
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == HW[1]
    assert (pixels[: -HW[0]] == COLOUR_STOPS[-1]).all(-1).any()  # the word of the largest share


def test_reproduce_mcn_fig_6_when_two_models_then_one_below_the_other(make_mcn_checkpoint, checkpoint, photo, tmp_path):
    pictures = []
    for models in (make_mcn_checkpoint(), f"{make_mcn_checkpoint('single-rec-13')},{checkpoint}"):
        result = run("mcn-fig-6", "--model", models, photo, "red dog", "--out", tmp_path / "f.png")
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / "f.png") as picture:
            pictures.append(picture.size)
    assert pictures[0][0] == 3 * HW[1] + 6  # drawn, box, mask
    assert pictures[1][0] == 2 * HW[1]  # drawn, and [CLS]'s attention of the second
    assert pictures[1][1] > 2 * HW[0]


def test_reproduce_smcim_fig_9_when_the_model_has_no_cls_then_one_sentence(make_mcn_checkpoint, photo, tmp_path):
    result = run("smcim-fig-9", "--model", make_mcn_checkpoint(), photo, "red dog", "--out", tmp_path / "f.png")
    assert result.exit_code == 1
    assert "smcim family" in result.stderr
    assert not (tmp_path / "f.png").exists()
