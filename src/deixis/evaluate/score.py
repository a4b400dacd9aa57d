"""Score predictions: exact figures of our own, and of a file of any other model's, every line of it accounted for.

No figure of a file depends on the order of its lines: an id with two answers that differ counts as wrong, since
nothing shows which of them is meant, and what a model can give (boxes, masks) is judged by the whole file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deixis.evaluate.baselines import Case, measure_baselines
from deixis.evaluate.calibration import calibration_report, found_report
from deixis.evaluate.metrics import SampleScore, Tally, score_sample
from deixis.evaluate.metrics.bootstrap import REPLICATES, intervals
from deixis.evaluate.metrics.reference import REFERENCE_EVALUATORS, Pair, ReferenceEvaluator
from deixis.evaluate.metrics.slices import SLICES, report_slices
from deixis.evaluate.metrics.sums import RATIOS, MaskPixels, ScoreTable
from deixis.evaluate.predictions import BoxForm, Line, Prediction, read_lines
from deixis.evaluate.result import Counts, Result
from deixis.evaluate.targets import Target, open_for_scoring, read_targets
from deixis.structures import BoxXyxy

_TELLING_SHARE = 0.05
_FRACTION = 1.5
"""Up to here a coordinate may be a fraction of the image, drawn a little too far."""
_METRICS = (
    "rec.acc@0.5", "rec.acc@0.25", "rec.acc@0.75", "rec.acc@0.9", "rec.mean_iou",
    "res.miou", "res.oiou", "res.acc@0.5", "res.acc@0.6", "res.acc@0.7", "res.acc@0.8", "res.acc@0.9",
    "ie", "ie_box_only", "ie_mask_only", "no_target_accuracy",
    "generalised.t_acc", "generalised.giou", "generalised.ciou",
)  # fmt: skip
"""Those with an interval."""
Overlaps = tuple[float | None, float | None]


def score_command_result(
    predictions: Path,
    dataset: str,
    *,
    split: str | None = None,
    root: Path | None = None,
    form: BoxForm | None = None,
    official: str | None = None,
    replicates: int = REPLICATES,
    show_progress: bool = False,
) -> Result:
    """Do what ``deixis score PREDICTIONS DATASET[:SPLIT]`` does, except printing.

    Args:
        predictions: a JSONL file, see `deixis.evaluate.predictions`.
        dataset: a name, a .jsonl file or a COCO .json file.
        split: one of the data set's splits; None for its own default.
        root: the folder of the data set's files; the images of public releases need not be there.
        form: how the boxes are written.
        official: see `score_lines`.
        replicates: of the bootstrap.
        show_progress: whether to show progress on stderr.

    Raises:
        FileNotFoundError: the predictions or the data set are not there.
        ValueError: the data set is malformed, or nothing in the file belongs to it.
    """
    from deixis.data import default_split
    from deixis.progress import progress_over

    lines = read_lines(predictions)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"expected a line a prediction, got an empty file: {str(predictions)!r}; write it anew")
    split = split or default_split(dataset)
    samples = open_for_scoring(dataset, split, root)
    problems: list[str] = [*getattr(samples, "problems", ())]
    targets = read_targets(samples, dataset, problems)
    follow: Callable[[Iterable[Line]], Iterable[Line]] = (
        partial(progress_over, label="scoring") if show_progress else iter
    )
    return score_lines(
        follow(itertools.chain([first], lines)),
        targets,
        form=form,
        official=official,
        replicates=replicates,
        problems=problems,
        dataset=dataset,
        split=split,
    )


def score_predictions(
    predictions: Sequence[Prediction], *, problems: tuple[str, ...] = (), cases: Sequence[Case] | None = None
) -> Result:
    """The figures of our own predictions, which were compared with their targets as they were made.

    Args:
        predictions: in the order of the data set.
        problems: what was left out.
        cases: of the same samples, for the baselines; None for no baselines.

    Raises:
        ValueError: there is no prediction.
    """
    if not predictions:
        reason = problems[0] if problems else "the data set is empty"
        raise ValueError(f"expected at least one sample that can be measured, got none ({reason}); check the data set")
    return _summarise(
        score_table(predictions),
        [tuple(one.labels.get(name) for name in SLICES) for one in predictions],
        problems=problems,
        predictions=tuple(predictions),
        baselines={} if cases is None else measure_baselines(cases),
        found=found_report(predictions),
        calibration=calibration_report(predictions),
    )


def score_lines(
    lines: Iterable[Line],
    targets: Mapping[str, Target],
    *,
    form: BoxForm | None = None,
    official: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    problems: Iterable[str] = (),
    dataset: str = "",
    split: str | None = None,
) -> Result:
    """Score the lines of a file of predictions. The order of the lines changes no figure.

    Args:
        lines: see `deixis.evaluate.predictions.read_lines`; taken one by one and not kept.
        targets: of `deixis.evaluate.targets.read_targets`.
        form: how the boxes are written; by default xyxy in pixels.
        official: a name in `deixis.evaluate.metrics.reference.REFERENCE_EVALUATORS`, for what that evaluator gives too.
        replicates: of the bootstrap; below 2 for no intervals.
        seed: of the bootstrap.
        problems: what is already known to be wrong; they come first.
        dataset: its name, for the report.
        split: its split, for the report.

    Raises:
        ValueError: no line belongs to a sample or none can be used, no sample can be measured, there is no such
            official mode, or it needs the sizes of images that are not there.
    """
    if official is not None and official not in REFERENCE_EVALUATORS:
        modes = tuple(REFERENCE_EVALUATORS)
        raise ValueError(f"expected an official mode out of {modes}, got {official!r}; choose one of these")
    mode = None if official is None else REFERENCE_EVALUATORS[official]
    problems = tuple(problems)
    _check_targets(targets, mode, problems)
    answers = _Answers(targets, form or BoxForm(), mode)
    for line in lines:
        answers.add(line)
    scored = answers.finish()
    answers.counts.data_problems = len(problems)
    _check_matched(answers, scored)
    table = ScoreTable([score for _, score in scored], [sample.target.image_id for sample, _ in scored])
    exact = table.tally()
    return _summarise(
        table,
        [sample.target.labels for sample, _ in scored],
        metrics=_METRICS,
        replicates=replicates,
        seed=seed,
        dataset=dataset,
        split=split,
        counts=answers.counts,
        answered=table.tally(np.array([sample.score is not None for sample, _ in scored], dtype=np.bool_)),
        official=None if mode is None else _official_report(official or "", mode, answers.overlaps, exact),
        problems=(*problems, *answers.problems),
        hints=tuple(answers.hints()),
    )


def _summarise(
    table: ScoreTable,
    labels: Sequence[tuple[str | None, ...]],
    *,
    metrics: Sequence[str] = tuple(RATIOS),
    replicates: int = REPLICATES,
    seed: int = 0,
    **beside: Any,  # noqa: ANN401  further fields of the result
) -> Result:
    """The figures of scored samples.

    Args:
        table: the scores.
        labels: of `deixis.evaluate.metrics.slices.labels_of`, one a row of the table.
        metrics: those with an interval, as far as they have a value.
        replicates: of the bootstrap; below 2 for no intervals.
        seed: of the bootstrap.
        **beside: what else the result holds.
    """
    tally = table.tally()
    known = [metric for metric in metrics if tally.value(metric) is not None]
    return Result(
        tally=tally,
        ci95=intervals(table, known, replicates=replicates, seed=seed),
        slices=report_slices(table, labels, replicates=replicates, seed=seed),
        **beside,
    )


def score_table(predictions: Sequence[Prediction]) -> ScoreTable:
    """The scores of predictions, one row each."""
    return ScoreTable([one.sample_score() for one in predictions], [one.image_id for one in predictions])


def _check_targets(targets: Mapping[str, Target], mode: ReferenceEvaluator | None, problems: tuple[str, ...]) -> None:
    if not targets:
        reason = problems[0] if problems else "it is empty"
        raise ValueError(f"expected a data set with samples that can be used, got none ({reason}); check it")
    without = next((target.id for target in targets.values() if target.box_xyxy_px and target.hw is None), None)
    if mode is not None and mode.needs_size and without is not None:
        raise ValueError(
            f"expected the images, whose sizes the evaluator of {mode.source} needs, got none for sample {without!r}; "
            "put them there or choose another mode"
        )


def _check_matched(answers: _Answers, scored: _Scored) -> None:
    """A file of which nothing belongs to the data set is a mistake and no bad model."""
    counts, reason = answers.counts, next(iter(answers.problems), "nothing is in it")
    if not scored:
        raise ValueError(f"expected a data set with samples that can be measured, got none ({reason}); check it")
    if counts.lines == counts.unreadable:
        raise ValueError(f"expected one JSON object a line with an 'id', got none in {counts.lines} lines ({reason})")
    if counts.answered == 0 and counts.unusable:
        raise ValueError(f"expected answers that can be used, got none in {counts.lines} lines ({reason})")
    if counts.lines == counts.unknown + counts.unreadable:
        raise ValueError(
            f"expected lines with ids of the data set, such as {scored[0][0].target.id!r}, got none in {counts.lines} "
            f"lines ({reason}); name the samples as the data set does"
        )


def _official_report(name: str, mode: ReferenceEvaluator, overlaps: Sequence[Overlaps], exact: Tally) -> dict[str, Any]:
    """What the evaluator gives beside what is right, on the same samples."""
    figures = mode.figures(overlaps)
    return {
        "name": name,
        "source": mode.source,
        "differs": list(mode.differs),
        "figures": {key: {"official": value, "exact": exact.value(key)} for key, value in figures.items()},
    }


class _TargetError(Exception):
    """The data set's own mask cannot be used, or the size of its image is not known."""


@dataclass
class _Sample:
    """A target, and what the lines of its id come to."""

    target: Target
    says: bytes | None = None
    """Of its first line; None as long as there is none."""
    score: SampleScore | None = None
    """Of its one usable answer."""
    overlaps: Overlaps = (None, None)
    """As the reference evaluator has them."""
    conflicts: bool = False
    left_out: bool = False


_Scored = list[tuple[_Sample, SampleScore]]
"""All samples that can be measured, with wrong in place of what is missing."""


@dataclass
class _BoxStatistics:
    """Signs that a file's boxes are written in another form than was declared."""

    boxes: int = 0
    flat: int = 0
    outside: int = 0
    tiny: int = 0

    def add(self, written: BoxXyxy, box: BoxXyxy, hw: tuple[int, int] | None) -> None:
        self.boxes += 1
        self.tiny += max(map(abs, written)) <= _FRACTION
        x1, y1, x2, y2 = box
        if x2 <= x1 or y2 <= y1:
            self.flat += 1
        elif hw is not None and (x2 <= 0 or y2 <= 0 or x1 >= hw[1] or y1 >= hw[0]):
            self.outside += 1

    def hints(self, form: BoxForm) -> list[str]:
        hints = []
        if self.flat:
            hints.append(self._hint(self.flat, "have no area", f"check that the format {form.format} is right"))
        if self.outside:
            hints.append(self._hint(self.outside, "lie outside of their image", "check format and units"))
        if form.units == "pixel" and self.tiny > _TELLING_SHARE * self.boxes:
            hints.append(
                f"{self.tiny} of {self.boxes} boxes have no coordinate above {_FRACTION:g}: they seem to be normalised "
                "and not in pixels"
            )
        return hints

    def _hint(self, count: int, what: str, advice: str) -> str:
        many = count > _TELLING_SHARE * self.boxes
        return f"{count} of {self.boxes} boxes {what}: {advice if many else 'counted as wrong'}"


class _Answers:
    """Takes the lines of a file one by one, in any order; :meth:`finish` gives the scores."""

    def __init__(self, targets: Mapping[str, Target], form: BoxForm, official: ReferenceEvaluator | None) -> None:
        self.counts = Counts(samples=len(targets))
        self.problems: list[str] = []
        self.overlaps: list[Overlaps] = []
        """Of the samples whose phrase means something, for the reference evaluator."""
        self._samples = {name: _Sample(target) for name, target in targets.items()}
        self._form, self._official = form, official
        self._has_boxes = self._has_masks = False
        self._boxes = _BoxStatistics()
        shown = [sample for sample in self._samples.values() if sample.target.box_xyxy_px is not None]
        self._judges_masks = not shown or any(sample.target.mask is not None for sample in shown)
        for sample in shown:
            if form.units == "normalised" and sample.target.hw is None:
                why = "expected the image, to know its size for a normalised box, got none; put it there"
                self._leave_out(sample, why)

    def add(self, line: Line) -> None:
        """Score one line, or note why it cannot be scored."""
        self.counts.lines += 1
        where = f"line {line.number}"
        if line.id is None:
            self.counts.unreadable += 1
            self.problems.append(f"{where}: {line.error}")
            return
        sample = self._samples.get(line.id)
        if sample is None:
            self.counts.unknown += 1
            self.problems.append(f"{where}: expected an id of the data set, got {line.id!r}; not counted")
            return
        if line.error is None:
            self._has_boxes |= line.box is not None
            self._has_masks |= line.mask is not None
        if sample.says is None:
            sample.says = line.says
            self._score(line, sample, where)
            return
        self.counts.doubled += 1
        differs = line.says != sample.says
        sample.conflicts |= differs
        why = "and it differs, so the sample counts as wrong" if differs else "saying the same; counted once"
        self.problems.append(f"{where}: expected one line an id, got {line.id!r} again, {why}")

    def finish(self) -> _Scored:
        """The scores of all samples that can be measured, in the order of the data set; what is missing is wrong."""
        scored: _Scored = []
        for sample in self._samples.values():
            if sample.conflicts:
                sample.score = None
            try:
                filled = None if sample.left_out else self._filled(sample)
            except _TargetError as error:
                self._leave_out(sample, error)
                filled = None
            self._count(sample, filled)
            if filled is None:
                continue
            scored.append((sample, filled))
            if self._official is not None and sample.target.box_xyxy_px is not None:
                box, mask = sample.overlaps if sample.score is not None else (None, None)
                box = 0.0 if box is None and filled.box_iou is not None else box
                mask = 0.0 if mask is None and filled.mask_iou is not None else mask
                self.overlaps.append((box, mask))
        return scored

    def hints(self) -> list[str]:
        """Signs that the file was read otherwise than it was meant."""
        hints = self._boxes.hints(self._form)
        if self._has_masks and not self._judges_masks:
            hints.append("the data set has no masks, so those of the answers were compared with nothing")
        return hints

    def _leave_out(self, sample: _Sample, why: object) -> None:
        if not sample.left_out:
            sample.left_out = True
            self.problems.append(f"sample {sample.target.id!r}: {why}; left out")

    def _score(self, line: Line, sample: _Sample, where: str) -> None:
        try:
            if line.error is not None:
                raise ValueError(line.error)
            if not sample.left_out:
                self._compare(line, sample)
        except _TargetError as error:
            self._leave_out(sample, error)
        except (ValueError, OSError) as error:
            self.problems.append(f"{where}, id {sample.target.id!r}: {error}; counted as wrong")

    def _compare(self, line: Line, sample: _Sample) -> None:
        target, box = sample.target, None
        if line.box is not None:
            box = self._form.to_pixels(line.box, target.hw)
            self._boxes.add(line.box, box, target.hw)
        wanted, given = self._masks(line, target)
        judged = given if target.box_xyxy_px is not None or self._judges_masks else None
        score = score_sample(target_box=target.box_xyxy_px, target_mask=wanted, box=box, mask=judged, found=line.found)
        if self._official is not None and target.box_xyxy_px is not None:
            sample.overlaps = self._official.overlaps(_pair(target, box, wanted, given))
        sample.score = score

    def _masks(self, line: Line, target: Target) -> tuple[MaskPixels | None, MaskPixels | None]:
        """The wanted mask and the given one, which is checked even where there is nothing to compare it with."""
        if line.mask is None:
            return None, None
        wanted = None if target.mask is None else _wanted(target)
        needed = wanted is not None or (target.box_xyxy_px is None and self._judges_masks)
        can_be_checked = target.hw is not None or isinstance(line.mask, Mapping)
        return wanted, MaskPixels(line.mask, target.hw) if needed or can_be_checked else None

    def _filled(self, sample: _Sample) -> SampleScore:
        """The score with wrong in place of all that the file as a whole gives, but not here."""
        target, score = sample.target, sample.score
        if target.box_xyxy_px is None:
            score = score or SampleScore(no_target_right=False)
            shows_masks = self._has_masks and self._judges_masks and score.shown_px is None
            return replace(score, shown_px=0) if shows_masks else score
        score = score or SampleScore(found=False)
        if self._has_boxes and score.box_iou is None:
            score = replace(score, box_iou=0.0)
        if self._has_masks and target.mask is not None and score.mask_iou is None:
            area = _wanted(target).area()
            score = replace(score, mask_intersection_px=0, mask_union_px=area, target_px=area)
        return score

    def _count(self, sample: _Sample, filled: SampleScore | None) -> None:
        counts, score = self.counts, sample.score
        if filled is None:
            counts.left_out += 1
            counts.for_left_out += sample.says is not None
        elif score is not None:
            counts.answered += 1
            counts.without_box += score.box_iou is None and filled.box_iou is not None
            counts.without_mask += score.mask_iou is None and filled.mask_iou is not None
        elif sample.conflicts:
            counts.conflicting += 1
        elif sample.says is not None:
            counts.unusable += 1
        else:
            counts.missing += 1
            self.problems.append(f"sample {sample.target.id!r}: expected a line, got none; counted as wrong")


def _wanted(target: Target) -> MaskPixels:
    """The target's mask; what is wrong with it is not the answer's fault."""
    assert target.mask is not None
    try:
        return MaskPixels(target.mask, target.hw)
    except (ValueError, OSError) as error:
        raise _TargetError(str(error)) from error


def _pair(target: Target, box: BoxXyxy | None, wanted: MaskPixels | None, given: MaskPixels | None) -> Pair:
    return Pair(
        hw=target.hw,
        target_box=target.box_xyxy_px,
        box=box,
        target_mask=None if wanted is None or target.hw is None else wanted.pixels(),
        mask=None if given is None or target.hw is None else given.pixels(),
        num_polygons=len(target.mask) if isinstance(target.mask, list) else 0,
    )
