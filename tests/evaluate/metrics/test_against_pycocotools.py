"""The IoU that all figures are made of, against pycocotools."""

import numpy as np
import pytest

from deixis.evaluate.metrics import score_sample
from deixis.geometry.masks import encode_rle

HW = (90, 120)


def blob(rng):
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    x, y, r = rng.uniform(10, 80, 3)
    return (columns - x) ** 2 + (rows - y) ** 2 < r**2


def test_iou_when_of_random_boxes_and_masks_then_pycocotools_to_1e_9():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    overlapping = 0
    for _ in range(50):
        corners = np.sort(rng.uniform(0, 90, (2, 2, 2)), axis=1).reshape(2, 4)
        a, b = (tuple(box) for box in corners.tolist())
        target, mask = blob(rng), blob(rng)
        score = score_sample(target_box=a, target_mask=target, box=b, mask=mask)
        xywh = np.array([[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (a, b)])
        box_iou = float(coco.iou(xywh[1:], xywh[:1], [0])[0, 0])
        assert score.box_iou == pytest.approx(box_iou, abs=1e-9)
        assert score.mask_iou == pytest.approx(
            float(coco.iou([encode_rle(mask)], [encode_rle(target)], [0])[0, 0]), abs=1e-9
        )
        overlapping += box_iou > 0
    assert overlapping > 20


def test_iou_when_pycocotools_takes_the_target_for_a_crowd_then_it_is_not_ours():
    coco = pytest.importorskip("pycocotools.mask")
    target, mask = np.zeros((2, *HW), dtype=bool)
    target[:, :100], mask[:, :64] = True, True
    ours = score_sample(target_box=(0, 0, 100, 90), target_mask=target, mask=mask).mask_iou
    pair = [encode_rle(mask)], [encode_rle(target)]
    assert ours == pytest.approx(0.64)
    assert float(coco.iou(*pair, [0])[0, 0]) == pytest.approx(0.64)
    assert float(coco.iou(*pair, [1])[0, 0]) == pytest.approx(1.0)  # what SeqTR's evaluator reads
