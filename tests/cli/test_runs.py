"""``deixis runs compare``: what it says of two runs."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.cli.runs import losses_side_by_side, recipe_differences
from deixis.train.recipes import recipe


def run(*arguments):
    return CliRunner().invoke(app, ["runs", "compare", *map(str, arguments)])


def write_run(folder, losses, **fields):
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(recipe("debug", **fields).flat()))
    rows = [{"step": step, "seconds": 0.1, **row} for step, row in enumerate(losses, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def two(tmp_path):
    one = write_run(tmp_path / "one", [{"loss": 8.0 - step, "box": 1.0} for step in range(4)], lr=1e-3)
    other = [{"loss": 4.0 - step, "mask": 0.5} for step in range(6)]
    fields = {**recipe("debug").model.fields, "context_dim": 64}
    return one, write_run(tmp_path / "two", other, lr=2e-3, model_fields=fields)


def test_differences_when_fields_differ_then_a_line_each_and_inner_fields_by_themselves():
    one = {"lr": 1e-3, "steps": 5, "model_fields": {"dim": 8, "heads": 2}}
    two = {"lr": 2e-3, "steps": 5, "model_fields": {"dim": 8, "heads": 4, "more": True}}
    assert recipe_differences(one, two) == [
        "lr: 0.001 | 0.002", "model_fields.heads: 2 | 4", "model_fields.more: null | true",
    ]  # fmt: skip
    assert recipe_differences(one, one) == []


def test_losses_when_of_two_runs_then_means_over_the_steps_that_both_have():
    one = {"loss": [(step, float(step)) for step in range(1, 17)]}
    two = {"loss": [(step, 2.0 * step) for step in range(1, 25)], "box": [(16, 0.5)]}
    lines = [line.split() for line in losses_side_by_side(one, two).splitlines()]
    assert lines[0] == ["loss", "to", "step", "A", "B", "B", "-", "A"]
    assert lines[1] == ["2", "1.5", "3", "+1.5"]
    assert lines[8] == ["16", "15.5", "31", "+15.5"]
    assert lines[10] == ["steps", "15", "to", "16", "A", "B", "B", "-", "A"]
    assert lines[12] == ["box", "-", "0.5", "-"]


def test_compare_when_run_then_differences_losses_and_curves(two, tmp_path):
    done = run(*two, "--out", tmp_path / "curves.png")
    assert done.exit_code == 0, done.stderr
    assert "model_fields.context_dim: 32 | 64\nlr: 0.001 | 0.002\n" in done.stdout
    assert ["4", "5", "1", "-4"] in [line.split() for line in done.stdout.splitlines()]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 700


def test_compare_when_recipes_are_the_same_then_said(two):
    assert "The recipes are the same." in run(two[0], two[0]).stdout


@pytest.mark.parametrize("spoil", ["no log", "empty log", "no recipe", "not a run"])
def test_compare_when_a_folder_is_no_run_then_one_sentence_names_it(two, tmp_path, spoil):
    if spoil == "no log":
        (two[1] / "metrics.jsonl").unlink()
    elif spoil == "empty log":
        (two[1] / "metrics.jsonl").write_bytes(b"\xff\x00{")
    elif spoil == "no recipe":
        (two[1] / "recipe.json").unlink()
    folder = tmp_path / "nothing" if spoil == "not a run" else two[1]
    done = run(two[0], folder)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert folder.name in done.stderr
    assert done.stderr.startswith("deixis: expected")


def test_compare_when_out_is_no_png_then_refused_before_work(two, tmp_path):
    done = run(*two, "--out", tmp_path / "curves.txt")
    assert done.exit_code == 1
    assert "expected a file ending in .png" in done.stderr
