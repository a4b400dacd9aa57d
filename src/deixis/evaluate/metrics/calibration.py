"""How far a number between 0 and 1 can be read as a probability, and what taking only the surest answers costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

BINS = 10
_CURVE_POINTS = 50


def reliability(score: FloatArray, right: BoolArray, bins: int = BINS) -> list[dict[str, Any]]:
    """Score against truth in equally wide bins.

    Args:
        score: [N], 0..1.
        right: bool [N].
        bins: how many; those without samples are left out.

    Returns:
        ``{"from", "to", "n", "score", "right"}`` each: the bin's bounds, how many are in it, their mean score, and the
        share of them that is right.
    """
    which = _bin_of(score, bins)
    return [
        {
            "from": int(b) / bins,
            "to": (int(b) + 1) / bins,
            "n": int((which == b).sum()),
            "score": float(score[which == b].mean()),
            "right": float(right[which == b].mean()),
        }
        for b in np.unique(which)
    ]


def calibration_error(score: FloatArray, right: BoolArray, bins: int = BINS) -> float:
    """Expected calibration error: the mean over samples of their bin's gap between mean score and share of right."""
    gaps = [one["n"] * abs(one["score"] - one["right"]) for one in reliability(score, right, bins)]
    return float(sum(gaps) / len(score))


def risk_coverage(confidence: FloatArray, right: BoolArray) -> dict[str, Any]:
    """What share of answers is wrong if only the surest are taken.

    Answers of equal confidence cannot be told apart: they are taken together or not at all.

    Args:
        confidence: [N], at least one; the higher, the surer.
        right: bool [N].

    Returns:
        ``area``: the mean over samples of the risk at which each is taken, 0 at best; ``curve``: at most 50 points
        (coverage, risk), from the surest answers to all.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, wrong = confidence[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(sorted_confidence[1:] != sorted_confidence[:-1], True))
    taken = ends + 1
    risk = wrong[ends] / taken
    counts = np.diff(np.concatenate([[0], taken]))
    shown = np.unique(np.linspace(0, len(ends) - 1, _CURVE_POINTS).round().astype(int))
    return {
        "area": float((risk * counts).sum() / len(confidence)),
        "curve": [(float(taken[i] / len(confidence)), float(risk[i])) for i in shown],
    }


def _bin_of(score: FloatArray, bins: int) -> NDArray[np.int64]:
    return np.clip((score * bins).astype(np.int64), 0, bins - 1)
