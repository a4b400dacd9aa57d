"""What an image offers to be meant: a detector's candidates and the cells of a grid, each a box with its features.

Letters: B images, Q proposals an image (candidates, then cells), A places of the detector, F features, S canvas side.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deixis.models.boxes import box_iou, grid_places
from deixis.models.deixis.detector import CLASSES, WIDTH, Detections
from deixis.models.encoders.image import Pyramid

BEFORE_SUPPRESSION = 300
"""Places of the highest scores, which candidates are chosen from."""
OVERLAP = 0.7
"""IoU above which a place gives way to one of a higher score."""
COLOUR_GRID = 8
"""A proposal's pixels are sampled at so many places a row."""
_POOLED = 3
_COLOUR_STRIDE = 2


@dataclass(frozen=True)
class Proposals:
    """Candidates and cells of encoded images."""

    boxes: Tensor  # float32 [B, Q, 4] xyxy as fractions of the canvas
    scores: Tensor  # float32 [B, Q] 0..1 of candidates, 0 of cells
    valid: Tensor  # bool [B, Q], False: outside the picture
    is_cell: Tensor  # bool [B, Q]
    features: Tensor  # [B, Q, F], see `feature_widths`
    content: Tensor  # float32 [B, 4] the picture's xyxy as fractions of the canvas

    def pick(self, index: Tensor) -> Self:
        """The rows ``index``."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))


def feature_widths(channels8: int) -> dict[str, int]:
    """Widths of the parts of `Proposals.features`, in order; ``channels8`` of the image encoder at stride 8."""
    return {
        "classes": CLASSES,
        "thing": 1,
        "tower": WIDTH,
        "level8": WIDTH,
        "level16": WIDTH,
        "level32": WIDTH,
        "body8": channels8,
        "colours": 3 * COLOUR_GRID**2,
    }


class Proposer(nn.Module):
    """Chooses candidates, lays the cells and pools features of both. Nothing here is learnt."""

    def __init__(self, *, candidates: int, cells: int) -> None:
        super().__init__()
        self.candidates, self.cells = candidates, cells

    def forward(self, pixels: Tensor, pyramid: Pyramid, seen: Detections, content: Tensor) -> Proposals:
        """``pixels`` [B, 3, S, S] RGB 0..1, ``content`` [B, 4], and what the encoder and the detector made of them."""
        scores = place_scores(seen, content)
        chosen = choose(scores, seen.boxes, self.candidates)
        cells = cell_boxes(self.cells, content)
        at_cells = self._nearest_places(seen, cells)
        places = torch.cat([chosen, at_cells], 1)
        candidates = seen.boxes.detach().gather(1, chosen[..., None].expand(-1, -1, 4))
        boxes = torch.cat([inside(candidates, content), cells], 1)
        is_cell = (torch.arange(boxes.shape[1], device=boxes.device) >= self.candidates).expand(len(boxes), -1)
        top = scores.gather(1, places)
        return Proposals(
            boxes=boxes,
            scores=torch.where(is_cell, 0, top.clamp(min=0)),
            valid=is_cell | (top > 0),
            is_cell=is_cell,
            features=self._features(pixels, pyramid, seen, places, boxes),
            content=content.float(),
        )

    def _nearest_places(self, seen: Detections, cells: Tensor) -> Tensor:
        """[B, cells ** 2] the place at stride 32 nearest to the middle of each cell."""
        side = seen.maps[2].shape[-1]
        before = sum(one.shape[-1] ** 2 for one in seen.maps[:2])
        at = (cells[..., :2] + cells[..., 2:]) / 2 * side
        x, y = at.long().clamp(0, side - 1).unbind(-1)
        return before + y * side + x

    def _features(self, pixels: Tensor, pyramid: Pyramid, seen: Detections, places: Tensor, boxes: Tensor) -> Tensor:
        """[B, Q, F]."""
        dtype = seen.towers.dtype
        colours = sample(F.avg_pool2d(pixels, _COLOUR_STRIDE), boxes, COLOUR_GRID).flatten(2) - 0.5
        pooled = [sample(one, boxes, _POOLED).mean(-1) for one in (*seen.maps[:3], pyramid.stride8)]
        parts = [
            _at(seen.class_logits, places),
            _at(seen.thing_logits[..., None], places),
            _at(seen.towers, places),
            *pooled,
            colours,
        ]
        return torch.cat([part.to(dtype) for part in parts], -1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values [B, A, C] at ``places`` [B, Q]: [B, Q, C]."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def sample(features: Tensor, boxes: Tensor, side: int) -> Tensor:
    """A map [B, C, h, w] at ``side`` x ``side`` places in each box [B, Q, 4]: float32 [B, Q, C, side * side]."""
    steps = grid_places(side, boxes)
    low, size = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    x = (low[..., :1] + size[..., :1] * steps)[:, :, None, :].expand(-1, -1, side, -1)
    y = (low[..., 1:] + size[..., 1:] * steps)[:, :, :, None].expand(-1, -1, -1, side)
    at = (2 * torch.stack([x, y], -1) - 1).flatten(2, 3)
    return F.grid_sample(features.float(), at, align_corners=False).transpose(1, 2)


def place_scores(seen: Detections, content: Tensor) -> Tensor:
    """Of the likeliest category, or of any thing: float32 [B, A] 0..1; -1 where the middle is off the picture."""
    known = seen.class_logits.float().amax(-1)
    scores = torch.maximum(known, seen.thing_logits.float()).detach().sigmoid()
    middle = (seen.boxes[..., :2] + seen.boxes[..., 2:]) / 2
    there = ((middle > content[:, None, :2]) & (middle < content[:, None, 2:])).all(-1)
    return scores.masked_fill(~there, -1)


def choose(scores: Tensor, boxes: Tensor, count: int) -> Tensor:
    """int64 [B, count] places of the highest scores of which none hides another.

    All are compared at once (Fast NMS, Bolya et al., ICCV 2019): a place gives way to any better one that it overlaps,
    be that hidden itself. Where too few are left, hidden ones follow by their scores, and at last those of score -1.
    There must be ``count`` places.
    """
    best, order = scores.topk(min(max(BEFORE_SUPPRESSION, count), scores.shape[1]), dim=1)
    at = boxes.detach().gather(1, order[..., None].expand(-1, -1, 4))
    overlap = box_iou(at[:, :, None], at[:, None])
    better = torch.ones_like(overlap[0], dtype=torch.bool).tril(-1)
    hidden = ((overlap > OVERLAP) & better).any(-1)
    kept = (best - hidden.to(best.dtype)).topk(count, dim=1).indices
    return order.gather(1, kept)


def cell_boxes(side: int, content: Tensor) -> Tensor:
    """[B, side * side, 4] the cells of a grid over the picture, rows first, as fractions of the canvas."""
    steps = torch.arange(side, device=content.device, dtype=torch.float32) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    low = torch.stack([x.flatten(), y.flatten()], -1)
    size = (content[:, None, 2:] - content[:, None, :2]).float()
    corner = content[:, None, :2].float()
    return torch.cat([corner + low * size, corner + (low + 1 / side) * size], -1)


def inside(boxes: Tensor, content: Tensor) -> Tensor:
    """Boxes [B, Q, 4] cut at the picture [B, 4]."""
    low, high = content[:, None, :2], content[:, None, 2:]
    return torch.cat([boxes[..., :2].maximum(low).minimum(high), boxes[..., 2:].maximum(low).minimum(high)], -1)
