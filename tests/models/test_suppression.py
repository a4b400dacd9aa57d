import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.suppression import suppress_adaptive

BOX = (1.0, 1.0, 3.0, 2.0)  # row 1, columns 1 and 2


def inside(hw=(4, 5), rows=slice(1, 2), columns=slice(1, 3)):
    chosen = np.zeros(hw, bool)
    chosen[rows, columns] = True
    return chosen


@pytest.mark.parametrize(
    ("confidence", "factor_in", "factor_out"), [(1.0, 1.0, 1.0), (0.75, 1.25, 0.75), (0.5, 1.5, 0.5), (0.0, 2.0, 0.0)]
)
def test_suppress_when_confidence_given_then_factors_of_the_table(confidence, factor_in, factor_out):
    probability = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    got = suppress_adaptive(probability, BOX, confidence)
    np.testing.assert_allclose(got, probability * np.where(inside(), factor_in, factor_out), rtol=1e-6)
    assert got.dtype == np.float32


def test_suppress_when_edges_cut_pixels_then_touched_ones_are_inside():
    got = suppress_adaptive(np.ones((4, 5), np.float32), (1.9, 0.5, 3.1, 1.01), 0.5)
    np.testing.assert_array_equal(got == 1.5, inside(rows=slice(0, 2), columns=slice(1, 4)))


def test_suppress_when_box_leaves_the_map_then_its_part_inside_counts():
    got = suppress_adaptive(np.ones((4, 5), np.float32), (-3.0, -2.0, 2.0, 99.0), 0.5)
    np.testing.assert_array_equal(got == 1.5, inside(rows=slice(0, 4), columns=slice(0, 2)))


def test_suppress_when_done_then_the_argument_is_as_before():
    probability = np.full((4, 5), 0.5, np.float32)
    suppress_adaptive(probability, BOX, 0.3)
    assert (probability == 0.5).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_suppress_when_box_is_less_sure_then_contrast_never_falls(low, high):
    low, high = min(low, high), max(low, high)
    probability = np.full((4, 5), 0.4, np.float32)
    unsure, sure = (suppress_adaptive(probability, BOX, p) for p in (low, high))
    assert (unsure[inside()] >= sure[inside()]).all()
    assert (unsure[~inside()] <= sure[~inside()]).all()
