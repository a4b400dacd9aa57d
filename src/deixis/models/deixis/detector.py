"""A one-stage detector's neck and head: NanoDet-Plus's, batch-norm folded into the convolutions.

The tensors have the names of the published NanoDet-Plus-m files, so those load as they are.
Letters: B images, S canvas side, A places on all levels together, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.encoders.image import DepthwiseConv, Pyramid, conv, leaky

STRIDES = (8, 16, 32, 64)
WIDTH = 128
"""Channels of the neck's maps."""
CLASSES = 80
_BINS = 8
_NOTHING = -4.6
"""Logit of a hundredth, where an untrained head begins."""


@dataclass(frozen=True)
class Detections:
    """What the detector sees at every place of every level."""

    maps: list[Tensor]  # [B, WIDTH, S / stride, S / stride], one for each of STRIDES
    towers: Tensor  # [B, A, WIDTH] features that the class logits are read from
    class_logits: Tensor  # [B, A, C]
    thing_logits: Tensor  # [B, A] whether there is any one thing, of whatever category
    boxes: Tensor  # float32 [B, A, 4] xyxy as fractions of the canvas


class _Ghost(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a cheap depthwise one of these (GhostNet)."""

    def __init__(self, in_channels: int, out_channels: int, *, activated: bool) -> None:
        super().__init__()
        self.activated = activated
        self.primary_conv = nn.Sequential(conv(in_channels, out_channels // 2))
        self.cheap_operation = nn.Sequential(conv(out_channels // 2, out_channels // 2, 3, groups=out_channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        own = self.primary_conv(x)
        own = leaky(own) if self.activated else own
        cheap = self.cheap_operation(own)
        return torch.cat([own, leaky(cheap) if self.activated else cheap], 1)


class _GhostBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.ghost1 = _Ghost(in_channels, out_channels, activated=True)
        self.ghost2 = _Ghost(out_channels, out_channels, activated=False)
        self.shortcut = nn.ModuleDict(
            {"0": conv(in_channels, in_channels, 5, groups=in_channels), "2": conv(in_channels, out_channels)}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.ghost1(x)) + self.shortcut["2"](self.shortcut["0"](x))


class _GhostBlocks(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(_GhostBlock(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class _Reduce(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.conv(x))


class GhostPan(nn.Module):
    """Top-down and bottom-up path over strides 8, 16, 32, and one level more at stride 64."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.reduce_layers = nn.ModuleList(_Reduce(one) for one in channels)
        self.top_down_blocks = nn.ModuleList(_GhostBlocks(2 * WIDTH, WIDTH) for _ in range(2))
        self.downsamples = nn.ModuleList(DepthwiseConv(WIDTH, WIDTH, stride=2) for _ in range(2))
        self.bottom_up_blocks = nn.ModuleList(_GhostBlocks(2 * WIDTH, WIDTH) for _ in range(2))
        self.extra_lvl_in_conv = nn.ModuleList([DepthwiseConv(WIDTH, WIDTH, stride=2)])
        self.extra_lvl_out_conv = nn.ModuleList([DepthwiseConv(WIDTH, WIDTH, stride=2)])

    def forward(self, pyramid: Pyramid) -> list[Tensor]:
        """Maps of `WIDTH` channels at `STRIDES`."""
        sources = (pyramid.stride8, pyramid.stride16, pyramid.stride32)
        fine, middle, coarse = (reduce(x) for reduce, x in zip(self.reduce_layers, sources, strict=True))
        inner = [coarse]
        for block, lateral in zip(self.top_down_blocks, (middle, fine), strict=True):
            up = F.interpolate(inner[0], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
            inner.insert(0, block(torch.cat([up, lateral], 1)))
        maps = [inner[0]]
        for down, block, lateral in zip(self.downsamples, self.bottom_up_blocks, inner[1:], strict=True):
            maps.append(block(torch.cat([down(maps[-1]), lateral], 1)))
        return [*maps, self.extra_lvl_in_conv[0](coarse) + self.extra_lvl_out_conv[0](maps[-1])]


class DetectionHead(nn.Module):
    """Classes, boxes as expected distances (generalised focal loss), and whether there is a thing at all."""

    def __init__(self) -> None:
        super().__init__()
        towers = (nn.ModuleList(DepthwiseConv(WIDTH, WIDTH) for _ in range(2)) for _ in STRIDES)
        self.cls_convs = nn.ModuleList(towers)
        self.gfl_cls = nn.ModuleList(conv(WIDTH, CLASSES + 4 * _BINS) for _ in STRIDES)
        self.thing = nn.ModuleList(conv(WIDTH, 1) for _ in STRIDES)
        for one in self.thing:
            nn.init.zeros_(one.weight)  # pyright: ignore[reportArgumentType]
            nn.init.constant_(one.bias, _NOTHING)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: list[Tensor]) -> Detections:
        """``maps`` of `GhostPan` to what is seen at every place."""
        side = maps[0].shape[-1] * STRIDES[0]
        towers, outputs, things, places = [], [], [], []
        for x, tower, out, thing, stride in zip(maps, self.cls_convs, self.gfl_cls, self.thing, STRIDES, strict=True):
            for one in tower:  # pyright: ignore[reportGeneralTypeIssues]
                x = one(x)
            towers.append(_flat(x))
            outputs.append(_flat(out(x)))
            things.append(_flat(thing(x)).squeeze(-1))
            places.append(_places(x, stride))
        output = torch.cat(outputs, 1)
        class_logits, bins = output.split([CLASSES, 4 * _BINS], -1)
        return Detections(
            maps=maps,
            towers=torch.cat(towers, 1),
            class_logits=class_logits,
            thing_logits=torch.cat(things, 1),
            boxes=_boxes(bins, torch.cat(places), side),
        )


def _flat(x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H * W, C]."""
    return x.flatten(2).transpose(1, 2)


def _places(like: Tensor, stride: int) -> Tensor:
    """[H * W, 3]: x and y of the cells' upper left corners in pixels, which distances count from, and the stride."""
    steps = torch.arange(like.shape[-1], device=like.device, dtype=torch.float32) * stride
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.full_like(x.flatten(), stride)], -1)


def _boxes(bins: Tensor, places: Tensor, side: int) -> Tensor:
    """Logits of distances [B, A, 4 * bins] to boxes xyxy [B, A, 4] as fractions of the canvas."""
    share = bins.float().transpose(1, 2).unflatten(1, (4, _BINS)).softmax(2)  # slow over a short last axis
    distance = (share * torch.arange(_BINS, device=bins.device)[:, None]).sum(2).transpose(1, 2) * places[:, 2:]
    low, high = places[:, :2] - distance[..., :2], places[:, :2] + distance[..., 2:]
    return torch.cat([low, high], -1) / side
