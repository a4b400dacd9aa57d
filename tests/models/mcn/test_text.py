import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from deixis.models.mcn.text import GruAttentionEncoder, SelfGuidedAttention

IDS = torch.tensor([[2, 4, 6, 3], [5, 7, 0, 0], [1, 0, 0, 0]])
VALID = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])


def build(seed=0, **fields):
    torch.manual_seed(seed)
    fields = {"attend": True, "mask_padding": True, "train_words": False, **fields}
    return GruAttentionEncoder(9, 5, 6, **fields).eval()


@pytest.mark.parametrize("attend", [True, False])
@pytest.mark.parametrize("mask_padding", [True, False])
def test_encoder_when_run_then_one_vector_a_phrase(attend, mask_padding):
    with torch.no_grad():
        out = build(attend=attend, mask_padding=mask_padding)(IDS, VALID)
    assert out.shape == (3, 6)
    assert torch.isfinite(out).all()


@settings(max_examples=15, deadline=None)
@given(more=st.integers(0, 4), junk=st.integers(0, 8), attend=st.booleans())
def test_padding_when_masked_then_neither_its_width_nor_its_words_matter(more, junk, attend):
    encoder = build(attend=attend)
    wider = functional.pad(torch.where(VALID, IDS, junk), (0, more), value=junk)
    with torch.no_grad():
        torch.testing.assert_close(encoder(wider, functional.pad(VALID, (0, more))), encoder(IDS, VALID))


@pytest.mark.parametrize("attend", [True, False])
def test_phrase_when_alone_then_as_in_the_batch(attend):
    encoder = build(attend=attend)
    with torch.no_grad():
        together = encoder(IDS, VALID)
        for p, length in enumerate((4, 2, 1)):
            alone = encoder(IDS[p : p + 1, :length], VALID[p : p + 1, :length])
            torch.testing.assert_close(alone, together[p : p + 1])


@pytest.mark.parametrize("attend", [True, False])
def test_padding_when_not_masked_then_it_takes_part_as_in_the_official_code(attend):
    encoder = build(attend=attend, mask_padding=False)
    with torch.no_grad():
        short = encoder(IDS[1:2, :2], VALID[1:2, :2])
        padded = encoder(IDS[1:2], VALID[1:2])
        full = encoder(IDS[:1], VALID[:1])
        torch.testing.assert_close(full, build(attend=attend)(IDS[:1], VALID[:1]))
    assert not torch.allclose(short, padded, atol=1e-4)


def test_encoder_when_it_does_not_attend_then_the_last_states_of_both_directions_are_summed():
    encoder = build(attend=False)
    with torch.no_grad():
        states, _ = encoder.gru(encoder.vectors(IDS[:1]))
        torch.testing.assert_close(encoder(IDS[:1], VALID[:1]), states[:, -1, :6] + states[:, 0, 6:])


def test_encoder_when_there_is_one_word_then_attention_gives_its_state():
    encoder = build()
    with torch.no_grad():
        states, _ = encoder.gru(encoder.vectors(IDS[2:, :1]))
        torch.testing.assert_close(encoder(IDS[2:], VALID[2:]), states[:, 0, :6] + states[:, 0, 6:])


def test_attention_when_worked_by_hand_then_each_channel_weighs_the_words_for_itself():
    """Two words and a pad; with an identity for the dense layer, the scores are tanh of the states themselves."""
    attention = SelfGuidedAttention(2).eval()
    torch.nn.init.eye_(attention.dense.weight)
    states = torch.tensor([[[0.0, 2.0], [1.0, 0.0], [9.0, 9.0]]])
    with torch.no_grad():
        out = attention(states, torch.tensor([[True, True, False]]))
    a, b = torch.tensor([0.0, 1.0]).tanh().softmax(0), torch.tensor([2.0, 0.0]).tanh().softmax(0)
    torch.testing.assert_close(out, torch.stack([a[1] * 1.0, b[0] * 2.0])[None])


def test_attention_when_trained_then_a_tenth_of_the_scores_is_dropped_before_the_softmax():
    """Two words of the score 0.9 in every channel; what is kept is divided by 0.9, so scores are 0 or 1.

    The states are 1 and 0, so what comes out is the first word's weight.
    """
    attention = SelfGuidedAttention(4000)
    torch.nn.init.zeros_(attention.dense.weight)
    torch.nn.init.constant_(attention.dense.bias, math.atanh(0.9))
    states = torch.stack([torch.ones(1, 4000), torch.zeros(1, 4000)], 1)
    both = torch.ones(1, 2, dtype=torch.bool)
    torch.manual_seed(0)
    with torch.no_grad():
        weights, shares = attention(states, both).flatten().unique(return_counts=True)
        alone = attention.eval()(states, both)
    torch.testing.assert_close(weights, torch.tensor([1 / (1 + math.e), 0.5, math.e / (1 + math.e)]))
    torch.testing.assert_close(shares / 4000, torch.tensor([0.09, 0.82, 0.09]), atol=0.02, rtol=0)
    torch.testing.assert_close(alone, torch.full((1, 4000), 0.5))


@pytest.mark.parametrize("mask_padding", [True, False])
def test_phrase_when_it_has_no_word_then_the_vector_is_finite(mask_padding):
    with torch.no_grad():
        out = build(mask_padding=mask_padding)(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.isfinite(out).all()


def test_encoder_when_trained_then_dropout_changes_the_words_and_not_in_evaluation():
    encoder = build()
    with torch.no_grad():
        torch.testing.assert_close(encoder(IDS, VALID), encoder(IDS, VALID))
        encoder.train()
        assert not torch.allclose(encoder(IDS, VALID), encoder(IDS, VALID))


@pytest.mark.parametrize(("attend", "expected"), [(True, 510), (False, 468)])
def test_parameters_when_counted_then_as_worked_out(attend, expected):
    """Each direction: three gates of 6 from 5 words and 6 states, two biases: 3 * 6 * (5 + 6 + 2) = 234.

    Two directions 468, the attention 6 * 6 + 6 = 42; the 9 * 5 = 45 numbers of the words are fixed.
    """
    encoder = build(attend=attend)
    learning = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert learning == expected
    assert sum(p.numel() for p in encoder.parameters()) == learning + 45


def test_words_when_fixed_then_frozen_and_when_trained_then_padding_alone_stays():
    fixed, learning = build(), build(train_words=True)
    assert [p.numel() for p in fixed.frozen_parameters()] == [45]
    assert not fixed.vectors.weight.requires_grad
    assert learning.frozen_parameters() == []
    learning(IDS, VALID).sum().backward()
    moved = learning.vectors.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, True, True, True, True, True, True, True, False]


def test_vectors_when_loaded_then_they_begin_at_id_two_and_unknown_words_are_zeros():
    encoder = build()
    encoder.load_vectors(torch.arange(15.0).view(3, 5) + 1)
    assert not encoder.vectors.weight[:2].any()
    assert encoder.vectors.weight[2:5].flatten().tolist() == [float(i) for i in range(1, 16)]


@pytest.mark.parametrize("shape", [(3, 4), (8, 5), (5,)])
def test_vectors_when_of_another_size_then_one_sentence(shape):
    with pytest.raises(ValueError, match=r"expected up to 7 word vectors of width 5, got \("):
        build().load_vectors(torch.zeros(shape))
