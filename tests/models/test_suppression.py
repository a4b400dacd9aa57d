"""Suppression: every factor and edge by hand, the whole way from the map to the mask in both orders."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.config import SUPPRESSIONS
from deixis.geometry.images import Letterbox
from deixis.models.suppression import (
    MASK_THRESHOLD,
    ORDERS,
    finish_mask,
    suppress,
    suppression_factors,
)

BOX = (1.0, 1.0, 3.0, 2.0)  # row 1, columns 1 and 2
LOOSE_EDGES = st.floats(allow_nan=False, width=32) | st.floats(-2, 12)


def inside(hw=(4, 5), rows=slice(1, 2), columns=slice(1, 3)):
    chosen = np.zeros(hw, bool)
    chosen[rows, columns] = True
    return chosen


def random_map(side=8, seed=0):
    return np.random.default_rng(seed).random((side, side), dtype=np.float32)


def square(side):
    """An image that fills its canvas pixel by pixel, so that nothing is resized or padded."""
    return Letterbox.fit((side, side), side)


@pytest.mark.parametrize(
    ("confidence", "factor_in", "factor_out"), [(1.0, 1.0, 1.0), (0.75, 1.25, 0.75), (0.5, 1.5, 0.5), (0.0, 2.0, 0.0)]
)
def test_suppress_adaptive_when_confidence_given_then_factors_of_the_table(confidence, factor_in, factor_out):
    probability = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    got = suppress("adaptive", probability, BOX, confidence)
    np.testing.assert_allclose(got, probability * np.where(inside(), factor_in, factor_out), rtol=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("method", "factor_in", "factor_out"),
    [("none", 1.0, 1.0), ("crop", 1.0, 0.0), ("soft", 1.5, 0.5), ("adaptive", 1.8, 0.2)],
)
def test_suppress_when_method_named_then_its_two_factors(method, factor_in, factor_out):
    assert suppression_factors(method, 0.2) == pytest.approx((factor_in, factor_out))
    got = suppress(method, np.full((4, 5), 0.5, np.float32), BOX, 0.2)
    np.testing.assert_allclose(got, np.where(inside(), 0.5 * factor_in, 0.5 * factor_out), rtol=1e-6)


def test_suppress_when_all_members_named_then_they_are_those_of_the_config():
    for method in SUPPRESSIONS:
        suppress(method, np.ones((4, 5), np.float32), BOX, 0.5)


def test_suppress_when_crop_then_equal_to_the_hard_crop():
    probability = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    np.testing.assert_array_equal(suppress("crop", probability, BOX, 0.9), np.where(inside(), probability, 0))


@pytest.mark.parametrize("method", ["none", "adaptive"])
def test_suppress_when_sure_or_none_then_identity_and_a_copy(method):
    probability = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    got = suppress(method, probability, BOX, 1.0)
    np.testing.assert_array_equal(got, probability)
    assert not np.shares_memory(got, probability)


def test_suppress_when_product_exceeds_one_then_it_is_not_clipped():
    ones = np.ones((4, 5), np.float32)
    assert suppress("soft", ones, BOX, 0.5).max() == 1.5
    assert suppress("adaptive", ones, BOX, 0.25).max() == 1.75
    assert finish_mask(np.ones((8, 8), np.float32), square(8), (2, 2, 6, 6), 0.5, threshold=1.4).any()


def test_suppress_when_edges_cut_pixels_then_touched_ones_are_inside():
    got = suppress("adaptive", np.ones((4, 5), np.float32), (1.9, 0.5, 3.1, 1.01), 0.5)
    np.testing.assert_array_equal(got == 1.5, inside(rows=slice(0, 2), columns=slice(1, 4)))


def test_suppress_when_box_leaves_the_map_then_its_part_inside_counts():
    got = suppress("adaptive", np.ones((4, 5), np.float32), (-3.0, -2.0, 2.0, 99.0), 0.5)
    np.testing.assert_array_equal(got == 1.5, inside(rows=slice(0, 4), columns=slice(0, 2)))


@pytest.mark.parametrize(
    "box",
    [
        (-9, 1, -5, 3),
        (1, -9, 3, -5),
        (-3, 1, 0, 3),
        (7, 1, 9, 3),
        (1, 8, 3, 9),
        (2.5, 1, 2.5, 3),
        (3, 1, 1, 3),
        (-math.inf, 0, -1, 4),
    ],
)
def test_suppress_when_box_is_outside_or_empty_then_all_is_outside(box):
    np.testing.assert_array_equal(suppress("soft", np.ones((4, 5), np.float32), box, 0.9), 0.5)
    assert not suppress("crop", np.ones((4, 5), np.float32), box, 0.9).any()


def test_suppress_when_done_then_the_argument_is_as_before():
    probability = np.full((4, 5), 0.5, np.float32)
    for method in SUPPRESSIONS:
        suppress(method, probability, BOX, 0.3)
    assert (probability == 0.5).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_suppress_adaptive_when_box_is_less_sure_then_contrast_never_falls(low, high):
    low, high = min(low, high), max(low, high)
    probability = np.full((4, 5), 0.4, np.float32)
    unsure, sure = (suppress("adaptive", probability, BOX, p) for p in (low, high))
    assert (unsure[inside()] >= sure[inside()]).all()
    assert (unsure[~inside()] <= sure[~inside()]).all()


def test_suppress_when_it_cannot_be_then_one_sentence():
    ones = np.ones((4, 5), np.float32)
    with pytest.raises(ValueError, match=r"none.*crop.*soft.*adaptive.*'hard'"):
        suppress("hard", ones, BOX, 0.5)
    for confidence in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"confidence in 0\.\.1"):
            suppress("soft", ones, BOX, confidence)
    with pytest.raises(ValueError, match="four numbers"):
        suppress("soft", ones, (0.0, math.nan, 1.0, 1.0), 0.5)
    with pytest.raises(ValueError, match=r"\(1, 4, 5\)"):
        suppress("soft", ones[None], BOX, 0.5)


def test_finish_mask_when_official_then_both_end_rows_and_columns_are_inside():
    got = finish_mask(np.ones((8, 8), np.float32), square(8), (2, 3, 4, 5), 0.9, "crop", "official")
    np.testing.assert_array_equal(got, inside((8, 8), slice(3, 6), slice(2, 5)))


def test_finish_mask_when_official_then_edges_are_rounded_half_up():
    box = (1.5, 2.4, 3.49, 4.5)  # columns 2 to 3, rows 2 to 5
    got = finish_mask(np.ones((8, 8), np.float32), square(8), box, 0.9, "crop", "official")
    np.testing.assert_array_equal(got, inside((8, 8), slice(2, 6), slice(2, 4)))


def test_finish_mask_when_official_and_box_ends_at_the_border_then_it_is_cut_there():
    got = finish_mask(np.ones((8, 8), np.float32), square(8), (-4, 5, 8, 20), 0.9, "crop", "official")
    np.testing.assert_array_equal(got, inside((8, 8), slice(5, 8), slice(0, 8)))


def test_finish_mask_when_original_then_touched_pixels_are_inside():
    got = finish_mask(np.ones((8, 8), np.float32), square(8), (2, 3, 4, 5), 0.9, "crop", "original")
    np.testing.assert_array_equal(got, inside((8, 8), slice(3, 5), slice(2, 4)))


def test_finish_mask_when_letterboxed_then_padding_is_cut_off():
    frame = Letterbox.fit((4, 8), 8)  # two rows of padding above and below
    ones = np.ones((8, 8), np.float32)
    official = finish_mask(ones, frame, (2, 3, 4, 5), 0.9, "crop", "official")
    np.testing.assert_array_equal(official, inside((4, 8), slice(1, 4), slice(2, 5)))
    original = finish_mask(ones, frame, (2, 3, 4, 5), 0.9, "crop", "original")
    np.testing.assert_array_equal(original, inside((4, 8), slice(1, 3), slice(2, 4)))


def test_finish_mask_when_image_is_larger_then_original_order_is_as_sharp_as_the_box():
    frame = Letterbox.fit((32, 32), 8)  # one canvas pixel is four of the image
    ones, box = np.ones((4, 4), np.float32), (2.25, 2.25, 5.25, 5.25)  # 9 to 21 in the image
    np.testing.assert_array_equal(
        finish_mask(ones, frame, box, 0.9, "crop", "original"), inside((32, 32), slice(9, 21), slice(9, 21))
    )
    # official: canvas pixels 2 to 5, image 8 to 24; bilinear over the step: 0.125, 0.375, 0.625 ... so that 0.375 and
    # more pass along an edge (one pixel beyond the box on each side), and 0.375 * 0.625 at a corner does not
    got = finish_mask(ones, frame, box, 0.9, "crop", "official")
    assert np.flatnonzero(got[16]).tolist() == list(range(7, 25))
    assert not got[7, 7]


def test_finish_mask_when_at_the_threshold_then_out():
    at = np.full((8, 8), MASK_THRESHOLD, np.float32)
    for order in ORDERS:
        assert not finish_mask(at, square(8), (0, 0, 8, 8), 1.0, "none", order).any()
        assert finish_mask(at + np.float32(1e-6), square(8), (0, 0, 8, 8), 1.0, "none", order).all()


@pytest.mark.parametrize("order", ORDERS)
def test_finish_mask_when_box_is_unsure_then_nothing_outside_passes(order):
    got = finish_mask(np.ones((8, 8), np.float32), square(8), (2, 2, 5, 5), 0.34, "adaptive", order)
    end = 6 if order == "official" else 5
    np.testing.assert_array_equal(got, inside((8, 8), slice(2, end), slice(2, end)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hw", [(37, 91), (91, 37), (1, 50), (50, 50), (13, 12)])
def test_finish_mask_when_sure_then_adaptive_equals_none_on_any_shape(order, hw):
    frame, box = Letterbox.fit(hw, 32), (5.3, 7.1, 20.9, 19.4)
    none = finish_mask(random_map(), frame, box, 1.0, "none", order)
    assert none.shape == hw
    assert none.dtype == np.bool_
    np.testing.assert_array_equal(finish_mask(random_map(), frame, box, 1.0, "adaptive", order), none)


def test_finish_mask_when_nothing_is_cut_then_both_orders_nearly_agree():
    frame = Letterbox.fit((60, 80), 32)
    original, official = (finish_mask(random_map(), frame, (0, 0, 32, 32), 1.0, "none", order) for order in ORDERS)
    assert (original == official).mean() > 0.97  # the official one resizes twice


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(LOOSE_EDGES, LOOSE_EDGES, LOOSE_EDGES, LOOSE_EDGES),
    st.floats(0, 1),
    st.sampled_from(ORDERS),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_finish_mask_when_any_box_then_finite_and_crop_only_takes_away(box, confidence, order, hw):
    frame = Letterbox.fit(hw, 10)
    masks = {name: finish_mask(random_map(5), frame, box, confidence, name, order) for name in SUPPRESSIONS}
    assert all(mask.shape == hw for mask in masks.values())
    assert not (masks["crop"] & ~masks["none"]).any()
    for method in SUPPRESSIONS:
        assert np.isfinite(suppress(method, random_map(5), box, confidence)).all()


def test_finish_mask_when_it_cannot_be_then_one_sentence():
    ones = np.ones((8, 8), np.float32)
    with pytest.raises(ValueError, match=r"original.*official.*'paper'"):
        finish_mask(ones, square(8), (1, 1, 2, 2), 0.5, "soft", "paper")
    for order in ORDERS:
        with pytest.raises(ValueError, match=r"square map.*\(4, 8\)"):
            finish_mask(ones[:4], square(8), (1, 1, 2, 2), 0.5, "soft", order)
        with pytest.raises(ValueError, match="four numbers"):
            finish_mask(ones, square(8), (1, math.nan, 2, 2), 0.5, "soft", order)
