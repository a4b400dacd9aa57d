"""Batches of own data with a share of drawn scenes, so that what a model knows of these is not lost."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from deixis.data.epochs import Epochs
from deixis.data.loading import CanvasRules, Mixture, TrainingBatch


@dataclass(frozen=True, kw_only=True)
class Rehearsed(Mixture):
    """``own`` data, and pictures of the mixture beside it in every batch."""

    own: Epochs
    share: float
    """Of a batch's pictures that are the mixture's, above 0 and below 1; at least one picture is of each."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Of both."""
        return (*self.own.problems, *super().problems)

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
        """The batch of that step: of ``images`` pictures the share is the mixture's; with 1 it is own data's."""
        known = min(max(round(self.share * images), 1), images - 1)
        options = {"phrases": phrases, "size": size, "absent": absent, "rules": rules}
        own = self.own.batch(seed, step, images=images - known, **options)
        return own if not known else joined(own, super().batch(seed, step, images=known, **options))


_OF_AN_IMAGE = ("image_index", "thing_index", "boxed_index")


def joined(one: TrainingBatch, two: TrainingBatch) -> TrainingBatch:
    """Two batches of one canvas as one: the pictures, phrases and things of the first, then those of the second."""
    values = {}
    for field in fields(TrainingBatch):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name == "seen":
            values[field.name] = a and {name: np.concatenate([a[name], b[name]]) for name in a}
        elif isinstance(a, list):
            values[field.name] = [*a, *b]
        else:
            values[field.name] = np.concatenate([a, b + len(one.pixels) if field.name in _OF_AN_IMAGE else b])
    return TrainingBatch(**values)
