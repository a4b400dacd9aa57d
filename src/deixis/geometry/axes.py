"""Axes of drawn curves: ends and steps that people count in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TICKS = 5


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` in steps of ``step``."""

    low: float
    high: float
    step: float

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """All multiples of the step from ``low`` to ``high``."""
        return [self.low + self.step * number for number in range(round((self.high - self.low) / self.step) + 1)]

    def label(self, value: float) -> str:
        """With as many digits as the step has."""
        return f"{value:.{max(0, -math.floor(math.log10(self.step)))}f}"


def round_axis(values: Sequence[float]) -> Axis:
    """An axis around the values whose ends are multiples of a step of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    spread = max(high - low, 0.1 * abs(high), 1e-3)
    rough = spread / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    below, above = math.floor(low / step), math.ceil(high / step)
    if below == above:
        below, above = below - 1, above + 1
    return Axis(below * step, above * step, step)
