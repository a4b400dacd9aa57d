"""SMCIM Fig. 8: boxes of a model and of a baseline beside the truth, where the model is right and where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from deixis.drawing import Mark, draw_marks, draw_sheet
from deixis.evaluate.calibration import is_right
from deixis.evaluate.evaluate import evaluate
from deixis.evaluate.predictions import Prediction
from deixis.evaluate.result import Result
from deixis.geometry.images import read_image
from deixis.grounder import Grounder
from deixis.structures import Sample

CASES = 4
"""Of each kind, one an image, in the order of the data."""
_CELL_PX = 480
Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sample and the answers to it."""

    sample: Sample
    ours: Prediction
    baseline: Prediction | None = None


@dataclass(frozen=True, kw_only=True)
class Cases:
    """What is drawn, and out of how many."""

    right: tuple[Case, ...]
    """The model is right, and the baseline, where there is one, is not."""
    wrong: tuple[Case, ...]
    """The model is wrong, and the baseline, where there is one, is right."""
    num_right: int
    num_wrong: int
    num_samples: int
    problems: tuple[str, ...] = ()


def find_cases(
    model: Grounder, baseline: Grounder | None, samples: Sequence[Sample], *, progress: Progress | None = None
) -> Cases:
    """Ask both all phrases; the first cases of each kind are drawn, none is picked by hand.

    Raises:
        ValueError: a model gives no boxes, or nothing can be measured.
    """
    ours = _asked(model, samples, progress)
    theirs = None if baseline is None else _asked(baseline, samples, progress)
    of_baseline = {} if theirs is None else {one.index: one for one in theirs.predictions}
    right: list[tuple[Prediction, Prediction | None]] = []
    wrong: list[tuple[Prediction, Prediction | None]] = []
    for one in ours.predictions:
        other = of_baseline.get(one.index)
        if one.target_box is None or (baseline is not None and other is None):
            continue
        is_ours = bool(is_right(one))
        if other is None or bool(is_right(other)) != is_ours:
            (right if is_ours else wrong).append((one, other))
    return Cases(
        right=_first(right, samples),
        wrong=_first(wrong, samples),
        num_right=len(right),
        num_wrong=len(wrong),
        num_samples=len(ours.predictions),
        problems=tuple(dict.fromkeys((*ours.problems, *(theirs.problems if theirs else ())))),
    )


def _asked(grounder: Grounder, samples: Sequence[Sample], progress: Progress | None) -> Result:
    result = evaluate(grounder, samples, baselines=False, absent=False, progress=progress)
    if all(one.box is None for one in result.predictions):
        raise ValueError(f"expected a model that gives boxes, got {grounder.name!r}; choose another")
    return result


def _first(found: Sequence[tuple[Prediction, Prediction | None]], samples: Sequence[Sample]) -> tuple[Case, ...]:
    chosen: dict[str, Case] = {}
    for ours, other in found:
        if len(chosen) == CASES:
            break
        if ours.image_id not in chosen:
            chosen[ours.image_id] = Case(sample=samples[ours.index], ours=ours, baseline=other)
    return tuple(chosen.values())


def smcim_fig_8(cases: Cases) -> Image.Image:
    """The right ones, then the wrong ones: the model in red, the truth in blue, the baseline in green.

    Raises:
        ValueError: there is no case.
    """
    if not cases.right and not cases.wrong:
        raise ValueError(
            f"expected samples where exactly one of both models is right, got none in {cases.num_samples}; "
            "raise --limit or choose other models"
        )
    pictures = [_picture(case, "right") for case in cases.right] + [_picture(case, "wrong") for case in cases.wrong]
    return draw_sheet(pictures, columns=CASES, cell_px=_CELL_PX)


def _picture(case: Case, told: str) -> Image.Image:
    ours, other = case.ours, case.baseline
    marks = [
        Mark(text=f"{told}: {case.sample.phrase}", box_xyxy_px=ours.box),
        Mark(text="truth", box_xyxy_px=ours.target_box),
    ]
    marks += [] if other is None else [Mark(text="baseline", box_xyxy_px=other.box)]
    return draw_marks(read_image(case.sample.image), marks)


def describe_cases(cases: Cases, model: str, baseline: str | None, data: str) -> str:
    """One sentence on what was chosen out of what."""
    if baseline is None:
        told = f"{model} is right in {cases.num_right} of them and wrong in {cases.num_wrong}"
    else:
        told = f"only {model} is right in {cases.num_right} of them, only {baseline} in {cases.num_wrong}"
    shown = f"the first {len(cases.right)} and {len(cases.wrong)} of these are drawn, one an image"
    return f"{data}, {cases.num_samples} samples: {told}; {shown}."
