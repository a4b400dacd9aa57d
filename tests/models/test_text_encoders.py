import pytest
import torch

from deixis.config import preset
from deixis.models.text_encoders import BertEncoder, GloveGruEncoder, build_text_encoder


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
    from transformers import BertModel

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
    assert {n.split(".")[1] for n, p in bert.named_parameters() if id(p) in frozen} == {"embeddings"}
    assert not glove.vectors.weight.requires_grad
