"""The shapes as polygons."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

HOLE_RADIUS = 0.58
"""The ring's hole, as a fraction of its radius."""


def _outlines() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
    """Each shape's outline and hole, centred on its box, whose area is scaled to 4."""
    turn = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    spikes = np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    star = spikes * np.stack([np.sin(np.arange(10) * math.pi / 5), -np.cos(np.arange(10) * math.pi / 5)], axis=1)
    heart = np.stack(
        [
            16 * np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)),
        ],
        axis=1,
    )
    arm, end = 0.34, 1.0
    quarter = [(arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm), (arm, end)]
    cross = np.array([*quarter, *((-x, -y) for x, y in quarter)], dtype=float)
    arrow = [(-1, -0.28), (0.1, -0.28), (0.1, -0.78), (1, 0), (0.1, 0.78), (0.1, 0.28), (-1, 0.28)]
    raw = {
        "circle": circle,
        "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float),
        "triangle": np.array([(0, -1), (1, 0.8), (-1, 0.8)], dtype=float),
        "star": star,
        "heart": heart,
        "cross": cross,
        "ring": circle,
        "diamond": np.array([(0, -1.3), (0.9, 0), (0, 1.3), (-0.9, 0)], dtype=float),
        "crescent": _crescent(),
        "arrow": np.array(arrow, dtype=float),
    }
    fitted = {name: _fit(points) for name, points in raw.items()}
    return {name: (points, HOLE_RADIUS * circle if name == "ring" else None) for name, points in fitted.items()}


def _crescent() -> NDArray[np.float64]:
    """A unit circle with a bite out of it."""
    moon_x, moon_r = 0.42, 0.78  # the bite's centre and radius
    tip = (1 - moon_r**2 + moon_x**2) / (2 * moon_x)
    back = np.linspace(math.acos(tip), 2 * math.pi - math.acos(tip), 48)
    bite_end = math.atan2(math.sqrt(1 - tip**2), tip - moon_x)
    bite = np.linspace(2 * math.pi - bite_end, bite_end, 48)
    return np.concatenate(
        [
            np.stack([np.cos(back), np.sin(back)], axis=1),
            np.stack([moon_r * np.cos(bite) + moon_x, moon_r * np.sin(bite)], axis=1),
        ]
    )


def _fit(points: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) * 2 / math.sqrt(float(np.prod(high - low)))


OUTLINES = _outlines()
"""Shape -> its outline [P, 2], and its hole's or None: x to the right, y down, centred on the outline's box, whose
area is 4, so that a radius of 1 means about the same size in every shape."""
