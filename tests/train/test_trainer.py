import dataclasses
import json

import numpy as np
import pytest
import torch

from deixis.config import preset
from deixis.data.loading import Mixture, Picture, Target, collate
from deixis.data.scenes import draw_scene
from deixis.geometry.masks import read_mask
from deixis.hub import load_checkpoint
from deixis.language.tokenizers import WordTokenizer
from deixis.models.decoding import decode, pairwise_iou
from deixis.models.deixis import DeixisModel
from deixis.train import starting, trainer
from deixis.train.recipes import recipe
from deixis.train.trainer import (
    Trainer,
    batch_losses,
    batches,
    forget_after,
    log_line,
    loss_weights,
    mean_where,
    parameter_groups,
    run,
    set_learning_rate,
    write_whole,
)

LOSSES = {"heat", "box", "mask", "projection", "exists", "consistency"}


@pytest.fixture
def small_recipe(small_image_encoder, small_fields, bert_folder):
    """Six steps of a very small model whose BERT has dropout, on drawn scenes."""
    return recipe(
        "debug", model="deixis-tiny", model_fields=small_fields, text_weights=str(bert_folder),
        steps=6, save_every=2, images=1, phrases=2, lr=1e-3,
    )  # fmt: skip


@pytest.fixture
def batch(small_recipe):
    return next(iter(batches(small_recipe, 0)))


def logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
    return rows


def snapshot(held):
    """Everything that a step may change, but the step's number."""
    state = {f"model.{name}": p.clone() for name, p in held.model.state_dict().items()}
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
    write_whole(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_log_line_when_losses_are_not_finite_then_null():
    line = log_line(3, 1.26, {"loss": np.nan, "heat": np.inf, "box": 0.5})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 3, "seconds": 1.3, "loss": None, "heat": None, "box": 0.5,
    }  # fmt: skip
    assert line.endswith("}\n")


def test_batches_when_workers_differ_then_the_same_and_they_start_anywhere(small_recipe):
    alone = list(batches(dataclasses.replace(small_recipe, steps=4), 0))
    helped = list(batches(dataclasses.replace(small_recipe, steps=4, workers=1), 2))
    assert (len(alone), len(helped)) == (4, 2)
    for one, two in zip(alone[2:], helped, strict=True):
        for field in dataclasses.fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(two, field.name)), field.name


def test_batches_when_sizes_are_several_then_one_a_step_out_of_them(small_recipe):
    sizes = {b.pixels.shape[1] for b in batches(dataclasses.replace(small_recipe, image_sizes=(64, 96), steps=12), 0)}
    assert sizes == {64, 96}


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
    other = dataclasses.replace(small_recipe, model_fields={**small_fields, "mask_dim": 16})
    with pytest.raises(ValueError, match=r"state\.pt"):
        run(other, tmp_path, resume=True)
    assert (tmp_path / "recipe.json").read_text() == "{}"


# one step


def test_step_when_taken_then_parameters_and_average_move_and_frozen_ones_do_not(small_recipe, batch):
    held = Trainer(small_recipe)
    before = snapshot(held)
    losses = held.train_step(batch)
    assert losses["loss"] == pytest.approx(
        sum(loss_weights(small_recipe)[name] * losses[name] for name in LOSSES), rel=1e-4
    )
    for name, p in held.model.named_parameters():
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
    return {"heat": value, **{name: torch.zeros(()) for name in LOSSES - {"heat"}}}


@pytest.mark.parametrize(("loss", "slope"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf), (1.0, 3e38)])
def test_step_when_loss_or_gradient_is_not_finite_then_nothing_changes_but_the_count(
    small_recipe, batch, monkeypatch, loss, slope
):
    held = Trainer(small_recipe)
    held.train_step(batch)
    before = snapshot(held)
    monkeypatch.setattr(trainer, "batch_losses", lambda model, *rest: wrong_losses(model, loss, slope))
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


# parts


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.5), (1, 1.0), (2, 1.0), (4, 0.505), (6, 0.01), (100, 0.01)],  # at 4: 0.01 + 0.99 / 2
)
def test_learning_rate_when_worked_by_hand_then_warm_up_and_half_a_cosine(step, factor):
    made = recipe("debug", warmup=2, steps=6)
    optimiser = torch.optim.SGD(
        [{"params": [torch.zeros(1, requires_grad=True)], "peak_lr": peak} for peak in (2.0, 0.1)]
    )
    set_learning_rate(optimiser, made, step)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([2.0 * factor, 0.1 * factor])


def test_learning_rate_when_no_warm_up_then_full_at_once():
    optimiser = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "peak_lr": 1.0}])
    set_learning_rate(optimiser, recipe("debug", warmup=0, steps=6), 0)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1.0)


def test_groups_when_encoders_are_pretrained_then_their_rate_and_no_decay_on_biases(small_recipe):
    made = dataclasses.replace(small_recipe, image_weights="folder", lr=1.0, pretrained_lr=0.1, weight_decay=0.5)
    model, _ = starting.start_model(small_recipe)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = set()
    for group in parameter_groups(model, made):
        for p in group["params"]:
            name = names[id(p)]
            seen.add(name)
            assert group["peak_lr"] == (0.1 if name.startswith(("image.encoder.", "text.bert.")) else 1.0), name
            assert group["weight_decay"] == (0.5 if p.ndim > 1 else 0.0), name
    assert seen == {name for name, p in model.named_parameters() if p.requires_grad}


def test_groups_when_image_encoder_is_from_scratch_then_full_rate(small_recipe):
    model, _ = starting.start_model(small_recipe)
    own = {id(p) for p in model.image.encoder.parameters()}
    rates = {g["peak_lr"] for g in parameter_groups(model, small_recipe) if any(id(p) in own for p in g["params"])}
    assert rates == {small_recipe.lr}


def test_mean_where_when_worked_by_hand_then_that():
    values = torch.tensor([1.0, 5.0, torch.inf])
    assert mean_where(values, torch.tensor([True, True, False])).item() == 3
    assert mean_where(values, torch.tensor([False, False, False])).item() == 0


def half_picture(side, value, category="dog", *, with_mask=True):
    """Grey, with a brighter half: its box is known, its mask perhaps."""
    image = np.full((32, 32, 3), 60, np.uint8)
    mask = np.zeros((32, 32), bool)
    columns = slice(0, 16) if side == "left" else slice(16, 32)
    image[:, columns] = value
    mask[:, columns] = True
    box = (float(columns.start), 0.0, float(columns.stop), 32.0)
    return Picture(
        image, [Target(f"{side} {category}", box, mask if with_mask else None, category)], frozenset({category})
    )


def test_losses_when_mask_is_unknown_then_projection_and_else_mask(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    rng = np.random.default_rng(0)
    known = batch_losses(model, tokenizer, collate([half_picture("left", 200)], 64, rng, 0.0))
    unknown = batch_losses(model, tokenizer, collate([half_picture("left", 200, with_mask=False)], 64, rng, 0.0))
    assert (known["mask"] > 0, known["projection"] == 0) == (True, True)
    assert (unknown["mask"] == 0, unknown["projection"] > 0) == (True, True)


def test_losses_when_phrase_means_nothing_then_mask_and_existence_alone(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    pictures = [half_picture("left", 200, "dog"), half_picture("right", 200, "cat")]
    whole = collate(pictures, 64, np.random.default_rng(0), 1.0)
    chosen = ~whole.present
    absent = dataclasses.replace(
        whole, phrases=[p for p, c in zip(whole.phrases, chosen, strict=True) if c],
        **{name: getattr(whole, name)[chosen] for name in ("image_index", "boxes", "masks", "has_mask", "present")},
    )  # fmt: skip
    assert len(absent.phrases) == 2
    parts = batch_losses(model, tokenizer, absent)
    assert {name for name, value in parts.items() if value > 0} == {"mask", "exists"}


def test_losses_when_trained_then_every_trainable_parameter_gets_a_gradient(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    pictures = [half_picture("left", 200), half_picture("right", 30, "cat", with_mask=False)]
    parts = batch_losses(model, tokenizer, collate(pictures, 64, np.random.default_rng(0), 1.0))
    sum(parts.values()).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert {name for name in without if not name.endswith("key.bias")} == set()


# learning


def eight_scenes():
    pictures = []
    for index in range(8):
        image, samples = draw_scene("scenes", "train", index, 64, 1)
        mask = read_mask(samples[0].mask, (64, 64))
        pictures.append(Picture(image, [Target(samples[0].phrase, samples[0].box_xyxy_px, mask, "")], None))
    return pictures


def test_training_when_eight_drawn_scenes_repeat_then_it_learns_them_by_heart(small_image_encoder, monkeypatch):
    fixed = collate(eight_scenes(), 64, np.random.default_rng(0), 0.0)
    words = sorted({word for phrase in fixed.phrases for word in phrase.split()})
    tokenizer = WordTokenizer(words, max_tokens=12)
    torch.manual_seed(0)
    config = preset(
        "deixis-tiny-glove", vocab_size=len(words) + 2, context_dim=32, context_layers=1, context_heads=2, group_dim=16,
        group_heads=2, merge_heads=2, text_dim=16, text_layers=3, mask_dim=16, mask_stride4_dim=8, image_size=64,
    )  # fmt: skip
    model = DeixisModel(config)
    monkeypatch.setattr(trainer, "start_model", lambda made: (model, tokenizer))
    held = Trainer(recipe("debug", steps=90, warmup=10, lr=3e-3))
    losses = [held.train_step(fixed) for _ in range(90)]
    assert losses[-1]["loss"] < 0.35 * losses[0]["loss"]
    ids, valid = (torch.from_numpy(x) for x in tokenizer.encode(fixed.phrases))
    pixels = torch.from_numpy(fixed.pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        output = model.eval()(pixels, torch.from_numpy(fixed.content), torch.from_numpy(fixed.image_index), ids, valid)
    overlap = pairwise_iou(decode(output).boxes, torch.from_numpy(fixed.boxes))
    assert (overlap > 0.5).sum() >= 7
    inside = (output.mask_logits > 0) == (torch.from_numpy(fixed.masks) > 0.5)
    assert inside.float().mean() > 0.95


def test_mixture_when_of_the_recipe_then_steps_go_through_it(small_recipe):
    mixture = starting.start_data(small_recipe)
    assert isinstance(mixture, Mixture)
    steps = trainer.Steps(mixture, small_recipe)
    assert steps[3].phrases == steps[3].phrases != steps[4].phrases
