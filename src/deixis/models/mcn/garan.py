"""GARAN attention, after MCN section 3.1 and its code: one look over the image for the phrase, given back gated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.encoders.darknet import BatchNorm


@dataclass(frozen=True)
class Attended:
    """F_att, before the residual: in each head one vector times a gate for each position.

    Energies and their consistency (MCN Eq. 5 to 9) need no more than these, at a hundredth of the work.
    """

    gate: Tensor  # [P, N, h]
    vectors: Tensor  # [P, h, d]

    def rows(self) -> Tensor:
        """All of it, [P, N, h * d]."""
        return (self.gate[..., None] * self.vectors[:, None]).flatten(2)

    def project(self, conv: nn.Conv2d) -> Tensor:
        """What a 1x1 convolution to one channel makes of it, float32 [P, N]. MCN Eq. 5."""
        each = (self.vectors.float().flatten(1) * conv.weight.flatten()).unflatten(1, self.vectors.shape[1:])
        energy = (self.gate.float() * each.sum(-1)[:, None]).sum(-1)
        return energy if conv.bias is None else energy + conv.bias

    def mean_direction(self, energy: Tensor, eps: float = 1e-6) -> Tensor:
        """The rows made as long as 1 (or shorter than ``eps``), averaged by the energies' softmax, [P, h * d].

        The same as `deixis.models.losses.mean_direction` of `rows`.
        """
        with torch.autocast(self.gate.device.type, enabled=False):
            gate, vectors = self.gate.float(), self.vectors.float()
            parts = gate * torch.linalg.vector_norm(vectors, dim=-1)[:, None]  # [P, N, h]
            weights = energy.float().softmax(-1) / torch.linalg.vector_norm(parts, dim=-1).clamp(min=eps)
            return ((weights[:, None] @ gate).squeeze(1)[..., None] * vectors).flatten(1)


class Garan(nn.Module):
    """Collect one vector a head from all positions, then hand it back to each position through a gate.

    The heads are parts of the channels and share all projections. In a head, what comes out is a gate for each
    position times one vector: a matrix of rank one.

    No projection is applied to every position: the product of a projected position with the phrase is the product of
    the position with the phrase projected backwards, and as the shares sum to 1, the value of a shared sum is the
    shared sum of the values. Letters: P phrases, h heads, N = H * W positions, d = dim / h.
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

    def forward(self, visual: Tensor, query: Tensor) -> tuple[Tensor, Attended]:
        """Refine a map by a phrase.

        Args:
            visual: [P, dim, H, W].
            query: [P, query_dim], the phrase.

        Returns:
            The refined map [P, dim, H, W], and F_att before the residual, as Eq. 5 and 6 want it.
        """
        tokens = visual.flatten(2).transpose(1, 2)  # [P, N, dim]
        asked = self.query(query.unflatten(-1, (self.heads, -1))) * self.scale  # [P, h, d]
        share = self._scores(tokens, asked, self.collect_key).softmax(1)  # [P, N, h], sums to 1 over the positions
        sums = (share.transpose(1, 2) @ tokens).unflatten(-1, (self.heads, -1))  # [P, h, h, d], of all parts
        collected = self.value(sums.diagonal(dim1=1, dim2=2).transpose(1, 2))  # [P, h, d], each head's own part
        gate = self._scores(tokens, asked, self.distribute_key).sigmoid()  # [P, N, h]
        attended = Attended(gate, collected)
        residual = attended.rows().to(visual.dtype).transpose(1, 2).unflatten(-1, visual.shape[-2:])
        return F.leaky_relu(self.norm(residual + visual), 0.1, inplace=True), attended

    def _scores(self, tokens: Tensor, asked: Tensor, key: nn.Linear) -> Tensor:
        """Keys times query, [P, N, h]."""
        backwards = asked @ key.weight  # [P, h, d]
        own_part = torch.eye(self.heads, device=asked.device, dtype=backwards.dtype)
        columns = (backwards[..., None] * own_part[:, None]).flatten(1, 2)  # [P, dim, h], zero in the others' parts
        return tokens @ columns + (asked @ key.bias)[:, None]
