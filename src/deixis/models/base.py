"""What every model family offers, so that loading, grounding and training need not know which family they have."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from deixis.geometry.images import FILL
from deixis.models.suppression import MASK_THRESHOLD


class EncodedImages(Protocol):
    """Encoded images; each row can meet any number of phrases."""

    def pick(self, index: Tensor) -> Self:
        """The rows ``index`` [P], one for each phrase."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a model says of P phrases, on the canvas; None where it has no such branch."""

    boxes: Tensor | None  # [P, 4] xyxy as fractions of the canvas, inside it
    mask_probability: Tensor | None  # [P, s, s] over the canvas
    confidence: Tensor  # [P] of the box, 0..1: suppression goes by it
    signs: Tensor  # [P, K] log-odds that the score is made of, agreement comes as one more


class GroundingModel(nn.Module, ABC):
    """A network that encodes an image once and answers any number of phrases."""

    config: Any
    """The family's own kind of `deixis.models.config.ModelConfig`."""
    score_weights: ClassVar[tuple[float, ...]]
    """Weights of the signs and, last, of the agreement, for a model that is not calibrated."""
    mask_stride: int
    """Pixels of the canvas to a cell of the mask."""
    stores_int8: bool = False
    """Whether a checkpoint may round its largest tensors to 8 bits."""
    fill: int = FILL
    """Grey of the canvas around the picture."""
    resize: str = "letterbox"
    """How a picture fits the canvas: ``letterbox`` or ``squash``, see `deixis.geometry.images.Letterbox.fit`."""
    canvas_note: str = "on a canvas of one size"
    """What becomes of the canvas, in words."""
    mask_threshold: float | None = MASK_THRESHOLD
    """Of the mask's suppressed probability; None: the family has no masks."""
    adapts_canvas: bool = True
    """Whether a small image gets a smaller canvas than the largest."""
    suppression: str = "adaptive"
    """How the box corrects the mask: see `deixis.models.suppression`."""
    suppression_order: str = "original"
    """``original``: at the original resolution; ``official``: on the canvas, as MCN's code does."""

    @abstractmethod
    def encode_image(self, pixels: Tensor, content: Tensor) -> Any:  # noqa: ANN401  each family has its own
        """``pixels`` [B, 3, S, S] RGB 0..1 on the letterboxed canvas; ``content`` [B, 4] the picture's place on it."""

    @abstractmethod
    def ground(self, scene: Any, token_ids: Tensor, token_valid: Tensor) -> Any:  # noqa: ANN401
        """``scene`` of P rows and P phrases [P, T] to what the family's branches say of them."""

    def forward(
        self, pixels: Tensor, content: Tensor, image_index: Tensor, token_ids: Tensor, token_valid: Tensor
    ) -> Any:  # noqa: ANN401
        """All at once: phrase p is about image ``image_index[p]``."""
        return self.ground(self.encode_image(pixels, content).pick(image_index), token_ids, token_valid)

    @abstractmethod
    def answer(self, scene: Any, token_ids: Tensor, token_valid: Tensor) -> Answer:  # noqa: ANN401
        """``scene`` of P rows and P phrases [P, T] to one answer each."""

    def attention(self, scene: Any, token_ids: Tensor, token_valid: Tensor) -> dict[str, Tensor]:  # noqa: ANN401
        """Where each branch looks for P phrases, to be drawn: probability maps by the branch's name.

        Args:
            scene: P rows of encoded images.
            token_ids: [P, T].
            token_valid: bool [P, T].

        Returns:
            float32 [P, h, w] over the canvas, each row's map of sum 1; nothing of a model without such maps.
        """
        return {}

    @property
    @abstractmethod
    def image_encoder(self) -> nn.Module:
        """The image encoder, which knows by what pixels are normalised."""

    def preprocessing(self) -> dict[str, Any]:
        """What an image goes through before the first layer, and a mask after the last, for a checkpoint's config."""
        mask = {} if self.mask_threshold is None else {"mask_threshold": self.mask_threshold}
        return {
            "resize": f"{self.resize}, bilinear, centred, {self.canvas_note}",
            "largest_size": self.config.image_size,
            "fill": self.fill,
            "mean": list(self.image_encoder.pixel_mean),  # pyright: ignore[reportArgumentType]
            "std": list(self.image_encoder.pixel_std),  # pyright: ignore[reportArgumentType]
            **mask,
        }

    @abstractmethod
    def load_pretrained(self, part: str, path: str | Path) -> None:
        """Take the published weights of the ``image`` or ``text`` encoder.

        Word vectors go by the words of a tokenizer: see :meth:`load_word_vectors`.

        Raises:
            FileNotFoundError: there is no such file or folder.
            ValueError: the weights do not fit; one sentence says what is missing, unexpected or of another shape.
        """

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Take the vectors [V, D] of a tokenizer's words, in its order.

        Raises:
            ValueError: the family or its text encoder reads word pieces, or the vectors do not fit.
        """
        raise ValueError(f"expected no word vectors for the family {self.config.family!r}, which reads word pieces")

    def lowest_text_parameters(self, stages: int) -> list[nn.Parameter]:
        """The parameters of the first ``stages`` of a text encoder that learns as a whole.

        Raises:
            ValueError: the family has no such encoder, or there are fewer stages.
        """
        raise ValueError(
            f"expected freeze_text=0 for the family {self.config.family!r}, got {stages!r}: only smcim's text encoder "
            "learns as a whole; leave it out"
        )

    def checkpoint_activations(self) -> None:
        """Recompute activations on the backward pass instead of keeping them.

        Raises:
            ValueError: the family cannot.
        """
        raise ValueError(
            f"expected checkpointing=false for the family {self.config.family!r}, got true, which only smcim has; "
            "leave it out, or split batches by accumulate"
        )

    @abstractmethod
    def pretrained_parameters(self) -> Mapping[str, list[nn.Parameter]]:
        """Parameters that a pretrained file may fill, ``image`` and ``text``."""

    @abstractmethod
    def frozen_parameters(self, *, image_pretrained: bool) -> list[nn.Parameter]:
        """What stays as it is in training."""


def energy_map(energy: Tensor) -> Tensor:
    """Logits [P, s * s] of a square grid, rows first, to probabilities float32 [P, s, s]. MCN section 3.2, E'."""
    side = math.isqrt(energy.shape[-1])
    return energy.float().softmax(-1).unflatten(-1, (side, side))


def log_odds(probability: Tensor) -> Tensor:
    """``log(p / (1 - p))`` with p kept away from 0 and 1."""
    return probability.float().clamp(1e-4, 1 - 1e-4).logit()


def check_signs(signs: Tensor) -> Tensor:
    """Signs within -12..12, so that one of them cannot drown the others."""
    return torch.nan_to_num(signs.float()).clamp(-12, 12)
