"""SMCIM (TIP 2024): ResNet and BERT, multi-grained cross-modal attention, and the box from the [CLS] token.

Letters: B images, P phrases, S canvas side, G = S / 16 grid side, N = G * G visual tokens, T text tokens, C_0 the width
of grouping, C_1 = 3 C_0 that of merging, g = 1, 2, 3 the groups, one for each grain of words.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deixis.models.attention import attend_in_groups
from deixis.models.base import Answer, GroundingModel, log_odds
from deixis.models.boxes import cells_inside, xyxy_from_cxcywh
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.encoders.resnet import RESNET_DEPTHS, BackboneEncoder, build_smcim_encoder
from deixis.models.encoders.text import LayeredText
from deixis.models.padding import mean_inside, only_pictures, watch
from deixis.models.smcim.config import SmcimConfig
from deixis.models.smcim.interaction import InteractionLayer, LastStep, build_layer, sine_position
from deixis.models.weights.pretrained import config_as_text

STRIDE = 16
"""H and W are 16 times smaller than the image: SMCIM section IV-B."""


@dataclass(frozen=True)
class SmcimScene:
    """Encoded images; each row can meet any number of phrases."""

    features: tuple[Tensor, ...]  # one [B, N, C_0] for each group
    valid: Tensor  # bool [B, N], True = inside the picture

    def pick(self, index: Tensor) -> Self:
        """The rows ``index`` [P], one for each phrase."""
        return type(self)(tuple(feature[index] for feature in self.features), self.valid[index])


@dataclass(frozen=True)
class SmcimOutput:
    """What the model says of P phrases."""

    boxes_cxcywh: Tensor  # float32 [P, 4], fractions of the canvas
    pixels: Tensor  # [P, N, C_1], F_v of the last block
    cls_attention: Tensor | None  # float32 [P, N] of sum 1, where it was asked for


class VisualFeatures(nn.Module):
    """Stages of the encoder to F_v^0: each to C_0 channels at stride 16, side by side. SMCIM section III-B2.

    The paper says "transformed to H x W x C_0 by down-sampling or up-sampling". ``conv1x1`` is the least that does
    it: a 1x1 convolution, then the mean of 2x2 cells at stride 8 and bilinear growth at stride 32. Table V asks for
    more: with it the model has 145.2M parameters and 105.8G operations, 1.4 % and 4.5 % below what is printed.
    ``conv3x3`` ends each path with a 3x3 convolution, as feature pyramids do, which at stride 8 is what halves the
    side: 146.9M and 109.4G, 0.2 % and 1.3 % below. The rest that was weighed is in docs/papers.md.
    """

    def __init__(self, config: SmcimConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        dim = config.group_dim
        self.stages = config.visual_features
        self.project = nn.ModuleList(nn.Conv2d(channels[stage - 3], dim, 1) for stage in self.stages)
        self.smooth = nn.ModuleList(
            nn.Conv2d(dim, dim, 3, stride=2 if stage == 3 else 1, padding=1)
            for stage in (self.stages if config.projection == "conv3x3" else ())
        )

    def forward(self, maps: ThreeScales) -> Tensor:
        """Maps at strides 8, 16 and 32 to [B, N, stages * C_0]."""
        found = []
        for index, stage in enumerate(self.stages):
            x = self.project[index]((maps.stride8, maps.stride16, maps.stride32)[stage - 3])
            if stage == 5:
                x = mean_inside(partial(F.interpolate, scale_factor=2.0, mode="bilinear"), x)
            if self.smooth:
                x = self.smooth[index](x)
            elif stage == 3:
                x = mean_inside(partial(F.avg_pool2d, kernel_size=2), x)
            found.append(x)
        return torch.cat(found, 1).flatten(2).transpose(1, 2)


class Position(nn.Module):
    """Where a pixel stands on the canvas, of which the paper says nothing.

    With ``position_at`` ``attention`` it is added to the pixels' queries and keys in every block, so that it steers
    who looks at whom but is never looked at; ``tokens`` adds it to the pixels themselves before the first block, so
    that [CLS] can read where it looks; ``both`` does both.
    """

    def __init__(self, config: SmcimConfig) -> None:
        super().__init__()
        self.kind, self.at = config.position, config.position_at
        self.side = config.image_size // STRIDE
        self.table = nn.Embedding(self.side**2, config.merge_dim) if config.position == "learned" else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.02)

    def _of(self, like: Tensor) -> Tensor | None:
        """[N, D] for tokens [B, N, D]; a learned table gives narrower tokens its first numbers."""
        if self.kind == "none":
            return None
        side = round(like.shape[1] ** 0.5)
        if self.table is None:
            return sine_position(side, like.shape[2], like)
        if side != self.side:
            raise ValueError(
                f"expected a canvas of {STRIDE * self.side} pixels a side, the size of the learned positions, got "
                f"{STRIDE * side!r}; resize the image or use position 'sine'"
            )
        return self.table(torch.arange(side**2, device=like.device))[:, : like.shape[2]]

    def of_tokens(self, like: Tensor) -> Tensor:
        """The tokens [B, N, D], with their position where it is added to them."""
        position = None if self.at == "attention" else self._of(like)
        return like if position is None else like + position

    def of_attention(self, like: Tensor) -> Tensor | None:
        """[N, D] for the queries and keys of blocks of that width."""
        return None if self.at == "tokens" else self._of(like)


class ImageSide(nn.Module):
    """All that needs no words: F_v^0, and its projection to C_0 for each group.

    F_v^0 is C_1 wide, a group works at C_0: the paper does not say how it becomes so. Here by a linear layer a group.
    """

    def __init__(self, config: SmcimConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.features = VisualFeatures(config, channels)
        width = len(config.visual_features) * config.group_dim
        self.to_groups = nn.ModuleList(nn.Linear(width, config.group_dim) for _ in config.text_features)

    def forward(self, maps: ThreeScales, position: Position) -> tuple[Tensor, ...]:
        """Maps of the encoder to one [B, N, C_0] for each group."""
        tokens = position.of_tokens(self.features(maps))
        return tuple(to_group(tokens) for to_group in self.to_groups)


class MultiGrainedAttention(nn.Module):
    """Grouping, then merging. SMCIM section III-B2, Fig. 3.

    Each group has its own blocks. Merging is C_1 wide whatever the number of groups: where the groups side by side
    are not, as in Table III, a linear layer makes them so.
    """

    def __init__(self, config: SmcimConfig) -> None:
        super().__init__()
        small, merged = config.group_dim, config.merge_dim
        grains = config.text_features
        self.textual_in = nn.ModuleList(nn.Linear(config.text_dim, small) for _ in grains)
        self.groups = nn.ModuleList(
            nn.ModuleList(build_layer(config, dim=small, heads=config.group_heads) for _ in range(config.group_blocks))
            for _ in grains
        )
        fits = len(grains) * small == merged
        self.visual_merge = nn.Identity() if fits else nn.Linear(len(grains) * small, merged)
        self.textual_merge = nn.Identity() if fits else nn.Linear(len(grains) * small, merged)
        self.merge = nn.ModuleList(
            build_layer(config, dim=merged, heads=config.merge_heads) for _ in range(config.merge_blocks)
        )
        self.checkpointing = False

    def forward(
        self, scene: SmcimScene, words: list[Tensor], token_valid: Tensor, position: Position
    ) -> tuple[Tensor, LastStep]:
        """``scene`` of P rows and the grains [P, T, text_dim] to [CLS] of F_l^3 [P, C_1] and its last step."""
        own_place = position.of_attention(scene.features[0])
        visual, textual = attend_in_groups(
            lambda layer, visual, textual: self._run(layer, visual, textual, scene.valid, token_valid, own_place),
            self.groups, self.textual_in, scene.features, words,
        )  # fmt: skip
        visual, textual = self.visual_merge(visual), self.textual_merge(textual)
        place, before = position.of_attention(visual), (visual, textual)
        for layer in cast(Iterable[InteractionLayer], self.merge):
            before = visual, textual
            visual, textual = self._run(layer, visual, textual, scene.valid, token_valid, place)
        return textual[:, 0], LastStep(*before, visual, scene.valid, token_valid, place)

    def _run(self, layer: nn.Module, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """The layer; with ``checkpointing``, in training, what it computes is computed again on the way back."""
        if self.checkpointing and self.training:
            return cast(tuple[Tensor, Tensor], checkpoint(layer, *inputs, use_reentrant=False))
        return layer(*inputs)

    @property
    def last(self) -> InteractionLayer:
        """The last block of merging."""
        return cast(InteractionLayer, self.merge[-1])


def _start_evenly(*parts: nn.Module) -> None:
    """Xavier weights and biases of zero for every linear layer and convolution, as in DETR and TransVG."""
    for layer in (one for part in parts for one in part.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _without_folders(config: SmcimConfig, image: nn.Module, text: LayeredText) -> SmcimConfig:
    """Encoders that a folder or a name on the hub described, by that description: a checkpoint needs neither."""
    found = {}
    if isinstance(image, BackboneEncoder) and config.image_encoder not in RESNET_DEPTHS:
        found["image_encoder"] = config_as_text(image.body.config)
    if config.text_encoder != "bert":
        found["text_encoder"] = config_as_text(text.body.config)
    return replace(config, **found)


class SmcimModel(GroundingModel):
    """Image and phrases to boxes."""

    config: SmcimConfig
    score_weights = (1.0, 0.0)  # the share of attention inside the box, the agreement
    mask_stride = STRIDE
    adapts_canvas = False  # one size, as in the paper
    mask_threshold = None

    def __init__(self, config: SmcimConfig) -> None:
        super().__init__()
        self.fill = config.fill
        self.resize = config.resize
        self.encoder = build_smcim_encoder(config.image_encoder)
        self.text = LayeredText(config)
        self.config = _without_folders(config, self.encoder, self.text)
        self.position = Position(config)
        self.image = ImageSide(config, self.encoder.channels)
        self.interaction = MultiGrainedAttention(config)
        dim = config.merge_dim
        self.head = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4)
        )  # fmt: skip
        _start_evenly(self.image, self.interaction, self.head)
        for part in (self.encoder, self.image):
            watch(part)

    def encode_image(self, pixels: Tensor, content: Tensor) -> SmcimScene:
        """``pixels`` [B, 3, S, S] RGB 0..1 on the canvas, S a multiple of 32; ``content`` [B, 4] the picture on it."""
        if pixels.shape[-1] % 32 or pixels.shape[-2] != pixels.shape[-1]:
            raise ValueError(f"expected a square canvas of a multiple of 32, got {tuple(pixels.shape[-2:])!r}")
        valid = cells_inside(content, pixels.shape[-1] // STRIDE)
        with only_pictures(content, pixels.shape[-1]) if self.config.mask_padding else nullcontext():
            return SmcimScene(self.image(self.encoder(pixels), self.position), valid)

    def ground(self, scene: SmcimScene, token_ids: Tensor, token_valid: Tensor, *, attend: bool = False) -> SmcimOutput:
        """``scene`` of P rows (see :meth:`SmcimScene.pick`) and P phrases [P, T].

        With ``attend``, also where [CLS] looked in the last block.
        """
        cls, step = self._interact(scene, token_ids, token_valid)
        return SmcimOutput(
            boxes_cxcywh=self.head(cls).float().sigmoid(),
            pixels=step.refined,
            cls_attention=self.interaction.last.pixels_seen(step) if attend else None,
        )

    def _interact(self, scene: SmcimScene, token_ids: Tensor, token_valid: Tensor) -> tuple[Tensor, LastStep]:
        return self.interaction(scene, self.text(token_ids, token_valid), token_valid, self.position)

    def answer(self, scene: SmcimScene, token_ids: Tensor, token_valid: Tensor) -> Answer:
        """The box, and as its confidence, of which the paper has none, the share of [CLS]'s attention inside it."""
        output = self.ground(scene, token_ids, token_valid, attend=True)
        assert output.cls_attention is not None
        boxes = xyxy_from_cxcywh(output.boxes_cxcywh).clamp(0, 1)
        confidence = share_inside(output.cls_attention, boxes)
        return Answer(boxes=boxes, mask_probability=None, confidence=confidence, signs=log_odds(confidence)[:, None])

    def attention(self, scene: SmcimScene, token_ids: Tensor, token_valid: Tensor) -> dict[str, Tensor]:
        """``box``: where [CLS] looks in the last block, [P, G, G], as in SMCIM Fig. 9; 0 on padding."""
        seen = self.ground(scene, token_ids, token_valid, attend=True).cls_attention
        assert seen is not None
        side = round(seen.shape[1] ** 0.5)
        return {"box": seen.unflatten(1, (side, side))}

    def word_attention(self, scene: SmcimScene, token_ids: Tensor, token_valid: Tensor) -> Tensor:
        """How much of each token reaches [CLS] in the last block: float32 [P, T] of sum 1, 0 on padding.

        For ``encoder`` its own attention; for ``ca2m``, where words do not look at words, by way of the pixels.
        """
        return self.interaction.last.words_seen(self._interact(scene, token_ids, token_valid)[1])

    def load_pretrained(self, part: str, path: str | Path) -> None:
        """Of the image encoder, a ResNet's file, a folder or a name on the hub; of BERT, a folder or a name."""
        (self.encoder if part == "image" else self.text).load_pretrained(path)

    def lowest_text_parameters(self, stages: int) -> list[nn.Parameter]:
        """See :class:`GroundingModel`."""
        return self.text.lowest_parameters(stages)

    def checkpoint_activations(self) -> None:
        """See :class:`GroundingModel`; those of the interaction."""
        self.interaction.checkpointing = True

    @property
    def image_encoder(self) -> nn.Module:
        """See :class:`GroundingModel`."""
        return self.encoder

    def pretrained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Both encoders."""
        return {"image": [*self.encoder.parameters()], "text": [*self.text.parameters()]}

    def frozen_parameters(self, *, image_pretrained: bool) -> list[nn.Parameter]:
        """Early filters and batch-norm of a pretrained image encoder; the paper trains all of the text encoder."""
        return self.encoder.frozen_parameters() if image_pretrained else []


MODEL = SmcimModel


def share_inside(weights: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """The share of a map that lies inside a box; a cell counts by the part of its area that does.

    Args:
        weights: [P, N] of sum 1 over a square grid, rows first.
        boxes_xyxy: [P, 4] fractions of the canvas.

    Returns:
        [P], 0..1.
    """
    side = round(weights.shape[1] ** 0.5)
    edges = torch.arange(side, device=weights.device) / side
    low, high = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    ends = torch.minimum(high, (edges + 1 / side)[:, None])
    x, y = ((ends - torch.maximum(low, edges[:, None])).clamp(min=0) * side).unbind(-1)  # [P, side] each
    covered = y[:, :, None] * x[:, None]
    return (weights * covered.flatten(1)).sum(1).clamp(0, 1)
