"""From the shares of word pieces to those of words."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.config import preset
from deixis.evaluate.word_attention import shares_of_words, words_reaching_cls
from deixis.geometry.images import Letterbox
from deixis.grounder import EncodedImage
from deixis.language.tokenizers import WordPieceTokenizer
from deixis.models.encoders.darknet import ThreeScales
from deixis.models.smcim.model import SmcimModel


@pytest.fixture(scope="module")
def make_tokenizer(bert_folder):
    return lambda max_tokens=40: WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=max_tokens)


def told(tokenizer, phrase, shares):
    return [(word, round(share, 6)) for word, share in shares_of_words(phrase, tokenizer, shares)]


def test_shares_when_a_word_has_two_pieces_then_both_are_its_own(make_tokenizer):
    # red, ball and ##s, left
    found = told(make_tokenizer(), "red balls left", [0.1, 0.2, 0.3, 0.15, 0.2, 0.05])
    assert found == [("[CLS]", 0.1), ("red", 0.2), ("balls", 0.45), ("left", 0.2), ("[SEP]", 0.05)]


def test_shares_when_the_phrase_was_cut_off_then_the_rest_has_none(make_tokenizer):
    found = told(make_tokenizer(4), "red balls left", [0.1, 0.2, 0.3, 0.4])
    assert found == [("[CLS]", 0.1), ("red", 0.2), ("balls", 0.3), ("left", 0.0), ("[SEP]", 0.4)]


@settings(max_examples=40, deadline=None)
@given(phrase=st.text(alphabet=st.sampled_from("redballs tl,'-é犬\x1c\u00a0.1"), min_size=1, max_size=40))
def test_shares_when_any_words_then_one_row_each_and_all_adds_up(make_tokenizer, phrase):
    tokenizer = make_tokenizer(400)
    count = int(tokenizer.encode([phrase])[1].sum())
    found = shares_of_words(phrase, tokenizer, [1 / count] * count)
    assert [word for word, _ in found] == ["[CLS]", *phrase.split(), "[SEP]"]
    assert sum(share for _, share in found) == pytest.approx(1)


def test_words_reaching_cls_when_a_model_looks_then_its_own_shares(monkeypatch, make_tokenizer):
    class NoEncoder(torch.nn.Module):
        channels = (4, 4, 4)

        def forward(self, pixels):
            sides = (pixels.shape[-1] // stride for stride in (8, 16, 32))
            return ThreeScales(*(torch.ones(len(pixels), 4, side, side) for side in sides))

    monkeypatch.setattr("deixis.models.smcim.model.build_smcim_encoder", lambda name: NoEncoder())
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    sizes = {"text_dim": 12, "text_heads": 2, "image_size": 64, "group_dim": 8, "group_heads": 2, "merge_heads": 3}
    model = SmcimModel(preset("smcim-tiny", **sizes, vocab_size=tokenizer.vocab_size)).eval()

    class Held:
        pass

    held = Held()
    held.model, held.tokenizer = model, tokenizer
    with torch.inference_mode():
        features = model.encode_image(torch.zeros(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    scene = EncodedImage(held, np.zeros((64, 64, 3), np.uint8), Letterbox.fit((64, 64), 64), features, 0.0)
    found = words_reaching_cls(scene, "red balls")
    assert [word for word, _ in found] == ["[CLS]", "red", "balls", "[SEP]"]
    ids, valid = (torch.from_numpy(one) for one in tokenizer.encode(["red balls"]))
    with torch.inference_mode():
        shares = model.word_attention(features, ids, valid)[0].tolist()
    assert [share for _, share in found] == pytest.approx([shares[0], shares[1], shares[2] + shares[3], shares[4]])
    held.model = torch.nn.Identity()
    assert words_reaching_cls(scene, "red balls") == []
