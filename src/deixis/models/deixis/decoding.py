"""From the model's choice to one answer a phrase. Letters: P phrases, Q tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from deixis.models.deixis.proposals import pairwise_iou

if TYPE_CHECKING:
    from deixis.models.deixis.model import Output

AGREES = 0.5
"""IoU above which two tokens' boxes mean the same thing."""


@dataclass(frozen=True)
class Decoded:
    """One answer for each phrase."""

    token: Tensor  # int64 [P] the token that is chosen
    boxes: Tensor  # [P, 4] xyxy as fractions of the canvas
    peak: Tensor  # [P] its probability
    consensus: Tensor  # [P] share of the probability whose own boxes agree with the answer


def decode(output: Output) -> Decoded:
    """The box that most of the probability agrees with, averaged with those that agree.

    Several tokens may stand for one thing and share its probability; so each token counts with all that agree with it.
    """
    probability = output.choice_logits.softmax(-1)
    same = pairwise_iou(output.boxes[:, :, None], output.boxes[:, None]) > AGREES  # [P, Q, Q]
    support = (same * probability[:, None]).sum(-1)
    token = (support * probability.sqrt()).argmax(-1)
    agrees = probability * _row(same, token)
    consensus = agrees.sum(-1)
    boxes = (agrees[..., None] * output.boxes).sum(1) / consensus[:, None].clamp(min=1e-9)
    return Decoded(
        token=token,
        boxes=boxes.clamp(0, 1),
        peak=probability.gather(1, token[:, None]).squeeze(1),
        consensus=consensus.clamp(max=1),
    )


def _row(table: Tensor, index: Tensor) -> Tensor:
    """[P, Q, Q] to [P, Q]."""
    return table.gather(1, index[:, None, None].expand(-1, 1, table.shape[-1])).squeeze(1)
