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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.boxes import box_iou
from deixis.geometry.masks import BoolMask, area_of_runs, checked_size, overlap_of_runs, read_mask, run_lengths
from deixis.structures import BoxXyxy, Mask

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


class MaskPixels:
    """A mask to compare with another: as runs where it came as run lengths, else as pixels."""

    def __init__(self, mask: BoolMask | Mask | Mapping[str, object], hw: tuple[int, int] | None = None) -> None:
        """Take a mask in any form.

        Args:
            mask: pixels [H, W], run lengths, polygons or an image file.
            hw: (height, width) that it must have; None where it is unknown.

        Raises:
            FileNotFoundError: the image file is not there.
            ValueError: the mask is malformed, has another size, or is drawn of polygons and ``hw`` is not known.
        """
        self._runs = self._pixels = None
        if isinstance(mask, np.ndarray):
            self._pixels, self.hw = mask, (int(mask.shape[0]), int(mask.shape[1]))
        elif isinstance(mask, Mapping):
            size = mask.get("size")
            if hw is not None and isinstance(size, list) and size != list(hw):
                raise ValueError(
                    f"expected a mask of the image's size (H, W) {tuple(hw)!r}, got {size!r}; bring it to that size"
                )
            self._runs, self.hw = run_lengths(mask), checked_size(mask)
        elif hw is None:
            raise ValueError("expected the image, to know its size for a mask of polygons, got none; put it there")
        else:
            self._pixels, self.hw = read_mask(mask, hw), hw

    def pixels(self) -> BoolMask:
        """Bool [H, W]."""
        if self._pixels is None:
            assert self._runs is not None
            values = np.arange(self._runs.size) % 2 == 1
            self._pixels = np.repeat(values, self._runs).reshape(self.hw[1], self.hw[0]).T
        return self._pixels

    def area(self) -> int:
        """How many pixels are set."""
        return int(np.count_nonzero(self.pixels())) if self._runs is None else area_of_runs(self._runs)

    def overlap(self, other: MaskPixels) -> int:
        """How many pixels are set in both."""
        if self._runs is not None and other._runs is not None:
            return overlap_of_runs(self._runs, other._runs)
        return int(np.count_nonzero(self.pixels() & other.pixels()))


def score_sample(
    *,
    target_box: BoxXyxy | None,
    target_mask: BoolMask | MaskPixels | None = None,
    box: BoxXyxy | None = None,
    mask: BoolMask | MaskPixels | None = None,
    found: bool = True,
) -> SampleScore:
    """Compare one prediction with its target.

    Args:
        target_box: (x1, y1, x2, y2) in pixels, or None where the phrase means nothing in the image.
        target_mask: bool [H, W], or None where the data has no mask.
        box: the model's box in the same pixels, or None where the model gives no boxes.
        mask: the model's mask, bool [H, W], or None where the model gives no masks.
        found: whether the model says that the phrase means something in the image. Where it does, box and mask are
            compared even if the model denies it.

    Raises:
        ValueError: the two masks differ in shape.
    """
    given, wanted = _compared(mask), _compared(target_mask)
    shown = None if given is None else given.area()
    if target_box is None:
        return SampleScore(no_target_right=not found, shown_px=shown)
    iou = None if box is None else float(box_iou(box, target_box))
    if given is None or wanted is None or shown is None:
        return SampleScore(box_iou=iou, found=found)
    if given.hw != wanted.hw:
        raise ValueError(f"expected a mask of the target's shape {wanted.hw!r}, got {given.hw!r}")
    shared, target = wanted.overlap(given), wanted.area()
    return SampleScore(
        box_iou=iou,
        mask_intersection_px=shared,
        mask_union_px=shown + target - shared,
        found=found,
        target_px=target,
    )


def _compared(mask: BoolMask | MaskPixels | None) -> MaskPixels | None:
    return mask if mask is None or isinstance(mask, MaskPixels) else MaskPixels(mask)


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


_COLUMN = {name: place for place, name in enumerate(SUMS)}


class ScoreTable:
    """What each sample adds to each sum, and on which image it is.

    ``terms`` is float64 [N, len(SUMS)]; ``image`` [N] numbers the images in the order of their ids, so that neither
    depends on the order in which the samples came, up to a permutation of the rows.
    """

    def __init__(self, scores: Sequence[SampleScore], image_ids: Sequence[str]) -> None:
        if len(scores) != len(image_ids):
            raise ValueError(f"expected an image id a score, got {len(image_ids)} ids for {len(scores)}; give both")
        self.terms = np.zeros((len(scores), len(SUMS)))
        for row, score in enumerate(scores):
            for name, term in terms_of(score).items():
                self.terms[row, _COLUMN[name]] = term
        numbers = {name: number for number, name in enumerate(sorted(set(image_ids)))}
        self.image = np.array([numbers[name] for name in image_ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.terms)

    def column(self, name: str) -> NDArray[np.float64]:
        """What each sample adds to one of `SUMS`, [N]."""
        return self.terms[:, _COLUMN[name]]

    def tally(self, rows: NDArray[np.bool_] | None = None) -> Tally:
        """The tally of all samples, or of those where ``rows`` [N] is True."""
        terms = self.terms if rows is None else self.terms[rows]
        whole = terms.sum(axis=0)  # exact for whole numbers
        sums = {name: int(whole[place]) for name, place in _COLUMN.items() if name not in IOU_SUMS}
        return Tally({**sums, **{name: exact_sum(terms[:, _COLUMN[name]].tolist()) for name in IOU_SUMS}})
