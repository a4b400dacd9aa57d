"""The command line, over a very small model with random weights: what it prints, writes, and how it ends."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from deixis.cli import app
from deixis.cli.batch import read_request
from deixis.cli.evaluate import Suppression
from deixis.cli.models import describe_checkpoint, flatten
from deixis.cli.running import sentence, tell_problems
from deixis.cli.train import parse_fields, read_recipe
from deixis.config import SUPPRESSIONS, preset
from deixis.geometry.images import read_image
from deixis.geometry.masks import decode_rle
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import WordTokenizer
from deixis.models.deixis.model import DeixisModel
from deixis.train.recipes import recipe

HW = (48, 80)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint folder of the smallest sizes."""
    torch.manual_seed(0)
    config = preset(
        "deixis-tiny-glove",
        image_encoder="yolov3-tiny",  # its largest kernels are stored as int8
        context_dim=32, context_layers=1, context_heads=2, group_dim=16, merge_heads=2, group_heads=2,
        text_dim=32, vocab_size=6, mask_dim=8, candidates=12, cells=3, image_size=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "smallest"
    words = WordTokenizer(["left", "right", "dog", "cat"], max_tokens=config.max_tokens)
    save_checkpoint(folder, DeixisModel(config), words, metrics={"scenes:val": {"acc@0.5": 0.25}})
    return folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def same_precision_everywhere(monkeypatch):
    """Expected values must not depend on what the processor of the test machine can do."""
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: False)


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def run_process(*arguments, **options):
    command = [sys.executable, "-m", "deixis", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def write_lines(path, *rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_one_sentence(result, *words):
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("deixis: ")
    for word in words:
        assert str(word) in line


# One image


def test_ground_json_when_two_phrases_then_one_finite_object_a_line(checkpoint, photo):
    result = run("ground", photo, "left dog", "cat", "--model", checkpoint, "--json")
    assert result.exit_code == 0
    rows = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    assert [row["phrase"] for row in rows] == ["left dog", "cat"]
    for row in rows:
        assert set(row) == {"image", "phrase", "box", "score", "agreement", "found", "mask", "model", "ms"}
        x1, y1, x2, y2 = row["box"]
        assert 0 <= x1 < x2 <= HW[1]
        assert 0 <= y1 < y2 <= HW[0]
        assert 0 <= row["score"] <= 1
        assert 0 <= row["agreement"] <= 1
        assert isinstance(row["found"], bool)
        assert decode_rle(row["mask"]).shape == HW
        assert row["image"] == str(photo)


def test_ground_table_when_phrase_looks_like_markup_then_it_is_printed_as_it_is(checkpoint, photo):
    result = run("ground", photo, "[red] dog", "--model", checkpoint)
    assert result.exit_code == 0
    assert "[red] dog" in result.stdout
    assert "score" in result.stdout


def test_ground_pictures_when_two_phrases_then_one_overlay_and_two_masks(checkpoint, photo, tmp_path):
    overlay, mask = tmp_path / "over.png", tmp_path / "mask.png"
    result = run("ground", photo, "dog", "cat", "--model", checkpoint, "--overlay", overlay, "--mask", mask, "--json")
    assert result.exit_code == 0
    assert read_image(overlay).shape == (*HW, 3)
    for row, name in zip(map(json.loads, result.stdout.splitlines()), ("mask-1.png", "mask-2.png"), strict=True):
        stored = read_image(tmp_path / name)[..., 0]
        assert set(np.unique(stored)) <= {0, 255}
        np.testing.assert_array_equal(stored == 255, decode_rle(row["mask"]))
    assert not mask.exists()


def test_ground_mask_when_one_phrase_then_the_name_is_kept(checkpoint, photo, tmp_path):
    assert run("ground", photo, "dog", "--model", checkpoint, "--mask", tmp_path / "m.png").exit_code == 0
    assert read_image(tmp_path / "m.png").shape == (*HW, 3)


def test_ground_when_model_is_of_the_mcn_family_then_as_with_any_other(make_mcn_checkpoint, photo, tmp_path):
    mask = tmp_path / "mask.png"
    result = run("ground", photo, "left dog", "--model", make_mcn_checkpoint(), "--json", "--mask", mask)
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout, parse_constant=pytest.fail)
    assert row["model"] == "mcn"
    np.testing.assert_array_equal(read_image(mask)[..., 0] == 255, decode_rle(row["mask"]))


def test_ground_when_model_gives_masks_only_then_a_dash_for_the_box(make_mcn_checkpoint, photo, tmp_path):
    folder, overlay = make_mcn_checkpoint("single-res-52"), tmp_path / "over.png"
    result = run("ground", photo, "dog", "--model", folder, "--overlay", overlay, "--mask", tmp_path / "m.png")
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.stdout.splitlines() if "dog" in line]
    assert row.split("│")[2].strip() == "-"
    assert read_image(overlay).shape == read_image(tmp_path / "m.png").shape == (*HW, 3)


def test_ground_when_model_gives_boxes_only_then_mask_is_null_and_the_overlay_drawn(
    make_mcn_checkpoint, photo, tmp_path
):
    folder, overlay = make_mcn_checkpoint("single-rec-13"), tmp_path / "over.png"
    result = run("ground", photo, "dog", "cat", "--model", folder, "--json", "--overlay", overlay)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    assert [(row["mask"], len(row["box"])) for row in rows] == [(None, 4), (None, 4)]
    assert read_image(overlay).shape == (*HW, 3)
    source = write_lines(tmp_path / "in.jsonl", {"image": "photo.png", "phrase": "dog"})
    batched = run("ground", "--batch", source, "--out", tmp_path / "out.jsonl", "--model", folder)
    assert batched.exit_code == 0, batched.output
    batched_row = read_lines(tmp_path / "out.jsonl")[0]
    assert {**batched_row, "ms": 0, "image": ""} == {"line": 1, **rows[0], "ms": 0, "image": ""}


# A user's mistakes: one sentence and status 1


@pytest.mark.parametrize("phrases", [["dog"], ["dog", "cat"]], ids=len)
def test_ground_mask_when_model_gives_boxes_only_then_one_sentence_names_it(
    make_mcn_checkpoint, photo, tmp_path, phrases
):
    folder = make_mcn_checkpoint("single-rec-13")
    pictures = ("--overlay", tmp_path / "o.png", "--mask", tmp_path / "m.png")
    result = run("ground", photo, *phrases, "--model", folder, *pictures)
    assert_one_sentence(result, "expected", "--mask", "'single-rec-13'")
    assert not result.stdout
    assert [path.name for path in tmp_path.glob("*.png")] == ["photo.png"]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "cut"])
def test_ground_when_file_is_no_image_then_one_sentence(checkpoint, tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    assert_one_sentence(run("ground", path, "dog", "--model", checkpoint), "bad.png")


def test_ground_when_image_is_missing_then_one_sentence(checkpoint, tmp_path):
    assert_one_sentence(run("ground", tmp_path / "none.jpg", "dog", "--model", checkpoint), "none.jpg")


def test_ground_when_image_is_a_folder_then_one_sentence(checkpoint, tmp_path):
    assert_one_sentence(run("ground", tmp_path, "dog", "--model", checkpoint), tmp_path.name)


@pytest.mark.parametrize("phrase", ["", "   ", "x" * 10_000], ids=["empty", "blank", "long"])
def test_ground_when_phrase_cannot_be_used_then_one_sentence(checkpoint, photo, phrase):
    assert_one_sentence(run("ground", photo, phrase, "--model", checkpoint), "phrase")


def test_ground_when_model_is_unknown_then_one_sentence_names_it(photo):
    assert_one_sentence(run("ground", photo, "dog", "--model", "no-such-model"), "no-such-model")


def test_ground_when_weights_are_damaged_then_one_sentence(checkpoint, photo, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in checkpoint.iterdir():
        data = file.read_bytes()
        (damaged / file.name).write_bytes(data[:1000] if file.suffix == ".safetensors" else data)
    assert_one_sentence(run("ground", photo, "dog", "--model", damaged), "safetensors")


@pytest.mark.parametrize(
    ("option", "name", "word"),
    [("--overlay", "o.txt", ".png"), ("--mask", "m.jpg", ".png"), ("--overlay", "none/o.png", "folder")],
)
def test_ground_when_picture_cannot_be_written_then_one_sentence(checkpoint, photo, tmp_path, option, name, word):
    result = run("ground", photo, "dog", "--model", checkpoint, option, tmp_path / name)
    assert_one_sentence(result, word)
    assert not result.stdout


def test_ground_when_the_overlay_is_the_photo_then_refused_and_the_photo_kept(checkpoint, photo):
    before = photo.read_bytes()
    assert_one_sentence(run("ground", photo, "dog", "--model", checkpoint, "--overlay", photo), "which is read")
    assert photo.read_bytes() == before


def test_ground_when_debug_then_the_error_itself_comes_through(checkpoint, tmp_path):
    missing = tmp_path / "none.jpg"
    for arguments in (["--debug", "ground", missing, "dog"], ["ground", missing, "dog", "--debug"]):
        assert isinstance(run(*arguments).exception, FileNotFoundError)


def test_ground_when_debug_stands_after_two_dashes_then_it_is_a_phrase(checkpoint, photo):
    result = run("ground", photo, "--model", checkpoint, "--json", "--", "--debug")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["phrase"] == "--debug"


def test_ground_when_interrupted_then_status_130(photo, monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("deixis.grounder.load", interrupt)
    result = run("ground", photo, "dog")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("shapes\ndiffer"), "RuntimeError: shapes differ"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "got MemoryError;"),
        (pickle.UnpicklingError("no pickle"), "UnpicklingError: no pickle"),
    ],
)
def test_ground_when_something_unforeseen_fails_then_one_sentence_and_debug_shows_it(photo, monkeypatch, error, words):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("deixis.grounder.load", fail)
    assert_one_sentence(run("ground", photo, "dog"), "expected", words, "--debug")
    assert run("ground", photo, "dog", "--debug").exception is error


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_ground_when_an_output_is_closed_then_no_traceback(checkpoint, photo, closed):
    command = f'exec "$@" {"1" if closed == "stdout" else "2"}>&-'
    arguments = ["ground", str(photo), "dog", "--model", str(checkpoint), "--precision", "float32"]
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "deixis", *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("score" in done.stdout) == (closed == "stderr")


def test_sentence_when_error_is_the_systems_own_then_reason_and_file():
    assert sentence(PermissionError(13, "Permission denied", "a.png")) == "Permission denied: a.png"
    assert sentence(ValueError("two\nlines")) == "two lines"


def test_ground_attention_when_model_has_none_then_nothing_is_printed_or_written(make_mcn_checkpoint, photo, tmp_path):
    pictures = ("--mask", tmp_path / "m.png", "--attention", tmp_path / "a.png")
    result = run("ground", photo, "dog", "--model", make_mcn_checkpoint(cem="off"), *pictures)
    assert_one_sentence(result, "expected", "--attention", "'mcn'")
    assert not result.stdout
    assert [path.name for path in tmp_path.glob("*.png")] == ["photo.png"]


# Wrong usage: status 2


@pytest.mark.parametrize("phrases", [["dog"], ["dog", "cat"]], ids=len)
@pytest.mark.parametrize(
    ("first", "second"), [("--overlay", "--mask"), ("--overlay", "--attention"), ("--mask", "--attention")]
)
def test_ground_when_two_pictures_have_one_name_then_status_2_before_any_work(photo, tmp_path, first, second, phrases):
    (tmp_path / "sub").mkdir()
    again = tmp_path / "sub" / ".." / "p.png"
    result = run("ground", photo, *phrases, "--model", "no-such-model", first, tmp_path / "p.png", second, again)
    assert result.exit_code == 2
    assert first in result.stderr
    assert second in result.stderr
    assert [path.name for path in tmp_path.glob("*.png")] == ["photo.png"]


def test_ground_when_a_numbered_picture_would_overwrite_another_then_status_2(photo, tmp_path):
    pictures = ("--overlay", tmp_path / "m-2.png", "--mask", tmp_path / "m.png")
    assert run("ground", photo, "dog", "cat", "--model", "no-such-model", *pictures).exit_code == 2
    assert run("ground", photo, "dog", "--model", "no-such-model", *pictures).exit_code == 1  # no m-2.png is written


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ground", "photo.jpg"],
        ["ground", "photo.jpg", "dog", "--no-such-option"],
        ["ground", "photo.jpg", "dog", "--precision", "float8"],
        ["ground", "--batch", "in.jsonl"],
        ["ground", "photo.jpg", "dog", "--out", "out.jsonl"],
        ["ground", "photo.jpg", "dog", "--batch", "in.jsonl", "--out", "out.jsonl"],
        ["evaluate", "deixis-tiny"],
        ["evaluate", "deixis-tiny", "scenes:val", "--suppression", "hard"],
        ["reproduce", "table-of-nobody"],
        ["data", "show", "scenes"],
        ["train", "no-such-recipe"],
        ["train", "debug", "--steps", "many"],
        ["train", "debug", "--no_such_field", "1"],
        ["train", "debug", "--show", "--steps"],
        ["train", "debug", "--show", "--image_weights"],
        ["train", "debug", "--image_weights", "--steps", "3", "--show"],
        ["train", "--resume", "runs/a", "--out", "runs/b"],
        ["train", "smcim-scenes", "--start", "deixis-tiny", "--model", "smcim-tiny", "--show"],
    ],
    ids=" ".join,
)
def test_command_when_usage_is_wrong_then_status_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


# Batches


def test_batch_when_some_lines_are_bad_then_every_line_has_its_answer_in_order(checkpoint, photo, tmp_path):
    source = write_lines(
        tmp_path / "in.jsonl",
        {"image": "photo.png", "phrase": "left dog", "id": "a"},
        b"{not json",
        {"image": "photo.png", "phrase": "", "id": "c"},
        {"image": str(photo), "phrase": "cat", "id": 4},
        {"image": "none.png", "phrase": "dog", "id": "e"},
        {"image": "in.jsonl", "phrase": "dog", "id": "f"},
        {"phrase": "dog", "id": "g"},
        [1, 2],
        b"",
        {"image": "photo.png", "phrase": "x" * 10_000},
        {"image": "photo.png", "phrase": "dog"},
        b"\xff\xfe",
        {"image": "photo.png", "phrase": 3, "id": None},
        b'{"image": "photo.png", "phrase": "dog", "id": NaN}',
        b'{"image": "photo.png", "phrase": "\\ud800"}',
        b"[" * 100_000,
        {"image": "a\0b", "phrase": "dog"},
    )
    out = tmp_path / "out.jsonl"
    result = run("ground", "--batch", source, "--out", out, "--model", checkpoint)
    assert result.exit_code == 0
    rows = read_lines(out)
    assert len(rows) == 17
    good = [index for index, row in enumerate(rows, start=1) if "error" not in row]
    assert good == [1, 4, 11]
    assert [row["line"] for row in rows if "error" in row] == [n for n in range(1, 18) if n not in good]
    assert [rows[i].get("id") for i in (0, 2, 3, 4, 5, 6)] == ["a", "c", 4, "e", "f", "g"]
    assert "id" not in rows[10]
    assert rows[12]["id"] is None
    assert "3 done, 14 failed" in result.stderr
    assert all("\n" not in row["error"] and "Traceback" not in row["error"] for row in rows if "error" in row)


def test_batch_when_line_is_good_then_it_equals_the_single_command(checkpoint, photo, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", *({"image": str(photo), "phrase": one} for one in ("dog", "left cat")))
    run("ground", "--batch", source, "--out", tmp_path / "out.jsonl", "--model", checkpoint)
    single = run("ground", photo, "dog", "left cat", "--json", "--model", checkpoint)
    expected = [json.loads(line) for line in single.stdout.splitlines()]
    for number, (row, other) in enumerate(zip(read_lines(tmp_path / "out.jsonl"), expected, strict=True), start=1):
        assert {**row, "ms": 0} == {"line": number, **other, "ms": 0}


def test_batch_when_neighbours_share_an_image_then_it_is_looked_at_once(checkpoint, photo, tmp_path, monkeypatch):
    from deixis.grounder import Grounder

    looks = []
    look = Grounder.look
    monkeypatch.setattr(Grounder, "look", lambda self, image: looks.append(image) or look(self, image))
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    names = ["photo.png"] * 40 + ["other.png"] * 2 + ["photo.png"]
    source = write_lines(tmp_path / "in.jsonl", *({"image": name, "phrase": "dog"} for name in names))
    assert run("ground", "--batch", source, "--out", tmp_path / "o.jsonl", "--model", checkpoint).exit_code == 0
    assert [path.name for path in looks] == ["photo.png", "other.png", "photo.png"]
    assert [row["image"] for row in read_lines(tmp_path / "o.jsonl")] == names


def test_batch_when_every_line_fails_then_status_1_and_the_reasons_are_written(checkpoint, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", {"image": "none.png", "phrase": "dog"}, b"?")
    result = run("ground", "--batch", source, "--out", tmp_path / "out.jsonl", "--model", checkpoint)
    assert result.exit_code == 1
    assert len(read_lines(tmp_path / "out.jsonl")) == 2


def test_batch_when_input_is_empty_then_output_is_empty(checkpoint, tmp_path):
    source = write_lines(tmp_path / "in.jsonl")
    assert run("ground", "--batch", source, "--out", tmp_path / "o.jsonl", "--model", checkpoint).exit_code == 0
    assert (tmp_path / "o.jsonl").read_bytes() == b""


def test_batch_when_input_is_a_pipe_then_every_line_is_answered(checkpoint, photo, tmp_path):
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:
        pipe.write(json.dumps({"image": str(photo), "phrase": "dog"}).encode() + b"\n?\n")
    try:
        source = f"/dev/fd/{reading}"
        result = run("ground", "--batch", source, "--out", tmp_path / "o.jsonl", "--model", checkpoint)
    finally:
        os.close(reading)
    assert result.exit_code == 0
    assert ["error" in row for row in read_lines(tmp_path / "o.jsonl")] == [False, True]
    assert "1 done, 1 failed" in result.stderr


def test_batch_when_input_is_a_file_then_progress_knows_how_many(checkpoint, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", *[b"?"] * 100)
    result = run("ground", "--batch", source, "--out", tmp_path / "o.jsonl", "--model", checkpoint)
    assert "lines: 100 of 100" in result.stderr


@pytest.mark.parametrize(("name", "what"), [("none.jsonl", "nothing"), (".", "a folder")])
def test_batch_when_input_is_no_file_then_a_full_sentence(tmp_path, name, what):
    result = run("ground", "--batch", tmp_path / name, "--out", tmp_path / "o.jsonl")
    assert_one_sentence(result, "expected a JSONL file for --batch", f"got {what} at", "check the path")


def test_batch_when_input_is_missing_then_one_sentence(checkpoint, tmp_path):
    result = run("ground", "--batch", tmp_path / "none.jsonl", "--out", tmp_path / "o.jsonl", "--model", checkpoint)
    assert_one_sentence(result, "none.jsonl")


def test_batch_when_it_breaks_off_then_the_old_output_stays_and_nothing_is_left(
    checkpoint, photo, tmp_path, monkeypatch
):
    from deixis.grounder import EncodedImage

    def interrupt(self, phrases):
        raise KeyboardInterrupt

    monkeypatch.setattr(EncodedImage, "ground_all", interrupt)
    source = write_lines(tmp_path / "in.jsonl", {"image": "photo.png", "phrase": "dog"})
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "out.jsonl").write_text("old")
    assert run("ground", "--batch", source, "--out", folder / "out.jsonl", "--model", checkpoint).exit_code == 130
    assert [path.name for path in folder.iterdir()] == ["out.jsonl"]
    assert (folder / "out.jsonl").read_text() == "old"


def test_batch_overlays_when_given_then_one_picture_a_good_line(checkpoint, photo, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", {"image": "photo.png", "phrase": "dog", "id": "../x"}, b"?")
    pictures = tmp_path / "pictures"
    result = run(
        "ground", "--batch", source, "--out", tmp_path / "o.jsonl", "--overlays", pictures, "--model", checkpoint
    )
    assert result.exit_code == 0
    assert [path.name for path in pictures.iterdir()] == ["000001.png"]


def test_read_request_when_first_line_has_a_byte_order_mark_then_it_is_read():
    request = read_request(b'\xef\xbb\xbf{"image": "a.png", "phrase": "dog"}', 1)
    assert (request.image, request.phrase, request.error) == ("a.png", "dog", None)


@pytest.mark.parametrize(
    "raw", [b'{"id": 1e999, "image": "a", "phrase": "b"}', b'{"id": [1], "image": "a", "phrase": "b"}']
)
def test_read_request_when_id_cannot_be_given_back_then_error(raw):
    assert "'id'" in str(read_request(raw, 2).error)


# Quick answers


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["ground", "--help"], ["train", "--help"]], ids=" ".join
)
def test_quick_answers_when_asked_then_torch_and_numpy_stay_out(arguments):
    code = (
        "import sys\nfrom deixis.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
        "    assert not end.code, end.code\nloaded = {'torch', 'numpy', 'transformers', 'PIL'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deixis" in done.stdout
    assert not done.stderr


def test_process_when_image_is_missing_then_status_1_and_no_traceback(tmp_path):
    done = run_process("ground", "none.jpg", "dog", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("deixis: ")
    assert len(done.stderr.splitlines()) == 1
    shown = run_process("--debug", "ground", "none.jpg", "dog", cwd=tmp_path)
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr


def test_process_when_reader_of_output_has_gone_then_it_ends_quietly(checkpoint, photo):
    command = [sys.executable, "-m", "deixis", "ground", str(photo), "dog", "--json"]
    command += ["--model", str(checkpoint), "--precision", "float32"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 1
    assert told == b""


# Models, data, recipes


def test_models_when_json_then_presets_are_listed():
    result = run("models", "--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert "deixis-tiny" in listed["presets"]
    for row in listed["bundled"]:
        assert row["parameters"] > 0
    assert run("models").exit_code == 0


def test_describe_checkpoint_when_read_then_its_files_and_figures_are_counted(checkpoint):
    row = describe_checkpoint("smallest", checkpoint)
    assert row["measured"] == {"scenes:val acc@0.5": 0.25}
    assert row["family"] == "deixis"
    stored = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert row["mb"] == pytest.approx(stored / 1e6, abs=0.06)
    shapes = {name: tensor.shape for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    scales = [name for name in shapes if name.endswith(".row_scale")]
    assert scales  # of tables that are stored as int8: no parameters
    assert row["parameters"] == sum(shape.numel() for name, shape in shapes.items() if name not in scales)


def test_flatten_when_nested_then_keys_are_joined():
    assert flatten({"a": {"b": 1, "c": {"d": "x"}}, "e": None}) == {"a b": 1, "a c d": "x"}


def test_data_show_when_scenes_then_a_sheet_is_written(tmp_path):
    out = tmp_path / "sheet.png"
    result = run("data", "show", "scenes:val", "--out", out, "--n", 3, "--columns", 3)
    assert result.exit_code == 0, result.output
    height, width, _ = read_image(out).shape
    assert width > 2 * height


def test_data_phrases_when_two_things_then_each_is_told_apart_and_statistics_are_printed(photo, tmp_path):
    document = {
        "images": [{"id": 3, "file_name": photo.name, "height": HW[0], "width": HW[1]}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "bbox": [2, 10, 25, 30], "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [50, 10, 25, 30], "iscrowd": 0},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    (tmp_path / "human.csv").write_text("expression\nleft dog\nthe dog on the right\n")
    out = tmp_path / "out.jsonl"
    result = run("data", "phrases", tmp_path / "instances.json", "--out", out, "--compare", tmp_path / "human.csv")
    assert result.exit_code == 0, result.output
    assert "human" in result.stdout
    rows = read_lines(out)
    assert {tuple(row["box"]) for row in rows} == {(2, 10, 27, 40), (50, 10, 75, 40)}
    assert len({row["phrase"] for row in rows}) == len(rows)
    again = tmp_path / "again.jsonl"
    run("data", "phrases", tmp_path / "instances.json", "--out", again)
    assert again.read_bytes() == out.read_bytes()
    assert run("data", "show", out, "--out", tmp_path / "sheet.png").exit_code == 0


def test_evaluate_when_jsonl_then_figures_baselines_and_report(checkpoint, photo, tmp_path):
    rows = [{"image": photo.name, "phrase": phrase, "box": [0, 0, 40, 48]} for phrase in ("left dog", "cat")]
    source = write_lines(tmp_path / "pairs.jsonl", *rows)
    result = run("evaluate", checkpoint, source, "--json", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout, parse_constant=pytest.fail)
    assert figures["n"] == 2
    assert 0 <= figures["rec"]["acc@0.5"] <= 1
    assert figures["res"] is None  # the data has no masks
    assert figures["baselines"]["best_constant_box"]["rec"]["acc@0.5"] == 1.0
    assert len(read_lines(tmp_path / "report" / "predictions.jsonl")) == 2
    table = run("evaluate", checkpoint, source)
    assert "best constant box" in table.stdout


@pytest.mark.parametrize(("structure", "missing"), [("single-rec-13", "res"), ("single-res-52", "rec")])
def test_evaluate_when_the_model_lacks_a_part_then_null_and_not_zero(
    make_mcn_checkpoint, photo, tmp_path, structure, missing
):
    masked = {"box": [0, 0, 40, 48], "mask": [[0, 0, 40, 0, 40, 48, 0, 48]]}
    source = write_lines(tmp_path / "pairs.jsonl", {"image": photo.name, "phrase": "left dog", **masked})
    result = run("evaluate", make_mcn_checkpoint(structure), source, "--json", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout, parse_constant=pytest.fail)
    assert figures["n"] == 1
    assert {part for part in ("rec", "res", "ie") if figures[part] is None} == {missing, "ie"}
    (line,) = read_lines(tmp_path / "report" / "predictions.jsonl")
    assert (line["box"] is None, line["iou"] is None) == (missing == "rec",) * 2
    assert (line["mask_iou"] is None) == (missing == "res")


def test_evaluate_when_suppression_is_named_then_it_is_used_and_recorded(make_mcn_checkpoint, photo, tmp_path):
    masked = {"box": [0, 0, 40, 48], "mask": [[0, 0, 40, 0, 40, 48, 0, 48]]}
    source = write_lines(tmp_path / "pairs.jsonl", {"image": photo.name, "phrase": "left dog", **masked})
    folder, report = make_mcn_checkpoint(suppression="soft"), tmp_path / "report"
    own = json.loads(run("evaluate", folder, source, "--json").stdout)
    other = json.loads(run("evaluate", folder, source, "--json", "--suppression", "crop", "--report", report).stdout)
    assert (own["suppression"], other["suppression"]) == ("soft", "crop")
    assert json.loads((report / "metrics.json").read_text())["suppression"] == "crop"
    assert own["rec"] == other["rec"]


def test_suppression_when_compared_with_the_config_then_every_way_can_be_named():
    assert tuple(Suppression) == SUPPRESSIONS


def test_reproduce_when_a_picture_is_missing_then_told_and_the_table_is_printed(make_mcn_checkpoint, photo, tmp_path):
    masked = {"phrase": "left dog", "box": [0, 0, 40, 48], "mask": [[0, 0, 40, 0, 40, 48, 0, 48]]}
    missing = [{"image": f"gone{i}.png", **masked} for i in range(7)]
    source = write_lines(tmp_path / "pairs.jsonl", b"{not json", missing[0], {"image": photo.name, **masked}, *missing)
    result = run("reproduce", "mcn-table-1", "--model", make_mcn_checkpoint(), "--data", source)
    assert result.exit_code == 0, result.output
    assert "n = 1, 9 left out:" in result.stdout
    assert "| ASNLS | 62.44 |" in result.stdout
    told = result.stderr.splitlines()
    assert "line 1" in told[0]
    assert "gone0.png" in told[1]
    assert told[5:] == ["deixis: and 4 more left out"]


def test_reproduce_when_model_gives_no_boxes_then_one_sentence(make_mcn_checkpoint, photo, tmp_path):
    masked = {"phrase": "left dog", "box": [0, 0, 40, 48], "mask": [[0, 0, 40, 0, 40, 48, 0, 48]]}
    source = write_lines(tmp_path / "pairs.jsonl", {"image": photo.name, **masked})
    folder = make_mcn_checkpoint("single-res-52")
    result = run("reproduce", "mcn-table-1", "--model", folder, "--data", source)
    assert_one_sentence(result, "expected a model of boxes and masks, got 'single-res-52'")


@pytest.mark.parametrize("number", [0, 1, 5, 6, 8])
def test_tell_problems_when_many_then_five_and_how_many_more(capsys, number):
    tell_problems([f"line {i}" for i in range(number)])
    told = capsys.readouterr().err.splitlines()
    assert told[:5] == [f"deixis: line {i}" for i in range(min(number, 5))]
    assert told[5:] == ([f"deixis: and {number - 5} more left out"] if number > 5 else [])


def test_calibrate_when_root_is_named_then_the_files_are_found_there(checkpoint, tmp_path, monkeypatch):
    opened = []

    def opening(name, **options):
        opened.append((name, options))
        raise ValueError("expected nothing more")

    monkeypatch.setattr("deixis.data.open_dataset", opening)
    assert_one_sentence(run("calibrate", checkpoint, "refcoco:val", "--root", tmp_path, "--limit", 10))
    assert opened == [("refcoco", {"split": "val", "root": tmp_path, "limit": 10})]


def test_evaluate_when_data_set_is_missing_then_one_sentence(checkpoint, tmp_path):
    assert_one_sentence(run("evaluate", checkpoint, tmp_path / "none.jsonl"), "none.jsonl")


def test_data_show_when_name_is_unknown_then_one_sentence(tmp_path):
    assert_one_sentence(run("data", "show", "nowhere", "--out", tmp_path / "s.png"), "nowhere")


def test_parse_fields_when_given_then_types_follow_the_recipe():
    values = parse_fields(
        [
            *("--lr", "1", "--image-sizes", "[64, 96]", "--compile=true", "--precision", "bfloat16"),
            *("--model_fields.context_dim", "64"),
        ],
        recipe("debug"),
    )
    assert values["lr"] == 1.0
    assert isinstance(values["lr"], float)
    assert values["image_sizes"] == (64, 96)
    assert values["compile"] is True
    assert values["precision"] == "bfloat16"
    assert values["model_fields"] == {**recipe("debug").model.fields, "context_dim": 64}


@pytest.mark.parametrize("words", [["--bfloat16=true"], ["--bfloat16", "false"]])
def test_train_when_bfloat16_is_named_then_refused_and_precision_told(words):
    result = run("train", "debug", *words, "--show")
    assert result.exit_code == 2
    assert "expected --precision, as the field is called now" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(("said", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_read_recipe_when_of_an_older_run_then_bfloat16_is_its_precision(tmp_path, said, precision):
    stored = recipe("scenes").flat()
    del stored["precision"]
    (tmp_path / "recipe.json").write_text(json.dumps({**stored, "bfloat16": said}))
    assert read_recipe(tmp_path) == recipe("scenes", precision=precision)


def test_train_show_when_given_then_recipe_is_printed_and_reads_back(tmp_path):
    result = run("train", "debug", "--steps", "7", "--show")
    assert result.exit_code == 0
    (tmp_path / "recipe.json").write_text(result.stdout)
    assert read_recipe(tmp_path) == recipe("debug", steps=7)


def test_train_show_when_of_the_mcn_family_then_every_value_reads_back(tmp_path):
    result = run("train", "mcn", "--milestones", "[2, 5]", "--epochs", "6", "--root", "data", "--show")
    assert result.exit_code == 0
    (tmp_path / "recipe.json").write_text(result.stdout)
    assert read_recipe(tmp_path) == recipe("mcn", milestones=(2, 5), epochs=6, root="data")


def test_train_resume_when_folder_holds_no_run_then_one_sentence(tmp_path):
    assert_one_sentence(run("train", "--resume", tmp_path), "recipe.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"model": "deixis-ti', "expected a whole JSON object"),
        (b"\xff", "expected a whole JSON object"),
        (b"[1]", "got list"),
        (b'{"speed": 1}', "got ['speed'] too"),
        (b'{"steps": "many"}', "expected steps of the type int, got 'many'"),
        (b'{"lr": null}', "expected lr of the type float, got None"),
        (b'{"image_sizes": [64, 100]}', "multiples of 32, got (64, 100)"),
        (b'{"image_sizes": 64}', "expected image_sizes of the type tuple[int, ...], got 64"),
        (b'{"lr": NaN}', "got nan"),
        (b'{"milestones": [1.5]}', "expected milestones to be whole numbers of at least 0, got (1.5,)"),
        (b'{"optimiser": "sgd"}', "expected optimiser out of ('adamw', 'adam'), got 'sgd'"),
    ],
)
def test_train_resume_when_recipe_is_damaged_then_one_sentence_names_the_file(tmp_path, content, words):
    (tmp_path / "recipe.json").write_bytes(content)
    assert_one_sentence(run("train", "--resume", tmp_path), "expected", "recipe.json", words)


@pytest.mark.parametrize("saved", [True, False])
def test_train_when_interrupted_then_status_130_and_how_to_go_on(tmp_path, monkeypatch, saved):
    folder = tmp_path / "my run"

    def interrupted(recipe, folder, **_options):
        if saved:
            folder.mkdir()
            (folder / "state.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("deixis.train.trainer.run", interrupted)
    result = run("train", "debug", "--out", folder)
    assert result.exit_code == 130
    (_, told) = result.stderr.splitlines()
    assert (f"deixis train --resume '{folder}'" in told) == saved
    assert ("nothing is saved" in told) != saved


def test_parse_fields_when_a_value_is_empty_or_negative_then_taken():
    assert parse_fields(["--image_weights", "", "--seed", "-1", "--instances="], recipe("debug")) == {
        "image_weights": "", "seed": -1, "instances": "",
    }  # fmt: skip
