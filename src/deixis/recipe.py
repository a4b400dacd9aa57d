"""A recipe: everything that a training run depends on, in five typed, frozen parts.

It stands on the ground floor, without torch, because each model family names its own recipes and its criterion reads
`LossOptions`, while models must not import training. Command-line flags, ``recipe.json`` and checkpoints use the flat
names of the fields (``--lr``, ``"instances"``); `Recipe.flat` and `Recipe.replaced` go from one form to the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from deixis.config import is_own_encoder

RATES = ("lr", "pretrained_lr", "sigma_lr")
MIN_SIGMA = 0.1
"""The lowest floor of sigma: its gradient, which has sigma^3 in the denominator, is still an ordinary number."""
RETIRED = {"heat_weight": "choice_weight", "bfloat16": "precision", "consistency_weight": ""}
"""Flat names of earlier versions and what replaces them; "" for what no longer exists."""
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[int, ...]": (tuple,),
    "tuple[float, ...]": (tuple,),
    "dict[str, Any]": (dict,),
}


def at_least(least: int, default: int, **more: object) -> Any:  # noqa: ANN401  the field has its own type
    """A whole number from ``least`` on."""
    return field(default=default, metadata={"least": least, **more})


def one_of(*choices: str, **more: object) -> Any:  # noqa: ANN401
    """One of these words, the first by default."""
    return field(default=choices[0], metadata={"choices": choices, **more})


def share(default: float) -> Any:  # noqa: ANN401
    """A number in 0..1."""
    return field(default=default, metadata={"most": 1})


def needs(other: str, default: str = "", **more: object) -> Any:  # noqa: ANN401
    """A field of the same part that may differ from its default only where the field ``other`` is set."""
    return field(default=default, metadata={"needs": other, **more})


@dataclass(frozen=True, kw_only=True)
class Options:
    """A part of a recipe, which checks its own fields.

    Raises:
        ValueError: one sentence with the field's flat name and its value.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            self._check(one.metadata, flat_name(one.name, one.metadata), getattr(self, one.name), str(one.type))
        for one in fields(self):
            if other := one.metadata.get("needs"):
                check_needed(flat_name(one.name, one.metadata), getattr(self, one.name), one.default, self, other)

    def _check(self, rules: Mapping[str, Any], name: str, value: Any, kind: str) -> None:  # noqa: ANN401
        if not isinstance(value, _TYPES[kind]) or (type(value) is bool) != (kind == "bool"):
            raise ValueError(f"expected {name} of the type {kind}, got {value!r}; correct it")
        if kind == "float" and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"expected {name} to be a finite number of at least 0, got {value!r}; correct it")
        if value not in rules.get("choices", (value,)):
            raise ValueError(f"expected {name} out of {rules['choices']}, got {value!r}; choose one")
        if "least" in rules and value < rules["least"]:
            raise ValueError(f"expected {name} to be at least {rules['least']}, got {value!r}; raise it")
        if "most" in rules and value > rules["most"]:
            raise ValueError(f"expected {name} in 0..1, got {value!r}; lower it")


def flat_name(name: str, rules: Mapping[str, Any]) -> str:
    """What a field is called in flags and files."""
    return rules.get("flat", name)


def check_needed(name: str, value: object, default: object, part: Options, other: str) -> None:
    """Raise ValueError where a field is set whose meaning depends on another one that is not."""
    if value != default and not getattr(part, other):
        raise ValueError(
            f"expected {name} to be {default!r} without {other}, got {value!r}; set {other}, or leave {name} out"
        )


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """What is trained on: a data set with expressions, or a mixture of annotated photos and drawn scenes."""

    phrased: str = ""
    """A data set with expressions of its own, ``refcoco:train`` or a JSONL file, in place of the mixture.

    Without a split: ``train``; of a JSONL file, also the lines that name no split.
    """
    root: str = ""
    """Where ``phrased`` lies."""
    one_per: str = one_of("referent", "expression", "image", needs="phrased")
    """What an epoch goes through: every ``referent`` or every ``image``, with ``phrases`` of its expressions drawn at
    random, or every ``expression``.
    """
    augment: str = one_of("", "none", "mcn", "smcim", "transvg", needs="phrased")
    """A pipeline of `deixis.data.augment.pipelines` for every image and its expressions."""
    rehearsal: float = field(default=0.0, metadata={"needs": "phrased"})
    """The share of a batch that is drawn scenes, or the whole mixture where instances files are named."""
    instances: str = ""
    """COCO instances files, separated by commas, in which everything is annotated; images whose id % 7 == 0 or
    id % 14 == 1 are held out.
    """
    partial_instances: str = ""
    """The same for files in which other categories may be left unannotated."""
    pseudo_instances: str = ""
    """The same for files with boxes of a detector, of which those with a ``score`` below 0.5 are dropped."""
    instances_share: float = 0.18
    partial_share: float = 0.11
    pseudo_share: float = 0.0
    scenes_share: float = 0.71
    """Shares of a batch's images; half of the drawn scenes are ``scenes``, a quarter each of the other flavours."""
    flavour: str = one_of("", "scenes", "scenes+", "scenesg")
    """Draw scenes of this flavour alone."""
    min_area: float = share(0.02)
    """The smallest box, as a share of the photo, that phrases are written for."""
    paste_share: float = share(0.4)
    """How often instances of other photos are pasted into a photo."""
    absent: float = share(0.25)
    """How often an image also gets a phrase that means nothing in it."""
    pool: int = at_least(0, 0)
    """``deixis``: choose among the proposals of this many images, which are computed once.

    The image side is not trained then, and masks are not learnt.
    """
    pool_phrases: int = at_least(1, 12)
    """The most phrases kept for an image of the pool."""
    layouts: str = ""
    """With ``pool``: CSV files of expressions with boxes and without photos, see `deixis.train.layouts`."""
    layouts_share: float = 0.0
    """The share of ``layouts`` in a batch."""
    images: int = at_least(1, 10)
    """Images in a batch."""
    phrases: int = at_least(1, 4)
    """Phrases for each image."""
    image_sizes: tuple[int, ...] = (416,)
    """Canvas sides, one drawn for each step. Drawn scenes, of 256 pixels, are used where they fill the canvas or where
    it is the only one. A family that answers on a canvas of one size is trained on that one.
    """
    mask_target: str = one_of("area", "nearest")
    """A cell of the mask target: ``area`` averages its pixels, ``nearest`` takes the one in its middle."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.image_sizes or any(type(one) is not int or one < 1 or one % 32 for one in self.image_sizes):
            raise ValueError(
                f"expected image_sizes to be one or more positive multiples of 32, got {self.image_sizes!r}; "
                "round each to such a number"
            )
        self._check_mixture()
        self._check_pool()

    def _check_mixture(self) -> None:
        if self.rehearsal >= 1:
            raise ValueError(
                f"expected rehearsal below 1, so that something of phrased is left, got {self.rehearsal!r}; lower it"
            )
        if not (self.instances_share or self.partial_share or self.pseudo_share or self.scenes_share):
            raise ValueError(
                "expected one of instances_share, partial_share and scenes_share above 0, got 0 for all; raise one"
            )
        if self.pseudo_instances and not self.pseudo_share:
            raise ValueError(
                f"expected a pseudo_share above 0 with pseudo_instances, got 0.0 with {self.pseudo_instances!r}; set "
                "the share of images to take from it, or leave it out"
            )
        for name in ("instances", "partial_instances", "pseudo_instances", "flavour"):
            if getattr(self, name) and self.phrased and not self.rehearsal:
                raise ValueError(
                    f"expected {name} to be '' with phrased, got {getattr(self, name)!r}; train on one of them, or set "
                    "rehearsal"
                )

    def _check_pool(self) -> None:
        if self.pool and self.pool < self.images:
            raise ValueError(
                f"expected a pool of at least {self.images} images, as many as a batch has, got {self.pool!r}; raise "
                "it or lower images"
            )
        if self.layouts and not (self.pool and self.layouts_share):
            raise ValueError(
                f"expected pool and layouts_share above 0 with layouts, got {self.pool!r} and {self.layouts_share!r}; "
                "set both, or leave layouts out"
            )
        if self.layouts_share >= 1:
            raise ValueError(
                f"expected layouts_share below 1, got {self.layouts_share!r}; lower it, so that a batch has images too"
            )


SCENES_ALONE = DataOptions(instances_share=0.0, partial_share=0.0, scenes_share=1.0)
"""Drawn scenes and no files."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Which model is trained, what it starts from and which parts of it learn."""

    preset: str = field(default="deixis-tiny", metadata={"flat": "model"})
    """A preset of `deixis.config`."""
    fields: dict[str, Any] = field(default_factory=dict, metadata={"flat": "model_fields"})
    """Fields of the preset that differ."""
    start: str = ""
    """The checkpoint to start from: a bundled name or a folder. Its sizes are used, no pretrained part is read, and
    ``model`` and ``model_fields`` are ignored.
    """
    image_weights: str = ""
    """Pretrained weights of the image encoder: the folder of a Darknet network (.cfg, and .weights or such as
    darknet53.conv.74), or the .pth file of EfficientNet-Lite0, VGG-16 or a ResNet. Empty: random ones, unless
    ``model_fields`` names an encoder that brings its own.
    """
    freeze_image: bool = True
    """Whether the part of a pretrained image encoder that the family's paper keeps fixed stays fixed."""
    text_weights: str = ""
    """Pretrained weights of the text encoder: the folder of a BERT checkpoint with tokenizer.json, which models of word
    pieces need; or the packaged GloVe table's folder or a GloVe text file. Empty: random ones, unless ``model_fields``
    names an encoder that brings its own.
    """
    freeze_text: int = at_least(0, 0)
    """How much of SMCIM's text encoder stays fixed, from below: 1 its word vectors, 1 + k also its first k layers."""
    learn: str = ""
    """Prefixes of the names of the parameters that learn, separated by commas; empty: all that may."""
    frozen_steps: int = at_least(0, 0, needs="start")
    """Steps during which the whole image encoder stays fixed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("image_weights", "text_weights") if self.start else ():
            if getattr(self, name):
                raise ValueError(
                    f"expected {name} to be left out with start, whose checkpoint brings its own, got "
                    f"{getattr(self, name)!r}; leave out one of them"
                )

    def weights_of(self, part: str) -> str:
        """Where the weights of the ``image`` or ``text`` encoder come from; empty: they are random.

        That is ``start``, ``image_weights`` or ``text_weights``, or an encoder of ``model_fields`` that is a folder or
        a name on the hub.
        """
        encoder = self.fields.get(f"{part}_encoder", "")
        return self.start or getattr(self, f"{part}_weights") or ("" if is_own_encoder(part, encoder) else encoder)


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions(Options):
    """How long and how fast the model learns."""

    kind: str = one_of("adamw", "adam", flat="optimiser")
    """``adamw``, or ``adam`` whose weight decay is an L2 penalty."""
    lr: float = 6e-4
    pretrained_lr: float = 1e-4
    """Learning rate of the image and text encoders where they start from pretrained weights."""
    sigma_lr: float = 5e-5
    """Learning rate of the two widths sigma of SPSIL, which never have weight decay."""
    printed_images: int = at_least(0, 0)
    """The batch size that a paper prints its rates for, or 0. See `deixis.train.recipes.scaled_for_batch`."""
    printed_rates: tuple[float, ...] = ()
    """``lr``, ``pretrained_lr`` and ``sigma_lr`` as printed for that batch size, where they are known."""
    scale_lr: bool = True
    """Whether naming a recipe with other ``images`` than the printed ones also moves the rates that are not named."""
    weight_decay: float = 1e-4
    """Of all matrices; with ``adam``, of kernels of convolutions alone."""
    steps: int = at_least(1, 5000)
    epochs: int = at_least(0, 0)
    """With ``phrased``: passes over its referents or expressions, from which ``steps`` and ``milestones`` follow."""
    schedule: str = one_of("cosine", "steps")
    """``cosine``, or ``steps``: a tenth of the rate from each milestone on."""
    milestones: tuple[int, ...] = ()
    """Steps after which the rate falls; with ``epochs``, the epochs, counted from 1, at whose beginning it does."""
    warmup: int = at_least(0, 150)
    clip: float = 1.0
    """The largest norm of the gradient; 0: not clipped."""
    ema: float = share(0.998)
    accumulate: int = at_least(1, 1)
    """How many parts a batch is split into, by images, one after the other: less memory, the same gradient.

    The exception is batch-norm that learns, as in ``mcn``: each part is normalised by itself.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.printed_rates and (
            len(self.printed_rates) != len(RATES) or not all(type(one) in (int, float) for one in self.printed_rates)
        ):
            raise ValueError(
                f"expected printed_rates to be three numbers or none, got {self.printed_rates!r}; correct them"
            )
        earliest = 1 if self.epochs else 0
        if any(type(one) is not int or one < earliest for one in self.milestones):
            raise ValueError(
                f"expected milestones to be whole numbers of at least {earliest}, got {self.milestones!r}; correct them"
            )


@dataclass(frozen=True, kw_only=True)
class LossOptions(Options):
    """Weights of the losses, and SPSIL. A criterion reads those of its family; a weight of 0 leaves a loss out."""

    choice_weight: float = 1.0
    """``deixis``: which proposal is meant; 0: only the detector learns."""
    box_weight: float = 1.0
    mask_weight: float = 1.5
    projection_weight: float = 0.5
    exists_weight: float = 0.5
    detection_weight: float = 0.5
    """``deixis``: its detector, that is where there is an instance of any kind, and its box."""
    words_weight: float = 2.0
    """An auxiliary task: kind, colour and texture of every annotated instance from the image alone."""
    place_weight: float = 0.0
    """``smcim``, an auxiliary task: whether pixels of the last F_v lie on the referent, and its box."""
    attention_weight: float = 0.0
    """``smcim``, an auxiliary task: [CLS] attends to the referent in the last block."""
    rec_weight: float = 1.0
    res_weight: float = 0.1
    cem_weight: float = 1.0
    """MCN Eq. 12."""
    l1_weight: float = 1.0
    giou_weight: float = 1.0
    """SMCIM Eq. 7 and 8, after their difficulty: lambda and sigma are meant for losses without weights."""
    spsil: str = one_of("on", "off")
    """SMCIM's self-paced sample informativeness learning, Eq. 9 to 11; ``off``: the mean L1 and GIoU losses."""
    spsil_lambda: float = 0.75
    sigma: float = 2.5
    """Where both widths of the difficulty start."""
    sigma_floor: float = 0.6
    """Neither width goes below it; below 0.53 training would raise losses near lambda / 2."""
    detach_difficulty: bool = False
    """Whether difficulty is only a weight, through which no gradient reaches the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, what in (("sigma_floor", MIN_SIGMA, ""), ("sigma", self.sigma_floor, ", its floor")):
            if getattr(self, name) < least:
                raise ValueError(
                    f"expected {name} to be at least {least!r}{what}, got {getattr(self, name)!r}; correct one of them"
                )


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """How a run is carried out: its numbers, memory and speed, what it saves, and when it stops early."""

    precision: str = one_of("auto", "float32", "bfloat16")
    """``float32``, ``bfloat16``, or ``auto``: bfloat16 exactly where the processor multiplies it in hardware."""
    channels_last: bool = True
    """Whether kernels lie in memory in the order that CPUs and GPUs are fastest with."""
    compile: bool = False
    """Whether torch.compile works on the model's parts: minutes at the start, faster steps after that."""
    checkpointing: bool = False
    """``smcim``: recompute the interaction's activations on the backward pass instead of keeping them."""
    seed: int = at_least(0, 1)
    workers: int = at_least(0, 1)
    save_every: int = at_least(1, 200)
    keep: int = at_least(1, 1)
    """How many states are kept: state.pt, and earlier ones as state-STEP.pt."""
    non_finite_limit: int = at_least(1, 10)
    """The run ends after this many steps in a row whose loss or gradient is not finite."""
    check_every: int = at_least(0, 0)
    """With ``phrased``: steps between two validation rounds, whose best state becomes the checkpoint.

    0: there are none, and the last state becomes it.
    """
    validation: str = needs("check_every")
    """The data set or JSONL file to validate on; empty: one image in five of ``phrased``."""
    patience: int = at_least(1, 4, needs="check_every")
    """The run ends after this many validation rounds without a better one."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training run depends on; saved with the run.

    Raises:
        ValueError: one sentence with a field and its value, where it cannot be or would be ignored.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    losses: LossOptions = field(default_factory=LossOptions)
    run: RunOptions = field(default_factory=RunOptions)

    PATHS: ClassVar = (
        "start", "image_weights", "text_weights", "instances", "partial_instances", "pseudo_instances", "phrased",
        "layouts", "root",
    )  # fmt: skip
    """Flat names of the fields that hold paths, several of them separated by commas."""

    def __post_init__(self) -> None:
        check_needed("epochs", self.optimiser.epochs, 0, self.data, "phrased")
        check_needed("check_every", self.run.check_every, 0, self.data, "phrased")
        if self.data.rehearsal and self.optimiser.epochs:
            raise ValueError(
                f"expected epochs to be 0 with rehearsal, got {self.optimiser.epochs!r}; set steps instead"
            )

    def flat(self) -> dict[str, Any]:
        """All fields by their flat names, as plain values for JSON."""
        parts = {part: asdict(getattr(self, part)) for part in _PARTS}
        return {name: parts[part][inner] for name, (part, inner) in _PLACES.items()}

    def to_json(self) -> str:
        """The text of ``recipe.json``."""
        return json.dumps(self.flat(), indent=1)

    def replaced(self, **values: Any) -> Recipe:  # noqa: ANN401  fields have several types
        """The recipe with fields, given by their flat names, replaced.

        Raises:
            ValueError: a name is unknown, or a value cannot be.
        """
        check_names(values)
        grouped: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            part, inner = _PLACES[name]
            grouped.setdefault(part, {})[inner] = value
        return replace(self, **{part: replace(getattr(self, part), **inner) for part, inner in grouped.items()})

    def get(self, name: str) -> Any:  # noqa: ANN401
        """The value of a field, given by its flat name."""
        part, inner = _PLACES[name]
        return getattr(getattr(self, part), inner)


_PARTS: dict[str, type[Options]] = {
    "data": DataOptions,
    "model": ModelOptions,
    "optimiser": OptimiserOptions,
    "losses": LossOptions,
    "run": RunOptions,
}
_PLACES = {flat_name(f.name, f.metadata): (part, f.name) for part, kind in _PARTS.items() for f in fields(kind)}
"""Where the field of a flat name stands: its part and its name there."""
FIELD_NAMES = tuple(_PLACES)


def check_names(names: Mapping[str, Any]) -> None:
    """Raise ValueError with all unknown names, and what replaces the retired ones."""
    if unknown := sorted(set(names) - set(_PLACES)):
        now = "; ".join(f"{one} is {RETIRED[one]} now" for one in unknown if RETIRED.get(one))
        gone = "; ".join(f"{one} is no longer read" for one in unknown if RETIRED.get(one) == "")
        told = "; ".join(one for one in (now, gone) if one)
        raise ValueError(f"expected recipe fields out of {sorted(_PLACES)}, got {unknown!r}{told and f'; {told}'}")


def recipe_of_json(stored: Mapping[str, Any]) -> Recipe:
    """The recipe of a ``recipe.json``, of this version or an earlier one.

    Raises:
        ValueError: a field is unknown or a value cannot be.
    """
    values = {key: tuple(one) if isinstance(one, list) else one for key, one in with_todays_names(stored).items()}
    return Recipe().replaced(**values)


def with_todays_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a run stored, by the flat names of today.

    ``bfloat16`` true or false is ``precision``, ``heat_weight`` is ``choice_weight``, and ``consistency_weight``, which
    only an earlier ``deixis`` family had, is left out.
    """
    kept = dict(stored)
    kept.pop("consistency_weight", None)
    if "heat_weight" in kept:
        kept["choice_weight"] = kept.pop("heat_weight")
    if type(kept.get("bfloat16")) is bool and "precision" not in kept:
        kept["precision"] = "bfloat16" if kept.pop("bfloat16") else "float32"
    return kept
