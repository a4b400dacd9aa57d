"""The interaction blocks of SMCIM: CA²M and, for Table V, the transformer encoder layer; and where a pixel stands.

Attention itself is that of `deixis.models.attention`, which the ``deixis`` family shares.
Letters: P phrases, N visual tokens, T text tokens, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deixis.models.attention import AlternateAttention, AttentionBlock
from deixis.models.boxes import grid_places
from deixis.models.smcim.config import SmcimConfig


@dataclass(frozen=True)
class LastStep:
    """What the last block was given, and the pixels that it made: all that is needed to see where [CLS] looked."""

    visual: Tensor  # [P, N, D]
    textual: Tensor  # [P, T, D]
    refined: Tensor  # [P, N, D], F'_v
    pixel_valid: Tensor  # bool [P, N]
    token_valid: Tensor  # bool [P, T]
    position: Tensor | None  # [N, D]


class AlternateLayer(AlternateAttention):
    """CA²M, SMCIM Eq. 1 to 6: two blocks of attention and feed-forward, pixels first, then words."""

    def pixels_seen(self, step: LastStep) -> Tensor:
        """Attention of [CLS] over the pixels of F'_v, Eq. 5 and Fig. 9: float32 [P, N] of sum 1."""
        attention = self.textual.attention
        cls = step.textual[:, :1]
        return attention.weights(cls, step.refined, step.pixel_valid, memory_position=step.position).squeeze(1)

    def words_seen(self, step: LastStep) -> Tensor:
        """Words that reach [CLS]: float32 [P, T] of sum 1.

        No word looks at another here. Pixels look at words, Eq. 3: the mean of their attention, in which a pixel
        counts as much as [CLS] then looks at it.
        """
        attention = self.visual.attention
        read = attention.weights(step.visual, step.textual, step.token_valid, query_position=step.position)
        return (self.pixels_seen(step)[:, None] @ read).squeeze(1)


class JointEncoderLayer(nn.Module):
    """The transformer encoder layer of SMCIM section IV-D4: pixels and words side by side attend to all of them."""

    def __init__(self, *, dim: int, heads: int, ffn_dim: int, dropout: float, activation: str = "relu") -> None:
        super().__init__()
        self.block = AttentionBlock(dim=dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout, activation=activation)

    def forward(
        self,
        visual: Tensor,
        textual: Tensor,
        pixel_valid: Tensor,
        token_valid: Tensor,
        position: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`deixis.models.attention.AlternateAttention.forward`."""
        tokens, valid, places = _side_by_side(visual, textual, pixel_valid, token_valid, position)
        refined = self.block(tokens, tokens, valid, query_position=places, memory_position=places)
        return refined[:, : visual.shape[1]], refined[:, visual.shape[1] :]

    def pixels_seen(self, step: LastStep) -> Tensor:
        """What [CLS] gives to pixels, float32 [P, N] scaled to sum 1."""
        return _of_sum_1(self._cls(step)[:, : step.visual.shape[1]])

    def words_seen(self, step: LastStep) -> Tensor:
        """What [CLS] gives to words, float32 [P, T] scaled to sum 1."""
        return _of_sum_1(self._cls(step)[:, step.visual.shape[1] :])

    def _cls(self, step: LastStep) -> Tensor:
        """[P, N + T]."""
        tokens, valid, places = _side_by_side(
            step.visual, step.textual, step.pixel_valid, step.token_valid, step.position
        )
        cls = step.textual[:, :1]  # words have no position beside the text encoder's own
        return self.block.attention.weights(cls, tokens, valid, memory_position=places).squeeze(1)


InteractionLayer = AlternateLayer | JointEncoderLayer


def build_layer(config: SmcimConfig, *, dim: int, heads: int) -> InteractionLayer:
    """One interaction block of the kind that the configuration names."""
    kind = JointEncoderLayer if config.interaction == "encoder" else AlternateLayer
    return kind(
        dim=dim, heads=heads, ffn_dim=config.ffn_ratio * dim, dropout=config.dropout, activation=config.activation
    )


def _side_by_side(
    visual: Tensor, textual: Tensor, pixel_valid: Tensor, token_valid: Tensor, position: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """[P, N + T, D], bool [P, N + T] and, where there are positions, [N + T, D]."""
    places = None if position is None else nn.functional.pad(position, (0, 0, 0, textual.shape[1]))
    return torch.cat([visual, textual], 1), torch.cat([pixel_valid, token_valid], 1), places


def _of_sum_1(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def sine_position(side: int, dim: int, like: Tensor) -> Tensor:
    """Sines and cosines of where the cells of a square grid stand, as of DETR: half of the width for y, half for x.

    Args:
        side: cells a row.
        dim: width, a multiple of 4.
        like: gives device and type.

    Returns:
        [side * side, dim], rows first: sines of y, cosines of y, sines of x, cosines of x, at wavelengths that rise
        from the canvas to 10,000 times it.
    """
    centres = grid_places(side, like)
    exponents = torch.arange(dim // 4, device=like.device, dtype=torch.float32) / (dim // 4)
    angles = 2 * math.pi * centres[:, None] / 10_000**exponents
    waves = torch.cat([angles.sin(), angles.cos()], -1)
    y, x = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([y, x], -1).flatten(0, 1).to(like.dtype)
