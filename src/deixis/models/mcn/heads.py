"""The heads of MCN: a box from the map at stride 32, a mask from the one at stride 8."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.config import McnConfig
from deixis.models.encoders.darknet import ConvNormLeaky

ASPP_DILATIONS = (6, 12, 18)


def log_odds_of(probability: float) -> float:
    """``log(p / (1 - p))``."""
    return math.log(probability / (1 - probability))


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
            self.conv.bias[4::5] = log_odds_of(config.prior)

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
        nn.init.constant_(self.conv.bias, log_odds_of(config.prior))

    def forward(self, features: Tensor) -> Tensor:
        """[P, D, s, s] to [P, s, s]."""
        whole = self.whole(features.mean((-1, -2), keepdim=True))
        views = [self.near(features), *(conv(features) for conv in self.wide), whole]
        weights = self.conv.weight.split(whole.shape[1], 1)
        biases = [self.conv.bias, *[None] * (len(views) - 1)]
        logits = [F.conv2d(*one).float() for one in zip(views, weights, biases, strict=True)]
        return sum(logits[1:], logits[0]).squeeze(1)
