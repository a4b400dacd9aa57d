"""Sizes and variants of MCN (paper 1). No torch here."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from deixis.models.config import SUPPRESSIONS, ModelConfig

MCN_ENCODERS = ("darknet53", "vgg16", "darknet-tiny")
STRUCTURES = (
    "mcn",
    "single-rec-13",
    "single-rec-52",
    "single-res-13",
    "single-res-52",
    "only-head-different-13",
    "only-head-different-52",
    "only-backbone-shared",
)
"""MCN Table 3. 13 and 52 name the scale of the last map on a canvas of 416: strides 32 and 8."""
JOINT_STRUCTURES = ("mcn", "only-head-different-13", "only-head-different-52", "only-backbone-shared")


@dataclass(frozen=True, kw_only=True)
class McnConfig(ModelConfig):
    """Joint comprehension and segmentation in one stage. Where the paper and its code differ, a field says which."""

    CHOICES: ClassVar = {
        "image_encoder": MCN_ENCODERS,
        "structure": STRUCTURES,
        "cem": ("expected", "literal", "off"),
        "suppression": SUPPRESSIONS,
        "fusion": ("official", "paper"),
        "top_down": ("official", "paper"),
        "garan_order": ("official", "paper"),
        "frozen_norm": ("eval", "batch"),
    }
    ENCODERS: ClassVar = {"image": MCN_ENCODERS, "text": ()}

    family: str = "mcn"
    image_encoder: str = "darknet53"
    """``darknet53``, ``vgg16`` or ``darknet-tiny`` (the YOLOv3-tiny body)."""
    image_size: int = 416
    """Side of the square canvas, a multiple of 32."""
    structure: str = "mcn"
    """Rows of Table 3: see `STRUCTURES`."""
    text_attention: bool = True
    """Table 2, +TextAtt: weighted sum of the GRU's states; without, the final states of both directions."""
    garan: bool = True
    """Table 2, +GARAN."""
    cem: str = "expected"
    """Table 2, +CEM: ``expected`` (log of the expected co-energy), ``literal`` (Eq. 9, mean over pairs) or ``off``."""
    suppression: str = "adaptive"
    """Table 1 and Table 2, +ASNLS: ``none``, ``crop``, ``soft`` or ``adaptive``."""
    fusion: str = "official"
    """Eq. 1: ``official`` puts a residual block on the image and batch-norm around the product; ``paper`` does not."""
    top_down: str = "official"
    """Eq. 2: ``official`` concatenates the upsampled map as it is; ``paper`` projects it first."""
    garan_order: str = "official"
    """``official``: the bottom-up path starts from the map that GARAN refined; ``paper``: from the one before."""
    frozen_norm: str = "eval"
    """Batch-norm of the encoder's frozen part in training: ``eval`` (stored statistics) or ``batch`` (official)."""
    coordinates: bool = False
    """Whether the fusion sees where a cell lies, as two channels more of F_v1. Not in the paper."""
    prior: float = 0.5
    """What an untrained head gives for a cell or candidate. The official biases of 0 make it 0.5."""
    fusion_dim: int = 1024
    """Width of F_m1; the paper's text says 512."""
    dim: int = 512
    """Width of F_m2, F_m3 and of both branches."""
    garan_heads: int = 2
    aspp_dim: int = 256
    text_dim: int = 1024
    word_dim: int = 300
    vocab_size: int = 20_000
    train_words: bool = False
    mask_padding: bool = True
    """Whether the text attention leaves padding out; the official code does not."""
    max_tokens: int = 15
    """Longest phrase in words; 20 for RefCOCOg."""
    anchors_px: tuple[tuple[float, float], ...] = ((137, 256), (248, 272), (386, 271))
    """Widths and heights of the box branch's anchors on a canvas of 416 pixels."""
    fill: int = 128
    """Grey of the canvas around the picture, 0 to 255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.prior) is not float or not 0 < self.prior < 1:
            raise ValueError(f"expected prior between 0 and 1, got {self.prior!r}")
        self.check_divides("garan_heads", self.dim)
        self.check_divides("garan_heads", self.text_dim)
        if self.cem != "off" and not (self.garan and self.structure in JOINT_STRUCTURES):
            raise ValueError(
                f"expected cem 'off' without garan or in a structure of one branch, got {self.cem!r} with "
                f"garan={self.garan!r} and structure={self.structure!r}"
            )
        object.__setattr__(self, "anchors_px", _anchors(self.anchors_px))

    @property
    def has_word_pieces(self) -> bool:
        """See `ModelConfig`."""
        return False

    @property
    def word_vector_dim(self) -> int:
        """See `ModelConfig`."""
        return self.word_dim

    def with_vocabulary(self, size: int, *, pretrained: bool) -> Self:
        """See `ModelConfig`; vectors that are not pretrained are learnt."""
        return replace(self, vocab_size=size, train_words=self.train_words or not pretrained)


def _anchors(given: object) -> tuple[tuple[float, float], ...]:
    """Pairs, JSON's lists too, as tuples of floats."""
    pairs = given if isinstance(given, list | tuple) else ()
    if not pairs or not all(isinstance(p, list | tuple) and len(p) == 2 and all(map(_is_length, p)) for p in pairs):
        raise ValueError(f"expected anchors_px to be pairs (width, height) of finite numbers above 0, got {given!r}")
    return tuple((float(w), float(h)) for w, h in pairs)


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 < value <= sys.float_info.max


CONFIG = McnConfig
PRESETS = {
    "mcn-darknet53": McnConfig(),
    "mcn-vgg16": McnConfig(image_encoder="vgg16"),
    "mcn-tiny": McnConfig(
        image_encoder="darknet-tiny",
        fusion_dim=256,
        dim=128,
        aspp_dim=64,
        text_dim=256,
        word_dim=50,
    ),
}
