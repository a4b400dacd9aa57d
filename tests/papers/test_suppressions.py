"""Table 1: answers on a 10 x 10 image that fills its canvas, so that every figure can be worked by hand."""

import numpy as np
import pytest

from deixis.config import SUPPRESSIONS
from deixis.geometry.images import Letterbox
from deixis.papers.mcn_table_1 import RawAnswer, compare_suppressions, suppression_table

FRAME = Letterbox.fit((10, 10), 10)
LEFT = (0.0, 0.0, 5.0, 10.0)
RIGHT = (5.0, 0.0, 10.0, 10.0)


def columns(start, end):
    mask = np.zeros((10, 10), dtype=bool)
    mask[:, start:end] = True
    return mask


def answer(probability, box=LEFT, confidence=0.5, target_box=LEFT, target_mask=None):
    return RawAnswer(
        probability=np.asarray(probability, dtype=np.float32),
        frame=FRAME,
        box_xyxy_canvas_px=box,
        confidence=confidence,
        target_box_xyxy_px=target_box,
        target_mask=columns(0, 5) if target_mask is None else target_mask,
    )


def reports(*answers, **options):
    return {method: tally.report() for method, tally in compare_suppressions(answers, **options).items()}


def test_compare_when_ie_has_its_four_cases_then_exactly_one_right_counts():
    good, bad = 0.9 * columns(0, 5), 0.9 * columns(5, 10)
    both_right, box_only = answer(good), answer(bad)
    mask_only, both_wrong = answer(good, box=RIGHT), answer(bad, box=RIGHT)
    report = reports(both_right, box_only, mask_only, mask_only, both_wrong)["none"]
    assert report["n"] == 5
    assert report["rec"]["acc@0.5"] == pytest.approx(2 / 5)
    assert report["res"]["acc@0.5"] == pytest.approx(3 / 5)
    assert report["ie"] == pytest.approx(3 / 5)
    assert report["ie_box_only"] == pytest.approx(1 / 5)
    assert report["ie_mask_only"] == pytest.approx(2 / 5)


def test_compare_when_mask_runs_over_a_neighbour_then_suppression_mends_the_inconsistency():
    # sure of the left half, unsure (0.4) of the right: IoU 50 / 100, wrong, beside a right box
    spilt = 0.9 * columns(0, 5) + 0.4 * columns(5, 10)
    found = reports(answer(spilt))
    assert found["none"]["ie"] == found["none"]["ie_box_only"] == 1.0
    assert found["none"]["res"]["miou"] == 0.5
    for method in ("crop", "soft", "adaptive"):  # outside: 0; 0.2; 0.4 * 0.5 = 0.2
        assert found[method]["res"]["miou"] == 1.0
        assert found[method]["ie"] == 0.0


def test_compare_when_box_is_wrong_then_suppression_trades_one_part_of_ie():
    # a right mask (0.6) beside a wrong box: crop and soft (0.3) delete it, so both are wrong and agree
    found = reports(answer(0.6 * columns(0, 5), box=RIGHT, confidence=0.9))
    assert found["none"]["ie_mask_only"] == 1.0
    assert found["crop"]["ie"] == found["soft"]["ie"] == 0.0
    assert found["soft"]["res"]["miou"] == 0.0
    assert found["adaptive"]["ie_mask_only"] == 1.0  # 0.6 * 0.9 still passes


def test_compare_when_box_is_too_small_then_crop_lowers_miou_and_soft_does_not():
    # the whole image is meant; the box lacks its last two columns
    whole, near = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 8.0, 10.0)
    found = reports(
        answer(np.full((10, 10), 0.9), box=near, confidence=0.9, target_box=whole, target_mask=columns(0, 10))
    )
    assert found["none"]["res"]["miou"] == 1.0
    assert found["crop"]["res"]["miou"] == pytest.approx(0.8)
    assert found["soft"]["res"]["miou"] == 1.0  # 0.45 passes
    assert found["adaptive"]["res"]["miou"] == 1.0  # 0.81 passes
    assert all(report["rec"]["mean_iou"] == pytest.approx(0.8) for report in found.values())


def test_compare_when_unsure_box_is_too_small_then_adaptive_crops_as_hard_as_crop():
    whole, near = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 8.0, 10.0)
    found = reports(
        answer(np.full((10, 10), 0.9), box=near, confidence=0.3, target_box=whole, target_mask=columns(0, 10))
    )
    assert found["adaptive"]["res"]["miou"] == found["crop"]["res"]["miou"] == pytest.approx(0.8)


def test_compare_when_image_is_letterboxed_then_box_and_mask_are_measured_in_the_image():
    frame = Letterbox.fit((10, 20), 10)  # half the size, between rows of padding
    assert frame.content_hw == (5, 10)
    top = frame.pad_xy[1]
    mask = np.zeros((10, 20), dtype=bool)
    mask[:, :10] = True
    one = RawAnswer(
        probability=np.ones((10, 10), dtype=np.float32),
        frame=frame,
        box_xyxy_canvas_px=(0, top, 5, top + 5),
        confidence=0.3,
        target_box_xyxy_px=(0, 0, 10, 10),
        target_mask=mask,
    )
    found = reports(one)
    assert found["adaptive"]["rec"]["mean_iou"] == pytest.approx(1)
    assert found["adaptive"]["res"]["miou"] == 1.0
    assert found["none"]["res"]["miou"] == 0.5


def test_compare_when_order_methods_and_threshold_are_given_then_they_count():
    one = answer(np.full((10, 10), 0.9), box=(0.0, 0.0, 4.0, 9.0))
    official = reports(one, order="official", methods=("crop",))
    assert list(official) == ["crop"]
    assert official["crop"]["res"]["miou"] == 1.0  # column 4 and row 9 are inside too
    assert reports(one, methods=("crop",))["crop"]["res"]["miou"] == pytest.approx(36 / 50)
    assert reports(one, methods=("none",), threshold=0.95)["none"]["res"]["miou"] == 0.0


def test_compare_when_answers_come_from_a_generator_then_each_is_taken_once():
    tallies = compare_suppressions(answer(0.9 * columns(0, 5)) for _ in range(3))
    assert tuple(tallies) == SUPPRESSIONS
    assert all(tally.n == 3 for tally in tallies.values())


def test_compare_when_method_is_unknown_then_value_error():
    with pytest.raises(ValueError, match="'hard'"):
        compare_suppressions([answer(columns(0, 5))], methods=("hard",))


def test_table_when_written_then_the_papers_rows_and_columns_in_percent():
    spilt = 0.9 * columns(0, 5) + 0.4 * columns(5, 10)
    lines = suppression_table(compare_suppressions([answer(spilt), answer(0.9 * columns(0, 5))])).splitlines()
    assert lines[0] == (
        "|  | IoU (mean) | Acc@0.5 | Acc@0.6 | Acc@0.7 | Acc@0.8 | Acc@0.9 | IE↓ | IE: only box right "
        "| IE: only mask right | IoU (overall) |"
    )
    assert lines[1].count("---:") == 10
    # one mask of IoU 50 / 100, one of 50 / 50; together 100 / 150
    none = "75.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 0.00 | 66.67"
    assert lines[2] == f"| w.o. post-processing | {none} |"
    right = "100.00 | 100.00 | 100.00 | 100.00 | 100.00 | 100.00 | 0.00 | 0.00 | 0.00 | 100.00"
    assert lines[3:] == [f"| {name} | {right} |" for name in ("RoI Crop", "Soft-NLS", "ASNLS")]


def test_table_when_nothing_was_measured_then_dashes():
    assert suppression_table(compare_suppressions([])).splitlines()[2] == "| w.o. post-processing |" + " - |" * 10
