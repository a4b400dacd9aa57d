"""What score, agreement and "found" of predictions are worth, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.evaluate.calibration import (
    calibration_error,
    calibration_report,
    found_rates,
    found_report,
    is_right,
    reliability,
    risk_coverage,
)
from deixis.evaluate.predictions import Absent, Prediction


def prediction(score, iou, *, index=0, found=True, absent=None, **fields):
    made = None if absent is None else Absent(phrase="x", score=absent[0], agreement=1.0, found=absent[1])
    return Prediction(
        id=str(index), image_id=str(index), phrase="dog", box=(0.0, 0.0, 1.0, 1.0), score=score, found=found,
        iou=iou, mask_iou=None, index=index, absent=made,
        **{"target_box": (0.0, 0.0, 1.0, 1.0), "agreement": 1.0, **fields},
    )  # fmt: skip


def test_is_right_when_parts_lack_then_what_there_is_decides():
    assert is_right(prediction(0.9, 0.51)) is True
    assert is_right(prediction(0.9, 0.5)) is False
    assert is_right(prediction(0.9, None)) is None
    assert is_right(replace(prediction(0.9, None), mask_iou=0.7)) is True
    assert is_right(prediction(0.9, None, target_box=None)) is False


def test_calibration_report_when_absent_phrases_are_known_then_they_count_as_wrong():
    told = calibration_report([prediction(1.0, 0.9, absent=(0.8, True)), prediction(1.0, 0.9, index=1)])
    assert told is not None
    assert told["expected_calibration_error"] == 0
    assert told["expected_calibration_error_with_absent"] == pytest.approx(0.8 / 3)
    assert told["risk_coverage"]["agreement"] is None  # it never differs
    assert told["agreement"] is None
    assert calibration_report([prediction(1.0, None)]) is None


def test_calibration_report_when_agreement_differs_then_it_is_judged_as_the_score_is():
    told = calibration_report(
        [prediction(1.0, 0.9, agreement=0.8), prediction(1.0, 0.1, index=1, agreement=0.8), prediction(1.0, 0.9)]
    )
    assert told is not None
    assert told["agreement"]["expected_calibration_error"] == pytest.approx(2 / 3 * abs(0.8 - 0.5) + 1 / 3 * 0)
    assert [(one["n"], one["right"]) for one in told["agreement"]["bins"]] == [(2, 0.5), (1, 1.0)]


def test_found_report_when_worked_by_hand_then_rates_agree():
    told = found_report(
        [
            prediction(0.9, 0.9, index=0, absent=(0.9, True)),
            prediction(0.9, 0.8, index=1, found=False, absent=(0.1, False)),
            prediction(0.9, 0.1, index=2, absent=(0.2, False)),
            prediction(0.9, 0.2, index=3, found=False, absent=(0.2, False)),
            prediction(0.9, None, index=4, target_box=None),
        ]
    )
    assert (told["n_right"], told["found_of_right"]) == (2, 0.5)
    assert (told["n_wrong"], told["found_of_wrong"]) == (2, 0.5)
    assert (told["n_absent"], told["false_alarm_rate"]) == (4, 0.25)
    low, high = told["ci95"]
    assert 0 <= low < 0.25 < high <= 1


def test_found_rates_when_counted_by_hand_then_absent_pairs_are_false_alarms():
    found, right, belongs = np.array([
        [1, 1, 1], [0, 1, 1], [1, 0, 1],
        [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0],
    ], dtype=bool).T  # fmt: skip
    assert found_rates(found, right, belongs) == {
        "n_right": 2, "found_of_right": 0.5, "n_wrong": 1, "found_of_wrong": 1.0, "n_absent": 4,
        "false_alarm_rate": 0.25,
    }  # fmt: skip
    assert found_rates(found[:1], right[:1], belongs[:1])["false_alarm_rate"] is None


def test_found_report_when_nothing_absent_was_asked_then_none():
    told = found_report([prediction(0.9, 0.9)])
    assert (told["n_absent"], told["false_alarm_rate"], told["ci95"]) == (0, None, None)


# Calibration by hand: reliability, expected calibration error, risk and coverage.


def test_reliability_when_worked_by_hand_then_bins_agree():
    bins = reliability(np.array([0.05, 0.15, 0.12, 1.0]), np.array([False, True, False, True]))
    assert [(one["from"], one["n"], one["right"]) for one in bins] == [(0.0, 1, 0.0), (0.1, 2, 0.5), (0.9, 1, 1.0)]
    assert bins[1]["score"] == pytest.approx(0.135)


def test_calibration_error_when_worked_by_hand_then_the_weighted_gap():
    score, right = np.array([0.8, 0.8, 0.8, 0.8, 0.3]), np.array([True, True, True, False, False])
    assert calibration_error(score, right) == pytest.approx(4 / 5 * 0.05 + 1 / 5 * 0.3)


def test_risk_coverage_when_worked_by_hand_then_steps_agree():
    found = risk_coverage(np.array([0.2, 0.9, 0.5, 0.5]), np.array([False, True, True, False]))
    assert found["curve"] == [(0.25, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5)]
    assert found["area"] == pytest.approx((0 + 2 / 3 + 0.5) / 4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((0.1, 0.4, 0.8)), st.booleans()), min_size=1, max_size=9), st.randoms())
def test_risk_coverage_when_shuffled_then_the_same(answers, random):
    def measured(pairs):
        return risk_coverage(np.array([score for score, _ in pairs]), np.array([right for _, right in pairs]))

    mixed = random.sample(answers, len(answers))
    assert measured(answers) == measured(mixed)
    assert measured(answers)["curve"][-1][1] == pytest.approx(sum(not right for _, right in answers) / len(answers))
