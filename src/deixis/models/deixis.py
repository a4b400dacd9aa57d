"""The ``deixis`` family: one image, any number of phrases, a box, a mask and an existence logit for each.

Letters: B images, P phrases, S canvas side, G = S / 16 grid side, N = G * G visual tokens, T text tokens, D width.
Everything that needs no words happens once an image in :meth:`DeixisModel.encode_image`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.config import DeixisConfig
from deixis.geometry.images import FILL
from deixis.models.attention import AlternateAttention, AttentionBlock, PositionEncoding
from deixis.models.base import Answer, GroundingModel, check_signs, energy_map, log_odds
from deixis.models.decoding import decode
from deixis.models.image_encoders import Pyramid, build_image_encoder
from deixis.models.suppression import MASK_THRESHOLD
from deixis.models.text_encoders import BertEncoder, build_text_encoder


@dataclass(frozen=True)
class SceneFeatures:
    """Encoded images; each row can meet any number of phrases."""

    tokens: Tensor  # [B, N, 3 * group], one third for each grain of words
    position: Tensor  # [B, N, 3 * group]
    pixel_valid: Tensor  # bool [B, N], True = inside the picture
    stride8: Tensor  # [B, mask_dim, S/8, S/8]
    stride4: Tensor  # [B, mask_stride4_dim, S/4, S/4]

    def pick(self, index: Tensor) -> Self:
        """The rows ``index`` [P], one for each phrase."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Output:
    """What the model says of P phrases."""

    heat_logits: Tensor  # [P, N] where the referent's centre is; -inf on padding
    boxes: Tensor  # [P, N, 4] xyxy as fractions of the canvas, one proposal a token
    mask_logits: Tensor  # [P, S/4, S/4]
    exists_logit: Tensor  # [P]
    mask_energy: Tensor  # [P, N] logits of the mask branch's attention, for consistency
    mask_features: Tensor  # [P, N, D] of the mask branch
    box_features: Tensor  # [P, N, D] of the box branch


class ImageSide(nn.Module):
    """Pyramid to visual tokens that know their place and each other."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        self.encoder = build_image_encoder(config.image_encoder)
        c4, c8, c16, c32 = self.encoder.channels
        dim = config.context_dim
        self.register_buffer("pixel_mean", torch.tensor(self.encoder.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(self.encoder.pixel_std).view(3, 1, 1), persistent=False)
        # pretrained features are made to see through colour and texture: these two paths keep them
        self.patches = nn.Sequential(nn.Conv2d(3, 64, 4, stride=4), nn.ReLU(), nn.Conv2d(64, dim, 4, stride=4))
        self.project4 = nn.Conv2d(c4, dim, 4, stride=4)
        self.project8 = nn.Conv2d(c8, dim, 2, stride=2)
        self.project16 = nn.Conv2d(c16, dim, 1)
        self.project32 = nn.Conv2d(c32, dim, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.position = PositionEncoding(dim=dim)
        self.merge_position = nn.Linear(dim, config.merge_dim)
        self.context = nn.ModuleList(
            AttentionBlock(dim=dim, heads=config.context_heads, ffn_dim=config.ffn_ratio * dim, dropout=config.dropout)
            for _ in range(config.context_layers)
        )
        self.to_groups = nn.Linear(dim, config.merge_dim)
        self.lateral8 = nn.Conv2d(c8, config.mask_dim, 1)
        self.lateral4 = nn.Conv2d(c4, config.mask_stride4_dim, 1)

    def forward(self, pixels: Tensor, content: Tensor) -> SceneFeatures:
        """``pixels`` [B, 3, S, S] RGB 0..1; ``content`` [B, 4] the picture's xyxy as fractions of the canvas."""
        pyramid: Pyramid = self.encoder((pixels - self.pixel_mean) / self.pixel_std)
        coarse = F.interpolate(self.project32(pyramid.stride32), scale_factor=2.0)
        maps = (self.project8(pyramid.stride8), self.project16(pyramid.stride16), coarse)
        tokens = sum(norm(m.flatten(2).transpose(1, 2)) for norm, m in zip(self.norms, maps, strict=True))
        looks = self.patches(pixels - 0.5) + self.project4(pyramid.stride4)
        xy, valid = grid_positions(content, maps[1].shape[-1])
        position = self.position(xy)
        tokens = tokens + looks.flatten(2).transpose(1, 2) + position
        for block in self.context:
            tokens = block(tokens, tokens, valid)
        return SceneFeatures(
            tokens=self.to_groups(tokens),
            position=self.merge_position(position),
            pixel_valid=valid,
            stride8=self.lateral8(pyramid.stride8),
            stride4=self.lateral4(pyramid.stride4),
        )


def grid_positions(content: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Centres of the ``side`` x ``side`` cells as fractions of the picture, and which lie inside it.

    Args:
        content: [B, 4] xyxy of the picture as fractions of the canvas.
        side: cells a row.

    Returns:
        xy [B, side * side, 2] clamped to 0..1, and bool [B, side * side].
    """
    centres = cell_centres(side, content)
    fraction = (centres - content[:, None, :2]) / (content[:, None, 2:] - content[:, None, :2]).clamp(min=1e-6)
    half_cell = 0.5 / side
    valid = ((centres > content[:, None, :2] - half_cell) & (centres < content[:, None, 2:] + half_cell)).all(-1)
    return fraction.clamp(0, 1), valid


def cell_centres(side: int, like: Tensor) -> Tensor:
    """[side * side, 2] xy of the cells' centres as fractions of the canvas, rows first."""
    steps = (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


class Fusion(nn.Module):
    """Multi-grained CA²M: three groups, each with its own grain of words, then merged. SMCIM section III-C."""

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        small, merged = config.group_dim, config.merge_dim
        self.textual_in = nn.ModuleList(nn.Linear(config.text_dim, small) for _ in range(3))
        self.groups = nn.ModuleList(
            nn.ModuleList(
                AlternateAttention(
                    dim=small, heads=config.group_heads, ffn_dim=config.ffn_ratio * small, dropout=config.dropout
                )
                for _ in range(config.group_layers)
            )
            for _ in range(3)
        )
        sizes: dict[str, Any] = {"dim": merged, "heads": config.merge_heads, "ffn_dim": config.ffn_ratio * merged}
        self.merge = nn.ModuleList(
            AlternateAttention(**sizes, dropout=config.dropout) for _ in range(config.merge_layers)
        )
        self.compare = AttentionBlock(**sizes, dropout=config.dropout)
        self.modulate = nn.ModuleList(nn.Linear(merged, 2 * merged) for _ in range(config.merge_layers))
        for linear in self.modulate:
            nn.init.zeros_(linear.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(linear.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, scene: SceneFeatures, words: list[Tensor], token_valid: Tensor) -> tuple[Tensor, Tensor]:
        """``scene`` of P rows and three grains [P, T, D] to visual [P, N, M] and textual [P, T, M]."""
        visuals, textuals = [], []
        for visual, textual_in, layers, grain in zip(
            scene.tokens.chunk(3, -1), self.textual_in, self.groups, words, strict=True
        ):
            textual = textual_in(grain)
            for layer in layers:  # pyright: ignore[reportGeneralTypeIssues]
                visual, textual = layer(visual, textual, scene.pixel_valid, token_valid)
            visuals.append(visual)
            textuals.append(textual)
        visual, textual = torch.cat(visuals, -1) + scene.position, torch.cat(textuals, -1)
        for index, (modulate, layer) in enumerate(zip(self.modulate, self.merge, strict=True)):
            gain, shift = modulate(masked_mean(textual, token_valid)).chunk(2, -1)  # the product of MCN Eq. 1
            visual = visual * (1 + gain) + shift
            visual, textual = layer(visual, textual, scene.pixel_valid, token_valid)
            if index == 0:  # candidates that fit the words compare themselves: "second from the left"
                visual = self.compare(visual, *pool_tokens(visual, scene.pixel_valid))
        return visual, textual


def masked_mean(tokens: Tensor, valid: Tensor) -> Tensor:
    """The mean [P, 1, D] of the tokens [P, T, D] where ``valid`` [P, T]."""
    weight = valid.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)


def pool_tokens(tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Averages of 2 x 2 neighbouring cells: a quarter of the memory, as candidates are larger than a cell.

    Args:
        tokens: [P, N, D] of a square grid with an even side.
        valid: bool [P, N]; other cells take no part.

    Returns:
        [P, N / 4, D] and bool [P, N / 4], True where any of the four is valid.
    """
    side = int(tokens.shape[1] ** 0.5)
    weight = valid.to(tokens.dtype).unflatten(1, (side, side))[:, None]
    grid = tokens.transpose(1, 2).unflatten(2, (side, side)) * weight
    share = F.avg_pool2d(weight, 2)
    pooled = F.avg_pool2d(grid, 2) / share.clamp(min=0.25)
    return pooled.flatten(2).transpose(1, 2), share.flatten(1) > 0


class BoxBranch(nn.Module):
    """Where the referent's centre is, and the box as seen from every cell."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heat_in = nn.Conv2d(dim, dim // 3, 3, padding=1)
        self.heat_out = nn.Linear(dim // 3, 1)
        self.sides = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))

    def forward(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """``visual`` [P, N, D] to heat logits [P, N] and boxes xyxy [P, N, 4] as fractions of the canvas."""
        side = int(visual.shape[1] ** 0.5)
        grid = visual.transpose(1, 2).unflatten(2, (side, side))
        heat = self.heat_out(F.relu(self.heat_in(grid)).flatten(2).transpose(1, 2)).squeeze(-1)
        distance = self.sides(visual).float().sigmoid()
        centre = cell_centres(side, visual)
        return heat.float(), torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], dim=-1)


class MaskBranch(nn.Module):
    """The referent's pixels at stride 4, from the fused tokens and the image's own finer maps."""

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        wide, thin = config.mask_dim, config.mask_stride4_dim
        self.project = nn.Linear(config.merge_dim, wide)
        self.referent = nn.Linear(config.merge_dim, wide)
        self.energy = nn.Linear(wide, 1)
        self.refine16 = nn.Conv2d(wide, wide, 3, padding=1)
        self.refine8 = nn.Conv2d(wide, wide, 3, padding=1)
        self.reduce = nn.Conv2d(wide, thin, 1)
        self.refine4 = nn.Conv2d(thin, thin, 3, padding=1)
        self.out = nn.Conv2d(thin, 1, 1)

    def forward(self, visual: Tensor, heat: Tensor, scene: SceneFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """``visual`` [P, N, M], ``heat`` probabilities [P, N].

        Returns mask logits [P, S/4, S/4], energy logits [P, N] and the branch's tokens [P, N, mask_dim].
        """
        side = int(visual.shape[1] ** 0.5)
        referent = self.referent((heat[..., None].to(visual.dtype) * visual).sum(1, keepdim=True))
        tokens = F.relu(self.project(visual) * (1 + referent))
        x = tokens.transpose(1, 2).unflatten(2, (side, side))
        x = F.relu(self.refine16(x))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear") + scene.stride8
        x = self.reduce(F.relu(self.refine8(F.relu(x))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear") + scene.stride4
        logits = self.out(F.relu(self.refine4(F.relu(x))))
        return logits.squeeze(1).float(), self.energy(tokens).squeeze(-1).float(), tokens


class DeixisModel(GroundingModel):
    """Image and phrases to boxes, masks and existence."""

    config: DeixisConfig
    score_weights = (0.5, 0.0, 0.5, 0.0)
    mask_stride = 4
    stores_int8 = True

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageSide(config)
        self.text = build_text_encoder(config)
        self.fusion = Fusion(config)
        self.box = BoxBranch(config.merge_dim)
        self.mask = MaskBranch(config)
        self.box_features = nn.Linear(config.merge_dim, config.mask_dim)
        self.exists = nn.Sequential(
            nn.Linear(2 * config.merge_dim, config.merge_dim), nn.ReLU(), nn.Linear(config.merge_dim, 1)
        )

    def encode_image(self, pixels: Tensor, content: Tensor) -> SceneFeatures:
        """``pixels`` [B, 3, S, S] RGB 0..1 on the letterboxed canvas; ``content`` [B, 4] fractions of it."""
        return self.image(pixels, content)

    def ground(self, scene: SceneFeatures, token_ids: Tensor, token_valid: Tensor) -> Output:
        """``scene`` of P rows (see :meth:`SceneFeatures.pick`) and P phrases [P, T]."""
        words = self.text(token_ids, token_valid)
        visual, textual = self.fusion(scene, words, token_valid)
        heat_logits, boxes = self.box(visual)
        heat_logits = heat_logits.masked_fill(~scene.pixel_valid, -torch.inf)
        heat = heat_logits.softmax(-1)
        mask_logits, energy, mask_features = self.mask(visual, heat, scene)
        attended = (heat[..., None].to(visual.dtype) * visual).sum(1)
        return Output(
            heat_logits=heat_logits,
            boxes=boxes,
            mask_logits=mask_logits,
            exists_logit=self.exists(torch.cat([textual[:, 0], attended], -1)).squeeze(-1).float(),
            mask_energy=energy.masked_fill(~scene.pixel_valid, -torch.inf),
            mask_features=mask_features,
            box_features=self.box_features(visual),
        )

    def answer(self, scene: SceneFeatures, token_ids: Tensor, token_valid: Tensor) -> Answer:
        """One answer for each phrase; its signs are existence, peak and consensus."""
        output = self.ground(scene, token_ids, token_valid)
        decoded = decode(output)
        signs = (check_signs(output.exists_logit), log_odds(decoded.peak), log_odds(decoded.consensus))
        return Answer(
            boxes=decoded.boxes,
            mask_probability=output.mask_logits.sigmoid(),
            confidence=decoded.consensus,
            signs=torch.stack(signs, -1),
        )

    def attention(self, scene: SceneFeatures, token_ids: Tensor, token_valid: Tensor) -> dict[str, Tensor]:
        """``box``: where the referent's centre is; ``mask``: the mask branch's energy; [P, G, G], 0 on padding."""
        output = self.ground(scene, token_ids, token_valid)
        return {"box": energy_map(output.heat_logits), "mask": energy_map(output.mask_energy)}

    def preprocessing(self) -> dict[str, Any]:
        """See :class:`GroundingModel`."""
        return {
            "resize": "letterbox, bilinear, centred, on the smallest multiple of 32 from 256 on that holds the image",
            "largest_size": self.config.image_size,
            "fill": FILL,
            "mean": list(self.image.encoder.pixel_mean),
            "std": list(self.image.encoder.pixel_std),
            "mask_threshold": MASK_THRESHOLD,
        }

    def pretrained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The image encoder and the BERT body."""
        text = [*self.text.bert.parameters()] if isinstance(self.text, BertEncoder) else []
        return {"image": [*self.image.encoder.parameters()], "text": text}

    def frozen_parameters(self, *, image_pretrained: bool) -> list[nn.Parameter]:
        """The word tables, and a pretrained encoder's filters of edges and colours."""
        early = self.image.encoder.early_parameters() if image_pretrained else []
        return [*early, *self.text.frozen_parameters()]

    def forward(
        self, pixels: Tensor, content: Tensor, image_index: Tensor, token_ids: Tensor, token_valid: Tensor
    ) -> Output:
        """All at once: phrase p speaks of image ``image_index[p]``."""
        return self.ground(self.encode_image(pixels, content).pick(image_index), token_ids, token_valid)
