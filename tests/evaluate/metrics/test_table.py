"""The table of many scores: the same figures as adding tallies, in any order and in any parts."""

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.evaluate.metrics import SampleScore, Tally
from deixis.evaluate.metrics.sums import RATIOS, exact_sum
from deixis.evaluate.metrics.table import ScoreTable


def make_scores(count, seed=0):
    rng = random.Random(seed)
    scores = []
    for _ in range(count):
        union, found = rng.randint(1, 900), rng.random() < 0.8
        scores.append(
            SampleScore(no_target_right=found, shown_px=rng.randint(0, 90))
            if rng.random() < 0.2
            else SampleScore(
                box_iou=rng.random(),
                mask_intersection_px=rng.randint(0, union),
                mask_union_px=union,
                target_px=union,
                found=found,
            )
        )
    return scores


def test_tally_of_a_table_when_compared_with_added_tallies_then_equal_to_the_last_digit():
    scores = make_scores(200)
    table = ScoreTable(scores, [f"image {i % 7}" for i in range(200)])
    rows = np.arange(200) % 3 == 0
    added = sum((Tally.of(score) for score in scores), Tally())
    part = sum((Tally.of(score) for score in scores[::3]), Tally())
    assert table.tally().report() == added.report()
    assert table.tally(rows).report() == part.report()


def test_report_when_samples_are_shuffled_and_shared_out_then_equal_to_the_last_digit():
    scores = make_scores(300)
    whole = sum((Tally.of(score) for score in scores), Tally()).report()
    shuffled = random.Random(1).sample(scores, k=len(scores))
    parts = [sum((Tally.of(score) for score in shuffled[k::4]), Tally()) for k in range(4)]
    assert sum(reversed(parts), Tally()).report() == whole


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=20), st.randoms())
def test_exact_sum_when_shuffled_then_the_true_sum(values, rng):
    expected = sum((Fraction(value) for value in values), Fraction(0))
    rng.shuffle(values)
    assert exact_sum(values) == expected


def test_generalised_when_worked_by_hand_then_agrees():
    # a target met by 6 of 10 pixels, a target of 8 pixels that the model denies, a right and a wrong "nothing there"
    scores = [
        SampleScore(mask_intersection_px=6, mask_union_px=10, target_px=8, found=True),
        SampleScore(mask_intersection_px=5, mask_union_px=9, target_px=8, found=False),
        SampleScore(no_target_right=True, shown_px=50),
        SampleScore(no_target_right=False, shown_px=22),
    ]
    report = sum((Tally.of(score) for score in scores), Tally()).report()
    assert report["generalised"] == {
        "n_acc": 0.5,
        "t_acc": 0.5,
        "giou": pytest.approx((0.6 + 0 + 1 + 0) / 4),
        "ciou": pytest.approx(6 / (10 + 8 + 22)),
    }
    assert report["res"]["miou"] == pytest.approx((0.6 + 5 / 9) / 2)  # "nothing there" does not hide it here


def test_generalised_when_no_phrase_means_nothing_then_none():
    score = SampleScore(mask_intersection_px=6, mask_union_px=10, target_px=8, found=True)
    assert Tally.of(score).report()["generalised"] is None


def test_value_when_asked_for_each_metric_of_nothing_then_none():
    assert {Tally().value(metric) for metric in RATIOS} == {None}


def test_table_when_ids_and_scores_differ_in_number_then_value_error():
    with pytest.raises(ValueError, match="1 ids for 2"):
        ScoreTable(make_scores(2), ["a"])
