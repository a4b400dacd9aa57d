"""Pictures of where a model looks: which colour falls where, at every size, with any words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.drawing import COLOUR_STOPS, colour_table, draw_attention

GAP = 6


def grey(height, width):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def strength(height, width, value=0.0):
    return np.full((height, width), value, dtype=np.float32)


def lightness(colours):
    """CIE L* of sRGB colours [..., 3] of 0 to 255."""
    values = np.asarray(colours) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.where(luminance > 216 / 24389, np.cbrt(luminance), luminance * 841 / 108 + 4 / 29) - 16


def photos(drawn, height, width):
    """The photos of a sheet without labels and gaps."""
    lower = np.array(drawn)[-height:]
    return [lower[:, left : left + width] for left in range(0, lower.shape[1], width + GAP)]


def test_colour_table_when_strength_rises_then_lightness_does_too():
    table = colour_table()
    assert table.shape == (256, 3)
    assert tuple(table[0]) == COLOUR_STOPS[0]
    assert tuple(table[-1]) == COLOUR_STOPS[-1]
    assert (np.diff(lightness(table)[::4]) > 0).all()
    assert ((np.diff(lightness(COLOUR_STOPS)) > 8) & (np.diff(lightness(COLOUR_STOPS)) < 12)).all()


def test_draw_attention_when_two_maps_then_two_photos_side_by_side_in_their_own_colours():
    image = grey(60, 90)
    before = image.copy()
    maps = {"box": strength(60, 90), "mask": strength(60, 90, 1.0)}
    maps["box"][10, 20] = 1.0
    drawn = draw_attention(image, maps, "left dog")
    np.testing.assert_array_equal(image, before)
    assert drawn.width == 2 * 90 + GAP
    assert drawn.height > 60
    box, mask = photos(drawn, 60, 90)
    # opacity 0.45 of (38, 8, 88) and 0.7 of (253, 235, 78), the rest is the photo's 128
    weak, strong = (88, 74, 110), (216, 203, 93)
    assert np.abs(box[30, 30].astype(int) - weak).max() <= 1
    assert np.abs(box[10, 20].astype(int) - strong).max() <= 1
    assert np.abs(mask.astype(int) - strong).max() <= 1


def test_draw_attention_when_strength_is_low_then_the_photo_is_seen():
    image = grey(60, 90)
    image[:, 45:] = 250
    (drawn,) = photos(draw_attention(image, {"box": strength(60, 90)}, ""), 60, 90)
    assert (drawn[:, 45:].astype(int) - drawn[:, :45]).min() > 60


def test_draw_attention_when_drawn_then_each_photo_has_its_words_above_it():
    drawn = draw_attention(grey(60, 200), {"box": strength(60, 200), "mask": strength(60, 200)}, "left dog")
    labels = np.array(drawn)[:-60]
    first, second = labels[:, :200], labels[:, 200 + GAP :]
    for label in (first, second):
        assert (label < 100).any()
    assert (first != second).any()  # the map's name
    assert (labels[:, 200 : 200 + GAP] == 255).all()
    other = np.array(draw_attention(grey(60, 200), {"box": strength(60, 200)}, "right cat"))[:-60]
    assert (other != first).any()  # the phrase


def test_draw_attention_when_words_are_long_then_three_lines_at_most():
    image, maps = grey(80, 200), {"box": strength(80, 200)}
    short, long = (draw_attention(image, maps, "dog " * count).height - 80 for count in (1, 200))
    assert 2 * short < long < 4 * short


def test_draw_attention_when_words_have_shares_then_the_largest_is_the_brightest_and_the_photos_stay_below():
    words = [("[CLS]", 0.12), ("left", 0.24), ("dog", 0.6), ("[SEP]", 0.04)]
    maps = {"box": strength(60, 300)}
    plain, drawn = (np.array(draw_attention(grey(60, 300), maps, "left dog", words=one)) for one in ((), words))
    strip = drawn[:-60]
    np.testing.assert_array_equal(drawn[-60:], plain[-60:])
    assert len(drawn) > len(plain)
    counts = [(strip == COLOUR_STOPS[index]).all(-1).sum() for index in range(9)]
    assert counts[8] > 200  # dog, on the last colour
    for level in (51, 102):  # 255 * 0.12 / 0.6 and 255 * 0.24 / 0.6
        assert (strip == colour_table()[level]).all(-1).sum() > 200


def test_draw_attention_when_there_are_more_words_than_fit_then_further_lines():
    maps = {"box": strength(40, 120)}
    few, many = (
        draw_attention(grey(40, 120), maps, "dog", words=[("dog", 1 / count)] * count).height for count in (1, 30)
    )
    assert many > few + 5 * 10


def test_draw_attention_when_there_is_a_box_then_on_the_photo_alone_and_on_every_map():
    image = grey(60, 90)
    maps = {"box": strength(60, 90), "mask": strength(60, 90)}
    panels = photos(draw_attention(image, maps, "left dog", box=(10.0, 20.0, 50.0, 40.0)), 60, 90)
    assert len(panels) == 3
    for one in panels:
        red = np.argwhere((one == (255, 64, 64)).all(-1))
        assert (*red.min(0), *red.max(0)) == (20, 10, 39, 49)  # the last row and column inside
    assert (panels[0][25:35, 15:45] == 128).all()


@settings(max_examples=30, deadline=None)
@given(
    hw=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    box=st.tuples(*[st.floats(-100, 100)] * 4),
    words=st.lists(st.tuples(st.text(max_size=60), st.floats(0, 1)), max_size=5),
)
def test_draw_attention_when_any_box_and_words_then_the_size_is_as_told(hw, box, words):
    drawn = draw_attention(grey(*hw), {"box": strength(*hw)}, "dog", words=words, box=box)
    assert drawn.width == 2 * hw[1] + GAP
    assert drawn.height > hw[0]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_draw_attention_when_a_share_cannot_be_then_refused(share):
    with pytest.raises(ValueError, match="share from 0 to 1 of 'dog'"):
        draw_attention(grey(4, 5), {"box": strength(4, 5)}, "dog", words=[("dog", share)])


@settings(max_examples=30, deadline=None)
@given(hw=st.tuples(st.integers(1, 70), st.integers(1, 70)), text=st.text(max_size=60), count=st.integers(1, 3))
def test_draw_attention_when_any_size_and_words_then_the_photos_stand_at_the_bottom(hw, text, count):
    maps = {f"map {index}": strength(*hw, index / 2) for index in range(count)}
    drawn = draw_attention(grey(*hw), maps, text)
    assert drawn.mode == "RGB"
    assert drawn.width == count * (hw[1] + GAP) - GAP
    assert [one.shape for one in photos(drawn, *hw)] == [(*hw, 3)] * count


@pytest.mark.parametrize("text", ["собака слева", "左边的狗", "الكلب", "🐕" * 50, "\ud800", "a\nb\tc", "w" * 5000])
def test_draw_attention_when_words_are_unusual_then_no_error(text):
    assert draw_attention(grey(40, 100), {"box": strength(40, 100)}, text).width == 100


@pytest.mark.parametrize(
    ("image", "maps", "words"),
    [
        (np.zeros((4, 5)), {"box": strength(4, 5)}, "uint8 image"),
        (grey(4, 5), {}, "at least one map"),
        (grey(4, 5), {"box": strength(5, 4)}, "image's size"),
        (grey(4, 5), {"box": strength(4, 5, 1.5)}, "from 0 to 1"),
        (grey(4, 5), {"box": strength(4, 5, -0.5)}, "from 0 to 1"),
        (grey(4, 5), {"box": strength(4, 5, np.nan)}, "from 0 to 1"),
    ],
    ids=["image", "no map", "size", "above", "below", "nan"],
)
def test_draw_attention_when_arrays_cannot_be_drawn_then_refused(image, maps, words):
    with pytest.raises(ValueError, match=words):
        draw_attention(image, maps, "dog")
