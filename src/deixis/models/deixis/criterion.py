"""The criterion of the ``deixis`` family: choice, box, mask, existence, the detector's, and words of the image.

Losses are pure functions in float32. Letters: B images, P phrases, Q proposals, I annotated instances, A places of the
detector, h x w a mask grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.boxes import box_iou, grid_places
from deixis.models.criterion import Criterion, bring, giou_loss, mean_where, pixels_of
from deixis.models.deixis.detector import Detections
from deixis.models.deixis.model import DeixisModel, EncodedImage, Output
from deixis.models.deixis.proposals import Proposals
from deixis.recipe import LossOptions
from deixis.structures import TrainingBatch

MATCHED = 0.5
"""IoU from which a proposal may stand for an instance."""
PLACES_A_THING = 8
"""Places of the detector whose boxes are drawn towards each annotated instance."""


class DeixisCriterion(Criterion):
    """Seven losses; the helper predicts words of instances from tokens, before any phrase is known."""

    model: DeixisModel
    averaged_over: ClassVar = {
        "exists": "phrases", "pixels": "has_mask", "projection": "boxed", "told": "told", "things": "things",
    }  # fmt: skip

    def __init__(
        self, model: DeixisModel, tokenizer: PhraseTokenizer, options: LossOptions, word_counts: Sequence[int]
    ) -> None:
        super().__init__(model, tokenizer, word_counts)
        self.helper = nn.Linear(model.config.merge_dim, sum(word_counts))
        weights = {
            "choice": options.choice_weight,
            "box": options.box_weight,
            "exists": options.exists_weight,
            "told": options.words_weight,
            "pixels": options.mask_weight,
            "projection": options.projection_weight,
            "things": options.detection_weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight}

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Each a mean over the phrases or instances it concerns; a batch of the pool has none of masks and pixels."""
        if batch.seen is not None:
            losses = self._of_phrases(batch, self._pooled(batch), with_masks=False)
        else:
            losses = self._of_pixels(batch)
        return {name: value for name, value in losses.items() if name in self.weights}

    def _of_pixels(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """All losses of a batch with pixels, as far as they have a weight."""
        (content,) = self.bring(batch.content)
        pyramid, seen, proposals = self.model.image.see(pixels_of(batch, self.device), content)
        losses: dict[str, Tensor] = {}
        if "things" in self.weights:
            losses["things"] = thing_loss(seen, batch)
        if "choice" in self.weights:
            image = self.model.image.encoded(
                thinned(proposals, self.model.config.dropout), self.model.image.prototypes(pyramid, seen.maps[0])
            )
            losses |= self._of_phrases(batch, image, with_masks=True)
        return losses

    def _pooled(self, batch: TrainingBatch) -> EncodedImage:
        """Images whose proposals are known already; nothing reads their prototypes."""
        seen = batch.seen or {}
        known = Proposals(**{name: bring(value, self.device) for name, value in seen.items()})
        proposals = thinned(known, self.model.config.dropout)
        return self.model.image.encoded(proposals, proposals.boxes.new_zeros(len(proposals.boxes), 0))

    def _of_phrases(self, batch: TrainingBatch, image: EncodedImage, *, with_masks: bool) -> dict[str, Tensor]:
        index, boxes, present = self.bring(batch.image_index, batch.boxes, batch.present)
        asked = image.pick(index)
        output = self.model.ground(asked, *self.words_of(batch))
        target = choice_target(output.proposals, asked.valid, boxes, self.model.config.candidates)
        share = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
        losses = {
            "choice": mean_where(choice_loss(output.choice_logits, target), present),
            "box": mean_where(box_loss(output.boxes, boxes, share), present),
            "exists": F.binary_cross_entropy_with_logits(output.exists_logit, present.float()),
            "told": told_loss(self.helper(image.tokens), image.proposals, batch, self.word_counts),
        }
        return losses | (self._of_masks(batch, output, asked, target) if with_masks else {})

    def _of_masks(self, batch: TrainingBatch, output: Output, asked: EncodedImage, target: Tensor) -> dict[str, Tensor]:
        """Of the proposal that fits best; where no mask is known, its projections on the axes are the box's."""
        boxes, masks, present, has_mask = self.bring(batch.boxes, batch.masks, batch.present, batch.has_mask)
        logits = self.model.masks(output, target.argmax(-1), asked)
        content, index = self.bring(batch.content, batch.image_index)
        near = around(boxes, content[index], logits.shape[-1])
        return {
            "pixels": mean_where(mask_loss(logits, masks, near), has_mask),
            "projection": mean_where(projection_loss(logits, boxes), present & ~has_mask),
        }


def thinned(proposals: Proposals, share: float) -> Proposals:
    """The proposals without a share of the candidates, so that cells learn to stand for what no candidate does."""
    if not share:
        return proposals
    left_out = (torch.rand_like(proposals.scores) < share) & ~proposals.is_cell
    return replace(proposals, valid=proposals.valid & ~left_out)


def choice_target(proposals: Tensor, valid: Tensor, boxes: Tensor, candidates: int) -> Tensor:
    """How well each proposal stands for its phrase's referent, 0..1: float32 [P, Q], the best one 1.

    Candidates that overlap the referent enough, by the square of their IoU; where there is none, the cells whose middle
    lies in it, or else the one nearest to its middle.

    Args:
        proposals: [P, Q, 4] xyxy, candidates first, then cells.
        valid: bool [P, Q].
        boxes: [P, 4] of the referents.
        candidates: how many of the Q are none of the cells.
    """
    iou = box_iou(proposals, boxes[:, None]) * valid
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


def told_loss(logits: Tensor, proposals: Tensor, batch: TrainingBatch, word_counts: list[int]) -> Tensor:
    """How badly ``logits`` [B, Q, words] predict kind, colour and texture, a mean over what is known.

    Each instance is predicted by the proposal that fits it best; one that none fits counts as predicted.
    """
    device = logits.device
    labels, index = bring(batch.boxed_labels, device), bring(batch.boxed_index, device)
    if not len(index):
        return logits.sum() * 0
    best, at = box_iou(proposals[index], bring(batch.boxed_boxes, device)[:, None]).max(-1)
    chosen = logits[index, at].float().split(word_counts, -1)
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
    """Whether there is an instance at a place, by how well its own box fits, and the boxes of the places that fit best.

    Quality focal loss (Li et al., NeurIPS 2020) by the sum of an image's qualities, and GIoU loss; a mean over the
    annotated instances, where an image known to have none counts as one (see `TrainingBatch.thing_counts`). Where an
    image is not annotated in full, places away from its annotated instances do not count.
    """
    device = seen.boxes.device
    counts = batch.thing_counts.tolist()
    each = []
    for row, (count, is_complete) in enumerate(zip(counts, batch.complete.tolist(), strict=True)):
        wanted = bring(batch.boxed_boxes[batch.boxed_index == row], device)
        focal, quality, drawn = _things_of(seen, row, wanted, is_complete=is_complete)
        each.append(count * focal / quality.clamp(min=1) + drawn)
    return torch.stack(each).sum() / max(sum(counts), 1)


def _things_of(seen: Detections, row: int, wanted: Tensor, *, is_complete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image with the instances [I, 4]: sums of the focal loss, of the qualities and of the GIoU loss."""
    boxes, logits = seen.boxes[row], seen.thing_logits[row].float()
    quality = torch.zeros_like(logits)
    drawn = boxes.sum() * 0
    if len(wanted):
        iou = box_iou(boxes.detach()[None], wanted[:, None])  # [I, A]
        middle = (boxes[..., :2] + boxes[..., 2:]).detach() / 2
        within = ((middle > wanted[:, None, :2]) & (middle < wanted[:, None, 2:])).all(-1)
        quality = (iou * within).amax(0)
        nearest = iou.topk(min(PLACES_A_THING, iou.shape[1]), dim=1).indices
        drawn = giou_loss(boxes[nearest], wanted[:, None].expand(-1, nearest.shape[1], -1)).mean(1).sum()
    counts = torch.ones_like(quality) if is_complete else (quality > 0.3).float()
    each = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    focal = (cast(Tensor, logits.sigmoid()) - quality).square()
    return (counts * focal * each).sum(), quality.sum(), drawn


def box_loss(boxes: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 (x5) plus GIoU (x2) [P] of the cells' boxes [P, N, 4] to ``target`` [P, 4], averaged by ``weight`` [P, N]."""
    wanted = target[:, None, :].expand_as(boxes)
    each = 5 * (boxes.float() - wanted).abs().sum(-1) + 2 * giou_loss(boxes, wanted)
    return (weight * each).sum(-1)


def mask_loss(logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Binary cross-entropy (mean over the picture) plus soft Dice loss [P].

    Args:
        logits: [P, h, w].
        target: [P, h, w] in 0..1.
        inside: bool [P, h, w], the cells inside the picture.
    """
    each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    cross_entropy = (each * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    probability = logits.float().sigmoid() * inside
    return cross_entropy + dice_loss(probability.flatten(1), (target * inside).flatten(1))


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice [P] of two maps [P, n] in 0..1."""
    overlap = (probability * target).sum(-1)
    return 1 - (2 * overlap + 1) / (probability.square().sum(-1) + target.square().sum(-1) + 1)


def projection_loss(logits: Tensor, boxes: Tensor) -> Tensor:
    """How far the mask's shadows on both axes differ from the box's [P]: supervision where only a box is known.

    The idea is BoxInst's projection term (Tian et al., 2021). ``boxes`` [P, 4] xyxy as fractions of the grid [h, w].
    """
    probability = logits.float().sigmoid()
    total = torch.zeros(len(boxes), device=boxes.device)
    for axis in (0, 1):  # 0: shadow on x, 1: shadow on y
        shadow = probability.amax(1 if axis == 0 else 2)
        cells = (torch.arange(shadow.shape[1], device=boxes.device) + 0.5) / shadow.shape[1]
        wanted = ((cells > boxes[:, None, axis]) & (cells < boxes[:, None, axis + 2])).float()
        total = total + dice_loss(shadow, wanted)
    return total


CRITERION = DeixisCriterion
