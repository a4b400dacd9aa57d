"""SMCIM's criterion: L1 and GIoU, weighed by self-paced sample informativeness learning. SMCIM Eq. 7 to 11.

Losses are pure functions in float32. Letters: P phrases, N visual tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.boxes import cxcywh_from_xyxy, xyxy_from_cxcywh
from deixis.models.criterion import Criterion, giou_loss, mean_where, pixels_of
from deixis.models.smcim.model import SmcimModel
from deixis.recipe import LossOptions
from deixis.structures import TrainingBatch

NEGATIVE_TOTAL = (
    "the loss is negative by design: SMCIM Eq. 11 subtracts lambda times each difficulty; the plain losses stand "
    "beside it as l1 and giou"
)

_LEAST_SHARE = 1e-4
"""The least share of attention whose logarithm is taken."""


class SmcimCriterion(Criterion):
    """L1 and GIoU of the box, each weighed by its difficulty, averaged over the phrases that have a referent.

    The weights are those of what is minimised; the other losses are for the log.
    """

    model: SmcimModel
    averaged_over: ClassVar = {"place": "has_mask", "place_box": "has_mask", "attention": "has_mask", "words": "labels"}

    def __init__(
        self, model: SmcimModel, tokenizer: PhraseTokenizer, options: LossOptions, word_counts: Sequence[int]
    ) -> None:
        super().__init__(model, tokenizer, word_counts)
        width = len(model.config.text_features) * model.config.group_dim
        self.pacing = SelfPacing(options) if options.spsil == "on" else None
        self.words = nn.Linear(width, sum(word_counts)) if options.words_weight else None
        self.place = nn.Linear(model.config.merge_dim, 5) if options.place_weight else None
        held = {"pacing": self.pacing, "words": self.words, "place": self.place}
        self.helper = nn.ModuleDict({name: module for name, module in held.items() if module is not None})
        paced = "paced_" if self.pacing is not None else ""
        weights = {
            f"{paced}l1": options.l1_weight,
            f"{paced}giou": options.giou_weight,
            "words": options.words_weight,
            "place": options.place_weight,
            "place_box": options.place_weight,
            "attention": options.attention_weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight or name.endswith(("l1", "giou"))}

    def sigmas(self) -> list[nn.Parameter]:
        """SPSIL's widths."""
        return [] if self.pacing is None else [*self.pacing.parameters()]

    def project(self) -> None:
        """Lift SPSIL's widths to their floor."""
        if self.pacing is not None:
            self.pacing.project()

    def notes(self) -> list[str]:
        """That the loss is negative, and where sigma may fall too low."""
        if self.pacing is None:
            return []
        least, low = self.pacing.lambda_ / math.sqrt(2), self.pacing.floor
        if low >= least or self.pacing.detach:
            return [NEGATIVE_TOTAL]
        return [
            NEGATIVE_TOTAL,
            f"sigma may fall below lambda / sqrt(2) = {least:.2f}, where SPSIL rewards some errors; raise sigma_floor "
            "or set detach_difficulty",
        ]

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The losses, and what Fig. 7 shows: see `box_losses`."""
        content, index = self.bring(batch.content, batch.image_index)
        scene = self.model.encode_image(pixels_of(batch, self.device), content)
        output = self.model.ground(scene.pick(index), *self.words_of(batch), attend="attention" in self.weights)
        losses = self.box_losses(output.boxes_cxcywh, batch)
        if self.words is not None:
            losses["words"] = self.word_losses(self.words(torch.cat(scene.features, -1)), batch)
        if self.place is not None:
            losses |= self._place_losses(self.place(output.pixels).float(), batch)
        if output.cls_attention is not None:
            losses["attention"] = self._attention_loss(output.cls_attention, batch)
        return losses

    def box_losses(self, boxes_cxcywh: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """The losses of boxes [P, 4] in 0..1 of the canvas.

        Returns:
            ``l1`` and ``giou``, the plain losses; with SPSIL also ``paced_l1`` and ``paced_giou``, the two halves of
            Eq. 11, and for each of both losses ``difficulty_...``, ``difficulty_max_...`` and ``sigma_...``. All but
            the maximum are means over the phrases that have a referent; 0 where there is none.
        """
        boxes = boxes_cxcywh.float()
        wanted, present = self.bring(batch.boxes, batch.present)
        each = {
            "l1": l1_loss(boxes, cxcywh_from_xyxy(wanted)),
            "giou": giou_loss(xyxy_from_cxcywh(boxes), wanted),
        }
        losses = {name: mean_where(loss, present) for name, loss in each.items()}
        if self.pacing is not None:
            for name, loss in each.items():
                losses |= _paced(self.pacing, name, loss, present)
        return losses

    def _place_losses(self, logits: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """What pixels [P, N, 5] predict of the referent.

        Returns:
            ``place``, cross-entropy of the first number with the share of each pixel that the mask covers;
            ``place_box``, L1 of the box that the others give, its centre and size, over the pixels in the mask.
        """
        masks, present, boxes = self.bring(batch.masks, batch.has_mask, batch.boxes)
        covered = masks.flatten(1)
        on = F.binary_cross_entropy_with_logits(logits[..., 0], covered, reduction="none").mean(1)
        wanted = cxcywh_from_xyxy(boxes)[:, None]
        apart = l1_loss(logits[..., 1:].sigmoid(), wanted.expand(-1, logits.shape[1], -1))
        box = (apart * covered).sum(1) / covered.sum(1).clamp(min=1e-6)
        return {"place": mean_where(on, present), "place_box": mean_where(box, present)}

    def _attention_loss(self, weights: Tensor, batch: TrainingBatch) -> Tensor:
        """Minus the logarithm of the share of attention [P, N] that the referent's mask covers."""
        masks, present = self.bring(batch.masks, batch.has_mask)
        share = (weights * masks.flatten(1)).sum(1)
        return mean_where(-share.clamp(min=_LEAST_SHARE).log(), present)


class SelfPacing(nn.Module):
    """The two learnable widths of the difficulty, of L1 and of GIoU, which never go below a floor; only for training.

    Both are as they stand in Eq. 10: the logarithm of a width, say, would give Adam's steps another meaning.
    """

    def __init__(self, options: LossOptions) -> None:
        super().__init__()
        self.lambda_, self.floor, self.detach = options.spsil_lambda, options.sigma_floor, options.detach_difficulty
        start = float(options.sigma)
        self.sigma = nn.ParameterDict({name: nn.Parameter(torch.tensor(start)) for name in ("l1", "giou")})

    def forward(self, name: str, loss: Tensor) -> Tensor:
        """The share [P] of Eq. 11 of one of both losses [P]."""
        return self_paced(loss, self.sigma[name], self.lambda_, detach=self.detach)

    @torch.no_grad()
    def project(self) -> None:
        """Lift each width to the floor. After a step and not in the loss: there the gradient is Eq. 11's own."""
        for sigma in self.sigma.values():
            sigma.clamp_(min=self.floor)


def _paced(pacing: SelfPacing, name: str, loss: Tensor, present: Tensor) -> dict[str, Tensor]:
    """The half of Eq. 11 of one loss [P], and what is logged of it."""
    sigma = pacing.sigma[name].detach().clone()
    hard = difficulty(loss.detach(), sigma)
    return {
        f"paced_{name}": mean_where(pacing(name, loss), present),
        f"difficulty_{name}": mean_where(hard, present),
        f"difficulty_max_{name}": torch.where(present, hard, 0).amax(),
        f"sigma_{name}": sigma,
    }


def l1_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """The sum of the four absolute differences [...] of boxes cxcywh [..., 4] in 0..1, in 0..4. SMCIM Eq. 7."""
    return (predicted.float() - target.float()).abs().sum(-1)


MAX_EXPONENT = 10.0
"""Of a difficulty. SMCIM has no limit; a loss of at most 4 reaches this one where sigma is below 1.27."""


def difficulty(loss: Tensor, sigma: Tensor) -> Tensor:
    """How hard each sample still is: d = exp(L^2 / sigma^2), at least 1. SMCIM Eq. 9 and 10 with mu = 0.

    Args:
        loss: [P], each sample's own; at least 0.
        sigma: the width of the function, a scalar above 0; the larger, the smoother.

    Returns:
        float32 [P], at most exp(`MAX_EXPONENT`); from there on without gradient.
    """
    with torch.autocast(loss.device.type, enabled=False):
        return (loss.float() / sigma.float()).square().clamp(max=MAX_EXPONENT).exp()


def self_paced(loss: Tensor, sigma: Tensor, lambda_: float, *, detach: bool = False) -> Tensor:
    """One of the two halves of SMCIM Eq. 11: d L - lambda d [P].

    A hard sample weighs more, and lambda d, which rewards difficulty, holds sigma back from growing without end. So
    below L = lambda the result is negative by design, and its gradient makes sigma smaller; above, larger. Where all
    L are below lambda nothing but a floor ends sigma's fall. The gradient by L is exp(L^2 / sigma^2) (1 + 2 L (L -
    lambda) / sigma^2), above 0 for all L as long as sigma > lambda / sqrt(2): 0.53 for lambda = 0.75.

    Args:
        loss: [P], each sample's own.
        sigma: a scalar.
        lambda_: the regularisation coefficient; the loss at which a sample stops to be rewarded for its difficulty.
        detach: let d be a weight alone, through which no gradient reaches ``loss``: the gradient by L is then d. The
            value and sigma's gradient stay the same.

    Returns:
        float32 [P], at least -lambda exp(lambda^2 / sigma^2).
    """
    weight = difficulty(loss.detach() if detach else loss, sigma)
    return weight * (loss.float() - lambda_)


CRITERION = SmcimCriterion
