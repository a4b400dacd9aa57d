import json

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.config import preset
from deixis.data import Samples
from deixis.data.batches import BatchShape, Epochs, Mixture, Rehearsed
from deixis.data.image_sources import PhotoSource, SceneSource
from deixis.hub import load_checkpoint
from deixis.models.encoders.image import YoloTinyEncoder
from deixis.models.weights.darknet import DarknetConv
from deixis.structures import Sample
from deixis.train import setup as starting
from deixis.train.optimisers import parameter_groups
from deixis.train.recipes import Recipe, recipe
from deixis.train.setup import (
    SCENE_FLAVOURS,
    commonest_words,
    in_steps,
    start_data,
    start_model,
    training_phrases,
)
from deixis.train.trainer import left_out


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
    one, two, other = (start_model(made.replaced(seed=s))[0].state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["exists.0.weight"], other["exists.0.weight"])


def test_start_when_bert_folder_is_given_then_its_weights_and_frozen_tables(small_image_encoder, minilm_recipe):
    model, tokenizer = start_model(minilm_recipe)
    assert tokenizer.vocab_size == model.config.vocab_size == 13
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert frozen == {"text.bert.embeddings.word_embeddings.weight"}
    assert sum(p.requires_grad for p in model.text.parameters()) > 0


def test_start_when_minilm_has_no_folder_then_one_sentence(small_image_encoder):
    with pytest.raises(ValueError, match="expected text_weights to name a BERT folder"):
        start_model(Recipe())


def test_start_when_bert_folder_is_missing_then_one_sentence(small_image_encoder, minilm_recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        start_model(minilm_recipe.replaced(text_weights=str(tmp_path)))


@pytest.fixture
def darknet_folder(tmp_path):
    """A folder of files that nobody opens."""
    folder = tmp_path / "darknet"
    folder.mkdir()
    for name in ("net.cfg", "net.weights", "README.md"):
        (folder / name).touch()
    return folder


def test_start_when_darknet_weights_are_given_then_loaded_and_early_filters_frozen(
    minilm_recipe, darknet_folder, monkeypatch
):
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

    monkeypatch.setattr("deixis.models.weights.darknet.read_darknet", read)
    fields = {**minilm_recipe.model.fields, "image_encoder": "yolov3-tiny"}
    model, _ = start_model(minilm_recipe.replaced(model_fields=fields, image_weights=str(darknet_folder)))
    assert asked == ["net.cfg", "net.weights"]
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
    made = Recipe().replaced(instances=str(instances), partial_instances=str(instances))
    photos = [source for source in start_data(made).sources if isinstance(source, PhotoSource)]
    assert [source.fully_annotated for source in photos] == [True, False]
    for source in photos:
        assert [photo.image_id for photo in source.photos] == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]
        assert not {record.image_id for record in source.donors} & {7, 14, 1, 15}


def test_data_when_photos_are_named_then_scenes_are_drawn_upon_training_photos_only(instances):
    made = start_data(Recipe().replaced(instances=str(instances), partial_instances=str(instances)))
    for source in made.sources:
        if isinstance(source, SceneSource):
            assert {int(path.stem) for path in source.backgrounds} == {2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13}


def test_data_when_shares_are_given_then_the_mixture_has_them(instances):
    made = Recipe().replaced(
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
        start_data(Recipe().replaced(partial_share=0.0, instances_share=0.3))


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
    assert rates[id(model.image.encoder.stage4[0].branch1["2"].weight)] == chosen.optimiser.pretrained_lr
    assert rates[id(model.image.head.gfl_cls[0].weight)] == chosen.optimiser.pretrained_lr
    assert rates[id(model.exists[0].weight)] == chosen.optimiser.lr


# the mcn family


@pytest.fixture
def mcn_recipe(small_mcn_encoder, small_mcn_fields, few_scenes):
    return recipe("debug", model="mcn-tiny", model_fields={**small_mcn_fields, "vocab_size": 6})


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    """A text file of word vectors with words that no phrase is cut into."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = {"the": 0.5, "don't": 9.0, "dog": -1.25, ",": 9.0, "2nd": 3.0, "Cat": 9.0, "red": 1.0, "left": 2.0}
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {' '.join([str(value)] * 6)}\n" for word, value in rows.items()))
    return path


def unfrozen(model, prefix):
    return {name for name, p in model.named_parameters() if name.startswith(prefix) and p.requires_grad}


def test_start_mcn_when_words_come_from_a_file_then_fixed_vectors_of_the_first_words(mcn_recipe, vectors):
    model, tokenizer = start_model(mcn_recipe.replaced(text_weights=str(vectors)))
    assert tokenizer.words == ["the", "dog", "2nd", "red"]  # as many as fit
    assert tokenizer.max_tokens == model.config.max_tokens
    assert model.config == preset("mcn-tiny", **{**mcn_recipe.model.fields, "train_words": False})
    table = model.text.vectors.weight
    assert table[:, 0].tolist() == [0, 0, 0.5, -1.25, 3.0, 1.0]
    assert (table == table[:, :1]).all()
    assert not table.requires_grad
    assert unfrozen(model, "text.gru") == {name for name, _ in model.named_parameters() if name.startswith("text.gru")}


def test_start_mcn_when_the_file_has_fewer_words_then_the_vocabulary_is_as_large(mcn_recipe, vectors):
    made = mcn_recipe.replaced(text_weights=str(vectors), model_fields={**mcn_recipe.model.fields, "vocab_size": 900})
    model, tokenizer = start_model(made)
    assert tokenizer.words == ["the", "dog", "2nd", "red", "left"]
    assert model.config.vocab_size == len(model.text.vectors.weight) == tokenizer.vocab_size == 7


def test_start_mcn_when_words_shall_learn_then_vectors_of_a_file_do(mcn_recipe, vectors):
    fields = {**mcn_recipe.model.fields, "train_words": True}
    model, _ = start_model(mcn_recipe.replaced(text_weights=str(vectors), model_fields=fields))
    assert model.config.train_words is True
    assert model.text.vectors.weight.requires_grad
    assert model.text.vectors.weight[2, 0] == 0.5


def test_start_mcn_when_the_file_is_of_another_width_then_one_sentence(mcn_recipe, vectors):
    fields = {**mcn_recipe.model.fields, "word_dim": 5}
    with pytest.raises(ValueError, match="expected up to 4 word vectors of width 5") as caught:
        start_model(mcn_recipe.replaced(text_weights=str(vectors), model_fields=fields))
    assert "\n" not in str(caught.value)


def test_start_mcn_when_from_scratch_then_vectors_of_no_meaning_are_learnt(mcn_recipe):
    model, tokenizer = start_model(mcn_recipe)
    assert tokenizer.words == ["ball", "left", "the", "red"]
    assert model.config.train_words is True
    assert model.config.vocab_size == tokenizer.vocab_size == 6
    table = model.text.vectors.weight
    assert table.requires_grad
    assert not table[:2].any()
    assert (table[2:].abs().sum(1) > 0).all()
    assert all(p.requires_grad for p in model.parameters())


def test_start_mcn_when_seed_is_the_same_then_equal_weights_and_else_not(mcn_recipe):
    one, two, other = (start_model(mcn_recipe.replaced(seed=s))[0].state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["box.conv.weight"], other["box.conv.weight"])


def test_start_mcn_when_weights_are_given_then_all_but_the_last_convolutions_stay(mcn_recipe, darknet_folder):
    made = mcn_recipe.replaced(image_weights=str(darknet_folder))
    model, _ = start_model(made)
    assert model.encoder.loaded == str(darknet_folder)
    assert unfrozen(model, "encoder.") == {f"encoder.down.1.{p}" for p in ("conv.weight", "norm.weight", "norm.bias")}
    model.train()
    assert (model.encoder.down[0].norm.training, model.encoder.down[1].norm.training) == (False, True)
    learning, _ = start_model(made.replaced(freeze_image=False))
    assert learning.encoder.loaded is not None
    assert all(p.requires_grad for p in learning.encoder.parameters())


def test_start_mcn_when_a_checkpoint_is_named_then_it_goes_on_with_its_words_and_encoder_fixed(
    make_mcn_checkpoint, mcn_recipe
):
    folder = make_mcn_checkpoint(image_size=96)
    model, tokenizer = start_model(mcn_recipe.replaced(start=str(folder), image_sizes=(96,)))
    stored = load_checkpoint(folder)
    assert model.training
    assert model.config.image_size == 96
    assert tokenizer.words == stored.tokenizer.words
    for name, tensor in stored.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert not model.text.vectors.weight.requires_grad
    assert not any(p.requires_grad for p in model.encoder.frozen_parameters())


def test_start_mcn_when_a_checkpoint_learnt_its_words_then_they_go_on_learning(make_mcn_checkpoint, mcn_recipe):
    model, _ = start_model(mcn_recipe.replaced(start=str(make_mcn_checkpoint(train_words=True))))
    assert model.text.vectors.weight.requires_grad


TRAINED = [
    ({}, True),
    ({"image_weights": "parts/yolov3", "start": "", "freeze_image": True}, True),
    ({"image_weights": "", "start": "runs/checkpoint", "freeze_image": True}, True),
    ({"image_weights": "parts/yolov3", "start": ""}, True),
    ({"image_weights": "", "start": "", "model_fields": {"image_encoder": "parts/swin"}}, True),
    ({"image_weights": "", "start": "", "model_fields": {"image_encoder": "vgg16"}}, False),
    ({"image_weights": "", "start": "", "model_fields": 3}, False),
    ({"image_weights": "", "start": "", "freeze_image": True}, False),
    ({"image_weights": "parts/yolov3", "start": "", "freeze_image": False}, False),
]


@pytest.mark.parametrize(("told", "stays"), TRAINED)
@pytest.mark.parametrize("freeze", [True, False])
def test_start_mcn_when_a_checkpoint_tells_its_training_then_the_encoder_is_fixed_where_it_was(
    make_mcn_checkpoint, mcn_recipe, told, stays, freeze
):
    folder = make_mcn_checkpoint()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "recipe": told}))
    model, _ = start_model(mcn_recipe.replaced(start=str(folder), freeze_image=freeze))
    assert {p.requires_grad for p in model.encoder.frozen_parameters()} == {not (stays and freeze)}


@pytest.mark.parametrize("sizes", [(96,), (64, 96), (32,)])
def test_start_mcn_when_it_would_be_trained_on_another_canvas_than_it_answers_on_then_one_sentence(
    mcn_recipe, make_mcn_checkpoint, sizes
):
    made = mcn_recipe.replaced(image_sizes=sizes)
    for one in (made, made.replaced(start=str(make_mcn_checkpoint()))):
        with pytest.raises(ValueError, match=r"^expected image_sizes to be \(64,\), .* got \(") as caught:
            start_model(one)
        assert repr(sizes) in str(caught.value)
        assert "\n" not in str(caught.value)
    start_model(mcn_recipe.replaced(image_sizes=(64, 64)))


# expressions of their own


@pytest.fixture
def lines(tmp_path):
    """Expressions of three things on two images, one of them in the split "val"; one line names no split."""
    rows = [
        ("a", "left dog", 0, "train"),
        ("a", "the dog", 0, "train"),
        ("b", "cat", 5, "val"),
        ("a", "dog", 5, None),
    ]
    rows.append(("b", "the cat", 5, "val"))
    path = tmp_path / "own.jsonl"
    path.write_text("".join(
        json.dumps({"image": f"{image}.png", "phrase": phrase, "box": [x, 0, x + 5, 9], "split": split}) + "\n"
        for image, phrase, x, split in rows
    ))  # fmt: skip
    return path


def test_data_when_phrased_then_one_group_a_thing_and_the_split_that_is_named(lines):
    source = start_data(recipe("debug", phrased=str(lines)))
    assert isinstance(source, Epochs)
    phrases = [[source.samples[index].phrase for index in group] for group in source.referents]
    assert phrases == [["left dog", "the dog"], ["dog"]]  # those of "val" are what is measured on
    (only,) = start_data(recipe("debug", phrased=f"{lines}:val")).referents
    assert len(only) == 2


@pytest.mark.parametrize("rehearsal", [0.0, 0.5])
def test_data_when_lines_are_wrong_then_left_out_and_told_with_or_without_a_split(lines, rehearsal):
    with lines.open("a", encoding="utf-8") as file:
        file.write("not JSON\n" * 7)
    for phrased in (str(lines), f"{lines}:train"):
        source = start_data(recipe("debug", phrased=phrased, rehearsal=rehearsal, images=2))
        told = left_out(source)
        assert len(source.problems) == 7
        assert len(told) == 6
        assert all(one.startswith("left out: ") for one in told)
        assert told[-1] == "left out: 2 more"


def test_data_when_phrased_has_nothing_then_one_sentence(tmp_path, lines):
    (tmp_path / "empty.jsonl").write_text("\n")
    only = tmp_path / "val.jsonl"
    only.write_text("".join(line for line in lines.read_text().splitlines(keepends=True) if '"val"' in line))
    for phrased in (str(tmp_path / "empty.jsonl"), f"{lines}:test", str(only)):
        with pytest.raises(ValueError, match="expected") as caught:
            start_data(recipe("debug", phrased=phrased))
        assert "jsonl" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phrased", "root", "expected"),
    [
        ("refcoco", "data", ("refcoco", "train", "data")),
        ("refcocog-umd:val", "", ("refcocog-umd", "val", None)),
        ("photos/instances.json", "", ("photos/instances.json", "train", None)),
        ("own.jsonl:test", "", ("own.jsonl", "test", None)),
    ],
)
def test_data_when_phrased_names_a_release_then_its_train_split_and_its_own_referents(
    monkeypatch, phrased, root, expected
):
    class Apart(Samples):
        def _referents(self):
            return range(len(self))

    asked = []
    sample = Sample(id="1", image=np.zeros((4, 4, 3), np.uint8), image_id="1", phrase="dog", box_xyxy_px=(0, 0, 2, 2))

    def fake(name, *, split, root):
        asked.append((name, split, root))
        return Apart([sample, sample])

    monkeypatch.setattr(starting, "open_dataset", fake)
    source = start_data(recipe("debug", phrased=phrased, root=root))
    assert asked == [expected]
    assert source.referents == ((0,), (1,))  # which would stand together by image and box


def test_data_when_a_release_has_no_root_then_one_sentence():
    with pytest.raises(ValueError, match="expected a root"):
        start_data(recipe("mcn"))


def test_phrases_when_data_brings_its_own_then_these_alone_and_else_scenes(lines, few_scenes):
    assert list(training_phrases(recipe("debug", phrased=f"{lines}:train"))) == ["left dog", "the dog"]
    assert list(training_phrases(recipe("debug", phrased=str(lines)))) == ["left dog", "the dog", "dog"]
    assert set(training_phrases(recipe("debug"))) >= {"left ball", "the red ball 1"}


def test_start_mcn_when_from_scratch_on_expressions_then_the_vocabulary_is_theirs(
    small_mcn_encoder, small_mcn_fields, lines
):
    fields = {**small_mcn_fields, "vocab_size": 6}
    _, tokenizer = start_model(recipe("debug", model="mcn-tiny", model_fields=fields, phrased=str(lines)))
    assert tokenizer.words == ["dog", "left", "the"]


def test_commonest_words_when_counted_then_the_first_of_equals_and_as_many_as_asked():
    phrases = ["Left-most dog!", "dog's left", "2nd cat"]
    assert commonest_words(phrases, 3) == ["left", "dog", "most"]
    assert commonest_words(phrases, 99) == ["left", "dog", "most", "s", "2nd", "cat"]
    assert commonest_words([], 5) == []


# epochs in steps


def epochs_of(count):
    return Epochs([], [(0,)] * count)


@pytest.mark.parametrize(("referents", "steps", "milestones"), [(70, 90, (58, 68, 78)), (71, 135, (87, 102, 117))])
def test_in_steps_when_epochs_are_told_then_steps_and_milestones_at_their_beginnings(referents, steps, milestones):
    told = in_steps(recipe("mcn"), epochs_of(referents))  # 45 epochs, batches of 35, a tenth at 30, 35 and 40
    assert (told.optimiser.steps, told.optimiser.milestones, told.optimiser.epochs) == (steps, milestones, 0)
    assert in_steps(told, epochs_of(referents)) == told  # told once, it stays


def test_in_steps_when_no_epochs_or_a_mixture_then_the_recipe_as_it_is():
    made = recipe("debug", steps=7, milestones=(3,))
    assert in_steps(made, epochs_of(5)) is made
    endless = recipe("debug", phrased="refcoco", epochs=3)
    assert in_steps(endless, Mixture([], [])) is endless


# groups of expressions, drawn scenes and rehearsal


def test_data_when_one_per_image_then_all_phrases_of_an_image_are_one_group(tmp_path):
    lines = [f'{{"image": "{k % 2}.png", "phrase": "a {k}", "box": [{k}, 0, 9, 9]}}\n' for k in range(5)]
    (tmp_path / "my.jsonl").write_text("".join(lines))
    made = recipe("finetune", phrased=str(tmp_path / "my.jsonl"))
    assert starting.start_data(made).referents == [[0, 2, 4], [1, 3]]
    assert starting.start_data(made.replaced(one_per="referent")).referents == tuple((k,) for k in range(5))
    source = starting.start_data(made.replaced(rehearsal=0.3))
    assert (source.own.referents, source.share) == ([[0, 2, 4], [1, 3]], 0.3)
    assert [one.flavour for one in source.beside.sources] == ["scenes", "scenes+", "scenesg"]


@pytest.mark.parametrize("flavour", ["scenes", "scenes+", "scenesg"])
def test_data_when_a_flavour_is_named_then_that_alone(flavour):
    source = starting.start_data(recipe("debug", flavour=flavour))
    assert [one.flavour for one in source.sources] == [flavour]
    assert list(source.shares) == [1.0]


def test_data_when_drawn_scenes_are_phrased_then_none_is_drawn_to_group_them(monkeypatch):
    monkeypatch.setattr("deixis.data.scenes.draw_sample", lambda *_, **__: pytest.fail("drew a scene"))
    source = starting.start_data(recipe("mcn", phrased="scenes+:train"))
    assert source.num_steps(100) == 1000


# a mixture beside own expressions


@pytest.fixture
def detected(tmp_path, instances):
    """A COCO file of the photos of `instances`, whose boxes have scores: above, at and below one half, and none."""
    document = json.loads(instances.read_text())
    scores = {2: 0.9, 3: 0.5, 4: 0.49}
    document["annotations"] = [
        one | ({"score": scores[one["id"]]} if one["id"] in scores else {})
        for one in document["annotations"]
        if one["id"] <= 7
    ]
    path = tmp_path / "detected.json"
    path.write_text(json.dumps(document))
    return path


def test_data_when_several_files_are_named_then_the_photos_of_all(instances, detected):
    made = Recipe().replaced(instances=f"{instances}, {detected}", partial_share=0.0)
    photos = start_data(made).sources[0]
    ids = [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]
    assert [photo.image_id for photo in photos.photos] == [*ids, 2, 3, 4, 5, 6]


def test_data_when_files_have_wrong_records_then_all_are_told(instances, tmp_path):
    second = tmp_path / "second.json"
    document = json.loads(instances.read_text())
    document["annotations"].append({"id": 99, "image_id": 2, "category_id": 9, "bbox": [0, 0, 2, 2]})
    second.write_text(json.dumps(document))
    mixture = start_data(Recipe().replaced(instances=f"{second},{second}", partial_share=0.0))
    assert len(mixture.problems) == 2


def test_data_when_boxes_are_a_detectors_then_the_sure_ones_without_masks_and_no_more_is_known(detected):
    made = Recipe().replaced(
        pseudo_instances=str(detected), pseudo_share=0.3, instances_share=0.0, partial_share=0.0, min_area=0.005
    )
    mixture = start_data(made)
    (source,) = (one for one in mixture.sources if isinstance(one, PhotoSource))
    assert [photo.image_id for photo in source.photos] == [2, 3, 5, 6]  # 1 is of val, 7 held out, 4 unsure
    assert all(instance.mask is None for photo in source.photos for instance in photo.instances)
    assert (source.fully_annotated, source.counts_known, source.donors, source.min_area) == (False, False, (), 0.005)
    assert mixture.shares[0] == 0.3


@pytest.mark.parametrize(
    ("sizes", "scenes", "photos"),
    [((256, 384), 256, 512), ((416,), 416, 512), ((64,), 256, 512), ((416, 416), 416, 512), ((640,), 640, 640)],
)
def test_data_when_there_is_one_canvas_then_all_sources_stand_on_it(instances, sizes, scenes, photos):
    mixture = start_data(Recipe().replaced(instances=str(instances), partial_share=0.0, image_sizes=sizes))
    drawn = [one for one in mixture.sources if isinstance(one, SceneSource)]
    assert {(one.largest, one.side) for one in drawn} == {(scenes, 256)}
    assert mixture.sources[0].largest == photos
    if len(set(sizes)) == 1:
        assert mixture._shares_at(sizes[0]).tolist() == list(mixture.shares)


def test_data_when_rehearsed_and_photos_are_named_then_the_whole_mixture_beside_own(lines, instances, detected):
    made = recipe(
        "debug", phrased=str(lines), rehearsal=0.5, instances=str(instances), partial_instances=str(instances),
        pseudo_instances=str(detected), instances_share=0.3, partial_share=0.2, pseudo_share=0.1, scenes_share=0.4,
        image_sizes=(416,), flavour="scenes",
    )  # fmt: skip
    source = start_data(made)
    assert isinstance(source, Rehearsed)
    assert (len(source.own.samples), source.share) == (3, 0.5)
    assert list(source.beside.shares) == [0.3, 0.2, 0.1, 0.4]
    assert [type(one) for one in source.beside.sources] == [PhotoSource, PhotoSource, PhotoSource, SceneSource]
    assert source.beside._shares_at(416).tolist() == [0.3, 0.2, 0.1, 0.4]


def test_data_when_rehearsed_without_photos_then_drawn_scenes_as_large_as_the_canvas(lines):
    source = start_data(recipe("debug", phrased=str(lines), rehearsal=0.5, image_sizes=(384,), scenes_share=0.1))
    assert [(one.flavour, one.largest, one.side) for one in source.beside.sources] == [
        (flavour, 384, 384) for flavour in SCENE_FLAVOURS
    ]
    assert sum(source.beside.shares) == 1


def test_rehearsed_when_its_epochs_are_over_then_its_own_begin_anew(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    path = tmp_path / "own.jsonl"
    path.write_text('{"image": "a.png", "phrase": "left dog", "box": [0, 0, 9, 9]}\n')
    source = start_data(recipe("debug", phrased=str(path), rehearsal=0.5))
    batches = [source.batch(1, step, BatchShape(images=2, phrases=1, size=64, absent=0.0)) for step in (0, 1, 50)]
    assert [batch.phrases[0] for batch in batches] == ["left dog"] * 3
    assert len({batch.phrases[1] for batch in batches}) > 1
