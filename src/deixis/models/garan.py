"""GARAN attention, after MCN section 3.1 and its code: one look over the image for the phrase, given back gated."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.darknet import BatchNorm


class Garan(nn.Module):
    """Collect one vector a head from all positions, then hand it back to each position through a gate.

    The heads are parts of the channels and share all projections. In a head, what comes out is a gate for each
    position times one vector: a matrix of rank one. Letters: P phrases, h heads, N = H * W positions, d = dim / h.
    """

    def __init__(self, dim: int, query_dim: int, heads: int = 2) -> None:
        super().__init__()
        if dim % heads or query_dim % heads:
            raise ValueError(f"expected heads to divide the widths {dim} and {query_dim}, got {heads!r}")
        self.heads = heads
        width = dim // heads
        self.scale = (query_dim // heads) ** -0.5  # by the query's width before its projection, as the code has it
        self.collect_key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.distribute_key = nn.Linear(width, width)
        self.query = nn.Linear(query_dim // heads, width)
        self.norm = BatchNorm(dim)
        for linear in (self.collect_key, self.value, self.distribute_key, self.query):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, visual: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Refine a map by a phrase.

        Args:
            visual: [P, dim, H, W].
            query: [P, query_dim], the phrase.

        Returns:
            The refined map [P, dim, H, W], and F_att of the same shape, before the residual, as Eq. 5 and 6 want it.
        """
        tokens = visual.flatten(2).unflatten(1, (self.heads, -1)).transpose(-1, -2)  # [P, h, N, d]
        asked = self.query(query.unflatten(-1, (self.heads, -1)))[..., None] * self.scale  # [P, h, d, 1]
        share = (self.collect_key(tokens) @ asked).softmax(-2)  # [P, h, N, 1], sums to 1 over the positions
        collected = (share * self.value(tokens)).sum(-2)[..., None]  # [P, h, d, 1]
        gate = (self.distribute_key(tokens) @ asked).sigmoid().transpose(-1, -2)  # [P, h, 1, N]
        attended = (collected * gate).flatten(1, 2).unflatten(-1, visual.shape[-2:]).to(visual.dtype)
        return F.leaky_relu(self.norm(attended + visual), 0.1, inplace=True), attended
