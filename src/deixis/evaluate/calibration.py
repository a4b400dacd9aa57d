"""How far a model's score can be trusted: is 0.8 right in 80 % of cases, and what is "found" worth?

An answer is right where its box has an IoU above 0.5, or its mask where the model gives no boxes. A phrase that means
nothing in the image has no right answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.evaluate.metrics import RIGHT, SampleScore
from deixis.evaluate.metrics.bootstrap import REPLICATES, intervals
from deixis.evaluate.metrics.sums import ScoreTable
from deixis.evaluate.predictions import Prediction

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

BINS = 10
_CURVE_POINTS = 50


def calibration_report(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """How well score and agreement separate right answers from wrong ones; None where no answer can be judged.

    Returns:
        ``n`` and ``right``, the share of right answers; ``expected_calibration_error``, and the same
        ``..._with_absent`` where phrases that mean nothing in their image were asked too; ``bins`` of
        `reliability`; ``agreement``, error and bins of the agreement;
        ``risk_coverage`` by ``score`` and by ``agreement``. What is of the agreement is None for a model with one
        branch.
    """
    judged = [(one, right) for one in predictions if (right := is_right(one)) is not None]
    if not judged:
        return None
    right = np.array([was_right for _, was_right in judged], dtype=np.bool_)
    score = np.array([one.score for one, _ in judged])
    agreement = np.array([one.agreement for one, _ in judged])
    absent = np.array([one.absent.score for one in predictions if one.absent is not None])
    with_absent = None
    if absent.size:
        nothing = np.zeros(absent.size, dtype=np.bool_)
        with_absent = calibration_error(np.concatenate([score, absent]), np.concatenate([right, nothing]))
    differs = np.ptp(agreement) > 0
    return {
        "n": len(judged),
        "right": float(right.mean()),
        "expected_calibration_error": calibration_error(score, right),
        "expected_calibration_error_with_absent": with_absent,
        "bins": reliability(score, right),
        "agreement": _of_agreement(agreement, right) if differs else None,
        "risk_coverage": {
            "score": risk_coverage(score, right),
            "agreement": risk_coverage(agreement, right) if differs else None,
        },
    }


def found_report(predictions: Sequence[Prediction], *, replicates: int = REPLICATES) -> dict[str, Any]:
    """How often the model says "found": of right answers, of wrong ones, and of phrases that mean nothing there.

    The last are false alarms. They come from pairs that do not belong together, see
    `deixis.evaluate.predict.AbsentPhrases`; phrases of the data itself that mean nothing are ``no_target_accuracy``.

    Returns:
        Of `found_rates`, and ``ci95`` of the false alarms by bootstrap over images; None where there are no such pairs.
    """
    judged = [(one.found, is_right(one)) for one in predictions if one.target_box is not None]
    said = [(found, right, True) for found, right in judged if right is not None]
    pairs = [(one.image_id, one.absent.found) for one in predictions if one.absent is not None]
    said += [(found, False, False) for _, found in pairs]
    table = ScoreTable([SampleScore(no_target_right=not found) for _, found in pairs], [name for name, _ in pairs])
    denied = intervals(table, ["no_target_accuracy"], replicates=replicates)["no_target_accuracy"]
    rates = found_rates(*np.array(said, dtype=np.bool_).reshape(-1, 3).T)
    return {**rates, "ci95": None if denied is None else (1 - denied[1], 1 - denied[0])}


def found_rates(found: BoolArray, right: BoolArray, belongs: BoolArray) -> dict[str, Any]:
    """How often "found" is said.

    Args:
        found: bool [N], whether it is said.
        right: bool [N], whether the answer is right.
        belongs: bool [N], whether the phrase means something in the image.

    Returns:
        ``n_right``, ``found_of_right``, ``n_wrong``, ``found_of_wrong``, ``n_absent``, ``false_alarm_rate``; a rate
        over nothing is None.
    """
    kinds = {
        ("n_right", "found_of_right"): right,
        ("n_wrong", "found_of_wrong"): belongs & ~right,
        ("n_absent", "false_alarm_rate"): ~belongs,
    }
    rates: dict[str, Any] = {}
    for (number, rate), rows in kinds.items():
        rates[number] = int(rows.sum())
        rates[rate] = float(found[rows].mean()) if rows.any() else None
    return rates


def is_right(prediction: Prediction) -> bool | None:
    """Whether the answer is right; None where the data lacks what the model gives."""
    if prediction.target_box is None:
        return False
    overlap = prediction.mask_iou if prediction.iou is None else prediction.iou
    return None if overlap is None else overlap > RIGHT


def reliability(score: FloatArray, right: BoolArray, bins: int = BINS) -> list[dict[str, Any]]:
    """Scores against how often they are right, in bins of equal width.

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

    Answers of equal confidence are taken together or not at all, as nothing separates them.

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


def _of_agreement(agreement: FloatArray, right: BoolArray) -> dict[str, Any]:
    return {"expected_calibration_error": calibration_error(agreement, right), "bins": reliability(agreement, right)}


def _bin_of(score: FloatArray, bins: int) -> NDArray[np.int64]:
    return np.clip((score * bins).astype(np.int64), 0, bins - 1)
