"""The losses of the ``deixis`` family: choice, box, mask, existence, the detector's, and words told from the image.

Letters: B images, P phrases, Q proposals, I annotated things, A places of the detector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.data.attributes import NUM_WORDS, WORD_GROUPS
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models import losses
from deixis.models.deixis.detector import Detections
from deixis.models.deixis.model import DeixisModel, EncodedImage, Output
from deixis.models.deixis.proposals import Proposals, pairwise_iou
from deixis.models.grids import grid_places
from deixis.structures import TrainingBatch
from deixis.train.objectives import Objective, bring, device_of, mean_where, pixels_of
from deixis.train.parts import things_in
from deixis.train.recipes import Recipe

MATCHED = 0.5
"""IoU from which a proposal may stand for a thing."""
PLACES_A_THING = 8
"""Places of the detector whose boxes are drawn towards each annotated thing."""


class DeixisObjective(Objective):
    """Seven losses; its helper tells the words of `WORD_GROUPS` from tokens, before any phrase is known."""

    def __init__(self, model: DeixisModel, tokenizer: PhraseTokenizer, recipe: Recipe) -> None:
        super().__init__(tokenizer)
        self.model = model
        self.helper = nn.Linear(model.config.merge_dim, NUM_WORDS)
        weights = {
            "choice": recipe.choice_weight,
            "box": recipe.box_weight,
            "exists": recipe.exists_weight,
            "told": recipe.words_weight,
            "pixels": recipe.mask_weight,
            "projection": recipe.projection_weight,
            "things": recipe.detection_weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight}

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Each a mean over the phrases or things that it concerns; of a batch of the pool none of masks and pixels."""
        if batch.seen is not None:
            return self._weighed(self._of_phrases(batch, self._pooled(batch), drawn=False))
        device = device_of(self.model)
        pixels, content = pixels_of(batch, device), bring(batch.content, device)
        pyramid, seen, proposals = self.model.image.see(pixels, content)
        found: dict[str, Tensor] = {}
        if "things" in self.weights:
            found["things"] = thing_loss(seen, batch)
        if "choice" in self.weights:
            image = self.model.image.encoded(
                thinned(proposals, self.model.config.dropout), self.model.image.prototypes(pyramid, seen.maps[0])
            )
            found |= self._of_phrases(batch, image, drawn=True)
        return self._weighed(found)

    def _weighed(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in found.items() if name in self.weights}

    def _pooled(self, batch: TrainingBatch) -> EncodedImage:
        """Images whose proposals are known already; nothing reads their prototypes."""
        device, seen = device_of(self.model), batch.seen
        assert seen is not None
        known = Proposals(**{name: bring(value, device) for name, value in seen.items()})
        proposals = thinned(known, self.model.config.dropout)
        return self.model.image.encoded(proposals, proposals.boxes.new_zeros(len(proposals.boxes), 0))

    def _of_phrases(self, batch: TrainingBatch, image: EncodedImage, *, drawn: bool) -> dict[str, Tensor]:
        device = device_of(self.model)
        index, boxes = bring(batch.image_index, device), bring(batch.boxes, device)
        present = bring(batch.present, device)
        asked = image.pick(index)
        output = self.model.ground(asked, *self.words_of(batch, device))
        target = choice_target(output.proposals, asked.valid, boxes, self.model.config.candidates)
        found = {
            "choice": mean_where(choice_loss(output.choice_logits, target), present),
            "box": mean_where(losses.box_loss(output.boxes, boxes, _share(target)), present),
            "exists": F.binary_cross_entropy_with_logits(output.exists_logit, present.float()),
            "told": told_loss(self.helper(image.tokens), image.proposals, batch),
        }
        return found | (self._of_masks(batch, output, asked, target) if drawn else {})

    def _of_masks(self, batch: TrainingBatch, output: Output, asked: EncodedImage, target: Tensor) -> dict[str, Tensor]:
        """Of the proposal that fits best; where no mask is known, its shadows on the axes are the box's."""
        device = device_of(self.model)
        boxes, masks = bring(batch.boxes, device), bring(batch.masks, device)
        present, has_mask = bring(batch.present, device), bring(batch.has_mask, device)
        logits = self.model.masks(output, target.argmax(-1), asked)
        content = bring(batch.content, device)[bring(batch.image_index, device)]
        near = around(boxes, content, logits.shape[-1])
        return {
            "pixels": mean_where(losses.mask_loss(logits, masks, near), has_mask),
            "projection": mean_where(losses.projection_loss(logits, boxes), present & ~has_mask),
        }


def thinned(proposals: Proposals, share: float) -> Proposals:
    """The proposals without a share of the candidates, so that cells learn to stand for what no candidate does."""
    if not share:
        return proposals
    left_out = (torch.rand_like(proposals.scores) < share) & ~proposals.is_cell
    return replace(proposals, valid=proposals.valid & ~left_out)


def choice_target(proposals: Tensor, valid: Tensor, boxes: Tensor, candidates: int) -> Tensor:
    """How well each proposal stands for its phrase's thing, 0..1: float32 [P, Q], the best one 1.

    Candidates that overlap the thing enough, by the square of their IoU; where there is none, the cells whose middle
    lies in it, or else the one nearest to its middle.

    Args:
        proposals: [P, Q, 4] xyxy, candidates first, then cells.
        valid: bool [P, Q].
        boxes: [P, 4] of the things.
        candidates: how many of the Q are none of the cells.
    """
    iou = pairwise_iou(proposals, boxes[:, None]) * valid
    fits = torch.where(iou > MATCHED, iou, 0)
    fits[:, candidates:] = 0
    cells = proposals[:, candidates:]
    middle = (cells[..., :2] + cells[..., 2:]) / 2
    away = (middle - (boxes[:, None, :2] + boxes[:, None, 2:]) / 2).square().sum(-1)
    within = ((middle > boxes[:, None, :2]) & (middle < boxes[:, None, 2:])).all(-1)
    within = within.scatter(-1, away.argmin(-1, keepdim=True), True) & ~(fits > 0).any(-1, keepdim=True)
    fits[:, candidates:] = within.float()
    return (fits / fits.amax(-1, keepdim=True).clamp(min=1e-6)).square()


def choice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Minus the logarithm [P] of the probability that falls on proposals which fit, by how well they do."""
    log_p = logits.float().log_softmax(-1)
    return -torch.logsumexp(log_p + target.clamp(min=1e-12).log(), -1).clamp(min=-30)


def _share(target: Tensor) -> Tensor:
    return target / target.sum(-1, keepdim=True).clamp(min=1e-6)


def told_loss(logits: Tensor, proposals: Tensor, batch: TrainingBatch) -> Tensor:
    """How badly ``logits`` [B, Q, words] tell kind, colour and texture of annotated things, a mean over what is known.

    Each thing is told by the proposal that fits it best; one that has none counts as told.
    """
    device = logits.device
    labels, index = bring(batch.boxed_labels, device), bring(batch.boxed_index, device)
    if not len(index):
        return logits.sum() * 0
    iou = pairwise_iou(proposals[index], bring(batch.boxed_boxes, device)[:, None])
    best, at = iou.max(-1)
    chosen = logits[index, at].float().split([len(group) for group in WORD_GROUPS], -1)
    known = (labels >= 0) & (best > MATCHED)[:, None]
    each = [
        F.cross_entropy(part, labels[:, row].clamp(min=0), reduction="none") * known[:, row]
        for row, part in enumerate(chosen)
    ]
    return torch.stack(each).sum() / (labels >= 0).sum().clamp(min=1)


def around(boxes: Tensor, content: Tensor, side: int) -> Tensor:
    """Places within twice the box [P, 4] that lie in the picture [P, 4]: bool [P, side, side]."""
    grown = torch.cat([1.5 * boxes[:, :2] - 0.5 * boxes[:, 2:], 1.5 * boxes[:, 2:] - 0.5 * boxes[:, :2]], -1)
    low, high = torch.maximum(grown[:, :2], content[:, :2]), torch.minimum(grown[:, 2:], content[:, 2:])
    at = grid_places(side, boxes)
    across = (at > low[:, :1]) & (at < high[:, :1])
    down = (at > low[:, 1:]) & (at < high[:, 1:])
    return down[:, :, None] & across[:, None, :]


def thing_loss(seen: Detections, batch: TrainingBatch) -> Tensor:
    """Whether there is a thing at a place, by how well its own box fits, and the boxes of the places that fit best.

    Quality focal loss (Li et al., NeurIPS 2020) by the sum of a picture's qualities, and GIoU loss; a mean over the
    annotated things, where a picture known to have none counts as one (see `things_in`). Where not all things of a
    picture are annotated, places away from those that are count as nothing.
    """
    device = seen.boxes.device
    counts = things_in(batch).tolist()
    each = []
    for row, (count, is_complete) in enumerate(zip(counts, batch.complete.tolist(), strict=True)):
        wanted = bring(batch.boxed_boxes[batch.boxed_index == row], device)
        focal, quality, drawn = _things_of(seen, row, wanted, is_complete=is_complete)
        each.append(count * focal / quality.clamp(min=1) + drawn)
    return torch.stack(each).sum() / max(sum(counts), 1)


def _things_of(seen: Detections, row: int, wanted: Tensor, *, is_complete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of one picture with the things [I, 4]: sums of the focal loss, of the qualities and of the things' GIoU loss."""
    boxes, logits = seen.boxes[row], seen.thing_logits[row].float()
    quality = torch.zeros_like(logits)
    drawn = boxes.sum() * 0
    if len(wanted):
        iou = pairwise_iou(boxes.detach()[None], wanted[:, None])  # [I, A]
        middle = (boxes[..., :2] + boxes[..., 2:]).detach() / 2
        within = ((middle > wanted[:, None, :2]) & (middle < wanted[:, None, 2:])).all(-1)
        quality = (iou * within).amax(0)
        nearest = iou.topk(min(PLACES_A_THING, iou.shape[1]), dim=1).indices
        drawn = losses.giou_loss(boxes[nearest], wanted[:, None].expand(-1, nearest.shape[1], -1)).mean(1).sum()
    counts = torch.ones_like(quality) if is_complete else (quality > 0.3).float()
    each = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    focal = (cast(Tensor, logits.sigmoid()) - quality).square()
    return (counts * focal * each).sum(), quality.sum(), drawn
