"""Fit what turns the model's raw signs into a probability, on validation data, and store it in the checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deixis.evaluate.metrics.calibration import calibration_error
from deixis.files import write_text
from deixis.geometry.boxes import box_iou
from deixis.grounder import Grounder
from deixis.language.synonyms import is_surely_absent
from deixis.progress import progress_over
from deixis.structures import Sample

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_RIDGE = 1e-3
_STEPS = 200
_FOLDS = 5


@dataclass(frozen=True)
class Evidence:
    """One grounding as calibration sees it."""

    signs: tuple[float, ...]
    agreement: float
    right: bool
    image: str | None = None
    """Groundings of one image stay together where evidence is split; None: this one stands alone."""
    belongs: bool = True
    """Whether the phrase means something in the image."""


def gather_evidence(
    grounder: Grounder,
    samples: Sequence[Sample],
    *,
    absent_share: float,
    seed: int = 0,
    progress: str = "",
    problems: list[str] | None = None,
) -> list[Evidence]:
    """Ground every sample, and a share of images with a phrase of another image that surely means nothing in them.

    Images whose things are not listed (a sample without ``instances``) get none: nobody knows what they lack.
    ``progress`` labels a progress bar; empty keeps silent. ``problems`` gets a sentence for each sample whose image or
    phrase cannot be used, which is left out; without it the first of them ends the work.
    """
    rng = np.random.default_rng(seed)
    found: list[Evidence] = []
    for sample in progress_over(samples, progress, show=bool(progress)):
        pairs = [(sample.phrase, sample.box_xyxy_px)]
        other = samples[int(rng.integers(len(samples)))]
        present = {i.category for i in sample.instances}
        wanted = rng.random() < absent_share
        if wanted and present and is_surely_absent(other.phrase, other.category or "", present):
            pairs.append((other.phrase, None))
        try:
            answers = grounder.look(sample.image).ground_all([phrase for phrase, _ in pairs])
        except (ValueError, OSError) as error:
            if problems is None:
                raise
            problems.append(f"sample {sample.id!r}: {error}; left out")
            continue
        for (_, box), answer in zip(pairs, answers, strict=True):
            right = (
                box is not None and answer.box is not None and float(box_iou(np.array(answer.box), np.array(box))) > 0.5
            )
            found.append(Evidence(answer.evidence, answer.agreement, right, sample.image_id, box is not None))
    return found


def fit_calibration(
    evidence: Sequence[Evidence], *, keep: tuple[Sequence[float], float] | None = None
) -> dict[str, Any]:
    """Logistic regression from signs to "the box is right", its temperature, and the thresholds of ``found``.

    Weights that are fitted on few samples are too sure of themselves on others. So each fifth of the images is also
    scored by weights of the others; the temperature, the thresholds and all that is told of them come from these.

    Args:
        evidence: of validation data.
        keep: weights and bias that stay as they are; only temperature and thresholds are fitted then.

    Returns:
        ``weights`` and ``bias`` of the regression, divided by ``temperature`` already; ``found_score`` and
        ``found_agreement``, the pair of highest balanced accuracy; ``n``, ``expected_calibration_error``; ``found``,
        see :func:`found_rates`.

    Raises:
        ValueError: all boxes are right, or all are wrong.
    """
    if len({e.right for e in evidence}) < 2:
        raise ValueError(
            f"expected both right and wrong boxes among {len(evidence)} groundings, got one kind; use more data"
        )
    x = torch.tensor([e.signs for e in evidence], dtype=torch.float64)
    y = torch.tensor([e.right for e in evidence], dtype=torch.float64)
    if keep is None:
        parameters = _fit_weights(x, y)
        logits = _held_out_logits(x, y, _folds(evidence))
    else:
        parameters = torch.tensor([*keep[0], keep[1]], dtype=torch.float64)
        logits = _logits(x, parameters)
    temperature = 1.0 if logits is None else fit_temperature(logits.numpy(), y.numpy() > 0)
    score = ((_logits(x, parameters) if logits is None else logits) / temperature).sigmoid().numpy()
    right, agreement = y.numpy() > 0, np.array([e.agreement for e in evidence])
    threshold, floor = best_thresholds(score, agreement, right)
    return {
        "weights": [round(v / temperature, 5) for v in parameters[:-1].tolist()],
        "bias": round(parameters[-1].item() / temperature, 5),
        "temperature": round(temperature, 4),
        "found_score": threshold,
        "found_agreement": floor,
        "n": len(evidence),
        "expected_calibration_error": round(calibration_error(score, right), 4),
        "found": found_rates((score >= threshold) & (agreement >= floor), evidence),
    }


def fit_temperature(logits: FloatArray, right: BoolArray) -> float:
    """T of the likeliest sigmoid(logit / T): above 1 where the logits are too sure, below 1 where too doubtful.

    Args:
        logits: [N].
        right: bool [N], both kinds.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2, with a weak pull towards 1.
    """
    z, y = torch.from_numpy(logits), torch.from_numpy(right).double()
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    _minimise(log_t, lambda: F.binary_cross_entropy_with_logits(z * (-log_t).exp(), y) + _RIDGE * log_t.square().sum())
    return math.exp(log_t.item())


def best_thresholds(score: FloatArray, agreement: FloatArray, right: BoolArray) -> tuple[float, float]:
    """The score and agreement thresholds of highest balanced accuracy, out of a grid."""
    best = (-1.0, 0.5, 0.0)
    for threshold in np.linspace(0.1, 0.9, 17).round(2):  # rounded before it is tried, as it is stored
        for floor in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
            found = (score >= threshold) & (agreement >= floor)
            balanced = (found[right].mean() + (~found[~right]).mean()) / 2
            if balanced > best[0] + 1e-9:
                best = (float(balanced), float(threshold), floor)
    return best[1], best[2]


def found_rates(found: BoolArray, evidence: Sequence[Evidence]) -> dict[str, Any]:
    """How often "found" is said: of right boxes, of wrong ones, and of phrases that mean nothing in their image.

    Returns:
        ``n_right``, ``found_of_right``, ``n_wrong``, ``found_of_wrong``, ``n_absent``, ``false_alarm_rate``; a rate
        over nothing is None.
    """
    right = np.array([e.right for e in evidence])
    belongs = np.array([e.belongs for e in evidence])
    kinds = {
        ("n_right", "found_of_right"): right,
        ("n_wrong", "found_of_wrong"): belongs & ~right,
        ("n_absent", "false_alarm_rate"): ~belongs,
    }
    told: dict[str, Any] = {}
    for (number, rate), rows in kinds.items():
        told[number] = int(rows.sum())
        told[rate] = round(float(found[rows].mean()), 4) if rows.any() else None
    return told


def store_in_config(folder: Path, **entries: Any) -> None:  # noqa: ANN401  JSON values
    """Replace top-level entries of a checkpoint's config.json, whole or not at all."""
    path = folder / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored.update(entries)
    write_text(path, json.dumps(stored, indent=1))


def stored_regression(grounder: Grounder) -> tuple[Sequence[float], float]:
    """Weights and bias that the model's score is made with now."""
    told: Mapping[str, Any] = grounder.calibration
    return told.get("weights", grounder.model.score_weights), told.get("bias", 0.0)


def _fit_weights(x: Tensor, y: Tensor) -> Tensor:
    """Weights and, last, the bias."""
    parameters = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    _minimise(
        parameters,
        lambda: F.binary_cross_entropy_with_logits(_logits(x, parameters), y) + _RIDGE * parameters[:-1].square().sum(),
    )
    return parameters.detach()


def _held_out_logits(x: Tensor, y: Tensor, fold: NDArray[np.int64]) -> Tensor | None:
    """[N], each fold by weights of the others; None where these have only right or only wrong boxes."""
    logits = torch.zeros_like(y)
    for number in np.unique(fold):
        rows = torch.from_numpy(fold == number)
        if len(y[~rows].unique()) < 2:
            return None
        logits[rows] = _logits(x[rows], _fit_weights(x[~rows], y[~rows]))
    return logits


def _folds(evidence: Sequence[Evidence]) -> NDArray[np.int64]:
    """[N]: images are dealt out in the order in which they come."""
    number: dict[object, int] = {}
    names = [index if e.image is None else e.image for index, e in enumerate(evidence)]
    return np.array([number.setdefault(name, len(number)) % _FOLDS for name in names])


def _logits(x: Tensor, parameters: Tensor) -> Tensor:
    return x @ parameters[:-1] + parameters[-1]


def _minimise(parameters: Tensor, loss_of: Callable[[], Tensor]) -> None:
    """Move the parameters to where the loss is least."""
    optimiser = torch.optim.LBFGS([parameters], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
