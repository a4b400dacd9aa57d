"""Sizes of the models as frozen dataclasses, and the presets by name. No torch here."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DeixisConfig:
    """The joint model of the ``deixis`` family: box, mask and existence from one pass."""

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
        if self.candidates > self.places:
            raise ValueError(
                f"expected candidates to be at most {self.places}, the detector's places on a canvas of "
                f"{self.image_size}, got {self.candidates!r}"
            )
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

    @property
    def places(self) -> int:
        """Places of the detector on all its levels: strides 8, 16, 32 and 64, the last rounded up."""
        return sum((-(-self.image_size // stride)) ** 2 for stride in (8, 16, 32, 64))


IMAGE_ENCODERS = ("shufflenet-1.5x", "yolov3-tiny", "efficientnet-lite0")
TEXT_ENCODERS = ("minilm", "glove-gru")


@dataclass(frozen=True, kw_only=True)
class McnConfig:
    """Paper 1: joint comprehension and segmentation in one stage. Where the paper and its code differ, a field."""

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
        choices = {
            "image_encoder": MCN_ENCODERS,
            "structure": STRUCTURES,
            "cem": ("expected", "literal", "off"),
            "suppression": SUPPRESSIONS,
            "fusion": ("official", "paper"),
            "top_down": ("official", "paper"),
            "garan_order": ("official", "paper"),
            "frozen_norm": ("eval", "batch"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"expected {name} to be one of {allowed}, got {getattr(self, name)!r}")
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type == "bool" and type(value) is not bool:
                raise ValueError(f"expected {one.name} to be True or False, got {value!r}")
            if one.type == "int" and one.name != "fill" and (type(value) is not int or value < 1):
                raise ValueError(f"expected {one.name} to be a whole number above 0, got {value!r}")
        if type(self.fill) is not int or not 0 <= self.fill <= 255:
            raise ValueError(f"expected fill to be a whole number in 0..255, got {self.fill!r}")
        if self.image_size % 32:
            raise ValueError(f"expected image_size to be a positive multiple of 32, got {self.image_size!r}")
        if type(self.prior) is not float or not 0 < self.prior < 1:
            raise ValueError(f"expected prior between 0 and 1, got {self.prior!r}")
        for name in ("dim", "text_dim"):
            if getattr(self, name) % self.garan_heads:
                raise ValueError(f"expected garan_heads to divide {name}, got {self.garan_heads!r}")
        if self.cem != "off" and not (self.garan and self.structure in JOINT_STRUCTURES):
            raise ValueError(
                f"expected cem 'off' without garan or in a structure of one branch, got {self.cem!r} with "
                f"garan={self.garan!r} and structure={self.structure!r}"
            )
        object.__setattr__(self, "anchors_px", _anchors(self.anchors_px))


def _anchors(given: object) -> tuple[tuple[float, float], ...]:
    """Pairs, JSON's lists too, as tuples of floats."""
    pairs = given if isinstance(given, list | tuple) else ()
    if not pairs or not all(isinstance(p, list | tuple) and len(p) == 2 and all(map(_is_length, p)) for p in pairs):
        raise ValueError(f"expected anchors_px to be pairs (width, height) of finite numbers above 0, got {given!r}")
    return tuple((float(w), float(h)) for w, h in pairs)


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 < value <= sys.float_info.max


MCN_ENCODERS = ("darknet53", "vgg16", "darknet-tiny")
SUPPRESSIONS = ("none", "crop", "soft", "adaptive")
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

SMCIM_ENCODERS = {"image": ("resnet50", "resnet101", "darknet-tiny"), "text": ("bert",)}
"""Names of ours; any other is a folder of the transformers library, or its name on the hub."""


@dataclass(frozen=True, kw_only=True)
class SmcimConfig:
    """Paper 2: the box from the [CLS] token after multi-grained cross-modal attention. Tables III to V are fields."""

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
        choices = {
            "resize": ("letterbox", "squash"),
            "projection": ("conv1x1", "conv3x3"),
            "interaction": ("ca2m", "encoder"),
            "position": ("sine", "learned", "none"),
            "position_at": ("both", "attention", "tokens"),
            "activation": ("relu", "gelu"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"expected {name} to be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("image_encoder", "text_encoder"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"expected {name} to be a name or a folder, got {value!r}")
        lowest = {"fill": 0, "group_blocks": 0}
        for one in fields(self):
            value, least = getattr(self, one.name), lowest.get(one.name, 1)
            if one.type == "int" and (type(value) is not int or value < least):
                raise ValueError(f"expected {one.name} to be a whole number from {least} on, got {value!r}")
        if self.fill > 255:
            raise ValueError(f"expected fill to be a whole number in 0..255, got {self.fill!r}")
        if type(self.mask_padding) is not bool:
            raise ValueError(f"expected mask_padding to be True or False, got {self.mask_padding!r}")
        if self.image_size % 32:
            raise ValueError(f"expected image_size to be a positive multiple of 32, got {self.image_size!r}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"expected dropout in 0..1, got {self.dropout!r}")
        self._check_widths()
        for name, numbers in (("visual_features", range(3, 6)), ("text_features", range(1, self.text_layers + 1))):
            object.__setattr__(self, name, _rising(name, getattr(self, name), numbers))

    def _check_widths(self) -> None:
        if self.group_dim % 4:
            raise ValueError(f"expected group_dim to be a multiple of 4, got {self.group_dim!r}")
        widths = {"group_heads": self.group_dim, "merge_heads": self.merge_dim, "text_heads": self.text_dim}
        for name, width in widths.items():
            if width % getattr(self, name):
                raise ValueError(f"expected {name} to divide the width {width}, got {getattr(self, name)!r}")

    @property
    def merge_dim(self) -> int:
        """C_1, the width of merging, whatever the number of groups: 768."""
        return 3 * self.group_dim


def _rising(name: str, given: object, allowed: range) -> tuple[int, ...]:
    """Some of ``allowed``, JSON's list too, as a tuple."""
    numbers = tuple(given) if isinstance(given, list | tuple) else ()
    whole = all(type(n) is int and n in allowed for n in numbers)
    if not numbers or not whole or list(numbers) != sorted(set(numbers)):
        raise ValueError(f"expected {name} to be rising numbers in {allowed[0]}..{allowed[-1]}, got {given!r}")
    return numbers


Config = DeixisConfig | McnConfig | SmcimConfig
FAMILIES: dict[str, type[Config]] = {"deixis": DeixisConfig, "mcn": McnConfig, "smcim": SmcimConfig}

PRESETS: dict[str, Config] = {
    "deixis-tiny": DeixisConfig(),
    "deixis-tiny-lite0": DeixisConfig(image_encoder="efficientnet-lite0"),
    "deixis-tiny-glove": DeixisConfig(text_encoder="glove-gru", text_dim=128, text_layers=3, vocab_size=20_000),
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


def preset(name: str, **overrides: Any) -> Config:  # noqa: ANN401  fields have several types
    """The named configuration with fields replaced.

    Raises:
        ValueError: for an unknown name or field; the sentence lists the valid ones.
    """
    if name not in PRESETS:
        raise ValueError(f"expected a preset out of {sorted(PRESETS)}, got {name!r}")
    known = {f.name for f in fields(PRESETS[name])} - {"family"}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"expected fields out of {sorted(known)}, got {unknown!r}")
    return replace(PRESETS[name], **overrides)


def config_from_dict(values: dict[str, Any]) -> Config:
    """The configuration that :func:`config_to_dict` wrote.

    Raises:
        ValueError: it is no such dictionary, or has unknown fields or values that cannot be.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected a dictionary of fields, got {values!r}")
    family = values.get("family")
    if family not in FAMILIES:
        raise ValueError(f"expected a model family out of {sorted(FAMILIES)}, got {family!r}")
    known = {f.name for f in fields(FAMILIES[family])}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"expected fields out of {sorted(known)}, got {unknown!r}; the file may be of a newer version")
    return FAMILIES[family](**values)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain values for JSON."""
    return asdict(config)


def has_word_pieces(config: Config) -> bool:
    """Whether the text encoder reads word pieces; if not, whole words."""
    return isinstance(config, SmcimConfig) or (isinstance(config, DeixisConfig) and config.text_encoder == "minilm")
