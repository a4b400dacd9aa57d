"""Where the cells of a square grid stand on the canvas."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """[side * side, 2] xy of the cells' centres as fractions of the canvas, rows first, where ``like`` is."""
    steps = grid_places(side, like)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def grid_places(side: int, like: Tensor) -> Tensor:
    """float32 [side]: the middles of a row of cells as fractions of the canvas, where ``like`` is."""
    return (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side
