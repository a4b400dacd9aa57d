"""The overall loss of the ``smcim`` family: self-paced sample informativeness learning. SMCIM Eq. 7 to 11."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.data.attributes import NUM_WORDS
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models import losses
from deixis.models.smcim.model import SmcimModel
from deixis.structures import TrainingBatch
from deixis.train.objectives import Objective, bring, device_of, mean_where, pixels_of, told_words_loss
from deixis.train.recipes import Recipe

NEGATIVE_TOTAL = (
    "the loss is negative by design: SMCIM Eq. 11 subtracts lambda times each difficulty; the plain losses stand "
    "beside it as l1 and giou"
)

_LEAST_SHARE = 1e-4
"""Of attention, below which its logarithm is not taken."""


class SelfPacing(nn.Module):
    """The two learnable widths of the difficulty, of L1 and of GIoU, which never go below a floor; only for training.

    Both are as they stand in Eq. 10: the logarithm of a width, say, would give Adam's steps another meaning.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.lambda_, self.floor, self.detach = recipe.spsil_lambda, recipe.sigma_floor, recipe.detach_difficulty
        start = float(recipe.sigma)
        self.sigma = nn.ParameterDict({name: nn.Parameter(torch.tensor(start)) for name in ("l1", "giou")})

    def forward(self, name: str, loss: Tensor) -> Tensor:
        """The share [P] of Eq. 11 of one of both losses [P]."""
        return losses.self_paced(loss, self.sigma[name], self.lambda_, detach=self.detach)

    @torch.no_grad()
    def project(self) -> None:
        """Lift each width to the floor. After a step and not in the loss: there the gradient is Eq. 11's own."""
        for sigma in self.sigma.values():
            sigma.clamp_(min=self.floor)


class SmcimObjective(Objective):
    """L1 and GIoU of the box, each weighed by its difficulty, averaged over the phrases that mean something.

    The weights are those of what is minimised; the other parts are for the log.
    """

    def __init__(self, model: SmcimModel, tokenizer: PhraseTokenizer, recipe: Recipe) -> None:
        super().__init__(tokenizer)
        self.model = model
        self.pacing = SelfPacing(recipe) if recipe.spsil == "on" else None
        width = len(model.config.text_features) * model.config.group_dim
        self.words = nn.Linear(width, NUM_WORDS) if recipe.words_weight else None
        self.place = nn.Linear(model.config.merge_dim, 5) if recipe.place_weight else None
        held = {"pacing": self.pacing, "words": self.words, "place": self.place}
        self.helper = nn.ModuleDict({name: module for name, module in held.items() if module is not None})
        self.weights = {"l1": recipe.l1_weight, "giou": recipe.giou_weight}
        if self.pacing is not None:
            self.weights = {f"paced_{name}": weight for name, weight in self.weights.items()}
        if self.words is not None:
            self.weights["words"] = recipe.words_weight
        if self.place is not None:
            self.weights |= {"place": recipe.place_weight, "place_box": recipe.place_weight}
        if recipe.attention_weight:
            self.weights["attention"] = recipe.attention_weight

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The parts, and what Fig. 7 shows: see `box_losses`."""
        device = device_of(self.model)
        scene = self.model.encode_image(pixels_of(batch, device), bring(batch.content, device))
        phrases = scene.pick(bring(batch.image_index, device))
        output = self.model.ground(phrases, *self.words_of(batch, device), attend="attention" in self.weights)
        parts = self.box_losses(output.boxes_cxcywh, batch)
        if self.words is not None:
            parts["words"] = told_words_loss(self.words(torch.cat(scene.features, -1)), batch)
        if self.place is not None:
            parts |= _place_losses(self.place(output.pixels).float(), batch)
        if output.cls_attention is not None:
            parts["attention"] = _attention_loss(output.cls_attention, batch)
        return parts

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the parts that have a weight; with SPSIL it may be negative."""
        return super().total({name: parts[name] for name in self.weights})

    def box_losses(self, boxes_cxcywh: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """The parts of boxes [P, 4] in 0..1 of the canvas.

        Returns:
            ``l1`` and ``giou``, the plain losses; with SPSIL also ``paced_l1`` and ``paced_giou``, the two halves of
            Eq. 11, and for each of both losses ``difficulty_...``, ``difficulty_max_...`` and ``sigma_...``. All are
            means, but the maximum, over the phrases that mean something; 0 where there is none.
        """
        boxes = boxes_cxcywh.float()
        wanted, present = bring(batch.boxes, boxes.device), bring(batch.present, boxes.device)
        each = {
            "l1": losses.l1_loss(boxes, cxcywh_from_xyxy(wanted)),
            "giou": losses.giou_loss(xyxy_from_cxcywh(boxes), wanted),
        }
        parts = {name: mean_where(loss, present) for name, loss in each.items()}
        if self.pacing is not None:
            for name, loss in each.items():
                parts |= _paced(self.pacing, name, loss, present)
        return parts


def _place_losses(told: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
    """What pixels [P, N, 5] tell of the thing that is meant.

    Returns:
        ``place``, cross-entropy of the first number with the share of each pixel that the mask covers; ``place_box``,
        L1 of the box that the others give, its centre and size, over the pixels that the mask covers.
    """
    covered, present = bring(batch.masks, told.device).flatten(1), bring(batch.has_mask, told.device)
    on = F.binary_cross_entropy_with_logits(told[..., 0], covered, reduction="none").mean(1)
    wanted = cxcywh_from_xyxy(bring(batch.boxes, told.device))[:, None]
    apart = losses.l1_loss(told[..., 1:].sigmoid(), wanted.expand(-1, told.shape[1], -1))
    box = (apart * covered).sum(1) / covered.sum(1).clamp(min=1e-6)
    return {"place": mean_where(on, present), "place_box": mean_where(box, present)}


def _attention_loss(weights: Tensor, batch: TrainingBatch) -> Tensor:
    """Minus the logarithm of the share of attention [P, N] that the mask of what is meant covers."""
    covered = bring(batch.masks, weights.device).flatten(1)
    share = (weights * covered).sum(1)
    return mean_where(-share.clamp(min=_LEAST_SHARE).log(), bring(batch.has_mask, weights.device))


def _paced(pacing: SelfPacing, name: str, loss: Tensor, present: Tensor) -> dict[str, Tensor]:
    """The half of Eq. 11 of one loss [P], and what is logged of it."""
    sigma = pacing.sigma[name].detach().clone()
    difficulty = losses.difficulty(loss.detach(), sigma)
    return {
        f"paced_{name}": mean_where(pacing(name, loss), present),
        f"difficulty_{name}": mean_where(difficulty, present),
        f"difficulty_max_{name}": torch.where(present, difficulty, 0).amax(),
        f"sigma_{name}": sigma,
    }


def xyxy_from_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] by their corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def cxcywh_from_xyxy(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] by their centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)
