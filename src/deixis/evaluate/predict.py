"""Ask a model for the phrases of a data set, image by image: a prediction each, with all that calibration needs.

What is known already is not asked again, and a sample that cannot be asked or measured is reported and left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from deixis.evaluate.baselines import Case
from deixis.evaluate.metrics import score_sample
from deixis.evaluate.metrics.slices import SLICES, length_bounds
from deixis.evaluate.metrics.sums import MaskPixels
from deixis.evaluate.predictions import Absent, Prediction
from deixis.evaluate.targets import Target, clip_to_image
from deixis.geometry.images import ImageSource
from deixis.geometry.masks import encode_rle
from deixis.grounder import ImageByImage, runs_of_one_image
from deixis.language.synonyms import is_surely_absent
from deixis.structures import Sample

Problem = tuple[int, str]
"""The index of the sample at which it came up, and a sentence."""
Run = list[tuple[int, Sample]]
"""Samples of one image with their indices, which are asked together."""

_ABSENT_PHRASES = 64
_ABSENT_SEED = 0


class GrounderLike(Protocol):
    """What can be asked: a `deixis.Grounder`, or anything else with its ``look(image).ground_all(phrases)``.

    Of the answers, ``box``, ``mask``, ``score``, ``agreement``, ``found`` and ``hw`` are read, and ``evidence`` where
    there is any; see `deixis.grounder.Grounding`.
    """

    def look(self, image: ImageSource) -> Any:  # noqa: ANN401
        """Encode an image."""
        ...


class AbsentChoice(Protocol):
    """Chooses what an image is asked for that is surely not in it."""

    for_each_sample: bool
    """Whether every sample of an image comes with such a phrase, or only the first."""

    def pick(self, index: int, sample: Sample) -> str | None:
        """A phrase for the image of a sample; None for none."""
        ...


class AbsentPhrases:
    """Phrases of a data set, to be asked of images in which they surely mean nothing: whatever is found is an error.

    Each image gets the first of a seeded choice of phrases, from another start on each, whose category and its like
    are not among the image's annotated instances; images without annotated instances get none, since it is not known
    what they lack. So the pairs depend neither on what else is asked nor on the process that asks.
    """

    for_each_sample = False

    def __init__(self, dataset: Sequence[Sample]) -> None:
        self._phrases: list[tuple[str, str]] = []
        for index in np.random.default_rng(_ABSENT_SEED).permutation(len(dataset))[:_ABSENT_PHRASES]:
            try:
                sample = dataset[int(index)]
            except (ValueError, OSError):
                continue  # it is reported when it is asked
            if sample.category and sample.box_xyxy_px is not None:
                self._phrases.append((sample.phrase, sample.category))

    def pick(self, index: int, sample: Sample) -> str | None:
        """A phrase for the image of a sample; None where none is surely absent."""
        present = {instance.category for instance in sample.instances}
        if not present:
            return None
        for step in range(len(self._phrases)):
            phrase, category = self._phrases[(index + step) % len(self._phrases)]
            if is_surely_absent(phrase, category, present):
                return phrase
        return None


@dataclass
class Part:
    """The outcome for the samples of one image."""

    predictions: list[Prediction] = field(default_factory=list)
    is_fresh: bool = False
    """Whether they were asked now, and not known before."""
    cases: list[Case] = field(default_factory=list)
    """For the baselines."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Asks a model the phrases of a data set and compares its answers with the targets."""

    grounder: GrounderLike
    dataset: Sequence[Sample]
    name: str = ""
    """Of the data set, for the groups by length."""
    absent: AbsentChoice | None = None
    cases: bool = True
    """Whether to collect what the baselines need."""
    keep_masks: bool = False

    def parts(self, indices: Iterable[int], known: Mapping[int, Prediction] | None = None) -> Iterator[Part]:
        """Yield the outcome for each run of samples of one image, in order.

        Phrases are always asked in the same company, since a batch may change a figure's last digits: unless all
        samples of a run are known, all are asked.

        Args:
            indices: of the samples; the samples of an image must not be split.
            known: earlier predictions by index; those of a sample that has changed since are not used.
        """
        problems: list[Problem] = []
        asking = ImageByImage(self.grounder.look)
        for run in runs_of_one_image(readable(self.dataset, indices, problems), lambda one: one[1].image_id):
            part = self._known(run, known or {}) or self._ask(run, asking)
            part.problems = [*problems, *part.problems]
            problems.clear()
            yield part
        yield Part(problems=problems)

    def _known(self, run: Run, known: Mapping[int, Prediction]) -> Part | None:
        part = Part()
        for index, sample in run:
            prediction = known.get(index)
            if prediction is None or not _is_of(prediction, sample):
                return None
            part.predictions.append(prediction)
            self._add_case(part, sample, prediction)
        return part

    def _ask(self, run: Run, asking: ImageByImage[Any]) -> Part:
        part, (first, sample) = Part(is_fresh=True), run[0]
        image, key = sample.image, sample.image_id
        phrases = [one.phrase for _, one in run]
        answers = list(asking.answers(image, phrases, _ground_all, key=key))
        for (index, sample), answer in zip(run, answers, strict=True):
            try:
                prediction = self._measured(index, sample, answer)
            except (ValueError, OSError) as error:
                part.problems.append((first, f"sample {sample.id!r}: {error}"))
                continue
            if self.absent is not None and (self.absent.for_each_sample or not part.predictions):
                phrase = self.absent.pick(*((index, sample) if self.absent.for_each_sample else run[0]))
                said = asking.answers(image, [] if phrase is None else [phrase], _ground_all, key=key)
                prediction = replace(prediction, absent=next((_absent(phrase, one) for one in said), None))
            part.predictions.append(prediction)
            self._add_case(part, sample, prediction)
        return part

    def _measured(self, index: int, sample: Sample, answer: Any) -> Prediction:  # noqa: ANN401
        """The prediction of an answer as `GrounderLike` gives it; raises the answer where it is an error."""
        if isinstance(answer, Exception):
            raise answer
        target = Target.of(sample, answer.hw, length_bounds(self.name))
        score = score_sample(
            target_box=target.box_xyxy_px,
            target_mask=None if target.mask is None else MaskPixels(target.mask, answer.hw),
            box=answer.box,
            mask=answer.mask,
            found=answer.found,
        )
        evidence = tuple(map(float, getattr(answer, "evidence", ())))
        numbers = (*(answer.box or ()), answer.score, answer.agreement)
        if not all(math.isfinite(value) for value in (*numbers, *evidence)):
            raise ValueError(f"expected finite numbers of the model, got {numbers!r}; check its weights")
        return Prediction(
            index=index,
            id=sample.id,
            image_id=sample.image_id,
            phrase=sample.phrase,
            hw=(int(answer.hw[0]), int(answer.hw[1])),
            target_box=target.box_xyxy_px,
            box=None if answer.box is None else tuple(map(float, answer.box)),  # pyright: ignore[reportArgumentType]
            mask=encode_rle(answer.mask) if self.keep_masks and answer.mask is not None else None,
            score=float(answer.score),
            agreement=float(answer.agreement),
            found=bool(answer.found),
            iou=score.box_iou,
            mask_iou=score.mask_iou,
            intersection_px=score.mask_intersection_px,
            union_px=score.mask_union_px,
            target_px=score.target_px,
            shown_px=score.shown_px,
            labels={name: label for name, label in zip(SLICES, target.labels, strict=True) if label is not None},
            evidence=evidence,
        )

    def _add_case(self, part: Part, sample: Sample, prediction: Prediction) -> None:
        case = Case.of(replace(sample, box_xyxy_px=prediction.target_box), prediction.hw) if self.cases else None
        part.cases += [] if case is None else [case]


def readable(
    dataset: Sequence[Sample], indices: Iterable[int], problems: list[Problem]
) -> Iterator[tuple[int, Sample]]:
    """Yield the samples with their indices; ``problems`` gets those that cannot be read."""
    for index in indices:
        try:
            sample = dataset[index]
        except (ValueError, OSError) as error:
            problems.append((index, f"sample number {index}: {error}"))
            continue
        yield index, sample


def _ground_all(scene: Any, phrases: Sequence[str]) -> Sequence[Any]:  # noqa: ANN401  of a GrounderLike
    return scene.ground_all(phrases)


def _is_of(prediction: Prediction, sample: Sample) -> bool:
    """Whether it is a prediction of this very sample: its phrase and, cut to the image, its box are still the same."""
    names = (sample.id, sample.image_id, sample.phrase)
    if names != (prediction.id, prediction.image_id, prediction.phrase):
        return False
    try:
        return clip_to_image(sample, prediction.hw).box_xyxy_px == prediction.target_box
    except ValueError:
        return False


def _absent(phrase: str | None, answer: Any) -> Absent | None:  # noqa: ANN401  as `GrounderLike` gives it
    """The answer to an absent phrase; None where the phrase is refused, which is reported at its own sample."""
    if phrase is None or isinstance(answer, Exception):
        return None
    return Absent(
        phrase=phrase,
        score=float(answer.score),
        agreement=float(answer.agreement),
        found=bool(answer.found),
        evidence=tuple(map(float, getattr(answer, "evidence", ()))),
    )
