"""Boxes and grid cells as tensors: conversions, overlaps, and where the cells of a square grid stand.

Boxes are [..., 4] as fractions of the canvas: xyxy by their corners, cxcywh by centre and size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xyxy_around(centre: Tensor, size: Tensor) -> Tensor:
    """Boxes xyxy [..., 4] of centres [..., 2] and sizes [..., 2]."""
    half = size / 2
    return torch.cat([centre - half, centre + half], -1)


def xyxy_from_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] by their corners."""
    return xyxy_around(boxes[..., :2], boxes[..., 2:])


def cxcywh_from_xyxy(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] by their centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def intersection_area(a: Tensor, b: Tensor) -> Tensor:
    """Area [...] that boxes xyxy [..., 4], broadcast against each other, have in common."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU [...] of boxes xyxy [..., 4], broadcast against each other."""
    overlap = intersection_area(a, b)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-9)


def grid_places(side: int, like: Tensor) -> Tensor:
    """float32 [side]: the middles of a row of cells as fractions of the canvas, on the device of ``like``."""
    return (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side


def cell_centres(side: int, like: Tensor) -> Tensor:
    """[side * side, 2] xy of the cells' centres as fractions of the canvas, rows first, on the device of ``like``."""
    steps = grid_places(side, like)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def cells_inside(content: Tensor, side: int) -> Tensor:
    """Bool [B, side * side]: which cells the images at ``content`` [B, 4] xyxy cover in part or whole."""
    centres, half_cell = cell_centres(side, content), 0.5 / side
    low, high = content[:, None, :2] - half_cell, content[:, None, 2:] + half_cell
    return ((centres > low) & (centres < high)).all(-1)
