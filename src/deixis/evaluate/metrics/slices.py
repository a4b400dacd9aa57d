"""Figures of parts of a data set: by the phrase's length, kind and words, the box's size, distractors and category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deixis.evaluate.metrics.bootstrap import REPLICATES, intervals
from deixis.evaluate.metrics.sums import ScoreTable
from deixis.structures import Sample

SLICES = ("length", "box size", "image share", "rivals", "kind", "words", "category")
METRICS = ("rec.acc@0.5", "rec.mean_iou", "res.miou", "res.oiou", "res.acc@0.5", "ie")
"""The figures of each part."""
WITH_INTERVAL = ("rec.acc@0.5", "res.miou")

_SHORT = (2, 3, 5)
_LONG = (5, 7, 10)
_LENGTHS = {"refcocog": _LONG, "scenesg": _LONG, "referit": (1, 2, 4)}
_SIZES_PX = (("small", 32**2), ("medium", 96**2))
_SHARES = (("<1 %", 0.01), ("1-3 %", 0.03), ("3-10 %", 0.1), ("10-25 %", 0.25), (">25 %", math.inf))
_MANY_RIVALS = 4
_SEVERAL = ("words",)
"""Slices in which a sample may be in several parts."""
_BETWEEN = " + "


def length_bounds(dataset: str) -> tuple[int, int, int]:
    """The greatest numbers of words of the first three of four groups from short to long.

    SMCIM Fig. 5 has four groups a data set, but states their bounds nowhere in its text; these are the customary ones
    of each data set: 1-2, 3, 4-5, 6+ for RefCOCO and RefCOCO+, and here for all that are not named; 1-5, 6-7, 8-10,
    11+ for RefCOCOg, and here for ``scenesg``; 1, 2, 3-4, 5+ for ReferItGame.
    """
    return next((bounds for start, bounds in _LENGTHS.items() if dataset.startswith(start)), _SHORT)


def labels_of(
    sample: Sample,
    bounds: tuple[int, int, int],
    kind: str,
    *,
    words: Sequence[str] = (),
    hw: tuple[int, int] | None = None,
) -> tuple[str | None, ...]:
    """In which part of each of `SLICES` a sample is; None where it is in none.

    - length: words between spaces, see `length_bounds`.
    - box size: COCO's small, medium and large (below 32 x 32, below 96 x 96 pixels), by the box's area.
    - image share: of the image's area that the box has; at a bound the larger group.
    - rivals: how many other instances of the referent's category are annotated; None where the source lists none.
    - words: all that are said, one label that `parts_of` takes apart.

    Args:
        sample: as the data set gives it.
        bounds: of `length_bounds`.
        kind: what the phrase rests on.
        words: what kinds of words it says.
        hw: (height, width) of the image; None where it is unknown.
    """
    size = share = rivals = None
    if sample.box_xyxy_px is not None:
        x1, y1, x2, y2 = sample.box_xyxy_px
        area = (x2 - x1) * (y2 - y1)
        size = next((name for name, limit in _SIZES_PX if area < limit), "large")
        if hw is not None:
            share = next(name for name, limit in _SHARES if area / (hw[0] * hw[1]) < limit)
        if sample.instances and sample.category is not None:
            alike = sum(one.category == sample.category and not one.is_crowd for one in sample.instances)
            same = max(alike, 1)  # the referent may not be among those listed
            rivals = str(same - 1) if same - 1 < _MANY_RIVALS else f"{_MANY_RIVALS}+"
    length = _length(len(sample.phrase.split()), bounds)
    return length, size, share, rivals, kind, _BETWEEN.join(words) or None, sample.category


def parts_of(name: str, label: str | None) -> Sequence[str]:
    """The parts of a slice that a sample with this label is in: none, one, or of the words several.

    >>> parts_of("words", "left + colour"), parts_of("category", "cup + saucer"), parts_of("kind", None)
    (['left', 'colour'], ['cup + saucer'], [])
    """
    if not label:
        return []
    return label.split(_BETWEEN) if name in _SEVERAL else [label]


def rows_by_part(name: str, labels: Sequence[str | None]) -> dict[str, list[int]]:
    """The rows of each part of a slice, where ``labels`` has one a row."""
    members: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        for part in parts_of(name, label):
            members.setdefault(part, []).append(row)
    return members


def report_slices(
    table: ScoreTable,
    labels: Sequence[tuple[str | None, ...]],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of every part.

    Args:
        table: the scores.
        labels: of `labels_of`, one a row of the table.
        replicates: of the intervals, see `deixis.evaluate.metrics.bootstrap.intervals`; below 2 for none.
        seed: of the same.

    Returns:
        ``{slice: {part: {"n", metric: value, "ci95": {metric: [low, high] | None}}}}``, metrics out of `METRICS`, None
        where they count no sample; parts from short to long, small to large, few to many, and the others from the
        commonest on. A slice in which no sample is, is left out. A phrase of several words counts for each.
    """
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for place, name in enumerate(SLICES):
        members = rows_by_part(name, [label[place] for label in labels])
        for part, own in sorted(members.items(), key=lambda pair: _rank(name, pair[0], len(pair[1]))):
            rows = np.zeros(len(labels), np.bool_)
            rows[own] = True
            tally = table.tally(rows)
            bounds = intervals(table, WITH_INTERVAL, rows=rows, replicates=replicates, seed=seed)
            figures = {metric: tally.value(metric) for metric in METRICS}
            report.setdefault(name, {})[part] = {"n": len(own), **figures, "ci95": bounds}
    return report


def _length(words: int, bounds: tuple[int, int, int]) -> str:
    low = 1
    for high in bounds:
        if words <= high:
            return str(low) if low == high else f"{low}-{high}"
        low = high + 1
    return f"{low}+"


def _rank(name: str, part: str, count: int) -> tuple[int, str]:
    if name in ("length", "rivals"):
        return int(part.rstrip("+").partition("-")[0]), part
    if name == "box size":
        return ("small", "medium", "large").index(part), part
    if name == "image share":
        return [share for share, _ in _SHARES].index(part), part
    return -count, part
