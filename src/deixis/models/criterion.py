"""What training minimises: the base of the families' criteria, and the losses that several of them have.

Losses are pure functions in float32. Letters: B images, P phrases, N visual tokens, K instances with known words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.base import GroundingModel
from deixis.models.boxes import intersection_area
from deixis.structures import TrainingBatch


class Criterion(nn.Module, ABC):
    """Named losses of a batch and their weights, and the parameters that only training uses.

    Args:
        model: whose forward pass is part of the criterion's.
        tokenizer: of its text encoder.
        word_counts: how many words each group of `TrainingBatch.thing_labels` has.
    """

    averaged_over: ClassVar[dict[str, str]] = {}
    """What a loss is a mean over, if not the phrases that have a referent: see `deixis.train.distributed.scaled`."""
    weights: dict[str, float]
    helper: nn.Module
    """Holds the parameters that only training uses."""

    def __init__(self, model: GroundingModel, tokenizer: PhraseTokenizer, word_counts: Sequence[int]) -> None:
        super().__init__()
        self.model, self.tokenizer, self.word_counts = model, tokenizer, list(word_counts)
        self.helper = nn.Module()

    @abstractmethod
    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The model's forward pass and the unweighted losses: at least those that ``weights`` names."""

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the losses that have a weight."""
        return torch.stack([self.weights[name] * value for name, value in losses.items() if name in self.weights]).sum()

    def notes(self) -> list[str]:
        """Sentences about what may surprise in the log of a run."""
        return []

    def sigmas(self) -> list[nn.Parameter]:
        """Parameters of ``helper`` that learn at ``sigma_lr``."""
        return []

    def project(self) -> None:
        """Bring parameters back to where they may be; called after each step of the optimiser."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    def bring(self, *arrays: NDArray[Any]) -> list[Tensor]:
        """Arrays of a batch as tensors where the model is."""
        return [bring(one, self.device) for one in arrays]

    def words_of(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Token ids and token_valid [P, T] of the batch's phrases."""
        ids, valid = self.bring(*self.tokenizer.encode(batch.phrases))
        return ids, valid

    def word_losses(self, logits: Tensor, batch: TrainingBatch) -> Tensor:
        """How badly ``logits`` [B, N, words] predict kind, colour and texture of instances: a mean over those known."""
        labels, cells, index = self.bring(batch.thing_labels, batch.thing_cells, batch.thing_index)
        groups = logits[index].split(self.word_counts, -1)
        each = [word_loss(group, labels[:, row], cells) for row, group in enumerate(groups)]
        return torch.stack(each).sum() / (labels >= 0).sum().clamp(min=1)


def bring(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array of a batch as a tensor where the model is; the only way that batches go there."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device


def pixels_of(batch: TrainingBatch, device: torch.device) -> Tensor:
    """Pixels [B, 3, S, S] RGB 0..1, channels last in memory."""
    pixels = bring(batch.pixels, device).permute(0, 3, 1, 2).float().div_(255)
    return pixels.contiguous(memory_format=torch.channels_last)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of ``values`` [P] where ``chosen``; 0 where nothing is."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - generalised IoU of boxes xyxy [..., 4], in 0..2 (Rezatofighi et al., 2019)."""
    predicted, target = predicted.float(), target.float()
    intersection = intersection_area(predicted, target)
    area_p = (predicted[..., 2:] - predicted[..., :2]).clamp(min=1e-6).prod(-1)
    area_t = (target[..., 2:] - target[..., :2]).clamp(min=1e-6).prod(-1)
    union = area_p + area_t - intersection
    hull = torch.maximum(predicted[..., 2:], target[..., 2:]) - torch.minimum(predicted[..., :2], target[..., :2])
    hull_area = hull.clamp(min=1e-6).prod(-1)
    return 1 - intersection / union + (hull_area - union) / hull_area


def word_loss(logits: Tensor, labels: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy [K] of the words that hold for instances, as predicted at the cells where they lie.

    Args:
        logits: [K, N, words] of one group of words.
        labels: int64 [K], the word that holds; -1 where it is not known: its loss is 0.
        cells: [K, N], each cell's share of the instance.
    """
    log_p = logits.float().log_softmax(-1)
    told = log_p.gather(-1, labels.clamp(min=0)[:, None, None].expand(-1, log_p.shape[1], 1)).squeeze(-1)
    return torch.where(labels >= 0, -(cells * told).sum(-1), 0)
