"""``deixis score``: what it prints and writes, and how it ends."""

import json

import pytest
from typer.testing import CliRunner

from deixis.cli import app


@pytest.fixture
def files(tmp_path):
    data = [{"id": i, "image": f"{i}.jpg", "phrase": "left dog", "box": [0, 0, 10, 10]} for i in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in data))
    answers = [{"id": i, "box": [0, 0, 10, 8]} for i in (2, 0, 1)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["score", *map(str, arguments)])


def test_score_when_run_then_table_and_problems(files):
    done = run(files / "answers.jsonl", files / "data.jsonl")
    assert done.exit_code == 0
    assert "4 samples, 3 lines, 3 answered" in done.stdout
    assert "1 samples without a line, wrong" in done.stdout
    assert "75.0" in done.stdout
    assert "95 % from" in done.stdout
    assert "'3'" in done.stderr


def test_score_when_json_then_one_object_and_out_holds_the_problems(files):
    done = run(
        files / "answers.jsonl", files / "data.jsonl", "--json", "--out", files / "score.json", "--official", "mdetr",
        "--bootstrap", 0,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["rec"]["acc@0.5"] == 0.75
    assert report["answered"]["rec"]["acc@0.5"] == 1.0
    assert report["counts"]["missing"] == 1
    assert report["official"]["name"] == "mdetr"
    assert set(report["ci95"].values()) == {None}
    written = json.loads((files / "score.json").read_text())
    assert {**report, "problems": written["problems"]} == written


def test_score_when_boxes_are_declared_then_read_so(files):
    done = run(files / "answers.jsonl", files / "data.jsonl", "--json", "--box-format", "cxcywh")
    assert json.loads(done.stdout)["rec"]["acc@0.5"] == 0.0


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"\xff\xfe\x00", "UTF-8"), (b"[1, 2]", "one object a line"), (b'{"id": 9, "box": null}', "ids")],
)
def test_score_when_the_file_is_of_no_use_then_one_sentence_and_status_1(files, content, word):
    (files / "answers.jsonl").write_bytes(content)
    done = run(files / "answers.jsonl", files / "data.jsonl")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_score_when_out_is_one_of_the_inputs_then_refused_and_kept(files):
    for name in ("answers.jsonl", "data.jsonl"):
        before = (files / name).read_bytes()
        done = run(files / "answers.jsonl", files / "data.jsonl", "--out", files / name)
        assert done.exit_code == 1
        assert "which is read" in done.stderr
        assert (files / name).read_bytes() == before


def test_score_when_files_are_not_there_then_one_sentence(files):
    for arguments in (
        (files / "none.jsonl", files / "data.jsonl"),
        (files, files / "data.jsonl"),
        (files / "answers.jsonl", files / "none.jsonl"),
        (files / "answers.jsonl", "refcoco:val"),
        (files / "answers.jsonl", files / "data.jsonl", "--out", files / "none" / "x.json"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1
        assert done.stderr.startswith("deixis: expected")
