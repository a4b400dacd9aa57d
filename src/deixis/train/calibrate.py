"""Fit the regression that turns a model's evidence into a score, on validation data, and store it in the checkpoint."""

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

from deixis.evaluate.calibration import BoolArray, FloatArray, calibration_error, found_rates
from deixis.evaluate.metrics import RIGHT
from deixis.evaluate.predict import Predictor
from deixis.files import write_text
from deixis.grounder import Grounder
from deixis.language.synonyms import is_surely_absent
from deixis.progress import progress_over
from deixis.structures import Sample

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


class _DrawnPhrases:
    """For a share of the samples a phrase of another one, if it surely means nothing in their image.

    Images whose instances are not listed (a sample without ``instances``) get none: it is not known what they lack.
    """

    for_each_sample = True

    def __init__(self, samples: Sequence[Sample], share: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._drawn: list[tuple[str, str] | None] = []
        for _ in range(len(samples)):
            other = samples[int(rng.integers(len(samples)))]
            self._drawn.append((other.phrase, other.category or "") if rng.random() < share else None)

    def pick(self, index: int, sample: Sample) -> str | None:
        """The phrase that was drawn for the sample; None where there is none, or it may mean something."""
        drawn, present = self._drawn[index], {instance.category for instance in sample.instances}
        return drawn[0] if drawn and present and is_surely_absent(*drawn, present) else None


def gather_evidence(
    grounder: Grounder,
    samples: Sequence[Sample],
    *,
    absent_share: float,
    problems: list[str],
    seed: int = 0,
    progress: str = "",
) -> list[Evidence]:
    """Predict every sample, and a share of images with a phrase of another image that surely means nothing in them.

    Args:
        grounder: the model.
        samples: validation data.
        absent_share: of the samples.
        problems: gets a sentence for each sample that cannot be asked or measured, which is left out.
        seed: of the phrases of other images.
        progress: labels a progress bar; empty shows none.
    """
    predictor = Predictor(
        grounder=grounder,
        dataset=samples,
        absent=_DrawnPhrases(samples, absent_share, seed),
        cases=False,
    )
    found: list[Evidence] = []
    for part in predictor.parts(progress_over(range(len(samples)), progress, show=bool(progress))):
        problems += [f"{problem}; left out" for _, problem in part.problems]
        for one in part.predictions:
            right = one.iou is not None and one.iou > RIGHT
            found.append(Evidence(one.evidence, one.agreement, right, one.image_id, one.target_box is not None))
            if one.absent is not None:
                found.append(Evidence(one.absent.evidence, one.absent.agreement, False, one.image_id, belongs=False))
    return found


def fit_calibration(
    evidence: Sequence[Evidence], *, keep: tuple[Sequence[float], float] | None = None
) -> dict[str, Any]:
    """Logistic regression from signs to "the box is right", its temperature, and the thresholds of ``found``.

    Weights that are fitted on few samples are too sure of themselves on others. So each fifth of the images is also
    scored by weights of the others; the temperature, the thresholds and the figures on them come from these.

    Args:
        evidence: of validation data.
        keep: weights and bias that stay as they are; only temperature and thresholds are fitted then.

    Returns:
        ``weights`` and ``bias`` of the regression, divided by ``temperature`` already; ``found_score`` and
        ``found_agreement``, the pair of highest balanced accuracy; ``n``, ``expected_calibration_error``; ``found``,
        see :func:`deixis.evaluate.calibration.found_rates`.

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
        "found": _found_rates((score >= threshold) & (agreement >= floor), evidence),
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


def _found_rates(found: BoolArray, evidence: Sequence[Evidence]) -> dict[str, Any]:
    rates = found_rates(found, np.array([e.right for e in evidence]), np.array([e.belongs for e in evidence]))
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in rates.items()}


def store_in_config(folder: Path, **entries: Any) -> None:  # noqa: ANN401  JSON values
    """Replace top-level entries of a checkpoint's config.json, whole or not at all."""
    path = folder / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored.update(entries)
    write_text(path, json.dumps(stored, indent=1))


def stored_regression(grounder: Grounder) -> tuple[Sequence[float], float]:
    """Weights and bias that the model's score is made with now."""
    stored: Mapping[str, Any] = grounder.calibration
    return stored.get("weights", grounder.model.score_weights), stored.get("bias", 0.0)


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
