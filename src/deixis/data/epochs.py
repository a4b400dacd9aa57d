"""Training batches of a data set that brings its own expressions: every referent, or expression, once an epoch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from deixis.data.attributes import word_labels
from deixis.data.augment import View
from deixis.data.augment.pipelines import Pipeline
from deixis.data.captions.writing import VisibleInstance
from deixis.data.dataset import as_dataset
from deixis.data.loading import CanvasRules, TrainingBatch, collate
from deixis.data.packed import PackedSamples
from deixis.data.pictures import Boxed, Picture, Target, boxed, counted
from deixis.geometry.images import read_image
from deixis.geometry.masks import read_mask
from deixis.structures import Sample

ONE_PER = ("referent", "expression")


@dataclass(frozen=True)
class Epochs:
    """Referents, or expressions, in a new order each epoch.

    What is drawn for one of them, its expression and its augmentation, follows from (seed, epoch, its index) alone:
    no number of workers, size of batch or damaged neighbour changes it.
    """

    samples: Sequence[Sample]
    referents: Sequence[Sequence[int]]
    """Indices of ``samples``: one group of expressions a referent."""
    augment: Pipeline | None = None
    one_per: str = "referent"
    """``referent``: an expression of each, drawn at random (MCN section 4.3); ``expression``: all of them (SMCIM)."""

    def __post_init__(self) -> None:
        if self.one_per not in ONE_PER:
            raise ValueError(f"expected one_per out of {ONE_PER}, got {self.one_per!r}; choose one")

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each record that was left out of the samples, to be told when a training starts."""
        return as_dataset(self.samples).problems

    @cached_property
    def _groups(self) -> Sequence[Sequence[int]]:
        """Groups of expressions of which each gives one picture an epoch."""
        if self.one_per == "referent":
            return self.referents
        return [[one] for group in self.referents for one in group]

    def num_steps(self, images: int) -> int:
        """Batches of ``images`` pictures in an epoch; the last one of an epoch may be smaller."""
        return -(-len(self._groups) // images)

    def batch(
        self,
        seed: int,
        step: int,
        *,
        images: int,
        phrases: int,
        size: int,
        absent: float,
        rules: CanvasRules = CanvasRules(),  # noqa: B008  it is frozen
    ) -> TrainingBatch:
        """The batch of that step, with up to ``phrases`` expressions of each referent.

        A picture that cannot be read is passed over. Where that is so of a whole batch, the next one of the epoch's
        order that can be read stands in; ValueError if there is none.
        """
        epoch, place = divmod(step, self.num_steps(images))
        order = _order_of(seed, epoch, len(self._groups))
        pictures, problem = [], "no referents"
        own = len(order[place * images : (place + 1) * images])
        for count in range(len(order)):
            if count >= own and pictures:
                break
            index = order[(place * images + count) % len(order)]
            group = self._groups[index]
            rng = np.random.default_rng((seed, epoch, index, 1))
            chosen = rng.permutation(len(group))[:phrases]
            try:
                pictures.append(self._picture([self._sample(group[one]) for one in chosen], rng, size, rules))
            except (OSError, ValueError) as error:
                problem = str(error)
                _tell_once(problem)
        if not pictures:
            raise ValueError(f"expected images that can be read, got none of {len(order)} referents ({problem})")
        return collate(pictures, size, np.random.default_rng((seed, epoch, place, 2)), absent, rules)

    def _sample(self, index: int) -> Sample:
        """A sample; of packed data at the size of its packed picture."""
        return self.samples.small(index) if isinstance(self.samples, PackedSamples) else self.samples[index]

    def _picture(self, samples: list[Sample], rng: np.random.Generator, size: int, rules: CanvasRules) -> Picture:
        image = samples[0].image
        if not isinstance(self.samples, PackedSamples) or not isinstance(image, np.ndarray):
            image = read_image(image)  # packed pixels are neither decoded nor copied
        masks = [None if s.mask is None else read_mask(s.mask, image.shape[:2]) for s in samples]
        targets = [Target(s.phrase, s.box_xyxy_px, m, s.category or "") for s, m in zip(samples, masks, strict=True)]
        present = frozenset(i.category for i in samples[0].instances) or None
        things = samples[0].instances
        meant = {t.box_xyxy_px: Boxed(t.box_xyxy_px, word_labels(t.category, ())) for t in targets if t.box_xyxy_px}
        known = boxed(things) or [*meant.values()]
        picture = Picture(image, targets, present, counts=counted(things), boxed=known)
        if self.augment is None or self.augment == Pipeline():
            return picture
        return _augmented(self.augment, picture, samples[0], rng, size, rules)


@lru_cache(maxsize=4)  # a batch needs a few of hundred thousands
def _order_of(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False
    return order


_TOLD: set[str] = set()
_MOST_TOLD = 5


def _tell_once(problem: str) -> None:
    """Say on stderr what was passed over, the first few of each process that reads."""
    if problem in _TOLD or len(_TOLD) >= _MOST_TOLD or sys.stderr is None:
        return
    _TOLD.add(problem)
    more = "; more of the kind are not told" if len(_TOLD) == _MOST_TOLD else ""
    print(f"training: a picture is passed over: {problem}{more}", file=sys.stderr, flush=True)


def _augmented(
    augment: Pipeline, picture: Picture, sample: Sample, rng: np.random.Generator, size: int, rules: CanvasRules
) -> Picture:
    """The picture on its canvas, moved; the things that its sample lists decide what its phrases allow."""
    meant = [
        VisibleInstance(category=target.category, box_xyxy_px=target.box_xyxy_px, mask=target.mask)
        for target in picture.targets
        if target.box_xyxy_px is not None
    ]
    rivals = [
        VisibleInstance(category=instance.category, box_xyxy_px=instance.box_xyxy_px, is_crowd=instance.is_crowd)
        for instance in sample.instances
        if instance.box_xyxy_px != sample.box_xyxy_px
    ]
    placed = augment.on_canvas(
        View(picture.image, (*meant, *rivals)),
        [target.phrase for target in picture.targets],
        rng,
        size,
        resize=rules.resize,
        fill=rules.fill,
        meant=len(meant),
    )
    seen = iter(placed.view.instances)
    targets = []
    for target, phrase in zip(picture.targets, placed.phrases, strict=True):
        moved = None if target.box_xyxy_px is None else next(seen)
        targets.append(Target(phrase, moved and moved.box_xyxy_px, moved and moved.mask, target.category))
    return replace(
        picture,
        image=placed.view.image,
        targets=targets,
        content_xyxy_px=placed.content_xyxy_px,
        boxed=boxed(placed.view.instances),
    )
