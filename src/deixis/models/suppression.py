"""Post-processing of masks by the box: one interface, four members. MCN section 3.3, Table 1.

Each member multiplies a mask's probabilities by one factor inside the box and by another outside:

| method     | paper                 | inside | outside |
|------------|-----------------------|--------|---------|
| `none`     | w.o. post-processing  | 1      | 1       |
| `crop`     | RoI crop              | 1      | 0       |
| `soft`     | Soft-NLS, Eq. 10      | 1.5    | 0.5     |
| `adaptive` | ASNLS, Eq. 11         | 2 - p  | p       |

p is the box's confidence. Products are not clipped and may exceed 1. A threshold t on the product is a threshold
t / factor on the probability itself: at t = 0.35 and p below 0.35 nothing outside can pass, so
that an unsure box turns `adaptive` into a hard crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.geometry.images import Letterbox
from deixis.models.config import SUPPRESSIONS

MASK_THRESHOLD = 0.35
"""A pixel belongs to the mask above this probability. MCN, section 4.3."""
ORDERS = ("original", "official")
"""In which frame `finish_mask` suppresses."""


def suppression_factors(method: str, confidence: float) -> tuple[float, float]:
    """The factors (inside, outside) of a method, with the paper's constants.

    Args:
        method: one of `deixis.config.SUPPRESSIONS`.
        confidence: p in 0..1; only ``adaptive`` depends on its value.

    Raises:
        ValueError: there is no such method, or the confidence is not in 0..1.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"expected a confidence in 0..1, got {confidence!r}; give a probability, not its logit")
    factors = {
        "none": (1.0, 1.0),
        "crop": (1.0, 0.0),
        "soft": (1.5, 0.5),  # MCN Eq. 10
        "adaptive": (2.0 - confidence, confidence),  # MCN Eq. 11
    }
    if method not in factors:
        raise ValueError(f"expected a suppression out of {SUPPRESSIONS}, got {method!r}")
    return factors[method]


def suppress(
    method: str, probability: NDArray[np.float32], box_xyxy_px: Sequence[float], confidence: float
) -> NDArray[np.float32]:
    """Raise the mask inside the box and lower it outside, as `method` says. MCN Eq. 10 and 11.

    Args:
        method: one of `deixis.config.SUPPRESSIONS`.
        probability: [H, W] of the mask, in the frame of the box; left as it is.
        box_xyxy_px: the box, continuous edges; rows and columns that it touches count as inside. A box that lies
            outside or has no area holds no pixel, so that all are outside of it.
        confidence: p in 0..1 of the box.

    Returns:
        [H, W]; values may exceed 1.

    Raises:
        ValueError: there is no such method, the confidence is not in 0..1, the map has not two axes, or an edge of
            the box is not a number.
    """
    if probability.ndim != 2:
        raise ValueError(f"expected a map [H, W], got shape {probability.shape!r}; give one mask at a time")
    inside, outside = suppression_factors(method, confidence)
    rows, columns = _touched(box_xyxy_px, probability.shape)
    out = probability * np.float32(outside)
    out[rows, columns] = probability[rows, columns] * np.float32(inside)
    return out


def finish_mask(
    probability: NDArray[np.float32],
    frame: Letterbox,
    box_xyxy_canvas_px: Sequence[float],
    confidence: float,
    method: str = "adaptive",
    order: str = "original",
    threshold: float = MASK_THRESHOLD,
) -> NDArray[np.bool_]:
    """From the mask branch's map over the canvas to a mask of the original image.

    The order ``original`` moves map and box to the original image and suppresses there: the mask's edges are as sharp
    as the box. The order ``official`` does what the authors' code does: resize the map to the canvas, round the box to
    whole pixels, suppress in the canvas with both end rows and columns inside, cut the padding off, resize to the
    original image. Cuts along the box are then as coarse as the canvas's pixels, and smoothed by the last resize. All
    resizing is bilinear (antialiased where it shrinks); a pixel is in the mask strictly above the threshold.

    Args:
        probability: [s, s] over the whole canvas, s of any size; probabilities, not logits.
        frame: how the original image lies in the canvas.
        box_xyxy_canvas_px: the box in pixels of the canvas.
        confidence: p in 0..1 of the box.
        method: one of `deixis.config.SUPPRESSIONS`.
        order: one of `ORDERS`.
        threshold: of the suppressed probability.

    Returns:
        bool [H, W] of the original image.

    Raises:
        ValueError: there is no such method or order, the map is not square, the confidence is not in 0..1, or an edge
            of the box is not a number.
    """
    if order == "original":
        whole = frame.map_to_image(probability)
        return suppress(method, whole, frame.box_to_image(box_xyxy_canvas_px), confidence) > threshold
    if order != "official":
        raise ValueError(f"expected an order out of {ORDERS}, got {order!r}")
    if probability.ndim != 2 or probability.shape[0] != probability.shape[1]:
        raise ValueError(f"expected a square map [s, s] over the canvas, got shape {probability.shape!r}")
    canvas = suppress(
        method, _resized(probability, (frame.size, frame.size)), _end_pixels_inside(box_xyxy_canvas_px), confidence
    )
    (left, top), (height, width) = frame.pad_xy, frame.content_hw
    return _resized(canvas[top : top + height, left : left + width], frame.hw) > threshold


def _touched(box_xyxy_px: Sequence[float], hw: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a map that a box with continuous edges touches."""
    x1, y1, x2, y2 = (float(edge) for edge in box_xyxy_px)
    if any(math.isnan(edge) for edge in (x1, y1, x2, y2)):
        raise ValueError(f"expected a box (x1, y1, x2, y2) of four numbers, got {tuple(box_xyxy_px)!r}; correct it")
    if x1 >= x2 or y1 >= y2:
        return slice(0, 0), slice(0, 0)
    height, width = hw
    rows = slice(math.floor(min(max(y1, 0), height)), math.ceil(min(max(y2, 0), height)))
    return rows, slice(math.floor(min(max(x1, 0), width)), math.ceil(min(max(x2, 0), width)))


def _end_pixels_inside(box_xyxy_px: Sequence[float]) -> tuple[float, float, float, float]:
    """The box whose touched pixels are rows y1..y2 and columns x1..x2, rounded, both ends included."""
    x1, y1, x2, y2 = (float(edge) for edge in np.floor(np.asarray(box_xyxy_px, dtype=np.float64) + 0.5))
    return x1, y1, x2 + 1, y2 + 1


def _resized(values: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    source = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(source.resize((hw[1], hw[0]), Image.Resampling.BILINEAR))
