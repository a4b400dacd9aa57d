"""MCN as a whole: by its recipe's commands, learning a few samples by heart, and at full size."""

import dataclasses
import json
import pickle

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.config import preset
from deixis.data.attributes import WORD_GROUPS
from deixis.data.batches import BatchShape, CanvasRules, Epochs
from deixis.data.formats.jsonl import write_jsonl
from deixis.data.scenes import open_scenes
from deixis.evaluate.evaluate import evaluate
from deixis.geometry.masks import read_mask
from deixis.grounder import load
from deixis.language.tokenizers import WordTokenizer
from deixis.models.mcn.criterion import McnCriterion
from deixis.models.mcn.model import McnModel
from deixis.train.recipes import recipe
from deixis.train.trainer import run


@pytest.fixture
def learn_by_heart(tmp_path):
    """Trains on drawn samples alone, all of them in every step, and evaluates the checkpoint on the same samples.

    Only things that cover a twentieth of the picture are asked for: a ring whose rim is thinner than a cell of the
    mask covers less than half of each, and cannot be learnt. A batch holds every phrase four times, as batch-norm keeps
    the unbiased variance: of two values, that is twice the variance by which it normalises in training.
    """

    def learn(count, *, steps, lr, fields, canvas=128):
        samples = []
        for sample in open_scenes("scenes", "train", size=64):
            if read_mask(sample.mask, (64, 64)).mean() >= 0.05:
                path = tmp_path / f"{sample.id}.png"
                Image.fromarray(sample.image).save(path)
                samples.append(dataclasses.replace(sample, image=path))
            if len(samples) == count:
                break
        write_jsonl(tmp_path / "own.jsonl", samples * 4)
        made = recipe(
            "mcn-scenes", phrased=str(tmp_path / "own.jsonl"), model_fields={**fields, "image_size": canvas},
            image_sizes=(canvas,), images=count, phrases=4, steps=steps, warmup=10, lr=lr, ema=0.0, save_every=steps,
            workers=0, precision="float32",
        )  # fmt: skip
        checkpoint = run(made, tmp_path / "run")
        return evaluate(load(checkpoint, precision="float32"), samples, baselines=False)

    return learn


def assert_all_right(result, count):
    assert len(result.predictions) == count
    assert result.report()["rec"]["acc@0.5"] == 1.0
    assert min(one.mask_iou for one in result.predictions) > 0.5


def test_training_when_two_drawn_samples_repeat_then_boxes_and_masks_are_right(
    learn_by_heart, small_mcn_encoder, small_mcn_fields
):
    fields = {**small_mcn_fields, "dim": 16, "max_tokens": 15}
    assert_all_right(learn_by_heart(2, steps=60, lr=1e-2, fields=fields), 2)


@pytest.mark.slow
def test_mcn_tiny_when_eight_drawn_samples_repeat_then_boxes_and_masks_are_right(learn_by_heart):
    fields = {"fusion_dim": 64, "dim": 32, "aspp_dim": 16, "text_dim": 32}
    assert_all_right(learn_by_heart(8, steps=200, lr=2e-3, fields=fields), 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mcn-darknet53", "mcn-vgg16"])
def test_presets_when_at_full_size_then_every_gradient_is_there_and_finite(name):
    torch.manual_seed(0)
    words = ["the", "left", "right", *(f"word{number}" for number in range(97))]
    model = McnModel(preset(name, vocab_size=len(words) + 2)).train()
    criterion = McnCriterion(
        model, WordTokenizer(words, max_tokens=15), recipe("mcn").losses, [len(group) for group in WORD_GROUPS]
    )
    batch = Epochs(open_scenes("scenes", "train", 1), [[0]]).batch(
        1, 0, BatchShape(images=1, phrases=1, size=416, rules=CanvasRules(model.mask_stride, "nearest", model.fill))
    )
    parts = criterion(batch)
    criterion.total(parts).backward()
    assert all(torch.isfinite(value) for value in parts.values())
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, value in gradients.items() if value is None or not torch.isfinite(value).all()} == set()
    assert all(value.any() for name, value in gradients.items() if name.endswith("conv.weight"))


# the recipe of the paper, from the files of a data set to a report


REFS = [  # image, split and sentences of a thing
    (0, "train", ("left dog", "dog on the left")), (1, "train", ("the cat",)), (2, "train", ("red ball", "ball")),
    (3, "val", ("left dog", "the dog")), (4, "val", ("cat",)),
]  # fmt: skip


@pytest.fixture
def release(tmp_path):
    """RefCOCO as its release has it, but of five pictures with one thing each."""
    folder, photos = tmp_path / "data" / "refcoco", tmp_path / "data" / "images" / "train2014"
    folder.mkdir(parents=True)
    photos.mkdir(parents=True)
    polygon = [10, 5, 50, 5, 50, 35, 10, 35]
    refs, images, annotations = [], [], []
    for number, split, told in REFS:
        name = f"COCO_train2014_{number:012d}.jpg"
        Image.new("RGB", (80, 48), (50 * number, 90, 120)).save(photos / name)
        images.append({"id": number, "file_name": name, "height": 48, "width": 80})
        annotations.append({
            "id": number, "image_id": number, "category_id": 1, "bbox": [10, 5, 40, 30], "segmentation": [polygon],
            "iscrowd": 0,
        })  # fmt: skip
        sentences = [{"sent_id": 10 * number + i, "sent": one, "tokens": one.split()} for i, one in enumerate(told)]
        refs.append({
            "ref_id": number, "ann_id": number, "image_id": number, "category_id": 1, "split": split,
            "sentences": sentences, "file_name": name,
        })  # fmt: skip
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(whole))
    return tmp_path / "data"


def command(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_recipe_when_given_a_release_and_word_vectors_then_an_epoch_and_a_report(
    release, small_mcn_encoder, small_mcn_fields, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vectors, out, report = tmp_path / "glove.txt", tmp_path / "run", tmp_path / "report"
    vectors.write_text("".join(f"{word} 0.1 {n} -1 0 2 0.5\n" for n, word in enumerate(("the", "dog", "cat", "left"))))
    fields = [x for name, value in small_mcn_fields.items() for x in (f"--model_fields.{name}", value)]
    command(
        "train", "mcn", "--root", release, "--text_weights", vectors, "--out", out, "--epochs", 1, "--images", 2,
        "--image_sizes", "[64]", "--workers", 0, *fields,
    )  # fmt: skip
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in steps] == [1, 2]  # three things, two a step
    assert all(one[name] is not None for one in steps for name in ("xy", "wh", "confidence", "mask", "cem"))
    stored = json.loads((out / "checkpoint" / "config.json").read_text())
    assert stored["model"]["image_encoder"] == "darknet53"
    assert not stored["model"]["train_words"]

    printed = command("evaluate", out / "checkpoint", "refcoco:val", "--root", release, "--report", report, "--json")
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics == {**json.loads(printed), "problems": []}
    assert (metrics["dataset"], metrics["split"]) == ("refcoco", "val")
    assert metrics["n"] == 3
    assert 0 <= metrics["rec"]["acc@0.5"] <= 1
    assert 0 <= metrics["res"]["miou"] <= 1
    lines = [json.loads(line) for line in (report / "predictions.jsonl").read_text().splitlines()]
    assert sorted(one["phrase"] for one in lines) == ["cat", "left dog", "the dog"]
    assert all(len(one["box"]) == 4 and 0 <= one["mask_iou"] <= 1 for one in lines)
