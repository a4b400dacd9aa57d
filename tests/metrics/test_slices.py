"""Parts of a data set: who belongs where, and that all of a slice's parts add up to it."""

from pathlib import Path

import numpy as np
import pytest

from deixis.metrics import SampleScore
from deixis.metrics.slices import SLICES, labels_of, length_bounds, report_slices
from deixis.metrics.table import ScoreTable
from deixis.structures import Instance, Sample


def sample(phrase="dog", box=(0, 0, 10, 10), others=(), category="dog"):
    things = tuple(Instance(category=name, box_xyxy_px=(0, 0, 5, 5)) for name in others)
    return Sample(
        id="1", image=Path("a.jpg"), image_id="a", phrase=phrase, box_xyxy_px=box, category=category, instances=things
    )


@pytest.mark.parametrize(
    ("dataset", "words", "part"),
    [
        ("refcoco", 1, "1-2"), ("refcoco", 2, "1-2"), ("refcoco+", 3, "3"), ("refcoco", 5, "4-5"),
        ("refcoco", 6, "6+"), ("refcocog-umd", 5, "1-5"), ("refcocog-umd", 7, "6-7"), ("refcocog-google", 10, "8-10"),
        ("scenesg", 11, "11+"), ("referit", 1, "1"), ("referit", 2, "2"), ("referit", 4, "3-4"), ("x.jsonl", 60, "6+"),
    ],
)  # fmt: skip
def test_length_when_words_are_counted_then_in_the_data_sets_own_group(dataset, words, part):
    labels = labels_of(sample(" ".join(["dog"] * words)), length_bounds(dataset), "plain")
    assert dict(zip(SLICES, labels, strict=True))["length"] == part


@pytest.mark.parametrize(("side", "part"), [(31.9, "small"), (32, "medium"), (95.9, "medium"), (96, "large")])
def test_box_size_when_at_cocos_bounds_then_the_larger_group(side, part):
    assert labels_of(sample(box=(1, 1, 1 + side, 1 + side)), (2, 3, 5), "plain")[1] == part


def test_rivals_when_things_are_listed_then_others_of_the_category_count():
    assert labels_of(sample(others=("dog", "dog", "cat", "dog")), (2, 3, 5), "plain")[2] == "2"
    assert labels_of(sample(others=("dog",) * 7), (2, 3, 5), "plain")[2] == "4+"
    assert labels_of(sample(), (2, 3, 5), "plain")[2] is None
    assert labels_of(sample(box=None, others=("dog",)), (2, 3, 5), "plain")[1:3] == (None, None)


def test_report_slices_when_parts_are_put_together_then_the_whole():
    rng = np.random.default_rng(0)
    scores = [SampleScore(box_iou=float(iou)) for iou in rng.random(60)]
    labels = [
        (("1-2", "3", "4-5", "6+")[i % 4], ("large", "small")[i % 2], None, "plain", f"thing {min(i % 5, 2)}")
        for i in range(60)
    ]
    table = ScoreTable(scores, [str(i % 9) for i in range(60)])
    report = report_slices(table, labels, replicates=20)
    assert list(report) == ["length", "box size", "kind", "category"]
    assert list(report["length"]) == ["1-2", "3", "4-5", "6+"]
    assert list(report["box size"]) == ["small", "large"]
    assert list(report["category"]) == ["thing 2", "thing 0", "thing 1"]
    whole = table.tally().value("rec.mean_iou")
    for parts in report.values():
        assert sum(part["n"] for part in parts.values()) == 60
        assert sum(part["n"] * part["rec.mean_iou"] for part in parts.values()) / 60 == pytest.approx(whole)
        assert all(part["res.miou"] is None for part in parts.values())
    low, high = report["kind"]["plain"]["ci95"]["rec.acc@0.5"]
    assert low <= table.tally().value("rec.acc@0.5") <= high
