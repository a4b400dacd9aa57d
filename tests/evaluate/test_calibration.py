"""What score, agreement and "found" of predictions are worth, by hand."""

from dataclasses import replace

import pytest

from deixis.evaluate.calibration import calibration_report, found_report, is_right
from deixis.evaluate.prediction_log import Absent, Prediction


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


def test_found_report_when_nothing_absent_was_asked_then_none():
    told = found_report([prediction(0.9, 0.9)])
    assert (told["n_absent"], told["false_alarm_rate"], told["ci95"]) == (0, None, None)
