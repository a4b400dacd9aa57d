"""Figures that need no look at the image, and that any model must beat.

- ``best_constant_box``: the one box, as fractions of the image, that gives the most Acc@0.5 *on this very set*, so no
  constant answer could do better; its mask is the filled box.
- ``largest_instance``: the annotated instance with the largest box.
- ``random_instance``: the exact expectation of picking an annotated instance at random, not one draw. Its ``oiou`` is
  the ratio of the expected sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.evaluate.metrics import SampleScore, Tally, score_sample
from deixis.geometry.boxes import box_area, box_iou, xyxy_from_cxcywh
from deixis.geometry.masks import read_mask
from deixis.structures import BoxXyxy, Instance, Mask, Sample

_MAX_CANDIDATES = 2000
_MAX_TARGETS = 4000  # for the search only; the figure is then taken over all
_TABLE_ENTRIES = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the baselines need of a sample: all but the image."""

    hw: tuple[int, int]
    image_id: str
    box_xyxy_px: BoxXyxy
    mask: Mask | None
    instances: tuple[Instance, ...]

    @classmethod
    def of(cls, sample: Sample, hw: tuple[int, int]) -> Case | None:
        """Take what counts from a sample on an image of ``hw``; None where its phrase means nothing."""
        if sample.box_xyxy_px is None:
            return None
        instances = tuple(instance for instance in sample.instances if not instance.is_crowd)
        return cls(
            hw=hw, image_id=sample.image_id, box_xyxy_px=sample.box_xyxy_px, mask=sample.mask, instances=instances
        )


def measure_baselines(cases: Sequence[Case]) -> dict[str, dict[str, Any] | None]:
    """Return the report of each baseline (the form of :meth:`Tally.report`), None where the data lacks what it needs.

    ``best_constant_box`` also holds its box as ``box_xyxy_norm``, fractions of the image's width and height.
    """
    if not cases:
        return {"best_constant_box": None, "largest_instance": None, "random_instance": None}
    constant = best_constant_box(np.array([_normalised(case) for case in cases]))
    box_tally, largest_tally, random_tally = Tally(), Tally(), Tally()
    for _, same_image in itertools.groupby(cases, key=lambda case: case.image_id):
        masks: dict[int, NDArray[np.bool_] | None] = {}
        for case in same_image:
            target = None if case.mask is None else read_mask(case.mask, case.hw)
            box_tally += Tally.of(_score_filled_box(case, target, constant))
            scores = [_score_instance(case, target, instance, masks) for instance in case.instances]
            for score in scores:
                random_tally += Tally.of(score, 1 / len(scores))
            if scores:
                areas = box_area([instance.box_xyxy_px for instance in case.instances])
                largest_tally += Tally.of(scores[int(areas.argmax())])
    box_report = {**box_tally.report(), "box_xyxy_norm": [round(v, 4) for v in constant]}
    return {
        "best_constant_box": box_report,
        "largest_instance": largest_tally.report() if largest_tally.n else None,
        "random_instance": random_tally.report() if random_tally.n else None,
    }


def best_constant_box(targets_xyxy_norm: NDArray[np.float64]) -> BoxXyxy:
    """Return the box that gives the most Acc@0.5 on ``targets`` [N, 4], both as fractions of the image.

    The candidates are the targets themselves and a grid of centres and sizes; the best is then shifted edge by edge
    for as long as that helps. Ties go to the higher mean IoU. Nothing is random.
    """
    targets = targets_xyxy_norm[:: max(1, len(targets_xyxy_norm) // _MAX_TARGETS)]
    own = targets[:: max(1, len(targets) // _MAX_CANDIDATES)]
    best, value = _best_of(np.concatenate([own, _grid()]), targets)
    for step in (0.08, 0.04, 0.02, 0.01):
        shifts = step * np.array(list(itertools.product((-1, 0, 1), repeat=4)), dtype=np.float64)
        for _ in range(20):  # as a rule two or three rounds a step
            near = np.clip(best + shifts, 0, 1)
            moved, moved_value = _best_of(near[box_area(near) > 0], targets)
            if moved_value <= value:
                break
            best, value = moved, moved_value
    x1, y1, x2, y2 = (float(v) for v in best)
    return x1, y1, x2, y2


def _best_of(candidates: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the best candidate with its value: hits, and below one hit the mean IoU."""
    rows = max(1, _TABLE_ENTRIES // len(targets))
    values = []
    for start in range(0, len(candidates), rows):
        table = box_iou(candidates[start : start + rows, None], targets[None])
        values.append((table > 0.5).sum(axis=1) + 0.999 * table.mean(axis=1))
    value = np.concatenate(values)
    return candidates[value.argmax()], float(value.max())


def _grid() -> NDArray[np.float64]:
    centres, sides = np.linspace(0.2, 0.8, 7), np.linspace(0.2, 1.0, 9)
    boxes = xyxy_from_cxcywh(list(itertools.product(centres, centres, sides, sides)))
    return np.clip(boxes, 0, 1)


def _normalised(case: Case) -> tuple[float, float, float, float]:
    height, width = case.hw
    x1, y1, x2, y2 = case.box_xyxy_px
    return x1 / width, y1 / height, x2 / width, y2 / height


def _score_filled_box(case: Case, target: NDArray[np.bool_] | None, box_norm: BoxXyxy) -> SampleScore:
    height, width = case.hw
    x1, y1, x2, y2 = (value * side for value, side in zip(box_norm, (width, height, width, height), strict=True))
    mask = None
    if target is not None:
        mask = np.zeros(case.hw, dtype=np.bool_)
        mask[round(y1) : round(y2), round(x1) : round(x2)] = True
    return score_sample(target_box=case.box_xyxy_px, target_mask=target, box=(x1, y1, x2, y2), mask=mask)


def _score_instance(
    case: Case, target: NDArray[np.bool_] | None, instance: Instance, masks: dict[int, NDArray[np.bool_] | None]
) -> SampleScore:
    """Score an instance as the answer; ``masks`` keeps the image's masks, since many phrases share them."""
    mask = None
    if target is not None:
        if id(instance) not in masks:
            masks[id(instance)] = _mask_of(instance, case.hw)
        mask = masks[id(instance)]
    return score_sample(target_box=case.box_xyxy_px, target_mask=target, box=instance.box_xyxy_px, mask=mask)


def _mask_of(instance: Instance, hw: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return the mask of a instance, None where it has none; a malformed one must not cost the whole evaluation."""
    if instance.mask is None:
        return None
    try:
        return read_mask(instance.mask, hw)
    except (ValueError, OSError):
        return None
