import json
import shutil

import numpy as np
import pytest
import torch

from deixis.config import config_to_dict, preset
from deixis.hub import find_checkpoint, list_bundled, load_checkpoint, save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer, WordTokenizer
from deixis.models.deixis.model import DeixisModel
from deixis.models.registry import build_model


@pytest.fixture
def small_model(small_image_encoder, small_fields, words):
    torch.manual_seed(3)
    config = preset("deixis-tiny-glove", **{**small_fields, "vocab_size": len(words) + 2, "max_tokens": 5})
    return DeixisModel(config).eval()


@pytest.fixture
def saved(small_model, words, tmp_path):
    folder = tmp_path / "models" / "smallest"
    save_checkpoint(
        folder, small_model, WordTokenizer(words, max_tokens=5), calibration={"bias": 0.5}, metrics={"n": 1}
    )
    return folder


def assert_one_sentence(caught, *expected):
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    for word in expected:
        assert str(word) in text


def as_stored(tensor):
    """What a tensor below `LARGE` is after saving: vectors as they are, the others rounded to float16."""
    return tensor if tensor.ndim < 2 else tensor.half().float()


def test_save_load_when_word_vectors_then_weights_equal_as_float16_and_vectors_exactly(saved, small_model, words):
    loaded = load_checkpoint(saved)
    assert loaded.name == "smallest"
    assert loaded.calibration == {"bias": 0.5}
    assert loaded.model.config == small_model.config
    assert not loaded.model.training
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, as_stored(small_model.state_dict()[name])), name
    np.testing.assert_array_equal(
        loaded.tokenizer.encode(["red dog"])[0], WordTokenizer(words, max_tokens=5).encode(["red dog"])[0]
    )


def test_save_load_when_weights_are_large_then_they_are_within_half_a_step_of_their_row(
    small_image_encoder, small_fields, bert_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("deixis.hub.LARGE", 1000)
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=8)
    model = DeixisModel(preset("deixis-tiny", **small_fields, vocab_size=tokenizer.vocab_size))
    save_checkpoint(tmp_path / "pieces", model, tokenizer)
    loaded = load_checkpoint(tmp_path / "pieces").model.state_dict()
    seen = set()
    for name, wanted in model.state_dict().items():
        if wanted.ndim > 1 and wanted.numel() >= 1000:
            seen.add(wanted.ndim)
            assert not wanted.any() or not torch.equal(loaded[name], wanted)
            step = wanted.flatten(1).abs().amax(1) / 127
            assert ((loaded[name] - wanted).flatten(1).abs() <= 0.501 * step[:, None]).all()
        else:
            assert torch.equal(loaded[name], as_stored(wanted)), name
    assert seen == {2, 4}  # tables and convolutions


def test_save_when_done_then_only_these_files_and_no_pickle(saved):
    assert {file.name for file in saved.iterdir()} == {"model.safetensors", "config.json", "vocab.txt", "README.md"}
    assert [path.name for path in saved.parent.iterdir()] == ["smallest"]  # nothing of the work is left
    for file in saved.iterdir():
        assert not file.read_bytes().startswith((b"\x80", b"PK"))  # how pickles and zipped pickles begin


def test_save_when_read_as_json_then_config_says_what_the_design_asks(saved, small_model):
    stored = json.loads((saved / "config.json").read_text())
    assert set(stored) >= {"name", "library_version", "model", "parameters", "calibration", "metrics", "recipe"}
    assert stored["model"]["family"] == "deixis"
    assert stored["parameters"] == sum(p.numel() for p in small_model.parameters())


@pytest.mark.parametrize("place", ["deixis.hub.save_file", "deixis.language.tokenizers.WordTokenizer.save"])
def test_save_when_interrupted_then_the_old_checkpoint_is_whole(saved, small_model, words, monkeypatch, place):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(place, fail)
    with torch.no_grad():
        for parameter in small_model.parameters():
            parameter.add_(1)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, small_model, WordTokenizer(words, max_tokens=5))
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["smallest"]


def test_save_when_folder_holds_a_model_card_then_it_stays(saved, small_model, words):
    (saved / "README.md").write_text("a card")
    save_checkpoint(saved, small_model, WordTokenizer(words, max_tokens=5))
    assert (saved / "README.md").read_text() == "a card"


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
def test_load_when_a_file_is_missing_then_one_sentence_names_it(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match="expected") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, name, saved)


@pytest.mark.parametrize("length", [0, 4, 100, 2000])
def test_load_when_weights_are_cut_off_then_one_sentence(saved, length):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "{}", '{"model": null}', '{"model": {"family": "deixis", "depth": 2}}',
     '{"model": {"family": "deixis", "image_size": "big"}}', '{"model": {"family": "other"}}', "\x00", "[" * 100_000],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_load_when_config_is_damaged_then_one_sentence_with_the_folder(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match="expected") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, saved)


def test_load_when_config_is_not_utf8_then_one_sentence(saved):
    (saved / "config.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ValueError, match="expected") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, saved)


def change_config(folder, change):
    stored = json.loads((folder / "config.json").read_text())
    change(stored)
    (folder / "config.json").write_text(json.dumps(stored))


def test_load_when_config_has_other_sizes_then_one_sentence_lists_shapes(saved):
    change_config(saved, lambda stored: stored["model"].update(mask_dim=16))
    with pytest.raises(ValueError, match="other shape") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, saved, "DeixisModel")


def test_load_when_vocabulary_is_larger_than_the_model_then_one_sentence(saved):
    with (saved / "vocab.txt").open("a") as file:
        file.write("one\ntwo\n")
    with pytest.raises(ValueError, match="12") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, saved, "10")


@pytest.mark.parametrize(
    "calibration", [None, [], "none", {"weights": [1.0]}, {"weights": [1, 1, 1, "a"]}, {"bias": None}]
)
def test_load_when_calibration_cannot_be_used_then_one_sentence(saved, calibration):
    change_config(saved, lambda stored: stored.update(calibration=calibration))
    with pytest.raises(ValueError, match="calibration") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, saved)


def test_load_when_a_weight_is_not_finite_then_one_sentence_names_it(saved, small_model, words):
    with torch.no_grad():
        small_model.exists[0].bias[0] = torch.nan
    save_checkpoint(saved, small_model, WordTokenizer(words, max_tokens=5))
    with pytest.raises(ValueError, match=r"exists\.0\.bias") as caught:
        load_checkpoint(saved)
    assert_one_sentence(caught, saved)


def test_load_when_row_scales_do_not_fit_then_one_sentence(saved):
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "model.safetensors")
    for extra in ({"nothing.row_scale": torch.ones(3)}, {"exists.0.weight.row_scale": torch.ones(3)}):
        save_file({**tensors, **extra}, saved / "model.safetensors")
        with pytest.raises(ValueError, match="row_scale") as caught:
            load_checkpoint(saved)
        assert_one_sentence(caught, saved)


def test_find_when_folder_then_itself(saved):
    assert find_checkpoint(saved) == find_checkpoint(str(saved)) == saved


def test_find_when_nothing_is_there_then_it_names_what_it_looked_at(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a bundled model") as caught:
        find_checkpoint(tmp_path / "none")
    assert_one_sentence(caught, tmp_path / "none", "hf-hub:", *list_bundled())


def test_find_when_a_bundled_name_is_misspelt_then_it_is_offered():
    with pytest.raises(FileNotFoundError, match="got 'deixis-tinny'; perhaps 'deixis-tiny' is meant"):
        find_checkpoint("deixis-tinny")


def test_find_when_hub_name_then_only_the_checkpoints_own_files_are_asked_for(monkeypatch, tmp_path):
    asked = {}

    def fake(repository, allow_patterns):
        asked.update(repository=repository, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert find_checkpoint("hf-hub:org/repo") == tmp_path
    assert asked["repository"] == "org/repo"
    assert not [name for name in asked["patterns"] if "*" in name or name.endswith((".bin", ".pt", ".pth"))]


def test_bundled_when_listed_then_each_has_a_card_and_loads_by_name():
    for name in list_bundled():
        folder = find_checkpoint(name)
        assert {"model.safetensors", "config.json", "README.md"} <= {file.name for file in folder.iterdir()}
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 60e6


# the mcn family


def trained_a_little(model):
    """The model after a forward pass in training, so that its batch-norms have statistics of their own."""
    model.train()
    index = torch.tensor([0, 1, 1])
    ids, valid = torch.tensor([[2, 3], [4, 5], [6, 0]]), torch.tensor([[True, True], [True, True], [True, False]])
    with torch.no_grad():
        model(torch.rand(2, 3, 64, 64), torch.zeros(2, 4), index, ids, valid)
    return model.eval()


@pytest.mark.parametrize("structure", ["mcn", "single-rec-13", "single-res-52"])
def test_save_load_when_mcn_then_the_config_words_and_answers_come_back(make_mcn, tmp_path, structure):
    model, tokenizer = make_mcn(structure, image_size=96, train_words=True)
    save_checkpoint(tmp_path / "mcn", trained_a_little(model), tokenizer)
    assert (tmp_path / "mcn" / "vocab.txt").read_text().split() == tokenizer.words
    loaded = load_checkpoint(tmp_path / "mcn")
    assert loaded.model.config == model.config
    assert not loaded.model.training
    ids, valid = (torch.from_numpy(x) for x in loaded.tokenizer.encode(["red dog", "the ball on left"]))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.ndim > 1:
                tensor.copy_(tensor.half())  # what saving rounds; after that, nothing may differ
        pixels, index = torch.rand(1, 3, 96, 96), torch.tensor([0, 0])
        one, two = (
            m.answer(m.encode_image(pixels, torch.tensor([[0.0, 0, 1, 1]])).pick(index), ids, valid)
            for m in (model, loaded.model)
        )
    for name in ("boxes", "mask_probability", "confidence", "signs"):
        wanted, got = getattr(one, name), getattr(two, name)
        assert (wanted is None) == (got is None)
        assert wanted is None or torch.equal(wanted, got), name


def test_save_load_when_batch_norm_has_run_then_its_statistics_survive_to_the_last_bit(make_mcn, tmp_path):
    model, tokenizer = make_mcn()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, value in trained_a_little(model).state_dict().items():
            if name.endswith("running_var"):
                value += 1 / 3  # no float16
    save_checkpoint(tmp_path / "mcn", model, tokenizer)
    kept = load_checkpoint(tmp_path / "mcn").model.state_dict()
    statistics = [name for name in kept if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(statistics) >= 3 * 10
    for name in statistics:
        assert not torch.equal(kept[name], fresh[name]), name
        assert torch.equal(kept[name], model.state_dict()[name]), name
        assert kept[name].dtype == model.state_dict()[name].dtype


def test_save_when_statistics_exceed_float16_then_they_are_kept(make_mcn, tmp_path):
    model, tokenizer = make_mcn()
    with torch.no_grad():
        model.encoder.down[0].norm.running_var.fill_(1e6)
    save_checkpoint(tmp_path / "mcn", model, tokenizer)
    assert (load_checkpoint(tmp_path / "mcn").model.encoder.down[0].norm.running_var == 1e6).all()


def test_save_when_mcn_then_config_says_how_pictures_and_masks_are_treated(make_mcn_checkpoint):
    stored = json.loads((make_mcn_checkpoint(fill=99) / "config.json").read_text())
    assert stored["model"]["family"] == "mcn"
    assert stored["preprocessing"] | {"resize": ""} == {
        "resize": "", "largest_size": 64, "fill": 99, "mean": [0, 0, 0], "std": [1, 1, 1], "mask_threshold": 0.35,
    }  # fmt: skip


def test_load_when_mcn_calibration_has_the_weights_of_another_family_then_one_sentence(make_mcn_checkpoint):
    folder = make_mcn_checkpoint()
    change_config(folder, lambda stored: stored.update(calibration={"weights": [1.0, 0.5], "bias": 0.1}))
    assert load_checkpoint(folder).calibration["weights"] == [1.0, 0.5]
    change_config(folder, lambda stored: stored.update(calibration={"weights": [1.0, 0.0, 0.5, 0.0]}))
    with pytest.raises(ValueError, match="calibration") as caught:
        load_checkpoint(folder)
    assert_one_sentence(caught, folder)


@pytest.mark.parametrize(
    "change",
    [{"structure": "mcn-2"}, {"image_size": 100}, {"anchors_px": [[1]]}, {"anchors_px": 3}, {"anchors_px": [["a", 2]]},
     {"garan_heads": 0}, {"dropout": 0.1}],
)  # fmt: skip
def test_load_when_mcn_config_is_damaged_then_one_sentence_with_the_folder(make_mcn_checkpoint, change):
    folder = make_mcn_checkpoint()
    change_config(folder, lambda stored: stored["model"].update(change))
    with pytest.raises(ValueError, match=r"expected a Deixis config\.json") as caught:
        load_checkpoint(folder)
    assert_one_sentence(caught, folder)


def test_load_when_mcn_has_other_anchors_than_its_weights_then_one_sentence(make_mcn_checkpoint):
    folder = make_mcn_checkpoint()
    change_config(folder, lambda stored: stored["model"].update(anchors_px=[[10, 10]]))
    with pytest.raises(ValueError, match="other shape") as caught:
        load_checkpoint(folder)
    assert_one_sentence(caught, folder, "McnModel", "box.conv")


# the smcim family


@pytest.fixture
def encoder_folders(tmp_path):
    """Configurations of a small BERT-like model and a small backbone, as their library saves them, without weights."""
    from transformers import ConvNextConfig, RobertaConfig

    sizes = {"hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 20}
    RobertaConfig(vocab_size=99, max_position_embeddings=40, **sizes).save_pretrained(tmp_path / "words")
    labels = {i: f"label {i}" for i in range(500)}
    ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1], id2label=labels).save_pretrained(tmp_path / "body")
    return {"text_encoder": str(tmp_path / "words"), "image_encoder": str(tmp_path / "body")}


SMCIM = {
    "text_dim": 12, "text_heads": 2, "text_layers": 3, "text_features": (1, 3), "image_size": 64, "group_dim": 8,
    "group_heads": 2, "merge_heads": 3, "merge_blocks": 1,
}  # fmt: skip


@pytest.mark.parametrize("parts", [("text_encoder",), ("image_encoder", "text_encoder")], ids=len)
def test_load_when_smcim_was_built_from_folders_then_they_are_not_needed_again(
    encoder_folders, bert_folder, tmp_path, monkeypatch, parts
):
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=8)
    fields = {part: encoder_folders[part] for part in parts}
    model = build_model(preset("smcim-tiny", **SMCIM, **fields, vocab_size=tokenizer.vocab_size)).eval()
    save_checkpoint(tmp_path / "saved", model, tokenizer)
    for folder in encoder_folders.values():
        shutil.rmtree(folder)
    monkeypatch.setattr(
        "deixis.models.weights.pretrained.find_file", lambda *_: pytest.fail("looked for a folder or a name")
    )
    loaded = load_checkpoint(tmp_path / "saved").model
    text = (tmp_path / "saved" / "config.json").read_text()
    assert not [folder for folder in encoder_folders.values() if folder in text]
    assert "label 3" not in text
    assert loaded.config == model.config
    assert {name: type(one) for name, one in loaded.named_modules()} == {
        name: type(one) for name, one in model.named_modules()
    }
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, as_stored(model.state_dict()[name])), name
    save_checkpoint(tmp_path / "again", loaded, tokenizer)
    assert load_checkpoint(tmp_path / "again").model.config == model.config


SMALL_BODY = '{"model_type": "convnext", "hidden_sizes": [4, 6, 8, 10], "depths": [1, 1, 1, 1]}'


@pytest.mark.parametrize(
    "told",
    ["{", "{}", '{"model_type": "bert"', '{"model_type": "none"}', '{"model_type": ["bert"]}', '{"a":' * 50_000,
     '{"model_type": "gpt2"}', '{"model_type": "bert", "hidden_size": "wide"}', '{"model_type": "roberta"}',
     '{"model_type": "bert", "hidden_size": 12, "auto_map": {"AutoModel": "code.Model"}, "num_hidden_layers": 0}'],
    ids=lambda text: text[:40],
)  # fmt: skip
@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
def test_load_when_the_description_of_an_encoder_is_damaged_then_one_sentence(tmp_path, part, told):
    values = {"text_encoder": "bert", "image_encoder": SMALL_BODY, part: told}
    fields = config_to_dict(preset("smcim-tiny", **SMCIM)) | values
    (tmp_path / "config.json").write_text(json.dumps({"model": fields}))
    with pytest.raises(ValueError, match=r"expected a Deixis config\.json") as caught:
        load_checkpoint(tmp_path)
    assert_one_sentence(caught, tmp_path)
    assert len(str(caught.value)) < 800
