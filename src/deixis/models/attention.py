"""Attention between pixels and words: cross-modal alternate attention (CA²M) and self-attention.

Letters: B phrases, N visual tokens, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW = 256
"""Queries or keys up to which all scores are small enough to be kept for the way back."""


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """`scaled_dot_product_attention` of [B, H, Q, D] and [B, H, M, D], with boolean masks.

    On a CPU its backward pass takes more than half of a training step where queries or keys are few, as words are
    (torch 2.13); there the same is computed step by step. Softmax over the last axis is slow there too where that
    axis is short (15 words: five times), so few keys stand in the axis before it.
    """
    few = min(q.shape[-2], k.shape[-2]) <= _FEW
    if not (few and q.device.type == "cpu" and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    q = q * q.shape[-1] ** -0.5
    if k.shape[-2] >= q.shape[-2]:
        scores = _hide(q @ k.transpose(-1, -2), mask)
        return F.dropout(scores.softmax(-1).to(v.dtype), dropout) @ v
    scores = _hide(k @ q.transpose(-1, -2), None if mask is None else mask.transpose(-1, -2))
    return F.dropout(scores.softmax(-2).to(v.dtype), dropout).transpose(-1, -2) @ v


def _hide(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill_(~mask, -torch.inf)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with separate projections. SMCIM Eq. 1, 2."""

    def __init__(self, *, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"expected a width that {heads} heads divide, got {dim!r}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        memory_valid: Tensor | None = None,
        *,
        query_position: Tensor | None = None,
        memory_position: Tensor | None = None,
    ) -> Tensor:
        """``query`` [B, Q, D] attends to ``memory`` [B, M, D] where ``memory_valid`` [B, M]; gives [B, Q, D].

        Positions [Q, D] and [M, D], where given, take part in who looks at whom, and not in what is seen.
        """
        q, k = self._queries_and_keys(query, memory, query_position, memory_position)
        v = self._heads(self.value(memory))
        mask = None if memory_valid is None else memory_valid[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        attended = _attend(q, k, v, mask, dropout)
        return self.out(attended.transpose(1, 2).flatten(-2))

    def weights(
        self,
        query: Tensor,
        memory: Tensor,
        memory_valid: Tensor | None = None,
        *,
        query_position: Tensor | None = None,
        memory_position: Tensor | None = None,
    ) -> Tensor:
        """How much each query looks at each token: float32 [B, Q, M], rows of sum 1, the mean over the heads."""
        q, k = self._queries_and_keys(query, memory, query_position, memory_position)
        scores = (q @ k.transpose(-1, -2)).float() / (q.shape[-1] ** 0.5)
        if memory_valid is not None:
            scores = scores.masked_fill(~memory_valid[:, None, None, :], -torch.inf)
        return scores.softmax(-1).mean(1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _queries_and_keys(
        self, query: Tensor, memory: Tensor, query_position: Tensor | None, memory_position: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        query = query if query_position is None else query + query_position
        memory = memory if memory_position is None else memory + memory_position
        return self._heads(self.query(query)), self._heads(self.key(memory))


class FeedForward(nn.Sequential):
    """Two linear layers with ReLU, or GELU, between them."""

    def __init__(self, *, dim: int, hidden: int, dropout: float, activation: str = "relu") -> None:
        between = nn.GELU() if activation == "gelu" else nn.ReLU()
        super().__init__(nn.Linear(dim, hidden), between, nn.Dropout(dropout), nn.Linear(hidden, dim))


class AttentionBlock(nn.Module):
    """Attention then feed-forward, each with residual and post-norm. One half of CA²M: SMCIM Eq. 3, 4 or Eq. 5, 6."""

    def __init__(self, *, dim: int, heads: int, ffn_dim: int, dropout: float, activation: str = "relu") -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim=dim, hidden=ffn_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        memory_valid: Tensor | None = None,
        *,
        query_position: Tensor | None = None,
        memory_position: Tensor | None = None,
    ) -> Tensor:
        """``query`` [B, Q, D] refined by ``memory`` [B, M, D]; the rest as in :meth:`Attention.forward`."""
        attended = self.attention(
            query, memory, memory_valid, query_position=query_position, memory_position=memory_position
        )
        query = self.attention_norm(query + self.dropout(attended))
        return self.ffn_norm(query + self.dropout(self.ffn(query)))


class AlternateAttention(nn.Module):
    """CA²M: pixels attend to words, then words attend to the refined pixels. SMCIM Eq. 3 to 6."""

    def __init__(self, *, dim: int, heads: int, ffn_dim: int, dropout: float, activation: str = "relu") -> None:
        super().__init__()
        self.visual = AttentionBlock(dim=dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout, activation=activation)
        self.textual = AttentionBlock(dim=dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout, activation=activation)

    def forward(
        self,
        visual: Tensor,
        textual: Tensor,
        pixel_valid: Tensor,
        token_valid: Tensor,
        position: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``visual`` [B, N, D] and ``textual`` [B, T, D], both refined; the masks are True where real.

        ``position`` [N, D] of the pixels, where given, is added to their queries and keys. Eq. 5 of the paper is
        printed with F_v as support; its text and Fig. 4 say F'_v, as here.
        """
        visual = self.visual(visual, textual, token_valid, query_position=position)
        textual = self.textual(textual, visual, pixel_valid, memory_position=position)
        return visual, textual


def attend_in_groups(
    step: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]],
    groups: nn.ModuleList,
    textual_in: nn.ModuleList,
    visuals: Iterable[Tensor],
    grains: Iterable[Tensor],
) -> tuple[Tensor, Tensor]:
    """Grouping: each group's layers on its own pixels and its own grain of words. SMCIM section III-B2.

    Args:
        step: applies a layer to pixels [B, N, D] and words [B, T, D].
        groups: the layers of each group.
        textual_in: what brings each grain to the group's width.
        visuals: one [B, N, D] for each group.
        grains: one [B, T, text_dim] for each group.

    Returns:
        Pixels and words of all groups side by side.
    """
    pairs = []
    for layers, enter, visual, grain in zip(groups, textual_in, visuals, grains, strict=True):
        textual = enter(grain)
        for layer in cast(Iterable[nn.Module], layers):
            visual, textual = step(layer, visual, textual)
        pairs.append((visual, textual))
    return torch.cat([visual for visual, _ in pairs], -1), torch.cat([textual for _, textual in pairs], -1)


class PositionEncoding(nn.Module):
    """Where a token stands in the picture: a small perceptron over Fourier features of its coordinates."""

    frequencies: Tensor

    def __init__(self, *, dim: int, coordinates: int = 2, octaves: int = 5) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(octaves), persistent=False)
        self.project = nn.Sequential(nn.Linear(coordinates * (1 + 2 * octaves), dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, xy: Tensor) -> Tensor:
        """``xy`` [..., coordinates], 0..1 over the picture's content, to [..., D]."""
        angles = (xy[..., None] * self.frequencies * torch.pi).flatten(-2)  # powers of two are exact in any precision
        features = torch.cat([2 * xy - 1, angles.sin(), angles.cos()], dim=-1)
        return self.project(features.to(next(self.parameters()).dtype))
