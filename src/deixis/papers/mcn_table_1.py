"""MCN Table 1: one trained model, every way of post-processing its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deixis.evaluate.metrics import Tally
from deixis.evaluate.predict import Problem, readable
from deixis.evaluate.suppressions import PAPER_NAMES, RawAnswer, compare_suppressions, suppression_table
from deixis.evaluate.targets import clip_to_image
from deixis.geometry.images import Letterbox
from deixis.geometry.masks import read_mask
from deixis.grounder import EncodedImage, Grounder, ImageByImage, runs_of_one_image
from deixis.models.base import Answer
from deixis.structures import Sample

MCN_TABLE_1 = {  # IoU, Acc@0.5, 0.6, 0.7, 0.8, 0.9, IE: RefCOCO val, DarkNet-53
    "none": (61.61, 73.95, 67.42, 56.39, 32.02, 4.72, 10.37),
    "crop": (61.19, 75.13, 68.88, 57.61, 32.42, 3.81, 7.91),
    "soft": (62.27, 75.92, 69.48, 58.21, 33.20, 5.11, 7.28),
    "adaptive": (62.44, 76.60, 70.33, 58.39, 33.68, 5.26, 6.65),
}
"""As printed."""


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

    Samples without a box or a mask, which the table cannot count, are left out. So is, and told in ``problems``, what
    `deixis.evaluate.evaluate.evaluate` tells there: images, masks, boxes and phrases that cannot be used.

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
    rows = [["", "IoU", "Acc@0.5", "Acc@0.6", "Acc@0.7", "Acc@0.8", "Acc@0.9", "IE↓"], ["---", *["---:"] * 7]]
    rows += [[PAPER_NAMES[name], *(f"{value:.2f}" for value in row)] for name, row in MCN_TABLE_1.items()]
    printed = "\n".join(f"| {' | '.join(row)} |" for row in rows)
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
