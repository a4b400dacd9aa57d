"""Sizes and variants of SMCIM (paper 2). No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deixis.models.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class SmcimConfig(ModelConfig):
    """The box from the [CLS] token after multi-grained cross-modal attention. Tables III to V are fields."""

    CHOICES: ClassVar = {
        "resize": ("letterbox", "squash"),
        "projection": ("conv1x1", "conv3x3"),
        "interaction": ("ca2m", "encoder"),
        "position": ("sine", "learned", "none"),
        "position_at": ("both", "attention", "tokens"),
        "activation": ("relu", "gelu"),
    }
    LEAST: ClassVar = {"fill": 0, "group_blocks": 0}
    ENCODERS: ClassVar = {"image": ("resnet50", "resnet101", "darknet-tiny"), "text": ("bert",)}

    family: str = "smcim"
    image_encoder: str = "resnet50"
    """``resnet50``, ``resnet101``, ``darknet-tiny`` or the name or folder of a backbone of the transformers library.

    A built model, and so a checkpoint, has the backbone's own configuration here, as JSON, and needs no folder.
    """
    text_encoder: str = "bert"
    """``bert`` of the sizes below, or the name or folder of a BERT-like model; built, its configuration as JSON."""
    image_size: int = 512
    """Side of the square canvas, a multiple of 32."""
    resize: str = "letterbox"
    """"The input image is resized to 512x512": ``letterbox`` keeps the aspect and pads, ``squash`` does not."""
    max_tokens: int = 40
    """Longest phrase in tokens, [CLS] and [SEP] included; the rest of a longer one is cut off."""
    vocab_size: int = 30522
    text_dim: int = 768
    text_layers: int = 6
    text_heads: int = 12
    visual_features: tuple[int, ...] = (3, 4, 5)
    """Stages of the image encoder, out of 3 to 5: strides 8, 16, 32. Table III."""
    text_features: tuple[int, ...] = (2, 4, 6)
    """Layers of the text encoder after which its features are taken: one group each. Table III."""
    projection: str = "conv3x3"
    """Stages to C_0 channels at stride 16: ``conv1x1``, or ``conv3x3`` with a 3x3 convolution at the end of each."""
    group_dim: int = 256
    """C_0, the width of grouping."""
    group_heads: int = 8
    group_blocks: int = 2
    """Blocks of each group; 0 leaves grouping out. Table IV counts those of all three groups: six."""
    merge_blocks: int = 3
    merge_heads: int = 12
    ffn_ratio: int = 4
    interaction: str = "ca2m"
    """Table V: ``ca2m``, or ``encoder`` for transformer encoder layers on pixels and words side by side."""
    position: str = "sine"
    """Where a pixel stands: ``sine``, ``learned`` or ``none``."""
    position_at: str = "both"
    """``attention``: on queries and keys of each block; ``tokens``: on F_v^0, once; or ``both``."""
    dropout: float = 0.1
    activation: str = "relu"
    """Of the feed-forward layers: ``relu`` or ``gelu``."""
    fill: int = 114
    """Grey of the canvas around the picture, 0 to 255: the mean of the photos that the encoders know."""
    mask_padding: bool = True
    """Whether the convolutions see the picture alone; else they read the grey next to its border too."""

    def __post_init__(self) -> None:
        for name in ("image_encoder", "text_encoder"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"expected {name} to be a name or a folder, got {value!r}")
        super().__post_init__()
        if self.group_dim % 4:
            raise ValueError(f"expected group_dim to be a multiple of 4, got {self.group_dim!r}")
        self.check_divides("group_heads", self.group_dim)
        self.check_divides("merge_heads", self.merge_dim)
        self.check_divides("text_heads", self.text_dim)
        for name, numbers in (("visual_features", range(3, 6)), ("text_features", range(1, self.text_layers + 1))):
            object.__setattr__(self, name, _rising(name, getattr(self, name), numbers))

    @property
    def merge_dim(self) -> int:
        """C_1, the width of merging, whatever the number of groups: 768."""
        return 3 * self.group_dim

    @property
    def has_word_pieces(self) -> bool:
        """See `ModelConfig`."""
        return True


def _rising(name: str, given: object, allowed: range) -> tuple[int, ...]:
    """Some of ``allowed``, JSON's list too, as a tuple."""
    numbers = tuple(given) if isinstance(given, list | tuple) else ()
    whole = all(type(n) is int and n in allowed for n in numbers)
    if not numbers or not whole or list(numbers) != sorted(set(numbers)):
        raise ValueError(f"expected {name} to be rising numbers in {allowed[0]}..{allowed[-1]}, got {given!r}")
    return numbers


CONFIG = SmcimConfig
PRESETS = {
    "smcim-r50": SmcimConfig(),
    "smcim-r101": SmcimConfig(image_encoder="resnet101"),
    "smcim-tiny": SmcimConfig(
        image_encoder="darknet-tiny",
        image_size=256,
        text_dim=384,
        group_dim=96,
        group_heads=4,
        merge_heads=6,
        ffn_ratio=2,
        dropout=0.0,
    ),
}
