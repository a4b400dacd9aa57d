import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.mcn.garan import Attended, Garan

GENERATOR = torch.Generator().manual_seed(0)


def mean_direction(energy, features, eps=1e-6):
    """The unit features [P, N, D], averaged by the attention of energies [P, N]."""
    weights = energy.softmax(-1) / torch.linalg.vector_norm(features, dim=-1).clamp(min=eps)
    return (weights[:, None] @ features).squeeze(1)


def random(*shape):
    return torch.randn(shape, generator=GENERATOR)


@pytest.fixture
def garan():
    torch.manual_seed(0)
    layer = Garan(dim=8, query_dim=12, heads=2).eval()
    for linear in (layer.collect_key, layer.value, layer.distribute_key, layer.query):
        torch.nn.init.normal_(linear.bias)
    return layer


def literal(layer, visual, query):
    """F_att by loops over phrases and heads, as the paper's code has it."""
    attended = torch.zeros_like(visual)
    d, q = visual.shape[1] // layer.heads, query.shape[1] // layer.heads
    for p in range(len(visual)):
        for h in range(layer.heads):
            tokens = visual[p, h * d : (h + 1) * d].flatten(1).T  # [N, d]
            asked = layer.query(query[p, h * q : (h + 1) * q])
            collect = (layer.collect_key(tokens) @ asked / math.sqrt(q)).softmax(0)
            vector = collect @ layer.value(tokens)
            gate = (layer.distribute_key(tokens) @ asked / math.sqrt(q)).sigmoid()
            attended[p, h * d : (h + 1) * d] = torch.outer(vector, gate).view(d, *visual.shape[2:])
    return attended


def as_maps(layer, visual, query):
    """The refined map, and F_att as a map of the same shape."""
    refined, attended = layer(visual, query)
    return refined, attended.rows().mT.unflatten(-1, visual.shape[-2:])


def test_garan_when_run_then_equals_the_loops_over_heads(garan):
    visual, query = random(3, 8, 4, 5), random(3, 12)
    with torch.no_grad():
        refined, attended = as_maps(garan, visual, query)
        torch.testing.assert_close(attended, literal(garan, visual, query))
        torch.testing.assert_close(refined, F.leaky_relu(garan.norm(attended + visual), 0.1))


def test_garan_when_worked_by_hand_then_the_divisor_is_the_root_of_the_query_width_before_projection():
    """One head, one channel, two positions ln 1 and ln 3; the query projects to 2, divided by sqrt(4) that is 1.

    Shares 1/4 and 3/4, the collected value 3/4 ln 3; gates sigmoid(0) = 1/2 and sigmoid(ln 3) = 3/4.
    """
    layer = Garan(dim=1, query_dim=4, heads=1).eval()
    for linear, weight in (
        (layer.collect_key, 1.0),
        (layer.value, 1.0),
        (layer.distribute_key, 1.0),
        (layer.query, 0.5),
    ):
        torch.nn.init.constant_(linear.weight, weight)
        torch.nn.init.zeros_(linear.bias)
    visual = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
    with torch.no_grad():
        attended = layer(visual, torch.ones(1, 4))[1].rows().flatten()
    vector = 0.75 * math.log(3)
    torch.testing.assert_close(attended, torch.tensor([0.5 * vector, 0.75 * vector]))


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 5), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_garan_when_positions_are_permuted_then_both_maps_follow(height, width, seed):
    torch.manual_seed(seed)
    layer = Garan(dim=4, query_dim=6, heads=2).eval()
    visual, query = torch.randn(2, 4, height, width), torch.randn(2, 6)
    order = torch.randperm(height * width)
    permuted = visual.flatten(2)[..., order].unflatten(-1, (height, width))
    with torch.no_grad():
        for plain, moved in zip(as_maps(layer, visual, query), as_maps(layer, permuted, query), strict=True):
            assert plain.shape == visual.shape
            torch.testing.assert_close(moved.flatten(2), plain.flatten(2)[..., order])


def test_garan_when_map_is_transposed_then_nothing_but_that_happens(garan):
    visual, query = random(1, 8, 4, 6), random(1, 12)
    with torch.no_grad():
        for plain, turned in zip(as_maps(garan, visual, query), as_maps(garan, visual.mT, query), strict=True):
            torch.testing.assert_close(turned.mT, plain)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attended_when_seen_as_a_matrix_then_each_head_has_rank_one(heads):
    torch.manual_seed(1)
    layer = Garan(dim=16, query_dim=8, heads=heads).double().eval()
    with torch.no_grad():
        attended = layer(torch.randn(1, 16, 5, 5).double(), torch.randn(1, 8).double())[1]
    matrix = attended.rows()[0].T  # [dim, N]
    assert torch.linalg.matrix_rank(matrix) == heads
    for part in matrix.chunk(heads):
        assert torch.linalg.matrix_rank(part) == 1


def test_garan_when_heads_swap_places_then_so_does_what_they_give(garan):
    visual, query = random(2, 8, 3, 3), random(2, 12)
    with torch.no_grad():
        plain = garan(visual, query)[1].rows()
        swapped = garan(visual.roll(4, 1), query.roll(6, 1))[1].rows()
    torch.testing.assert_close(swapped, plain.roll(4, -1))


def test_attended_when_projected_then_as_the_convolution_of_its_map(garan):
    visual, query = random(2, 8, 3, 4), random(2, 12)
    conv = torch.nn.Conv2d(8, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(
            garan(visual, query)[1].project(conv), conv(as_maps(garan, visual, query)[1]).flatten(1)
        )


@settings(max_examples=15, deadline=None)
@given(heads=st.integers(1, 3), positions=st.integers(1, 6), seed=st.integers(0, 99), scale=st.sampled_from([1, 1e-9]))
def test_mean_direction_when_of_parts_then_as_of_all_rows(heads, positions, seed, scale):
    torch.manual_seed(seed)
    attended = Attended(torch.rand(2, positions, heads).double(), scale * torch.randn(2, heads, 3).double())
    energy = torch.randn(2, positions)
    torch.testing.assert_close(attended.mean_direction(energy), mean_direction(energy, attended.rows().float()))


def test_mean_direction_when_nothing_was_collected_then_zero_with_finite_gradients():
    vectors = torch.zeros(1, 2, 3, requires_grad=True)
    gate = torch.full((1, 4, 2), 0.5, requires_grad=True)
    mean = Attended(gate, vectors).mean_direction(torch.zeros(1, 4))
    mean.sum().backward()
    assert torch.equal(mean, torch.zeros(1, 6))
    assert torch.isfinite(gate.grad).all()
    assert torch.isfinite(vectors.grad).all()


@pytest.mark.parametrize(
    ("dim", "query_dim", "expected"),
    [
        (512, 1024, 3 * (256 * 256 + 256) + (512 * 256 + 256) + 2 * 512),  # 329,728
        (128, 256, 3 * (64 * 64 + 64) + (128 * 64 + 64) + 2 * 128),  # 20,992
    ],
)
def test_parameters_when_counted_then_heads_share_them(dim, query_dim, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in Garan(dim, query_dim, heads=2).parameters()) == expected


def test_garan_when_channels_last_then_the_same(garan):
    visual, query = random(2, 8, 4, 4), random(2, 12)
    with torch.no_grad():
        for a, b in zip(
            as_maps(garan, visual, query),
            as_maps(garan, visual.contiguous(memory_format=torch.channels_last), query),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("dim", "query_dim"), [(9, 12), (8, 11)])
def test_garan_when_heads_do_not_divide_the_widths_then_one_sentence(dim, query_dim):
    with pytest.raises(ValueError, match=f"divide the widths {dim} and {query_dim}, got 2"):
        Garan(dim, query_dim, heads=2)
