"""Parts of a data set: who belongs where, and that all of a slice's parts add up to it."""

from pathlib import Path

import numpy as np
import pytest

from deixis.evaluate.metrics import SampleScore
from deixis.evaluate.metrics.slices import SLICES, labels_of, length_bounds, parts_of, report_slices
from deixis.evaluate.metrics.sums import ScoreTable
from deixis.structures import Instance, Sample


def label(name, one, **known):
    return dict(zip(SLICES, labels_of(one, (2, 3, 5), "plain", **known), strict=True))[name]


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
    assert label("box size", sample(box=(1, 1, 1 + side, 1 + side))) == part


@pytest.mark.parametrize(
    ("width", "part"),
    [
        (0.9, "<1 %"), (1, "1-3 %"), (2.9, "1-3 %"), (3, "3-10 %"), (10, "10-25 %"), (24.9, "10-25 %"), (25.1, ">25 %"),
        (100, ">25 %"),
    ],
)  # fmt: skip
def test_image_share_when_the_images_size_is_known_then_of_its_area(width, part):
    one = sample(box=(0, 0, width, 40))
    assert label("image share", one, hw=(40, 100)) == part
    assert label("image share", one) is None
    assert label("image share", sample(box=None), hw=(40, 100)) is None


def test_words_when_several_are_said_then_the_sample_is_in_each_part():
    assert label("words", sample(), words=("left", "no place word")) == "left + no place word"
    assert parts_of("words", "left + no place word") == ["left", "no place word"]
    assert label("words", sample()) is None
    assert parts_of("words", None) == []
    assert parts_of("category", "salt + pepper") == ["salt + pepper"]


def test_rivals_when_things_are_listed_then_others_of_the_category_count():
    assert label("rivals", sample(others=("dog", "dog", "cat", "dog"))) == "2"
    assert label("rivals", sample(others=("dog",) * 7)) == "4+"
    assert label("rivals", sample()) is None
    nothing = sample(box=None, others=("dog",))
    assert (label("box size", nothing), label("rivals", nothing)) == (None, None)


def test_report_slices_when_parts_are_put_together_then_the_whole():
    rng = np.random.default_rng(0)
    scores = [SampleScore(box_iou=float(iou)) for iou in rng.random(60)]
    labels = [
        (
            ("1-2", "3", "4-5", "6+")[i % 4],
            ("large", "small")[i % 2],
            ("10-25 %", "<1 %")[i % 2],
            None,
            "plain",
            ("left", "middle", "no place word")[i % 3],
            f"thing {min(i % 5, 2)}",
        )
        for i in range(60)
    ]
    table = ScoreTable(scores, [str(i % 9) for i in range(60)])
    report = report_slices(table, labels, replicates=20)
    assert list(report) == ["length", "box size", "image share", "kind", "words", "category"]
    assert list(report["length"]) == ["1-2", "3", "4-5", "6+"]
    assert list(report["box size"]) == ["small", "large"]
    assert list(report["image share"]) == ["<1 %", "10-25 %"]
    assert list(report["category"]) == ["thing 2", "thing 0", "thing 1"]
    whole = table.tally().value("rec.mean_iou")
    for parts in report.values():
        assert sum(part["n"] for part in parts.values()) == 60
        assert sum(part["n"] * part["rec.mean_iou"] for part in parts.values()) / 60 == pytest.approx(whole)
        assert all(part["res.miou"] is None for part in parts.values())
    low, high = report["kind"]["plain"]["ci95"]["rec.acc@0.5"]
    assert low <= table.tally().value("rec.acc@0.5") <= high


def test_report_slices_when_a_phrase_says_several_words_then_it_counts_for_each():
    scores = [SampleScore(box_iou=iou) for iou in (0.9, 0.1, 0.8, 0.7)]
    said = ("left + colour", "colour", "left", None)
    labels = [tuple(words if name == "words" else None for name in SLICES) for words in said]
    report = report_slices(ScoreTable(scores, list("abcd")), labels, replicates=0)
    assert list(report) == ["words"]
    assert {part: figures["n"] for part, figures in report["words"].items()} == {"colour": 2, "left": 2}
    assert report["words"]["colour"]["rec.acc@0.5"] == 0.5
    assert report["words"]["left"]["rec.mean_iou"] == pytest.approx(0.85)
