"""``deixis data make mixed``: what it prints and writes, and how it ends."""

import json

import pytest
from typer.testing import CliRunner

from deixis.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["data", "make", "mixed", *(str(one) for one in arguments)])


@pytest.fixture
def pairs(tmp_path):
    rows = [{"image": f"{i}.jpg", "phrase": f"dog {i}", "box": [1, 2, 3, 4]} for i in range(3)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"phrase": ""}]))
    return path


def test_make_mixed_when_a_part_is_named_then_written_and_told(pairs, tmp_path):
    result = run("--root", tmp_path, "--part", pairs, "--part", pairs)
    assert result.exit_code == 0, result.output
    assert "3 samples written to" in result.stdout
    assert "line 4: expected words" in result.stderr
    assert "3 images could not be identified" in result.stderr
    assert len((tmp_path / "mixed/train.jsonl").read_text().splitlines()) == 3


def test_make_mixed_json_when_asked_then_the_record(pairs, tmp_path):
    result = run("--root", tmp_path, "--part", pairs, "--out", tmp_path / "out", "--json", "--keep-measured")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "out/mix.json").read_text())


def test_make_mixed_when_it_cannot_be_done_then_one_line(pairs, tmp_path):
    for arguments, why in (
        (("--root", tmp_path), "expected one of refcoco:train"),
        (("--root", tmp_path, "--part", "gone.jsonl"), "expected a file of JSON lines"),
        (("--root", tmp_path, "--part", pairs, "--out", pairs), "expected a folder for the mix"),
        (("--root", tmp_path, "--part", pairs, "--exclude", tmp_path / "gone.json"), "expected a JSON file"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert why in result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == ""
    assert run().exit_code == 2
