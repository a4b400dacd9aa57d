"""Attention between pixels and words: cross-modal alternate attention (CA²M) and self-attention.

Letters: B phrases, N visual tokens, T text tokens, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def forward(self, query: Tensor, memory: Tensor, memory_valid: Tensor | None = None) -> Tensor:
        """``query`` [B, Q, D] attends to ``memory`` [B, M, D] where ``memory_valid`` [B, M]; gives [B, Q, D]."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.query, query), (self.key, memory), (self.value, memory))
        )
        mask = None if memory_valid is None else memory_valid[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(-2))


class FeedForward(nn.Sequential):
    """Two linear layers with ReLU between them."""

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim))


class AttentionBlock(nn.Module):
    """Attention then feed-forward, each with residual and post-norm. One half of CA²M: SMCIM Eq. 3, 4 or Eq. 5, 6."""

    def __init__(self, *, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim=dim, hidden=ffn_dim, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, memory_valid: Tensor | None = None) -> Tensor:
        """``query`` [B, Q, D] refined by ``memory`` [B, M, D]."""
        query = self.attention_norm(query + self.dropout(self.attention(query, memory, memory_valid)))
        return self.ffn_norm(query + self.dropout(self.ffn(query)))


class AlternateAttention(nn.Module):
    """CA²M: pixels attend to words, then words attend to the refined pixels. SMCIM Eq. 3 to 6."""

    def __init__(self, *, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.visual = AttentionBlock(dim=dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout)
        self.textual = AttentionBlock(dim=dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout)

    def forward(
        self, visual: Tensor, textual: Tensor, pixel_valid: Tensor, token_valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``visual`` [B, N, D] and ``textual`` [B, T, D], both refined; the masks are True where real."""
        visual = self.visual(visual, textual, token_valid)
        textual = self.textual(textual, visual, pixel_valid)
        return visual, textual


class PositionEncoding(nn.Module):
    """Where a token stands in the picture: a small perceptron over Fourier features of its position."""

    frequencies: Tensor

    def __init__(self, *, dim: int, octaves: int = 5) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(octaves), persistent=False)
        self.project = nn.Sequential(nn.Linear(2 + 4 * octaves, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, xy: Tensor) -> Tensor:
        """``xy`` [..., 2], 0..1 over the picture's content, to [..., D]."""
        angles = (xy[..., None] * self.frequencies * torch.pi).flatten(-2)  # powers of two are exact in any precision
        features = torch.cat([2 * xy - 1, angles.sin(), angles.cos()], dim=-1)
        return self.project(features.to(next(self.parameters()).dtype))
