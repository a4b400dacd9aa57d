"""Losses as pure functions in float32. Letters: P phrases, N visual tokens, h x w a mask grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - generalised IoU of boxes xyxy [..., 4], in 0..2 (Rezatofighi et al., 2019)."""
    predicted, target = predicted.float(), target.float()
    low = torch.maximum(predicted[..., :2], target[..., :2])
    high = torch.minimum(predicted[..., 2:], target[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_p = (predicted[..., 2:] - predicted[..., :2]).clamp(min=1e-6).prod(-1)
    area_t = (target[..., 2:] - target[..., :2]).clamp(min=1e-6).prod(-1)
    union = area_p + area_t - intersection
    hull = torch.maximum(predicted[..., 2:], target[..., 2:]) - torch.minimum(predicted[..., :2], target[..., :2])
    hull_area = hull.clamp(min=1e-6).prod(-1)
    return 1 - intersection / union + (hull_area - union) / hull_area


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


def centre_target(centres: Tensor, boxes: Tensor, valid: Tensor, *, spread: float = 0.2) -> Tensor:
    """A distribution over the cells near each box's centre: a Gaussian of ``spread`` box sizes, cut at the box.

    Args:
        centres: [N, 2] xy of the cells as fractions of the canvas.
        boxes: [P, 4] xyxy as fractions of the canvas.
        valid: bool [P, N]; a cell outside the picture gets nothing.
        spread: standard deviation as a share of the box's width and height.

    Returns:
        [P, N], each row sums to 1; the cell nearest to the centre always has a share.
    """
    side = len(centres) ** 0.5
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    size = (boxes[:, None, 2:] - boxes[:, None, :2]).clamp(min=0.5 / side)
    squared = (((centres - middle) / (spread * size)) ** 2).sum(-1)
    squared = squared.masked_fill(~valid, torch.inf)
    nearest = squared.argmin(-1, keepdim=True)
    inside = ((centres - middle).abs() <= size / 2).all(-1).scatter(-1, nearest, True)
    weight = torch.exp(-0.5 * (squared - squared.gather(-1, nearest))) * inside
    return weight / weight.sum(-1, keepdim=True)


def heat_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy [P] of softmax(``logits`` [P, N]) against ``target``; -inf is fine where the target is 0."""
    log_p = logits.float().log_softmax(-1).masked_fill(target == 0, 0)
    return -(target * log_p).sum(-1)


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


def word_loss(logits: Tensor, labels: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy [K] of the words that hold for things, as told at the cells where they lie.

    Args:
        logits: [K, N, words] of one group of words.
        labels: int64 [K], the word that holds; -1 where it is not known: its loss is 0.
        cells: [K, N], each cell's share of the thing.
    """
    log_p = logits.float().log_softmax(-1)
    told = log_p.gather(-1, labels.clamp(min=0)[:, None, None].expand(-1, log_p.shape[1], 1)).squeeze(-1)
    return torch.where(labels >= 0, -(cells * told).sum(-1), 0)


def consistency_loss(
    energy_a: Tensor, features_a: Tensor, energy_b: Tensor, features_b: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """Consistency energy maximisation [P] between two branches, expected form. MCN Eq. 5 to 9.

    The co-energy is the expectation over pairs of (cos + 1) / 2, which factorises into
    (1 + <m_a, m_b>) / 2 with m the attention-averaged unit features.

    Args:
        energy_a: attention logits [P, N_a] of one branch.
        features_a: its features [P, N_a, D].
        energy_b: attention logits [P, N_b] of the other branch.
        features_b: its features [P, N_b, D].
        eps: kept away from log 0, and the least length by which features are divided.
    """
    means = mean_direction(energy_a, features_a, eps), mean_direction(energy_b, features_b, eps)
    return co_energy_loss(*means, eps=eps)


def mean_direction(energy: Tensor, features: Tensor, eps: float = 1e-6) -> Tensor:
    """The unit features, averaged by the attention: ``energy`` [P, N] and ``features`` [P, N, D] to [P, D]."""
    with torch.autocast(features.device.type, enabled=False):
        each = features.float()
        weights = energy.float().softmax(-1) / torch.linalg.vector_norm(each, dim=-1).clamp(min=eps)
        return (weights[:, None] @ each).squeeze(1)


def co_energy_loss(mean_a: Tensor, mean_b: Tensor, *, eps: float = 1e-6) -> Tensor:
    """`consistency_loss` [P] of the two branches' mean directions [P, D]."""
    return -torch.log((1 + (mean_a * mean_b).sum(-1)) / 2 + eps)


def consistency_pairwise(
    energy_a: Tensor, features_a: Tensor, energy_b: Tensor, features_b: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """What `consistency_loss` gives [P], through the whole table of pairs [P, N_a, N_b]. MCN Eq. 5 to 9.

    Arguments as there. The correlations are kept within ``eps``..1 - ``eps``, as the authors' code does, and
    `consistency_loss` cannot do. So the two differ where all pairs have a cosine near -1 (this form ends at
    -log(2 eps), that one at -log(eps)) or near 1 (0 here, -eps there), and by rounding elsewhere.
    """
    attention = energy_a.float().softmax(-1)[:, :, None] * energy_b.float().softmax(-1)[:, None, :]
    return -torch.log((attention * _correlation(features_a, features_b, eps)).sum((1, 2)) + eps)


def consistency_literal(
    energy_a: Tensor, features_a: Tensor, energy_b: Tensor, features_b: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """MCN Eq. 9 as printed [P], but averaged over the N_a x N_b pairs where the paper adds them up.

    Here the log stands inside the sum. The energies' part is then the cross-entropy of the two maps from the uniform
    one: least, log N_a + log N_b, where both maps are uniform. So this form blurs the maps.
    Arguments as in `consistency_loss`; an energy of -inf gives an infinite loss. Every phrase's table of pairs is made
    alone, and once more for the gradient, so that no more than one is ever held: two maps of 52 x 52 have 7.3 million
    pairs, and a batch of 35 phrases would hold gigabytes of them.
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
    anchor = _iou(_at_origin(size)[:, None], _at_origin(anchors)).argmax(-1)
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
    near = _iou(_decoded(logits, anchors), boxes[:, None, None, None]) >= IGNORE_IOU
    counted = ~(near & present[:, None, None, None]) | (target > 0)
    confidence = F.binary_cross_entropy_with_logits(logits[:, :, 4], target, reduction="none") * counted
    return {"xy": weight * xy, "wh": 0.5 * weight * wh, "confidence": confidence.sum((1, 2, 3))}


@torch.no_grad()
def _decoded(logits: Tensor, anchors: Tensor) -> Tensor:
    """Boxes xyxy [P, A, g, g, 4] as fractions of the canvas, as `deixis.models.mcn.yolo.decode_boxes` has them."""
    index = torch.arange(logits.shape[-1], device=logits.device)
    cell = torch.stack(torch.meshgrid(index, index, indexing="xy"), -1)
    values = logits.movedim(2, -1)
    centre = (values[..., :2].sigmoid() + cell) / len(index)
    half = values[..., 2:4].exp() * anchors[:, None, None] / 2
    return torch.cat([centre - half, centre + half], -1)


def _at_origin(size: Tensor) -> Tensor:
    """Boxes xyxy [..., 4] of these widths and heights around the origin."""
    return torch.cat([-size / 2, size / 2], -1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes xyxy [..., 4], broadcast against each other."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    return overlap / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap)
