"""What training minimises: one objective a model family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deixis.data.attributes import WORD_GROUPS
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models import losses
from deixis.structures import TrainingBatch


class Objective(ABC):
    """Named losses of a batch and their weights, and the parameters that only training uses."""

    weights: dict[str, float]
    helper: nn.Module

    def __init__(self, tokenizer: PhraseTokenizer) -> None:
        self.tokenizer = tokenizer
        self.helper = nn.Module()

    @abstractmethod
    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Forward pass and unweighted losses, one for each of ``weights``."""

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()

    def words_of(self, batch: TrainingBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Token ids and token_valid [P, T] of the batch's phrases."""
        ids, valid = self.tokenizer.encode(batch.phrases)
        return bring(ids, device), bring(valid, device)


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


def told_words_loss(logits: Tensor, batch: TrainingBatch) -> Tensor:
    """How badly ``logits`` [B, N, words] tell kind, colour and texture of the things: a mean over what is known."""
    labels, cells = bring(batch.thing_labels, logits.device), bring(batch.thing_cells, logits.device)
    at_things = logits[bring(batch.thing_index, logits.device)].split([len(group) for group in WORD_GROUPS], -1)
    each = [losses.word_loss(part, labels[:, row], cells) for row, part in enumerate(at_things)]
    return torch.stack(each).sum() / (labels >= 0).sum().clamp(min=1)
