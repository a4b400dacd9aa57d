"""MCN's criterion: box, mask and consistency. MCN Eq. 3 to 9 and 12.

Losses are pure functions in float32. Letters: P phrases, A anchors, g x g and s x s cells of the box and mask branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.boxes import box_iou, xyxy_around
from deixis.models.criterion import Criterion, mean_where, pixels_of
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.mcn.garan import Attended
from deixis.models.mcn.heads import anchors_as_fractions, candidate_boxes
from deixis.models.mcn.model import McnModel, McnOutput
from deixis.recipe import LossOptions
from deixis.structures import TrainingBatch


class McnCriterion(Criterion):
    """Box, mask and consistency, each summed over cells as in the official code and averaged over the phrases."""

    model: McnModel
    averaged_over: ClassVar = {
        "xy": "phrases", "wh": "phrases", "confidence": "phrases", "mask": "mask_known", "words": "labels",
    }  # fmt: skip

    def __init__(
        self, model: McnModel, tokenizer: PhraseTokenizer, options: LossOptions, word_counts: Sequence[int]
    ) -> None:
        super().__init__(model, tokenizer, word_counts)
        self.cem = CEM_FORMS.get(model.config.cem)
        self.weights = {"xy": options.rec_weight, "wh": options.rec_weight, "confidence": options.rec_weight}
        self.weights |= {"mask": options.res_weight, "cem": options.cem_weight}
        if options.words_weight:
            self.weights["words"] = options.words_weight
            self.helper = ImageWords(model.encoder.channels, sum(word_counts))

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The losses of the branches that the model's structure has."""
        content, index = self.bring(batch.content, batch.image_index)
        scene = self.model.encode_image(pixels_of(batch, self.device), content)
        losses = self.output_losses(self.model.ground(scene.pick(index), *self.words_of(batch)), batch)
        if isinstance(self.helper, ImageWords):
            losses["words"] = self.word_losses(self.helper(scene.maps), batch)
        return losses

    def output_losses(self, output: McnOutput, batch: TrainingBatch) -> dict[str, Tensor]:
        """The unweighted losses; a phrase without a mask takes no part in the mask's."""
        present, has_mask, boxes, masks = self.bring(batch.present, batch.has_mask, batch.boxes, batch.masks)
        losses: dict[str, Tensor] = {}
        if output.box_logits is not None:
            anchors = anchors_as_fractions(self.model.config.anchors_px, device=boxes.device)
            each = yolo_loss(output.box_logits, boxes, anchors, present)
            losses |= {name: value.mean() for name, value in each.items()}
        if output.mask_logits is not None:
            losses["mask"] = mean_where(segmentation_loss(output.mask_logits, masks), has_mask | ~present)
        if self.cem is not None:
            losses["cem"] = mean_where(self.cem(output), present)
        return losses


class ImageWords(nn.Module):
    """Kind, colour and texture of what lies at a cell of stride 16, from the image alone; only for training.

    The paper's encoder has learnt to detect on photos like those of the data set; on drawn scenes this does that work.
    """

    def __init__(self, channels: tuple[int, int, int], words: int) -> None:
        super().__init__()
        self.middle = nn.Conv2d(channels[1], words, 1)
        self.coarse = nn.Conv2d(channels[2], words, 1)

    def forward(self, maps: ThreeScales) -> Tensor:
        """Logits [B, cells, words]."""
        logits = self.middle(maps.stride16) + F.interpolate(self.coarse(maps.stride32), scale_factor=2.0)
        return logits.flatten(2).transpose(1, 2)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy [P], added up over the positions of the grid. MCN Eq. 3.

    Args:
        logits: [P, s, s].
        target: [P, s, s] in 0..1.
    """
    each = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return each.sum((1, 2))


IGNORE_IOU = 0.5
"""A candidate whose box overlaps the wanted one at least so far need not be sure that it is wrong. YOLOv3."""


def yolo_loss(
    box_logits: Tensor, boxes_xyxy_norm: Tensor, anchors_norm: Tensor, present: Tensor | None = None
) -> dict[str, Tensor]:
    """The parts of the box branch's loss, each [P] and added up over cells and anchors. MCN Eq. 4, YOLOv3.

    The one positive candidate is the anchor whose shape fits the box best, in the cell of the box's centre. All
    others are negative, but those whose decoded box has an IoU of `IGNORE_IOU` or more are left out. A small box
    weighs more: 2 - w h.

    Args:
        box_logits: [P, A, 5, g, g]: t_x, t_y, t_w, t_h and the confidence's logit.
        boxes_xyxy_norm: [P, 4] as fractions of the canvas; what lies outside of it is cut off.
        anchors_norm: [A, 2] widths and heights as fractions of the canvas.
        present: bool [P], False where the phrase means nothing: all candidates are negative, and the box is not
            looked at. By default all are there.

    Returns:
        ``xy`` (cross-entropy of the place within the cell), ``wh`` (half the smooth L1 with sigma 3 of the
        logarithms) and ``confidence`` (cross-entropy).
    """
    logits, anchors = box_logits.float(), anchors_norm.float()
    if present is None:
        present = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    boxes = torch.where(present[:, None], boxes_xyxy_norm.float(), boxes_xyxy_norm.new_tensor([0.0, 0, 1, 1]))
    boxes = boxes.clamp(0, 1)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    anchor = box_iou(_at_origin(size)[:, None], _at_origin(anchors)).argmax(-1)
    grid = logits.shape[-1]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 * grid
    cell = centre.long().clamp(max=grid - 1)  # a centre on the right or bottom border belongs to the last cell
    place = (torch.arange(len(logits), device=logits.device), anchor, cell[:, 1], cell[:, 0])
    chosen = logits.movedim(2, -1)[place]  # [P, 5]
    weight = present * (2 - size.prod(-1))
    xy = F.binary_cross_entropy_with_logits(chosen[:, :2], centre - cell, reduction="none").sum(-1)
    wanted = (size / anchors[anchor]).log()
    wh = F.smooth_l1_loss(chosen[:, 2:4], wanted, reduction="none", beta=1 / 9).sum(-1)
    target = torch.zeros_like(logits[:, :, 4])
    target[place] = present.float()
    with torch.no_grad():
        near = box_iou(candidate_boxes(logits, anchors), boxes[:, None, None, None]) >= IGNORE_IOU
    counted = ~(near & present[:, None, None, None]) | (target > 0)
    confidence = F.binary_cross_entropy_with_logits(logits[:, :, 4], target, reduction="none") * counted
    return {"xy": weight * xy, "wh": 0.5 * weight * wh, "confidence": confidence.sum((1, 2, 3))}


def _at_origin(size: Tensor) -> Tensor:
    """Boxes xyxy [..., 4] of these widths and heights around the origin."""
    return xyxy_around(torch.zeros_like(size), size)


def expected_consistency(output: McnOutput) -> Tensor:
    """Consistency energy maximisation [P] between the two branches, expected form. MCN Eq. 5 to 9.

    The co-energy is the expectation over pairs of (cos + 1) / 2, which factorises into (1 + <m_a, m_b>) / 2 with m the
    attention-averaged unit features.
    """
    means = [attended.mean_direction(energy) for energy, attended in _energies_and_features(output)]
    return co_energy_loss(*means)


def co_energy_loss(mean_a: Tensor, mean_b: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Minus the logarithm of the co-energy [P] of the two branches' mean directions [P, D]."""
    return -torch.log((1 + (mean_a * mean_b).sum(-1)) / 2 + eps)


def literal_consistency(output: McnOutput) -> Tensor:
    """`consistency_literal` [P] of the two branches. MCN Eq. 9."""
    (res_energy, res), (rec_energy, rec) = _energies_and_features(output)
    return consistency_literal(res_energy, res.rows(), rec_energy, rec.rows())


CEM_FORMS = {"expected": expected_consistency, "literal": literal_consistency}


def _energies_and_features(output: McnOutput) -> tuple[tuple[Tensor, Attended], tuple[Tensor, Attended]]:
    """Energies and F_att of the mask branch and of the box branch."""
    assert output.res_energy is not None
    assert output.rec_energy is not None
    assert output.res_attended is not None
    assert output.rec_attended is not None
    return (output.res_energy, output.res_attended), (output.rec_energy, output.rec_attended)


def consistency_literal(
    energy_a: Tensor, features_a: Tensor, energy_b: Tensor, features_b: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """MCN Eq. 9 as printed [P], but averaged over the N_a x N_b pairs where the paper adds them up.

    Here the log stands inside the sum. The energies' part is then the cross-entropy of the two maps from the uniform
    one: least, log N_a + log N_b, where both maps are uniform. So this form blurs the maps. Each phrase's table of
    pairs is computed alone, and again for the gradient, so that at most one is held: two maps of 52 x 52 have 7.3
    million pairs, and a batch of 35 phrases would hold gigabytes of them.

    Args:
        energy_a: attention logits [P, N_a] of one branch; -inf gives an infinite loss.
        features_a: its features [P, N_a, D].
        energy_b: attention logits [P, N_b] of the other branch.
        features_b: its features [P, N_b, D].
        eps: bounds the correlations away from 0 and 1, and the lengths by which features are divided from below.
    """
    energies = energy_a.float().log_softmax(-1).mean(-1) + energy_b.float().log_softmax(-1).mean(-1)
    rows = zip(features_a.split(1), features_b.split(1), strict=True)
    logs = [checkpoint(_mean_log_correlation, *row, eps, use_reentrant=False, preserve_rng_state=False) for row in rows]
    return -energies - torch.cat(logs)


def _mean_log_correlation(features_a: Tensor, features_b: Tensor, eps: float) -> Tensor:
    """The mean of log T [P] over all pairs."""
    return _correlation(features_a, features_b, eps).log().mean((1, 2))


def _correlation(features_a: Tensor, features_b: Tensor, eps: float) -> Tensor:
    """(cos + 1) / 2 of all pairs [P, N_a, N_b], within ``eps``..1 - ``eps``. MCN Eq. 6 with s_w = s_b = 1/2."""
    with torch.autocast(features_a.device.type, enabled=False):  # a product of matrices loses its digits there
        unit_a, unit_b = (F.normalize(one.float(), dim=-1, eps=eps) for one in (features_a, features_b))
        return ((unit_a @ unit_b.transpose(1, 2) + 1) / 2).clamp(eps, 1 - eps)


CRITERION = McnCriterion
