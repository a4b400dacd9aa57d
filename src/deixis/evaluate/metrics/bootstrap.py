"""How sure a figure is: 95 % intervals by drawing the images anew, with replacement.

Images are drawn and not samples, since the phrases of an image are right or wrong together: intervals over samples
would be too narrow (the cluster bootstrap, percentile method).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deixis.evaluate.metrics.sums import RATIOS, ScoreTable

REPLICATES = 1000
LEVEL = 0.95
_STEPS = 2.0**30
_TABLE_ENTRIES = 4_000_000

Interval = tuple[float, float]


def intervals(
    table: ScoreTable,
    metrics: Sequence[str] = tuple(RATIOS),
    *,
    rows: NDArray[np.bool_] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """The interval of each metric, None where all samples that count for it are on one image.

    Equal tables give equal intervals, in whatever order their samples came: sums over images are rounded to 2^-30, so
    that adding them up in floats is exact.

    Args:
        table: the scores.
        metrics: names in `deixis.evaluate.metrics.sums.RATIOS`.
        rows: bool [N]: only these samples, and the images that they are on.
        replicates: how many times the images are drawn.
        seed: equal seeds draw equal images.
    """
    sums, names = _sums_by_image(table, metrics, rows)
    if len(sums) < 2 or replicates < 2:
        return dict.fromkeys(metrics)
    drawn = _draw(sums, replicates, np.random.default_rng(seed))
    found: dict[str, Interval | None] = {}
    for metric in metrics:
        parts, whole = RATIOS[metric]
        if np.count_nonzero(sums[:, names.index(whole)]) < 2:
            found[metric] = None
            continue
        above = drawn[:, [names.index(part) for part in parts]].sum(axis=1)
        below = drawn[:, names.index(whole)]
        found[metric] = _bounds((above / np.where(below > 0, below, 1))[below > 0])
    return found


def paired_difference(
    a: ScoreTable, b: ScoreTable, metric: str, *, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, Interval | None]:
    """By how much ``b`` is above ``a`` on the same samples, and the interval of that.

    Both are measured on the same drawn images, so that what both find hard cancels out.

    Raises:
        ValueError: the tables are not of the same samples in the same order, or the metric counts none of them.
    """
    if len(a) != len(b) or not (a.image == b.image).all():
        raise ValueError(f"expected scores of the same samples, got {len(a)} and {len(b)}; score both on the same data")
    values = a.tally().value(metric), b.tally().value(metric)
    if values[0] is None or values[1] is None:
        raise ValueError(f"expected both to have the metric {metric!r}, got {values!r}; choose another one")
    (sums_a, names), (sums_b, _) = (_sums_by_image(table, [metric], None) for table in (a, b))
    parts, whole = RATIOS[metric]
    if np.count_nonzero(sums_a[:, names.index(whole)] * sums_b[:, names.index(whole)]) < 2:
        return values[1] - values[0], None
    drawn = _draw(np.concatenate([sums_a, sums_b], axis=1), replicates, np.random.default_rng(seed))
    above = drawn.reshape(replicates, 2, -1)[:, :, [names.index(part) for part in parts]].sum(axis=2)
    below = drawn.reshape(replicates, 2, -1)[:, :, names.index(whole)]
    kept = (below > 0).all(axis=1)
    ratios = above[kept] / below[kept]
    return values[1] - values[0], _bounds(ratios[:, 1] - ratios[:, 0]) if kept.any() else None


def _sums_by_image(
    table: ScoreTable, metrics: Sequence[str], rows: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], list[str]]:
    """The sums that the metrics need, [images, sums], and their names."""
    names = list(dict.fromkeys(name for m in metrics for name in (*RATIOS[m][0], RATIOS[m][1])))
    chosen = np.ones(len(table), dtype=np.bool_) if rows is None else rows
    images, index = np.unique(table.image[chosen], return_inverse=True)
    columns = [
        np.bincount(index, weights=np.rint(table.column(name)[chosen] * _STEPS), minlength=len(images)) / _STEPS
        for name in names
    ]
    return np.stack(columns, axis=1), names


def _draw(sums: NDArray[np.float64], replicates: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The sums over as many images as there are, drawn with replacement: [replicates, sums]."""
    num_images, at_once = len(sums), max(1, _TABLE_ENTRIES // len(sums))
    drawn = []
    for start in range(0, replicates, at_once):
        count = min(at_once, replicates - start)
        draws = rng.integers(num_images, size=(count, num_images)) + num_images * np.arange(count)[:, None]
        times = np.bincount(draws.ravel(), minlength=count * num_images).reshape(count, num_images)
        drawn.append(times.astype(np.float64) @ sums)
    return np.concatenate(drawn)


def _bounds(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
