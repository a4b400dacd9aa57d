from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.augment.transforms import mirror, warp_instance
from deixis.data.augment.warping import (
    AffineRange,
    affine_matrix,
    compose,
    fit_resolution,
    hull_of,
    move_box,
    move_points,
    warp_image,
    warp_mask,
)
from deixis.geometry.images import letterbox
from deixis.geometry.masks import box_from_mask
from deixis.structures import AnnotatedImage, VisibleInstance

property_test = settings(max_examples=30, deadline=None)
HW = (60, 100)
BOX = (20.0, 10.0, 60.0, 40.0)


def _block(x1, y1, x2, y2, hw=HW):
    mask = np.zeros(hw, np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def _disc(hw=HW, radius=18):
    rows, columns = np.ogrid[: hw[0], : hw[1]]
    return (rows + 0.5 - hw[0] / 2) ** 2 + (columns + 0.5 - hw[1] / 2) ** 2 <= radius**2


def _noise(hw=HW, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def _view(*masks, hw=HW):
    things = tuple(VisibleInstance(category="dog", box_xyxy_px=box_from_mask(mask), mask=mask) for mask in masks)
    return AnnotatedImage(_noise(hw), things)


# matrices


@pytest.mark.parametrize(
    ("options", "point", "expected"),
    [
        ({}, (7, 9), (7, 9)),
        ({"angle_deg": 90}, (60, 30), (50, 40)),  # ten right of the middle goes ten below it
        ({"scale": 2}, (60, 35), (70, 40)),
        ({"translate": (0.1, -0.5)}, (50, 30), (60, 0)),  # a tenth of 100 right, half of 60 up
        ({"shear_deg": (45, 0)}, (50, 40), (60, 40)),  # ten below the middle goes ten right
        ({"shear_deg": (0, 45)}, (60, 30), (60, 40)),
    ],
)
def test_affine_matrix_when_worked_by_hand_then_points_move_about_the_middle(options, point, expected):
    moved = move_points(np.array([point]), affine_matrix(HW, **options))
    np.testing.assert_allclose(moved, [expected], atol=1e-9)


def test_compose_when_two_then_the_first_comes_first():
    moved = affine_matrix(HW, translate=(0.1, 0))  # 10 to the right, then twice as far from the middle at (50, 30)
    np.testing.assert_allclose(
        move_points(np.array([(50.0, 30.0)]), compose(moved, affine_matrix(HW, scale=2))), [(70, 30)]
    )


# boxes


def test_move_box_when_nothing_turns_then_the_box_is_exact_with_a_mask_and_without():
    matrix = affine_matrix(HW, scale=0.5, translate=(0.1, 0))
    expected = (45, 20, 65, 35)  # (20 - 50) / 2 + 60 and so on
    assert move_box(BOX, None, matrix) == pytest.approx(expected)
    assert move_box(BOX, _block(20, 10, 60, 40), matrix) == pytest.approx(expected)


def test_move_box_when_there_is_no_mask_then_the_hull_is_drawn_in_as_resc_does():
    x1, y1, x2, y2 = move_box((30, 10, 70, 50), None, affine_matrix(HW, angle_deg=60))
    side = 40 * (np.sin(np.pi / 3) + 0.5) * np.sin(np.pi / 3) ** 0.5  # the hull of a square, drawn in
    assert (x2 - x1, y2 - y1) == pytest.approx((side, side))
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((50, 30))


@pytest.mark.parametrize("angle", [3, -5, 30, 45])
def test_move_box_when_a_disc_turns_then_its_box_stays_while_the_hull_would_grow(angle):
    matrix = affine_matrix(HW, angle_deg=angle)
    box = box_from_mask(_disc())
    assert move_box(box, _disc(), matrix) == pytest.approx(box, abs=1.5)
    assert hull_of(box, matrix)[2] - hull_of(box, matrix)[0] > 37.5


def test_move_box_when_the_box_was_wider_than_the_mask_then_it_still_is():
    mask = _block(24, 12, 50, 40)  # 4 to the left, 2 above, 10 to the right of it
    assert move_box(BOX, mask, affine_matrix(HW)) == pytest.approx(BOX)
    mirrored = np.array([[-2.0, 0, 200], [0, 2, 0]])
    assert move_box(BOX, mask, mirrored) == pytest.approx((80, 20, 160, 80))


@property_test
@given(st.integers(0, 10_000), st.floats(-20, 20), st.floats(0.7, 1.5), st.floats(-10, 10))
def test_move_box_when_any_mask_then_it_is_the_moved_masks_own_box(seed, angle, scale, shear):
    rng = np.random.default_rng(seed)
    mask = np.zeros((150, 150), np.bool_)
    for _ in range(3):
        x, y = rng.integers(50, 90, 2)
        mask[y : y + int(rng.integers(4, 12)), x : x + int(rng.integers(4, 12))] = True
    matrix = affine_matrix(mask.shape, angle_deg=angle, scale=scale, shear_deg=(shear, 0))
    moved = warp_mask(mask, matrix, mask.shape)
    tight = move_box(box_from_mask(mask), mask, matrix)
    assert box_from_mask(moved) == pytest.approx(tight, abs=2.1)  # a corner may hold no pixel's middle
    inside = box_from_mask(moved)
    assert inside[0] >= tight[0] - 0.51
    assert inside[3] <= tight[3] + 0.51


# images and masks


@pytest.mark.parametrize("hw", [(60, 100), (100, 61), (20, 20), (300, 200)])
def test_warp_image_when_it_is_a_letterbox_then_the_very_same_pixels(hw):
    image = _noise(hw)
    canvas, frame = letterbox(image, 64, fill=7)
    (sx, sy), (px, py) = frame.scale_xy, frame.pad_xy
    np.testing.assert_array_equal(warp_image(image, np.array([[sx, 0, px], [0, sy, py]]), (64, 64), fill=7), canvas)


def test_warp_image_when_mirrored_then_the_very_same_pixels_from_right_to_left():
    image = _noise()
    np.testing.assert_array_equal(warp_image(image, np.array([[-1.0, 0, 100], [0, 1, 0]]), HW), image[:, ::-1])


def test_warp_image_when_turned_a_quarter_then_pixels_turn():
    image = _noise((40, 40))
    turned = warp_image(image, affine_matrix((40, 40), angle_deg=90), (40, 40))
    np.testing.assert_allclose(turned[1:-1, 1:-1], np.rot90(image, -1)[1:-1, 1:-1], atol=1)


def test_warp_image_when_moved_by_half_a_pixel_then_neighbours_are_mixed_and_the_rest_is_filled():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 200
    moved = warp_image(image, np.array([[1.0, 0, 0.5], [0, 1, 0]]), (8, 12), fill=9)
    assert moved[4, :, 0].tolist()[1:8] == [0, 0, 0, 100, 200, 200, 200]
    assert (moved[:, 9:] == 9).all()


def test_fit_resolution_when_the_frame_shows_it_smaller_then_it_is_shrunk_and_points_stay():
    matrix = compose(affine_matrix(HW, angle_deg=10), np.array([[0.5, 0, 3], [0, 0.5, 4]]))
    image, rest = fit_resolution(_noise(), matrix)
    assert image.shape == (30, 50, 3)
    corners = np.array([(0.0, 0.0), (100.0, 60.0)])
    np.testing.assert_allclose(move_points(corners / 2, rest), move_points(corners, matrix))
    assert fit_resolution(_noise(), affine_matrix(HW, angle_deg=10, scale=2))[0].shape == (60, 100, 3)


def test_warp_mask_when_moved_by_whole_pixels_then_exactly_so():
    np.testing.assert_array_equal(
        warp_mask(_block(20, 10, 60, 40), np.array([[1.0, 0, 10], [0, 1, -5]]), HW), _block(30, 5, 70, 35)
    )


# instances


def _warped(view, matrix):
    return [warp_instance(instance, matrix, view.hw) for instance in view.instances]


def test_warp_when_the_matrix_is_a_mirror_then_as_mirror_does():
    view = _view(_block(20, 10, 60, 40), _disc())
    mirrored, matrix = mirror(view), np.array([[-1.0, 0, 100], [0, 1, 0]])
    np.testing.assert_array_equal(warp_image(view.pixels, matrix, HW), mirrored.pixels)
    for one, other in zip(_warped(view, matrix), mirrored.instances, strict=True):
        assert one.box_xyxy_px == pytest.approx(other.box_xyxy_px)
        np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize(("shift", "state"), [(0.7, "whole"), (0.75, "whole"), (0.85, "crowd"), (1.0, "gone")])
def test_warp_when_an_instance_is_pushed_off_the_frame_then_the_share_left_decides(shift, state):
    (one,) = _warped(_view(_block(0, 10, 40, 40)), affine_matrix(HW, translate=(shift, 0)))
    assert state == ("gone" if one is None else "crowd" if one.is_crowd else "whole")


def test_warp_when_an_l_is_cut_then_the_box_shrinks_to_what_is_seen():
    mask = _block(10, 10, 20, 50) | _block(10, 40, 60, 50)
    (one,) = _warped(_view(mask), np.array([[1.0, 0, -20], [0, 1, 0]]))
    assert one.box_xyxy_px == (0, 40, 40, 50)


@property_test
@given(st.integers(0, 1000))
def test_warp_when_any_matrix_then_box_and_mask_agree_on_the_frame(seed):
    view = _view(_block(20, 10, 60, 40), _disc())
    view = replace(view, instances=(*view.instances, VisibleInstance(category="cat", box_xyxy_px=BOX)))
    for instance in filter(None, _warped(view, AffineRange().draw(np.random.default_rng(seed), HW))):
        x1, y1, x2, y2 = instance.box_xyxy_px
        assert 0 <= x1 < x2 <= 100
        assert 0 <= y1 < y2 <= 60
        if instance.mask is not None:
            assert instance.box_xyxy_px == pytest.approx(box_from_mask(instance.mask), abs=1.5)


def test_affine_range_when_drawn_often_then_within_its_bounds_and_near_them():
    bounds = AffineRange(angle_deg=0, shear_deg=0)
    matrices = np.stack([bounds.draw(np.random.default_rng(seed), HW) for seed in range(300)])
    scales, middles = matrices[:, 0, 0], move_points(np.array([(50.0, 30.0)]), matrices[0])
    assert 0.9 <= scales.min() < 0.92
    assert 1.08 < scales.max() <= 1.1
    assert abs(middles[0, 0] - 50) <= 10
    turned = AffineRange(scale=(1, 1), translate=0, shear_deg=0).draw(np.random.default_rng(0), HW)
    assert 0 < abs(np.degrees(np.arctan2(turned[1, 0], turned[0, 0]))) <= 5
