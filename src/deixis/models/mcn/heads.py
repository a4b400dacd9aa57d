"""The heads of MCN: a box from the map at stride 32, a mask from the one at stride 8. Letters: P phrases, A anchors.

The box branch's map has g x g cells and is read as YOLOv3 reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.boxes import xyxy_around
from deixis.models.encoders.darknet import ConvNormLeaky
from deixis.models.mcn.config import McnConfig

ASPP_DILATIONS = (6, 12, 18)
ANCHOR_SIDE = 416
"""Side in pixels of the canvas on which anchors are measured, whatever the side of the model's own."""


def linear_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution with bias that nothing follows; biases begin at zero."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
    return conv


class BoxHead(nn.Module):
    """YOLOv3's regression layer: five numbers an anchor and cell. MCN Eq. 4."""

    def __init__(self, config: McnConfig) -> None:
        super().__init__()
        self.anchors = len(config.anchors_px)
        self.conv = linear_conv(config.dim, 5 * self.anchors)
        assert self.conv.bias is not None
        with torch.no_grad():
            self.conv.bias[4::5] = math.log(config.prior / (1 - config.prior))

    def forward(self, features: Tensor) -> Tensor:
        """[P, D, g, g] to [P, A, 5, g, g]."""
        return self.conv(features).unflatten(1, (self.anchors, 5)).float()


class AsppHead(nn.Module):
    """Atrous spatial pyramid pooling: five views of a map beside each other, then one logit a cell. MCN Eq. 3.

    The last convolution is computed as the sum of one of each view, so that they need not lie side by side.
    """

    def __init__(self, config: McnConfig) -> None:
        super().__init__()
        dim, width = config.dim, config.aspp_dim
        self.near = ConvNormLeaky(dim, width)
        self.wide = nn.ModuleList(ConvNormLeaky(dim, width, 3, dilation=dilation) for dilation in ASPP_DILATIONS)
        self.whole = ConvNormLeaky(dim, width)
        self.conv = linear_conv((2 + len(ASPP_DILATIONS)) * width, 1)
        assert self.conv.bias is not None
        nn.init.constant_(self.conv.bias, math.log(config.prior / (1 - config.prior)))

    def forward(self, features: Tensor) -> Tensor:
        """[P, D, s, s] to [P, s, s]."""
        whole = self.whole(features.mean((-1, -2), keepdim=True))
        views = [self.near(features), *(conv(features) for conv in self.wide), whole]
        weights = self.conv.weight.split(whole.shape[1], 1)
        biases = [self.conv.bias, *[None] * (len(views) - 1)]
        logits = [F.conv2d(*one).float() for one in zip(views, weights, biases, strict=True)]
        return sum(logits[1:], logits[0]).squeeze(1)


def anchors_as_fractions(anchors_px: Sequence[tuple[float, float]], *, device: torch.device | None = None) -> Tensor:
    """Widths and heights [A, 2] in pixels of a canvas of side `ANCHOR_SIDE` as fractions of the canvas, float32."""
    return torch.tensor(anchors_px, dtype=torch.float32, device=device).reshape(-1, 2) / ANCHOR_SIDE


def decode_boxes(box_logits: Tensor, anchors_px: Sequence[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """All candidates: xy = (sigmoid(t_xy) + cell) / g, wh = exp(t_wh) * anchor, confidence = sigmoid. YOLOv3.

    Args:
        box_logits: [P, A, 5, g, g]: t_x, t_y, t_w, t_h and the confidence's logit.
        anchors_px: A pairs (width, height) in pixels of a canvas of side `ANCHOR_SIDE`.

    Returns:
        Boxes xyxy [P, A * g * g, 4] as fractions of the canvas, some beyond it, and their confidence
        [P, A * g * g] in 0..1; anchor by anchor, row by row. Both float32.

    Raises:
        ValueError: the map is not of this shape.
    """
    _, num_anchors, num_values, rows, columns = box_logits.shape
    if num_anchors != len(anchors_px) or num_values != 5 or rows != columns:
        raise ValueError(
            f"expected a map [P, {len(anchors_px)}, 5, g, g], one for each anchor, got {list(box_logits.shape)!r}; "
            "give the anchors of the model that made it"
        )
    anchors = anchors_as_fractions(anchors_px, device=box_logits.device)
    logits = box_logits.float()
    return candidate_boxes(logits, anchors).flatten(1, 3), logits[:, :, 4].sigmoid().flatten(1)


def candidate_boxes(logits: Tensor, anchors_norm: Tensor) -> Tensor:
    """Boxes xyxy [P, A, g, g, 4] of logits [P, A, 5, g, g] and anchors [A, 2], all as fractions of the canvas."""
    index = torch.arange(logits.shape[-1], device=logits.device)
    cell = torch.stack(torch.meshgrid(index, index, indexing="xy"), -1)  # [g, g, 2] xy
    values = logits.movedim(2, -1)
    centre = (values[..., :2].sigmoid() + cell) / len(index)
    return xyxy_around(centre, values[..., 2:4].exp() * anchors_norm[:, None, None])


def best_box(box_logits: Tensor, anchors_px: Sequence[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """The surest of all candidates: its box xyxy [P, 4], cut to the canvas (0..1), and its confidence [P].

    Arguments and errors as in `decode_boxes`.
    """
    boxes, confidence = decode_boxes(box_logits, anchors_px)
    surest, best = confidence.max(-1)
    return boxes.gather(1, best[:, None, None].expand(-1, 1, 4)).squeeze(1).clamp(0, 1), surest
