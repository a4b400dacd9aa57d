"""MCN Table 1: one trained model, every way of post-processing its masks, in one pass over its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.config import SUPPRESSIONS
from deixis.evaluate.metrics import MASK_THRESHOLDS, Tally, score_sample
from deixis.evaluate.predict import Problem, readable
from deixis.evaluate.targets import clip_to_image
from deixis.geometry.images import Letterbox
from deixis.geometry.masks import read_mask
from deixis.grounder import EncodedImage, Grounder, ImageByImage, runs_of_one_image
from deixis.models.base import Answer
from deixis.models.suppression import MASK_THRESHOLD, finish_mask
from deixis.papers.printed import MCN_TABLE_1
from deixis.structures import BoxXyxy, Sample
from deixis.text_tables import cell, markdown_table

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
    holds both before suppression.

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
    rows = [[PAPER_NAMES.get(method, method), *_figures(tally.report())] for method, tally in tallies.items()]
    return markdown_table([["", *_HEAD, "IoU (overall)"], *rows]) + "\n"


def _figures(report: dict[str, Any]) -> list[str]:
    res = report["res"] or {}
    shares = [res.get("miou"), *(res.get(f"acc@{t:g}") for t in MASK_THRESHOLDS)]
    errors = [report[key] for key in ("ie", "ie_box_only", "ie_mask_only")]
    return [cell(None if value is None else 100 * value) for value in (*shares, *errors, res.get("oiou"))]


@dataclass(frozen=True, kw_only=True)
class MeasuredTable:
    """The rows of a table as measured."""

    tallies: dict[str, Tally]
    """Way of suppression -> its figures."""
    problems: tuple[str, ...] = ()
    """One sentence for each sample that could not be measured and was left out."""
    num_left_out: int = 0
    """With those that have not both box and mask."""


def mcn_table_1(
    grounder: Grounder,
    dataset: Sequence[Sample],
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> MeasuredTable:
    """MCN Table 1 of any model that gives boxes and masks: every way of suppression on the same answers.

    Samples without a box or a mask, which the table cannot count, are left out. So are images, masks, boxes and phrases
    that cannot be used; ``problems`` names them, as `deixis.evaluate.evaluate.evaluate` does.

    Args:
        grounder: the model.
        dataset: read one by one; consecutive samples of one ``image_id`` share one look.
        progress: wraps the samples' indices.

    Raises:
        ValueError: the model gives no boxes or no masks, or no sample with both could be measured.
    """
    problems: list[str] = [*getattr(dataset, "problems", ())]
    answers = raw_answers(grounder, dataset, problems, progress=progress)
    tallies = compare_suppressions(answers, order=grounder.model.suppression_order)
    if not tallies["none"].n:
        reason = f" ({problems[0]})" if problems else ""
        raise ValueError(f"expected samples with box and mask, got none{reason}; use data that has both")
    num_given = len(dataset) + len(getattr(dataset, "problems", ()))
    left_out = num_given - round(tallies["none"].n)
    return MeasuredTable(tallies=tallies, problems=tuple(problems), num_left_out=left_out)


def raw_answers(
    grounder: Grounder,
    dataset: Sequence[Sample],
    problems: list[str],
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> Iterator[RawAnswer]:
    """The model's answers before any post-processing; ``problems`` gets what could not be measured.

    Raises:
        ValueError: the model gives no boxes or no masks.
    """
    indices = range(len(dataset))
    asking = ImageByImage(grounder.look)
    unreadable: list[Problem] = []
    read = readable(dataset, progress(indices) if progress else indices, unreadable)
    both = (sample for _, sample in read if sample.box_xyxy_px is not None and sample.mask is not None)
    for run in runs_of_one_image(both, lambda sample: sample.image_id):
        answers = asking.answers(run[0].image, [sample.phrase for sample in run], _rows, key=run[0].image_id)
        for sample, row in zip(run, answers, strict=True):
            if not isinstance(row, Exception) and (row[1].boxes is None or row[1].mask_probability is None):
                raise ValueError(
                    f"expected a model of boxes and masks, got {grounder.name!r}; choose one that gives both"
                )
            try:
                raw = _raw_answer(sample, row)
            except (ValueError, OSError) as error:
                problems.append(f"sample {sample.id!r}: {error}")
                continue
            yield raw
    problems += [problem for _, problem in unreadable]


def format_mcn_table_1(table: MeasuredTable, where: str) -> str:
    """Ours, then the paper's as printed, both in Markdown and percent; then in which direction each row moved."""
    without = table.num_left_out - len(table.problems)
    reason = f", {without} of them as they have not both box and mask" if without else ""
    left_out = f", {table.num_left_out} left out{reason}" if table.num_left_out else ""
    head = f"Ours, {where}, n = {round(table.tallies['none'].n)}{left_out}:"
    heads = ["", "IoU", *(f"Acc@{t:g}" for t in MASK_THRESHOLDS), "IE↓"]
    printed = markdown_table([heads, *([PAPER_NAMES[name], *map(cell, row)] for name, row in MCN_TABLE_1.items())])
    ours = f"{head}\n\n{suppression_table(table.tallies)}"
    return f"{ours}\nThe paper's, RefCOCO val:\n\n{printed}\n\n{_directions(table.tallies)}"


def _rows(encoded: EncodedImage, phrases: Sequence[str]) -> list[tuple[Letterbox, Answer, int]]:
    """The answer to all phrases, once for each of them with its row."""
    answer = encoded.answer(phrases)
    return [(encoded.frame, answer, row) for row in range(len(phrases))]


def _raw_answer(sample: Sample, given: tuple[Letterbox, Answer, int] | ValueError | OSError) -> RawAnswer:
    """The answer in the form that is compared; raises it where it is an error."""
    if isinstance(given, Exception):
        raise given
    frame, answer, row = given
    target = clip_to_image(sample, frame.hw).box_xyxy_px
    assert target is not None
    assert sample.mask is not None
    assert answer.boxes is not None
    assert answer.mask_probability is not None
    x1, y1, x2, y2 = (answer.boxes[row].float() * frame.size).tolist()
    return RawAnswer(
        probability=answer.mask_probability[row].float().numpy(),
        frame=frame,
        box_xyxy_canvas_px=(x1, y1, x2, y2),
        confidence=float(answer.confidence[row]),
        target_box_xyxy_px=target,
        target_mask=read_mask(sample.mask, frame.hw),
    )


def _directions(tallies: dict[str, Tally]) -> str:
    """Whether each way moves IoU and IE as in the paper."""
    ours = {name: _iou_and_ie(tally) for name, tally in tallies.items()}
    paper = {name: (row[0], row[-1]) for name, row in MCN_TABLE_1.items()}
    lines = [
        f"{PAPER_NAMES[name]} against none: IoU {_sign(ours, name, 0)} (paper {_sign(paper, name, 0)}), "
        f"IE {_sign(ours, name, 1)} (paper {_sign(paper, name, 1)})"
        for name in tallies
        if name != "none"
    ]
    return "\n".join(lines)


def _iou_and_ie(tally: Tally) -> tuple[float, float]:
    report = tally.report()
    return 100 * (report["res"] or {}).get("miou", 0.0), 100 * (report["ie"] or 0.0)


def _sign(rows: Mapping[str, Sequence[float]], name: str, column: int) -> str:
    return f"{rows[name][column] - rows['none'][column]:+.2f}"
