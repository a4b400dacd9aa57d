"""Losses as pure functions in float32. Letters: P phrases, N visual tokens, h x w a mask grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
        eps: kept away from log 0.
    """
    means = []
    for energy, features in ((energy_a, features_a), (energy_b, features_b)):
        attention = energy.float().softmax(-1)
        means.append((attention[..., None] * F.normalize(features.float(), dim=-1)).sum(1))
    return -torch.log((1 + (means[0] * means[1]).sum(-1)) / 2 + eps)
