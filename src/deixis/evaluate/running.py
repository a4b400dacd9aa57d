"""Ask a grounder every phrase of a data set, one look per image; what is already known is not asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deixis.evaluate.baselines import Case
from deixis.evaluate.metrics import score_sample
from deixis.evaluate.metrics.slices import SLICES, labels_of
from deixis.evaluate.prediction_log import Absent, Logged, Prediction
from deixis.geometry.boxes import clip_box
from deixis.geometry.images import ImageSource
from deixis.geometry.masks import encode_rle, read_mask
from deixis.language.phrase_kind import phrase_kind, words_said
from deixis.language.synonyms import is_surely_absent
from deixis.structures import BoxXyxy, Sample

SceneT = TypeVar("SceneT")
AnswerT = TypeVar("AnswerT")
Problem = tuple[int, str]
"""The index of the sample that it came up at, and a sentence."""

_PHRASES_AT_ONCE = 32
_ABSENT_PHRASES = 64
_ABSENT_SEED = 0


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


class AbsentPhrases:
    """Phrases of a data set, to be asked of images in which they surely mean nothing: what is found there is not there.

    Each image gets the first of a seeded choice of phrases, from another place on each, whose thing and its like are
    not among the image's annotated things; images without annotated things get none, since nobody knows what they
    lack. So the pairs do not depend on what else is asked, nor by which process.
    """

    def __init__(self, dataset: Sequence[Sample]) -> None:
        self._phrases: list[tuple[str, str]] = []
        for index in np.random.default_rng(_ABSENT_SEED).permutation(len(dataset))[:_ABSENT_PHRASES]:
            try:
                sample = dataset[int(index)]
            except (ValueError, OSError):
                continue  # is told where the sample's turn comes
            if sample.category and sample.box_xyxy_px is not None:
                self._phrases.append((sample.phrase, sample.category))

    def pick(self, index: int, sample: Sample) -> str | None:
        """A phrase for the image of a sample; None where none is surely absent."""
        present = {thing.category for thing in sample.instances}
        if not present:
            return None
        for step in range(len(self._phrases)):
            phrase, category = self._phrases[(index + step) % len(self._phrases)]
            if is_surely_absent(phrase, category, present):
                return phrase
        return None


@dataclass
class Part:
    """What came of the samples of one image."""

    predictions: list[Prediction] = field(default_factory=list)
    fresh: list[Logged] = field(default_factory=list)
    """Those of ``predictions`` that were not known before."""
    cases: list[Case] = field(default_factory=list)
    """For the baselines."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Asks a grounder the phrases of a data set and measures its answers."""

    grounder: GrounderLike
    dataset: Sequence[Sample]
    length_bounds: tuple[int, int, int]
    """Of `deixis.evaluate.metrics.slices.length_bounds`."""
    absent: AbsentPhrases | None = None
    """One of these is asked of every image too."""
    cases: bool = True
    keep_masks: bool = False

    def parts(self, indices: Iterable[int], known: Mapping[int, Prediction] | None = None) -> Iterator[Part]:
        """Yield what comes of each run of samples of one image, in order.

        Phrases are always asked in the same company, since a batch may change a figure's last digits: unless all
        samples of a run are known, all are asked.

        Args:
            indices: of the samples; a run must not be split.
            known: earlier answers by index; those of a sample that has changed since are not used.
        """
        problems: list[Problem] = []
        for run in _numbered_runs(self.dataset, indices, problems):
            part = self._known(run, known or {}) or self._ask(run)
            part.problems = [*problems, *part.problems]
            problems.clear()
            yield part
        yield Part(problems=problems)

    def _known(self, run: list[tuple[int, Sample]], known: Mapping[int, Prediction]) -> Part | None:
        part = Part()
        for index, sample in run:
            prediction = known.get(index)
            clipped = None if prediction is None else _same_sample(sample, prediction)
            if prediction is None or clipped is None:
                return None
            part.predictions.append(prediction)
            self._add_case(part, clipped, prediction.hw)
        return part

    def _ask(self, run: list[tuple[int, Sample]]) -> Part:
        part, problems, scenes = Part(), list[str](), list[SceneLike]()
        place = {id(sample): index for index, sample in run}

        def look(image: ImageSource) -> SceneLike:
            scenes.append(self.grounder.look(image))
            return scenes[0]

        samples = [sample for _, sample in run]
        for sample, answer in ask_together(samples, look, lambda scene, said: scene.ground_all(said), problems):
            try:
                clipped = clip_to_image(sample, answer.hw)
                prediction = self._measure(place[id(sample)], clipped, answer)
            except (ValueError, OSError) as error:
                problems.append(f"sample {sample.id!r}: {error}")
                continue
            if not part.fresh and self.absent is not None:
                prediction = replace(prediction, absent=_ask_absent(scenes[0], self.absent.pick(*run[0])))
            mask = encode_rle(answer.mask) if self.keep_masks and answer.mask is not None else None
            part.fresh.append(Logged(prediction, mask))
            self._add_case(part, clipped, answer.hw)
        part.predictions = [one.prediction for one in part.fresh]
        part.problems = [(run[0][0], problem) for problem in problems]
        return part

    def _measure(self, index: int, sample: Sample, answer: GroundingLike) -> Prediction:
        score = score_sample(
            target_box=sample.box_xyxy_px,
            target_mask=None if sample.mask is None else read_mask(sample.mask, answer.hw),
            box=answer.box,
            mask=answer.mask,
            found=answer.found,
        )
        numbers = (*(answer.box or ()), answer.score, answer.agreement)
        if not all(math.isfinite(value) for value in numbers):
            raise ValueError(f"expected finite numbers of the model, got {numbers!r}; check its weights")
        kind, words = phrase_kind(sample.phrase, sample.kind), words_said(sample.phrase)
        labels = labels_of(sample, self.length_bounds, kind, words=words, hw=answer.hw)
        return Prediction(
            index=index,
            id=sample.id,
            image_id=sample.image_id,
            phrase=sample.phrase,
            hw=(int(answer.hw[0]), int(answer.hw[1])),
            target_box=sample.box_xyxy_px,
            box=None if answer.box is None else _plain_box(answer.box),
            score=float(answer.score),
            agreement=float(answer.agreement),
            found=bool(answer.found),
            iou=score.box_iou,
            mask_iou=score.mask_iou,
            intersection_px=score.mask_intersection_px,
            union_px=score.mask_union_px,
            target_px=score.target_px,
            shown_px=score.shown_px,
            labels={name: label for name, label in zip(SLICES, labels, strict=True) if label is not None},
        )

    def _add_case(self, part: Part, sample: Sample, hw: tuple[int, int]) -> None:
        case = Case.of(sample, hw) if self.cases else None
        part.cases += [] if case is None else [case]


def runs_of_one_image(dataset: Sequence[Sample], indices: Iterable[int], problems: list[str]) -> Iterator[list[Sample]]:
    """Yield runs of consecutive samples of one ``image_id``, at most 32 long, to be asked together.

    Args:
        dataset: read one by one.
        indices: which samples, in this order.
        problems: gets a sentence for each sample that cannot be read, which is left out.
    """
    found: list[Problem] = []
    for run in _numbered_runs(dataset, indices, found):
        problems += [problem for _, problem in found]
        found.clear()
        yield [sample for _, sample in run]
    problems += [problem for _, problem in found]


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


def _numbered_runs(
    dataset: Sequence[Sample], indices: Iterable[int], problems: list[Problem]
) -> Iterator[list[tuple[int, Sample]]]:
    run: list[tuple[int, Sample]] = []
    for index in indices:
        try:
            sample = dataset[index]
        except (ValueError, OSError) as error:
            problems.append((index, f"sample number {index}: {error}"))
            continue
        if run and (sample.image_id != run[0][1].image_id or len(run) == _PHRASES_AT_ONCE):
            yield run
            run = []
        run.append((index, sample))
    if run:
        yield run


def _same_sample(sample: Sample, prediction: Prediction) -> Sample | None:
    """The sample, its box clipped, where it is what was asked then; else None."""
    names = (sample.id, sample.image_id, sample.phrase)
    if names != (prediction.id, prediction.image_id, prediction.phrase):
        return None
    try:
        clipped = clip_to_image(sample, prediction.hw)
    except ValueError:
        return None
    return clipped if clipped.box_xyxy_px == prediction.target_box else None


def _plain_box(box: BoxXyxy) -> BoxXyxy:
    """As Python's own numbers, which JSON takes."""
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


def _ask_absent(scene: SceneLike, phrase: str | None) -> Absent | None:
    if phrase is None:
        return None
    try:
        (answer,) = scene.ground_all([phrase])
    except ValueError:
        return None  # the phrase is refused, which is told at its own sample
    return Absent(phrase=phrase, score=float(answer.score), agreement=float(answer.agreement), found=bool(answer.found))
