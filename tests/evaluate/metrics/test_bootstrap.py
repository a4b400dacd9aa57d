"""Intervals: over images, the same in every order, and as wide as theory says."""

import random

import pytest

from deixis.evaluate.metrics import SampleScore
from deixis.evaluate.metrics.bootstrap import intervals, paired_difference
from deixis.evaluate.metrics.sums import ScoreTable


def coin_table(images, each, seed=0):
    """All phrases of an image are right, or all are wrong, half and half."""
    rng = random.Random(seed)
    right = [rng.random() < 0.5 for _ in range(images)]
    scores = [SampleScore(box_iou=0.9 if is_right else 0.1) for is_right in right for _ in range(each)]
    return ScoreTable(scores, [f"{image:05d}" for image in range(images) for _ in range(each)])


def test_intervals_when_phrases_of_an_image_go_together_then_as_wide_as_images_say():
    # 400 images at p = 0.5: standard error 0.025, whether each has one phrase or ten
    for each in (1, 10):
        low, high = intervals(coin_table(400, each), ["rec.acc@0.5"])["rec.acc@0.5"]
        assert high - low == pytest.approx(2 * 1.96 * 0.025, rel=0.12)


def test_intervals_when_samples_are_shuffled_then_equal_to_the_last_digit():
    rng = random.Random(3)
    pairs = [(SampleScore(box_iou=rng.random()), f"image {rng.randrange(40)}") for _ in range(300)]
    shuffled = rng.sample(pairs, k=len(pairs))
    first, second = (ScoreTable(*map(list, zip(*order, strict=True))) for order in (pairs, shuffled))
    found = intervals(first, replicates=200)
    assert found == intervals(second, replicates=200)
    assert found["rec.mean_iou"] is not None
    assert found["res.miou"] is None


def test_intervals_when_all_are_right_then_no_width_and_when_one_image_then_none():
    always = ScoreTable([SampleScore(box_iou=0.9)] * 6, list("aabbcc"))
    assert intervals(always, ["rec.acc@0.5"])["rec.acc@0.5"] == (1.0, 1.0)
    assert intervals(ScoreTable([SampleScore(box_iou=0.9)] * 6, ["a"] * 6), ["rec.acc@0.5"])["rec.acc@0.5"] is None
    assert intervals(always, ["rec.acc@0.5"], replicates=0)["rec.acc@0.5"] is None
    assert intervals(ScoreTable([], []), ["rec.acc@0.5"])["rec.acc@0.5"] is None


def test_intervals_when_a_metric_counts_on_one_image_alone_then_none():
    scores = [SampleScore(box_iou=0.9), SampleScore(no_target_right=True), SampleScore(no_target_right=False)]
    found = intervals(ScoreTable(scores, list("abc")), ["rec.acc@0.5", "no_target_accuracy"])
    assert found["rec.acc@0.5"] is None
    assert found["no_target_accuracy"] is not None
    table = ScoreTable(scores, list("abc"))
    assert paired_difference(table, table, "rec.acc@0.5") == (0.0, None)


def test_intervals_when_seeds_differ_then_other_draws():
    table = coin_table(30, 2)
    drawn = [intervals(table, ["rec.acc@0.5"], replicates=50, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_paired_difference_when_models_fail_on_the_same_images_then_narrower_than_apart():
    a = coin_table(200, 2)
    ious = a.column("box_iou").tolist()
    ious[:4] = [0.9] * 4
    b = ScoreTable([SampleScore(box_iou=iou) for iou in ious], [f"{image:05d}" for image in a.image])
    difference, interval = paired_difference(a, b, "rec.acc@0.5")
    assert difference == b.tally().value("rec.acc@0.5") - a.tally().value("rec.acc@0.5")
    assert interval is not None
    low, high = intervals(a, ["rec.acc@0.5"])["rec.acc@0.5"]
    assert interval[0] <= difference <= interval[1]
    assert interval[1] - interval[0] < 0.3 * (high - low)


def test_paired_difference_when_tables_are_of_other_samples_then_value_error():
    with pytest.raises(ValueError, match="same samples"):
        paired_difference(coin_table(3, 2), coin_table(2, 3), "rec.acc@0.5")
    with pytest.raises(ValueError, match=r"res\.miou"):
        paired_difference(coin_table(3, 2), coin_table(3, 2), "res.miou")
