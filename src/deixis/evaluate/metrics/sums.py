"""Scores of single samples, the sums over them, and every metric as one ratio of such sums.

Sums are exact: whole numbers, and fractions for the sums of IoU. So tallies of parts, in any order and from any number
of processes, add up to the very tally of the whole, and equal tallies report equal numbers to the last digit.

Figures of generalised referring, only where phrases that mean nothing are in the data:

- ``n_acc`` and ``t_acc``: the share of phrases without a target where the model says so, and of phrases with one where
  it does not.
- ``giou``: the mean of the samples' mask IoU, where a phrase without a target counts 1 if the model says so, else 0.
  This "generalised IoU" of masks has nothing to do with the GIoU of boxes.
- ``ciou``: all intersections over all unions, where a mask shown for a phrase without a target adds to the unions.

In the last two a model that says "nothing there" shows no mask, whatever mask it gives beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.boxes import box_iou
from deixis.structures import BoxXyxy

BOX_THRESHOLDS = (0.25, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
MASK_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
RIGHT = 0.5
"""The IoU above which a box or a mask counts as right in the inconsistency error."""

Exact = int | Fraction
Ratio = tuple[tuple[str, ...], str]

RATIOS: dict[str, Ratio] = {
    **{f"rec.acc@{t:g}": ((f"box>{t:g}",), "boxes") for t in BOX_THRESHOLDS},
    "rec.mean_iou": (("box_iou",), "boxes"),
    "res.miou": (("mask_iou",), "masks"),
    "res.oiou": (("intersection_px",), "union_px"),
    **{f"res.acc@{t:g}": ((f"mask>{t:g}",), "masks") for t in MASK_THRESHOLDS},
    "ie": (("box_only", "mask_only"), "both"),
    "ie_box_only": (("box_only",), "both"),
    "ie_mask_only": (("mask_only",), "both"),
    "no_target_accuracy": (("no_target_right",), "no_targets"),
    "generalised.n_acc": (("no_target_right",), "no_targets"),
    "generalised.t_acc": (("targets_found",), "targets"),
    "generalised.giou": (("general_iou",), "general"),
    "generalised.ciou": (("general_intersection_px",), "general_union_px"),
}
"""Metric -> the sums that are added up, and the sum or count that they are divided by."""
IOU_SUMS = ("box_iou", "mask_iou", "general_iou")
"""The sums whose terms are no whole numbers."""
SUMS = ("n", *dict.fromkeys(name for parts, whole in RATIOS.values() for name in (*parts, whole)))
"""All sums that a tally may hold."""
_OF_AREAS = {"res.oiou": "masks", "generalised.ciou": "general"}
"""Ratios of areas are 1 where all areas are empty, if there were masks at all: this is counted here."""


@dataclass(frozen=True, kw_only=True)
class SampleScore:
    """What one prediction got; None for what the sample or the model lacks."""

    box_iou: float | None = None
    mask_intersection_px: int | None = None
    mask_union_px: int | None = None
    no_target_right: bool | None = None
    """Only where the phrase means nothing in the image: whether the model said so."""
    found: bool | None = None
    """Only where the phrase means something: whether the model says that it is there."""
    target_px: int | None = None
    """The area of the target's mask, for the figures of generalised referring."""
    shown_px: int | None = None
    """Only where the phrase means nothing: the area of the mask that the model gives."""

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
        found: whether the model says that the thing is there. Where it is, box and mask are compared all the same.

    Raises:
        ValueError: the two masks differ in shape.
    """
    shown = None if mask is None else int(np.count_nonzero(mask))
    if target_box is None:
        return SampleScore(no_target_right=not found, shown_px=shown)
    iou = None if box is None else float(box_iou(box, target_box))
    if mask is None or target_mask is None or shown is None:
        return SampleScore(box_iou=iou, found=found)
    if mask.shape != target_mask.shape:
        raise ValueError(f"expected a mask of the target's shape {target_mask.shape!r}, got {mask.shape!r}")
    shared, target = int(np.count_nonzero(mask & target_mask)), int(np.count_nonzero(target_mask))
    return SampleScore(
        box_iou=iou,
        mask_intersection_px=shared,
        mask_union_px=shown + target - shared,
        found=found,
        target_px=target,
    )


def terms_of(score: SampleScore) -> dict[str, float]:
    """What one sample adds to each of `SUMS`; sums to which it adds nothing may be left out."""
    box, mask, nothing = score.box_iou, score.mask_iou, score.no_target_right
    terms: dict[str, float] = {"n": 1}
    if box is not None:
        terms |= {"boxes": 1, "box_iou": box} | {f"box>{t:g}": 1 for t in BOX_THRESHOLDS if box > t}
    if mask is not None:
        terms |= {"masks": 1, "mask_iou": mask} | {f"mask>{t:g}": 1 for t in MASK_THRESHOLDS if mask > t}
        terms |= {"intersection_px": score.mask_intersection_px or 0, "union_px": score.mask_union_px or 0}
    if box is not None and mask is not None:
        terms |= {"both": 1, "box_only": int(box > RIGHT >= mask), "mask_only": int(mask > RIGHT >= box)}
    if nothing is not None:
        terms |= {"no_targets": 1, "no_target_right": int(nothing)}
    elif score.found is not None:
        terms |= {"targets": 1, "targets_found": int(score.found)}
    return terms | _general_terms(score)


def _general_terms(score: SampleScore) -> dict[str, float]:
    """The terms of ``giou`` and ``ciou``, where "nothing there" hides the mask."""
    if score.no_target_right is not None:
        if score.shown_px is None:
            return {}
        hidden = score.no_target_right
        return {"general": 1, "general_iou": int(hidden), "general_union_px": 0 if hidden else score.shown_px}
    if score.mask_iou is None:
        return {}
    if score.found is False:
        return {"general": 1, "general_union_px": score.target_px or 0}
    return {
        "general": 1,
        "general_iou": score.mask_iou,
        "general_intersection_px": score.mask_intersection_px or 0,
        "general_union_px": score.mask_union_px or 0,
    }


@dataclass(frozen=True)
class Tally:
    """Exact sums over samples, by the names in `SUMS`; those left out are 0."""

    sums: Mapping[str, Exact] = field(default_factory=dict)

    @classmethod
    def of(cls, score: SampleScore, weight: float = 1) -> Tally:
        """Return the tally of one sample; ``weight`` below 1 makes it a share of one (an expectation)."""
        share = weight if isinstance(weight, int) else Fraction(weight)
        return cls({name: share * _exact(term) for name, term in terms_of(score).items()})

    def __add__(self, other: Tally) -> Tally:
        """Return the tally of both sets of samples together."""
        both = dict(self.sums)
        for name, value in other.sums.items():
            both[name] = both.get(name, 0) + value
        return Tally(both)

    @property
    def n(self) -> Exact:
        """How many samples."""
        return self.sums.get("n", 0)

    @property
    def num_no_target(self) -> Exact:
        """How many of them mean nothing in the image."""
        return self.sums.get("no_targets", 0)

    def value(self, metric: str) -> float | None:
        """One of `RATIOS`, None where nothing was counted for it."""
        parts, whole = RATIOS[metric]
        divisor = self.sums.get(whole, 0)
        if not divisor:
            return 1.0 if self.sums.get(_OF_AREAS.get(metric, ""), 0) else None
        return float(sum(self.sums.get(name, 0) for name in parts) / divisor)

    def report(self) -> dict[str, Any]:
        """Return the metrics as plain values for JSON; see the package for what each means.

        Returns:
            ``{"n", "rec": {"acc@0.25", "acc@0.5" ... "acc@0.95", "mean_iou"}, "res": {"miou", "oiou", "acc@0.5" ...
            "acc@0.9"}, "ie", "ie_box_only", "ie_mask_only", "n_no_target", "no_target_accuracy", "generalised":
            {"n_acc", "t_acc", "giou", "ciou"}}``; absent parts are None.
        """
        alone = ("ie", "ie_box_only", "ie_mask_only")
        return {
            "n": round(self.n),
            "rec": self._part("rec", "boxes"),
            "res": self._part("res", "masks"),
            **{metric: self.value(metric) for metric in alone},
            "n_no_target": round(self.num_no_target),
            "no_target_accuracy": self.value("no_target_accuracy"),
            "generalised": self._part("generalised", "no_targets"),
        }

    def _part(self, part: str, counted: str) -> dict[str, float | None] | None:
        """The metrics named ``part.*``; None where nothing was counted for them."""
        if not self.sums.get(counted, 0):
            return None
        return {
            metric.removeprefix(f"{part}."): self.value(metric) for metric in RATIOS if metric.startswith(f"{part}.")
        }


def exact_sum(values: Iterable[float]) -> Exact:
    """The sum of finite floats without any rounding, the same in every order."""
    pairs = [value.as_integer_ratio() for value in values]
    divisor = max((below for _, below in pairs), default=1)  # all are powers of two
    return Fraction(sum(above * (divisor // below) for above, below in pairs), divisor)


def _exact(term: float) -> Exact:
    return term if isinstance(term, int) else Fraction(term)
