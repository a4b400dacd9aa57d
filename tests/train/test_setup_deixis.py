"""What a training of the deixis family starts from: which parameters learn, and NanoDet's file."""

import pytest
import torch
from safetensors.torch import save_file

from deixis.data.batches import BatchShape
from deixis.train import setup as starting
from deixis.train.recipes import recipe
from deixis.train.setup import start_model
from deixis.train.trainer import Trainer


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_learn_when_names_are_told_then_those_that_begin_so_and_no_others(small_recipe):
    everything = learning(start_model(small_recipe)[0])
    model, _ = start_model(small_recipe.replaced(learn="fusion., image.head.thing"))
    assert learning(model) == {one for one in everything if one.startswith(("fusion.", "image.head.thing"))}
    assert any(one.startswith("image.head.thing") for one in learning(model))


def test_learn_when_frozen_parts_are_named_then_they_stay_frozen(small_recipe):
    everything = learning(start_model(small_recipe)[0])
    assert learning(start_model(small_recipe.replaced(learn="text"))[0]) == {
        one for one in everything if one.startswith("text")
    }
    model, _ = start_model(small_recipe.replaced(learn="text"))
    assert any(name.startswith("text.") and not p.requires_grad for name, p in model.named_parameters())


@pytest.mark.parametrize("learn", ["", " , "])
def test_learn_when_empty_then_all_that_may(small_recipe, learn):
    assert learning(start_model(small_recipe.replaced(learn=learn))[0]) == learning(start_model(small_recipe)[0])


def test_learn_when_it_names_nothing_then_one_sentence(small_recipe):
    with pytest.raises(ValueError, match=r"expected learn to name parameters .*'fusion'.*, got 'fusoin'") as caught:
        start_model(small_recipe.replaced(learn="fusoin"))
    assert "\n" not in str(caught.value)


def test_step_when_some_learn_then_the_others_are_as_before(small_recipe):
    held = Trainer(small_recipe.replaced(learn="box,exists"))
    before = {name: p.clone() for name, p in held.model.named_parameters()}
    source = starting.start_data(small_recipe)
    held.train_step(source.batch(1, 0, BatchShape(images=2, phrases=2, size=64, absent=0.5)))
    moved = {name for name, p in held.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith(("box.", "exists.")) for name in moved)


def test_start_when_nanodets_file_is_named_then_the_image_side_begins_with_it(small_fields, monkeypatch, tmp_path):
    monkeypatch.setattr("deixis.train.setup.training_phrases", lambda made: ["left dog"])
    made = recipe("debug", model_fields={**small_fields, "vocab_size": 6})
    model, _ = start_model(made)
    parts = {"backbone": model.image.encoder, "fpn": model.image.neck, "head": model.image.head}
    state = {
        f"{prefix}.{name}": torch.full_like(value, 0.25)
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
        if not name.startswith("thing.")
    }
    save_file(state, tmp_path / "nanodet.safetensors")
    model, _ = start_model(made.replaced(image_weights=str(tmp_path / "nanodet.safetensors")))
    assert (model.image.neck.reduce_layers[0].conv.weight == 0.25).all()
    assert not any(p.requires_grad for p in model.image.encoder.early_parameters())
    assert model.image.head.gfl_cls[0].weight.requires_grad
