import json
import math

import pytest

from deixis.config import preset
from deixis.train.optimisers import learning_rate_factor
from deixis.train.recipes import RECIPES, Recipe, batch_note, list_recipes, recipe, recipe_of_json, scaled_for_batch


def test_list_when_asked_then_each_name_has_one_line():
    listed = list_recipes()
    assert set(listed) == {
        "tiny", "scenes", "mcn", "mcn-scenes", "smcim", "smcim-pretrain", "smcim-finetune", "smcim-scenes", "finetune",
        "debug", "tiny-detect", "tiny-choose", "tiny-joint",
    }  # fmt: skip
    assert all(line and "\n" not in line for line in listed.values())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_when_named_then_its_model_exists_and_it_goes_through_json(name):
    made = recipe(name)
    config = preset(made.model.preset, **made.model.fields)
    stored = json.loads(json.dumps(made.flat()))
    assert preset(stored["model"], **stored["model_fields"]) == config
    made = made.replaced(model_fields=json.loads(json.dumps(made.model.fields)))  # pairs of anchors come back as lists
    for field in ("image_sizes", "milestones", "printed_rates"):
        stored[field] = tuple(stored[field])
    assert Recipe().replaced(**stored) == made


def test_recipe_when_fields_are_given_then_replaced():
    made = recipe("scenes", steps=7, lr=0.5)
    assert (made.optimiser.steps, made.optimiser.lr, made.data.image_sizes) == (7, 0.5, (416,))


def test_recipe_when_name_is_unknown_then_names_are_listed():
    with pytest.raises(ValueError, match=r"\['debug', 'finetune', 'mcn', 'mcn-scenes', .*\], got 'big'"):
        recipe("big")


def test_recipe_when_field_is_unknown_then_refused_by_name():
    with pytest.raises(ValueError, match=r"got \['learning_rate'\]"):
        recipe("debug", learning_rate=1.0)


def test_recipes_when_made_twice_then_changing_one_leaves_the_other():
    recipe("debug").model.fields["context_dim"] = -1
    assert recipe("debug").model.fields["context_dim"] == 32


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
        ("precision", True), ("precision", "float16"), ("channels_last", 1),
        ("model", 3), ("instances", None), ("model_fields", []), ("freeze_image", 0),
        ("optimiser", "sgd"), ("optimiser", ""), ("schedule", "linear"), ("schedule", None), ("mask_target", "mean"),
        ("epochs", -1), ("epochs", 1.0), ("milestones", [3]), ("milestones", (3.5,)), ("milestones", (-1,)),
        ("milestones", (True,)), ("milestones", ("3",)), ("phrased", None), ("root", 1),
        ("sigma", 0.5), ("sigma_floor", 0.05), ("sigma", math.nan), ("sigma_lr", -1.0), ("spsil_lambda", -0.75),
        ("sigma_floor", math.inf), ("spsil", True), ("spsil", "yes"), ("detach_difficulty", "on"), ("one_per", "word"),
        ("augment", None), ("scale_lr", 1), ("printed_images", -1), ("l1_weight", -1.0), ("giou_weight", math.inf),
        ("rehearsal", -0.1), ("check_every", -1), ("patience", 0), ("frozen_steps", -1), ("flavour", "photos"),
        ("printed_rates", (1e-4,)), ("printed_rates", (1e-4, "1", 2.0)), ("printed_rates", [1e-4, 1.0, 2.0]),
        ("rec_weight", -1.0), ("res_weight", math.nan), ("cem_weight", math.inf), ("words_weight", "1"),
    ],
)  # fmt: skip
def test_recipe_when_a_value_cannot_be_then_one_sentence_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=rf"^expected {field} .*, got ") as caught:
        recipe("debug", **{field: value})
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipe_when_milestones_are_epochs_then_counted_from_1():
    assert recipe("debug", milestones=(0, 5)).optimiser.milestones == (0, 5)
    assert recipe("debug", phrased="refcoco", epochs=9, milestones=(1, 5)).optimiser.milestones == (1, 5)
    with pytest.raises(ValueError, match=r"expected milestones .* of at least 1, got \(0, 5\)"):
        recipe("debug", phrased="refcoco", epochs=9, milestones=(0, 5))


@pytest.mark.parametrize("name", ["debug", "mcn"])
def test_recipe_when_epochs_are_told_without_data_that_has_them_then_one_sentence(name):
    with pytest.raises(ValueError, match=r"^expected epochs to be 0 without phrased, got 9; set phrased, or") as caught:
        recipe(name, epochs=9, phrased="")
    assert "\n" not in str(caught.value)
    assert recipe(name, epochs=0, phrased="", milestones=()).optimiser.epochs == 0


def test_precision_when_of_a_paper_then_float32_and_else_what_the_processor_has():
    exact = ("mcn", "smcim", "smcim-pretrain", "smcim-finetune", "debug")
    assert {recipe(name).run.precision for name in exact} == {"float32"}
    others = ("tiny", "scenes", "mcn-scenes", "smcim-scenes", "finetune")
    assert {recipe(name).run.precision for name in others} == {"auto"}


def test_precision_when_chosen_then_one_of_three_and_else_they_are_listed():
    assert [recipe("mcn", precision=one).run.precision for one in ("auto", "bfloat16")] == ["auto", "bfloat16"]
    with pytest.raises(ValueError, match=r"expected precision out of \('auto', 'float32', 'bfloat16'\), got 'half'"):
        recipe("debug", precision="half")


@pytest.mark.parametrize(("said", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_recipe_of_json_when_of_an_older_run_then_bfloat16_is_its_precision(said, precision):
    stored = json.loads(json.dumps({**recipe("scenes").flat(), "bfloat16": said}))
    with pytest.raises(ValueError, match=r"got \['bfloat16'\]; bfloat16 is precision now"):  # it never said both
        recipe_of_json(stored)
    del stored["precision"]
    assert recipe_of_json(stored) == recipe("scenes", precision=precision)


def test_recipe_when_all_shares_are_0_then_refused():
    with pytest.raises(ValueError, match="expected one of instances_share, partial_share and scenes_share above 0"):
        recipe("debug", scenes_share=0)


def test_recipe_when_values_are_at_their_limits_then_taken():
    limits = {"absent": 1, "paste_share": 0, "ema": 1.0, "workers": 0, "warmup": 0, "steps": 1, "lr": 0}
    made = recipe("tiny", **limits, image_sizes=(320, 384), instances_share=0.27, partial_share=0.15, scenes_share=0.58)
    assert (made.data.absent, made.data.image_sizes, made.data.scenes_share) == (1, (320, 384), 0.58)


@pytest.mark.parametrize(
    ("field", "choices"),
    [("optimiser", ("adamw", "adam")), ("schedule", ("cosine", "steps")), ("mask_target", ("area", "nearest"))],
)
def test_recipe_when_a_choice_is_made_then_one_of_these_and_else_they_are_listed(field, choices):
    for choice in choices:
        assert recipe("debug", **{field: choice}).get(field) == choice
    with pytest.raises(ValueError, match=rf"expected {field} out of \('{choices[0]}', '{choices[1]}'\), got 'other'"):
        recipe("debug", **{field: "other"})


def test_mcn_when_made_then_as_the_paper_and_its_code_train():
    made = recipe("mcn")
    config = preset(made.model.preset, **made.model.fields)
    assert (config.family, config.image_encoder, config.image_size) == ("mcn", "darknet53", 416)
    assert (made.data.phrased, made.optimiser.epochs, made.data.images, made.data.phrases) == (
        "refcoco:train",
        45,
        35,
        1,
    )
    assert (made.optimiser.kind, made.optimiser.lr, made.optimiser.schedule, made.optimiser.milestones) == (
        "adam",
        1e-3,
        "steps",
        (30, 35, 40),
    )
    assert (made.losses.rec_weight, made.losses.res_weight, made.losses.cem_weight) == (1.0, 0.1, 1.0)
    assert (made.data.mask_target, made.data.image_sizes, made.data.absent) == ("nearest", (416,), 0.0)
    # nothing that they do not have: warm-up, clipping, averaged weights
    assert (made.optimiser.warmup, made.optimiser.clip, made.optimiser.ema) == (0, 0.0, 0.0)


def test_mcn_scenes_when_made_then_it_needs_no_files():
    made = recipe("mcn-scenes")
    assert preset(made.model.preset, **made.model.fields).family == "mcn"
    assert not any(
        (
            made.data.phrased,
            made.data.root,
            made.data.instances,
            made.model.image_weights,
            made.model.text_weights,
            made.model.start,
        )
    )
    assert (made.data.instances_share, made.data.partial_share) == (0, 0)


# smcim


@pytest.mark.parametrize(
    ("name", "data", "start", "epochs", "milestone"),
    [
        ("smcim", "refcoco:train", "", 120, 80),
        ("smcim-pretrain", "mixed:train", "", 40, 30),
        ("smcim-finetune", "refcoco:train", "runs/smcim-pretrain/checkpoint", 60, 40),
    ],
)
def test_smcim_when_made_then_as_the_paper_trains(name, data, start, epochs, milestone):
    made = recipe(name)
    config = preset(made.model.preset, **made.model.fields)
    assert (config.family, config.image_encoder, config.image_size, config.max_tokens) == ("smcim", "resnet50", 512, 40)
    assert (made.data.phrased, made.model.start, made.optimiser.epochs, made.optimiser.milestones) == (
        data,
        start,
        epochs,
        (milestone + 1,),
    )
    assert (made.data.images, made.data.phrases, made.data.one_per, made.data.augment) == (
        192,
        1,
        "expression",
        "smcim",
    )
    assert (made.optimiser.kind, made.optimiser.weight_decay, made.optimiser.schedule) == ("adamw", 1e-4, "steps")
    assert (made.optimiser.lr, made.optimiser.pretrained_lr, made.optimiser.sigma_lr) == (1e-4, 1e-5, 5e-5)
    assert (
        made.losses.spsil,
        made.losses.spsil_lambda,
        made.losses.sigma,
        made.losses.l1_weight,
        made.losses.giou_weight,
    ) == ("on", 0.75, 2.5, 1, 1)
    assert (made.data.image_sizes, made.data.absent, made.losses.words_weight) == ((512,), 0, 0)
    # nothing that the paper does not have: warm-up, clipping, averaged weights; the floor is ours
    assert (made.optimiser.warmup, made.optimiser.clip, made.optimiser.ema) == (0, 0.0, 0.0)
    assert (made.losses.sigma_floor, made.losses.detach_difficulty) == (0.6, False)


def test_smcim_scenes_when_made_then_it_needs_no_data_and_its_canvas_is_the_models():
    made = recipe("smcim-scenes")
    config = preset(made.model.preset, **made.model.fields)
    assert (config.family, made.data.image_sizes) == ("smcim", (config.image_size,))
    assert not any(
        (made.data.phrased, made.data.root, made.data.instances, made.model.start, made.optimiser.printed_images)
    )
    assert (made.data.instances_share, made.data.partial_share, made.data.scenes_share) == (0, 0, 1)


def farthest_drift(made, num_expressions):
    """How far sigma can go if every step takes it the same way: the sum of its rates over the run."""
    steps = -(-num_expressions // made.data.images)
    milestones = tuple((epoch - 1) * steps for epoch in made.optimiser.milestones)
    told = made.replaced(epochs=0, steps=made.optimiser.epochs * steps, milestones=milestones)
    return (
        made.optimiser.sigma_lr
        * steps
        * sum(learning_rate_factor(told.optimiser, epoch * steps) for epoch in range(made.optimiser.epochs))
    )


@pytest.mark.parametrize(("num_expressions", "drift"), [(120_624, 2.64), (85_474, 1.87), (54_127, 1.18)])
def test_drift_of_sigma_when_the_batch_is_the_papers_then_as_far_as_worked_out(num_expressions, drift):
    assert farthest_drift(recipe("smcim"), num_expressions) == pytest.approx(drift, abs=0.01)


@pytest.mark.parametrize("images", [64, 48, 8])
def test_drift_of_sigma_when_the_batch_is_smaller_then_as_far_as_printed(images):
    printed = farthest_drift(recipe("smcim"), 54_127)
    assert farthest_drift(recipe("smcim", images=images), 54_127) == pytest.approx(printed, rel=5e-3)
    free = farthest_drift(recipe("smcim", images=images, scale_lr=False), 54_127)
    assert free == pytest.approx(printed * 192 / images, rel=5e-3)


def test_rates_when_the_batch_is_a_quarter_then_half_of_the_weights_and_a_quarter_of_sigma():
    made = recipe("smcim", images=48)
    assert made.optimiser.lr == pytest.approx(5e-5)
    assert made.optimiser.pretrained_lr == pytest.approx(5e-6)
    assert made.optimiser.sigma_lr == pytest.approx(1.25e-5)
    assert made.replaced(images=192, lr=1e-4, pretrained_lr=1e-5, sigma_lr=5e-5) == recipe("smcim")


def test_rates_when_one_is_named_then_that_one_stays_as_named():
    made = recipe("smcim", images=48, lr=3e-4)
    assert (made.optimiser.lr, made.optimiser.pretrained_lr) == (3e-4, pytest.approx(5e-6))
    made = recipe("smcim", images=48, pretrained_lr=1e-5, sigma_lr=0.0)
    assert (made.optimiser.lr, made.optimiser.pretrained_lr, made.optimiser.sigma_lr) == (pytest.approx(5e-5), 1e-5, 0)


@pytest.mark.parametrize(("name", "fields"), [("smcim", {"scale_lr": False}), ("mcn", {}), ("smcim-scenes", {})])
def test_rates_when_the_rule_is_off_or_no_batch_is_printed_then_as_they_are(name, fields):
    made, named = recipe(name, images=4, **fields), recipe(name)
    assert (made.optimiser.lr, made.optimiser.pretrained_lr, made.optimiser.sigma_lr) == (
        named.optimiser.lr,
        named.optimiser.pretrained_lr,
        named.optimiser.sigma_lr,
    )


def test_scaled_for_batch_when_there_and_back_then_the_same_and_nothing_else_moves():
    made = recipe("smcim")
    there = scaled_for_batch(made, 12)
    assert scaled_for_batch(made, 192) == made
    back = scaled_for_batch(there, 192).flat()
    assert {name for name, value in back.items() if value != pytest.approx(made.flat()[name])} == set()
    moved = {name for name, value in there.flat().items() if value != made.flat()[name]}
    assert moved == {"images", "lr", "pretrained_lr", "sigma_lr"}


def test_note_when_the_batch_is_not_the_printed_one_then_one_line_with_the_rates():
    note = batch_note(recipe("smcim", images=48))
    assert "batches of 48, printed are 192" in note
    assert "lr 5e-05 (moved by the root of the batch from 0.0001)" in note
    assert "pretrained_lr 5e-06 (moved by the root of the batch from 1e-05)" in note
    assert "sigma_lr 1.3e-05 (moved by the batch from 5e-05)" in note
    assert "\n" not in note
    assert "farther" not in note


@pytest.mark.parametrize(
    "made",
    [recipe("smcim", images=48, scale_lr=False), recipe("smcim").replaced(images=48)],
    ids=["not scaled", "replaced behind the rule's back"],
)
def test_note_when_rates_were_not_moved_then_it_says_so_whatever_scale_lr_says(made):
    note = batch_note(made)
    assert note.count("(as printed)") == 3
    assert "moved" not in note
    assert note.endswith("sigma may drift farther than in the paper")


def test_note_when_a_rate_is_named_then_it_is_told_as_yours():
    note = batch_note(recipe("smcim", images=48, lr=3e-4))
    assert "lr 0.0003 (your own, printed is 0.0001), pretrained_lr 5e-06 (moved" in note


def test_note_when_no_rates_are_printed_then_it_tells_them_and_claims_nothing():
    note = batch_note(recipe("debug").replaced(printed_images=192))
    assert note == "batches of 2, printed are 192; rates are lr 0.0006, pretrained_lr 0.0001, sigma_lr 5e-05"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_note_when_the_batch_is_the_recipes_own_then_none(name):
    assert batch_note(recipe(name)) == ""


def test_sigma_when_below_its_floor_then_refused_with_both():
    with pytest.raises(ValueError, match=r"expected sigma to be at least 3.0, its floor, got 2.5; correct"):
        recipe("debug", sigma_floor=3.0)
    assert recipe("debug", sigma=0.1, sigma_floor=0.1).losses.sigma == 0.1


def test_recipe_when_a_checkpoint_brings_its_sizes_then_others_are_refused():
    with pytest.raises(ValueError, match="expected model_fields to be left out with start") as told:
        recipe("smcim-scenes", start="runs/checkpoint", model_fields={"interaction": "encoder"})
    assert "\n" not in str(told.value)
    assert recipe("smcim-scenes", start="runs/checkpoint").model.start == "runs/checkpoint"


def test_weights_of_when_named_in_several_ways_then_where_they_come_from():
    named = {"image_encoder": "parts/swin", "text_encoder": "someone/roberta"}
    made = recipe("smcim", model_fields=named)
    assert [made.model.weights_of("image"), made.model.weights_of("text")] == ["parts/swin", "someone/roberta"]
    made = made.replaced(image_weights="a.pth", text_weights="minilm")
    assert [made.model.weights_of("image"), made.model.weights_of("text")] == ["a.pth", "minilm"]
    own = {"image_encoder": "resnet101", "text_encoder": "bert"}
    assert [recipe("smcim", model_fields=own).model.weights_of(part) for part in ("image", "text")] == ["", ""]
    assert recipe("smcim", start="deixis-tiny").model.weights_of("image") == "deixis-tiny"


# parts and flat names


def test_recipe_of_json_when_of_the_flat_fields_of_an_earlier_version_then_in_their_parts():
    made = recipe_of_json({
        "model": "mcn-tiny", "model_fields": {"dim": 96}, "phrased": "a.jsonl", "image_sizes": [256], "lr": 0.5,
        "optimiser": "adam", "heat_weight": 0.25, "consistency_weight": 0.1, "bfloat16": True, "seed": 7,
    })  # fmt: skip
    assert (made.model.preset, made.model.fields, made.data.phrased) == ("mcn-tiny", {"dim": 96}, "a.jsonl")
    assert (made.data.image_sizes, made.optimiser.lr, made.optimiser.kind) == ((256,), 0.5, "adam")
    assert (made.losses.choice_weight, made.run.precision, made.run.seed) == (0.25, "bfloat16", 7)
    assert recipe_of_json(json.loads(json.dumps(made.flat()))) == made


def test_recipe_when_a_name_is_retired_then_the_sentence_says_what_replaces_it():
    with pytest.raises(ValueError, match=r"got \['heat_weight'\]; heat_weight is choice_weight now"):
        recipe("debug", heat_weight=1.0)
    with pytest.raises(ValueError, match="consistency_weight is no longer read"):
        recipe("debug", consistency_weight=1.0)
