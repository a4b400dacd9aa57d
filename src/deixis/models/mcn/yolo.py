"""From the box branch's map to boxes, as YOLOv3 reads it. Letters: P phrases, A anchors, g x g cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ANCHOR_SIDE = 416
"""Side in pixels of the canvas on which anchors are measured, whatever the side of the model's own."""


def anchors_as_fractions(
    anchors_px: Sequence[tuple[float, float]], anchor_side: float = ANCHOR_SIDE, *, device: torch.device | None = None
) -> Tensor:
    """Widths and heights [A, 2] in pixels of a canvas of side ``anchor_side`` as fractions of the canvas, float32."""
    return torch.tensor(anchors_px, dtype=torch.float32, device=device).reshape(-1, 2) / anchor_side


def decode_boxes(
    box_logits: Tensor, anchors_px: Sequence[tuple[float, float]], anchor_side: float = ANCHOR_SIDE
) -> tuple[Tensor, Tensor]:
    """All candidates: xy = (sigmoid(t_xy) + cell) / g, wh = exp(t_wh) * anchor, confidence = sigmoid. YOLOv3.

    Args:
        box_logits: [P, A, 5, g, g]: t_x, t_y, t_w, t_h and the confidence's logit.
        anchors_px: A pairs (width, height) in pixels of a canvas of side ``anchor_side``.
        anchor_side: side of the canvas on which the anchors were measured.

    Returns:
        Boxes xyxy [P, A * g * g, 4] as fractions of the canvas, some beyond it, and their confidence
        [P, A * g * g] in 0..1; anchor by anchor, row by row. Both float32.

    Raises:
        ValueError: the map is not of this shape.
    """
    _, num_anchors, num_values, rows, columns = box_logits.shape
    if num_anchors != len(anchors_px) or num_values != 5 or rows != columns:
        raise ValueError(
            f"expected a map [P, {len(anchors_px)}, 5, g, g], one for each anchor, got {list(box_logits.shape)!r}; "
            "give the anchors of the model that made it"
        )
    values = box_logits.float().movedim(2, -1)  # [P, A, g, g, 5]
    index = torch.arange(rows, device=values.device)
    cell = torch.stack(torch.meshgrid(index, index, indexing="xy"), -1)  # [g, g, 2] xy
    anchors = anchors_as_fractions(anchors_px, anchor_side, device=values.device)
    centre = (values[..., :2].sigmoid() + cell) / rows
    half = values[..., 2:4].exp() * anchors[:, None, None] / 2
    boxes = torch.cat([centre - half, centre + half], -1)
    return boxes.flatten(1, 3), values[..., 4].sigmoid().flatten(1)


def best_box(
    box_logits: Tensor, anchors_px: Sequence[tuple[float, float]], anchor_side: float = ANCHOR_SIDE
) -> tuple[Tensor, Tensor]:
    """The surest of all candidates: its box xyxy [P, 4], cut to the canvas (0..1), and its confidence [P].

    Arguments and errors as in `decode_boxes`.
    """
    boxes, confidence = decode_boxes(box_logits, anchors_px, anchor_side)
    surest, best = confidence.max(-1)
    return boxes.gather(1, best[:, None, None].expand(-1, 1, 4)).squeeze(1).clamp(0, 1), surest
