"""Overlaps from runs: what pixels and pycocotools say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.geometry.masks import encode_rle
from deixis.geometry.run_lengths import area_of_runs, overlap_of_runs, run_lengths


def random_mask(seed, hw, share):
    return np.random.default_rng(seed).random(hw) < share


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99), st.tuples(st.integers(1, 9), st.integers(1, 9)), *[st.sampled_from((0.0, 0.2, 0.7, 1.0))] * 2
)
def test_overlap_when_compared_with_pixels_then_equal(seed, hw, first, second):
    a, b = random_mask(seed, hw, first), random_mask(seed + 1, hw, second)
    runs_a, runs_b = run_lengths(encode_rle(a)), run_lengths(encode_rle(b))
    assert area_of_runs(runs_a) == a.sum()
    assert overlap_of_runs(runs_a, runs_b) == (a & b).sum()


def test_iou_when_compared_with_pycocotools_then_within_1e_9():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :160]
    for _ in range(20):
        a, b = ((columns - x) ** 2 + (rows - y) ** 2 < r**2 for x, y, r in rng.uniform(20, 90, (2, 3)))
        rle_a, rle_b = encode_rle(a), encode_rle(b)
        shared = overlap_of_runs(run_lengths(rle_a), run_lengths(rle_b))
        union = area_of_runs(run_lengths(rle_a)) + area_of_runs(run_lengths(rle_b)) - shared
        expected = float(coco.iou([rle_a], [rle_b], [0])[0, 0])
        assert shared / union == pytest.approx(expected, abs=1e-9)


def test_run_lengths_when_plain_counts_have_empty_runs_then_overlap_is_right():
    a = run_lengths({"size": [2, 3], "counts": [0, 2, 0, 1, 3]})
    b = run_lengths({"size": [2, 3], "counts": [2, 0, 0, 4, 0]})
    assert area_of_runs(a) == 3
    assert overlap_of_runs(a, b) == 1


@pytest.mark.parametrize(
    "rle",
    [
        {}, {"size": [2, 2]}, {"size": [2, 2], "counts": 4}, {"size": [2, 2], "counts": []},
        {"size": [2, 2], "counts": [5]}, {"size": [2, 2], "counts": [-1, 5]}, {"size": [2, 2], "counts": "\x00"},
        {"size": [0, 2], "counts": [0]}, {"size": [10**9, 10**9], "counts": [10**18]},
    ],
)  # fmt: skip
def test_run_lengths_when_malformed_then_value_error(rle):
    with pytest.raises(ValueError, match="expected"):
        run_lengths(rle)
