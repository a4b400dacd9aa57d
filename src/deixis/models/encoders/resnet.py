"""Image encoders of SMCIM: ResNet-50 and -101, any backbone of the transformers library, the YOLOv3-tiny body.

SMCIM section III-B takes the last three stages of a ResNet. Letters: B images, S canvas side.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from deixis.models.encoders.darknet import DarknetTiny, ThreeScales
from deixis.models.weights.pretrained import (
    in_one_sentence,
    load_exactly,
    read_resnet,
    read_transformers,
    read_transformers_config,
    shown,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}

_EARLY = re.compile(r"(\w+\.)?(embedder|embeddings|stem|patch_embed)\.|(\w+\.)?encoder\.(stages|layers?|blocks)\.0\.")
"""Names of a backbone's stem and first stage; of a ResNet those that torchvision calls conv1, bn1 and layer1."""


class FreezesNorms(nn.Module, ABC):
    """An encoder whose early filters and batch-norm stay fixed once it is pretrained, as in TransVG and DETR."""

    def train(self, mode: bool = True) -> Self:
        """Switch to training; batch-norm whose weight requires no gradient keeps to its stored statistics."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm):
                layer.train(mode and (layer.weight is None or layer.weight.requires_grad))
        return self

    @abstractmethod
    def early_parameters(self) -> list[nn.Parameter]:
        """Those of the first filters."""

    def frozen_parameters(self) -> list[nn.Parameter]:
        """What stays fixed in a pretrained encoder: the first filters, and scales and shifts of every batch-norm."""
        early = self.early_parameters()
        known = {id(p) for p in early}
        norms = (p for layer in self.modules() if isinstance(layer, _BatchNorm) for p in layer.parameters())
        return [*early, *(p for p in norms if id(p) not in known)]


class BackboneEncoder(FreezesNorms):
    """A backbone of the transformers library: maps at strides 8, 16 and 32. Pixels come in as RGB 0..1.

    Of a backbone of four stages the last three, else those that end each third; a map at another stride than its own
    is resized, so that a plain vision transformer fits too. Pixels are normalised by ImageNet's mean and deviation.

    Args:
        config: a configuration of the library that has a backbone of three stages or more; its weights are random.
    """

    pixel_mean = (0.485, 0.456, 0.406)
    pixel_std = (0.229, 0.224, 0.225)
    mean: Tensor
    std: Tensor

    def __init__(self, config: PretrainedConfig) -> None:
        from transformers import AutoBackbone

        super().__init__()
        stages = config.stage_names[1:]  # the first is the stem
        config.out_features = stages[1:] if len(stages) == 4 else [stages[len(stages) * k // 3 - 1] for k in (1, 2, 3)]
        self.register_buffer("mean", torch.tensor(self.pixel_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.pixel_std)[:, None, None], persistent=False)
        self.body = AutoBackbone.from_config(config)
        self.channels: tuple[int, int, int] = tuple(self.body.channels)

    def forward(self, pixels: Tensor) -> ThreeScales:
        """``pixels`` [B, 3, S, S] to maps of ``channels``, S a multiple of 32."""
        maps = self.body((pixels - self.mean) / self.std).feature_maps
        return ThreeScales(*(_at_stride(one, pixels, stride) for one, stride in zip(maps, (8, 16, 32), strict=True)))

    def load_pretrained(self, source: str | Path) -> None:
        """Take pretrained weights.

        Args:
            source: a local folder of the transformers library or its name on the hub; for a ResNet also a file with
                the names of torchvision, DETR or transformers, see
                :func:`deixis.models.weights.pretrained.read_resnet`.

        Raises:
            FileNotFoundError: there is no such file or name.
            ValueError: the weights do not fit; one sentence lists what is missing, unexpected or of another shape.
        """
        if self.body.config.model_type == "resnet":
            state = read_resnet(source)
        else:  # a backbone has norms for its maps that the whole model has not
            read_transformers_config(source, "the configuration of a backbone")
            body = read_transformers(type(self.body), source, self.body.config, may_miss=("hidden_states_norms",))
            state = body.state_dict()
        load_exactly(self.body, state, str(source))

    def early_parameters(self) -> list[nn.Parameter]:
        """The stem and the first stage."""
        return [p for name, p in self.body.named_parameters() if _EARLY.match(name)]


def _at_stride(features: Tensor, pixels: Tensor, stride: int) -> Tensor:
    """[B, C, h, w] to [B, C, S/stride, S/stride]."""
    size = (pixels.shape[-2] // stride, pixels.shape[-1] // stride)
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size, mode="bilinear", align_corners=False)


class TinyEncoder(FreezesNorms, DarknetTiny):
    """The YOLOv3-tiny body, frozen as the other encoders of SMCIM are."""

    def early_parameters(self) -> list[nn.Parameter]:
        """The filters of strides 1 to 4."""
        return [p for layer in self.body[:3] for p in layer.parameters()]


SmcimEncoder = BackboneEncoder | TinyEncoder


def build_smcim_encoder(name: str) -> SmcimEncoder:
    """The encoder of that configuration name, untrained.

    Args:
        name: ``resnet50``, ``resnet101``, ``darknet-tiny``, or a backbone of the transformers library: a local folder
            with its ``config.json``, its name on the hub, or that configuration itself.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the configuration there is damaged or has no backbone.
    """
    if name == "darknet-tiny":
        return TinyEncoder()
    if name in RESNET_DEPTHS:
        from transformers import ResNetConfig

        return BackboneEncoder(ResNetConfig(depths=list(RESNET_DEPTHS[name])))
    from transformers import MODEL_FOR_BACKBONE_MAPPING

    config = read_transformers_config(name, "the configuration of a backbone")
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING or not hasattr(config, "stage_names"):  # timm's have none
        raise ValueError(
            f"expected image_encoder to name a backbone of the transformers library, got {shown(name)} of the kind "
            f"{config.model_type!r}; name a ResNet, Swin, ConvNeXt or the like"
        )
    if len(config.stage_names) < 4:
        raise ValueError(
            f"expected image_encoder to name a backbone of three stages or more, got {shown(name)} with "
            f"{len(config.stage_names) - 1}; name another one"
        )
    with in_one_sentence(f"the configuration of a backbone in {shown(name)}"):
        return BackboneEncoder(config)
