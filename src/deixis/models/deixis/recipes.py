"""The recipes of the ``deixis`` family: the stages of the bundled model, fine-tuning, and two for trying things out."""

from __future__ import annotations

from dataclasses import replace

from deixis.recipe import SCENES_ALONE, DataOptions, LossOptions, ModelOptions, OptimiserOptions, Recipe, RunOptions

_PEOPLE_AND_WRITTEN = DataOptions(
    phrased="human.jsonl",
    one_per="image",
    augment="transvg",
    rehearsal=0.625,
    instances_share=0.36,
    partial_share=0.12,
    pseudo_share=0.1,
    scenes_share=0.42,
    min_area=0.004,
    absent=0.3,
)
"""People's expressions beside written phrases, also of small instances."""
_WORDS_AND_CHOICE = (
    "image.look,image.position,image.kind,image.merge_position,image.context,image.to_groups,fusion,box,exists,"
    "text.bert.encoder.layer.3,text.bert.encoder.layer.4,text.bert.encoder.layer.5"
)
"""All but the detector, the masks and the lower half of the text encoder."""


def tiny() -> Recipe:
    """A model of the bundled one's sizes in one stage: photos, people and drawn scenes together."""
    return Recipe()


def tiny_detect() -> Recipe:
    """First stage of the bundled model: its detector learns to find instances of any kind; four minutes."""
    return Recipe(
        data=DataOptions(instances_share=0.35, partial_share=0.15, scenes_share=0.5, images=8, phrases=1),
        model=ModelOptions(learn="image.head.thing,image.head.gfl_cls"),
        optimiser=OptimiserOptions(steps=300, lr=3e-3, pretrained_lr=3e-4, warmup=20, clip=10.0, ema=0.98),
        losses=LossOptions(choice_weight=0.0, detection_weight=1.0),
        run=RunOptions(save_every=100),
    )


def tiny_choose() -> Recipe:
    """Second stage of the bundled model: to choose among proposals that are computed once."""
    return Recipe(
        data=replace(_PEOPLE_AND_WRITTEN, pool=12_000, layouts_share=0.3, images=28),
        model=ModelOptions(start="runs/tiny-detect/checkpoint", learn=_WORDS_AND_CHOICE),
        optimiser=OptimiserOptions(steps=2200, pretrained_lr=6e-5, weight_decay=0.02, warmup=100, ema=0.997),
        losses=LossOptions(
            box_weight=0.5, mask_weight=0.0, projection_weight=0.0, words_weight=0.5, detection_weight=0.0
        ),
    )


def tiny_joint() -> Recipe:
    """Third stage of the bundled model: masks, then everything at a low rate."""
    return Recipe(
        data=replace(_PEOPLE_AND_WRITTEN, images=8, phrases=6),
        model=ModelOptions(start="runs/tiny-choose/checkpoint", freeze_image=False, frozen_steps=600),
        optimiser=OptimiserOptions(steps=2000, lr=3e-4, pretrained_lr=5e-5, warmup=50),
        losses=LossOptions(box_weight=0.5, words_weight=0.5, detection_weight=0.3),
        run=RunOptions(save_every=100),
    )


def scenes() -> Recipe:
    """Drawn scenes alone: no files needed; for trying things out."""
    return Recipe(data=SCENES_ALONE, optimiser=OptimiserOptions(steps=1500))


def finetune() -> Recipe:
    """A checkpoint taught own data: --data FILE [--model deixis-tiny] [--val FILE] [--keep]; minutes on two cores."""
    return Recipe(
        data=DataOptions(
            phrased="my.jsonl",
            one_per="image",
            augment="smcim",
            images=8,
            image_sizes=(256,),  # deixis train finetune takes what the data's images and the model ask for
        ),
        model=ModelOptions(start="deixis-tiny", frozen_steps=150),
        optimiser=OptimiserOptions(steps=300, lr=3e-4, pretrained_lr=3e-5, warmup=30, ema=0.98),
        losses=LossOptions(words_weight=0.0),  # own data does not say kind, colour and texture of every instance
        run=RunOptions(save_every=75, check_every=75, patience=3),
    )


def debug() -> Recipe:
    """Ten steps of a very small model on drawn scenes, to see that everything runs."""
    small = {"image_size": 64, "candidates": 12, "cells": 3, "context_dim": 32, "context_layers": 1, "context_heads": 2}
    narrow = {"group_dim": 16, "merge_heads": 2, "group_heads": 2, "text_dim": 32, "vocab_size": 400, "mask_dim": 8}
    return Recipe(
        data=replace(SCENES_ALONE, images=2, image_sizes=(64,)),
        model=ModelOptions(preset="deixis-tiny-glove", fields={**small, **narrow, "dropout": 0.0}),
        optimiser=OptimiserOptions(steps=10, warmup=2),
        run=RunOptions(save_every=5, workers=0, precision="float32"),
    )


RECIPES = {
    "tiny": tiny,
    "tiny-detect": tiny_detect,
    "tiny-choose": tiny_choose,
    "tiny-joint": tiny_joint,
    "scenes": scenes,
    "finetune": finetune,
    "debug": debug,
}
