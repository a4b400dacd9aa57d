import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.data.loading import PhotoSource, SceneSource
from deixis.hub import load_checkpoint
from deixis.models.foreign import DarknetConv
from deixis.models.image_encoders import YoloTinyEncoder
from deixis.structures import Sample
from deixis.train import starting
from deixis.train.recipes import Recipe, recipe
from deixis.train.starting import SCENE_FLAVOURS, start_data, start_model
from deixis.train.trainer import parameter_groups


@pytest.fixture
def few_scenes(monkeypatch):
    """Words come from drawn scenes; two hundred of each flavour would take seconds."""

    def draw(flavour, split, index, size, phrases):
        assert split == "train"
        phrase = f"the red ball {index}" if index % 2 else "left ball"
        return None, [
            Sample(id="1", image=np.zeros((4, 4, 3), np.uint8), image_id="1", phrase=phrase, box_xyxy_px=None)
        ]

    monkeypatch.setattr(starting, "draw_scene", draw)


@pytest.fixture
def minilm_recipe(bert_folder, small_fields):
    return recipe("debug", model="deixis-tiny", model_fields=small_fields, text_weights=str(bert_folder))


def test_start_when_words_come_from_scenes_then_the_most_frequent_and_model_fits(
    small_image_encoder, few_scenes, small_fields
):
    fields = {**small_fields, "vocab_size": 6}
    model, tokenizer = start_model(recipe("debug", model_fields=fields))
    assert tokenizer.words == ["ball", "left", "the", "red"]
    assert tokenizer.vocab_size == model.config.vocab_size == 6
    assert model.text.vectors.weight[2:].abs().sum() > 0
    assert not model.text.vectors.weight.requires_grad


def test_start_when_seed_is_the_same_then_equal_weights_and_else_not(small_image_encoder, few_scenes, small_fields):
    made = recipe("debug", model_fields={**small_fields, "vocab_size": 6})
    one, two, other = (start_model(dataclasses.replace(made, seed=s))[0].state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["exists.0.weight"], other["exists.0.weight"])


def test_start_when_bert_folder_is_given_then_its_weights_and_frozen_tables(small_image_encoder, minilm_recipe):
    model, tokenizer = start_model(minilm_recipe)
    assert tokenizer.vocab_size == model.config.vocab_size == 13
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.startswith("text.bert.embeddings.") for name in frozen)
    assert sum(p.requires_grad for p in model.text.parameters()) > 0


def test_start_when_minilm_has_no_folder_then_one_sentence(small_image_encoder):
    with pytest.raises(ValueError, match="expected text_weights to name a BERT folder"):
        start_model(Recipe())


def test_start_when_bert_folder_is_missing_then_one_sentence(small_image_encoder, minilm_recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        start_model(dataclasses.replace(minilm_recipe, text_weights=str(tmp_path)))


def test_start_when_darknet_weights_are_given_then_loaded_and_early_filters_frozen(minilm_recipe, monkeypatch):
    asked = []

    def read(cfg, weights):
        asked.extend([cfg.name, weights.name])
        shapes = [tuple(conv.weight.shape) for conv in YoloTinyEncoder().convolutions()]
        return [
            DarknetConv(
                weight=np.full(s, 0.5, np.float32),
                bias=np.zeros(s[0], np.float32),
                bn_scale=None,
                bn_mean=None,
                bn_var=None,
            )
            for s in shapes
        ]

    monkeypatch.setattr(starting, "read_darknet", read)
    model, _ = start_model(dataclasses.replace(minilm_recipe, image_weights="somewhere"))
    assert asked == ["yolov3-tiny.cfg", "yolov3-tiny.weights"]
    encoder = model.image.encoder
    assert (encoder.body[0].conv.weight == 0.5).all()
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {f"body.{i}.conv.{part}" for i in range(3) for part in ("weight", "bias")}


# data


@pytest.fixture
def instances(tmp_path):
    """A COCO file of photos 1 to 15: 7 and 14 are held out, 1 and 15 for validation."""
    images, annotations = [], []
    for number in range(1, 16):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 8, "height": 8})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0,
             "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]], "area": 25}
        )  # fmt: skip
    path = tmp_path / "instances.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]})
    )
    return path


def test_data_when_photos_are_named_then_held_out_and_validation_ids_are_never_in_it(instances):
    made = Recipe(instances=str(instances), partial_instances=str(instances))
    photos = [source for source in start_data(made).sources if isinstance(source, PhotoSource)]
    assert [source.fully_annotated for source in photos] == [True, False]
    for source in photos:
        assert [record.image_id for record in source.records] == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]
        assert not {record.image_id for record in source.donors} & {7, 14, 1, 15}


def test_data_when_photos_are_named_then_scenes_are_drawn_upon_training_photos_only(instances):
    made = start_data(Recipe(instances=str(instances), partial_instances=str(instances)))
    for source in made.sources:
        if isinstance(source, SceneSource):
            assert {int(path.stem) for path in source.backgrounds} == {2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13}


def test_data_when_shares_are_given_then_the_mixture_has_them(instances):
    made = Recipe(
        instances=str(instances),
        partial_instances=str(instances),
        instances_share=0.5,
        partial_share=0.2,
        scenes_share=0.3,
    )
    mixture = start_data(made)
    by_kind = {"photos": 0.0, "scenes": 0.0}
    for source, share in zip(mixture.sources, mixture.shares, strict=True):
        by_kind["scenes" if isinstance(source, SceneSource) else "photos"] += share
    assert by_kind == pytest.approx({"photos": 0.7, "scenes": 0.3})


def test_data_when_scenes_alone_then_each_flavour_and_no_file_is_read():
    mixture = start_data(recipe("scenes"))
    assert [source.flavour for source in mixture.sources] == list(SCENE_FLAVOURS)


def test_data_when_a_share_has_no_file_then_one_sentence():
    with pytest.raises(ValueError, match=r"expected a COCO instances file for a share of 0\.3"):
        start_data(Recipe(partial_share=0.0, instances_share=0.3))


def test_start_when_a_checkpoint_is_named_then_its_weights_go_on_and_its_encoders_count_as_pretrained(tiny_checkpoint):
    chosen = recipe("debug", start=str(tiny_checkpoint))
    model, tokenizer = start_model(chosen)
    stored = load_checkpoint(tiny_checkpoint)
    assert model.training
    assert tokenizer.vocab_size == stored.tokenizer.vocab_size
    for name, tensor in stored.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert not any(parameter.requires_grad for parameter in model.image.encoder.early_parameters())
    rates = {id(p): group["lr"] for group in parameter_groups(model, chosen) for p in group["params"]}
    assert rates[id(model.image.encoder.neck.conv.weight)] == chosen.pretrained_lr
    assert rates[id(model.exists[0].weight)] == chosen.lr
