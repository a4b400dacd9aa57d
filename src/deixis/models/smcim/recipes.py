"""The recipes of SMCIM: as printed, on one data set or pre-trained on all, and small enough for a CPU."""

from __future__ import annotations

from dataclasses import replace

from deixis.recipe import SCENES_ALONE, DataOptions, LossOptions, ModelOptions, OptimiserOptions, Recipe, RunOptions


def smcim() -> Recipe:
    """SMCIM as printed, on one data set: RefCOCO, 120 epochs, batch 192, AdamW 1e-4, a tenth after 80."""
    return Recipe(
        data=DataOptions(
            phrased="refcoco:train",
            one_per="expression",
            augment="smcim",
            images=192,
            phrases=1,
            absent=0.0,
            image_sizes=(512,),
        ),
        model=ModelOptions(preset="smcim-r50"),
        optimiser=OptimiserOptions(
            epochs=120,
            milestones=(81,),  # "at 80 epochs", counted as its base TransVG does: after 80 whole ones
            schedule="steps",
            printed_images=192,
            printed_rates=(1e-4, 1e-5, 5e-5),
            lr=1e-4,
            pretrained_lr=1e-5,
            sigma_lr=5e-5,
            weight_decay=1e-4,
            warmup=0,
            clip=0.0,
            ema=0.0,
        ),
        losses=LossOptions(words_weight=0.0),
        run=RunOptions(precision="float32"),
    )


def smcim_pretrain() -> Recipe:
    """SMCIM's large-scale pre-training as printed: the mix of all data sets, 40 epochs, a tenth after 30."""
    return smcim().replaced(phrased="mixed:train", epochs=40, milestones=(31,))


def smcim_finetune() -> Recipe:
    """SMCIM's fine-tuning as printed, from where smcim-pretrain ends: RefCOCO, 60 epochs, a tenth after 40."""
    return smcim().replaced(start="runs/smcim-pretrain/checkpoint", epochs=60, milestones=(41,))


def smcim_scenes() -> Recipe:
    """SMCIM small enough for a CPU, on drawn scenes: half an hour on two cores."""
    return Recipe(
        data=replace(SCENES_ALONE, absent=0.0, images=8, phrases=6, image_sizes=(192,)),
        model=ModelOptions(
            preset="smcim-tiny",
            fields={"image_size": 192, "group_dim": 64},
            freeze_image=False,  # features trained on photos see through colour and texture
            freeze_text=4,
        ),
        optimiser=OptimiserOptions(
            steps=1900,
            warmup=100,
            lr=1e-3,
            pretrained_lr=3e-4,
            sigma_lr=2e-3,  # so that sigma may go as far as on the paper's data: 1.2 (ReferIt) to 2.6 (RefCOCO)
        ),
        losses=LossOptions(l1_weight=5.0, giou_weight=2.0, words_weight=5.0, place_weight=3.0, attention_weight=2.0),
    )


RECIPES = {
    "smcim": smcim,
    "smcim-pretrain": smcim_pretrain,
    "smcim-finetune": smcim_finetune,
    "smcim-scenes": smcim_scenes,
}
