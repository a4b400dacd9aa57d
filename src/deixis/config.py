"""Sizes of the models as frozen dataclasses, and the presets by name. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DeixisConfig:
    """The joint model of the ``deixis`` family: box, mask and existence from one pass."""

    family: str = "deixis"
    image_encoder: str = "yolov3-tiny"
    """``yolov3-tiny`` or ``efficientnet-lite0``."""
    text_encoder: str = "minilm"
    """``minilm`` (six BERT layers tapped after 2, 4, 6) or ``glove-gru``."""
    image_size: int = 384
    """Side of the square canvas, a multiple of 32."""
    context_dim: int = 256
    """Width of the visual tokens while the image is encoded, before any word is known."""
    context_layers: int = 4
    context_heads: int = 4
    group_dim: int = 64
    """Width of each of the three groups of cross-modal alternate attention."""
    group_layers: int = 1
    group_heads: int = 2
    merge_layers: int = 2
    merge_heads: int = 3
    ffn_ratio: int = 2
    dropout: float = 0.0
    mask_dim: int = 48
    mask_stride4_dim: int = 24
    max_tokens: int = 256
    """Longest phrase in tokens, the first and last special token included; the rest of a longer one is cut off."""
    vocab_size: int = 30522
    text_dim: int = 384
    text_layers: int = 6
    text_heads: int = 12

    def __post_init__(self) -> None:
        if self.image_encoder not in IMAGE_ENCODERS:
            raise ValueError(f"expected image_encoder to be one of {IMAGE_ENCODERS}, got {self.image_encoder!r}")
        if self.text_encoder not in TEXT_ENCODERS:
            raise ValueError(f"expected text_encoder to be one of {TEXT_ENCODERS}, got {self.text_encoder!r}")
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type == "int" and (type(value) is not int or value < 1):
                raise ValueError(f"expected {one.name} to be a whole number above 0, got {value!r}")
        if self.image_size % 32:
            raise ValueError(f"expected image_size to be a positive multiple of 32, got {self.image_size!r}")
        if self.text_layers % 3:
            raise ValueError(f"expected text_layers to be a multiple of 3, got {self.text_layers!r}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"expected dropout in 0..1, got {self.dropout!r}")
        divided = [
            ("context_heads", self.context_dim),
            ("group_heads", self.group_dim),
            ("merge_heads", self.merge_dim),
        ]
        if self.text_encoder == "minilm":
            divided.append(("text_heads", self.text_dim))
        for name, width in divided:
            if width % getattr(self, name):
                raise ValueError(f"expected {name} to divide the width {width}, got {getattr(self, name)!r}")

    @property
    def merge_dim(self) -> int:
        """Width after the three groups are concatenated."""
        return 3 * self.group_dim


IMAGE_ENCODERS = ("yolov3-tiny", "efficientnet-lite0")
TEXT_ENCODERS = ("minilm", "glove-gru")

PRESETS: dict[str, DeixisConfig] = {
    "deixis-tiny": DeixisConfig(),
    "deixis-tiny-lite0": DeixisConfig(image_encoder="efficientnet-lite0"),
    "deixis-tiny-glove": DeixisConfig(text_encoder="glove-gru", text_dim=128, text_layers=3, vocab_size=20_000),
}


def preset(name: str, **overrides: Any) -> DeixisConfig:  # noqa: ANN401  fields have several types
    """The named configuration with fields replaced.

    Raises:
        ValueError: for an unknown name or field; the sentence lists the valid ones.
    """
    if name not in PRESETS:
        raise ValueError(f"expected a preset out of {sorted(PRESETS)}, got {name!r}")
    known = {f.name for f in fields(PRESETS[name])}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"expected fields out of {sorted(known)}, got {unknown!r}")
    return replace(PRESETS[name], **overrides)


def config_from_dict(values: dict[str, Any]) -> DeixisConfig:
    """The configuration that :func:`config_to_dict` wrote.

    Raises:
        ValueError: it is no such dictionary, or has unknown fields or values that cannot be.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected a dictionary of fields, got {values!r}")
    family = values.get("family")
    if family != "deixis":
        raise ValueError(f"expected a model family out of ['deixis'], got {family!r}")
    known = {f.name for f in fields(DeixisConfig)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"expected fields out of {sorted(known)}, got {unknown!r}; the file may be of a newer version")
    return DeixisConfig(**values)


def config_to_dict(config: DeixisConfig) -> dict[str, Any]:
    """Plain values for JSON."""
    return asdict(config)
