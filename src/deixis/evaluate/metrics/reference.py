"""Reference evaluators: how the papers' own code deviates from the definitions, reproduced on purpose.

Published tables come from evaluators that differ. Each of these repeats one of them on the same answers, so that the
effect of its ways stands beside the exact figure. None of them is what a table should report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deixis.evaluate.metrics.sums import MASK_THRESHOLDS, RIGHT
from deixis.geometry.boxes import FloatArray, box_area, box_iou
from deixis.geometry.images import Letterbox
from deixis.structures import BoxXyxy

_MCN_SIDE = 416
_LAVT_SIDE = 480
_SEQTR_BATCH = 128
_TRANSVG_PROCESSES = 8


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A target and an answer; None for what the data or the model lacks."""

    hw: tuple[int, int] | None
    """(height, width) of the image; None where it is unknown; some evaluators need it."""
    target_box: BoxXyxy | None = None
    box: BoxXyxy | None = None
    target_mask: NDArray[np.bool_] | None = None
    mask: NDArray[np.bool_] | None = None
    num_polygons: int = 0
    """Of how many polygons the target's mask was made; 0 where it was not made of polygons."""


@dataclass(frozen=True, kw_only=True)
class ReferenceEvaluator:
    """One evaluator's ways."""

    source: str
    differs: tuple[str, ...]
    """What it does otherwise, a sentence each."""
    overlap_of_boxes: Callable[[BoxXyxy, BoxXyxy, tuple[int, int]], float]
    """(box, target, hw) -> what it takes for their IoU."""
    overlap_of_masks: Callable[[Pair], float]
    at_least: bool
    """Whether an IoU of exactly the threshold is right."""
    needs_size: bool = False
    """Whether it cannot do without the size of the image."""
    batch: int | None = None
    """Samples a batch, where accuracies are means over batches of means over samples."""
    processes: int | None = None
    """Between how many processes the data is shared out, where it is filled up with copies to do so evenly."""

    def overlaps(self, pair: Pair) -> tuple[float | None, float | None]:
        """What it takes for the IoU of the boxes and of the masks; None for what is lacking.

        Raises:
            ValueError: it needs the size of the image, and that is not known.
        """
        if self.needs_size and pair.hw is None:
            raise ValueError(f"expected the size of the image, which {self.source} needs, got none; give it")
        box = mask = None
        if pair.box is not None and pair.target_box is not None:
            box = self.overlap_of_boxes(pair.box, pair.target_box, pair.hw or (0, 0))
        if pair.mask is not None and pair.target_mask is not None:
            mask = self.overlap_of_masks(pair)
        return box, mask

    def figures(self, overlaps: Sequence[tuple[float | None, float | None]]) -> dict[str, float]:
        """Its figures by their names in `deixis.evaluate.metrics.sums.RATIOS`.

        Args:
            overlaps: of :meth:`overlaps`, in the order of the data set, which batches and copies depend on.
        """
        if self.processes is not None and overlaps:
            missing = -len(overlaps) % self.processes
            overlaps = [*overlaps, *(overlaps[i % len(overlaps)] for i in range(missing))]
        boxes = np.array([box for box, _ in overlaps if box is not None])
        masks = np.array([mask for _, mask in overlaps if mask is not None])
        found: dict[str, float] = {}
        if len(boxes):
            found |= {"rec.acc@0.5": self._accuracy(boxes, RIGHT), "rec.mean_iou": float(boxes.mean())}
        if len(masks):
            found["res.miou"] = float(masks.mean())
            found |= {f"res.acc@{t:g}": self._accuracy(masks, t) for t in MASK_THRESHOLDS}
        both = np.array([pair for pair in overlaps if None not in pair], dtype=np.float64)
        if len(both):
            right = self._right(both, RIGHT)
            found["ie"] = float((right[:, 0] != right[:, 1]).mean())
        return found

    def _right(self, values: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
        return values >= threshold if self.at_least else values > threshold

    def _accuracy(self, values: NDArray[np.float64], threshold: float) -> float:
        right, batch = self._right(values, threshold), self.batch or len(values)
        return float(np.mean([right[start : start + batch].mean() for start in range(0, len(right), batch)]))


def generalised_iou(a_xyxy: BoxXyxy, b_xyxy: BoxXyxy) -> float:
    """GIoU of two boxes: IoU less the share of their common hull that neither covers; -1 at the least."""
    a, b = np.array(a_xyxy), np.array(b_xyxy)
    hull = float(box_area([*np.minimum(a[:2], b[:2]), *np.maximum(a[2:], b[2:])]))
    iou, areas = float(box_iou(a, b)), float(box_area(a) + box_area(b))
    union = areas / (1 + iou)
    return iou - (hull - union) / hull if hull else iou


def _plain_boxes(box: BoxXyxy, target: BoxXyxy, hw: tuple[int, int]) -> float:
    return float(box_iou(box, target))


def _mcn_boxes(box: BoxXyxy, target: BoxXyxy, hw: tuple[int, int]) -> float:
    """Whole pixels of the 416-pixel canvas: the answer rounded, the target cut."""
    frame = Letterbox.fit(hw, _MCN_SIDE)
    ours = np.clip(np.floor(np.array(frame.box_to_canvas(box)) + 0.5), 0, _MCN_SIDE)
    theirs = np.trunc(np.array(frame.box_to_canvas(target)))
    shared, union = _shared_and_union(ours, theirs)
    return (shared + 1e-7) / (union + 1e-7)


def _transvg_boxes(box: BoxXyxy, target: BoxXyxy, hw: tuple[int, int]) -> float:
    """The answer is cut to the padded square, not to the image."""
    side, (height, width) = max(hw), hw
    left, top = (width - side) / 2, (height - side) / 2
    low, high = np.array([left, top] * 2), np.array([left + side, top + side] * 2)
    return float(box_iou(np.clip(np.array(box), low, high), target))


def _seqtr_boxes(box: BoxXyxy, target: BoxXyxy, hw: tuple[int, int]) -> float:
    """The target is cut one pixel short of the image's far edges."""
    height, width = hw
    return float(box_iou(box, np.clip(np.array(target), 0, np.array([width - 1, height - 1] * 2))))


def _mdetr_boxes(box: BoxXyxy, target: BoxXyxy, hw: tuple[int, int]) -> float:
    return generalised_iou(box, target)


def _resc_boxes(box: BoxXyxy, target: BoxXyxy, hw: tuple[int, int]) -> float:
    """Edges count as pixels: a box from 10 to 20 is 11 wide."""
    one = np.array([0.0, 0.0, 1.0, 1.0])
    return float(box_iou(np.array(box) + one, np.array(target) + one))


def _plain_masks(pair: Pair) -> float:
    shared, union, _ = _pixels(pair)
    return shared / union if union else 1.0


def _mcn_masks(pair: Pair) -> float:
    shared, union, _ = _pixels(pair)
    return (shared + 1e-10) / (union + 1e-10)


def _seqtr_masks(pair: Pair) -> float:
    """A target of several polygons counts as a crowd, and what is shared is divided by the answer's area alone."""
    shared, union, area = _pixels(pair)
    whole = area if pair.num_polygons > 1 else union
    return shared / whole if whole else 0.0


def _lavt_masks(pair: Pair) -> float:
    """Both masks are brought to 480 x 480 pixels first."""
    assert pair.mask is not None
    assert pair.target_mask is not None
    small = Pair(hw=(_LAVT_SIDE, _LAVT_SIDE), mask=_nearest(pair.mask), target_mask=_nearest(pair.target_mask))
    return _plain_masks(small)


def _nearest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = (((np.arange(_LAVT_SIDE) + 0.5) * side / _LAVT_SIDE).astype(np.int64) for side in mask.shape)
    return mask[rows[:, None], columns[None]]


def _pixels(pair: Pair) -> tuple[int, int, int]:
    """Intersection, union and the answer's own area."""
    assert pair.mask is not None
    assert pair.target_mask is not None
    shared = int(np.count_nonzero(pair.mask & pair.target_mask))
    return shared, int(np.count_nonzero(pair.mask | pair.target_mask)), int(np.count_nonzero(pair.mask))


def _shared_and_union(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    extent = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = float(extent[0] * extent[1])
    return shared, float(box_area(a) + box_area(b)) - shared


REFERENCE_EVALUATORS = {
    "mcn": ReferenceEvaluator(
        source="MCN (CVPR 2020), luogen1996/MCN",
        differs=(
            "boxes are compared in whole pixels of the 416-pixel canvas, the answer rounded and the target cut",
            "'IoU' of masks is the mean of the samples' IoU, which other tables call mIoU, never oIoU",
        ),
        overlap_of_boxes=_mcn_boxes,
        needs_size=True,
        overlap_of_masks=_mcn_masks,
        at_least=False,
    ),
    "transvg": ReferenceEvaluator(
        source="TransVG (ICCV 2021), djiajunustc/TransVG",
        differs=(
            f"the data is filled up with copies to a multiple of {_TRANSVG_PROCESSES} processes, and copies count",
            "boxes are cut to the padded square and not to the image",
            "an IoU of exactly the threshold is right",
        ),
        overlap_of_boxes=_transvg_boxes,
        needs_size=True,
        overlap_of_masks=_plain_masks,
        at_least=True,
        processes=_TRANSVG_PROCESSES,
    ),
    "seqtr": ReferenceEvaluator(
        source="SeqTR (ECCV 2022), seanzhuh/SeqTR",
        differs=(
            "a mask whose target has several polygons is compared as with a crowd: shared area over the answer's area",
            f"accuracies are means over batches of {_SEQTR_BATCH}, so samples of a short last batch count more",
            "the target's box is cut one pixel short of the image's far edges",
            "an IoU of exactly the threshold is right",
        ),
        overlap_of_boxes=_seqtr_boxes,
        needs_size=True,
        overlap_of_masks=_seqtr_masks,
        at_least=True,
        batch=_SEQTR_BATCH,
    ),
    "mdetr": ReferenceEvaluator(
        source="MDETR (ICCV 2021), ashkamath/mdetr",
        differs=(
            "a box is right where its GIoU, which is never above its IoU, is at least 0.5",
            "'mean IoU' below is the mean GIoU",
        ),
        overlap_of_boxes=_mdetr_boxes,
        overlap_of_masks=_plain_masks,
        at_least=True,
    ),
    "resc": ReferenceEvaluator(
        source="ReSC (ECCV 2020) and the refer API",
        differs=("edges count as pixels: every box is one pixel wider and higher",),
        overlap_of_boxes=_resc_boxes,
        overlap_of_masks=_plain_masks,
        at_least=False,
    ),
    "lavt": ReferenceEvaluator(
        source="LAVT (CVPR 2022)",
        differs=("masks are compared after both were resized to 480 x 480 pixels",),
        overlap_of_boxes=_plain_boxes,
        overlap_of_masks=_lavt_masks,
        at_least=False,
    ),
}
"""The evaluators by name."""
