"""MCN Table 1: what each way of suppression does to the same masks, in one pass over the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.config import SUPPRESSIONS
from deixis.evaluate.metrics import MASK_THRESHOLDS, Tally, score_sample
from deixis.geometry.images import Letterbox
from deixis.models.suppression import MASK_THRESHOLD, finish_mask
from deixis.structures import BoxXyxy

PAPER_NAMES = {"none": "w.o. post-processing", "crop": "RoI Crop", "soft": "Soft-NLS", "adaptive": "ASNLS"}
"""The rows of Table 1."""
_HEAD = ("IoU (mean)", *(f"Acc@{t:g}" for t in MASK_THRESHOLDS), "IE↓", "IE: only box right", "IE: only mask right")


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """A model's answer before any post-processing, with what would have been right."""

    probability: NDArray[np.float32]
    """[s, s] of the mask over the whole canvas."""
    frame: Letterbox
    """How the original image lies in the canvas."""
    box_xyxy_canvas_px: BoxXyxy
    confidence: float
    """p in 0..1 of the box."""
    target_box_xyxy_px: BoxXyxy
    """In pixels of the original image."""
    target_mask: NDArray[np.bool_]
    """[H, W] of the original image."""


def compare_suppressions(
    answers: Iterable[RawAnswer],
    *,
    methods: Sequence[str] = SUPPRESSIONS,
    order: str = "original",
    threshold: float = MASK_THRESHOLD,
) -> dict[str, Tally]:
    """Finish every answer's mask by every method and tally each method's scores.

    The box is the same in all of them, so only the mask's figures and the inconsistency error differ; the row ``none``
    tells both before suppression.

    Args:
        answers: taken one by one and not kept.
        methods: out of `deixis.config.SUPPRESSIONS`.
        order: of resizing and suppressing, see `deixis.models.suppression.finish_mask`.
        threshold: of the suppressed probability.

    Returns:
        Method -> tally over all answers, in the order of `methods`.

    Raises:
        ValueError: a method, the order or an answer cannot be; see `finish_mask`.
    """
    tallies = {method: Tally() for method in methods}
    for answer in answers:
        frame, box = answer.frame, answer.box_xyxy_canvas_px
        for method in tallies:
            score = score_sample(
                target_box=answer.target_box_xyxy_px,
                target_mask=answer.target_mask,
                box=frame.box_to_image(box),
                mask=finish_mask(answer.probability, frame, box, answer.confidence, method, order, threshold),
            )
            tallies[method] += Tally.of(score)
    return tallies


def suppression_table(tallies: Mapping[str, Tally]) -> str:
    """Write the tallies as a Markdown table with the columns of MCN Table 1, in percent.

    The paper's "IoU" is the mean of the samples' IoU. Behind the inconsistency error stand its two parts, and last the
    overall IoU, which other papers call by the same name. A figure without samples is "-".
    """
    titles = ("", *_HEAD, "IoU (overall)")
    lines = [_line(titles), _line(["---", *["---:"] * (len(titles) - 1)])]
    lines += [_line([PAPER_NAMES.get(method, method), *_figures(tally.report())]) for method, tally in tallies.items()]
    return "\n".join(lines) + "\n"


def _figures(report: dict[str, Any]) -> list[str]:
    res = report["res"] or {}
    shares = [res.get("miou"), *(res.get(f"acc@{t:g}") for t in MASK_THRESHOLDS)]
    errors = [report[key] for key in ("ie", "ie_box_only", "ie_mask_only")]
    return [_percent(value) for value in (*shares, *errors, res.get("oiou"))]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
