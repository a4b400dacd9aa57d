"""The papers' figures that are photos: SMCIM Fig. 8 and 9, MCN Fig. 6."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.drawing import Mark, draw_attention, draw_grounding, draw_marks, draw_sheet
from deixis.evaluate.calibration import is_right
from deixis.evaluate.evaluate import evaluate
from deixis.evaluate.predictions import Prediction
from deixis.evaluate.result import Result
from deixis.evaluate.word_attention import words_reaching_cls
from deixis.geometry.images import read_image
from deixis.grounder import EncodedImage, Grounder
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
    """Ground all phrases with both; the first cases of each kind are drawn, none is picked by hand.

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
    """The right ones, then the wrong ones: the model in red, the target in blue, the baseline in green.

    Raises:
        ValueError: there is no case.
    """
    if not cases.right and not cases.wrong:
        raise ValueError(
            f"expected samples where exactly one of both models is right, got none in {cases.num_samples}; "
            "raise --limit or choose other models"
        )
    images = [_case_image(case, "right") for case in cases.right] + [_case_image(case, "wrong") for case in cases.wrong]
    return draw_sheet(images, columns=CASES, cell_px=_CELL_PX)


def _case_image(case: Case, verdict: str) -> Image.Image:
    ours, other = case.ours, case.baseline
    marks = [
        Mark(text=f"{verdict}: {case.sample.phrase}", box_xyxy_px=ours.box),
        Mark(text="target", box_xyxy_px=ours.target_box),
    ]
    marks += [] if other is None else [Mark(text="baseline", box_xyxy_px=other.box)]
    return draw_marks(read_image(case.sample.image), marks)


def describe_cases(cases: Cases, model: str, baseline: str | None, data: str) -> str:
    """One sentence on what was chosen out of what."""
    if baseline is None:
        split = f"{model} is right in {cases.num_right} of them and wrong in {cases.num_wrong}"
    else:
        split = f"only {model} is right in {cases.num_right} of them, only {baseline} in {cases.num_wrong}"
    shown = f"the first {len(cases.right)} and {len(cases.wrong)} of these are drawn, one an image"
    return f"{data}, {cases.num_samples} samples: {split}; {shown}."


def smcim_fig_9(model: Grounder, image: NDArray[np.uint8], phrase: str) -> Image.Image:
    """SMCIM Fig. 9: where [CLS] looks, below the words that reach it, beside the photo with its box.

    Raises:
        ValueError: the model has no [CLS].
    """
    scene = model.look(image)
    words = words_reaching_cls(scene, phrase)
    if not words:
        raise ValueError(
            f"expected a model of the smcim family, whose [CLS] looks at pixels, got {model.name!r}; "
            "for others: deixis ground --attention"
        )
    box = scene.ground(phrase).box
    return draw_attention(scene.image, scene.attention(phrase), phrase, words=words, box=box)


def mcn_fig_6(models: Iterable[tuple[str, Grounder]], image: NDArray[np.uint8], phrase: str) -> Image.Image:
    """MCN Fig. 6: box and mask, and where both branches look, a row for each model and its name."""
    rows = [_attended(model.look(image), phrase, name) for name, model in models]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _attended(scene: EncodedImage, phrase: str, name: str) -> Image.Image:
    """One row; a model without maps of attention has its answer alone."""
    drawn = draw_grounding(scene.image, scene.ground(phrase))
    maps = scene.attention(phrase)
    if not maps:
        return drawn
    looks = draw_attention(scene.image, maps, f"{phrase} ({name})")
    row = Image.new("RGB", (drawn.width + looks.width, looks.height), "white")
    row.paste(drawn, (0, looks.height - drawn.height))
    row.paste(looks, (drawn.width, 0))
    return row
