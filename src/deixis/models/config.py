"""What the configurations of all model families have in common. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

SUPPRESSIONS = ("none", "crop", "soft", "adaptive")
"""How the box corrects the mask: see `deixis.models.suppression`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """Sizes of a model, which check themselves; a family's own dataclass is in its ``config.py``.

    Raises:
        ValueError: one sentence with the field and its value.
    """

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {}
    """What a field may say."""
    LEAST: ClassVar[dict[str, int]] = {"fill": 0}
    """The least value of whole numbers, where it is not 1."""
    ENCODERS: ClassVar[dict[str, tuple[str, ...]]]
    """The ``image`` and ``text`` encoders that need no folder and no name on the hub."""

    family: str
    image_encoder: str
    image_size: int
    """Side of the square canvas, a multiple of 32."""
    vocab_size: int
    max_tokens: int
    """Longest phrase in tokens; the rest of a longer one is cut off."""

    def __post_init__(self) -> None:
        for name, allowed in self.CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"expected {name} to be one of {allowed}, got {getattr(self, name)!r}")
        for one in fields(self):
            value, least = getattr(self, one.name), self.LEAST.get(one.name, 1)
            if one.type == "bool" and type(value) is not bool:
                raise ValueError(f"expected {one.name} to be True or False, got {value!r}")
            if one.type == "int" and (type(value) is not int or value < least):
                raise ValueError(f"expected {one.name} to be a whole number of at least {least}, got {value!r}")
            if one.name == "fill" and value > 255:
                raise ValueError(f"expected fill to be a whole number in 0..255, got {value!r}")
            if one.name == "dropout" and (type(value) not in (int, float) or not 0 <= value < 1):
                raise ValueError(f"expected dropout in 0..1, got {value!r}")
        if self.image_size % 32:
            raise ValueError(f"expected image_size to be a positive multiple of 32, got {self.image_size!r}")

    def check_divides(self, heads: str, width: int) -> None:
        """Raise ValueError unless that number of attention heads divides a width."""
        if width % getattr(self, heads):
            raise ValueError(f"expected {heads} to divide the width {width}, got {getattr(self, heads)!r}")

    @property
    @abstractmethod
    def has_word_pieces(self) -> bool:
        """Whether the text encoder reads word pieces; if not, whole words."""

    @property
    def word_vector_dim(self) -> int:
        """The width of the vectors of whole words."""
        return 50

    def with_vocabulary(self, size: int, *, pretrained: bool) -> Self:
        """The configuration for a tokenizer of so many ids, whose words have pretrained vectors or not."""
        return replace(self, vocab_size=size)
