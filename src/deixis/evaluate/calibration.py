"""How far a model's own doubts can be trusted: is a score of 0.8 right in 80 % of cases, and what is "found" worth.

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
from deixis.evaluate.metrics.calibration import calibration_error, reliability, risk_coverage
from deixis.evaluate.metrics.table import ScoreTable
from deixis.evaluate.prediction_log import Prediction


def calibration_report(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """How far score and agreement tell right answers from wrong ones; None where no answer can be judged.

    Returns:
        ``n`` and ``right``, the share of right answers; ``expected_calibration_error``, and the same
        ``..._with_absent`` where phrases that mean nothing in their image were asked too; ``bins`` of
        `deixis.evaluate.metrics.calibration.reliability`; ``agreement``, error and bins of the agreement;
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
    told = np.ptp(agreement) > 0
    return {
        "n": len(judged),
        "right": float(right.mean()),
        "expected_calibration_error": calibration_error(score, right),
        "expected_calibration_error_with_absent": with_absent,
        "bins": reliability(score, right),
        "agreement": _of_agreement(agreement, right) if told else None,
        "risk_coverage": {
            "score": risk_coverage(score, right),
            "agreement": risk_coverage(agreement, right) if told else None,
        },
    }


def found_report(predictions: Sequence[Prediction], *, replicates: int = REPLICATES) -> dict[str, Any]:
    """How often the model says "found": to right answers, to wrong ones, and to phrases that mean nothing there.

    The last are false alarms. They come from pairs that do not belong together, see
    `deixis.evaluate.running.AbsentPhrases`; phrases of the data itself that mean nothing are ``no_target_accuracy``.

    Returns:
        ``n_right``, ``found_of_right``, ``n_wrong``, ``found_of_wrong``, ``n_absent``, ``false_alarm_rate`` and its
        ``ci95`` by bootstrap over images; None where there are no such pairs.
    """
    judged = [(one.found, is_right(one)) for one in predictions if one.target_box is not None]
    said_right = [found for found, right in judged if right is True]
    said_wrong = [found for found, right in judged if right is False]
    pairs = [(one.image_id, one.absent.found) for one in predictions if one.absent is not None]
    said_absent = [found for _, found in pairs]
    table = ScoreTable([SampleScore(no_target_right=not found) for found in said_absent], [name for name, _ in pairs])
    denied = intervals(table, ["no_target_accuracy"], replicates=replicates)["no_target_accuracy"]
    return {
        "n_right": len(said_right),
        "found_of_right": _share(said_right),
        "n_wrong": len(said_wrong),
        "found_of_wrong": _share(said_wrong),
        "n_absent": len(said_absent),
        "false_alarm_rate": _share(said_absent),
        "ci95": None if denied is None else (1 - denied[1], 1 - denied[0]),
    }


def is_right(prediction: Prediction) -> bool | None:
    """Whether the answer is right; None where nobody can tell, as the data lacks what the model gives."""
    if prediction.target_box is None:
        return False
    overlap = prediction.mask_iou if prediction.iou is None else prediction.iou
    return None if overlap is None else overlap > RIGHT


def _of_agreement(agreement: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    return {"expected_calibration_error": calibration_error(agreement, right), "bins": reliability(agreement, right)}


def _share(said: Sequence[bool]) -> float | None:
    return sum(said) / len(said) if said else None
