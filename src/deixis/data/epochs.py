"""Training batches of a data set that brings its own expressions: every referent once an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deixis.data.loading import CanvasRules, Picture, Target, TrainingBatch, collate
from deixis.geometry.images import read_image
from deixis.geometry.masks import read_mask
from deixis.structures import Sample


@dataclass(frozen=True)
class Epochs:
    """Referents in a new order each epoch, each with one of its expressions drawn at random. MCN section 4.3."""

    samples: Sequence[Sample]
    referents: Sequence[Sequence[int]]
    """Indices of ``samples``: one group of expressions a referent."""

    def num_steps(self, images: int) -> int:
        """Batches of ``images`` pictures in an epoch; the last one of an epoch may be smaller."""
        return -(-len(self.referents) // images)

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

        A referent whose image cannot be read is passed over. Where that is so of a whole batch, the next one of the
        epoch's order that can be read stands in; ValueError if there is none.
        """
        epoch, place = divmod(step, self.num_steps(images))
        order = np.random.default_rng((seed, epoch)).permutation(len(self.referents))
        rng = np.random.default_rng((seed, epoch, place))
        pictures, problem = [], "no referents"
        own = len(order[place * images : (place + 1) * images])
        for count, referent in enumerate(np.roll(order, -place * images)):
            if count >= own and pictures:
                break
            group = self.referents[referent]
            chosen = rng.permutation(len(group))[:phrases]
            try:
                pictures.append(_picture([self.samples[group[one]] for one in chosen]))
            except (OSError, ValueError) as error:
                problem = str(error)
        if not pictures:
            raise ValueError(f"expected images that can be read, got none of {len(order)} referents ({problem})")
        return collate(pictures, size, rng, absent, rules)


def group_by_referent(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of the samples of one image and one box, for data that does not say what belongs together."""
    groups: dict[tuple[str, object], list[int]] = {}
    for index in range(len(samples)):
        groups.setdefault((samples[index].image_id, samples[index].box_xyxy_px), []).append(index)
    return list(groups.values())


def _picture(samples: list[Sample]) -> Picture:
    image = read_image(samples[0].image)
    masks = [None if s.mask is None else read_mask(s.mask, image.shape[:2]) for s in samples]
    targets = [Target(s.phrase, s.box_xyxy_px, mask, s.category or "") for s, mask in zip(samples, masks, strict=True)]
    present = frozenset(i.category for i in samples[0].instances)
    return Picture(image, targets, present or None)
