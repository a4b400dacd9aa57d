"""The checkpoint that ships: it does what its card says, in either precision."""

import json
from pathlib import Path

import numpy as np
import pytest

from deixis.data import open_dataset
from deixis.evaluate.evaluate import evaluate
from deixis.geometry.boxes import box_iou
from deixis.grounder import load
from deixis.hub import find_checkpoint

PHOTO = Path(__file__).parent.parent / "examples/photos/riders.jpg"
PHRASES = ["left horse", "right horse", "the rider on the left", "person on right"]


def test_bundled_when_files_are_weighed_then_within_40_megabytes():
    folder = find_checkpoint("deixis-tiny")
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) < 40_000_000


def test_bundled_when_bfloat16_then_boxes_and_masks_agree_with_float32():
    exact, fast = (load(precision=one).look(PHOTO).ground_all(PHRASES) for one in ("float32", "bfloat16"))
    for a, b in zip(exact, fast, strict=True):
        assert box_iou(np.array(a.box), np.array(b.box)) > 0.9
        assert (a.mask & b.mask).sum() / (a.mask | b.mask).sum() > 0.85
        assert a.score == pytest.approx(b.score, abs=0.1)


def test_bundled_when_left_and_right_are_asked_then_different_horses():
    left, right = load(precision="float32").look(PHOTO).ground_all(["left horse", "right horse"])
    assert left.box[2] < right.box[0]


@pytest.mark.slow
def test_bundled_when_measured_on_drawn_scenes_then_near_its_card():
    stated = json.loads((find_checkpoint("deixis-tiny") / "config.json").read_text(encoding="utf-8"))["metrics"]
    report = evaluate(load(), open_dataset("scenes", split="val", limit=300), name="scenes", baselines=False).report()
    # two standard errors of 300 draws at 0.8 are 0.05
    assert report["rec"]["acc@0.5"] > stated["scenes:val"]["acc@0.5"] - 0.05
    assert report["res"]["miou"] > stated["scenes:val"]["miou"] - 0.05
