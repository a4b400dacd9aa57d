"""Evaluate a model on a data set: predict every phrase at the original resolution, then score the predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deixis.config import SUPPRESSIONS
from deixis.evaluate.baselines import Case
from deixis.evaluate.predict import AbsentPhrases, GrounderLike, Part, Predictor, Problem
from deixis.evaluate.predictions import Prediction, PredictionLog
from deixis.evaluate.processes import Ranks, Task, parts_by_processes, torchrun_ranks
from deixis.evaluate.result import Result
from deixis.evaluate.score import score_predictions
from deixis.structures import Sample
from deixis.verdict import FOUND_SCORE

if TYPE_CHECKING:
    from deixis.grounder import Grounder

_RUN = "run.json"
_FINISHED = "metrics.json"
Progress = Callable[[Iterable[int]], Iterable[int]]


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
) -> Result:
    """Ask a model every phrase of a data set and measure its answers.

    Consecutive samples of one ``image_id`` are asked together. A sample that cannot be measured (an image that cannot
    be read, a malformed mask, a box outside its image, a phrase that the model refuses) is left out and reported in
    ``problems``, after those in ``dataset.problems``, where the data set has any. A box that reaches over its image's
    border counts as far as it lies inside.

    Args:
        grounder: a `deixis.Grounder` or anything with its ``look(image).ground_all(phrases)``.
        dataset: the samples, read one by one, so that a lazy sequence stays lazy.
        name: the data set's name, for the report.
        split: its split, for the report.
        baselines: whether to measure the baselines too; they read every mask once more.
        absent: whether to ask each image also for what it surely lacks, see `AbsentPhrases`.
        log: gets every prediction as it comes; what is in it already is not asked again.
        progress: wraps the samples' indices, such as ``functools.partial(progress_over, label="evaluating")``.

    Raises:
        ValueError: no sample at all could be measured; the sentence gives the first reason.
    """
    predictor = Predictor(
        grounder=grounder,
        dataset=dataset,
        name=name,
        absent=AbsentPhrases(dataset) if absent else None,
        cases=baselines,
        keep_masks=log is not None,
    )
    indices = range(len(dataset))
    parts = predictor.parts(progress(indices) if progress else indices, log.known if log else {})
    result = score_parts(parts, getattr(dataset, "problems", ()), baselines=baselines, log=log)
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
) -> Result:
    """Do what ``deixis evaluate MODEL DATASET[:SPLIT]`` does, except printing.

    The command prints ``json.dumps(result.report(), allow_nan=False)`` with ``--json``, else the table of
    `deixis.evaluate.report.tables.format_result`, and ``result.problems`` on stderr.

    Args:
        model: a bundled name or a checkpoint folder.
        dataset: a name, a .jsonl file or a COCO .json file.
        split: one of the data set's splits; None for its own default.
        root: the folder of the data set's files.
        report: a folder to write ``predictions.jsonl`` into as it comes, then ``metrics.json``, ``metrics.md`` and
            ``report.html``.
        limit: the largest number of samples.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        suppression: one of `deixis.config.SUPPRESSIONS` in place of the model's own; None leaves the model's.
        processes: how many share the work; the figures do not depend on it. Under torchrun its processes do instead,
            of which the first writes.
        resume: whether to go on where the same evaluation was cut off in ``report``.
        show_progress: whether to show progress on stderr.

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
            result = _predict_and_score(task, grounder, samples, log, progress, processes, ranks)
    result = replace(
        result, dataset=dataset, split=task.split, model=grounder.name, suppression=grounder.suppression,
        earlier=earlier, found_score=_found_score(grounder),
    )  # fmt: skip
    if report is not None and log is not None:
        from deixis.evaluate.report.html_report import write_html
        from deixis.evaluate.report.tables import write_report

        write_html(result, report / "report.html", log, samples, grounder)
        write_report(result, report)
    return result


def score_parts(
    parts: Iterable[Part], problems: Iterable[str], *, baselines: bool = True, log: PredictionLog | None = None
) -> Result:
    """All figures of predictions; they depend on what is in the parts alone, and not on how the work was shared out.

    Args:
        parts: of `Predictor.parts`.
        problems: what was known to be wrong before; they come first.
        baselines: whether to measure them.
        log: gets the fresh predictions as they come.

    Raises:
        ValueError: there is no prediction.
    """
    predictions: list[Prediction] = []
    cases: list[Case] = []
    found: list[Problem] = []
    num_resumed = 0
    for part in parts:
        if log is not None and part.is_fresh:
            log.append(part.predictions)
        predictions += (one if one.mask is None else replace(one, mask=None) for one in part.predictions)
        cases += part.cases
        found += part.problems
        num_resumed += 0 if part.is_fresh else len(part.predictions)
    sentences = (*problems, *(sentence for _, sentence in sorted(found, key=lambda problem: problem[0])))
    if log is not None and predictions:
        log.finish([one.index for one in predictions])
    result = score_predictions(predictions, problems=sentences, cases=cases if baselines else None)
    return replace(result, num_resumed=num_resumed)


def _predict_and_score(
    task: Task, grounder: Grounder, samples: Sequence[Sample], log: PredictionLog | None, progress: Progress,
    processes: int, ranks: Ranks,
) -> Result:  # fmt: skip
    known = log.known if log else {}
    problems = getattr(samples, "problems", ())
    ticks = progress(range(len(samples)))
    if ranks.size == 1 and processes > 1:
        with closing(parts_by_processes(task, samples, known, processes)) as pieces:
            return score_parts(_follow(pieces, ticks), problems, log=log)
    predictor = task.predictor(grounder, samples)
    parts = predictor.parts(ticks, known) if ranks.size == 1 else _follow(ranks.parts(predictor, known), ticks)
    return score_parts(parts, problems, log=log)


def _follow(pieces: Iterable[tuple[range, list[Part]]], ticks: Iterable[int]) -> Iterator[Part]:
    """The parts one by one, while as many ticks as they have samples go by."""
    clock = iter(ticks)
    for piece, parts in pieces:
        yield from parts
        for _ in piece:
            next(clock)
    next(clock, None)  # lets the bar end


def _open_log(folder: Path, described: Mapping[str, object], resume: bool) -> tuple[PredictionLog, Path | None]:
    """The log of the same evaluation if it was cut off, else an empty one; and where those of another one went."""
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


def _found_score(grounder: Any) -> float:  # noqa: ANN401  a grounder or anything alike
    return getattr(grounder, "calibration", {}).get("found_score", FOUND_SCORE)
