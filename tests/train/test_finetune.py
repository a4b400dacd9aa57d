"""Fine-tuning of a very small model: which parts there are, when it stops, and what it leaves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from deixis.config import preset
from deixis.data import open_dataset
from deixis.data.formats.jsonl import write_jsonl
from deixis.evaluate.metrics import SampleScore, Tally
from deixis.hub import load_checkpoint, save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer
from deixis.models.deixis.model import DeixisModel
from deixis.structures import Sample
from deixis.train import finetune as finetune_module
from deixis.train.finetune import (
    BEST,
    ROUNDS,
    TRAIN,
    VALIDATION,
    Validation,
    ValidationRound,
    canvas_for,
    finetune,
    image_key,
    mixed,
    split_by_image,
    write_parts,
)
from deixis.train.recipes import recipe
from deixis.train.setup import start_model


def make_data(folder, images=6, side=64, boxes=True, phrases=("the red ball", "left dog")):
    """A JSONL file of small pictures, two phrases each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    samples = []
    for number in range(images):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
        for turn, phrase in enumerate(phrases):
            box = (4.0 + 8 * turn, 4.0, 30.0 + 8 * turn, 40.0) if boxes else None
            samples.append(
                Sample(id=f"{number}-{turn}", image=path, image_id=path.name, phrase=phrase, box_xyxy_px=box)
            )
    write_jsonl(folder / "my.jsonl", samples)
    return folder / "my.jsonl"


def of_accuracy(share):
    """A tally whose Acc@0.5 is a share of ten."""
    right = round(10 * share)
    return sum((Tally.of(SampleScore(box_iou=0.9 if k < right else 0.1)) for k in range(10)), Tally())


class Judge:
    """Stands for the evaluator: gives accuracies one after the other and keeps the bytes of each model's weights."""

    def __init__(self, *shares):
        self.shares, self.asked, self.weights = list(shares), [], []

    def __call__(self, grounder, samples):
        self.asked.append(len(samples))
        self.weights.append({name: value.clone() for name, value in grounder.model.state_dict().items()})
        return of_accuracy(self.shares[min(len(self.asked), len(self.shares)) - 1])


@pytest.fixture
def checkpoint(tmp_path, small_image_encoder, small_fields, bert_folder):
    """A checkpoint folder of some ten thousand random weights."""
    torch.manual_seed(0)
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=12)
    config = preset("deixis-tiny", **small_fields, vocab_size=tokenizer.vocab_size, max_tokens=12)
    save_checkpoint(tmp_path / "small", DeixisModel(config).eval(), tokenizer, calibration={"bias": 0.5})
    return tmp_path / "small"


@pytest.fixture
def smcim_checkpoint(tmp_path, bert_folder):
    torch.manual_seed(3)
    sizes = ResNetConfig(embedding_size=16, hidden_sizes=[64, 128, 128, 128], depths=[1, 1, 1, 1])
    ResNetModel(sizes).save_pretrained(tmp_path / "resnet")
    fields = {
        "image_encoder": str(tmp_path / "resnet"), "image_size": 64, "text_dim": 12, "text_heads": 2, "text_layers": 3,
        "text_features": (1, 2, 3), "group_dim": 8, "group_heads": 2, "merge_heads": 2, "max_tokens": 7,
    }  # fmt: skip
    made = recipe("debug", model="smcim-tiny", model_fields=fields, text_weights=str(bert_folder))
    save_checkpoint(tmp_path / "smcim", *start_model(made))
    return tmp_path / "smcim"


@pytest.fixture
def small(tmp_path, checkpoint, monkeypatch):
    """A recipe of four steps with a validation round after each, over the smallest checkpoint."""
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: False)
    monkeypatch.setattr("deixis.train.run_logging.Watch.draw", lambda *_: None)

    def make(data=None, **fields):
        values = {
            "steps": 4, "check_every": 1, "save_every": 1, "images": 2, "phrases": 2, "warmup": 0, "frozen_steps": 0,
            "workers": 0, "precision": "float32", "image_sizes": (64,), "augment": "none", "ema": 0.0, "lr": 1e-3,
        }  # fmt: skip
        path = data or make_data(tmp_path / "data")
        return recipe("finetune", start=str(checkpoint), phrased=str(path), **{**values, **fields})

    return make


# the two parts


@pytest.mark.parametrize(("images", "held"), [(2, 1), (5, 1), (10, 2), (23, 5)])
def test_split_when_made_then_a_fifth_of_the_images_no_image_in_both_and_nothing_lost(tmp_path, images, held):
    samples = list(open_dataset(make_data(tmp_path, images)))
    train, rest = split_by_image(samples, 1, "my.jsonl")
    assert len({image_key(one) for one in rest}) == held
    assert not {image_key(one) for one in train} & {image_key(one) for one in rest}
    assert sorted(one.id for one in [*train, *rest]) == sorted(one.id for one in samples)


def test_split_when_made_again_or_of_other_order_then_the_same_and_of_another_seed_another(tmp_path):
    samples = list(open_dataset(make_data(tmp_path, 20)))

    def held(ones, seed):
        return {image_key(one) for one in split_by_image(ones, seed, "")[1]}

    assert held(samples, 1) == held(samples[::-1], 1)
    assert any(held(samples, 1) != held(samples, seed) for seed in (2, 3))


def test_parts_when_written_then_read_back_as_train_and_val(tmp_path, small):
    assert write_parts(small(), tmp_path) == []
    parts = {name: list(open_dataset(tmp_path / name)) for name in (TRAIN, VALIDATION)}
    assert {one.split for one in parts[TRAIN]} == {"train"}
    assert {one.split for one in parts[VALIDATION]} == {"val"}
    assert (len(parts[TRAIN]), len(parts[VALIDATION])) == (10, 2)
    assert all(one.image.is_file() for part in parts.values() for one in part)


def test_parts_when_the_file_names_splits_then_these_and_others_are_told(tmp_path, small):
    samples = list(open_dataset(make_data(tmp_path / "data", 3)))
    splits = ("train", "train", "val", "val", "test", "")
    write_jsonl(tmp_path / "data" / "my.jsonl", [replace(one, split=s) for one, s in zip(samples, splits, strict=True)])
    (told,) = write_parts(small(tmp_path / "data" / "my.jsonl"), tmp_path)
    assert "1 lines" in told
    assert [one.id for one in open_dataset(tmp_path / VALIDATION)] == ["1-0", "1-1"]
    assert [one.id for one in open_dataset(tmp_path / TRAIN)] == ["0-0", "0-1", "2-1"]


def test_parts_when_validation_is_named_then_all_is_trained_on_and_shared_images_are_told(tmp_path, small):
    data = make_data(tmp_path / "data", 3)
    other = make_data(tmp_path / "other", 2)
    assert write_parts(small(data, validation=str(other)), tmp_path) == []
    assert (len(open_dataset(tmp_path / TRAIN)), len(open_dataset(tmp_path / VALIDATION))) == (6, 4)
    (told,) = write_parts(small(data, validation=str(data)), tmp_path)
    assert "3 images" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "expected phrases to learn from in .*my.jsonl.*, got none"),
        ({"images": 1}, r"expected two or more images with boxes in .*my.jsonl.*, got 1; add images, or name .*--val"),
        ({"boxes": False}, "expected phrases with a box in .*my.jsonl.*, got 12 without one"),
    ],
)
def test_parts_when_nothing_can_be_learnt_then_one_sentence(tmp_path, small, options, words):
    made = small(make_data(tmp_path / "bad", **options))
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        write_parts(made, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / TRAIN).exists()


def test_canvas_when_images_differ_then_that_of_the_middle_one_and_at_most_the_models(tmp_path):
    samples = []
    for number, side in enumerate((100, 300, 900)):
        samples += open_dataset(make_data(tmp_path / str(number), 1, side=side))
    assert canvas_for(samples, 512) == 320
    assert canvas_for(samples, 288) == 288
    assert canvas_for(samples[:2], 512) == 256
    with pytest.raises(ValueError, match="expected images that can be read, got none of the first"):
        canvas_for([replace(samples[0], image=tmp_path / "gone.png")], 512)


# the run


def test_finetune_when_run_then_the_best_round_is_the_checkpoint(small, tmp_path):
    judge = Judge(0.2, 0.4, 0.9, 0.6, 0.7)
    folder = finetune(small(lr=1e-2, pretrained_lr=1e-2), tmp_path / "run", measure=judge)
    rounds = [json.loads(line) for line in (tmp_path / "run" / ROUNDS).read_text().splitlines()]
    assert [one["step"] for one in rounds] == [0, 1, 2, 3, 4]
    assert [one["figures"]["rec.acc@0.5"] for one in rounds] == [0.2, 0.4, 0.9, 0.6, 0.7]
    assert judge.asked == [2] * 5
    saved = load_checkpoint(folder).model.state_dict()
    best = judge.weights[2]
    assert all(torch.allclose(saved[name], best[name], atol=2e-3) for name in saved)
    moved = max(float((judge.weights[4][name] - best[name]).abs().max()) for name in best)
    assert moved > 5e-3  # else this test could not tell the states apart
    assert load_checkpoint(folder).name == "small-finetuned"
    assert load_checkpoint(folder).calibration == {"bias": 0.5}


def test_finetune_when_nothing_gets_better_then_it_stops_and_the_checkpoint_is_what_it_was(small, tmp_path, checkpoint):
    judge = Judge(0.5, 0.5, 0.4, 0.3)
    folder = finetune(small(patience=2, steps=50), tmp_path / "run", measure=judge)
    assert len(judge.asked) == 3
    before, after = (load_checkpoint(one).model.state_dict() for one in (checkpoint, folder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_finetune_when_frozen_then_the_image_encoder_stays_and_learns_afterwards(small, tmp_path):
    judge = Judge(0.1, 0.2, 0.3, 0.4, 0.5)
    finetune(small(frozen_steps=2), tmp_path / "run", measure=judge)
    early = [name for name in judge.weights[0] if name.startswith("image.encoder.")]
    others = [name for name in judge.weights[0] if "image.encoder." not in name]

    def moved(names, one, two):
        return any(not torch.equal(judge.weights[one][name], judge.weights[two][name]) for name in names)

    assert not moved(early, 0, 2)
    assert moved(others, 0, 1)
    assert moved(early, 2, 4)


def test_finetune_when_broken_off_then_it_goes_on_to_the_same_losses_and_rounds(small, tmp_path, monkeypatch):
    made = small(frozen_steps=1)  # dropout, and an encoder that thaws, in between
    finetune(made, tmp_path / "whole", measure=Judge(0.1, 0.2, 0.3, 0.2, 0.1))
    whole_step = finetune_module.Trainer.train_step

    def breaks(trainer, batch):
        if trainer.step == 3:
            raise KeyboardInterrupt
        return whole_step(trainer, batch)

    monkeypatch.setattr(finetune_module.Trainer, "train_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        finetune(made, tmp_path / "cut", measure=Judge(0.1, 0.2, 0.3, 0.2))
    monkeypatch.setattr(finetune_module.Trainer, "train_step", whole_step)
    from deixis.cli.train import read_recipe

    stored = read_recipe(tmp_path / "cut")
    finetune(stored, tmp_path / "cut", measure=Judge(0.1), resume=True)
    whole, cut = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    )
    assert len(whole) == 4
    assert cut == whole
    assert (tmp_path / "cut" / ROUNDS).read_bytes() == (tmp_path / "whole" / ROUNDS).read_bytes()


def test_finetune_when_torchrun_starts_it_again_then_it_goes_on_and_else_the_folder_is_refused(
    small, tmp_path, monkeypatch
):
    made = small(steps=2)
    finetune(made, tmp_path / "run", measure=Judge(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"expected an empty folder for a new run"):
        finetune(made, tmp_path / "run", measure=Judge(0.1))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    judge = Judge(0.1)
    finetune(made, tmp_path / "run", measure=judge)
    assert judge.asked == []
    with pytest.raises(ValueError, match=r"expected an empty folder for a new run"):
        finetune(made.replaced(lr=0.5), tmp_path / "run", measure=judge)


def test_finetune_when_the_same_seed_then_the_same_losses(small, tmp_path):
    for name in ("one", "two"):
        finetune(small(steps=2), tmp_path / name, measure=Judge(0.1, 0.2, 0.3))
    one, two = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two"))
    assert [json.loads(line)["loss"] for line in one] == [json.loads(line)["loss"] for line in two]


@pytest.mark.parametrize("minutes", [0.0])
def test_finetune_when_time_is_up_then_it_rounds_saves_and_leaves_a_checkpoint(small, tmp_path, minutes):
    judge = Judge(0.1, 0.5)
    folder = finetune(small(check_every=3), tmp_path / "run", measure=judge, minutes=minutes)
    assert len(judge.asked) == 2
    assert load_checkpoint(folder).name == "small-finetuned"
    assert (tmp_path / "run" / "state.pt").is_file()


@pytest.mark.parametrize("family", ["mcn", "smcim"])
def test_finetune_when_of_another_family_then_on_its_one_canvas(
    small, tmp_path, family, make_mcn_checkpoint, smcim_checkpoint
):
    start = make_mcn_checkpoint() if family == "mcn" else smcim_checkpoint
    made = small(steps=2, frozen_steps=1).replaced(start=str(start), image_sizes=(256,))
    folder = finetune(made, tmp_path / "run", measure=Judge(0.1, 0.2, 0.3))
    model = load_checkpoint(folder).model
    assert model.config.family == family
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["image_sizes"] == [model.config.image_size]


def test_finetune_when_the_model_is_unknown_then_one_sentence_and_nothing_is_written(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a bundled model .*got 'nothing'"):
        finetune(small().replaced(start="nothing"), tmp_path / "run", measure=Judge(0.1))
    assert not (tmp_path / "run").exists()


# keeping what it knew


def test_rehearsal_when_asked_then_drawn_scenes_are_in_the_batches_and_looked_at(small, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_module, "KEPT_SCENES", 3)
    judge = Judge(0.5)
    finetune(small(rehearsal=0.5, steps=1), tmp_path / "run", measure=judge)
    assert judge.asked == [2, 3, 2, 3]
    rounds = [json.loads(line) for line in (tmp_path / "run" / ROUNDS).read_text().splitlines()]
    assert [one["kept"] for one in rounds] == [0.5, 0.5]


def make_rounds(tmp_path, judge, checkpoint, kept):
    start = load_checkpoint(checkpoint)
    new = load_checkpoint(checkpoint).model
    with torch.no_grad():
        for value in new.parameters():
            value += 1
    rounds = Validation(tmp_path, ["own"], ["drawn"], judge, start, 3)
    rounds._save(new, recipe("debug"), tmp_path / BEST)
    rounds.rounds = [
        ValidationRound(step=0, figures={"rec.acc@0.5": 0.2}, kept=0.9),
        ValidationRound(step=5, figures={"rec.acc@0.5": 0.8}, kept=kept),
    ]
    return rounds


@pytest.mark.parametrize(
    ("kept", "shares", "distance"),
    [(0.9, [], 1.0), (0.885, [], 1.0), (0.7, [0.9], 0.85), (0.6, [0.8, 0.9], 0.7), (0.1, [0.1, 0.2, 0.3], 0.5)],
)
def test_finish_when_too_much_was_lost_then_old_weights_are_mixed_in(tmp_path, checkpoint, kept, shares, distance):
    figures = [value for share in shares for value in (0.7, share)]
    rounds = make_rounds(tmp_path, Judge(*figures), checkpoint, kept)
    rounds.finish(recipe("debug"))
    old, new = (load_checkpoint(one).model.state_dict() for one in (checkpoint, tmp_path / "checkpoint"))
    name = next(name for name, value in old.items() if value.ndim == 1 and value.is_floating_point() and len(value) > 3)
    assert float((new[name] - old[name]).mean()) == pytest.approx(distance, abs=1e-3)
    assert len(rounds.measure.asked) == 2 * len(shares)


def test_mixed_when_a_share_is_old_then_between_both_and_neither_moves(checkpoint):
    old, new = load_checkpoint(checkpoint).model, load_checkpoint(checkpoint).model
    with torch.no_grad():
        for value in new.parameters():
            value += 2
    middle = mixed(old, new, 0.25)
    for (name, a), b, c in zip(old.named_parameters(), new.parameters(), middle.parameters(), strict=True):
        assert torch.allclose(b - a, torch.full_like(a, 2), atol=1e-5), name
        assert torch.allclose(c - a, torch.full_like(a, 1.5), atol=1e-5), name


def test_goodness_when_boxes_are_given_then_masks_count_by_their_mean_iou_alone():
    figures = {"rec.acc@0.5": 0.9, "rec.mean_iou": 0.6, "res.miou": 0.3, "res.acc@0.5": 0.0}
    assert ValidationRound(step=0, figures=figures).goodness == pytest.approx(0.6)
    assert ValidationRound(step=0, figures={"res.miou": 0.4, "res.acc@0.5": 0.2}).goodness == pytest.approx(0.3)
