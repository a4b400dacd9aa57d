"""Image encoders of MCN: DarkNet-53, VGG-16 and the YOLOv3-tiny body. Letters: B images, S canvas side.

Each gives F_v3, F_v2 and F_v1 of MCN section 3.1: maps at strides 8, 16 and 32. Pixels come in as RGB 0..1.
Batch-norm stays a layer of its own, as the last two convolutions go on learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.weights.darknet import DarknetConv, read_darknet_folder
from deixis.models.weights.pretrained import load_exactly, read_torchvision_vgg16


@dataclass(frozen=True)
class ThreeScales:
    """Feature maps [B, C, S/stride, S/stride] at three strides."""

    stride8: Tensor
    stride16: Tensor
    stride32: Tensor

    def pick(self, index: Tensor) -> ThreeScales:
        """The rows ``index`` [P]."""
        return ThreeScales(self.stride8[index], self.stride16[index], self.stride32[index])


class BatchNorm(nn.BatchNorm2d):
    """Batch-norm that meets a single value a channel in training with its running statistics.

    A mean over one value says nothing, and PyTorch refuses it. This happens to the pooled branch of ASPP and to the
    phrase in Eq. 1 when the last batch of an epoch holds one phrase: no reason to end a training of a day.
    """

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[B, C, H, W] to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ConvNormLeaky(nn.Module):
    """Convolution without bias, batch-norm, LeakyReLU 0.1.

    "Same" padding. With stride 2 and an even side, the pixel of padding on the right and below is never read: only
    that on the left and above counts, as in Darknet.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)
        self.norm = BatchNorm(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, a=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H/stride, W/stride]."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.1, inplace=True)


class DarknetResidual(nn.Module):
    """1x1 to half the width, 3x3 back, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormLeaky(channels, channels // 2)
        self.expand = ConvNormLeaky(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x + self.expand(self.reduce(x))


def _six_convs(in_channels: int) -> nn.Sequential:
    """The convolutions before YOLOv3's first head: 1x1 to 512 and 3x3 to 1024, three times."""
    widths = (in_channels, 512, 1024, 512, 1024, 512, 1024)
    return nn.Sequential(*(ConvNormLeaky(a, b, 3 if b == 1024 else 1) for a, b in pairwise(widths)))


def _convolutions(module: nn.Module) -> list[ConvNormLeaky]:
    """In the order of the Darknet file, which is the order of their making."""
    return [layer for layer in module.modules() if isinstance(layer, ConvNormLeaky)]


def _load(layers: Sequence[ConvNormLeaky], convs: Sequence[DarknetConv]) -> None:
    """Copy weights and batch-norm statistics; everything is checked before the first is written."""
    for index, (layer, source) in enumerate(zip(layers, convs, strict=True)):
        if source.weight.shape != layer.conv.weight.shape or source.bn_scale is None:
            raise ValueError(
                f"expected convolution {index} of the Darknet file to be {tuple(layer.conv.weight.shape)} with "
                f"batch-norm, got {tuple(source.weight.shape)} {'without' if source.bn_scale is None else 'with'} it; "
                "use the file of the same network"
            )
    with torch.no_grad():
        for layer, source in zip(layers, convs, strict=True):
            layer.conv.weight.copy_(torch.from_numpy(source.weight.copy()))
            parts = (layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var)
            arrays = (source.bn_scale, source.bias, source.bn_mean, source.bn_var)
            for part, array in zip(parts, arrays, strict=True):
                assert part is not None
                assert array is not None
                part.copy_(torch.from_numpy(array.copy()))


class Darknet53(nn.Module):
    """YOLOv3's body of 52 convolutions, and the six convolutions before its first head."""

    channels = (256, 512, 1024)
    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)
    _stages = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))  # width, residual blocks

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormLeaky(3, 32, 3)
        self.stages = nn.ModuleList()
        width = 32
        for out, blocks in self._stages:
            down = ConvNormLeaky(width, out, 3, stride=2)
            self.stages.append(nn.Sequential(down, *(DarknetResidual(out) for _ in range(blocks))))
            width = out
        self.head = _six_convs(1024)
        self._num_pretrained = 58

    def forward(self, pixels: Tensor) -> ThreeScales:
        """``pixels`` [B, 3, S, S] to maps of ``channels``."""
        x = self.stem(pixels)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return ThreeScales(stride8=maps[2], stride16=maps[3], stride32=self.head(maps[4]))

    def load_pretrained(self, path: str | Path) -> None:
        """Take the weights of the Darknet network in that folder; see :meth:`load_darknet`."""
        self.load_darknet(read_darknet_folder(path))

    def load_darknet(self, convs: Sequence[DarknetConv]) -> None:
        """Take the convolutions of a Darknet file; see :func:`deixis.models.weights.darknet.read_darknet`.

        Args:
            convs: 52 of the body alone (the six then keep their random weights), 58 with the six, or all 75 of
                YOLOv3, of which the 17 from the first detection layer on are left out.

        Raises:
            ValueError: another count, or a convolution of another shape or without batch-norm.
        """
        if len(convs) not in (52, 58, 75):
            raise ValueError(
                f"expected the 75 convolutions of YOLOv3, or its first 58 or 52, got {len(convs)}; use yolov3.weights "
                "or darknet53.conv.74 with yolov3.cfg"
            )
        own = _convolutions(self)[: len(convs)]
        _load(own, convs[: len(own)])
        self._num_pretrained = len(own)

    def frozen_parameters(self) -> list[nn.Parameter]:
        """What MCN leaves as it is, of a pretrained encoder: all but the last two of the six convolutions.

        After a file of the body alone, the 52 that it filled. A checkpoint does not say which file its encoder once
        came from, but fills all 58.
        """
        return [p for layer in _convolutions(self)[: min(self._num_pretrained, 56)] for p in layer.parameters()]


class StillMaxPool(nn.MaxPool2d):
    """Darknet's pool of stride 1, which looks one pixel to the right and below."""

    def __init__(self) -> None:
        super().__init__(2, stride=1)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[B, C, H, W] to the same shape."""
        return F.max_pool2d(x, 2, stride=1, padding=1)[..., 1:, 1:]


class DarknetTiny(nn.Module):
    """The YOLOv3-tiny body: layers 0 to 14 of its ``.cfg``, up to the coarse detection layer."""

    channels = (128, 256, 512)
    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256, 512, 1024)
        self.body = nn.ModuleList(ConvNormLeaky(a, b, 3) for a, b in pairwise(widths))
        self.pools = nn.ModuleList([*(nn.MaxPool2d(2) for _ in range(5)), StillMaxPool()])
        self.head = nn.Sequential(ConvNormLeaky(1024, 256), ConvNormLeaky(256, 512, 3))

    def forward(self, pixels: Tensor) -> ThreeScales:
        """``pixels`` [B, 3, S, S] to maps of ``channels``, each before the pooling that follows it."""
        maps = []
        x = pixels
        for index, conv in enumerate(self.body):
            x = conv(x)
            maps.append(x)
            if index < len(self.pools):
                x = self.pools[index](x)
        return ThreeScales(stride8=maps[3], stride16=maps[4], stride32=self.head(x))

    def load_pretrained(self, path: str | Path) -> None:
        """Take the weights of the Darknet network in that folder; see :meth:`load_darknet`."""
        self.load_darknet(read_darknet_folder(path))

    def load_darknet(self, convs: Sequence[DarknetConv]) -> None:
        """Take the convolutions of a YOLOv3-tiny file; see :func:`deixis.models.weights.darknet.read_darknet`.

        Args:
            convs: all 13, of which the four from the coarse detection layer on are left out, or the 9 before it.

        Raises:
            ValueError: another count, or a convolution of another shape or without batch-norm.
        """
        if len(convs) not in (9, 13):
            raise ValueError(
                f"expected the 13 convolutions of YOLOv3-tiny, or its first 9, got {len(convs)}; "
                "use yolov3-tiny.weights with its .cfg"
            )
        _load(_convolutions(self), convs[:9])

    def frozen_parameters(self) -> list[nn.Parameter]:
        """What MCN leaves as it is, of a pretrained encoder: all but the last two convolutions."""
        return [p for layer in _convolutions(self)[:-2] for p in layer.parameters()]


class VggBody(nn.Module):
    """VGG-16's convolutions under torchvision's names, ``features.0`` to ``features.30``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for out, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                conv = nn.Conv2d(width, out, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight)
                nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
                layers += [conv, nn.ReLU(inplace=True)]
                width = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> ThreeScales:
        """[B, 3, S, S] to three maps of 512 channels: the ends of blocks 4 and 5, and pool5."""
        stride8 = self.features[:23](x)
        stride16 = self.features[23:30](stride8)
        return ThreeScales(stride8=stride8, stride16=stride16, stride32=self.features[30](stride16))


class Vgg16(nn.Module):
    """VGG-16 up to pool5, and six convolutions as before YOLOv3's first head.

    The official code divides pixels by 255 and no more, as its own weights were trained so. torchvision's were
    trained on normalised pixels, so these are normalised here: a deviation that the weights ask for.
    """

    channels = (512, 512, 1024)
    pixel_mean = (0.485, 0.456, 0.406)
    pixel_std = (0.229, 0.224, 0.225)
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(self.pixel_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.pixel_std)[:, None, None], persistent=False)
        self.body = VggBody()
        self.head = _six_convs(512)

    def forward(self, pixels: Tensor) -> ThreeScales:
        """``pixels`` [B, 3, S, S] to maps of ``channels``."""
        maps = self.body((pixels - self.mean) / self.std)
        return ThreeScales(stride8=maps.stride8, stride16=maps.stride16, stride32=self.head(maps.stride32))

    def load_pretrained(self, path: str | Path) -> None:
        """Take the convolutions of a file with torchvision's names; its classifier is left out.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: one sentence that lists the names that are missing, unexpected or of another shape.
        """
        load_exactly(self.body, read_torchvision_vgg16(path), str(path))

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Of a pretrained encoder, what a file can fill: VGG-16's own convolutions.

        The official code freezes four of the six too, which weights of its own fill.
        """
        return [*self.body.parameters()]


McnEncoder = Darknet53 | Vgg16 | DarknetTiny

_ENCODERS: dict[str, type[McnEncoder]] = {"darknet53": Darknet53, "vgg16": Vgg16, "darknet-tiny": DarknetTiny}


def build_mcn_encoder(name: str) -> McnEncoder:
    """The encoder of that configuration name, untrained.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in _ENCODERS:
        raise ValueError(f"expected an image encoder out of {sorted(_ENCODERS)}, got {name!r}")
    return _ENCODERS[name]()
