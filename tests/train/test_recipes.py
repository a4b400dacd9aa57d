import json
import math
from dataclasses import asdict, replace

import pytest

from deixis.config import preset
from deixis.train.recipes import RECIPES, Recipe, list_recipes, recipe


def test_list_when_asked_then_each_name_has_one_line():
    listed = list_recipes()
    assert set(listed) == {"tiny", "scenes", "mcn", "mcn-scenes", "debug"}
    assert all(line and "\n" not in line for line in listed.values())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_when_named_then_its_model_exists_and_it_goes_through_json(name):
    made = recipe(name)
    config = preset(made.model, **made.model_fields)
    stored = json.loads(json.dumps(asdict(made)))
    assert preset(stored["model"], **stored["model_fields"]) == config
    made = replace(made, model_fields=json.loads(json.dumps(made.model_fields)))  # pairs of anchors come back as lists
    for field in ("image_sizes", "milestones"):
        stored[field] = tuple(stored[field])
    assert Recipe(**stored) == made


def test_recipe_when_fields_are_given_then_replaced():
    made = recipe("scenes", steps=7, lr=0.5)
    assert (made.steps, made.lr, made.image_sizes) == (7, 0.5, (256,))


def test_recipe_when_name_is_unknown_then_names_are_listed():
    with pytest.raises(ValueError, match=r"\['debug', 'mcn', 'mcn-scenes', 'scenes', 'tiny'\], got 'big'"):
        recipe("big")


def test_recipe_when_field_is_unknown_then_refused_by_name():
    with pytest.raises(ValueError, match=r"got \['learning_rate'\]"):
        recipe("debug", learning_rate=1.0)


def test_recipes_when_made_twice_then_changing_one_leaves_the_other():
    recipe("debug").model_fields["context_dim"] = -1
    assert recipe("debug").model_fields["context_dim"] == 32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_sizes", ()), ("image_sizes", (0,)), ("image_sizes", (-32,)), ("image_sizes", (320, 100)),
        ("image_sizes", (64.0,)), ("image_sizes", 64), ("image_sizes", (True,)),
        ("steps", 0), ("images", 0), ("phrases", 0), ("save_every", 0), ("steps", 1.5), ("steps", "9"), ("steps", True),
        ("workers", -1), ("warmup", -1), ("seed", -1), ("seed", None),
        ("scenes_share", -0.1), ("scenes_share", math.nan), ("box_weight", -1.0), ("weight_decay", math.inf),
        ("lr", -1e-3), ("lr", math.nan), ("pretrained_lr", math.inf), ("clip", -1.0), ("lr", "fast"), ("lr", False),
        ("absent", 1.1), ("paste_share", 2), ("ema", 1.001), ("ema", -0.1),
        ("bfloat16", 1), ("model", 3), ("instances", None), ("model_fields", []), ("freeze_image", 0),
        ("optimiser", "sgd"), ("optimiser", ""), ("schedule", "linear"), ("schedule", None), ("mask_target", "mean"),
        ("epochs", -1), ("epochs", 1.0), ("milestones", [3]), ("milestones", (3.5,)), ("milestones", (-1,)),
        ("milestones", (True,)), ("milestones", ("3",)), ("phrased", None), ("root", 1),
        ("rec_weight", -1.0), ("res_weight", math.nan), ("cem_weight", math.inf), ("words_weight", "1"),
    ],
)  # fmt: skip
def test_recipe_when_a_value_cannot_be_then_one_sentence_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=rf"^expected {field} .*, got ") as caught:
        recipe("debug", **{field: value})
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipe_when_milestones_are_epochs_then_counted_from_1():
    assert recipe("debug", milestones=(0, 5)).milestones == (0, 5)
    assert recipe("debug", phrased="refcoco", epochs=9, milestones=(1, 5)).milestones == (1, 5)
    with pytest.raises(ValueError, match=r"expected milestones .* of at least 1, got \(0, 5\)"):
        recipe("debug", phrased="refcoco", epochs=9, milestones=(0, 5))


@pytest.mark.parametrize("name", ["debug", "mcn"])
def test_recipe_when_epochs_are_told_without_data_that_has_them_then_one_sentence(name):
    with pytest.raises(ValueError, match=r"^expected epochs to be 0 without phrased, got 9; name the data") as caught:
        recipe(name, epochs=9, phrased="")
    assert "\n" not in str(caught.value)
    assert recipe(name, epochs=0, phrased="", milestones=()).epochs == 0


def test_recipe_when_all_shares_are_0_then_refused():
    with pytest.raises(ValueError, match="expected one of instances_share, partial_share and scenes_share above 0"):
        recipe("debug", scenes_share=0)


def test_recipe_when_values_are_at_their_limits_then_taken():
    limits = {"absent": 1, "paste_share": 0, "ema": 1.0, "workers": 0, "warmup": 0, "steps": 1, "lr": 0}
    made = recipe("tiny", **limits, image_sizes=(320, 384), instances_share=0.27, partial_share=0.15, scenes_share=0.58)
    assert (made.absent, made.image_sizes, made.scenes_share) == (1, (320, 384), 0.58)


@pytest.mark.parametrize(
    ("field", "choices"),
    [("optimiser", ("adamw", "adam")), ("schedule", ("cosine", "steps")), ("mask_target", ("area", "nearest"))],
)
def test_recipe_when_a_choice_is_made_then_one_of_these_and_else_they_are_listed(field, choices):
    for choice in choices:
        assert getattr(recipe("debug", **{field: choice}), field) == choice
    with pytest.raises(ValueError, match=rf"expected {field} out of \('{choices[0]}', '{choices[1]}'\), got 'other'"):
        recipe("debug", **{field: "other"})


def test_mcn_when_made_then_as_the_paper_and_its_code_train():
    made = recipe("mcn")
    config = preset(made.model, **made.model_fields)
    assert (config.family, config.image_encoder, config.image_size) == ("mcn", "darknet53", 416)
    assert (made.phrased, made.epochs, made.images, made.phrases) == ("refcoco:train", 45, 35, 1)
    assert (made.optimiser, made.lr, made.schedule, made.milestones) == ("adam", 1e-3, "steps", (30, 35, 40))
    assert (made.rec_weight, made.res_weight, made.cem_weight) == (1.0, 0.1, 1.0)
    assert (made.mask_target, made.image_sizes, made.absent) == ("nearest", (416,), 0.0)
    # nothing that they do not have: warm-up, clipping, averaged weights
    assert (made.warmup, made.clip, made.ema) == (0, 0.0, 0.0)


def test_mcn_scenes_when_made_then_it_needs_no_files():
    made = recipe("mcn-scenes")
    assert preset(made.model, **made.model_fields).family == "mcn"
    assert not any((made.phrased, made.root, made.instances, made.image_weights, made.text_weights, made.start))
    assert (made.instances_share, made.partial_share) == (0, 0)
