from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.augment.pasting import Cutout, cut_out, paste, random_paste
from deixis.data.augment.photometric import blur, colour_jitter, grey
from deixis.data.augment.pipelines import PHOTOS, CropAround, Pipeline
from deixis.data.augment.transforms import crop, mirror, zoom_out
from deixis.geometry.masks import box_from_mask
from deixis.structures import AnnotatedImage, Expression, VisibleInstance

property_test = settings(max_examples=40, deadline=None)


def _block(x1, y1, x2, y2, hw=(60, 100)):
    mask = np.zeros(hw, np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def _thing(x1, y1, x2, y2, hw=(60, 100), category="dog", with_mask=True):
    return VisibleInstance(
        category=category,
        box_xyxy_px=(float(x1), float(y1), float(x2), float(y2)),
        mask=_block(x1, y1, x2, y2, hw) if with_mask else None,
    )


def _view(*instances, hw=(60, 100), seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)
    return AnnotatedImage(image, tuple(instances))


@st.composite
def views(draw):
    height, width = draw(st.integers(24, 90)), draw(st.integers(24, 90))
    things = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
        x2, y2 = draw(st.integers(x1 + 6, width)), draw(st.integers(y1 + 6, height))
        with_mask = draw(st.booleans())
        thing = _thing(x1, y1, x2, y2, (height, width), draw(st.sampled_from(["dog", "cat"])), with_mask)
        if thing.mask is not None and draw(st.booleans()):
            thing.mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = False  # an L: its box stays the same
        things.append(replace(thing, is_crowd=draw(st.booleans())))
    return _view(*things, hw=(height, width), seed=draw(st.integers(0, 3)))


def _check_consistent(view):
    height, width = view.hw
    for instance in view.instances:
        x1, y1, x2, y2 = instance.box_xyxy_px
        assert -1e-6 <= x1 < x2 <= width + 1e-6
        assert -1e-6 <= y1 < y2 <= height + 1e-6
        if instance.mask is not None:
            assert instance.mask.shape == (height, width)
            assert instance.mask.dtype == np.bool_
            assert instance.box_xyxy_px == pytest.approx(box_from_mask(instance.mask), abs=1)


# --- record -----------------------------------------------------------------------------------------------------------


def test_view_when_a_mask_has_another_size_then_it_is_refused():
    with pytest.raises(ValueError, match=r"masks of the image's size \(60, 100\), got \(30, 40\) for 'dog'"):
        _view(_thing(1, 2, 9, 8, hw=(30, 40)))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_view_when_the_image_is_not_uint8_rgb_then_it_is_refused(image):
    with pytest.raises(ValueError, match="expected a uint8 image"):
        AnnotatedImage(image)


# --- mirror -----------------------------------------------------------------------------------------------------------


def test_mirror_when_a_thing_is_left_then_it_is_right():
    view = _view(_thing(10, 20, 30, 50))
    mirrored = mirror(view)
    assert mirrored.instances[0].box_xyxy_px == (70, 20, 90, 50)
    np.testing.assert_array_equal(mirrored.instances[0].mask, _block(70, 20, 90, 50))
    np.testing.assert_array_equal(mirrored.pixels[:, 0], view.pixels[:, 99])


@property_test
@given(views())
def test_mirror_when_done_twice_then_nothing_changed(view):
    _check_consistent(mirror(view))
    twice = mirror(mirror(view))
    np.testing.assert_array_equal(twice.pixels, view.pixels)
    assert len(twice.instances) == len(view.instances)
    for before, after in zip(view.instances, twice.instances, strict=True):
        assert after.box_xyxy_px == pytest.approx(before.box_xyxy_px)
        assert (after.category, after.is_crowd) == (before.category, before.is_crowd)
        if before.mask is not None:
            np.testing.assert_array_equal(after.mask, before.mask)


# --- crop -------------------------------------------------------------------------------------------------------------


def test_crop_when_a_thing_lies_within_then_it_is_only_shifted():
    view = _view(_thing(20, 20, 40, 50))
    cropped = crop(view, (10, 15, 90, 60))
    assert cropped.hw == (45, 80)
    assert cropped.instances[0].box_xyxy_px == (10, 5, 30, 35)
    assert not cropped.instances[0].is_crowd
    np.testing.assert_array_equal(cropped.pixels, view.pixels[15:60, 10:90])


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize(
    ("x1", "expected_crowd"),
    [(20, False), (26, False), (34, True)],  # of 20 columns 20, 14 and 6 stay
)
def test_crop_when_part_of_a_thing_is_cut_off_then_the_share_left_decides(with_mask, x1, expected_crowd):
    cropped = crop(_view(_thing(20, 20, 40, 50, with_mask=with_mask)), (x1, 0, 100, 60))
    assert cropped.instances[0].box_xyxy_px == (0, 20, 40 - x1, 50)
    assert cropped.instances[0].is_crowd is expected_crowd


def test_crop_when_next_to_nothing_is_left_then_the_thing_is_gone():
    # 0 of 20 columns left; then 1 of 20 rows and columns apiece of another
    assert crop(_view(_thing(20, 20, 40, 50)), (40, 0, 100, 60)).instances == ()
    assert crop(_view(_thing(20, 20, 60, 50)), (59, 0, 100, 60)).instances == ()


def test_crop_when_the_mask_is_an_l_then_the_box_shrinks_to_what_is_seen():
    mask = _block(10, 10, 20, 50) | _block(10, 40, 60, 50)
    view = _view(VisibleInstance(category="dog", box_xyxy_px=(10.0, 10.0, 60.0, 50.0), mask=mask))
    cropped = crop(view, (20, 0, 100, 60))
    assert cropped.instances[0].box_xyxy_px == (0, 40, 40, 50)
    assert cropped.instances[0].is_crowd  # 400 of 800 pixels


@pytest.mark.parametrize("window", [(-1, 0, 10, 10), (0, 0, 101, 10), (5, 5, 5, 9), (0, 9, 4, 2)])
def test_crop_when_the_window_is_empty_or_outside_then_it_is_refused(window):
    with pytest.raises(ValueError, match="expected a window inside the image of 100 x 60 pixels"):
        crop(_view(), window)


@property_test
@given(views(), st.data())
def test_crop_when_any_window_then_image_boxes_and_masks_agree(view, data):
    height, width = view.hw
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    window = (x1, y1, data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height)))
    cropped = crop(view, window)
    assert cropped.hw == (window[3] - y1, window[2] - x1)
    _check_consistent(cropped)


# --- zoom out --------------------------------------------------------------------------------------------------------


def test_zoom_out_when_offset_then_all_moves_together():
    view = _view(_thing(10, 20, 30, 50))
    zoomed = zoom_out(view, 1.5, (0.5, 1.0), (1, 2, 3))
    assert zoomed.hw == (90, 150)
    assert zoomed.instances[0].box_xyxy_px == (35, 50, 55, 80)  # 25 right, 30 down
    np.testing.assert_array_equal(zoomed.instances[0].mask, _block(35, 50, 55, 80, (90, 150)))
    np.testing.assert_array_equal(zoomed.pixels[30:, 25:125], view.pixels)
    assert zoomed.pixels[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("ratio", "offset"), [(0.9, (0, 0)), (1.2, (1.1, 0)), (1.2, (0, -0.1))])
def test_zoom_out_when_the_image_would_leave_the_canvas_then_it_is_refused(ratio, offset):
    with pytest.raises(ValueError, match="expected a ratio >= 1 and an offset"):
        zoom_out(_view(), ratio, offset, (0, 0, 0))


# --- photometric ------------------------------------------------------------------------------------------------------


def test_colour_jitter_when_all_factors_are_one_then_nothing_changes():
    image = _view().pixels
    np.testing.assert_array_equal(colour_jitter(image, 1, 1, 1), image)


def test_colour_jitter_when_brightened_then_values_scale_and_saturate():
    image = np.full((16, 16, 3), (100, 200, 20), np.uint8)
    assert colour_jitter(image, 1.5, 1, 1)[0, 0].tolist() == [150, 255, 30]


def test_colour_jitter_when_contrast_is_halved_then_values_near_the_mean():
    image = np.zeros((16, 16, 3), np.uint8)
    image[8:] = 200  # mean 100
    jittered = colour_jitter(image, 1, 0.5, 1)
    assert (jittered[0, 0, 0], jittered[15, 0, 0]) == (50, 150)


def test_colour_jitter_when_saturated_then_the_order_of_the_channels_stays():
    image = np.full((16, 16, 3), (150, 120, 60), np.uint8)
    red, green, blue = (int(v) for v in colour_jitter(image, 1, 1, 1.4)[0, 0])
    assert red > 150
    assert blue < 60
    assert red > green > blue


def test_grey_when_coloured_then_the_channels_are_equal():
    image = grey(_view().pixels)
    assert image.shape == (60, 100, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_blur_when_an_edge_then_it_is_softer():
    image = np.zeros((9, 40, 3), np.uint8)
    image[:, 20:] = 255
    edge = np.diff(blur(image, 2.0)[4, :, 0].astype(int))
    assert 0 < edge.max() < 128
    assert edge.min() >= 0


# --- paste ------------------------------------------------------------------------------------------------------------

RED_BLOCK = Cutout(np.full((20, 20, 3), (255, 0, 0), np.uint8), np.ones((20, 20), np.bool_), "cup")


def test_paste_when_over_a_part_then_mask_and_box_lose_it():
    view = _view(_thing(10, 10, 50, 40))
    pasted = paste(view, RED_BLOCK, (40, 0, 60, 60))
    dog, cup = pasted.instances
    assert dog.box_xyxy_px == (10, 10, 40, 40)
    np.testing.assert_array_equal(dog.mask, _block(10, 10, 40, 40))
    assert not dog.is_crowd
    assert (cup.category, cup.box_xyxy_px) == ("cup", (40, 0, 60, 60))
    assert (pasted.pixels[:, 40:60] == (255, 0, 0)).all()
    np.testing.assert_array_equal(pasted.pixels[:, :40], view.pixels[:, :40])
    assert view.instances[0].mask is not None
    assert view.instances[0].mask[20, 45]  # the argument is as it was


@pytest.mark.parametrize(
    ("x1", "with_mask", "expected"),
    [  # of the dog's 40 columns, those from x1 on are covered
        (40, True, "referent"),
        (40, False, "referent"),
        (37, True, "referent"),
        (37, False, "crowd"),
        (20, True, "crowd"),
        (20, False, "crowd"),
        (11, True, "gone"),
        (11, False, "gone"),
    ],
)
def test_paste_when_more_is_covered_then_it_is_a_distractor_then_gone(x1, with_mask, expected):
    things = paste(_view(_thing(10, 10, 50, 40, with_mask=with_mask)), RED_BLOCK, (x1, 0, 60, 60)).instances
    state = "gone" if len(things) == 1 else "crowd" if things[0].is_crowd else "referent"
    assert state == expected


def test_paste_when_feathered_then_only_the_edge_is_mixed():
    cutout = replace(RED_BLOCK, mask=_block(5, 5, 15, 15, (20, 20)))
    view = AnnotatedImage(np.zeros((60, 100, 3), np.uint8))
    pasted = paste(view, cutout, (10, 10, 30, 30), feather_px=1.0)
    assert pasted.instances[0].box_xyxy_px == (15, 15, 25, 25)
    assert pasted.pixels[20, 20, 0] == 255
    assert 0 < pasted.pixels[20, 15, 0] < 255
    assert pasted.pixels[20, 10, 0] == 0


def test_paste_when_the_window_leaves_the_image_then_it_is_refused():
    with pytest.raises(ValueError, match="expected a window inside the image"):
        paste(_view(), RED_BLOCK, (90, 10, 110, 30))


@property_test
@given(views(), views(), st.integers(0, 1000))
def test_random_paste_when_any_views_then_all_agree(view, donor, seed):
    pasted = random_paste(view, [donor], np.random.default_rng(seed))
    assert pasted.hw == view.hw
    _check_consistent(pasted)


def test_random_paste_when_there_is_room_then_a_thing_of_the_donor_comes():
    donor = _view(_thing(10, 5, 60, 55, category="cup"))
    pasted = random_paste(_view(), [donor], np.random.default_rng(0))
    assert {i.category for i in pasted.instances} == {"cup"}


def test_random_paste_when_no_donors_then_the_view_stays():
    view = _view(_thing(10, 10, 50, 40))
    assert random_paste(view, [], np.random.default_rng(0)) is view


def test_cut_out_when_whole_then_image_and_mask_of_its_box():
    view = _view(_thing(10, 5, 60, 55))
    cutout = cut_out(view, 0)
    assert cutout is not None
    assert cutout.mask.shape == (50, 50)
    np.testing.assert_array_equal(cutout.pixels, view.pixels[5:55, 10:60])


@pytest.mark.parametrize(
    "thing",
    [
        _thing(0, 5, 50, 55),  # cut off by the left edge
        _thing(10, 10, 60, 60),  # by the lower edge
        _thing(10, 10, 60, 30),  # too flat
        _thing(10, 5, 60, 55, with_mask=False),
        replace(_thing(10, 5, 60, 55), is_crowd=True),
    ],
)
def test_cut_out_when_not_worth_it_then_none(thing):
    assert cut_out(_view(thing), 0) is None


# --- by chance --------------------------------------------------------------------------------------------------------


@property_test
@given(views(), st.integers(0, 1000))
def test_photos_when_any_seed_then_all_agree_and_the_seed_decides(view, seed):
    first = PHOTOS(view, np.random.default_rng(seed))
    _check_consistent(first)
    assert first.pixels.flags.c_contiguous
    assert all(i.mask is None or i.mask.flags.c_contiguous for i in first.instances)
    np.testing.assert_array_equal(first.pixels, PHOTOS(view, np.random.default_rng(seed)).pixels)


@property_test
@given(views(), st.integers(0, 1000))
def test_crop_around_when_there_is_a_referent_then_one_stays_whole_and_half_the_image(view, seed):
    height, width = view.hw
    cropped = Pipeline(crop=CropAround(chance=1.0, min_area=0.0))(view, np.random.default_rng(seed))
    assert cropped.hw[0] * cropped.hw[1] >= 0.5 * height * width - 1e-6
    sizes = {
        (i.box_xyxy_px[2] - i.box_xyxy_px[0], i.box_xyxy_px[3] - i.box_xyxy_px[1])
        for i in view.instances
        if not i.is_crowd
    }
    left = {
        (i.box_xyxy_px[2] - i.box_xyxy_px[0], i.box_xyxy_px[3] - i.box_xyxy_px[1])
        for i in cropped.instances
        if not i.is_crowd
    }
    assert not sizes or sizes & left


def test_crop_around_when_nothing_is_large_enough_then_the_view_stays():
    view = _view(_thing(10, 10, 14, 14))
    assert CropAround(chance=1.0).draw(view, np.random.default_rng(0)) is None


# --- with words -------------------------------------------------------------------------------------------------------


def _described(phrase):
    view = _view(_thing(10, 20, 30, 50))
    dog = view.instances[0]
    return replace(view, expressions=(Expression(phrase, dog.box_xyxy_px, dog.mask, "dog"),))


def _assert_one_region(image):
    (dog,), (expression,) = image.instances, image.expressions
    assert expression.box_xyxy_px == dog.box_xyxy_px
    np.testing.assert_array_equal(expression.mask, dog.mask)


def test_mirror_when_a_phrase_names_a_side_then_words_box_and_mask_turn():
    mirrored = mirror(_described("left dog"))
    assert mirrored.expressions[0].phrase == "right dog"
    assert mirrored.expressions[0].box_xyxy_px == (70, 20, 90, 50)
    _assert_one_region(mirrored)


def test_mirror_when_a_phrase_means_nothing_then_only_its_words_turn():
    image = replace(_view(), expressions=(Expression("left cat", None, None, "cat"),))
    assert mirror(image).expressions == (Expression("right cat", None, None, "cat"),)


@pytest.mark.parametrize(
    ("change", "box"),
    [
        (lambda image: crop(image, (5, 10, 95, 60)), (5, 10, 25, 40)),
        (lambda image: zoom_out(image, 1.5, (0.5, 1.0), (1, 2, 3)), (35, 50, 55, 80)),
    ],
)
def test_transform_when_an_image_has_expressions_then_they_stay_on_their_instances(change, box):
    changed = change(_described("brown dog"))
    assert changed.expressions[0].phrase == "brown dog"
    assert changed.expressions[0].box_xyxy_px == box
    _assert_one_region(changed)
