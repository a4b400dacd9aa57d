"""Evaluate a grounder on a data set: every phrase once, at the original resolution, one look per image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deixis.config import SUPPRESSIONS
from deixis.evaluate.baselines import Case, measure_baselines
from deixis.geometry.boxes import clip_box
from deixis.geometry.images import ImageSource
from deixis.geometry.masks import read_mask
from deixis.metrics import Tally, score_sample
from deixis.structures import BoxXyxy, Sample

SceneT = TypeVar("SceneT")
AnswerT = TypeVar("AnswerT")

_PHRASES_AT_ONCE = 32
_COLUMNS = (  # title, part of the report, key in it
    ("box Acc@0.5", "rec", "acc@0.5"),
    ("mean IoU", "rec", "mean_iou"),
    ("mask mIoU", "res", "miou"),
    ("oIoU", "res", "oiou"),
    ("Acc@0.5", "res", "acc@0.5"),
    ("Acc@0.7", "res", "acc@0.7"),
    ("Acc@0.9", "res", "acc@0.9"),
    ("IE", "", "ie"),
)


class GroundingLike(Protocol):
    """An answer, as `deixis.grounder.Grounding` gives it."""

    @property
    def box(self) -> BoxXyxy | None:
        """(x1, y1, x2, y2) in pixels of the original image; None where the model gives no boxes."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Bool [H, W] of the original image; None where the model gives no masks."""
        ...

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the original image."""
        ...

    @property
    def score(self) -> float:
        """How sure, 0..1."""
        ...

    @property
    def agreement(self) -> float:
        """How far box and mask tell the same story, 0..1."""
        ...

    @property
    def found(self) -> bool:
        """Whether the thing is there at all."""
        ...


class SceneLike(Protocol):
    """An encoded image."""

    def ground_all(self, phrases: Sequence[str]) -> Sequence[GroundingLike]:
        """Answer each phrase."""
        ...


class GrounderLike(Protocol):
    """What can be evaluated."""

    def look(self, image: ImageSource) -> SceneLike:
        """Encode an image."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model said to one sample, and how right it was; one line of ``predictions.jsonl``."""

    id: str
    image_id: str
    phrase: str
    box: tuple[float, ...] | None
    score: float
    agreement: float
    found: bool
    iou: float | None
    """IoU of the boxes; None where the phrase means nothing in the image."""
    mask_iou: float | None
    """IoU of the masks; None where the data has none."""


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
        }


def evaluate(
    grounder: GrounderLike,
    dataset: Sequence[Sample],
    *,
    name: str = "",
    split: str | None = None,
    baselines: bool = True,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
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
        progress: wraps the samples' indices, such as ``functools.partial(progress_over, label="evaluating")``.

    Raises:
        ValueError: no sample at all could be measured; the sentence gives the first reason.
    """
    tally, predictions, cases = Tally(), [], []
    problems: list[str] = [*getattr(dataset, "problems", ())]
    indices = range(len(dataset))
    for group in runs_of_one_image(dataset, progress(indices) if progress else indices, problems):
        for sample, answer in ask_together(group, grounder.look, lambda scene, said: scene.ground_all(said), problems):
            try:
                sample = clip_to_image(sample, answer.hw)
                score, prediction = _measure(sample, answer)
            except (ValueError, OSError) as error:
                problems.append(f"sample {sample.id!r}: {error}")
                continue
            tally += score
            predictions.append(prediction)
            case = Case.of(sample, answer.hw) if baselines else None
            cases += [] if case is None else [case]
    if not predictions:
        reason = problems[0] if problems else "the data set is empty"
        raise ValueError(f"expected at least one sample that can be measured, got none ({reason}); check the data set")
    return EvaluationResult(
        dataset=name,
        split=split,
        tally=tally,
        baselines=measure_baselines(cases) if baselines else {},
        predictions=tuple(predictions),
        problems=tuple(problems),
    )


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
        report: a folder to write ``metrics.json`` and ``predictions.jsonl`` into.
        limit: at most so many samples.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        suppression: one of `deixis.config.SUPPRESSIONS` in place of the model's own; None leaves the model's.
        show_progress: whether to tell on stderr how far it is.

    Raises:
        FileNotFoundError: the model or the data set is not there.
        ValueError: the data set is malformed, nothing in it can be measured, or there is no such suppression.
    """
    from deixis.data import default_split, open_dataset
    from deixis.grounder import load
    from deixis.progress import progress_over

    if suppression not in (None, *SUPPRESSIONS):
        raise ValueError(f"expected a suppression out of {SUPPRESSIONS}, got {suppression!r}; choose one of these")
    split = split or default_split(dataset)
    samples = open_dataset(dataset, split=split, root=root, limit=limit)
    grounder = load(model, precision=precision)
    grounder.suppression = suppression or grounder.suppression
    progress = partial(progress_over, label="evaluating", total=len(samples)) if show_progress else None
    result = evaluate(grounder, samples, name=dataset, split=split, progress=progress)
    result = replace(result, model=grounder.name, suppression=grounder.suppression)
    if report is not None:
        write_report(result, report)
    return result


def format_table(result: EvaluationResult) -> str:
    """Return the figures as a plain text table in percent, the model above the baselines; "-" where there is none."""
    rows = [["", *(title for title, _, _ in _COLUMNS)], _table_row(result.model or "model", result.tally.report())]
    rows += [_table_row(name.replace("_", " "), report or {}) for name, report in result.baselines.items()]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]).rstrip() for r in rows]
    where = result.dataset + (f":{result.split}" if result.split else "")
    head = f"{where}: {round(result.tally.n)} samples, figures in percent"
    if result.tally.num_no_target:
        share = _percent(result.tally.report(), "no_target_accuracy")
        head += f"; {round(result.tally.num_no_target)} of them mean nothing in the image, {share} % of these told so"
    if result.problems:
        head += f"; {len(result.problems)} more left out"
    return "\n".join([head, "", lines[0], "-" * max(map(len, lines)), *lines[1:]])


def write_report(result: EvaluationResult, folder: Path) -> None:
    """Write ``metrics.json`` and ``predictions.jsonl`` into a folder, each file whole or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {**result.report(), "problems": list(result.problems)}
    _write_whole(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    lines = (json.dumps(asdict(prediction), allow_nan=False) for prediction in result.predictions)
    _write_whole(folder / "predictions.jsonl", "".join(f"{line}\n" for line in lines))


def runs_of_one_image(dataset: Sequence[Sample], indices: Iterable[int], problems: list[str]) -> Iterator[list[Sample]]:
    """Yield runs of consecutive samples of one ``image_id``, at most 32 long, to be asked together.

    Args:
        dataset: read one by one.
        indices: which samples, in this order.
        problems: gets a sentence for each sample that cannot be read, which is left out.
    """
    group: list[Sample] = []
    for index in indices:
        try:
            sample = dataset[index]
        except (ValueError, OSError) as error:
            problems.append(f"sample number {index}: {error}")
            continue
        if group and (sample.image_id != group[0].image_id or len(group) == _PHRASES_AT_ONCE):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def ask_together(
    group: Sequence[Sample],
    look: Callable[[ImageSource], SceneT],
    ask: Callable[[SceneT, list[str]], Sequence[AnswerT]],
    problems: list[str],
) -> Iterator[tuple[Sample, AnswerT]]:
    """Yield the samples of one image that got an answer, by one look for all of them.

    Args:
        group: samples of one image, at least one.
        look: encodes the image.
        ask: answers phrases, one answer each.
        problems: gets a sentence for each sample whose image or phrase is refused, which is left out.
    """
    try:
        scene = look(group[0].image)
    except (ValueError, OSError) as error:
        problems += [f"sample {sample.id!r}: {error}" for sample in group]
        return
    try:
        answers = ask(scene, [sample.phrase for sample in group])
    except ValueError:  # one phrase is refused: ask one by one, so that the others are not lost
        for sample in group:
            try:
                (answer,) = ask(scene, [sample.phrase])
            except ValueError as error:
                problems.append(f"sample {sample.id!r}: {error}")
                continue
            yield sample, answer
        return
    yield from zip(group, answers, strict=True)


def clip_to_image(sample: Sample, hw: tuple[int, int]) -> Sample:
    """The sample with its box as far as it lies in the image of ``hw`` (height, width).

    Raises:
        ValueError: the box lies outside of the image.
    """
    if sample.box_xyxy_px is None:
        return sample
    x1, y1, x2, y2 = clip_box(sample.box_xyxy_px, hw).tolist()
    if x1 >= x2 or y1 >= y2:
        raise ValueError(
            f"expected a box that overlaps its image of (height, width) {hw!r}, got {sample.box_xyxy_px!r}; correct it"
        )
    return replace(sample, box_xyxy_px=(x1, y1, x2, y2))


def _measure(sample: Sample, answer: GroundingLike) -> tuple[Tally, Prediction]:
    score = score_sample(
        target_box=sample.box_xyxy_px,
        target_mask=None if sample.mask is None else read_mask(sample.mask, answer.hw),
        box=answer.box,
        mask=answer.mask,
        found=answer.found,
    )
    prediction = Prediction(
        id=sample.id,
        image_id=sample.image_id,
        phrase=sample.phrase,
        box=None if answer.box is None else tuple(float(value) for value in answer.box),
        score=float(answer.score),
        agreement=float(answer.agreement),
        found=bool(answer.found),
        iou=score.box_iou,
        mask_iou=score.mask_iou,
    )
    return Tally.of(score), prediction


def _table_row(name: str, report: dict[str, Any]) -> list[str]:
    parts = ((report.get(part) or {} if part else report, key) for _, part, key in _COLUMNS)
    return [name, *(_percent(figures, key) for figures, key in parts)]


def _percent(figures: dict[str, Any], key: str) -> str:
    value = figures.get(key)
    return "-" if value is None else f"{100 * value:.1f}"


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
