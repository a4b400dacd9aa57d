"""Metrics of referring expressions: per-sample scores, and a tally that holds only sums and counts.

What the figures mean, all of them fractions in 0..1 over (image, phrase) pairs at the original resolution:

- Accuracy: the share of samples whose IoU is *strictly* greater than the threshold, as both papers write it
  (MCN section 4.2, SMCIM section IV-A). Boxes are compared with continuous edges, not with "+ 1 pixel".
- ``mean_iou`` (boxes) and ``miou`` (masks): the mean of the samples' IoU. ``oiou``: the sum of all intersections
  over the sum of all unions, which weighs large things more. Tables that say only "IoU" mean one or the other.
- ``ie``, inconsistency error (MCN section 4.2): the share of samples where exactly one of box and mask is right,
  right being IoU > 0.5; split into ``ie_box_only`` and ``ie_mask_only``.
- A sample whose phrase means nothing in the image enters only ``no_target_accuracy``: the share of them where the
  model says so.

Two masks that are both empty have IoU 1, and a union summed over empty masks only gives an ``oiou`` of 1. A part that
the data or the model lacks is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.boxes import box_iou
from deixis.structures import BoxXyxy

BOX_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
MASK_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
RIGHT = 0.5
"""The IoU above which a box or a mask counts as right in the inconsistency error."""


@dataclass(frozen=True, kw_only=True)
class SampleScore:
    """What one prediction got; None for what the sample or the model lacks."""

    box_iou: float | None = None
    mask_intersection_px: int | None = None
    mask_union_px: int | None = None
    no_target_right: bool | None = None
    """Only where the phrase means nothing in the image: whether the model said so."""

    @property
    def mask_iou(self) -> float | None:
        """Intersection over union of the masks; 1 where both are empty."""
        if self.mask_intersection_px is None or self.mask_union_px is None:
            return None
        return self.mask_intersection_px / self.mask_union_px if self.mask_union_px else 1.0


def score_sample(
    *,
    target_box: BoxXyxy | None,
    target_mask: NDArray[np.bool_] | None = None,
    box: BoxXyxy | None = None,
    mask: NDArray[np.bool_] | None = None,
    found: bool = True,
) -> SampleScore:
    """Compare one prediction with its target.

    Args:
        target_box: (x1, y1, x2, y2) in pixels, or None where the phrase means nothing in the image.
        target_mask: bool [H, W], or None where the data has no mask.
        box: the model's box in the same pixels, or None where the model gives no boxes.
        mask: the model's mask, bool [H, W], or None where the model gives no masks.
        found: whether the model says that the thing is there; looked at only where nothing is.

    Raises:
        ValueError: the two masks differ in shape.
    """
    if target_box is None:
        return SampleScore(no_target_right=not found)
    iou = None if box is None else float(box_iou(box, target_box))
    if mask is None or target_mask is None:
        return SampleScore(box_iou=iou)
    if mask.shape != target_mask.shape:
        raise ValueError(f"expected a mask of the target's shape {target_mask.shape!r}, got {mask.shape!r}")
    shared = int(np.count_nonzero(mask & target_mask))
    union = int(np.count_nonzero(mask)) + int(np.count_nonzero(target_mask)) - shared
    return SampleScore(box_iou=iou, mask_intersection_px=shared, mask_union_px=union)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums and counts over samples; tallies of parts add up to the tally of the whole."""

    n: float = 0
    num_boxes: float = 0
    box_iou_sum: float = 0
    boxes_above: tuple[float, ...] = (0,) * len(BOX_THRESHOLDS)
    num_masks: float = 0
    mask_iou_sum: float = 0
    masks_above: tuple[float, ...] = (0,) * len(MASK_THRESHOLDS)
    intersection_px: float = 0
    union_px: float = 0
    num_both: float = 0
    box_only: float = 0
    mask_only: float = 0
    num_no_target: float = 0
    no_target_right: float = 0

    @classmethod
    def of(cls, score: SampleScore, weight: float = 1) -> Tally:
        """Return the tally of one sample; ``weight`` below 1 makes it a share of one (an expectation)."""
        box, mask, nothing = score.box_iou, score.mask_iou, score.no_target_right
        parts: dict[str, Any] = {"n": weight}
        if box is not None:
            parts |= {"num_boxes": weight, "box_iou_sum": weight * box}
            parts["boxes_above"] = tuple(weight * (box > threshold) for threshold in BOX_THRESHOLDS)
        if mask is not None:
            parts |= {"num_masks": weight, "mask_iou_sum": weight * mask}
            parts["masks_above"] = tuple(weight * (mask > threshold) for threshold in MASK_THRESHOLDS)
            parts["intersection_px"] = weight * (score.mask_intersection_px or 0)
            parts["union_px"] = weight * (score.mask_union_px or 0)
        if box is not None and mask is not None:
            parts |= {"num_both": weight, "box_only": weight * (box > RIGHT >= mask)}
            parts["mask_only"] = weight * (mask > RIGHT >= box)
        if nothing is not None:
            parts |= {"num_no_target": weight, "no_target_right": weight * nothing}
        return cls(**parts)

    def __add__(self, other: Tally) -> Tally:
        """Return the tally of both sets of samples together."""
        sums = {}
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            sums[field.name] = tuple(x + y for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else a + b
        return Tally(**sums)

    def report(self) -> dict[str, Any]:
        """Return the metrics as plain values for JSON; see the module for what each means.

        Returns:
            ``{"n", "rec": {"acc@0.5" ... "acc@0.95", "mean_iou"}, "res": {"miou", "oiou", "acc@0.5" ... "acc@0.9"},
            "ie", "ie_box_only", "ie_mask_only", "n_no_target", "no_target_accuracy"}``; absent parts are None.
        """
        return {
            "n": round(self.n),
            "rec": self._rec(),
            "res": self._res(),
            "ie": _share(self.box_only + self.mask_only, self.num_both),
            "ie_box_only": _share(self.box_only, self.num_both),
            "ie_mask_only": _share(self.mask_only, self.num_both),
            "n_no_target": round(self.num_no_target),
            "no_target_accuracy": _share(self.no_target_right, self.num_no_target),
        }

    def _rec(self) -> dict[str, float | None] | None:
        if not self.num_boxes:
            return None
        shares = {
            f"acc@{threshold:g}": _share(above, self.num_boxes)
            for threshold, above in zip(BOX_THRESHOLDS, self.boxes_above, strict=True)
        }
        return {**shares, "mean_iou": _share(self.box_iou_sum, self.num_boxes)}

    def _res(self) -> dict[str, float | None] | None:
        if not self.num_masks:
            return None
        shares = {
            f"acc@{threshold:g}": _share(above, self.num_masks)
            for threshold, above in zip(MASK_THRESHOLDS, self.masks_above, strict=True)
        }
        oiou = self.intersection_px / self.union_px if self.union_px else 1.0
        return {"miou": _share(self.mask_iou_sum, self.num_masks), "oiou": oiou, **shares}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
