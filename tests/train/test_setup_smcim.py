"""How a training of the smcim family starts; for the other families see test_starting.py."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetModel

from deixis.models.encoders.resnet import TinyEncoder
from deixis.train.optimisers import parameter_groups
from deixis.train.recipes import recipe
from deixis.train.setup import start_model


@pytest.fixture
def resnet_folder(tmp_path):
    """A small ResNet as the transformers library saves it."""
    torch.manual_seed(3)
    sizes = ResNetConfig(embedding_size=4, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    ResNetModel(sizes).save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


@pytest.fixture
def smcim_recipe(resnet_folder, bert_folder):
    fields = {
        "image_encoder": str(resnet_folder), "image_size": 64, "text_dim": 12, "text_heads": 2, "text_layers": 3,
        "text_features": (1, 2, 3), "group_dim": 8, "group_heads": 2, "merge_heads": 2, "max_tokens": 7,
    }  # fmt: skip
    return recipe("debug", model="smcim-tiny", model_fields=fields, text_weights=str(bert_folder))


def smcim_tensors(folder, names):
    state = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in state.items() if name in names}


def test_start_smcim_when_both_encoders_are_given_then_their_weights_and_early_filters_and_norms_frozen(
    smcim_recipe, resnet_folder, bert_folder
):
    model, tokenizer = start_model(smcim_recipe.replaced(image_weights=str(resnet_folder)))
    assert tokenizer.vocab_size == model.config.vocab_size == 13
    assert tokenizer.encode(["the red dog " * 9])[0].shape == (1, 7)
    for folder, body in ((resnet_folder, model.encoder.body), (bert_folder, model.text.body)):
        own = body.state_dict()
        theirs = smcim_tensors(folder, own)
        assert len(theirs) == len(own)
        assert all(torch.equal(own[name], tensor) for name, tensor in theirs.items())
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    early = ("encoder.body.embedder.", "encoder.body.encoder.stages.0.")
    assert frozen == {
        name
        for name, _ in model.encoder.named_parameters(prefix="encoder")
        if name.startswith(early) or ".normalization." in name
    }
    norms = [layer for layer in model.train().encoder.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(layer.training for layer in norms)
    rates = {id(p): group["lr"] for group in parameter_groups(model, smcim_recipe) for p in group["params"]}
    assert {rates[id(p)] for p in model.text.parameters()} == {smcim_recipe.optimiser.pretrained_lr}


@pytest.mark.parametrize(("encoder", "freeze"), [({"image_encoder": "darknet-tiny"}, True), ({}, False)])
def test_start_smcim_when_from_scratch_or_nothing_shall_stay_then_all_learns(smcim_recipe, encoder, freeze):
    fields = {**smcim_recipe.model.fields, **encoder}
    made = smcim_recipe.replaced(model_fields=fields, freeze_image=freeze)
    model, _ = start_model(made)
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.train().encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("also", [False, True])
def test_start_smcim_when_a_backbone_is_named_then_weights_are_its_own_and_learn_at_its_rate(
    smcim_recipe, resnet_folder, also
):
    made = smcim_recipe.replaced(image_weights=str(resnet_folder) if also else "")
    assert made.model.weights_of("image") == str(resnet_folder)
    model, _ = start_model(made)
    own = model.encoder.body.state_dict()
    theirs = smcim_tensors(resnet_folder, own)
    assert len(theirs) == len(own)
    assert all(torch.equal(own[name], tensor) for name, tensor in theirs.items())
    frozen = {id(p) for p in model.encoder.frozen_parameters()}
    assert {id(p) for p in model.encoder.parameters() if not p.requires_grad} == frozen
    rates = {id(p): group["lr"] for group in parameter_groups(model, made) for p in group["params"]}
    assert {rates[id(p)] for p in model.encoder.parameters() if p.requires_grad} == {made.optimiser.pretrained_lr}


def test_start_smcim_when_a_backbone_has_no_weights_then_one_sentence(smcim_recipe, resnet_folder):
    (resnet_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a folder with model\.safetensors or") as caught:
        start_model(smcim_recipe)
    assert "\n" not in str(caught.value)


def test_start_smcim_when_the_text_encoder_is_named_then_words_and_weights_are_its_own(smcim_recipe, bert_folder):
    fields = {**smcim_recipe.model.fields, "text_encoder": str(bert_folder)}
    made = smcim_recipe.replaced(model_fields=fields, text_weights="")
    model, tokenizer = start_model(made)
    assert tokenizer.vocab_size == model.config.vocab_size == 13
    own = model.text.body.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in smcim_tensors(bert_folder, own).items())


def test_start_smcim_when_there_is_no_text_encoder_then_one_sentence(smcim_recipe, resnet_folder):
    with pytest.raises(ValueError, match="expected text_weights to name a BERT folder"):
        start_model(smcim_recipe.replaced(text_weights=""))
    with pytest.raises(
        FileNotFoundError, match=r"expected a folder with tokenizer\.json, or its name on the hub"
    ) as caught:
        start_model(smcim_recipe.replaced(text_weights=str(resnet_folder)))
    assert "\n" not in str(caught.value)


def test_start_smcim_when_darknet_tiny_then_a_darknet_folder_fills_it(smcim_recipe, tmp_path, monkeypatch):
    loaded = []
    for name in ("net.cfg", "net.weights"):
        (tmp_path / name).touch()
    monkeypatch.setattr("deixis.models.weights.darknet.read_darknet", lambda *files: [one.name for one in files])
    monkeypatch.setattr(TinyEncoder, "load_darknet", lambda self, convs: loaded.append(convs))
    fields = {**smcim_recipe.model.fields, "image_encoder": "darknet-tiny"}
    model, _ = start_model(smcim_recipe.replaced(model_fields=fields, image_weights=str(tmp_path)))
    assert loaded == [["net.cfg", "net.weights"]]
    frozen = {id(p) for p in model.encoder.frozen_parameters()}
    assert {id(p) for p in model.parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize(
    ("stages", "kept"), [(0, ()), (1, ("embeddings.",)), (3, ("embeddings.", "encoder.layer.0.", "encoder.layer.1."))]
)
def test_start_smcim_when_text_is_frozen_then_so_much_of_it_from_below_keeps_its_weights(smcim_recipe, stages, kept):
    model, _ = start_model(smcim_recipe.replaced(freeze_text=stages, freeze_image=False))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        f"text.body.{name}" for name, _ in model.text.body.named_parameters() if kept and name.startswith(kept)
    }


def test_start_smcim_when_more_text_shall_freeze_than_there_is_then_one_sentence(smcim_recipe):
    with pytest.raises(ValueError, match=r"expected freeze_text in 0\.\.4, .* got 5; lower it"):
        start_model(smcim_recipe.replaced(freeze_text=5))


def test_start_when_text_of_another_family_shall_freeze_then_one_sentence(
    small_image_encoder, small_fields, bert_folder
):
    made = recipe("debug", model="deixis-tiny", model_fields=small_fields, text_weights=str(bert_folder), freeze_text=1)
    with pytest.raises(ValueError, match="expected freeze_text=0 for the family 'deixis', got 1"):
        start_model(made)
