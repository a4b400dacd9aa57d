import numpy as np
import pytest

from deixis.language.colours import (
    COLOURS,
    colour_pair,
    colour_shares,
    dominant_colour,
    may_be_called,
    sample_pixels,
    upper_body,
)


def of(*colours):
    return colour_shares(np.array(colours, np.uint8))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 12, 9), "black"),
        ((250, 250, 245), "white"),
        ((120, 122, 119), "gray"),
        ((200, 20, 30), "red"),
        ((250, 130, 10), "orange"),
        ((240, 220, 30), "yellow"),
        ((30, 140, 50), "green"),
        ((20, 60, 200), "blue"),
        ((120, 30, 170), "purple"),
        ((250, 150, 170), "pink"),
        ((110, 70, 40), "brown"),
    ],
)
def test_colour_shares_when_a_pure_colour_comes_then_all_of_it_has_that_name(rgb, name):
    shares = of(rgb)

    assert shares[COLOURS.index(name)] == 1.0
    assert dominant_colour(shares) == name


def test_colour_shares_when_half_is_unnamed_or_nothing_comes_then_the_sum_stays_below_one():
    assert of((200, 20, 30), (150, 125, 118)).sum() == 0.5
    assert colour_shares(np.zeros((0, 3), np.uint8)).sum() == 0.0


def test_dominant_colour_when_two_are_near_alike_then_none():
    red, blue = (200, 20, 30), (20, 60, 200)

    assert dominant_colour(of(red, red, red, blue)) == "red"
    assert dominant_colour(of(red, red, blue)) == "red"
    assert dominant_colour(of(red, blue)) is None
    assert dominant_colour(of(red, red, blue), least=0.7) is None


def test_dominant_colour_when_white_lies_partly_in_shade_then_white():
    assert dominant_colour(of((250, 250, 250), (150, 150, 150))) == "white"
    assert dominant_colour(of((250, 250, 250), *[(120, 120, 120)] * 4)) == "gray"


def test_colour_pair_when_two_distinct_colours_share_then_the_greater_first():
    black, white, gray = (5, 5, 5), (250, 250, 250), (120, 120, 120)

    assert colour_pair(of(black, black, white)) == ("black", "white")
    assert colour_pair(of(black, black, gray)) is None
    assert colour_pair(of(black, *[white] * 9)) is None


def test_may_be_called_when_a_neighbouring_colour_holds_then_generous():
    orange = of((250, 130, 10))

    assert may_be_called(orange, "red")
    assert may_be_called(orange, "orange")
    assert not may_be_called(orange, "blue")


def test_sample_pixels_when_masked_then_only_pixels_of_the_mask_come():
    image = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), np.bool_)
    mask[10:20, 5:15] = True
    image[mask] = 200
    pixels = sample_pixels(image, (0.0, 0.0, 60.0, 40.0), mask)

    assert len(pixels) > 10
    assert pixels.min() == 200
    assert len(sample_pixels(image, (-30.0, -30.0, -10.0, -10.0), None)) <= 1


def test_upper_body_when_the_person_stands_then_a_band_below_the_head():
    assert upper_body((0.0, 0.0, 50.0, 200.0), has_mask=True) == (5.0, 40.0, 45.0, 90.0)
    assert upper_body((0.0, 0.0, 100.0, 100.0), has_mask=True) is None
