"""The scores of many samples as one table: a tally of any part of it in one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deixis.evaluate.metrics.sums import IOU_SUMS, SUMS, SampleScore, Tally, exact_sum, terms_of

_COLUMN = {name: place for place, name in enumerate(SUMS)}


class ScoreTable:
    """What each sample adds to each sum, and on which image it is.

    ``terms`` is float64 [N, len(SUMS)]; ``image`` [N] numbers the images in the order of their ids, so that neither
    depends on the order in which the samples came, up to a permutation of the rows.
    """

    def __init__(self, scores: Sequence[SampleScore], image_ids: Sequence[str]) -> None:
        if len(scores) != len(image_ids):
            raise ValueError(f"expected an image id a score, got {len(image_ids)} ids for {len(scores)}; give both")
        self.terms = np.zeros((len(scores), len(SUMS)))
        for row, score in enumerate(scores):
            for name, term in terms_of(score).items():
                self.terms[row, _COLUMN[name]] = term
        numbers = {name: number for number, name in enumerate(sorted(set(image_ids)))}
        self.image = np.array([numbers[name] for name in image_ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.terms)

    def column(self, name: str) -> NDArray[np.float64]:
        """What each sample adds to one of `SUMS`, [N]."""
        return self.terms[:, _COLUMN[name]]

    def tally(self, rows: NDArray[np.bool_] | None = None) -> Tally:
        """The tally of all samples, or of those where ``rows`` [N] is True."""
        terms = self.terms if rows is None else self.terms[rows]
        whole = terms.sum(axis=0)  # exact for whole numbers
        sums = {name: int(whole[place]) for name, place in _COLUMN.items() if name not in IOU_SUMS}
        return Tally({**sums, **{name: exact_sum(terms[:, _COLUMN[name]].tolist()) for name in IOU_SUMS}})
