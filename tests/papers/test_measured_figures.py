"""Figures that are measured on data: bars by length, boxes beside the truth, learning by kept states, speed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from typer.testing import CliRunner

from deixis.charts import COLOURS as CHART_COLOURS
from deixis.cli import app
from deixis.data import open_dataset
from deixis.drawing import COLOURS
from deixis.grounder import load
from deixis.hub import load_checkpoint, save_checkpoint
from deixis.papers import figures
from deixis.papers.figures import (
    ByLength,
    Learning,
    format_lengths,
    mcn_fig_5_a,
    mcn_fig_5_accuracy,
    measure_learning,
    measure_lengths,
    smcim_fig_5,
)
from deixis.papers.measure import GivenModel, Measured, Meter
from deixis.papers.qualitative import Case, Cases, describe_cases, find_cases, smcim_fig_8
from deixis.papers.tables import EXPERIMENTS, IE, REC, RES, structures_everywhere


def run(*arguments):
    return CliRunner().invoke(app, ["reproduce", *(str(one) for one in arguments)])


def colours_in(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return {
            tuple(colour) for colour in np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).tolist()
        }


# SMCIM Fig. 5


def sliced(**groups):
    parts = {name: {"n": n, "rec.acc@0.5": share} for name, (n, share) in groups.items()}
    return {"slices": {"length": parts}}


@pytest.fixture
def by_split(monkeypatch):
    """Reports of two models by split; "b" is half as good."""
    reports = {
        "scenes:testA": sliced(**{"1-2": (10, 0.5), "3": (10, 1.0)}),
        "scenes:testB": sliced(**{"1-2": (30, 0.9), "6+": (5, 0.2)}),
    }

    def report(meter, model, data, suppression=None):
        known = reports.get(data, sliced(**{"1-5": (4, 0.25)}))["slices"]["length"]
        factor = 0.5 if model == "b" else 1.0
        return sliced(**{name: (one["n"], factor * one["rec.acc@0.5"]) for name, one in known.items()})

    monkeypatch.setattr(Meter, "report", report)


def test_lengths_when_two_splits_are_one_test_set_then_groups_are_added_up_by_phrases(by_split, tmp_path):
    models = [GivenModel(name=name, checkpoints={"": name}) for name in "ab"]
    first, *others = measure_lengths("small", Meter(out=tmp_path), models)
    assert (first.dataset, first.measured_on) == ("RefCOCO", "scenes:testA and scenes:testB")
    assert (first.groups, first.counts) == (("1-2", "3", "6+"), (40, 10, 5))
    assert first.percent["a"] == pytest.approx((80.0, 100.0, 20.0))
    assert first.percent["b"] == pytest.approx((40.0, 50.0, 10.0))
    assert [one.dataset for one in others] == ["RefCOCO+", "RefCOCOg"]  # nothing drawn stands for ReferItGame


def test_lengths_when_told_then_margins_stand_beside_the_papers_only_where_groups_are_four():
    four = ByLength(
        dataset="RefCOCO", measured_on="x", groups=("1-2", "3", "4-5", "6+"), counts=(1, 2, 3, 4),
        percent={"a": (50.0, 60.0, 70.0, None), "b": (40.0, 65.0, 70.0, 1.0)},
    )  # fmt: skip
    lines = format_lengths([four, replace(four, groups=("1-2",), counts=(1,))]).splitlines()
    assert lines[2] == "| RefCOCO: x | 1-2 | 1 | 50.00 | 40.00 | +10.00 | +5.91 |"
    assert lines[3].endswith("| 60.00 | 65.00 | -5.00 | +3.99 |")
    assert lines[5].endswith("| - | 1.00 | - | +4.73 |")
    assert lines[6].endswith("| +10.00 | - |")


def test_smcim_fig_5_when_drawn_then_a_chart_a_data_set_and_a_bar_a_model():
    one = ByLength(
        dataset="RefCOCO", measured_on="x", groups=("1", "2"), counts=(1, 1),
        percent={"a": (100.0, 50.0), "b": (25.0, 0.0)},
    )  # fmt: skip
    first, _ = smcim_fig_5([one, one])
    assert first.groups == {"1": {"a": 100.0, "b": 25.0}, "2": {"a": 50.0, "b": 0.0}}
    assert first.up_label == "RefCOCO: Acc@0.5 on x, percent"


def test_reproduce_smcim_fig_5_when_run_then_table_and_picture(by_split, tmp_path):
    result = run("smcim-fig-5", "--model", "a,b", "--out", tmp_path / "f.png")
    assert result.exit_code == 0, result.output
    assert "| 1-2 | 40 | 80.00 | 40.00 | +40.00 |" in result.stdout
    assert {ImageColor.getrgb(one) for one in CHART_COLOURS[:2]} <= colours_in(tmp_path / "f.png")


# SMCIM Fig. 8


def test_smcim_fig_8_when_run_on_scenes_then_each_kind_is_counted_and_drawn(tiny_checkpoint):
    samples = open_dataset("scenes", split="val", limit=3)
    grounder = load(tiny_checkpoint, precision="float32")
    alone = find_cases(grounder, None, samples)
    assert alone.num_right + alone.num_wrong == alone.num_samples == 3
    assert len({case.sample.image_id for case in alone.wrong}) == len(alone.wrong)
    same = find_cases(grounder, grounder, samples)
    assert (same.num_right, same.num_wrong, same.right, same.wrong) == (0, 0, (), ())


def test_smcim_fig_8_when_drawn_then_three_boxes_of_three_colours(tiny_checkpoint):
    samples = open_dataset("scenes", split="val", limit=1)
    (case,) = find_cases(load(tiny_checkpoint, precision="float32"), None, samples).wrong
    far = replace(case.ours, box=(5.0, 5.0, 60.0, 60.0))
    near = replace(case.ours, box=(100.0, 100.0, 200.0, 250.0))
    cases = Cases(
        right=(Case(sample=case.sample, ours=far, baseline=near),), wrong=(), num_right=1, num_wrong=0, num_samples=1
    )
    shown = {tuple(colour) for colour in np.asarray(smcim_fig_8(cases)).reshape(-1, 3).tolist()}
    assert len(shown & set(COLOURS[:3])) == 3
    assert describe_cases(cases, "a", "b", "scenes").startswith(
        "scenes, 1 samples: only a is right in 1 of them, only b"
    )


def test_reproduce_smcim_fig_8_when_run_then_a_sentence_and_a_picture(tiny_checkpoint, tmp_path):
    out = tmp_path / "f.png"
    result = run("smcim-fig-8", "--model", tiny_checkpoint, "--data", "scenes:val", "--limit", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert "scenes:val, 2 samples:" in result.stdout
    assert len(colours_in(out)) > 10


# MCN Fig. 5


@pytest.fixture
def kept(tiny_checkpoint, tmp_path):
    """A run with two kept states: the averaged weights of the second are other ones."""
    made = load_checkpoint(tiny_checkpoint)
    folder = tmp_path / "run"
    save_checkpoint(folder / "checkpoint", made.model, made.tokenizer)
    average = {name: one.detach().clone() for name, one in made.model.named_parameters()}
    for step, scale in ((5, 1.0), (10, 0.0)):
        state = {"step": step, "model": made.model.state_dict()}
        state["average"] = {name: scale * one for name, one in average.items()}
        torch.save(state, folder / f"state-{step:08}.pt")
    return folder


def test_learning_when_states_are_kept_then_each_is_measured_once_by_its_averaged_weights(kept, monkeypatch):
    samples = open_dataset("scenes", split="val", limit=2)
    seen = []
    measure = figures.evaluate

    def noted(grounder, *arguments, **options):
        seen.append(sum(float(one.detach().abs().sum()) for one in grounder.model.parameters()))
        return measure(grounder, *arguments, **options)

    monkeypatch.setattr(figures, "evaluate", noted)
    found = measure_learning(kept, samples, "scenes:val", precision="float32")
    assert found.steps == (5, 10)
    assert seen[0] > 0 == seen[1]
    assert all(len(values) == 2 for values in found.values.values())
    assert measure_learning(kept, samples, "scenes:val", precision="float32") == found
    assert len(seen) == 2


def test_learning_when_a_state_is_damaged_or_there_is_none_then_one_sentence(kept, tmp_path):
    samples = open_dataset("scenes", split="val", limit=1)
    (kept / "state-00000005.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"state-00000005\.pt"):
        measure_learning(kept, samples, "scenes:val")
    with pytest.raises(FileNotFoundError, match="--keep"):
        measure_learning(tmp_path, samples, "scenes:val")


def test_mcn_fig_5_accuracy_when_drawn_then_a_chart_a_branch_and_a_line_a_run():
    one = Learning(name="one", steps=(1, 2), values={REC: (10.0, 20.0), RES: (None, None)})
    two = Learning(name="two", steps=(1, 2), values={REC: (1.0, 2.0), RES: (5.0, 6.0)})
    boxes, masks = mcn_fig_5_accuracy([one, two], "scenes:val")
    assert [line.name for line in boxes.lines] == ["one", "two"]
    assert [line.name for line in masks.lines] == ["two"]
    assert masks.lines[0].points == [(1, 5.0), (2, 6.0)]
    assert mcn_fig_5_accuracy([replace(one, values={REC: (None, None), RES: (None, None)})], "scenes:val") == []


def test_reproduce_mcn_fig_5_when_data_is_named_then_accuracy_of_the_kept_states(kept, tmp_path):
    out = tmp_path / "f.png"
    result = run("mcn-fig-5", "--runs", kept, "--data", "scenes:val", "--limit", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert len(colours_in(out)) > 2
    stored = json.loads((kept / "learning.json").read_text())
    assert [list(one) for one in stored.values()] == [["state-00000005.pt", "state-00000010.pt"]]


def test_mcn_fig_5_a_when_drawn_then_bars_of_both_branches_by_data_set():
    measured = []
    for experiment in structures_everywhere("small"):
        values = [(40.0, None) if row.name.startswith("Single_REC") else (None, 20.0) for row in experiment.rows]
        rows = [
            Measured(row, ((boxes,), (masks,))) for row, (boxes, masks) in zip(experiment.rows, values, strict=True)
        ]
        measured.append((experiment, rows))
    boxes, masks = mcn_fig_5_a(measured)
    assert list(boxes.groups) == list(masks.groups) == ["scenes:val", "scenes+:val", "scenesg:val"]
    assert [len(panel.groups["scenes:val"]) for panel in (boxes, masks)] == [2, 6]


def test_columns_of_table_3_when_drawn_then_boxes_and_masks():
    assert EXPERIMENTS["mcn-table-3"].columns == (REC, RES)
    assert IE not in EXPERIMENTS["mcn-table-3"].columns


# SMCIM Fig. 2


def test_reproduce_smcim_fig_2_when_run_then_measured_points_beside_the_printed_ones(
    tiny_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "TIMING_ROUNDS", 1)
    monkeypatch.setattr(Meter, "report", lambda *a: {"rec": {"acc@0.5": 0.5}, "res": None, "ie": None})
    result = run("smcim-fig-2", "--model", tiny_checkpoint, "--out", tmp_path / "f.png")
    assert result.exit_code == 0, result.output
    assert "| printed: smcim-r50 | 31.5 | 73.54 | GTX 1080 Ti; RefCOCO+ val |" in result.stdout
    assert "| printed: smcim-r101, with large-scale pre-training | 24.6 | 82.47 |" in result.stdout
    assert "| 50.00 |" in result.stdout
    assert ImageColor.getrgb(CHART_COLOURS[0]) in colours_in(tmp_path / "f.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smcim-fig-8", "--model", "a,b,c"], "A,BASELINE"),
        (["smcim-fig-5", "--plan"], "--plan"),
        (["smcim-fig-5", "--data", "scenes"], "--data"),
        (["smcim-fig-2", "--steps", "1"], "--steps 1"),
        (["mcn-fig-5a", "--model", "a"], "--model"),
        (["smcim-fig-7", "--data", "scenes"], "--data"),
    ],
)
def test_reproduce_when_a_figure_does_nothing_with_an_option_then_it_is_refused(
    tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
