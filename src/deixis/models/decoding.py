"""From the model's maps to one answer a phrase. Letters: P phrases, N visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deixis.models.deixis import Output


@dataclass(frozen=True)
class Decoded:
    """One answer for each phrase."""

    boxes: Tensor  # [P, 4] xyxy as fractions of the canvas
    peak: Tensor  # [P] highest probability of a centre
    consensus: Tensor  # [P] share of the probability whose own boxes agree with the answer (IoU > 0.5)


def decode(output: Output) -> Decoded:
    """The box at the likeliest centre, averaged with the boxes of other cells that agree with it."""
    heat = output.heat_logits.softmax(-1)
    peak, best = heat.max(-1)
    chosen = output.boxes.gather(1, best[:, None, None].expand(-1, 1, 4))  # [P, 1, 4]
    agrees = heat * (pairwise_iou(output.boxes, chosen) > 0.5)
    consensus = agrees.sum(-1)
    boxes = (agrees[..., None] * output.boxes).sum(1) / consensus[:, None].clamp(min=1e-9)
    return Decoded(boxes=boxes.clamp(0, 1), peak=peak, consensus=consensus.clamp(max=1))


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes xyxy [..., 4], broadcast against each other."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-9)
