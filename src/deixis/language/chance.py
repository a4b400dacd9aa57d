"""Random picks through a passed-in generator; much faster on short tuples than ``Generator.choice``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of ``choices``, each equally likely; ``choices`` must not be empty."""
    return choices[int(rng.random() * len(choices))]


def draw(rng: np.random.Generator, weighted: Sequence[tuple[float, T]]) -> T:
    """One of the values of ``weighted`` (weight, value) by weight; the weights need not sum to one."""
    roll = rng.random() * sum(weight for weight, _ in weighted)
    for weight, value in weighted:
        roll -= weight
        if roll < 0:
            return value
    return weighted[-1][1]
