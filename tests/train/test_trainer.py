import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.config import preset
from deixis.data import open_dataset
from deixis.data.batches import CanvasRules, Epochs, Mixture, collate
from deixis.data.scenes import draw_scene
from deixis.files import write_text
from deixis.geometry.masks import read_mask
from deixis.hub import load_checkpoint
from deixis.language.tokenizers import WordTokenizer
from deixis.models.deixis.model import DeixisModel
from deixis.models.deixis.proposals import box_iou
from deixis.structures import AnnotatedImage, Expression, VisibleInstance
from deixis.train import setup as starting
from deixis.train import trainer
from deixis.train.batch_loader import Steps, batches
from deixis.train.recipes import recipe
from deixis.train.trainer import Trainer, forget_after, log_line, recorded, run

LOSSES = {"choice", "box", "exists", "told", "pixels", "projection", "things"}
UNREACHED = (
    "box.refine.0.", "image.neck.extra_lvl", "image.head.cls_convs.3.", "image.head.gfl_cls.",
)  # fmt: skip
"""Beginnings of names of what an untrained model's first step may not reach.

Zeros stand behind them, or places that are no candidates: the only one at stride 64 is a corner of a small canvas.
"""


@pytest.fixture
def batch(small_recipe):
    return next(iter(batches(starting.start_data(small_recipe), small_recipe, 0)))


@pytest.fixture
def mcn_batch(small_mcn_recipe):
    return next(iter(batches(starting.start_data(small_mcn_recipe), small_mcn_recipe, 0, CanvasRules(8))))


def logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
    return rows


def snapshot(held):
    """Everything that a step may change, but the step's number."""
    state = {f"model.{name}": p.clone() for name, p in held.model.state_dict().items()}
    state |= {f"helper.{name}": p.clone() for name, p in held.criterion.helper.state_dict().items()}
    state |= {f"average.{name}": p.clone() for name, p in held.average.items()}
    for index, values in held.optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{index}.{name}": value.clone() for name, value in values.items()}
    return state


def assert_same_state(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


# a whole run


def test_run_when_it_ends_then_log_state_and_a_checkpoint_that_loads(small_recipe, tmp_path):
    checkpoint = run(small_recipe, tmp_path / "run")
    rows = logged(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(set(row) == {"step", "loss", *LOSSES} and np.isfinite(list(row.values())).all() for row in rows)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "recipe.json",
        "metrics.jsonl",
        "state.pt",
        "checkpoint",
        "curves.png",
        "samples.png",
    }
    stored = json.loads((checkpoint / "config.json").read_text())
    assert stored["recipe"]["steps"] == 6
    averaged = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["average"]
    loaded = load_checkpoint(checkpoint).model
    for name, value in loaded.named_parameters():
        torch.testing.assert_close(value, averaged[name].float(), atol=1e-3, rtol=1e-3)


def test_resume_when_run_was_killed_then_losses_and_weights_equal_the_unbroken_runs(
    small_recipe, tmp_path, monkeypatch
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(small_recipe, whole)
    step = Trainer.train_step

    def killed(self, batch):
        if self.step == 3:  # the last state is that of step 2
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(small_recipe, broken)
    run(small_recipe, broken, resume=True)
    assert logged(broken) == logged(whole)
    one, two = (torch.load(folder / "state.pt", weights_only=True) for folder in (whole, broken))
    for part in ("model", "average"):
        assert_same_state(one[part], two[part])
    assert torch.equal(one["torch_rng"], two["torch_rng"])


def test_resume_when_run_stopped_by_the_clock_then_it_goes_on_to_the_same_end(small_recipe, tmp_path):
    run(small_recipe, tmp_path / "whole")
    run(small_recipe, tmp_path / "parts", minutes=0.0)
    assert [row["step"] for row in logged(tmp_path / "parts")] == [1]
    run(small_recipe, tmp_path / "parts", resume=True)
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


def test_run_when_folder_holds_a_run_then_refused_and_left_alone(small_recipe, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"state")
    with pytest.raises(ValueError, match=r"expected an empty folder for a new run, got .* with a state\.pt"):
        run(small_recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_resume_when_there_is_no_run_then_one_sentence_and_nothing_made(small_recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a run with state\.pt"):
        run(small_recipe, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_forget_after_when_lines_are_ahead_or_cut_off_then_they_go(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    forget_after(2, log)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def fail_to_sync(handle):
    raise OSError("No space left on device")


def test_forget_after_when_writing_fails_then_the_old_log_is_whole(tmp_path, monkeypatch):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n')
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail_to_sync)
        with pytest.raises(OSError, match="No space"):
            forget_after(1, log)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_run_when_recipe_cannot_be_written_then_none_is_there(small_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", fail_to_sync)
    with pytest.raises(OSError, match="No space"):
        run(small_recipe, tmp_path)
    assert not (tmp_path / "recipe.json").exists()


def test_write_whole_when_done_then_the_new_text_alone(tmp_path):
    (tmp_path / "a.json").write_text("old")
    write_text(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_log_line_when_losses_are_not_finite_then_null():
    line = log_line(3, 1.26, {"loss": np.nan, "choice": np.inf, "box": 0.5})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 3, "seconds": 1.3, "loss": None, "choice": None, "box": 0.5,
    }  # fmt: skip
    assert line.endswith("}\n")


def test_batches_when_workers_differ_then_the_same_and_they_start_anywhere(small_recipe):
    source = starting.start_data(small_recipe)
    alone = list(batches(source, small_recipe.replaced(steps=4), 0))
    helped = list(batches(source, small_recipe.replaced(steps=4, workers=1), 2))
    assert (len(alone), len(helped)) == (4, 2)
    for one, two in zip(alone[2:], helped, strict=True):
        for field in dataclasses.fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(two, field.name)), field.name


def test_batches_when_sizes_are_several_then_one_a_step_out_of_them(small_recipe):
    made = small_recipe.replaced(image_sizes=(64, 96), steps=12)
    assert {b.pixels.shape[1] for b in batches(starting.start_data(made), made, 0)} == {64, 96}


def test_batches_when_rules_are_given_then_every_batch_follows_them(small_recipe):
    source = starting.start_data(small_recipe)
    (one, _) = batches(source, small_recipe.replaced(steps=2), 0, CanvasRules(32, "nearest"))
    assert one.masks.shape[1:] == (2, 2)
    assert set(np.unique(one.masks)) <= {0, 1}


# saving


def test_save_when_writing_fails_then_the_old_state_is_whole(small_recipe, batch, tmp_path, monkeypatch):
    held = Trainer(small_recipe)
    held.save(tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    held.train_step(batch)

    def half(state, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="No space"):
            held.save(tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before
    Trainer(small_recipe).restore(tmp_path)


def test_restore_when_saved_then_everything_is_as_it_was(small_recipe, batch, tmp_path):
    held = Trainer(small_recipe)
    held.train_step(batch)
    held.save(tmp_path)
    again = Trainer(small_recipe)
    again.restore(tmp_path)
    assert again.step == 1
    assert_same_state(snapshot(held), snapshot(again))
    after = held.train_step(batch)
    again.restore(tmp_path)  # takes the random state back too
    assert again.train_step(batch) == after


def damaged_state(folder, kind):
    """Spoil state.pt in one way that users meet."""
    path = folder / "state.pt"
    if kind == "empty" or kind == "text":
        path.write_bytes(b"" if kind == "empty" else b"no state at all")
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        state = torch.load(path, weights_only=True)
        if kind == "older":
            del state["torch_rng"]
        elif kind == "other names":
            state["model"] = {f"old.{name}": value for name, value in state["model"].items()}
        elif kind == "other average":
            state["average"] = {name: value[..., None] for name, value in state["average"].items()}
        elif kind == "other optimiser":
            state["optimiser"]["param_groups"] = []
        torch.save([1] if kind == "a list" else state, path)


@pytest.mark.parametrize(
    "kind",
    ["empty", "text", "cut off", "a list", "older", "other names", "other average", "other optimiser"],
)
def test_restore_when_state_does_not_fit_then_one_sentence_names_the_file(small_recipe, tmp_path, kind):
    held = Trainer(small_recipe)
    held.save(tmp_path)
    damaged_state(tmp_path, kind)
    with pytest.raises(
        ValueError, match=r"^expected the whole state of a run .*state\.pt.* got .*; train anew"
    ) as caught:
        held.restore(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert held.step == 0


def test_resume_when_state_is_of_another_shape_then_the_runs_recipe_is_left_alone(small_recipe, small_fields, tmp_path):
    Trainer(small_recipe).save(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    other = small_recipe.replaced(model_fields={**small_fields, "mask_dim": 16})
    with pytest.raises(ValueError, match=r"state\.pt"):
        run(other, tmp_path, resume=True)
    assert (tmp_path / "recipe.json").read_text() == "{}"


# one step


def test_step_when_taken_then_parameters_and_average_move_and_frozen_ones_do_not(small_recipe, batch):
    held = Trainer(small_recipe)
    before = snapshot(held)
    losses = held.train_step(batch)
    assert losses["loss"] == pytest.approx(
        sum(held.criterion.weights[name] * losses[name] for name in LOSSES), rel=1e-4
    )
    for name, p in held.model.named_parameters():
        if p.requires_grad and (name.endswith("key.bias") or name.startswith(UNREACHED)):
            continue  # a softmax does not see what is added to all of its inputs: at most rounding moves these
        moved = not torch.equal(p, before[f"model.{name}"])
        assert moved == p.requires_grad, name
        assert torch.equal(held.average[name], before[f"average.{name}"]) != p.requires_grad, name


def test_average_when_one_step_is_done_then_a_tenth_old_and_the_rest_new(small_recipe, batch):
    held = Trainer(small_recipe)
    before = {name: p.clone() for name, p in held.average.items()}
    held.train_step(batch)  # decay (1 + 0) / (10 + 0)
    for name, p in held.model.named_parameters():
        torch.testing.assert_close(held.average[name], 0.1 * before[name] + 0.9 * p.detach())


def wrong_losses(model, loss, slope):
    """Losses whose sum is ``loss``, with ``slope`` as the gradient of one parameter's every value."""
    parameter = next(p for p in model.parameters() if p.requires_grad)
    value = loss + parameter.sum() - parameter.sum().detach()
    value.register_hook(lambda gradient: gradient * slope)
    return {"choice": value, **{name: torch.zeros(()) for name in LOSSES - {"choice"}}}


@pytest.mark.parametrize(("loss", "slope"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf), (1.0, 3e38)])
def test_step_when_loss_or_gradient_is_not_finite_then_nothing_changes_but_the_count(
    small_recipe, batch, monkeypatch, loss, slope
):
    held = Trainer(small_recipe)
    held.train_step(batch)
    before = snapshot(held)
    monkeypatch.setattr(held.criterion, "forward", lambda batch: wrong_losses(held.model, loss, slope))
    held.train_step(batch)
    assert_same_state(before, snapshot(held))
    assert held.step == 2


def test_averaged_model_when_asked_then_no_random_number_is_taken_and_the_run_is_untouched(small_recipe, batch):
    held = Trainer(small_recipe)
    held.train_step(batch)
    before, random_state = snapshot(held), torch.get_rng_state()
    averaged = held.averaged_model()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not averaged.training
    assert_same_state(dict(averaged.state_dict()), held.average)
    with torch.no_grad():
        for p in averaged.parameters():
            p.zero_()
    assert_same_state(before, snapshot(held))


# learning


def eight_scenes():
    pictures = []
    for index in range(8):
        image, samples = draw_scene("scenes", "train", index, 64, 1)
        mask = read_mask(samples[0].mask, (64, 64))
        boxed = tuple(VisibleInstance(i.category, i.box_xyxy_px, attributes=i.attributes) for i in samples[0].instances)
        target = Expression(samples[0].phrase, samples[0].box_xyxy_px, mask, "")
        pictures.append(AnnotatedImage(image, boxed, (target,), complete=True))
    return pictures


def test_training_when_eight_drawn_scenes_repeat_then_it_learns_them_by_heart(small_image_encoder, monkeypatch):
    fixed = collate(eight_scenes(), 64, np.random.default_rng(0), 0.0)
    words = sorted({word for phrase in fixed.phrases for word in phrase.split()})
    tokenizer = WordTokenizer(words, max_tokens=12)
    torch.manual_seed(0)
    config = preset(
        "deixis-tiny-glove", vocab_size=len(words) + 2, context_dim=32, context_layers=1, context_heads=2, group_dim=16,
        group_heads=2, merge_heads=2, text_dim=16, text_layers=3, mask_dim=16, image_size=64, candidates=12, cells=4,
    )  # fmt: skip
    model = DeixisModel(config)
    monkeypatch.setattr(trainer, "start_model", lambda made, samples: (model, tokenizer))
    held = Trainer(recipe("debug", steps=90, warmup=10, lr=3e-3))
    losses = [held.train_step(fixed) for _ in range(90)]
    assert losses[-1]["loss"] < 0.35 * losses[0]["loss"]
    ids, valid = (torch.from_numpy(x) for x in tokenizer.encode(fixed.phrases))
    pixels = torch.from_numpy(fixed.pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        scene = model.eval().encode_image(pixels, torch.from_numpy(fixed.content))
        answer = model.answer(scene.pick(torch.from_numpy(fixed.image_index)), ids, valid)
    overlap = box_iou(answer.boxes, torch.from_numpy(fixed.boxes))
    assert (overlap > 0.5).sum() >= 7
    inside = (answer.mask_probability > 0.5) == (torch.from_numpy(fixed.masks) > 0.5)
    assert inside.float().mean() > 0.95


def test_mixture_when_of_the_recipe_then_steps_go_through_it(small_recipe):
    mixture = starting.start_data(small_recipe)
    assert isinstance(mixture, Mixture)
    steps = Steps(mixture, small_recipe, CanvasRules())
    assert steps[3].phrases == steps[3].phrases != steps[4].phrases


def test_helper_when_words_have_a_weight_then_it_learns_and_is_saved(small_recipe, batch, tmp_path):
    made = small_recipe.replaced(words_weight=1.0)
    held = Trainer(made)
    before = snapshot(held)
    assert len(batch.thing_index) > 0
    held.train_step(batch)
    for name in ("helper.weight", "helper.bias"):
        assert not torch.equal(snapshot(held)[name], before[name])
    held.save(tmp_path)
    again = Trainer(made)
    again.restore(tmp_path)
    assert_same_state(snapshot(held), snapshot(again))
    assert not [name for name in load_checkpoint(tmp_path / "checkpoint").model.state_dict() if "helper" in name]


def test_clip_when_0_then_the_gradient_is_as_it_is(small_recipe, batch):
    moved = []
    for clip in (0.0, 1e9, 1e-9):
        held = Trainer(small_recipe.replaced(clip=clip))
        torch.manual_seed(0)
        held.train_step(batch)
        moved.append(held.model.exists[0].weight.grad.abs().max().item())
    assert moved[0] == moved[1] > 1e-6
    assert moved[2] < 1e-8


# the mcn family


def test_mcn_run_when_broken_off_then_it_goes_on_to_the_same_end_statistics_included(
    small_mcn_recipe, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    checkpoint = run(small_mcn_recipe, whole)
    run(small_mcn_recipe, parts, minutes=0.0)
    run(small_mcn_recipe, parts, resume=True)
    assert logged(parts) == logged(whole)
    assert set(logged(whole)[0]) == {"step", "loss", "xy", "wh", "confidence", "mask", "cem", "words"}
    one, two = (torch.load(folder / "state.pt", weights_only=True) for folder in (whole, parts))
    assert_same_state(one["model"], two["model"])
    loaded = load_checkpoint(checkpoint).model
    statistics = [name for name in one["model"] if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in statistics:
        assert torch.equal(loaded.state_dict()[name], one["model"][name]), name
    for name, value in loaded.named_parameters():
        torch.testing.assert_close(value, one["average"][name], atol=1e-3, rtol=1e-3)


def test_mcn_run_when_it_starts_then_batches_follow_the_models_stride_and_grey(small_mcn_recipe, tmp_path, monkeypatch):
    made = small_mcn_recipe.replaced(
        steps=1, mask_target="nearest", model_fields={**small_mcn_recipe.model.fields, "fill": 9}
    )
    seen = []

    def batches(source, made, start, rules):
        seen.append(rules)
        return iter(())

    monkeypatch.setattr(trainer, "batches", batches)
    run(made, tmp_path / "mcn")
    fields = {**made.model.fields, "structure": "single-res-13", "cem": "off"}
    run(made.replaced(mask_target="area", model_fields=fields), tmp_path / "coarse")
    assert seen == [CanvasRules(8, "nearest", 9), CanvasRules(32, "area", 9)]


@pytest.mark.parametrize(("loss", "slope"), [(np.nan, 1.0), (1.0, np.inf)])
def test_mcn_step_when_loss_or_gradient_is_not_finite_then_statistics_are_as_before_too(
    small_mcn_recipe, mcn_batch, monkeypatch, loss, slope
):
    held = Trainer(small_mcn_recipe)
    held.train_step(mcn_batch)
    before, losses = snapshot(held), held.criterion.forward

    def wrong(batch):
        value = next(iter(losses(batch).values()))
        value = loss + value - value.detach()
        value.register_hook(lambda gradient: gradient * slope)
        return {"xy": value}

    monkeypatch.setattr(held.criterion, "forward", wrong)
    held.train_step(mcn_batch)
    assert_same_state(before, snapshot(held))
    assert held.step == 2


def test_average_when_ema_is_0_then_the_weights_themselves(small_mcn_recipe, mcn_batch):
    held = Trainer(small_mcn_recipe.replaced(ema=0.0))
    held.train_step(mcn_batch)
    assert_same_state(dict(held.averaged_model().state_dict()), dict(held.model.state_dict()))


# expressions of their own


@pytest.fixture
def phrased(tmp_path, small_mcn_recipe):
    """Three pictures with five expressions of four things, and MCN's kind of recipe upon them."""
    lines = []
    for number, value in enumerate((40, 120, 220)):
        Image.fromarray(np.full((40, 60, 3), value, np.uint8)).save(tmp_path / f"{number}.png")
        lines.append({"image": f"{number}.png", "phrase": f"left {number}", "box": [0, 0, 20, 40], "split": "train"})
    lines.append({"image": "0.png", "phrase": "the left one", "box": [0, 0, 20, 40], "split": "train"})
    lines.append({"image": "1.png", "phrase": "right", "box": [30, 0, 60, 40], "split": "train"})
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return small_mcn_recipe.replaced(
        phrased=f"{tmp_path / 'own.jsonl'}:train", epochs=2, images=3, phrases=1, absent=0.0, schedule="steps",
        milestones=(2,), warmup=0, optimiser="adam", clip=0.0, ema=0.0, mask_target="nearest",
    )  # fmt: skip


def test_run_when_epochs_are_told_then_so_many_steps_and_the_rate_falls_between_them(phrased, tmp_path, monkeypatch):
    rates = []
    step = Trainer.train_step

    def spied(self, batch):
        losses = step(self, batch)
        rates.append((len(batch.phrases), self.optimiser.param_groups[0]["lr"]))
        return losses

    monkeypatch.setattr(Trainer, "train_step", spied)
    run(phrased, tmp_path / "run")
    assert rates == [(3, 1e-3), (1, 1e-3), (3, pytest.approx(1e-4)), (1, pytest.approx(1e-4))]
    assert [row["step"] for row in logged(tmp_path / "run")] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["epochs"] == 2


def test_run_when_epochs_are_told_then_the_checkpoints_recipe_reads_as_the_run_was(phrased, tmp_path):
    stored = json.loads((run(phrased, tmp_path / "run") / "config.json").read_text())["recipe"]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    again = phrased.replaced(**{**values, "phrased": phrased.data.phrased})
    told = starting.in_steps(again, starting.start_data(again))
    assert (told.optimiser.steps, told.optimiser.milestones) == (4, (2,))


def test_recorded_when_files_are_named_then_not_where_they_lay(phrased):
    stored = json.dumps(recorded(phrased.replaced(root="/home/somebody/data/refer")))
    assert "somebody" not in stored
    photos = phrased.replaced(phrased="", epochs=0, milestones=(), instances="/home/somebody/coco/a.json")
    assert "somebody" not in json.dumps(recorded(photos))
    assert str(phrased.data.phrased.rsplit("/", 2)[0]) not in stored
    assert "own.jsonl:train" in stored
    assert recorded(phrased.replaced(phrased="refcoco+:train"))["phrased"] == "refcoco+:train"


def test_run_when_data_brings_its_expressions_then_they_are_opened_once(phrased, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(starting, "open_dataset", lambda name, **how: opened.append(name) or open_dataset(name, **how))
    checkpoint = run(phrased.replaced(epochs=1, milestones=()), tmp_path / "run")
    assert len(opened) == 1
    assert load_checkpoint(checkpoint).tokenizer.words == ["left", "0", "1", "2", "the", "one", "right"]


def test_resume_when_the_words_are_others_then_one_sentence_and_the_run_is_left_alone(phrased, tmp_path):
    run(phrased, tmp_path / "run", minutes=0.0)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    own = tmp_path / "own.jsonl"
    text = own.read_text()
    own.write_text(text.replace("the left one", "the left hat"))  # as many words as before
    with pytest.raises(ValueError, match=r"expected the 7 words of '.*vocab\.txt', .* got 7 others; bring") as caught:
        run(phrased, tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    own.write_text(text)
    run(phrased, tmp_path / "run", resume=True)
    assert [row["step"] for row in logged(tmp_path / "run")] == [1, 2, 3, 4]


def test_steps_when_data_brings_its_expressions_then_every_referent_once_an_epoch(phrased):
    source = starting.start_data(phrased)
    assert isinstance(source, Epochs)
    steps = Steps(source, phrased, CanvasRules(8, "nearest", 128))
    one, two = steps[0], steps[1]
    assert (len(one.pixels), len(two.pixels), one.masks.shape[1:]) == (3, 1, (8, 8))
    assert len({*one.phrases, *two.phrases}) == 4
    assert (one.pixels[:, 0] == 128).all()
