"""Recipes: functions that return one typed, frozen config of a whole training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from deixis.config import IMAGE_ENCODERS, MCN_ENCODERS, SMCIM_ENCODERS, TEXT_ENCODERS
from deixis.train.batch_advice import RATES, batch_note, scaled_for_batch
from deixis.train.recipe_checks import PATIENCE, check_recipe, renamed

__all__ = [
    "RECIPES",
    "Recipe",
    "batch_note",
    "is_own_encoder",
    "list_recipes",
    "recipe",
    "recipe_of_json",
    "scaled_for_batch",
]

_OWN_ENCODERS = {
    "image": ("", *IMAGE_ENCODERS, *MCN_ENCODERS, *SMCIM_ENCODERS["image"]),
    "text": ("", *TEXT_ENCODERS, *SMCIM_ENCODERS["text"]),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training run depends on; saved with the run."""

    model: str = "deixis-tiny"
    """A preset of ``deixis.config``."""
    start: str = ""
    """Checkpoint to go on from: a bundled name or a folder. Its sizes count, and no pretrained part is read; ``model``
    and ``model_fields`` say nothing then.
    """
    image_weights: str = ""
    """Folder of a Darknet network (.cfg, and .weights or such as darknet53.conv.74), or the .pth file of
    EfficientNet-Lite0, VGG-16 or a ResNet; empty: from scratch, or what ``model_fields`` names as the encoder.
    """
    freeze_image: bool = True
    """Whether the part of a pretrained image encoder that the family's paper keeps fixed stays so."""
    text_weights: str = ""
    """Folder of a BERT checkpoint with tokenizer.json, which models of word pieces need; or the packaged GloVe table's
    folder or a GloVe text file; empty: from scratch, or what ``model_fields`` names as the encoder.
    """
    freeze_text: int = 0
    """How much of SMCIM's text encoder keeps its weights, from below: 1 word vectors, 1 + k also the first k layers."""
    instances: str = ""
    """COCO instances files, a comma between two, all things annotated; id % 7 == 0 and id % 14 == 1 are left out."""
    partial_instances: str = ""
    """The same where other categories may stand unannotated."""
    pseudo_instances: str = ""
    """The same where a detector drew boxes, all or some: of those with a ``score``, 0.5 and more count."""
    phrased: str = ""
    """Data set with expressions of its own, ``refcoco:train`` or a JSONL file; its epochs replace the mixture.

    Without a split: ``train``; of a JSONL file, also the lines that name none.
    """
    root: str = ""
    """Where ``phrased`` lies."""
    instances_share: float = 0.18
    partial_share: float = 0.11
    pseudo_share: float = 0.0
    scenes_share: float = 0.71
    """Shares of the pictures of a batch; of the drawn scenes half are ``scenes``, a quarter each other flavour.

    See ``flavour`` for one alone.
    """
    augment: str = ""
    """With ``phrased``: a pipeline of `deixis.data.augment.pipelines` for every picture and its phrase, or none."""
    one_per: str = "referent"
    """With ``phrased``, what an epoch goes through: every ``referent`` or every ``image`` with ``phrases`` of its
    expressions drawn at random, or every ``expression``.
    """
    rehearsal: float = 0.0
    """With ``phrased``: share of a batch that is drawn scenes, or the whole mixture where instances are named."""
    min_area: float = 0.02
    """Share of a photo below which the box of a thing has no phrase written."""
    pool: int = 0
    """``deixis``: choose among the proposals of so many pictures, which are computed once, and leave pixels alone.

    The image side stays as it is then, and masks are not learnt.
    """
    pool_phrases: int = 12
    """Most phrases that are kept of a picture of the pool."""
    layouts: str = ""
    """With ``pool``: CSV files of expressions with boxes and without photos, see `deixis.train.layouts`."""
    layouts_share: float = 0.0
    """Of a batch's pictures, with ``layouts``."""
    learn: str = ""
    """Beginnings of the names of the parameters that learn, a comma between two; empty: all that may."""
    flavour: str = ""
    """Of the drawn scenes this flavour alone: ``scenes``, ``scenes+`` or ``scenesg``."""
    check_every: int = 0
    """With ``phrased``: steps between two looks at the validation part, of which the best state becomes the checkpoint.

    0: there is none, and the last state does.
    """
    validation: str = ""
    """With ``check_every``: data set or JSONL file to stop by; empty: one image in five of ``phrased``."""
    patience: int = PATIENCE
    """With ``check_every``: so many looks without anything better end the run."""
    frozen_steps: int = 0
    """With ``start``: steps in which the whole image encoder stays as it is."""
    paste_share: float = 0.4
    """How often instances of other photos are pasted into a photo."""
    absent: float = 0.25
    """How often an image also gets a phrase that means nothing in it."""
    epochs: int = 0
    """With ``phrased``: passes over its referents or expressions; ``steps`` and ``milestones`` then follow from it."""
    steps: int = 5000
    images: int = 10
    phrases: int = 4
    """Phrases an image."""
    image_sizes: tuple[int, ...] = (416,)
    """Canvas sides, one drawn for each step; drawn scenes, of 256 pixels, stand where they fill it, or on a sole one.

    A family whose answers come from a canvas of one size is trained on that one.
    """
    lr: float = 6e-4
    pretrained_lr: float = 1e-4
    """Learning rate of the image and text encoders where they start from pretrained weights."""
    sigma_lr: float = 5e-5
    """Learning rate of the two widths sigma of SPSIL; never any weight decay."""
    printed_images: int = 0
    """The batch that a paper prints its rates for; 0: none is printed. See `scaled_for_batch`."""
    printed_rates: tuple[float, ...] = ()
    """``lr``, ``pretrained_lr`` and ``sigma_lr`` as printed for that batch; empty: not told."""
    scale_lr: bool = True
    """Whether naming a recipe with other ``images`` than the printed ones moves the rates that are not named too."""
    optimiser: str = "adamw"
    """``adamw``, or ``adam`` whose weight decay is an L2 penalty."""
    weight_decay: float = 1e-4
    """Of all matrices; with ``adam``, of kernels of convolutions alone."""
    schedule: str = "cosine"
    """``cosine``, or ``steps``: a tenth of the rate from each milestone on."""
    milestones: tuple[int, ...] = ()
    """Steps after which the rate falls; with ``epochs``, the epochs, counted from 1, at whose beginning it does."""
    warmup: int = 150
    clip: float = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    ema: float = 0.998
    accumulate: int = 1
    """Parts into which a batch is split, by pictures, one after the other: less memory, the same gradient.

    But for batch-norms that learn, as those of ``mcn``: each part is normalised by itself.
    """
    checkpointing: bool = False
    """``smcim``: compute the interaction's insides again on the way back instead of keeping them."""
    non_finite_limit: int = 10
    """So many steps in a row whose loss or gradient is not finite end the run."""
    choice_weight: float = 1.0
    """Of what is chosen among the proposals of ``deixis``; 0: only its detector learns."""
    box_weight: float = 1.0
    mask_weight: float = 1.5
    projection_weight: float = 0.5
    exists_weight: float = 0.5
    detection_weight: float = 0.5
    """Of the detector of ``deixis``: where there is any thing, and its box."""
    words_weight: float = 2.0
    """Of an auxiliary task: to tell kind, colour and texture of every annotated thing from the image alone."""
    place_weight: float = 0.0
    """Of an auxiliary task of ``smcim``: pixels of the last F_v tell whether they lie on what is meant, and its box."""
    attention_weight: float = 0.0
    """Of an auxiliary task of ``smcim``: in the last block [CLS] looks at what is meant."""
    rec_weight: float = 1.0
    res_weight: float = 0.1
    cem_weight: float = 1.0
    """Of MCN Eq. 12."""
    l1_weight: float = 1.0
    giou_weight: float = 1.0
    """Of SMCIM Eq. 7 and 8, after their difficulty: lambda and sigma stand for losses without weights."""
    spsil: str = "on"
    """SMCIM's self-paced sample informativeness learning, Eq. 9 to 11; ``off``: the mean L1 and GIoU losses."""
    spsil_lambda: float = 0.75
    sigma: float = 2.5
    """Where both widths of the difficulty start."""
    sigma_floor: float = 0.6
    """Neither width goes below it; below 0.53 training would raise losses near lambda / 2."""
    detach_difficulty: bool = False
    """Whether difficulty is a weight alone, through which no gradient reaches the model."""
    mask_target: str = "area"
    """A cell of the mask target: ``area`` averages its pixels, ``nearest`` takes the one in its middle."""
    precision: str = "auto"
    """``float32``, ``bfloat16``, or ``auto``: bfloat16 exactly where the processor multiplies it in hardware."""
    channels_last: bool = True
    """Whether kernels lie in memory as CPUs and GPUs work through them fastest."""
    compile: bool = False
    """Whether torch.compile works on the model's parts: minutes at the start, faster steps after that."""
    seed: int = 1
    save_every: int = 200
    keep: int = 1
    """States kept: state.pt, and the ones before it as state-STEP.pt."""
    workers: int = 1
    model_fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the preset that differ."""

    def __post_init__(self) -> None:
        check_recipe(self)

    def weights_of(self, part: str) -> str:
        """What the weights of the ``image`` or ``text`` encoder come from; empty: they are random.

        That is ``start``, ``image_weights`` or ``text_weights``, or an encoder of ``model_fields`` that is a folder or
        a name on the hub.
        """
        encoder = self.model_fields.get(f"{part}_encoder", "")
        return self.start or getattr(self, f"{part}_weights") or ("" if is_own_encoder(part, encoder) else encoder)


def is_own_encoder(part: str, name: object) -> bool:
    """Whether the name is one of ours, or empty; any other is a folder or a name on the hub."""
    return name in _OWN_ENCODERS[part]


def tiny() -> Recipe:
    """A model of the bundled one's sizes in one stage: photos, people and drawn scenes together."""
    return Recipe()


def tiny_detect() -> Recipe:
    """First stage of the bundled model: its detector learns what a thing is, of whatever kind; four minutes."""
    return Recipe(
        learn="image.head.thing,image.head.gfl_cls",
        instances_share=0.35,
        partial_share=0.15,
        scenes_share=0.5,
        choice_weight=0.0,
        detection_weight=1.0,
        steps=300,
        images=8,
        phrases=1,
        lr=3e-3,
        pretrained_lr=3e-4,
        warmup=20,
        clip=10.0,
        ema=0.98,
        save_every=100,
    )


def tiny_choose() -> Recipe:
    """Second stage of the bundled model: to choose among proposals that are computed once."""
    return Recipe(
        start="runs/tiny-detect/checkpoint",
        **_AS_IT_IS_SPOKEN,
        learn=_WORDS_AND_CHOICE,
        pool=12_000,
        layouts_share=0.3,
        steps=2200,
        images=28,
        pretrained_lr=6e-5,
        weight_decay=0.02,
        warmup=100,
        ema=0.997,
        box_weight=0.5,
        mask_weight=0.0,
        projection_weight=0.0,
        words_weight=0.5,
        detection_weight=0.0,
        save_every=200,
    )


def tiny_joint() -> Recipe:
    """Third stage of the bundled model: masks, then everything at a low rate."""
    return Recipe(
        start="runs/tiny-choose/checkpoint",
        **_AS_IT_IS_SPOKEN,
        freeze_image=False,
        frozen_steps=600,
        steps=2000,
        images=8,
        phrases=6,
        lr=3e-4,
        pretrained_lr=5e-5,
        warmup=50,
        box_weight=0.5,
        words_weight=0.5,
        detection_weight=0.3,
        save_every=100,
    )


_WORDS_AND_CHOICE = (
    "image.look,image.position,image.kind,image.merge_position,image.context,image.to_groups,fusion,box,exists,"
    "text.bert.encoder.layer.3,text.bert.encoder.layer.4,text.bert.encoder.layer.5"
)
"""All but the detector, the masks and the lower half of the text encoder."""
_AS_IT_IS_SPOKEN: dict[str, Any] = {
    "phrased": "human.jsonl",
    "one_per": "image",
    "augment": "transvg",
    "rehearsal": 0.625,
    "instances_share": 0.36,
    "partial_share": 0.12,
    "pseudo_share": 0.1,
    "scenes_share": 0.42,
    "min_area": 0.004,
    "absent": 0.3,
}
"""Expressions of people beside written phrases, of small things too."""


def scenes() -> Recipe:
    """Drawn scenes alone: no files needed; for trying things out."""
    return Recipe(instances_share=0.0, partial_share=0.0, scenes_share=1.0, steps=1500)


def mcn() -> Recipe:
    """MCN as printed: RefCOCO, 45 epochs, batch 35, Adam 1e-3, a tenth at 30, 35 and 40."""
    return Recipe(
        model="mcn-darknet53",
        phrased="refcoco:train",
        epochs=45,
        images=35,
        phrases=1,
        absent=0.0,
        image_sizes=(416,),
        optimiser="adam",
        lr=1e-3,
        pretrained_lr=1e-3,
        weight_decay=1e-3,  # the kernels' L2 penalty of 5e-4 in the official code has this gradient
        schedule="steps",
        milestones=(30, 35, 40),
        warmup=0,
        clip=0.0,
        ema=0.0,
        words_weight=0.0,
        mask_target="nearest",
        precision="float32",
    )


def mcn_scenes() -> Recipe:
    """MCN small enough for a CPU, on drawn scenes: half an hour on two cores."""
    return Recipe(
        model="mcn-tiny",
        model_fields={
            "image_size": 256,
            "dim": 96,
            "aspp_dim": 48,
            "anchors_px": ((58, 58), (98, 100), (166, 167)),  # deixis data anchors scenes:train
            "coordinates": True,
            "prior": 0.01,
        },
        freeze_image=False,  # features trained on photos see through colour and texture
        instances_share=0.0,
        partial_share=0.0,
        scenes_share=1.0,
        absent=0.0,
        steps=2300,
        warmup=100,
        images=8,
        phrases=8,
        image_sizes=(256,),
        lr=3e-3,
        pretrained_lr=4e-4,
        clip=50.0,
        words_weight=5.0,
    )


def smcim() -> Recipe:
    """SMCIM as printed, on one data set: RefCOCO, 120 epochs, batch 192, AdamW 1e-4, a tenth after 80."""
    return Recipe(
        model="smcim-r50",
        phrased="refcoco:train",
        epochs=120,
        milestones=(81,),  # "at 80 epochs", counted as its base TransVG does: after 80 whole ones
        one_per="expression",
        images=192,
        printed_images=192,
        printed_rates=(1e-4, 1e-5, 5e-5),
        phrases=1,
        augment="smcim",
        absent=0.0,
        image_sizes=(512,),
        lr=1e-4,
        pretrained_lr=1e-5,
        sigma_lr=5e-5,
        weight_decay=1e-4,
        schedule="steps",
        warmup=0,
        clip=0.0,
        ema=0.0,
        words_weight=0.0,
        precision="float32",
    )


def smcim_pretrain() -> Recipe:
    """SMCIM's large-scale pre-training as printed: the mix of all data sets, 40 epochs, a tenth after 30."""
    return replace(smcim(), phrased="mixed:train", epochs=40, milestones=(31,))


def smcim_finetune() -> Recipe:
    """SMCIM's fine-tuning as printed, from where smcim-pretrain ends: RefCOCO, 60 epochs, a tenth after 40."""
    return replace(smcim(), start="runs/smcim-pretrain/checkpoint", epochs=60, milestones=(41,))


def smcim_scenes() -> Recipe:
    """SMCIM small enough for a CPU, on drawn scenes: half an hour on two cores."""
    return Recipe(
        model="smcim-tiny",
        model_fields={"image_size": 192, "group_dim": 64},
        freeze_image=False,  # features trained on photos see through colour and texture
        freeze_text=4,
        instances_share=0.0,
        partial_share=0.0,
        scenes_share=1.0,
        absent=0.0,
        steps=1900,
        warmup=100,
        images=8,
        phrases=6,
        image_sizes=(192,),
        lr=1e-3,
        pretrained_lr=3e-4,
        sigma_lr=2e-3,  # so that sigma may go as far as on the paper's data: 1.2 (ReferIt) to 2.6 (RefCOCO)
        l1_weight=5.0,
        giou_weight=2.0,
        words_weight=5.0,
        place_weight=3.0,
        attention_weight=2.0,
    )


def finetune() -> Recipe:
    """A checkpoint taught own data: --data FILE [--model deixis-tiny] [--val FILE] [--keep]; minutes on two cores."""
    return Recipe(
        start="deixis-tiny",
        phrased="my.jsonl",
        one_per="image",
        augment="smcim",
        check_every=75,
        patience=3,
        frozen_steps=150,
        steps=300,
        images=8,
        phrases=4,
        lr=3e-4,
        pretrained_lr=3e-5,
        warmup=30,
        ema=0.98,
        words_weight=0.0,  # own data does not tell kind, colour and texture of all things
        save_every=75,
        image_sizes=(256,),  # deixis train finetune takes what the data's pictures and the model ask for
    )


def debug() -> Recipe:
    """Ten steps of a very small model on drawn scenes, to see that everything runs."""
    small = {"image_size": 64, "candidates": 12, "cells": 3, "context_dim": 32, "context_layers": 1, "context_heads": 2}
    narrow = {"group_dim": 16, "merge_heads": 2, "group_heads": 2, "text_dim": 32, "vocab_size": 400, "mask_dim": 8}
    still = {"dropout": 0.0}
    return Recipe(
        model="deixis-tiny-glove",
        model_fields={**small, **narrow, **still},
        instances_share=0.0,
        partial_share=0.0,
        scenes_share=1.0,
        steps=10,
        images=2,
        image_sizes=(64,),
        save_every=5,
        warmup=2,
        workers=0,
        precision="float32",
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "tiny-detect": tiny_detect,
    "tiny-choose": tiny_choose,
    "tiny-joint": tiny_joint,
    "scenes": scenes,
    "mcn": mcn,
    "mcn-scenes": mcn_scenes,
    "smcim": smcim,
    "smcim-pretrain": smcim_pretrain,
    "smcim-finetune": smcim_finetune,
    "smcim-scenes": smcim_scenes,
    "finetune": finetune,
    "debug": debug,
}


def list_recipes() -> dict[str, str]:
    """Names and one line about each."""
    return {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in RECIPES.items()}


def recipe(name: str, **overrides: Any) -> Recipe:  # noqa: ANN401  fields have several types
    """The named recipe with fields replaced; unknown names and fields are refused with the valid ones.

    Where its rates are printed for another batch, those that are not named follow `scaled_for_batch`.
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe out of {sorted(RECIPES)}, got {name!r}")
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"expected recipe fields out of {sorted(known)}, got {unknown!r}")
    named = RECIPES[name]()
    if overrides.get("start") and overrides.get("model_fields"):
        raise ValueError(
            "expected model_fields to be left out with start, whose checkpoint has its own sizes, got "
            f"{overrides['model_fields']!r}; leave out one of them"
        )
    if "steps" in overrides and not overrides.get("epochs"):  # so many steps, however many make an epoch
        overrides = {"epochs": 0, "milestones": (), **overrides}
    made = replace(named, **overrides)
    if not (made.printed_images and made.scale_lr):
        return made
    rates = scaled_for_batch(named, made.images)
    return replace(made, **{one: getattr(rates, one) for one in RATES if one not in overrides})


def recipe_of_json(stored: dict[str, Any]) -> Recipe:
    """The recipe whose fields JSON holds, tuples as lists.

    Raises:
        ValueError: a value cannot be.
        TypeError: a field is unknown.
    """
    values: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in renamed(stored).items()}
    return Recipe(**values)
