"""``deixis data check``: what it prints, and how it ends."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["data", "check", *(str(one) for one in arguments)])


@pytest.fixture
def pairs(tmp_path):
    Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / "a.png")

    def write(*changes):
        row = {"image": "a.png", "phrase": "left dog", "box": [10, 10, 40, 40], "split": "train"}
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row | change) + "\n" for change in changes))
        return path

    return write


def test_check_when_nothing_is_wrong_then_status_0(pairs):
    result = run(pairs({}))
    assert result.exit_code == 0, result.output
    assert "1 samples, 0 left out, 1 images" in result.stdout
    assert "no problems found" in result.stdout
    assert "0 errors, 0 warnings" in result.stdout


def test_check_when_there_is_no_sample_then_an_error(pairs):
    result = run(pairs())
    assert result.exit_code == 1
    assert "splits without a sample" in result.stdout


def test_check_when_the_split_is_not_there_then_one_sentence(pairs):
    result = run(f"{pairs({})}:tset")
    assert result.exit_code == 1
    assert "expected lines of the split 'tset', got the splits ['train']; choose one of these\n" in result.stderr


def test_check_when_warnings_alone_then_status_0(pairs):
    result = run(pairs({}, {}))
    assert result.exit_code == 0
    assert "0 errors, 1 warnings" in result.stdout
    assert "duplicates" not in result.stdout
    assert "repeats" in result.stdout


def test_check_when_there_are_errors_then_a_table_and_status_1(pairs):
    path = pairs({"image": "gone.png"}, {"phrase": "cafÃ©"})
    result = run(f"{path}:train")
    assert result.exit_code == 1
    assert f"{path}:train: 2 samples" in result.stdout  # and no picture of a train
    assert "2 errors, 0 warnings" in result.stdout
    assert "gone.png" in result.stdout.replace("\n", "").replace("│", "").replace(" ", "")
    assert result.stderr == ""


def test_check_json_when_errors_then_one_object_and_status_1(pairs):
    result = run(pairs({}, {"box": [100, 10, 120, 40]}), "--json", "--images", "all")
    assert result.exit_code == 1
    report = json.loads(result.stdout, parse_constant=pytest.fail)
    assert report["errors"] == 1
    (split,) = report["splits"]
    assert {"samples": 2, "images_decoded": 1, "boxes_checked": 2, "warnings": 0}.items() <= split.items()
    (finding,) = split["findings"]
    assert (finding["kind"], finding["severity"], finding["count"]) == ("box outside", "error", 1)
    assert "(100, 10, 120, 40) in an image of 100 x 50 pixels" in finding["examples"][0]


def test_check_when_compared_with_a_published_data_set_then_its_counts_tell(pairs):
    result = run(f"{pairs({})}:train", "--as", "refcoco", "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["splits"][0]["findings"]
    assert finding["kind"] == "counts"
    assert "1 expressions; published: 120,624 (MCN paper, section 4.1)" in finding["examples"]


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("gone.jsonl",), 1, "expected a file of JSON lines"),
        (("cats",), 1, "expected a data set out of"),
        (("refcoco",), 1, "expected a root"),
        (("gone.jsonl", "--as", "cats"), 1, "got 'cats'"),
        (("gone.jsonl", "--images", "some"), 2, "some"),
    ],
)
def test_check_when_it_cannot_be_done_then_one_line(arguments, status, why):
    result = run(*arguments)
    assert result.exit_code == status
    assert why in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
