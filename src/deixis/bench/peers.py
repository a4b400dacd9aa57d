"""Other models that ground phrases, built by transformers from their configuration with random weights, to compare.

Nothing is downloaded: what a network costs does not depend on its weights. transformers is imported when one is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deixis.bench.operations import HEAD, IMAGE, TEXT

PEERS = ("grounding-dino", "owl-vit")
"""Grounding DINO with Swin-T; OWL-ViT with ViT-B/32. The sizes are those of transformers' own configurations."""

CLS, SEP, FULL_STOP = 101, 102, 1012
"""Word pieces of BERT that Grounding DINO splits its phrases at."""
OWL_MAX_WORDS = 16


class GroundingDinoPeer:
    """Grounding DINO (Liu et al., 2023): image and words meet in its encoder already, so nothing can be kept."""

    parts: Mapping[str, str] = {
        "model.backbone": IMAGE,
        "model.input_proj_vision": IMAGE,
        "model.text_backbone": TEXT,
        "model.text_projection": TEXT,
        "model.decoder": HEAD,
    }  # the decoder holds the box heads; what follows it is next to nothing
    keeps_images = False
    own_px = 800

    def __init__(self, *, image_px: int | None, words: int, config: Any = None) -> None:  # noqa: ANN401  lazy import
        from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

        config = config or GroundingDinoConfig(disable_custom_kernels=True)  # pyright: ignore[reportCallIssue]
        self.model: nn.Module = GroundingDinoForObjectDetection(config).eval()
        self.image_px = image_px or self.own_px
        self.words = max(words, 4)

    def inputs(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """``pixels`` [B, 3, S, S] and ``token_ids`` [B, T] as the model takes them."""
        ids = torch.full_like(token_ids, FULL_STOP + 1)
        ids[:, 0], ids[:, -2], ids[:, -1] = CLS, FULL_STOP, SEP
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def encode(self, pixels: Tensor) -> None:
        """Nothing is kept of an image."""

    def answer(self, encoded: object, pixels: Tensor, token_ids: Tensor) -> object:
        """One pass; see :class:`deixis.bench.subjects.Timed`."""
        return self.model(**self.inputs(pixels, token_ids))


class OwlViTPeer:
    """OWL-ViT (Minderer et al., 2022): image and words meet in the class head alone."""

    parts: Mapping[str, str] = {
        "owlvit.vision_model": IMAGE,
        "owlvit.text_model": TEXT,
        "owlvit.text_projection": TEXT,
        "class_head": HEAD,
        "box_head": HEAD,
    }
    keeps_images = True

    def __init__(self, *, image_px: int | None, words: int, config: Any = None) -> None:  # noqa: ANN401  lazy import
        from transformers import OwlViTConfig, OwlViTForObjectDetection

        config = config or OwlViTConfig()
        if image_px is not None:
            config.vision_config.image_size = image_px
        self.model: Any = OwlViTForObjectDetection(config).eval()
        self.image_px = int(config.vision_config.image_size)
        self.words = min(words, OWL_MAX_WORDS)

    def inputs(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """``pixels`` [B, 3, S, S] and ``token_ids`` [B, T] as the model takes them."""
        return {"pixel_values": pixels, "input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of the patches [B, h, w, D]."""
        return self.model.image_embedder(pixel_values=pixels)[0]

    def answer(self, encoded: Tensor, pixels: Tensor, token_ids: Tensor) -> object:
        """Boxes and class logits; see :class:`deixis.bench.subjects.Timed`."""
        owlvit, patches = self.model.owlvit, encoded.flatten(1, 2)
        pooled = owlvit.text_model(input_ids=token_ids, attention_mask=torch.ones_like(token_ids)).pooler_output
        logits, _ = self.model.class_predictor(patches, owlvit.text_projection(pooled)[:, None])
        return logits, self.model.box_predictor(patches, encoded)


def build_peer(name: str, *, image_px: int | None, words: int) -> GroundingDinoPeer | OwlViTPeer:
    """The peer with random weights, in eval mode.

    Args:
        name: one of ``PEERS``.
        image_px: side of the square image; None for the size it was made for.
        words: tokens a phrase; each peer keeps to its own least and most.

    Raises:
        ValueError: no such peer.
    """
    if name == "grounding-dino":
        return GroundingDinoPeer(image_px=image_px, words=words)
    if name == "owl-vit":
        return OwlViTPeer(image_px=image_px, words=words)
    raise ValueError(f"expected a peer out of {PEERS}, got {name!r}")
