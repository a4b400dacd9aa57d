"""``deixis data convert``: what it writes and tells, and how it ends."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.data import open_dataset


def run(*arguments):
    return CliRunner().invoke(app, ["data", "convert", *(str(one) for one in arguments)])


@pytest.fixture
def pairs(tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "phrase": "left dog", "box": [1, 2, 31, 22], "split": "val", "category": "dog"},
        {"image": "a.png", "phrase": "zebra", "box": None, "split": "val"},
        {"image": "a.png", "phrase": "bad", "box": [9, 9, 1, 1]},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("out", "to"), [("unc_val.pth", ()), ("val.txt", ()), ("a.json", ("--to", "seqtr"))])
def test_convert_when_a_form_is_asked_for_then_written_and_what_is_lost_is_told(pairs, tmp_path, out, to):
    result = run(f"{pairs}:val", "--out", tmp_path / out, *to)
    assert result.exit_code == 0, result.output
    assert "1 samples written to " in result.stdout
    assert "1 left out" in result.stdout
    assert "cannot say that a phrase means nothing" in result.stderr
    assert "line 3: expected a box" in result.stderr
    assert ("lost: category (1 samples)" in result.stdout) == (not to)
    (sample,) = open_dataset(tmp_path / out, "val", root=tmp_path)
    assert (sample.phrase, sample.box_xyxy_px) == ("left dog", (1, 2, 31, 22))


def test_convert_when_samples_are_drawn_then_their_pictures_are_saved(tmp_path):
    result = run("scenes:val", "--limit", 3, "--out", tmp_path / "s.jsonl", "--pictures", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert "3 samples written" in result.stdout
    assert all(one.image.is_file() for one in open_dataset(tmp_path / "s.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--out", "a.json"), "expected --to out of jsonl, mdetr"),
        (("--out", "a.json", "--to", "voc"), "expected a form out of"),
        (("--out", "a.txt", "--masks", "png"), "masks out of"),
        (("--out", "none/a.txt"), "expected an existing folder"),
        (("--out", "unc.pth", "--images", "elsewhere"), "expected an image below"),
    ],
)
def test_convert_when_it_cannot_be_done_then_one_line_and_status_1(pairs, tmp_path, monkeypatch, arguments, why):
    monkeypatch.chdir(tmp_path)
    result = run(pairs, *arguments)
    assert result.exit_code == 1
    assert why in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
