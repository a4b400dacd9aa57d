"""Other evaluators' ways: the wrong values that they are known for."""

import numpy as np
import pytest

from deixis.evaluate.metrics.reference import REFERENCE_EVALUATORS, Pair, generalised_iou

HW = (100, 100)


def square(x1, y1, x2, y2, hw=HW):
    mask = np.zeros(hw, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def boxes(box, target, hw=HW):
    return Pair(hw=hw, box=box, target_box=target)


def test_seqtr_when_target_has_several_polygons_then_an_iou_of_064_is_read_as_1():
    pair = Pair(hw=HW, mask=square(0, 0, 8, 8), target_mask=square(0, 0, 10, 10), num_polygons=2)
    assert REFERENCE_EVALUATORS["mcn"].overlaps(pair)[1] == pytest.approx(0.64)
    assert REFERENCE_EVALUATORS["seqtr"].overlaps(pair)[1] == 1.0


def test_seqtr_when_target_is_one_polygon_or_nothing_is_shown_then_no_crowd():
    one = Pair(hw=HW, mask=square(0, 0, 8, 8), target_mask=square(0, 0, 10, 10), num_polygons=1)
    none = Pair(hw=HW, mask=square(0, 0, 0, 0), target_mask=square(0, 0, 10, 10), num_polygons=2)
    assert REFERENCE_EVALUATORS["seqtr"].overlaps(one)[1] == pytest.approx(0.64)
    assert REFERENCE_EVALUATORS["seqtr"].overlaps(none)[1] == 0.0


def test_seqtr_when_the_last_batch_is_short_then_its_samples_count_more():
    # 128 right ones and 2 wrong ones: 128 / 130 in truth, the mean of 1 and 0 there
    overlaps = [(0.9, None)] * 128 + [(0.1, None)] * 2
    assert REFERENCE_EVALUATORS["seqtr"].figures(overlaps)["rec.acc@0.5"] == 0.5
    assert REFERENCE_EVALUATORS["mdetr"].figures(overlaps)["rec.acc@0.5"] == pytest.approx(128 / 130)


def test_mdetr_when_boxes_lie_askew_then_giou_is_too_strict():
    # two squares of 100, one shifted by 15 along both axes; then one where the IoU is right and the GIoU is not
    askew = boxes((0, 0, 100, 100), (15, 15, 115, 115))
    shared, union, hull = 85**2, 2 * 100**2 - 85**2, 115**2
    assert REFERENCE_EVALUATORS["mdetr"].overlaps(askew)[0] == pytest.approx(shared / union - (hull - union) / hull)
    assert shared / union > 0.5
    within = boxes((0, 0, 100, 80), (24, 14, 100, 100))
    iou = 76 * 66 / (100 * 80 + 76 * 86 - 76 * 66)
    assert REFERENCE_EVALUATORS["lavt"].overlaps(within)[0] == pytest.approx(iou)
    assert REFERENCE_EVALUATORS["lavt"].figures([REFERENCE_EVALUATORS["lavt"].overlaps(within)])["rec.acc@0.5"] == 1.0
    assert REFERENCE_EVALUATORS["mdetr"].figures([REFERENCE_EVALUATORS["mdetr"].overlaps(within)])["rec.acc@0.5"] == 0.0


def test_generalised_iou_when_boxes_are_apart_then_negative():
    # two unit squares, one unit between them: hull 3, union 2
    assert generalised_iou((0, 0, 1, 1), (2, 0, 3, 1)) == pytest.approx(-1 / 3)
    assert generalised_iou((0, 0, 1, 1), (0, 0, 1, 1)) == pytest.approx(1)


def test_transvg_when_samples_do_not_fill_the_processes_then_copies_of_the_first_count():
    # 9 samples for 8 processes are filled up to 16 with the first 7, all right: 15 of 16 instead of 8 of 9
    overlaps = [(0.9, None)] * 8 + [(0.1, None)]
    assert REFERENCE_EVALUATORS["transvg"].figures(overlaps)["rec.acc@0.5"] == 15 / 16


def test_transvg_when_box_leaves_the_image_then_cut_to_the_padded_square_alone():
    # an image of 100 x 50 lies in the middle of a square that reaches 25 pixels above and below it
    pair = boxes((0, -60, 100, 50), (0, 0, 100, 50), hw=(50, 100))
    assert REFERENCE_EVALUATORS["transvg"].overlaps(pair)[0] == pytest.approx(50 / 75)
    assert REFERENCE_EVALUATORS["lavt"].overlaps(pair)[0] == pytest.approx(50 / 110)


def test_at_least_when_iou_is_exactly_half_then_right_there_and_wrong_in_the_papers():
    half = [(0.5, 0.5)]
    assert REFERENCE_EVALUATORS["transvg"].figures(half)["rec.acc@0.5"] == 1.0
    assert REFERENCE_EVALUATORS["mcn"].figures(half)["rec.acc@0.5"] == 0.0
    assert REFERENCE_EVALUATORS["mcn"].figures(half)["res.acc@0.5"] == 0.0


def test_mcn_when_boxes_are_in_canvas_pixels_then_rounded_and_cut():
    # 416 x 416 is its own canvas: the answer is rounded to 10..20, the target cut to 10..20
    pair = boxes((9.6, 9.6, 20.4, 20.4), (10.9, 10.9, 20.9, 20.9), hw=(416, 416))
    assert REFERENCE_EVALUATORS["mcn"].overlaps(pair)[0] == pytest.approx(1.0)
    assert REFERENCE_EVALUATORS["lavt"].overlaps(pair)[0] == pytest.approx(9.5**2 / (10.8**2 + 10**2 - 9.5**2))


def test_resc_when_edges_count_as_pixels_then_boxes_are_one_wider():
    # 10 x 10 in 20 x 10: 0.5 in truth, 11 * 11 / (21 * 11) there
    pair = boxes((0, 0, 10, 10), (0, 0, 20, 10))
    assert REFERENCE_EVALUATORS["resc"].overlaps(pair)[0] == pytest.approx(11 / 21)


def test_lavt_when_masks_are_resized_then_small_things_change():
    # three of four columns of a 960 wide image: every second pixel is looked at
    target, mask = square(100, 0, 104, 960, (960, 960)), square(100, 0, 103, 960, (960, 960))
    pair = Pair(hw=(960, 960), mask=mask, target_mask=target)
    assert REFERENCE_EVALUATORS["mcn"].overlaps(pair)[1] == pytest.approx(0.75)
    assert REFERENCE_EVALUATORS["lavt"].overlaps(pair)[1] == 0.5


def test_figures_when_box_and_mask_disagree_then_ie_and_without_samples_nothing():
    figures = REFERENCE_EVALUATORS["mcn"].figures([(0.9, 0.1), (0.9, 0.9), (0.1, None)])
    assert figures["ie"] == 0.5
    assert REFERENCE_EVALUATORS["transvg"].figures([]) == {}
    assert REFERENCE_EVALUATORS["mcn"].overlaps(Pair(hw=HW)) == (None, None)


def test_official_modes_when_asked_then_the_command_knows_each():
    from deixis.cli.score import OfficialMode

    assert {mode.value for mode in OfficialMode} == set(REFERENCE_EVALUATORS)
    assert all(mode.differs for mode in REFERENCE_EVALUATORS.values())


def test_overlaps_when_the_size_is_not_known_then_only_those_that_need_it_refuse():
    pair = Pair(hw=None, box=(0, 0, 2, 2), target_box=(0, 0, 2, 2))
    assert REFERENCE_EVALUATORS["mdetr"].overlaps(pair) == (pytest.approx(1), None)
    with pytest.raises(ValueError, match="MCN"):
        REFERENCE_EVALUATORS["mcn"].overlaps(pair)
