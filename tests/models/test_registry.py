from importlib import import_module

import pytest

from deixis.config import FAMILIES, PRESETS, preset
from deixis.models.base import GroundingModel
from deixis.models.deixis.model import DeixisModel
from deixis.models.mcn.model import McnModel
from deixis.models.registry import build_model
from deixis.models.smcim.model import SmcimModel

MODELS = {"deixis": DeixisModel, "mcn": McnModel, "smcim": SmcimModel}
SMALL_SMCIM = {
    "image_encoder": "darknet-tiny", "image_size": 64, "text_dim": 12, "text_heads": 2, "group_dim": 8,
    "group_heads": 2, "merge_heads": 3,
}  # fmt: skip


def test_families_when_listed_here_then_whole_and_each_folder_has_the_same_files():
    assert set(MODELS) == set(FAMILIES)
    for family in FAMILIES:
        offered = (("config", "CONFIG"), ("model", "MODEL"), ("criterion", "CRITERION"), ("recipes", "RECIPES"))
        for file, name in offered:
            assert hasattr(import_module(f"deixis.models.{family}.{file}"), name), (family, file)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_build_when_a_preset_is_named_then_the_model_of_its_family(
    small_image_encoder, small_mcn_encoder, small_fields, small_mcn_fields, name
):
    family = PRESETS[name].family
    small = {"deixis": small_fields, "mcn": small_mcn_fields, "smcim": SMALL_SMCIM}[family]
    fields = {**small, "vocab_size": 9}
    model = build_model(preset(name, **fields))
    assert type(model) is MODELS[family]
    assert isinstance(model, GroundingModel)
    assert model.config == preset(name, **fields)
    assert model.preprocessing()["fill"] == model.fill
    assert model.preprocessing()["largest_size"] == 64
    assert set(model.pretrained_parameters()) == {"image", "text"}
    assert len(model.score_weights) > 1
