import math

import pytest
import torch
from torch import nn

from deixis.models.attention import AlternateAttention, Attention, AttentionBlock, PositionEncoding

VALID = torch.tensor([[True, True, True, False], [True, False, True, True]])


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def identity_attention(dim=2):
    """Attention whose four projections do nothing."""
    attention = Attention(dim=dim, heads=1)
    with torch.no_grad():
        for layer in (attention.query, attention.key, attention.value, attention.out):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
    return attention


def test_attention_when_worked_by_hand_then_softmax_of_scaled_products():
    query = torch.tensor([[[math.sqrt(2.0), 0.0]]])
    memory = torch.tensor([[[math.log(3.0), 0.0], [0.0, 1.0]]])  # scaled products log 3 and 0: weights 3/4, 1/4
    close(identity_attention()(query, memory), torch.tensor([[[0.75 * math.log(3.0), 0.25]]]))


def test_attention_when_one_token_is_real_then_its_value():
    memory = torch.randn(1, 3, 2)
    got = identity_attention()(torch.randn(1, 5, 2), memory, torch.tensor([[False, True, False]]))
    close(got, memory[:, 1:2].expand(1, 5, 2))


@pytest.mark.parametrize(("queries", "keys"), [(4, 7), (150, 4), (4, 150), (150, 150)])
def test_attention_when_training_then_what_the_library_computes_and_its_gradients(queries, keys, monkeypatch):
    attention = Attention(dim=8, heads=2)
    valid = torch.rand(2, keys) > 0.3
    valid[:, 0] = True
    inputs = torch.randn(2, queries, 8, requires_grad=True), torch.randn(2, keys, 8, requires_grad=True)
    wanted = [*inputs, *attention.parameters()]
    got = attention(*inputs, valid)
    gradients = torch.autograd.grad(got.square().sum(), wanted)
    monkeypatch.setattr("deixis.models.attention._FEW", 0)
    same = attention(*inputs, valid)
    close(got, same)
    close(gradients, torch.autograd.grad(same.square().sum(), wanted), 1e-4)


def test_attention_when_training_with_dropout_then_what_is_left_is_scaled_up():
    attention = Attention(dim=2, heads=1, dropout=0.75)
    attention.load_state_dict(identity_attention().state_dict())
    got = attention(torch.zeros(1, 1000, 2), torch.ones(1, 1, 2))
    assert set(got.unique().tolist()) == {0.0, 4.0}


def test_attention_when_heads_do_not_divide_width_then_one_sentence():
    with pytest.raises(ValueError, match="expected a width that 3 heads divide, got 8"):
        Attention(dim=8, heads=3)


def test_block_when_masked_memory_changes_then_nothing_changes():
    block = AttentionBlock(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    query, memory = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    changed = torch.where(VALID[..., None], memory, 1e3)
    close(block(query, memory, VALID), block(query, changed, VALID))
    assert (block(query, memory) - block(query, changed)).abs().max() > 1e-3


def test_block_when_queries_are_permuted_then_answers_are_too():
    block = AttentionBlock(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    query, memory, order = torch.randn(2, 5, 8), torch.randn(2, 4, 8), torch.randperm(5)
    close(block(query[:, order], memory, VALID), block(query, memory, VALID)[:, order])


def test_block_when_memory_is_permuted_then_answers_stay():
    block = AttentionBlock(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    query, memory, order = torch.randn(2, 5, 8), torch.randn(2, 4, 8), torch.randperm(4)
    close(block(query, memory[:, order], VALID[:, order]), block(query, memory, VALID))


def test_block_when_fresh_then_output_is_normalised_last():
    """Post-norm: every token leaves with mean 0 and variance 1, whatever the size of the input."""
    block = AttentionBlock(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    out = block(100 * torch.randn(2, 5, 8), torch.randn(2, 4, 8), VALID)
    close(out.mean(-1), torch.zeros(2, 5))
    close(out.var(-1, unbiased=False), torch.ones(2, 5), 1e-3)


def test_block_when_counted_then_parameters_as_worked_out():
    dim, hidden = 8, 16
    block = AttentionBlock(dim=dim, heads=2, ffn_dim=hidden, dropout=0.0)
    expected = 4 * (dim * dim + dim) + 2 * 2 * dim + (dim * hidden + hidden) + (hidden * dim + dim)
    assert sum(p.numel() for p in block.parameters()) == expected == 600


def test_block_when_dropout_and_training_then_output_varies_and_in_eval_not():
    block = AttentionBlock(dim=8, heads=2, ffn_dim=16, dropout=0.5)
    query, memory = torch.randn(1, 5, 8), torch.randn(1, 4, 8)
    assert not torch.equal(block(query, memory), block(query, memory))
    block.eval()
    assert torch.equal(block(query, memory), block(query, memory))


def test_block_when_all_that_dropout_can_drop_is_dropped_then_the_residuals_remain():
    block = AttentionBlock(dim=4, heads=2, ffn_dim=8, dropout=0.5)
    query = torch.randn(2, 3, 4)
    with torch.no_grad():
        block.dropout = nn.Dropout(1.0)
        close(block.train()(query, torch.randn(2, 4, 4)), block.ffn_norm(block.attention_norm(query)))


def test_alternate_when_masked_tokens_change_then_real_ones_do_not():
    layer = AlternateAttention(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    visual, textual = torch.randn(2, 6, 8), torch.randn(2, 4, 8)
    pixel_valid = torch.arange(6) < torch.tensor([[6], [4]])
    one = layer(visual, textual, pixel_valid, VALID)
    changed = (torch.where(pixel_valid[..., None], visual, -50), torch.where(VALID[..., None], textual, 50))
    two = layer(*changed, pixel_valid, VALID)
    close(one[0][pixel_valid], two[0][pixel_valid])
    close(one[1][VALID], two[1][VALID])


def test_alternate_when_words_attend_then_they_see_the_refined_pixels():
    layer = AlternateAttention(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    visual, textual = torch.randn(1, 6, 8), torch.randn(1, 4, 8)
    pixels, token_valid = torch.ones(1, 6, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    refined, words = layer(visual, textual, pixels, token_valid)
    close(refined, layer.visual(visual, textual, token_valid))
    close(words, layer.textual(textual, refined, pixels))


def test_position_when_worked_by_hand_then_sines_and_cosines_of_octaves():
    encoding = PositionEncoding(dim=4, octaves=2)
    seen = []
    encoding.project[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert encoding(torch.tensor([0.5, 0.25])).shape == (4,)
    half = math.sqrt(0.5)
    # (2x-1, 2y-1), sin of pi x, 2 pi x, pi y, 2 pi y, then their cos
    close(seen[0], torch.tensor([0, -0.5, 1, 0, half, 1, 0, -1, half, 0]), 1e-6)


def test_position_when_saved_then_frequencies_are_not_in_the_file():
    assert not [name for name in PositionEncoding(dim=4).state_dict() if "frequencies" in name]


def test_position_when_module_is_bfloat16_then_angles_are_still_exact():
    xy = torch.rand(50, 2)
    seen = []
    for module in (PositionEncoding(dim=4), PositionEncoding(dim=4).bfloat16()):
        module.project.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].float()))
        module(xy)
    close(seen[0], seen[1], 0.005)  # half a step of bfloat16 near 1
