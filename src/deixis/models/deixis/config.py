"""Sizes of the ``deixis`` family. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deixis.models.config import ModelConfig

IMAGE_ENCODERS = ("shufflenet-1.5x", "yolov3-tiny", "efficientnet-lite0")
TEXT_ENCODERS = ("minilm", "glove-gru")


@dataclass(frozen=True, kw_only=True)
class DeixisConfig(ModelConfig):
    """The joint model of the ``deixis`` family: box, mask and existence from one pass."""

    CHOICES: ClassVar = {"image_encoder": IMAGE_ENCODERS, "text_encoder": TEXT_ENCODERS}
    ENCODERS: ClassVar = {"image": IMAGE_ENCODERS, "text": TEXT_ENCODERS}

    family: str = "deixis"
    image_encoder: str = "shufflenet-1.5x"
    """Below the detector's neck: ``shufflenet-1.5x`` (NanoDet-Plus's), ``yolov3-tiny`` or ``efficientnet-lite0``."""
    text_encoder: str = "minilm"
    """``minilm`` (six BERT layers tapped after 2, 4, 6) or ``glove-gru``."""
    image_size: int = 416
    """Side of the square canvas, a multiple of 32."""
    candidates: int = 60
    """Boxes of the detector that an answer is chosen from."""
    cells: int = 7
    """Cells a row of the grid over the picture, which an answer is chosen from as well."""
    context_dim: int = 256
    """Width of the tokens while the image is encoded, before any word is known."""
    context_layers: int = 3
    context_heads: int = 4
    group_dim: int = 64
    """Width of each of the three groups of cross-modal alternate attention."""
    group_layers: int = 1
    group_heads: int = 2
    merge_layers: int = 2
    merge_heads: int = 4
    ffn_ratio: int = 2
    dropout: float = 0.1
    mask_dim: int = 16
    """Prototype maps that masks are drawn from."""
    max_tokens: int = 256
    """Longest phrase in tokens, the first and last special token included; the rest of a longer one is cut off."""
    vocab_size: int = 30522
    text_dim: int = 384
    text_layers: int = 6
    text_heads: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates > self.places:
            raise ValueError(
                f"expected candidates to be at most {self.places}, the detector's places on a canvas of "
                f"{self.image_size}, got {self.candidates!r}"
            )
        if self.text_layers % 3:
            raise ValueError(f"expected text_layers to be a multiple of 3, got {self.text_layers!r}")
        self.check_divides("context_heads", self.context_dim)
        self.check_divides("group_heads", self.group_dim)
        self.check_divides("merge_heads", self.merge_dim)
        if self.has_word_pieces:
            self.check_divides("text_heads", self.text_dim)

    @property
    def merge_dim(self) -> int:
        """Width after the three groups are concatenated."""
        return 3 * self.group_dim

    @property
    def places(self) -> int:
        """Places of the detector on all its levels: strides 8, 16, 32 and 64, the last rounded up."""
        return sum((-(-self.image_size // stride)) ** 2 for stride in (8, 16, 32, 64))

    @property
    def has_word_pieces(self) -> bool:
        """See `ModelConfig`."""
        return self.text_encoder == "minilm"


CONFIG = DeixisConfig
PRESETS = {
    "deixis-tiny": DeixisConfig(),
    "deixis-tiny-lite0": DeixisConfig(image_encoder="efficientnet-lite0"),
    "deixis-tiny-glove": DeixisConfig(text_encoder="glove-gru", text_dim=128, text_layers=3, vocab_size=20_000),
}
