"""The recipes of MCN: as printed, and small enough for a CPU."""

from __future__ import annotations

from dataclasses import replace

from deixis.recipe import SCENES_ALONE, DataOptions, LossOptions, ModelOptions, OptimiserOptions, Recipe, RunOptions


def mcn() -> Recipe:
    """MCN as printed: RefCOCO, 45 epochs, batch 35, Adam 1e-3, a tenth at 30, 35 and 40."""
    return Recipe(
        data=DataOptions(
            phrased="refcoco:train", images=35, phrases=1, absent=0.0, image_sizes=(416,), mask_target="nearest"
        ),
        model=ModelOptions(preset="mcn-darknet53"),
        optimiser=OptimiserOptions(
            kind="adam",
            epochs=45,
            lr=1e-3,
            pretrained_lr=1e-3,
            weight_decay=1e-3,  # the kernels' L2 penalty of 5e-4 in the official code has this gradient
            schedule="steps",
            milestones=(30, 35, 40),
            warmup=0,
            clip=0.0,
            ema=0.0,
        ),
        losses=LossOptions(words_weight=0.0),
        run=RunOptions(precision="float32"),
    )


def mcn_scenes() -> Recipe:
    """MCN small enough for a CPU, on drawn scenes: half an hour on two cores."""
    return Recipe(
        data=replace(SCENES_ALONE, absent=0.0, images=8, phrases=8, image_sizes=(256,)),
        model=ModelOptions(
            preset="mcn-tiny",
            fields={
                "image_size": 256,
                "dim": 96,
                "aspp_dim": 48,
                "anchors_px": ((58, 58), (98, 100), (166, 167)),  # deixis data anchors scenes:train
                "coordinates": True,
                "prior": 0.01,
            },
            freeze_image=False,  # features trained on photos see through colour and texture
        ),
        optimiser=OptimiserOptions(steps=2300, warmup=100, lr=3e-3, pretrained_lr=4e-4, clip=50.0),
        losses=LossOptions(words_weight=5.0),
    )


RECIPES = {"mcn": mcn, "mcn-scenes": mcn_scenes}
