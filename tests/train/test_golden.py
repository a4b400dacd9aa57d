"""The first steps of three tiny trainings against committed losses, so that a change of the code proves itself.

Where a change of the numbers is meant, rewrite them, and say why in the commit:

    DEIXIS_WRITE_GOLDEN=1 python -m pytest tests/train/test_golden.py
"""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from transformers import ResNetConfig, ResNetModel

from deixis.train import setup as starting
from deixis.train.batch_loader import batches
from deixis.train.distributed import ALONE, process_group
from deixis.train.recipes import recipe
from deixis.train.setup import start_data
from deixis.train.trainer import Trainer, canvas_rules

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
TOLERANCE = {"debug": 1e-4, "mcn": 1e-3, "smcim": 1e-4}
"""Weights that are off by a rounding move these by 1e-5, 1e-4 and 2e-6: batch-norm over 8 values magnifies it."""
WORDS = ("the", "left", "right", "top", "bottom", "red", "green", "blue", "yellow", "circle", "square", "star", "of")


@pytest.fixture
def one_thread():
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipes(tmp_path, bert_folder, monkeypatch):
    """Recipes by their names: small models in float32; what they start from is random, from scratch or in a folder."""
    monkeypatch.setattr("deixis.train.setup.training_phrases", lambda made: WORDS)
    common = {"steps": STEPS, "warmup": 5, "lr": 1e-4, "pretrained_lr": 1e-4, "seed": 1, "absent": 0.5}
    mcn = {"fusion_dim": 12, "dim": 8, "aspp_dim": 4, "text_dim": 10, "word_dim": 6, "max_tokens": 6, "image_size": 64}
    smcim = {
        "image_encoder": str(tmp_path / "resnet"), "image_size": 64, "text_dim": 12, "text_heads": 2, "text_layers": 3,
        "text_features": (1, 2, 3), "group_dim": 8, "group_heads": 2, "merge_heads": 2, "max_tokens": 7,
    }  # fmt: skip
    torch.manual_seed(3)
    sizes = ResNetConfig(embedding_size=4, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    ResNetModel(sizes).save_pretrained(tmp_path / "resnet")
    return {
        "debug": recipe("debug", **common),
        "mcn": recipe("debug", model="mcn-tiny", model_fields={**mcn, "vocab_size": 40}, **{**common, "lr": 1e-5}),
        "smcim": recipe(
            "debug", model="smcim-tiny", model_fields=smcim, text_weights=str(bert_folder), sigma_lr=1e-3, **common
        ),
    }


def first_losses(made, group=ALONE):
    """Lines of losses, one a step."""
    return losses_of(Trainer(made, group=group))


def losses_of(held, until=STEPS):
    made, lines = held.recipe, []
    for batch in batches(start_data(made), made.replaced(steps=until), held.step, canvas_rules(held.model, made)):
        losses = held.train_step(batch)
        lines.append(" ".join(f"{name}={value:.7g}" for name, value in losses.items()))
    return lines


def assert_committed(name, lines, rel=1e-4):
    wanted = (GOLDEN / f"{name}.txt").read_text().splitlines()
    assert len(lines) == len(wanted) == STEPS
    for step, rows in enumerate(zip(lines, wanted, strict=True), start=1):
        got, committed = ({k: float(v) for k, v in (one.split("=") for one in row.split())} for row in rows)
        assert got == pytest.approx(committed, rel=rel, abs=1e-6), f"step {step}"


@pytest.mark.parametrize("name", ["debug", "mcn", "smcim"])
def test_losses_when_a_tiny_recipe_takes_20_steps_then_they_are_the_committed_ones(recipes, one_thread, name):
    lines = first_losses(recipes[name])
    if os.environ.get("DEIXIS_WRITE_GOLDEN"):
        (GOLDEN / f"{name}.txt").write_text("\n".join(lines) + "\n")
        pytest.skip(f"wrote {name}.txt")
    assert_committed(name, lines, rel=TOLERANCE[name])


def test_losses_when_accumulated_then_they_are_the_committed_ones_too(recipes, one_thread):
    # of the three only this model has neither dropout, whose numbers fall otherwise in parts, nor batch-norm
    assert_committed("debug", first_losses(recipes["debug"].replaced(accumulate=2)))


@pytest.mark.parametrize("name", ["mcn", "smcim"])
def test_losses_when_a_run_is_resumed_in_its_midst_then_they_are_the_committed_ones_too(
    recipes, one_thread, tmp_path, name
):
    held = Trainer(recipes[name])
    lines = losses_of(held, until=7)
    held.save(tmp_path)
    again = Trainer(recipes[name])
    again.restore(tmp_path)
    assert_committed(name, lines + losses_of(again), rel=TOLERANCE[name])


def one_of_two(rank, made, folder):
    torch.set_num_threads(1)
    starting.training_phrases = lambda made: WORDS
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        with process_group() as group:
            (folder / f"{rank}.txt").write_text("\n".join(first_losses(made, group)))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_losses_when_two_processes_share_the_batches_then_both_tell_the_committed_ones(recipes, tmp_path):
    torch.multiprocessing.spawn(one_of_two, (recipes["debug"], tmp_path), nprocs=2)
    for rank in (0, 1):
        assert_committed("debug", (tmp_path / f"{rank}.txt").read_text().splitlines())
