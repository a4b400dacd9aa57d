"""docs/training.md: its way from own data to a served model is walked, and every recipe of its table can be made."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from deixis.cli import app
from deixis.cli.train import read_recipe
from deixis.config import PRESETS, preset
from deixis.data import default_split, parse_dataset_spec
from deixis.hub import load_checkpoint, save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer
from deixis.models.deixis.model import DeixisModel
from deixis.train.recipes import list_recipes, recipe

PAGE = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
QUICK = (
    "--steps 2 --check_every 2 --save_every 2 --images 2 --warmup 0 --frozen_steps 1 --workers 0 "
    "--precision float32 --image_sizes [64]"
)


def section(title):
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)[1]


def shell_lines(text):
    return [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]


def table_commands():
    return re.findall(r"\| `(deixis train [^`]+)` \|", section("All recipes"))


@pytest.fixture
def small_model(tmp_path, small_image_encoder, small_fields, bert_folder, monkeypatch):
    """Stands for the bundled model, which would take minutes here."""
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: False)
    monkeypatch.setattr("deixis.train.finetune.KEPT_SCENES", 2)
    torch.manual_seed(0)
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=12)
    config = preset("deixis-tiny", **small_fields, vocab_size=tokenizer.vocab_size, max_tokens=12)
    save_checkpoint(tmp_path / "small", DeixisModel(config).eval(), tokenizer)
    return tmp_path / "small"


def test_way_to_a_served_model_when_walked_then_every_command_does_its_part(small_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = shell_lines(section("Own data: from zero to a served model"))
    assert [line.split()[:3] for line in lines[:2]] == [["mkdir", "own"], ["deixis", "data", "convert"]]
    (tmp_path / "own").mkdir()
    named = set()
    for line in lines[1:]:
        command, *words = shlex.split(line)
        assert command == "deixis"
        named.add(" ".join(words[: 2 if words[0] == "data" else 1]))
        if words[0] == "data" and words[1] == "convert":
            words[words.index("--limit") + 1] = "8"
        if words[:2] == ["train", "finetune"]:
            words += [*shlex.split(QUICK), "--model", str(small_model)]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (line, done.output)
    assert named == {"data convert", "data check", "data show", "train", "evaluate", "ground"}
    for path in ("own/look.html", "runs/own/report.html", "runs/own/measured/metrics.json", "own/found.png"):
        assert (tmp_path / path).is_file(), path
    assert len((tmp_path / "own" / "found.jsonl").read_text().splitlines()) == 8
    assert load_checkpoint("runs/own/checkpoint").name == "small-finetuned"


def test_table_when_read_then_every_recipe_and_family_is_in_it():
    told = [shlex.split(command)[2] for command in table_commands()]
    assert set(told) == set(list_recipes())
    models = {one for command in table_commands() for one in re.findall(r"--model (\S+)", command)}
    assert models - {"runs/mcn-scenes/checkpoint"} | {recipe(one).model.preset for one in told} == set(PRESETS)


@pytest.mark.parametrize("command", table_commands())
def test_table_when_a_command_is_shown_then_its_recipe_can_be_made_and_its_data_are_known(command, tmp_path):
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--show"])
    assert done.exit_code == 0, done.output
    (tmp_path / "recipe.json").write_text(done.stdout)
    made = read_recipe(tmp_path)
    if not made.model.start:
        config = preset(made.model.preset, **made.model.fields)
        assert made.model.text_weights or made.data.rehearsal or not config.has_word_pieces, (
            "a BERT folder must be named"
        )
    if made.data.phrased:
        name, split = parse_dataset_spec(made.data.phrased)
        is_own = name in ("my.jsonl", "human.jsonl")
        assert is_own or (default_split(name) and split == "train")
        assert bool(made.data.root) != is_own


def test_batches_when_read_then_the_option_is_there():
    (line,) = shell_lines(section("Batches: how large, and at what rates"))
    done = CliRunner().invoke(app, [*shlex.split(line.removesuffix("--find_batch"))[1:], "--show"])
    assert done.exit_code == 0, done.output
    assert "--find_batch" in CliRunner().invoke(app, ["train", "--help"]).output
