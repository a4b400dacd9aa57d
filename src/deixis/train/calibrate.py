"""Fit what turns the model's raw signs into a probability, on validation data, and store it in the checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from deixis.geometry.boxes import box_iou
from deixis.grounder import Grounder
from deixis.language.synonyms import is_surely_absent
from deixis.progress import progress_over
from deixis.structures import Sample


@dataclass(frozen=True)
class Evidence:
    """One grounding as calibration sees it."""

    signs: tuple[float, ...]
    agreement: float
    right: bool


def gather_evidence(
    grounder: Grounder, samples: Sequence[Sample], *, absent_share: float, seed: int = 0, progress: str = ""
) -> list[Evidence]:
    """Ground every sample, and a share of images with a phrase of another image that surely means nothing in them.

    Images whose things are not listed (a sample without ``instances``) get none: nobody knows what they lack.
    ``progress`` labels a progress bar; empty keeps silent.
    """
    rng = np.random.default_rng(seed)
    found: list[Evidence] = []
    for sample in progress_over(samples, progress, show=bool(progress)):
        scene = grounder.look(sample.image)
        pairs = [(sample.phrase, sample.box_xyxy_px)]
        other = samples[int(rng.integers(len(samples)))]
        present = {i.category for i in sample.instances}
        wanted = rng.random() < absent_share
        if wanted and present and is_surely_absent(other.phrase, other.category or "", present):
            pairs.append((other.phrase, None))
        for (_, box), answer in zip(pairs, scene.ground_all([phrase for phrase, _ in pairs]), strict=True):
            right = (
                box is not None and answer.box is not None and float(box_iou(np.array(answer.box), np.array(box))) > 0.5
            )
            found.append(Evidence(answer.evidence, answer.agreement, right))
    return found


def fit_calibration(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """Logistic regression from signs to "the box is right", and the thresholds of ``found``.

    Returns:
        ``weights`` and ``bias`` of the regression; ``found_score`` and ``found_agreement``, the pair with the highest
        balanced accuracy on the same evidence; ``n`` and ``expected_calibration_error``.
    """
    if len({e.right for e in evidence}) < 2:
        raise ValueError(
            f"expected both right and wrong boxes among {len(evidence)} groundings, got one kind; use more data"
        )
    x = torch.tensor([e.signs for e in evidence], dtype=torch.float64)
    y = torch.tensor([e.right for e in evidence], dtype=torch.float64)
    parameters = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ parameters[:-1] + parameters[-1], y)
        loss = loss + 1e-3 * parameters[:-1].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        score = (x @ parameters[:-1] + parameters[-1]).sigmoid().numpy()
    right = y.numpy() > 0
    agreement = np.array([e.agreement for e in evidence])
    threshold, agreement_threshold = best_thresholds(score, agreement, right)
    return {
        "weights": [round(v, 5) for v in parameters[:-1].tolist()],
        "bias": round(parameters[-1].item(), 5),
        "found_score": threshold,
        "found_agreement": agreement_threshold,
        "n": len(evidence),
        "expected_calibration_error": round(calibration_error(score, right), 4),
    }


def best_thresholds(score: np.ndarray, agreement: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The score and agreement thresholds of highest balanced accuracy, out of a grid."""
    best = (-1.0, 0.5, 0.0)
    for threshold in np.linspace(0.1, 0.9, 17).round(2):  # rounded before it is tried, as it is stored
        for floor in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
            found = (score >= threshold) & (agreement >= floor)
            balanced = (found[right].mean() + (~found[~right]).mean()) / 2
            if balanced > best[0] + 1e-9:
                best = (float(balanced), float(threshold), floor)
    return best[1], best[2]


def calibration_error(score: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: the mean gap between score and share of right boxes over equally wide bins."""
    which = np.minimum((score * bins).astype(int), bins - 1)
    gaps = [abs(score[which == b].mean() - right[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def store_in_config(folder: Path, **entries: Any) -> None:  # noqa: ANN401  JSON values
    """Replace top-level entries of a checkpoint's config.json, whole or not at all."""
    path = folder / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored.update(entries)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(stored, indent=1), encoding="utf-8")
    os.replace(partial, path)
