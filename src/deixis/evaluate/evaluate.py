"""Evaluate a grounder on a data set: every phrase once, at the original resolution, one look per image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deixis.config import SUPPRESSIONS
from deixis.evaluate.baselines import Case, measure_baselines
from deixis.evaluate.calibration import calibration_report, found_report
from deixis.evaluate.metrics import Tally
from deixis.evaluate.metrics.bootstrap import Interval, intervals
from deixis.evaluate.metrics.slices import SLICES, length_bounds, report_slices
from deixis.evaluate.metrics.sums import RATIOS
from deixis.evaluate.metrics.table import ScoreTable
from deixis.evaluate.prediction_log import Prediction, PredictionLog
from deixis.evaluate.processes import Task, parts_by_processes
from deixis.evaluate.ranks import Ranks, torchrun_ranks
from deixis.evaluate.report.markdown import format_table, write_report
from deixis.evaluate.running import (
    AbsentPhrases,
    Asker,
    GrounderLike,
    GroundingLike,
    Part,
    Problem,
    SceneLike,
    ask_together,
    clip_to_image,
    runs_of_one_image,
)
from deixis.structures import Sample
from deixis.verdict import FOUND_SCORE

if TYPE_CHECKING:
    from deixis.grounder import Grounder

__all__ = [
    "EvaluationResult", "GrounderLike", "GroundingLike", "Prediction", "SceneLike", "ask_together", "clip_to_image",
    "evaluate", "evaluate_command_result", "format_table", "runs_of_one_image", "score_table", "write_report",
]  # fmt: skip

_RUN = "run.json"
_FINISHED = "metrics.json"
Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """All figures of one evaluation."""

    dataset: str
    split: str | None
    tally: Tally
    baselines: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    problems: tuple[str, ...] = ()
    """One sentence for each sample or image that could not be measured and was left out."""
    model: str = ""
    suppression: str | None = None
    """How the box corrected the masks, out of `deixis.config.SUPPRESSIONS`; None where nobody says."""
    ci95: Mapping[str, Interval | None] = field(default_factory=dict)
    """The intervals of ``tally``'s metrics, by bootstrap over images."""
    slices: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Of `deixis.evaluate.metrics.slices.report_slices`."""
    found: dict[str, Any] = field(default_factory=dict)
    """Of `deixis.evaluate.calibration.found_report`."""
    found_score: float = FOUND_SCORE
    """The least score that the model records for "found"; see `deixis.verdict`."""
    calibration: dict[str, Any] | None = None
    """Of `deixis.evaluate.calibration.calibration_report`."""
    num_resumed: int = 0
    """How many of the predictions were taken over from an earlier run that was cut off."""
    earlier: Path | None = None
    """Where answers of another evaluation that lay in the report's folder are kept."""

    def report(self) -> dict[str, Any]:
        """Return one object for JSON: the metrics of :meth:`Tally.report` with what was measured on what."""
        return {
            "model": self.model,
            "suppression": self.suppression,
            "dataset": self.dataset,
            "split": self.split,
            **self.tally.report(),
            "n_problems": len(self.problems),
            "baselines": self.baselines,
            "ci95": {metric: None if pair is None else list(pair) for metric, pair in self.ci95.items()},
            "slices": self.slices,
            "found": self.found,
            "calibration": self.calibration,
        }


def evaluate(
    grounder: GrounderLike,
    dataset: Sequence[Sample],
    *,
    name: str = "",
    split: str | None = None,
    baselines: bool = True,
    absent: bool = True,
    log: PredictionLog | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Ask the grounder every phrase of a data set and measure its answers.

    Consecutive samples of one ``image_id`` share one look. A sample that cannot be measured (an image that cannot be
    read, a malformed mask, a box outside its image, a phrase that the grounder refuses) is told in ``problems`` and
    left out; what ``dataset.problems`` tells, where the data set has it, is told there first. A box that reaches over
    its image's border counts as far as it lies inside.

    Args:
        grounder: a `deixis.Grounder` or anything with its ``look(image).ground_all(phrases)``.
        dataset: the samples, read one by one, so that a lazy sequence stays lazy.
        name: the data set's name, for the report.
        split: its split, for the report.
        baselines: whether to measure the baselines too; they read every mask once more.
        absent: whether to ask each image for what it surely lacks too, see `AbsentPhrases`.
        log: gets every answer as it comes; what is in it already is not asked again.
        progress: wraps the samples' indices, such as ``functools.partial(progress_over, label="evaluating")``.

    Raises:
        ValueError: no sample at all could be measured; the sentence gives the first reason.
    """
    asker = Asker(
        grounder=grounder,
        dataset=dataset,
        length_bounds=length_bounds(name),
        absent=AbsentPhrases(dataset) if absent else None,
        cases=baselines,
        keep_masks=log is not None,
    )
    indices = range(len(dataset))
    parts = asker.parts(progress(indices) if progress else indices, log.known if log else {})
    known = getattr(dataset, "problems", ())
    result = _collect(parts, known, baselines=baselines, log=log)
    return replace(result, dataset=name, split=split, found_score=_found_score(grounder))


def evaluate_command_result(
    model: str,
    dataset: str,
    *,
    split: str | None = None,
    root: Path | None = None,
    report: Path | None = None,
    limit: int | None = None,
    precision: str = "auto",
    suppression: str | None = None,
    processes: int = 1,
    resume: bool = True,
    show_progress: bool = False,
) -> EvaluationResult:
    """Do what ``deixis evaluate MODEL DATASET[:SPLIT]`` does, all but printing.

    The command prints ``json.dumps(result.report(), allow_nan=False)`` with ``--json`` and ``format_table(result)``
    without, and each of ``result.problems`` on stderr.

    Args:
        model: a bundled name or a checkpoint folder.
        dataset: a name, a .jsonl file or a COCO .json file.
        split: one of the data set's splits; None for its own default.
        root: the folder of the data set's files.
        report: a folder to write ``predictions.jsonl`` into as it comes, then ``metrics.json``, ``metrics.md`` and
            ``report.html``.
        limit: at most so many samples.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        suppression: one of `deixis.config.SUPPRESSIONS` in place of the model's own; None leaves the model's.
        processes: how many share the work; the figures do not depend on it. Under torchrun its processes do instead,
            of which the first writes.
        resume: whether to go on where the same evaluation was cut off in ``report``.
        show_progress: whether to tell on stderr how far it is.

    Raises:
        FileNotFoundError: the model or the data set is not there.
        ValueError: the data set is malformed, nothing in it can be measured, or there is no such suppression.
    """
    from deixis.data import default_split
    from deixis.progress import progress_over

    if suppression not in (None, *SUPPRESSIONS):
        raise ValueError(f"expected a suppression out of {SUPPRESSIONS}, got {suppression!r}; choose one of these")
    task = Task(
        model=model, dataset=dataset, split=split or default_split(dataset), root=root, limit=limit,
        precision=precision, suppression=suppression, keep_masks=report is not None,
    )  # fmt: skip
    samples = task.open()
    grounder = task.load()
    with torchrun_ranks() as ranks:
        report, show_progress = (report, show_progress) if ranks.is_first else (None, False)
        progress = partial(progress_over, label="evaluating", total=len(samples)) if show_progress else iter
        log, earlier = (None, None)
        if report is not None:
            log, earlier = _open_log(report, _describe(task, grounder, samples), resume)
        with log or nullcontext():
            result = _ask(task, grounder, samples, log, progress, processes, ranks)
    result = replace(
        result, dataset=dataset, split=task.split, model=grounder.name, suppression=grounder.suppression,
        earlier=earlier, found_score=_found_score(grounder),
    )  # fmt: skip
    if report is not None and log is not None:
        _write_all(result, report, log, samples, grounder)
    return result


def _found_score(grounder: Any) -> float:  # noqa: ANN401  a grounder or anything alike
    return getattr(grounder, "calibration", {}).get("found_score", FOUND_SCORE)


def _ask(
    task: Task, grounder: Grounder, samples: Sequence[Sample], log: PredictionLog | None, progress: Progress,
    processes: int, ranks: Ranks,
) -> EvaluationResult:  # fmt: skip
    known = log.known if log else {}
    problems = getattr(samples, "problems", ())
    ticks = progress(range(len(samples)))
    if ranks.size > 1:
        parts = _follow(ranks.parts(task, grounder, samples, known), ticks)
    elif processes > 1:
        with closing(parts_by_processes(task, samples, known, processes)) as pieces:
            return _collect(_follow(pieces, ticks), problems, baselines=task.baselines, log=log)
    else:
        parts = task.asker(grounder, samples).parts(ticks, known)
    return _collect(parts, problems, baselines=task.baselines, log=log)


def score_table(predictions: Sequence[Prediction]) -> ScoreTable:
    """The scores of predictions, one row each."""
    return ScoreTable([one.sample_score() for one in predictions], [one.image_id for one in predictions])


def _collect(
    parts: Iterable[Part], problems: Iterable[str], *, baselines: bool, log: PredictionLog | None
) -> EvaluationResult:
    """All figures; they depend on what is in the parts alone, and not on how the work was shared out."""
    predictions: list[Prediction] = []
    cases: list[Case] = []
    told: list[Problem] = []
    num_fresh = 0
    for part in parts:
        if log is not None:
            log.append(part.fresh)
        predictions += part.predictions
        cases += part.cases
        told += part.problems
        num_fresh += len(part.fresh)
    sentences = (*problems, *(sentence for _, sentence in sorted(told, key=lambda problem: problem[0])))
    if not predictions:
        reason = sentences[0] if sentences else "the data set is empty"
        raise ValueError(f"expected at least one sample that can be measured, got none ({reason}); check the data set")
    if log is not None:
        log.finish([one.index for one in predictions])
    table = score_table(predictions)
    tally = table.tally()
    labels = [tuple(one.labels.get(name) for name in SLICES) for one in predictions]
    return EvaluationResult(
        dataset="",
        split=None,
        tally=tally,
        baselines=measure_baselines(cases) if baselines else {},
        predictions=tuple(predictions),
        problems=sentences,
        ci95=intervals(table, [metric for metric in RATIOS if tally.value(metric) is not None]),
        slices=report_slices(table, labels),
        found=found_report(predictions),
        calibration=calibration_report(predictions),
        num_resumed=len(predictions) - num_fresh,
    )


def _follow(pieces: Iterable[tuple[range, list[Part]]], ticks: Iterable[int]) -> Iterator[Part]:
    """The parts one by one, while as many ticks as they have samples go by."""
    clock = iter(ticks)
    for piece, parts in pieces:
        yield from parts
        for _ in piece:
            next(clock)
    next(clock, None)  # lets the bar end


def _open_log(folder: Path, described: Mapping[str, object], resume: bool) -> tuple[PredictionLog, Path | None]:
    """The log of the same evaluation, if it was cut off, or an empty one, and where answers of another one went."""
    folder.mkdir(parents=True, exist_ok=True)
    run, lines, wanted = folder / _RUN, folder / "predictions.jsonl", json.dumps(described, indent=1)
    same, earlier = run.is_file() and run.read_bytes() == wanted.encode(), None
    if not same and lines.is_file() and lines.stat().st_size:
        earlier = lines.replace(folder / "predictions-before.jsonl")
    was_cut = same and not (folder / _FINISHED).exists()
    for name in (_FINISHED, "metrics.md", "report.html"):
        (folder / name).unlink(missing_ok=True)
    log = PredictionLog(lines, resume=resume and was_cut)
    run.write_bytes(wanted.encode())
    return log, earlier


def _describe(task: Task, grounder: Any, samples: Sequence[Sample]) -> dict[str, object]:  # noqa: ANN401  or alike
    """What must be equal for two evaluations to give equal answers."""
    asked = {key: value if value is None else str(value) for key, value in asdict(task).items()}
    return {"deixis": version("deixis"), **asked, "samples": len(samples), "weights": _digest(grounder)}


def _digest(grounder: Any) -> str:  # noqa: ANN401  a grounder or anything alike
    """Of all that makes a model answer as it does."""
    made = hashlib.blake2b(digest_size=16)
    model = getattr(grounder, "model", None)
    if model is not None:
        import torch

        for name, tensor in model.state_dict().items():
            made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            made.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        made.update(repr((model.config, grounder.calibration)).encode())
    made.update(repr((grounder.name, grounder.suppression)).encode())
    return made.hexdigest()


def _write_all(
    result: EvaluationResult, folder: Path, log: PredictionLog, samples: Sequence[Sample], grounder: GrounderLike
) -> None:
    from deixis.evaluate.report.html_report import write_html

    write_html(result, folder / "report.html", log, samples, grounder)
    write_report(result, folder)
