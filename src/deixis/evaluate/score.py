"""Score the predictions of any model: exact figures from a file of answers and a data set, each line accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deixis.evaluate.answers import Answers, Counts, Scored
from deixis.evaluate.metrics import Tally
from deixis.evaluate.metrics.bootstrap import REPLICATES, Interval, intervals
from deixis.evaluate.metrics.reference import OFFICIAL, Official
from deixis.evaluate.metrics.slices import report_slices
from deixis.evaluate.metrics.table import ScoreTable
from deixis.evaluate.predictions import BoxForm, Line, read_lines
from deixis.evaluate.targets import Target, open_for_scoring, read_targets
from deixis.files import atomic_write


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """All figures of one file of predictions."""

    dataset: str
    split: str | None
    tally: Tally
    """Over all samples: what is missing or cannot be used counts as wrong."""
    answered: Tally
    """Over the samples with one usable answer alone."""
    counts: Counts
    ci95: Mapping[str, Interval | None]
    """The intervals of ``tally``'s metrics, by bootstrap over images."""
    slices: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    official: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()
    """One sentence for each line and sample that was not counted, or counted as wrong without being compared."""
    hints: tuple[str, ...] = ()
    """What looks as if the file were read otherwise than it was meant."""

    def report(self) -> dict[str, Any]:
        """Return one object for JSON: the metrics of :meth:`Tally.report`, with all that stands beside them."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            **self.tally.report(),
            "ci95": dict(self.ci95),
            "answered": self.answered.report(),
            "counts": asdict(self.counts),
            "slices": self.slices,
            "official": self.official,
            "hints": list(self.hints),
            "n_problems": len(self.problems),
        }


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
) -> ScoreResult:
    """Score the lines of a file of predictions. The order of the lines changes no figure.

    Args:
        lines: see `deixis.evaluate.predictions.read_lines`; taken one by one and not kept.
        targets: of `deixis.evaluate.targets.read_targets`.
        form: how the boxes are written; by default xyxy in pixels.
        official: a name in `deixis.evaluate.metrics.reference.OFFICIAL`: tell too what that evaluator would have said.
        replicates: of the bootstrap; below 2 for no intervals.
        seed: of the bootstrap.
        problems: what is already known to be wrong, told first.
        dataset: its name, for the report.
        split: its split, for the report.

    Raises:
        ValueError: no line belongs to a sample or none can be used, no sample can be measured, there is no such
            official mode, or it needs the sizes of images that are not there.
    """
    if official is not None and official not in OFFICIAL:
        raise ValueError(f"expected an official mode out of {tuple(OFFICIAL)}, got {official!r}; choose one of these")
    mode = None if official is None else OFFICIAL[official]
    problems = tuple(problems)
    _check_targets(targets, mode, problems)
    answers = Answers(targets, form or BoxForm(), mode)
    for line in lines:
        answers.add(line)
    scored = answers.finish()
    scored.counts.data_problems = len(problems)
    _check_matched(scored)
    table = ScoreTable(scored.scores, [target.image_id for target in scored.targets])
    whole = table.tally()
    told = [metric for metric in _METRICS if whole.value(metric) is not None]
    labels = [target.labels for target in scored.targets]
    return ScoreResult(
        dataset=dataset,
        split=split,
        tally=whole,
        answered=table.tally(np.array(scored.answered, dtype=np.bool_)),
        counts=scored.counts,
        ci95=intervals(table, told, replicates=replicates, seed=seed),
        slices=report_slices(table, labels, replicates=replicates, seed=seed),
        official=None if mode is None else _official_report(official or "", mode, scored, whole),
        problems=(*problems, *scored.problems),
        hints=tuple(scored.hints),
    )


_METRICS = (
    "rec.acc@0.5", "rec.acc@0.25", "rec.acc@0.75", "rec.acc@0.9", "rec.mean_iou",
    "res.miou", "res.oiou", "res.acc@0.5", "res.acc@0.6", "res.acc@0.7", "res.acc@0.8", "res.acc@0.9",
    "ie", "ie_box_only", "ie_mask_only", "no_target_accuracy",
    "generalised.t_acc", "generalised.giou", "generalised.ciou",
)  # fmt: skip
"""Those with an interval."""


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
) -> ScoreResult:
    """Do what ``deixis score PREDICTIONS DATASET[:SPLIT]`` does, all but printing.

    Args:
        predictions: a JSONL file, see `deixis.evaluate.predictions`.
        dataset: a name, a .jsonl file or a COCO .json file.
        split: one of the data set's splits; None for its own default.
        root: the folder of the data set's files; the images of public releases need not be there.
        form: how the boxes are written.
        official: see `score_lines`.
        replicates: of the bootstrap.
        show_progress: whether to tell on stderr how far it is.

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
        follow(_chain(first, lines)),
        targets,
        form=form,
        official=official,
        replicates=replicates,
        problems=problems,
        dataset=dataset,
        split=split,
    )


def write_score(result: ScoreResult, path: Path) -> None:
    """Write the report with all problems as one JSON file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    text = json.dumps({**result.report(), "problems": list(result.problems)}, indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def _chain(first: Line, rest: Iterable[Line]) -> Iterable[Line]:
    yield first
    yield from rest


def _check_targets(targets: Mapping[str, Target], mode: Official | None, problems: tuple[str, ...]) -> None:
    if not targets:
        reason = problems[0] if problems else "it is empty"
        raise ValueError(f"expected a data set with samples that can be used, got none ({reason}); check it")
    without = next((target.id for target in targets.values() if target.box_xyxy_px and target.hw is None), None)
    if mode is not None and mode.needs_size and without is not None:
        raise ValueError(
            f"expected the images, whose sizes the evaluator of {mode.source} needs, got none for sample {without!r}; "
            "put them there or choose another mode"
        )


def _check_matched(scored: Scored) -> None:
    """A file of which nothing belongs to the data set is a mistake and no bad model."""
    counts, reason = scored.counts, next(iter(scored.problems), "nothing is in it")
    if not scored.scores:
        raise ValueError(f"expected a data set with samples that can be measured, got none ({reason}); check it")
    if counts.lines == counts.unreadable:
        raise ValueError(f"expected one JSON object a line with an 'id', got none in {counts.lines} lines ({reason})")
    if counts.answered == 0 and counts.unusable:
        raise ValueError(f"expected answers that can be used, got none in {counts.lines} lines ({reason})")
    if counts.lines == counts.unknown + counts.unreadable:
        raise ValueError(
            f"expected lines with ids of the data set, such as {scored.targets[0].id!r}, got none in {counts.lines} "
            f"lines ({reason}); name the samples as the data set does"
        )


def _official_report(name: str, mode: Official, scored: Scored, exact: Tally) -> dict[str, Any]:
    """What the evaluator would have said beside what is right, on the same samples."""
    figures = mode.figures(scored.overlaps)
    return {
        "name": name,
        "source": mode.source,
        "differs": list(mode.differs),
        "figures": {key: {"official": value, "exact": exact.value(key)} for key, value in figures.items()},
    }
