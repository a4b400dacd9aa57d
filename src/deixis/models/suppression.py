"""Post-processing of masks by the box: adaptive soft non-located suppression (ASNLS)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deixis.structures import BoxXyxy

MASK_THRESHOLD = 0.35
"""A pixel belongs to the mask above this probability. MCN, section 4.3."""


def suppress_adaptive(probability: NDArray[np.float32], box_xyxy_px: BoxXyxy, confidence: float) -> NDArray[np.float32]:
    """Raise the mask inside the box and lower it outside, the more so the less sure the box. MCN Eq. 11.

    Inside, the factor is 2 - p, outside p, with p the box's confidence: p = 1 changes nothing.

    Args:
        probability: [H, W] of the mask, in the frame of the box.
        box_xyxy_px: the box; rows and columns that it touches count as inside.
        confidence: p in 0..1.

    Returns:
        [H, W]; values may exceed 1.
    """
    height, width = probability.shape
    x1, y1 = max(int(box_xyxy_px[0]), 0), max(int(box_xyxy_px[1]), 0)
    x2, y2 = min(int(np.ceil(box_xyxy_px[2])), width), min(int(np.ceil(box_xyxy_px[3])), height)
    out = probability * np.float32(confidence)
    out[y1:y2, x1:x2] = probability[y1:y2, x1:x2] * np.float32(2.0 - confidence)
    return out
