"""Metrics: every figure against one worked by hand."""

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.evaluate.metrics import SampleScore, Tally, score_sample
from deixis.evaluate.metrics.sums import RATIOS, ScoreTable, exact_sum


def rows(count, hw=(10, 10)):
    """A mask whose first ``count`` rows are set."""
    mask = np.zeros(hw, dtype=bool)
    mask[:count] = True
    return mask


def tally(*scores):
    return sum((Tally.of(score) for score in scores), Tally())


def masks_score(intersection, union, box_iou=None):
    return SampleScore(box_iou=box_iou, mask_intersection_px=intersection, mask_union_px=union)


def test_score_sample_when_worked_by_hand_then_agrees():
    score = score_sample(
        target_box=(0, 0, 10, 4), target_mask=rows(4), box=(0, 0, 10, 6), mask=rows(5) & ~rows(2), found=False
    )
    assert score.box_iou == pytest.approx(40 / 60)
    assert (score.mask_intersection_px, score.mask_union_px) == (20, 50)
    assert score.mask_iou == pytest.approx(0.4)
    assert score.no_target_right is None


def test_score_sample_when_data_or_model_lacks_a_part_then_none():
    assert score_sample(target_box=(0, 0, 1, 1), box=(0, 0, 1, 1), mask=rows(1)).mask_iou is None
    assert score_sample(target_box=(0, 0, 1, 1), target_mask=rows(1), box=(0, 0, 1, 1)).mask_iou is None
    assert score_sample(target_box=(0, 0, 1, 1), target_mask=rows(1), mask=rows(1)).box_iou is None


def test_score_sample_when_both_masks_are_empty_then_iou_one():
    empty = rows(0)
    assert score_sample(target_box=(0, 0, 1, 1), target_mask=empty, mask=empty).mask_iou == 1.0
    assert score_sample(target_box=(0, 0, 1, 1), target_mask=empty, mask=rows(1)).mask_iou == 0.0


def test_score_sample_when_masks_differ_in_shape_then_value_error():
    with pytest.raises(ValueError, match=r"\(10, 10\).*\(5, 5\)"):
        score_sample(target_box=(0, 0, 1, 1), target_mask=rows(1), mask=rows(1, (5, 5)))


def test_report_when_miou_and_oiou_differ_then_both_are_told():
    # a small thing found half (1 of 2 pixels) and a large one found well (90 of 100)
    res = tally(masks_score(1, 2), masks_score(90, 100)).report()["res"]
    assert res["miou"] == pytest.approx((0.5 + 0.9) / 2)
    assert res["oiou"] == pytest.approx(91 / 102)
    # 0.5 is not greater than 0.5; 0.9 is greater than 0.8 and not than 0.9
    assert [res[f"acc@{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == [0.5, 0.5, 0.5, 0.5, 0.0]


def test_report_when_boxes_are_worked_by_hand_then_strictly_above_the_threshold_counts():
    rec = tally(*(SampleScore(box_iou=iou) for iou in (0.5, 0.51, 0.76, 1.0))).report()["rec"]
    assert rec["acc@0.5"] == 0.75
    assert rec["acc@0.55"] == 0.5
    assert rec["acc@0.75"] == 0.5
    assert rec["acc@0.8"] == 0.25
    assert rec["acc@0.95"] == 0.25
    assert rec["mean_iou"] == pytest.approx((0.5 + 0.51 + 0.76 + 1) / 4)
    assert rec["acc@0.25"] == 1.0
    assert list(rec) == [f"acc@{t:g}" for t in (0.25, *np.arange(50, 100, 5) / 100)] + ["mean_iou"]


def test_report_when_inconsistency_has_its_four_cases_then_exactly_one_right_counts():
    both_right = masks_score(9, 10, box_iou=0.9)
    box_only = masks_score(5, 10, box_iou=0.6)  # a mask of exactly 0.5 is wrong
    mask_only = masks_score(6, 10, box_iou=0.5)
    both_wrong = masks_score(1, 10, box_iou=0.1)
    report = tally(both_right, box_only, box_only, mask_only, both_wrong).report()
    assert report["ie"] == pytest.approx(3 / 5)
    assert report["ie_box_only"] == pytest.approx(2 / 5)
    assert report["ie_mask_only"] == pytest.approx(1 / 5)


def test_report_when_some_samples_have_no_mask_then_only_the_others_count_for_it():
    report = tally(SampleScore(box_iou=0.9), masks_score(3, 4, box_iou=0.9)).report()
    assert report["n"] == 2
    assert report["rec"]["acc@0.5"] == 1.0
    assert report["res"]["miou"] == 0.75
    assert report["ie"] == 0.0


def test_report_when_phrases_mean_nothing_then_counted_apart():
    right = score_sample(target_box=None, box=(0, 0, 1, 1), mask=rows(1), found=False)
    wrong = score_sample(target_box=None, box=(0, 0, 1, 1), mask=rows(0), found=True)
    report = tally(right, right, wrong, SampleScore(box_iou=0.9)).report()
    assert report["n"] == 4
    assert report["n_no_target"] == 3
    assert report["no_target_accuracy"] == pytest.approx(2 / 3)
    assert report["rec"]["mean_iou"] == 0.9
    assert report["res"] is None


def test_report_when_nothing_was_measured_then_none_and_not_zero():
    report = Tally().report()
    assert report["n"] == 0
    absent = ("rec", "res", "ie", "ie_box_only", "ie_mask_only", "no_target_accuracy")
    assert {key: report[key] for key in absent} == dict.fromkeys(absent)


def test_report_when_all_masks_are_empty_then_oiou_one():
    assert tally(masks_score(0, 0)).report()["res"]["oiou"] == 1.0


def test_tally_when_weighted_then_an_expectation():
    half = Tally.of(SampleScore(box_iou=0.9), 0.5) + Tally.of(SampleScore(box_iou=0.1), 0.5)
    report = half.report()
    assert report["n"] == 1
    assert report["rec"]["acc@0.5"] == 0.5
    assert report["rec"]["mean_iou"] == pytest.approx(0.5)


IOUS = st.integers(0, 100).map(lambda percent: percent / 100)
SCORES = st.builds(
    lambda box, inter, extra, nothing: (
        SampleScore(no_target_right=nothing)
        if nothing is not None
        else SampleScore(
            box_iou=box,
            mask_intersection_px=inter,
            mask_union_px=None if inter is None else inter + extra,
        )
    ),
    st.none() | IOUS,
    st.none() | st.integers(0, 50),
    st.integers(0, 50),
    st.none() | st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, max_size=12), st.integers(0, 12))
def test_tally_when_parts_are_added_then_same_as_the_whole_and_fractions(scores, cut):
    whole = tally(*scores).report()
    parts = (tally(*scores[:cut]) + tally(*scores[cut:])).report()
    for name, value in {**(whole["rec"] or {}), **(whole["res"] or {}), "ie": whole["ie"]}.items():
        assert value is None or 0 <= value <= 1, name
    assert parts["n"] == whole["n"] == len(scores)
    for part in ("rec", "res"):
        assert (parts[part] is None) == (whole[part] is None)
        assert parts[part] == (whole[part] if whole[part] is None else pytest.approx(whole[part]))


# The table of many scores: the same figures as adding tallies, in any order and in any parts.


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
