"""``deixis data pack``, ``show`` and ``stats``: what they print and write, and how they end."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.data import open_dataset


@pytest.fixture
def pairs(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (80, 40), (200, 30, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [
        {"image": "a.png", "phrase": "left [red] dog", "box": [1, 2, 31, 22], "category": "dog", "split": "val"},
        {"image": "a.png", "phrase": "<b>zebra</b>", "box": None, "split": "val"},
        {"image": "b.png", "phrase": "a cup", "box": [5, 5, 25, 25], "mask": [[5, 5, 25, 5, 25, 25]], "split": "val"},
        {"image": "bad.png", "phrase": "a cat", "box": [5, 5, 25, 25], "split": "val"},
        {"image": "a.png", "phrase": "bad", "box": [9, 9, 1, 1]},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_pack_when_run_twice_then_samples_left_out_and_what_was_there_are_told(pairs, tmp_path):
    done = run("pack", f"{pairs}:val", "--size", 32, "--out", tmp_path / "pack")
    assert done.exit_code == 0, done.output
    assert "3 samples of 2 images packed in" in done.stdout
    assert "1 left out" in done.stdout
    assert "bad.png" in done.stderr
    assert "line 5" in done.stderr
    again = run("pack", f"{pairs}:val", "--size", 32, "--out", tmp_path / "pack")
    assert "1 files of pictures of at most 32 pixels a side, of which 1 were there" in again.stdout
    pack = open_dataset(tmp_path / "pack", "val")
    assert [one.phrase for one in pack] == ["left [red] dog", "<b>zebra</b>", "a cup"]
    assert pack.small(0).image.shape == (16, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("none.jsonl", "--out", "pack"), "none.jsonl"),
        (("pairs.jsonl", "--out", "a.png"), "expected a folder to write"),
        (("pairs.jsonl", "--out", "none/pack"), "expected an existing folder"),
        (("pairs.jsonl", "--out", "."), "expected an empty folder or a pack"),
        (("refcoco:val", "--out", "pack"), "expected a root"),
    ],
)
def test_pack_when_it_cannot_be_done_then_one_line_and_status_1(pairs, tmp_path, monkeypatch, arguments, why):
    monkeypatch.chdir(tmp_path)
    done = run("pack", *arguments)
    assert done.exit_code == 1
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_pack_when_out_is_the_pack_itself_then_refused(pairs, tmp_path):
    run("pack", pairs, "--out", tmp_path / "pack")
    done = run("pack", tmp_path / "pack", "--out", tmp_path / "pack")
    assert (done.exit_code, "the pack" in done.stderr) == (1, True)
    smaller = run("pack", tmp_path / "pack", "--size", 32, "--out", tmp_path / "smaller")
    assert smaller.exit_code == 0, smaller.output
    assert list(open_dataset(tmp_path / "smaller")) == list(open_dataset(tmp_path / "pack"))


@pytest.mark.parametrize("name", ["sheet.png", "page.html"])
def test_show_when_a_sample_cannot_be_drawn_then_the_others_are_and_it_is_told(pairs, tmp_path, name):
    done = run("show", f"{pairs}:val", "--out", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert "3 samples drawn to" in done.stdout
    assert "bad.png" in done.stderr
    if name.endswith("png"):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.size == (3 * 326 + 6, 332)
    else:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.count("<img ") == 3
        assert "&lt;b&gt;zebra&lt;/b&gt;" in text
        assert "<b>" not in text


@pytest.mark.parametrize("name", ["sheet.png", "page.html"])
def test_show_when_nothing_can_be_drawn_then_no_file(tmp_path, name):
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": "none.png", "phrase": "a", "box": [1, 1, 2, 2]}))
    done = run("show", tmp_path / "x.jsonl", "--out", tmp_path / name)
    assert done.exit_code == 1
    assert "expected samples that can be drawn" in done.stderr
    assert not (tmp_path / name).exists()


def test_stats_when_json_then_one_object_and_when_not_a_table(pairs, tmp_path):
    done = run("stats", f"{pairs}:val", "--json", "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["dataset"], report["split"], report["samples"], report["nothing_meant"]) == (str(pairs), "val", 4, 1)
    assert report["boxes"]["small"] == 3
    assert len(report["boxes"]["histogram"]) == 20
    assert sum(report["boxes"]["histogram"]) == 2  # the size of bad.png is not known
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.height == 4 * 360
    table = run("stats", pairs)
    assert table.exit_code == 0
    assert "phrases that mean nothing" in table.stdout
    assert "red 1" in table.stdout


def test_stats_when_scenes_then_a_part_is_drawn_and_told(monkeypatch):
    monkeypatch.setattr("deixis.cli.data.SCENES_READ", 3)
    done = run("stats", "scenes", "--json")
    assert "drawing 3 of" in done.stderr
    assert json.loads(done.stdout)["samples"] == 3


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 50_000, b'{"image": NaN}'])
@pytest.mark.parametrize("command", [("stats",), ("show", "--out", "s.png"), ("pack", "--out", "pack")])
def test_commands_when_the_file_is_of_no_use_then_one_sentence(tmp_path, monkeypatch, command, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_bytes(content)
    done = run(command[0], "x.jsonl", *command[1:])
    assert done.exit_code == 1
    assert done.stderr.startswith("deixis: ")
    assert "Traceback" not in done.output
