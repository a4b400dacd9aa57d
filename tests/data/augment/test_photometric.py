import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.augment.photometric import BlurRange, ColourRange, HsvRange, scale_saturation_and_value


def _by_colorsys(pixel, saturation, value):
    hue, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
    rgb = colorsys.hsv_to_rgb(hue, min(1, s * saturation), min(1, v * value))
    return [255 * channel for channel in rgb]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_saturation_and_value_when_any_factors_then_as_in_hsv_to_two_levels(seed, saturation, value):
    image = np.random.default_rng(seed).integers(0, 256, (3, 12, 3), dtype=np.uint8)
    expected = [[_by_colorsys(pixel, saturation, value) for pixel in row] for row in image.tolist()]
    np.testing.assert_allclose(scale_saturation_and_value(image, saturation, value), expected, atol=2.01)


def test_saturation_and_value_when_both_are_one_then_nothing_changes():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(scale_saturation_and_value(image, 1, 1), image)
    mirrored = image[:, ::-1]
    np.testing.assert_array_equal(scale_saturation_and_value(mirrored, 1, 1), mirrored)


@pytest.mark.parametrize(
    ("pixel", "saturation", "value", "expected"),
    [
        ((200, 100, 100), 0.5, 1, (200, 150, 150)),
        ((100, 50, 0), 1, 1.5, (150, 75, 0)),
        ((255, 128, 20), 1.5, 1, (255, 117, 0)),  # orange stays orange: the middle channel does not fall to 64
        ((255, 200, 50), 1, 1.5, (255, 200, 50)),  # V is full: nothing grows, where clipping would give yellow
        ((90, 90, 90), 2, 1, (90, 90, 90)),
        ((0, 0, 0), 2, 2, (0, 0, 0)),
    ],
)
def test_saturation_and_value_when_worked_by_hand_then_hues_stay(pixel, saturation, value, expected):
    found = scale_saturation_and_value(np.full((2, 2, 3), pixel, np.uint8), saturation, value)
    np.testing.assert_allclose(found[0, 0], expected, atol=1)


def test_hsv_range_when_drawn_then_saturation_and_value_vary_by_themselves_within_the_bounds():
    image = np.full((4, 4, 3), (160, 80, 80), np.uint8)  # S is a half, V 160
    tops, shares = [], []
    for seed in range(200):
        red, green, _ = HsvRange()(image, np.random.default_rng(seed))[0, 0].astype(float)
        tops.append(red / 160)
        shares.append((red - green) / red * 2)
    for factors in (tops, shares):
        assert 0.48 <= min(factors) < 0.55
        assert 1.45 < max(factors) <= 1.52
    assert abs(np.corrcoef(tops, shares)[0, 1]) < 0.2


@pytest.mark.parametrize("look", [ColourRange(), BlurRange()])
def test_look_when_drawn_often_then_left_out_at_its_chance_and_the_seed_decides(look):
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    same = [np.array_equal(look(image, np.random.default_rng(seed)), image) for seed in range(200)]
    assert np.mean(same) == pytest.approx(1 - look.chance, abs=0.1)
    np.testing.assert_array_equal(look(image, np.random.default_rng(5)), look(image, np.random.default_rng(5)))
