"""What can be measured: checkpoints, and with random weights presets and peers, all asked in the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deixis.bench.operations import (
    GROUNDING_PARTS,
    HEAD,
    IMAGE,
    TEXT,
    Counts,
    count_blocks,
    count_operations,
    count_parameters,
    present_parts,
)
from deixis.config import PRESETS, preset
from deixis.hub import find_checkpoint, load_checkpoint
from deixis.models.base import GroundingModel
from deixis.models.registry import build_model

CANVAS_STEP_PX = 32
CLS, SEP, FULL_STOP = 101, 102, 1012
"""Word pieces of BERT at which Grounding DINO splits its phrases."""
OWL_MAX_WORDS = 16


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model by name, light enough to be sent to another process."""

    name: str
    kind: str
    """``checkpoint``, ``preset`` or ``peer``."""
    where: str
    """The checkpoint's folder, or the name of the preset or peer."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the preset that are replaced."""


class Timed:
    """A network that is asked with random pixels and words."""

    keeps_images = True
    """Whether a second phrase on the same image need not encode it again."""

    def __init__(self, model: nn.Module, *, parts: Mapping[str, str], image_px: int, words: int) -> None:
        self.model: Any = model.eval()
        self.parts = parts
        """From a module's qualified name to one of `deixis.bench.operations.PARTS`."""
        self.image_px = image_px
        """Side of the square image."""
        self.words = words
        """Tokens a phrase."""

    def inputs(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """Arguments of the network's forward, which does all at once, for B images with a phrase each."""
        raise NotImplementedError

    def encode(self, pixels: Tensor) -> Any:  # noqa: ANN401  each has its own
        """What is kept of images [B, 3, S, S]."""
        raise NotImplementedError

    def answer(self, encoded: Any, pixels: Tensor, token_ids: Tensor) -> object:  # noqa: ANN401
        """What phrases [B, T] mean in them."""
        raise NotImplementedError


class TimedGrounder(Timed):
    """A network of Deixis alone: no file is read, no mask is resized to an image; decoding to boxes is included."""

    def __init__(self, model: GroundingModel, *, image_px: int | None, words: int) -> None:
        parts = present_parts(model, GROUNDING_PARTS)
        super().__init__(model, parts=parts, image_px=image_px or int(model.config.image_size), words=words)

    def inputs(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """The image fills its canvas and no word is padding."""
        return {
            "pixels": pixels,
            "content": _whole_canvas(pixels),
            "image_index": torch.arange(len(pixels), device=pixels.device),
            "token_ids": token_ids,
            "token_valid": torch.ones_like(token_ids, dtype=torch.bool),
        }

    def encode(self, pixels: Tensor) -> Any:  # noqa: ANN401
        """See :class:`Timed`."""
        return self.model.encode_image(pixels, _whole_canvas(pixels))

    def answer(self, encoded: Any, pixels: Tensor, token_ids: Tensor) -> object:  # noqa: ANN401
        """See :class:`Timed`."""
        return self.model.answer(encoded, token_ids, torch.ones_like(token_ids, dtype=torch.bool))


class GroundingDinoPeer(Timed):
    """Grounding DINO (Liu et al., 2023) with Swin-T: image and words meet in its encoder, so nothing can be kept."""

    keeps_images = False
    own_px = 800

    def __init__(self, *, image_px: int | None, words: int, config: Any = None) -> None:  # noqa: ANN401  lazy import
        from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

        config = config or GroundingDinoConfig(disable_custom_kernels=True)  # pyright: ignore[reportCallIssue]
        parts = {
            "model.backbone": IMAGE,
            "model.input_proj_vision": IMAGE,
            "model.text_backbone": TEXT,
            "model.text_projection": TEXT,
            "model.decoder": HEAD,
        }  # the decoder holds the box heads; what follows it is next to nothing
        model = GroundingDinoForObjectDetection(config)
        super().__init__(model, parts=parts, image_px=image_px or self.own_px, words=max(words, 4))

    def inputs(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """See :class:`Timed`."""
        ids = torch.full_like(token_ids, FULL_STOP + 1)
        ids[:, 0], ids[:, -2], ids[:, -1] = CLS, FULL_STOP, SEP
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def encode(self, pixels: Tensor) -> None:
        """Nothing is kept of an image."""

    def answer(self, encoded: object, pixels: Tensor, token_ids: Tensor) -> object:
        """See :class:`Timed`."""
        return self.model(**self.inputs(pixels, token_ids))


class OwlViTPeer(Timed):
    """OWL-ViT (Minderer et al., 2022) with ViT-B/32: image and words meet in the class head alone."""

    def __init__(self, *, image_px: int | None, words: int, config: Any = None) -> None:  # noqa: ANN401  lazy import
        from transformers import OwlViTConfig, OwlViTForObjectDetection

        config = config or OwlViTConfig()
        if image_px is not None:
            config.vision_config.image_size = image_px
        parts = {
            "owlvit.vision_model": IMAGE,
            "owlvit.text_model": TEXT,
            "owlvit.text_projection": TEXT,
            "class_head": HEAD,
            "box_head": HEAD,
        }
        side = int(config.vision_config.image_size)
        super().__init__(OwlViTForObjectDetection(config), parts=parts, image_px=side, words=min(words, OWL_MAX_WORDS))

    def inputs(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """See :class:`Timed`."""
        return {"pixel_values": pixels, "input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}

    def encode(self, pixels: Tensor) -> Tensor:
        """See :class:`Timed`."""
        return self.model.image_embedder(pixel_values=pixels)[0]  # features of the patches [B, h, w, D]

    def answer(self, encoded: Tensor, pixels: Tensor, token_ids: Tensor) -> object:
        """See :class:`Timed`."""
        owlvit, patches = self.model.owlvit, encoded.flatten(1, 2)
        pooled = owlvit.text_model(input_ids=token_ids, attention_mask=torch.ones_like(token_ids)).pooler_output
        logits, _ = self.model.class_predictor(patches, owlvit.text_projection(pooled)[:, None])
        return logits, self.model.box_predictor(patches, encoded)


PEERS: Mapping[str, type[GroundingDinoPeer | OwlViTPeer]] = {
    "grounding-dino": GroundingDinoPeer,
    "owl-vit": OwlViTPeer,
}
"""Built by transformers, when one is measured, from its own configurations: nothing is downloaded, as what a network
costs does not depend on its weights."""


def _whole_canvas(pixels: Tensor) -> Tensor:
    """[B, 4]: the image's xyxy as fractions of its canvas."""
    return torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=pixels.device).expand(len(pixels), -1)


def find_subject(text: str) -> Subject:
    """A bundled name, a checkpoint folder, ``hf-hub:org/repo``, or a preset as ``NAME`` or ``NAME:field=value:...``.

    Raises:
        FileNotFoundError: it is none of them.
        ValueError: a field or value that the preset cannot have.
    """
    name, _, rest = text.partition(":")
    if rest and name in PRESETS:
        fields = dict(_field(one, text) for one in rest.split(":"))
        preset(name, **fields)
        return Subject(name=text, kind="preset", where=name, fields=fields)
    try:
        return Subject(name=text, kind="checkpoint", where=str(find_checkpoint(text)))
    except FileNotFoundError as error:
        if text in PRESETS:
            return Subject(name=text, kind="preset", where=text)
        raise FileNotFoundError(f"{error}; or a preset out of {sorted(PRESETS)}") from None


def _field(text: str, whole: str) -> tuple[str, Any]:
    """``depth=3`` as a name and a value; what is no JSON is a word."""
    name, equals, raw = text.partition("=")
    if not (name and equals):
        raise ValueError(f"expected a preset with fields as NAME:field=value, got {whole!r}")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = raw
    return name, tuple(value) if isinstance(value, list) else value


def find_subjects(texts: Sequence[str], *, peers: bool = False) -> list[Subject]:
    """:func:`find_subject` for each, then the peers.

    Raises:
        ValueError: one is given twice.
    """
    if doubled := sorted({text for text in texts if texts.count(text) > 1}):
        raise ValueError(f"expected each model once, got {doubled[0]!r} twice; leave one out")
    found = [Subject(name=name, kind="peer", where=name) for name in PEERS] if peers else []
    return [*map(find_subject, texts), *found]


def build(subject: Subject, *, image_px: int | None, words: int) -> Timed:
    """The network of a subject in eval mode, of random weights unless it is a checkpoint.

    Args:
        subject: what to build.
        image_px: side of the square canvas; None for the model's own.
        words: tokens a phrase.

    Raises:
        ValueError: the size does not fit the model, or a checkpoint is damaged.
    """
    if subject.kind == "peer":
        return PEERS[subject.where](image_px=image_px, words=words)
    if image_px is not None and image_px % CANVAS_STEP_PX:
        raise ValueError(f"expected an image size that is a multiple of {CANVAS_STEP_PX}, got {image_px!r}")
    if subject.kind == "checkpoint":
        return TimedGrounder(load_checkpoint(subject.where).model, image_px=image_px, words=words)
    size = {} if image_px is None else {"image_size": image_px}
    config = preset(subject.where, **{**subject.fields, **size})
    return TimedGrounder(build_model(config), image_px=None, words=words)


def random_inputs(timed: Timed, batch: int, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pixels [B, 3, S, S] in 0..1 and token ids [B, T], no padding; the same at every call."""
    side = timed.image_px
    pixels = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = 1 + torch.arange(timed.words) % (_vocabulary(timed.model) - 1)
    return pixels.contiguous(memory_format=torch.channels_last), ids.expand(batch, -1).contiguous()


def _vocabulary(model: nn.Module) -> int:
    """How many ids the table of word vectors has."""
    config: Any = model.config
    own = getattr(config, "vocab_size", None)
    return int(config.text_config.vocab_size if own is None else own)


def count(subject: Subject, *, image_px: int | None, words: int) -> Counts:
    """Parameters of a model, and operations for one image and one phrase."""
    timed = build(subject, image_px=image_px, words=words)
    pixels, ids = random_inputs(timed, 1, dtype=torch.float32)
    return Counts(
        parameters=count_parameters(timed.model, timed.parts),
        operations=count_operations(timed.model, timed.parts, **timed.inputs(pixels, ids)),
        image_px=timed.image_px,
        words=timed.words,
        blocks=count_blocks(timed.model),
    )
