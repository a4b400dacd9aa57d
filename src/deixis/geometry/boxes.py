"""Boxes as numpy arrays: the last axis holds the four numbers, any axes may come before it.

Edges are continuous (width = x2 - x1, no "+ 1"); x runs to the right, y downwards. Results are float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def box_area(boxes_xyxy: ArrayLike) -> FloatArray:
    """Return the area [...] of boxes [..., 4]; a box with x2 <= x1 or y2 <= y1 has area 0."""
    boxes = _boxes(boxes_xyxy)
    return np.clip(boxes[..., 2] - boxes[..., 0], 0, None) * np.clip(boxes[..., 3] - boxes[..., 1], 0, None)


def box_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> FloatArray:
    """Return the intersection over union [...] of boxes that broadcast against each other.

    ``box_iou(a[:, None], b[None])`` gives the whole table. Two boxes without any area have IoU 0.
    """
    a, b = _boxes(a_xyxy), _boxes(b_xyxy)
    low = np.maximum(a[..., :2], b[..., :2])
    extent = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - low, 0, None)
    shared = extent[..., 0] * extent[..., 1]
    union = box_area(a) + box_area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def clip_box(boxes_xyxy: ArrayLike, hw: tuple[int, int]) -> FloatArray:
    """Return the boxes [..., 4] with every edge moved into an image of ``hw`` (height, width) pixels."""
    height, width = hw
    return np.clip(_boxes(boxes_xyxy), 0, np.array([width, height, width, height], dtype=np.float64))


def xyxy_from_xywh(boxes_xywh: ArrayLike) -> FloatArray:
    """Turn (x1, y1, width, height), the form of COCO files, into (x1, y1, x2, y2)."""
    boxes = _boxes(boxes_xywh)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_from_cxcywh(boxes_cxcywh: ArrayLike) -> FloatArray:
    """Turn (centre x, centre y, width, height) into (x1, y1, x2, y2)."""
    boxes = _boxes(boxes_cxcywh)
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def _boxes(boxes: ArrayLike) -> FloatArray:
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != 4:
        raise ValueError(f"expected boxes with four numbers on the last axis, got shape {array.shape}")
    return array
