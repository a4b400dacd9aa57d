"""Calibration by hand: reliability, expected calibration error, risk and coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.evaluate.metrics.calibration import calibration_error, reliability, risk_coverage


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
