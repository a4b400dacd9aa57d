import json
import shutil
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    BertModel,
    CLIPConfig,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    ModernBertConfig,
    ModernBertModel,
    ResNetConfig,
    RobertaConfig,
    RobertaModel,
)

from deixis.config import preset
from deixis.models.encoders.text import BertEncoder, GloveGruEncoder, LayeredText, build_text_encoder
from deixis.models.smcim.config import SmcimConfig
from deixis.models.weights.pretrained import config_as_text


@pytest.fixture(scope="module")
def bert(small_fields, bert_folder):
    encoder = BertEncoder(preset("deixis-tiny", **small_fields, vocab_size=13))
    encoder.load_pretrained(bert_folder)
    return encoder.eval()


@pytest.fixture(scope="module")
def glove(small_fields):
    torch.manual_seed(0)
    encoder = GloveGruEncoder(preset("deixis-tiny-glove", **{**small_fields, "vocab_size": 10}))
    encoder.load_vectors(torch.randn(8, 50))
    return encoder.eval()


IDS = torch.tensor([[2, 4, 6, 3], [2, 7, 3, 0]])
VALID = torch.tensor([[True] * 4, [True, True, True, False]])


@pytest.fixture(params=["bert", "glove"])
def encoder(request):
    return request.getfixturevalue(request.param)


def test_encoder_when_run_then_three_grains_of_the_declared_width(encoder):
    with torch.no_grad():
        grains = encoder(IDS, VALID)
    assert [grain.shape for grain in grains] == [(2, 4, 12)] * 3


def test_encoder_when_padding_words_change_then_real_words_do_not(encoder):
    other = torch.where(VALID, IDS, 5)
    with torch.no_grad():
        for one, two in zip(encoder(IDS, VALID), encoder(other, VALID), strict=True):
            torch.testing.assert_close(one[VALID], two[VALID], atol=1e-5, rtol=1e-5)


def test_encoder_when_every_phrase_is_padded_further_then_width_follows_and_values_stay(encoder):
    wider_ids, wider_valid = (torch.nn.functional.pad(x, (0, 3)) for x in (IDS, VALID))
    with torch.no_grad():
        for one, two in zip(encoder(IDS, VALID), encoder(wider_ids, wider_valid), strict=True):
            assert two.shape == (2, 7, 12)
            torch.testing.assert_close(one[VALID], two[:, :4][VALID], atol=1e-5, rtol=1e-5)


def test_encoder_when_words_change_places_then_states_change(encoder):
    swapped = IDS[:1, [0, 2, 1, 3]]
    with torch.no_grad():
        assert (encoder(IDS[:1], VALID[:1])[-1] - encoder(swapped, VALID[:1])[-1]).abs().max() > 1e-3


def test_bert_when_tapped_then_grains_are_the_states_after_each_third(bert):
    assert bert.taps == [1, 2, 3]
    with torch.no_grad():
        states = bert.bert(input_ids=IDS, attention_mask=VALID.long(), output_hidden_states=True).hidden_states
        for grain, tap in zip(bert(IDS, VALID), (1, 2, 3), strict=True):
            torch.testing.assert_close(grain, states[tap])


def test_bert_when_source_has_more_layers_then_the_rest_is_left_out(bert, bert_folder):
    source = BertModel.from_pretrained(bert_folder, add_pooling_layer=False).state_dict()  # four layers
    for name, tensor in bert.bert.state_dict().items():
        assert torch.equal(tensor, source[name]), name


def test_bert_when_source_has_fewer_layers_then_one_sentence(small_fields, bert_folder):
    encoder = BertEncoder(preset("deixis-tiny", **{**small_fields, "text_layers": 6}, vocab_size=13))
    with pytest.raises(ValueError, match=r"missing: encoder\.layer\.4"):
        encoder.load_pretrained(bert_folder)


def test_bert_when_vocabulary_is_smaller_then_the_first_rows_are_taken(small_fields, bert_folder, bert):
    encoder = BertEncoder(preset("deixis-tiny", **small_fields, vocab_size=6))
    encoder.load_pretrained(bert_folder)
    table = encoder.bert.embeddings.word_embeddings.weight
    assert torch.equal(table, bert.bert.embeddings.word_embeddings.weight[:6])


def test_glove_when_vectors_load_then_ids_start_at_2_and_unknown_is_their_mean(small_fields):
    encoder = GloveGruEncoder(preset("deixis-tiny-glove", **{**small_fields, "vocab_size": 4}))
    encoder.load_vectors(torch.stack([torch.full((50,), 1.0), torch.full((50,), 3.0)]))
    assert encoder.vectors.weight[:, 0].tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize(("name", "kind"), [("deixis-tiny", BertEncoder), ("deixis-tiny-glove", GloveGruEncoder)])
def test_build_when_named_then_that_encoder(name, kind, small_fields):
    assert isinstance(build_text_encoder(preset(name, **{**small_fields, "vocab_size": 9})), kind)


def test_frozen_parameters_when_asked_then_only_the_tables(bert, glove):
    frozen = {id(p) for p in bert.frozen_parameters()}
    assert [n for n, p in bert.named_parameters() if id(p) in frozen] == ["bert.embeddings.word_embeddings.weight"]
    assert not glove.vectors.weight.requires_grad


# SMCIM's: the first layers of BERT or of a model like it


SIZES = {"text_dim": 12, "text_heads": 2, "vocab_size": 13, "group_dim": 12, "group_heads": 2, "merge_heads": 2}


def layered(**values):
    torch.manual_seed(0)
    return LayeredText(SmcimConfig(**{**SIZES, **values})).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random models of eight layers, and one of five, as the library saves them."""
    sizes = {"hidden_size": 12, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 24}
    distilled = {"dim": 12, "n_layers": 8, "n_heads": 2, "hidden_dim": 24}
    torch.manual_seed(0)
    made = {
        "bert": BertModel(BertConfig(vocab_size=15, **{**sizes, "intermediate_size": 48})),
        "roberta": RobertaModel(RobertaConfig(vocab_size=13, max_position_embeddings=40, **sizes)),
        "distilbert": DistilBertModel(DistilBertConfig(vocab_size=13, **distilled)),
        "minilm": BertModel(BertConfig(vocab_size=13, **{**sizes, "num_hidden_layers": 6})),
        "shallow": BertModel(BertConfig(vocab_size=13, **{**sizes, "num_hidden_layers": 5})),
    }
    for name, model in made.items():
        model.save_pretrained(tmp_path_factory.getbasetemp() / "layered" / name)
    return tmp_path_factory.getbasetemp() / "layered"


def test_layered_when_bert_then_the_first_six_layers_of_bert_base_without_pooler():
    with torch.device("meta"):
        text = LayeredText(SmcimConfig())
    assert sum(p.numel() for p in text.parameters()) == 66_364_416  # (30522 + 512 + 2 + 2) * 768 + 6 * 7 087 872
    assert not [name for name, _ in text.named_parameters() if "pooler" in name]


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_layered_when_built_from_sizes_then_it_drops_as_much_as_the_rest_of_the_model(dropout):
    dropped = [layer.p for layer in layered(dropout=dropout).modules() if isinstance(layer, torch.nn.Dropout)]
    assert len(dropped) == 1 + 3 * 6  # embeddings; attention and both sums of a layer
    assert set(dropped) == {dropout}


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "minilm"])
def test_layered_when_folder_is_named_then_states_after_the_tapped_layers_of_the_whole_model(folders, kind):
    text = layered(text_encoder=str(folders / kind), text_features=(2, 4, 5))
    text.load_pretrained(folders / kind)
    whole = AutoModel.from_pretrained(folders / kind).eval()
    ids = IDS.masked_fill(~VALID, whole.config.pad_token_id)
    with torch.no_grad():
        states = whole(input_ids=ids, attention_mask=VALID.long(), output_hidden_states=True).hidden_states
        grains = text(IDS, VALID)
    assert len(grains) == 3
    for grain, tap in zip(grains, (2, 4, 5), strict=True):
        torch.testing.assert_close(grain[VALID], states[tap][VALID])
    assert text.body.config.num_hidden_layers == 6
    assert not [name for name, _ in text.named_parameters() if "pooler" in name or "layer.6." in name]


def test_layered_when_a_configuration_lists_its_layers_then_what_is_stored_of_the_first_builds_them_again(tmp_path):
    sizes = {"hidden_size": 12, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 24}
    ModernBertModel(ModernBertConfig(vocab_size=13, pad_token_id=0, **sizes)).save_pretrained(tmp_path)
    text = layered(text_encoder=str(tmp_path))
    text.load_pretrained(tmp_path)
    again = layered(text_encoder=config_as_text(text.body.config))
    again.load_state_dict(text.state_dict())
    with torch.no_grad():
        for one, two in zip(text(IDS, VALID), again(IDS, VALID), strict=True):
            assert torch.equal(one, two)


def test_config_as_text_when_the_library_refuses_its_own_then_one_sentence():
    config = ModernBertConfig(num_hidden_layers=8)
    config.num_hidden_layers = 3
    with pytest.raises(
        ValueError, match="expected a configuration of the kind 'modernbert' that can be stored"
    ) as told:
        config_as_text(config)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["", "bert", "roberta", "distilbert"])
def test_layered_when_its_lowest_parts_are_asked_for_then_words_and_layers_from_below(folders, kind):
    text = layered(**({"text_encoder": str(folders / kind)} if kind else {}))
    names = {id(parameter): name for name, parameter in text.body.named_parameters()}
    stages = [{names[id(p)] for p in text.lowest_parameters(k)} for k in range(8)]
    assert stages[0] == set()
    assert stages[1] == {name for name in names.values() if name.startswith("embeddings.")}
    for layer, (less, more) in enumerate(pairwise(stages[1:])):
        assert less < more
        assert all(f"layer.{layer}." in name for name in more - less)
    assert stages[7] == set(names.values())
    with pytest.raises(ValueError, match=r"expected freeze_text in 0\.\.7, word vectors and 6 layers, got 8"):
        text.lowest_parameters(8)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_layered_when_padding_grows_or_changes_then_real_words_do_not(folders, kind):
    text = layered(text_encoder=str(folders / kind))
    other_ids = torch.cat([torch.where(VALID, IDS, 5), torch.full((2, 3), 9)], 1)
    with torch.no_grad():
        one = text(IDS, VALID)
        two = text(other_ids, torch.nn.functional.pad(VALID, (0, 3)))
        alone = text(IDS[1:, :3], VALID[1:, :3])
    for grain, wider, single in zip(one, two, alone, strict=True):
        torch.testing.assert_close(grain[VALID], wider[:, :4][VALID], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(grain[1, :3], single[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("taps", [(6,), (2, 6), (1, 3, 5)])
def test_layered_when_fewer_or_other_features_are_asked_then_one_map_each(taps):
    text = layered(text_features=taps)
    with torch.no_grad():
        states = text.body(input_ids=IDS, attention_mask=VALID.long(), output_hidden_states=True).hidden_states
        grains = text(IDS, VALID)
    assert len(grains) == len(taps)
    for grain, tap in zip(grains, taps, strict=True):
        torch.testing.assert_close(grain[VALID], states[tap][VALID])


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_layered_when_bert_has_more_layers_and_words_then_the_first_are_taken(folders, put_on_hub, place):
    source = folders / "bert"
    if place == "hub":
        put_on_hub("someone/bert", source)
        source = "someone/bert"
    text = layered()
    text.load_pretrained(source)
    theirs = BertModel.from_pretrained(folders / "bert").state_dict()
    table = "embeddings.word_embeddings.weight"
    for name, tensor in text.body.state_dict().items():
        assert torch.equal(tensor, theirs[name][:13] if name == table else theirs[name]), name


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_layered_when_built_from_a_config_alone_then_the_same_names_and_any_vocabulary(
    tmp_path, folders, put_on_hub, place
):
    (tmp_path / "alone").mkdir()
    shutil.copy(folders / "roberta" / "config.json", tmp_path / "alone")
    name = str(tmp_path / "alone")
    if place == "hub":
        put_on_hub("someone/roberta", name)
        name = "someone/roberta"
    alone = layered(text_encoder=name, vocab_size=11)
    full = layered(text_encoder=str(folders / "roberta"))
    assert alone.state_dict().keys() == full.state_dict().keys()
    assert alone.body.get_input_embeddings().weight.shape == (11, 12)


def test_layered_when_the_folder_holds_half_precision_then_float32_is_built_and_loaded(tmp_path, folders):
    half = AutoModel.from_pretrained(folders / "bert").half()
    half.save_pretrained(tmp_path)
    assert '"float16"' in (tmp_path / "config.json").read_text()
    text = layered(text_encoder=str(tmp_path))
    text.load_pretrained(tmp_path)
    assert {p.dtype for p in text.parameters()} == {torch.float32}
    name = "encoder.layer.2.output.dense.weight"
    assert torch.equal(text.body.state_dict()[name], half.state_dict()[name].float())


def test_layered_when_the_configuration_itself_is_named_then_the_same_network_and_nothing_else_of_it(folders):
    text = layered(text_encoder=str(folders / "roberta"))
    told = config_as_text(text.body.config)
    again = layered(text_encoder=told)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in text.named_parameters()}
    assert again.padding_id == text.padding_id
    assert config_as_text(again.body.config) == told
    assert not [word for word in (str(folders), "float32", "transformers_version", "label") if word in told]


def test_layered_when_a_configuration_names_code_then_it_is_not_looked_for(folders):
    values = json.loads(config_as_text(layered(text_encoder=str(folders / "bert")).body.config))
    values |= {"attn_implementation": "someone/kernel", "auto_map": {"AutoModel": "evil.Model"}}
    text = layered(text_encoder=json.dumps(values))
    assert text.body.config._attn_implementation in ("sdpa", "eager")
    assert type(text.body) is BertModel


@pytest.mark.parametrize(
    ("values", "source", "words"),
    [
        ({}, "shallow", "at least 6 layers"),
        ({}, "roberta", "of the kind 'bert'"),
        ({}, "minilm", "intermediate.dense.weight (24, 12) for (48, 12)"),
        ({"vocab_size": 16}, "bert", "other shape: embeddings.word_embeddings.weight (15, 12) for (16, 12)"),
        ({"text_dim": 24}, "bert", "set text_dim=12"),
    ],
    ids=["layers", "kind", "shape", "words", "width"],
)
def test_load_layered_when_the_source_does_not_fit_then_one_sentence_and_nothing_loaded(folders, values, source, words):
    text = layered(**values)
    before = {k: v.clone() for k, v in text.state_dict().items()}
    with pytest.raises(ValueError, match=source) as caught:
        text.load_pretrained(folders / source)
    assert_one_sentence(caught, words)
    assert all(torch.equal(before[k], v) for k, v in text.state_dict().items())


def test_load_layered_when_weights_are_missing_then_one_sentence_lists_them(tmp_path, folders):
    shutil.copytree(folders / "bert", tmp_path / "part")
    state = load_file(tmp_path / "part" / "model.safetensors")
    del state["encoder.layer.3.output.dense.bias"]
    save_file(state, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing: ") as caught:
        layered().load_pretrained(tmp_path / "part")
    assert_one_sentence(caught, "missing: encoder.layer.3.output.dense.bias (1)")


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, None], ids=["empty", "noise", "none"])
def test_load_layered_when_the_weights_are_damaged_then_one_sentence(tmp_path, folders, content):
    shutil.copytree(folders / "bert", tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").unlink()
    if content is not None:
        (tmp_path / "bad" / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="weights of BertModel") as caught:
        layered().load_pretrained(tmp_path / "bad")
    assert_one_sentence(caught, "cannot be used")


def test_build_layered_when_the_model_has_too_few_layers_then_one_sentence(folders):
    with pytest.raises(ValueError, match="expected a model of at least 6 layers") as caught:
        layered(text_encoder=str(folders / "shallow"))
    assert_one_sentence(caught, "got 5", "shallow")
    assert len(layered(text_encoder=str(folders / "shallow"), text_layers=4, text_features=(1, 4))(IDS, VALID)) == 2


@pytest.mark.parametrize(
    "config", [GPT2Config(), BartConfig(), ResNetConfig(), CLIPConfig()], ids=lambda config: config.model_type
)
def test_build_layered_when_the_model_is_not_like_bert_then_one_sentence(tmp_path, config):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a BERT-like model") as caught:
        layered(text_encoder=str(tmp_path))
    assert_one_sentence(caught, repr(config.model_type))


def test_build_layered_when_the_sizes_cannot_be_built_then_one_sentence(tmp_path):
    RobertaConfig(hidden_size=12, num_attention_heads=5).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=tmp_path.name) as caught:
        layered(text_encoder=str(tmp_path))
    assert_one_sentence(caught, "cannot be used")


@pytest.mark.parametrize("name", ["bert-typo", "someone/unknown", "no/such/folder"])
def test_build_layered_when_there_is_no_such_name_then_one_sentence(put_on_hub, name):
    with pytest.raises(FileNotFoundError, match=r"config\.json") as caught:
        layered(text_encoder=name)
    assert_one_sentence(caught, repr(name))


def assert_one_sentence(caught, *words):
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    assert len(text) < 700
    for word in words:
        assert word in text
