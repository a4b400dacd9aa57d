import math

import pytest
import torch
from torch import nn

from deixis.config import preset
from deixis.models.smcim.interaction import AlternateLayer, JointEncoderLayer, LastStep, build_layer, sine_position

KINDS = {"ca2m": AlternateLayer, "encoder": JointEncoderLayer}
PIXEL_VALID = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
TOKEN_VALID = torch.tensor([[True, True, True, False], [True, True, False, False]])


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=sorted(KINDS))
def layer(request):
    return KINDS[request.param](dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()


@pytest.fixture
def inputs():
    return torch.randn(2, 6, 8), torch.randn(2, 4, 8), PIXEL_VALID, TOKEN_VALID


def step_of(layer, visual, textual, pixel_valid, token_valid, position=None):
    refined, _ = layer(visual, textual, pixel_valid, token_valid, position)
    return LastStep(visual, textual, refined, pixel_valid, token_valid, position)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("dim", "heads", "expected"), [(256, 8, 789_760), (768, 12, 7_087_872)])
def test_layers_when_counted_then_two_blocks_against_one(dim, heads, expected):
    """A block: four projections, a feed-forward of four times the width, all with biases, and two norms."""
    by_hand = 4 * (dim * dim + dim) + (4 * dim * dim + 4 * dim) + (4 * dim * dim + dim) + 2 * 2 * dim
    assert by_hand == expected
    with torch.device("meta"):
        assert count(AlternateLayer(dim=dim, heads=heads, ffn_dim=4 * dim, dropout=0.1)) == 2 * expected
        assert count(JointEncoderLayer(dim=dim, heads=heads, ffn_dim=4 * dim, dropout=0.1)) == expected


def test_stacks_when_counted_then_as_in_table_5():
    """Six blocks of grouping and three of merging: 52.00M, of which encoder layers save 26.00M; the paper 26.01M."""
    found = {}
    for kind in KINDS:
        config = preset("smcim-r50", interaction=kind)
        with torch.device("meta"):
            grouping, merging = build_layer(config, dim=256, heads=8), build_layer(config, dim=768, heads=12)
        found[kind] = 6 * count(grouping) + 3 * count(merging)
    assert found == {"ca2m": 52_004_352, "encoder": 26_002_176}
    assert abs(found["ca2m"] - found["encoder"] - 26.01e6) < 0.01e6


def test_build_layer_when_configured_then_every_field_is_used():
    layer = build_layer(preset("smcim-r50", activation="gelu", ffn_ratio=3, dropout=0.25), dim=12, heads=6)
    block = layer.visual
    assert (block.attention.heads, block.attention.dropout, block.dropout.p) == (6, 0.25, 0.25)
    assert [type(part) for part in block.ffn] == [nn.Linear, nn.GELU, nn.Dropout, nn.Linear]
    assert (block.ffn[0].out_features, block.ffn[2].p) == (36, 0.25)
    assert isinstance(build_layer(preset("smcim-r50"), dim=12, heads=6).visual.ffn[1], nn.ReLU)


def test_alternate_when_read_as_equations_3_to_6_then_the_same(inputs):
    layer = AlternateLayer(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    visual, textual, pixel_valid, token_valid = inputs
    v, w = layer.visual, layer.textual
    starred = v.attention_norm(visual + v.attention(visual, textual, token_valid))  # Eq. 3
    refined = v.ffn_norm(starred + v.ffn(starred))  # Eq. 4
    words = w.attention_norm(textual + w.attention(textual, refined, pixel_valid))  # Eq. 5, with F'_v
    words = w.ffn_norm(words + w.ffn(words))  # Eq. 6
    got = layer(*inputs)
    close(got[0], refined)
    close(got[1], words)


def test_joint_when_read_as_an_encoder_layer_of_pytorch_then_the_same(inputs):
    """The layer of section IV-D4 is that of reference [30], which PyTorch has too."""
    layer = JointEncoderLayer(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train()  # eval would drop padding
    a, block = layer.block.attention, layer.block
    pairs = {
        "self_attn.in_proj_weight": torch.cat([a.query.weight, a.key.weight, a.value.weight]),
        "self_attn.in_proj_bias": torch.cat([a.query.bias, a.key.bias, a.value.bias]),
        "self_attn.out_proj": a.out, "linear1": block.ffn[0], "linear2": block.ffn[3],
        "norm1": block.attention_norm, "norm2": block.ffn_norm,
    }  # fmt: skip
    state = {}
    for name, part in pairs.items():
        state |= {name: part} if isinstance(part, torch.Tensor) else {
            f"{name}.{key}": value for key, value in part.state_dict().items()
        }  # fmt: skip
    theirs.load_state_dict(state)
    visual, textual, pixel_valid, token_valid = inputs
    padding = ~torch.cat([pixel_valid, token_valid], 1)
    expected = theirs(torch.cat([visual, textual], 1), src_key_padding_mask=padding)
    got = layer(*inputs)
    close(torch.cat(got, 1), expected)


def test_layer_when_padding_changes_then_what_is_real_does_not(layer, inputs):
    visual, textual, pixel_valid, token_valid = inputs
    one = layer(*inputs)
    changed = torch.where(pixel_valid[..., None], visual, -50), torch.where(token_valid[..., None], textual, 50)
    two = layer(*changed, pixel_valid, token_valid)
    for index, valid in enumerate((pixel_valid, token_valid)):
        close(one[index][valid], two[index][valid])
        assert (one[index] - two[index]).abs().max() > 0.1


def test_layer_when_no_positions_or_zeros_then_the_same(layer, inputs):
    for a, b in zip(layer(*inputs), layer(*inputs, torch.zeros(6, 8)), strict=True):
        close(a, b, 1e-6)


def test_layer_when_pixels_and_their_positions_are_permuted_then_answers_are_too(layer, inputs):
    visual, textual, pixel_valid, token_valid = inputs
    position, order = torch.randn(6, 8), torch.tensor([3, 1, 0, 5, 4, 2])
    one = layer(visual, textual, pixel_valid, token_valid, position)
    two = layer(visual[:, order], textual, pixel_valid[:, order], token_valid, position[order])
    close(one[0][:, order], two[0])
    close(one[1], two[1])
    without = layer(visual[:, order], textual, pixel_valid[:, order], token_valid, position)  # these stayed behind
    assert (without[1] - one[1]).abs().max() > 1e-3


def test_layer_when_positions_are_given_then_values_know_nothing_of_them(layer, inputs):
    """One real pixel and one real word: whoever looks there gets the value, wherever the pixel stands."""
    visual, textual, _, _ = inputs
    pixel_valid, token_valid = torch.arange(6) < torch.ones(2, 1), torch.arange(4) < torch.ones(2, 1)
    if isinstance(layer, JointEncoderLayer):
        token_valid = torch.zeros_like(token_valid)
    one = layer(visual, textual, pixel_valid, token_valid, torch.randn(6, 8))
    two = layer(visual, textual, pixel_valid, token_valid, torch.randn(6, 8))
    close(one[1], two[1])


def test_seen_when_summed_then_one_and_none_on_padding(layer, inputs):
    step = step_of(layer, *inputs, torch.randn(6, 8))
    for seen, valid in ((layer.pixels_seen(step), PIXEL_VALID), (layer.words_seen(step), TOKEN_VALID)):
        assert seen.shape == valid.shape
        assert seen.dtype == torch.float32
        close(seen.sum(-1), torch.ones(2))
        assert torch.equal(seen > 0, valid)


def test_pixels_seen_when_the_values_are_weighted_by_it_then_what_attention_gives(inputs):
    """With values and output of the identity and one head, the result of Eq. 2 is the mean weighted by what is seen."""
    layer = AlternateLayer(dim=8, heads=1, ffn_dim=16, dropout=0.0).eval()
    position = torch.randn(6, 8)
    step = step_of(layer, *inputs, position)
    attention = layer.textual.attention
    with torch.no_grad():
        for part in (attention.value, attention.out):
            nn.init.eye_(part.weight)
            nn.init.zeros_(part.bias)
    expected = attention(step.textual[:, :1], step.refined, PIXEL_VALID, memory_position=position)
    close(layer.pixels_seen(step)[:, None] @ step.refined, expected)


def test_words_seen_when_pixels_look_at_one_word_then_that_word():
    layer = AlternateLayer(dim=2, heads=1, ffn_dim=4, dropout=0.0).eval()
    with torch.no_grad():
        for part in (layer.visual.attention.query, layer.visual.attention.key):
            nn.init.eye_(part.weight)
            nn.init.zeros_(part.bias)
    visual, textual = torch.tensor([[[40.0, 0.0]] * 4]), torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]])
    step = step_of(layer, visual, textual, torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool))
    close(layer.words_seen(step), torch.tensor([[0.0, 1.0, 0.0]]))


def test_words_seen_when_encoder_then_what_cls_gives_to_words_alone(inputs):
    layer = JointEncoderLayer(dim=8, heads=2, ffn_dim=16, dropout=0.0).eval()
    visual, textual, pixel_valid, token_valid = inputs
    step = step_of(layer, *inputs)
    tokens, valid = torch.cat([visual, textual], 1), torch.cat([pixel_valid, token_valid], 1)
    weights = layer.block.attention.weights(tokens, tokens, valid)[:, 6]  # the row of the first word
    close(layer.pixels_seen(step), weights[:, :6] / weights[:, :6].sum(-1, keepdim=True))
    close(layer.words_seen(step), weights[:, 6:] / weights[:, 6:].sum(-1, keepdim=True))


def test_sine_position_when_worked_by_hand_then_sines_and_cosines_of_y_then_x():
    got = sine_position(2, 8, torch.zeros(1))
    assert got.shape == (4, 8)
    # cell (y 0.25, x 0.75); wavelengths 1 and 100 canvases
    y, x = (0.5 * math.pi, 0.005 * math.pi), (1.5 * math.pi, 0.015 * math.pi)
    expected = [f(a) for angles in (y, x) for f in (math.sin, math.cos) for a in angles]
    close(got[1], torch.tensor(expected), 1e-6)


def test_sine_position_when_two_cells_are_compared_then_they_differ():
    places = sine_position(16, 96, torch.zeros(1))
    distance = torch.cdist(places, places) + torch.eye(256)
    assert distance.min() > 0.1
    assert sine_position(2, 8, torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.bfloat16
