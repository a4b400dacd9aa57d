"""``deixis data leaks``: what it prints and writes, and how it ends."""

import json

import pytest
from typer.testing import CliRunner

from deixis.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["data", "leaks", *(str(one) for one in arguments)])


@pytest.fixture
def files(tmp_path):
    for name, images in (("train", (1, 2)), ("val", (2, 3)), ("test", (4,))):
        rows = [{"image": f"COCO_train2014_{i:012d}.jpg", "phrase": "dog", "box": [1, 2, 3, 4]} for i in images]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_leaks_when_an_image_is_shared_then_a_table_and_status_1(files):
    result = run("--train", files / "train.jsonl", "--eval", files / "val.jsonl")
    assert result.exit_code == 1
    assert "coco:2 is coco:2, by COCO id" in result.stdout
    assert "1 of 2" in result.stdout
    assert "also trained on" in result.stdout


def test_leaks_when_nothing_is_shared_then_status_0(files):
    result = run("--train", files / "train.jsonl", "--eval", files / "test.jsonl")
    assert result.exit_code == 0, result.output
    assert "no leaks found" in result.stdout


def test_leaks_json_when_several_pairs_then_one_object(files):
    arguments = ("--train", files / "train.jsonl", "--eval", files / "test.jsonl", "--eval", files / "val.jsonl")
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout, parse_constant=pytest.fail)
    assert report["clean"] is False
    assert [(one["clean"], one["images"], one["triples"]) for one in report["pairs"]] == [(True, 0, 0), (False, 1, 1)]


def test_leaks_when_exclusions_are_wanted_then_the_mix_leaves_them_out(files):
    out = files / "x.json"
    result = run("--train", files / "train.jsonl", "--eval", files / "val.jsonl", "--write-exclusions", out)
    assert result.exit_code == 1
    assert "images to leave out of training written to" in result.stderr
    arguments = ["--root", files, "--part", files / "train.jsonl", "--exclude", out, "--json"]
    made = CliRunner().invoke(app, ["data", "make", "mixed", *(str(one) for one in arguments)])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["parts"][0]["measured_on"] == 1
    assert json.loads(made.stdout)["written"] == 1
    again = run("--train", files / "mixed/train.jsonl", "--eval", files / "val.jsonl")
    assert again.exit_code == 0, again.output


def test_leaks_when_images_cannot_be_compared_then_told(files):
    (files / "mine.jsonl").write_text('{"image": "gone.jpg", "phrase": "dog", "box": null}\n')
    result = run("--train", files / "mine.jsonl", "--eval", files / "val.jsonl")
    assert result.exit_code == 0
    assert "3 images without an id were not compared" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("--train", "gone.jsonl", "--eval", "gone.jsonl"), 1, "expected a file of JSON lines"),
        (("--train", "scenes:train", "--eval", "scenes:val"), 1, "scenes are drawn"),
        (("--train", "a.jsonl", "--eval", "b.jsonl", "--write-exclusions", "none/x.json"), 1, "an existing folder"),
        (("--train", "a.jsonl"), 2, "--eval"),
    ],
)
def test_leaks_when_it_cannot_be_done_then_one_line(arguments, status, why):
    result = run(*arguments)
    assert result.exit_code == status
    assert why in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
