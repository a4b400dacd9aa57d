"""``deixis train finetune`` from the command line to its report, over a very small model."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.cli.train import finetune_fields
from deixis.config import preset
from deixis.hub import load_checkpoint, save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer
from deixis.models.deixis.model import DeixisModel

QUICK = {
    "steps": 2, "check_every": 2, "save_every": 2, "images": 2, "warmup": 0, "frozen_steps": 1, "workers": 0,
    "precision": "float32", "image_sizes": "[64]",
}  # fmt: skip
QUICK_WORDS = [word for name, value in QUICK.items() for word in (f"--{name}", str(value))]


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path, small_image_encoder, small_fields, bert_folder, monkeypatch):
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: False)
    monkeypatch.setattr("deixis.train.finetune.KEPT_SCENES", 2)
    torch.manual_seed(0)
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=12)
    config = preset("deixis-tiny", **small_fields, vocab_size=tokenizer.vocab_size, max_tokens=12)
    save_checkpoint(tmp_path / "small", DeixisModel(config).eval(), tokenizer)
    return tmp_path / "small"


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        lines += [{"image": f"{number}.png", "phrase": "red ball", "box": [2, 2, 30, 30]}]
        lines += [{"image": f"{number}.png", "phrase": "left dog", "box": [20, 20, 60, 60]}]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_finetune_when_run_then_checkpoint_report_and_the_same_as_text(checkpoint, data, tmp_path):
    folder = tmp_path / "run"
    done = run("finetune", "--model", checkpoint, "--data", data, "--keep", "--out", folder, *QUICK_WORDS)
    assert done.exit_code == 0, done.output
    assert load_checkpoint(folder / "checkpoint").name == "small-finetuned"
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["validation", "part,", "percent", "before", "after", "gain", "95", "%", "interval"]
    assert [line.rsplit(maxsplit=4)[0] for line in lines[1:3]] == ["box Acc@0.5", "box mean IoU"]
    assert lines[3] == "worst mistakes:"
    assert "IoU 0." in lines[4]
    assert lines[-1] == str(folder / "checkpoint")
    page = (folder / "report.html").read_text()
    assert "Worst mistakes" in page
    assert page.count("data:image/jpeg") == 2  # the one validation image: what is meant, and what is said
    before, after = (json.loads((folder / "report" / side / "metrics.json").read_text()) for side in "ab")
    assert (before["model"], after["model"], after["n"]) == ("small", "small-finetuned", 2)
    stored = json.loads((folder / "recipe.json").read_text())
    assert (stored["rehearsal"], stored["start"]) == (0.4, str(checkpoint))
    again = run("--resume", folder)
    assert again.exit_code == 0, again.output
    assert again.stdout == done.stdout


@pytest.mark.slow
def test_finetune_when_two_processes_share_it_then_both_end_and_one_speaks(data, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "deixis"]
    command += ["train", "finetune", "--model", "deixis-tiny", "--data", str(data), "--out", str(folder), *QUICK_WORDS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("validation part, percent") for line in lines) == 1
    assert lines[-1] == str(folder / "checkpoint")
    assert json.loads((folder / "report" / "b" / "metrics.json").read_text())["n"] == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected phrases to learn from in"),
        ('{"image": "0.png", "phrase": "red ball", "box": [2, 2, 30, 30]}\n', "expected two or more images"),
        ('{"image": "0.png", "phrase": "red ball", "box": null}\n', "expected phrases with a box"),
        ('{"image": "0.png", "phrase": "red ball"}\n', "expected a 'box'"),
        ("no json\n", "line 1: expected a JSON object"),
        ('{"image": "gone.png", "phrase": "a", "box": [0, 0, 9, 9]}\n' * 2, "expected two or more images"),
    ],
)
def test_finetune_when_the_data_cannot_be_used_then_one_sentence_and_no_checkpoint(
    checkpoint, data, tmp_path, content, words
):
    data.write_text(content)
    done = run("finetune", "--model", checkpoint, "--data", data, "--out", tmp_path / "run", *QUICK_WORDS)
    assert done.exit_code == 1
    told = done.stderr.splitlines()
    assert told[0].startswith("deixis: training in")
    assert words in told[1]
    assert len(told) == 2
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_finetune_when_no_image_can_be_read_then_one_sentence(checkpoint, data, tmp_path):
    for image in tmp_path.glob("*.png"):
        image.unlink()
    words = [word for word in QUICK_WORDS if word not in ("--image_sizes", "[64]")]
    done = run("finetune", "--model", checkpoint, "--data", data, "--out", tmp_path / "run", *words)
    assert done.exit_code == 1
    assert "expected images that can be read" in done.stderr.splitlines()[-1]


def test_finetune_when_the_model_is_unknown_then_one_sentence(data, tmp_path):
    done = run("finetune", "--model", "nowhere", "--data", data, "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert "got 'nowhere'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--model", "deixis-tiny", "--data", ""], "--data"),
        (["--data", "my.jsonl", "--instances", "photos.json"], "instances"),
        (["--data", "my.jsonl", "--image_weights", "w"], "image_weights"),
        (["--data", "my.jsonl", "--epochs", "3"], "epochs"),
        (["--data", "my.jsonl", "--speed", "3"], "--speed"),
    ],
)
def test_finetune_when_usage_is_wrong_then_status_2(arguments, word):
    done = run("finetune", *arguments)
    assert done.exit_code == 2
    assert word in done.stderr


def test_fields_when_in_the_words_of_fine_tuning_then_those_of_the_recipe():
    words = ["--data", "a.jsonl", "--model=m", "--val", "b.jsonl", "--keep", "--lr", "1e-3"]
    assert finetune_fields(words) == [
        "--phrased", "a.jsonl", "--start=m", "--validation", "b.jsonl", "--rehearsal", "0.4", "--lr", "1e-3",
    ]  # fmt: skip
    assert finetune_fields(["--keep"]) == ["--rehearsal", "0.4"]
    assert finetune_fields(["--keep", "3"]) == ["--keep", "3"]  # the states that are kept


def test_show_when_keeping_is_asked_then_in_the_recipe():
    done = run("finetune", "--data", "my.jsonl", "--keep", "--show")
    shown = json.loads(done.stdout)
    assert (shown["rehearsal"], shown["phrased"], shown["start"]) == (0.4, "my.jsonl", "deixis-tiny")
