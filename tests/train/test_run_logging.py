import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.data.batches import CanvasRules
from deixis.drawing import COLOURS
from deixis.train import setup as starting
from deixis.train import trainer
from deixis.train.batch_loader import Steps, batches
from deixis.train.recipes import recipe
from deixis.train.run_logging import draw_predictions, grown, open_tensorboard, phrases_by_picture
from deixis.train.trainer import Trainer, forget_after, run


def coloured(picture, colour):
    """How many pixels have exactly that colour."""
    return int((np.asarray(picture) == np.array(colour)).all(-1).sum())


def test_grown_when_a_cell_is_set_then_all_its_pixels():
    assert grown(np.array([[True, False], [False, False]]), 4).tolist() == [
        [True, True, False, False], [True, True, False, False], [False] * 4, [False] * 4,
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["small_recipe", "small_mcn_recipe"])
def test_draw_predictions_when_drawn_then_a_picture_each_image_and_the_model_is_left_alone(family, request):
    made = request.getfixturevalue(family).replaced(images=3)
    held = Trainer(made)
    rules = trainer.canvas_rules(held.model, made)
    batch = next(iter(batches(starting.start_data(made), made, 0, rules)))
    before = torch.get_rng_state()
    model = held.averaged_model()
    drawn = draw_predictions(model, held.tokenizer, batch)
    again = draw_predictions(model, held.tokenizer, batch)
    assert drawn.size == (2 * 326 + 6, 2 * 326 + 6)
    assert np.array_equal(np.asarray(drawn), np.asarray(again))
    assert torch.equal(before, torch.get_rng_state())
    batch.pixels[:] = 0
    batch.boxes[:] = (0.25, 0.25, 0.75, 0.75)
    batch.present[:] = True
    assert coloured(draw_predictions(model, held.tokenizer, batch), COLOURS[1]) > 100  # the truth


def test_run_when_it_saves_then_curves_and_the_same_few_training_pictures(small_recipe, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "deixis.train.run_logging.draw_predictions",
        lambda model, tokenizer, batch: shown.append(batch) or Image.new("RGB", (2, 2)),
    )
    run(small_recipe.replaced(images=6, steps=2, save_every=1), tmp_path / "run")
    assert [len(batch.pixels) for batch in shown] == [4, 4]
    assert np.array_equal(shown[0].pixels, shown[1].pixels)
    with Image.open(tmp_path / "run" / "curves.png") as curves:
        assert curves.width > 0
    with Image.open(tmp_path / "run" / "samples.png") as samples:
        assert samples.size == (2, 2)


def test_run_when_matplotlib_is_missing_then_it_goes_on_and_says_once_that_there_are_no_curves(
    small_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(small_recipe.replaced(steps=2, save_every=1), tmp_path / "run")
    assert capsys.readouterr().err.count("pip install 'deixis[plots]'") == 1
    assert (tmp_path / "run" / "samples.png").is_file()
    assert not (tmp_path / "run" / "curves.png").exists()


# steps that are not finite


@pytest.fixture
def failing(monkeypatch):
    """Makes the losses of the steps in a set not finite."""

    def fail_at(steps):
        backward = Trainer._backward

        def wrong(self, batch):
            losses = backward(self, batch)
            return {**losses, "loss": float("nan")} if self.step + 1 in steps else losses

        monkeypatch.setattr(Trainer, "_backward", wrong)

    return fail_at


def test_run_when_steps_are_not_finite_then_their_phrases_are_told_and_the_run_goes_on(
    small_mcn_recipe, tmp_path, failing, capsys
):
    failing({2, 4})
    made = small_mcn_recipe.replaced(steps=5, non_finite_limit=2)
    run(made, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    batch = Steps(starting.start_data(made), made, CanvasRules(8))[1]
    assert rows[0]["pictures"] == phrases_by_picture(batch)
    assert [len(picture) > 0 for picture in rows[0]["pictures"]] == [True, True]
    told = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    assert "step 2 is not finite, so it changed nothing" in told[0]
    assert repr(batch.phrases[0]) in told[0]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [loss is None for loss in losses] == [False, True, False, True, False]


def test_run_when_too_many_in_a_row_are_not_finite_then_it_ends_with_the_last_good_state(
    small_mcn_recipe, tmp_path, failing
):
    failing({3, 4, 5, 6})
    with pytest.raises(ValueError, match=r"got others in 3 steps in a row up to step 5; look at .*last good state"):
        run(small_mcn_recipe.replaced(save_every=2, non_finite_limit=3), tmp_path / "run")
    kept = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert (kept["step"], kept["skipped"]) == (4, 2)
    assert all(torch.isfinite(value).all() for value in kept["model"].values())
    with pytest.raises(ValueError, match="3 steps in a row up to step 5"):
        run(
            small_mcn_recipe.replaced(save_every=2, non_finite_limit=3), tmp_path / "run", resume=True
        )  # what was counted before goes on


def test_forget_after_when_lines_are_of_anything_then_those_that_are_no_steps_go(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 1, "pictures": [["a"]]}\n[1]\n{"loss": 1}\n\xff\n{"step": 3}\n')
    forget_after(2, log)
    assert log.read_text() == '{"step": 1, "pictures": [["a"]]}\n'
    forget_after(2, tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_run_when_an_earlier_one_left_no_state_then_its_log_is_not_gone_on_with(small_mcn_recipe, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n')
    run(small_mcn_recipe.replaced(steps=1), tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1]


# what stands beside the bar


def test_step_note_when_a_step_is_taken_then_its_loss_and_rate(small_mcn_recipe):
    held = Trainer(small_mcn_recipe.replaced(lr=1e-3, warmup=4))
    held.step = 2
    assert trainer.step_note(held, {"loss": 12.34567}) == "loss 12.35, rate 0.0005"
    assert trainer.step_note(held, {"loss": float("nan")}) == "loss nan, rate 0.0005"


# TensorBoard


def test_open_tensorboard_when_it_is_not_installed_then_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"expected the package tensorboard .* pip install 'deixis\[tensorboard\]'"):
        open_tensorboard(tmp_path, 0)


def test_run_when_tensorboard_is_wanted_then_every_loss_of_every_step_goes_there(
    small_mcn_recipe, tmp_path, monkeypatch
):
    written, made = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            made.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            made.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    run(small_mcn_recipe.replaced(steps=2), tmp_path / "run", tensorboard=True)
    assert made == [(str(tmp_path / "run" / "tensorboard"), 1), "closed"]
    assert {("loss", 1), ("loss", 2), ("xy", 2)} <= set(written)


@pytest.mark.parametrize("field", ["accumulate", "keep", "non_finite_limit"])
def test_recipe_when_a_count_is_below_1_then_refused(field):
    with pytest.raises(ValueError, match=f"expected {field} to be at least 1, got 0; raise it"):
        recipe("debug", **{field: 0})
