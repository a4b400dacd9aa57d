"""Masks: the codec against pycocotools, polygons by hand and back, damaged input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from deixis.geometry.images import MAX_PIXELS
from deixis.geometry.masks import (
    area_of_runs,
    box_from_mask,
    decode_rle,
    encode_rle,
    overlap_of_runs,
    polygons_from_mask,
    rasterize_polygons,
    read_mask,
    run_lengths,
)

# pycocotools' own decoder has not followed numpy 2 yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@st.composite
def masks(draw):
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.random((height, width)) < draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))


def disc(hw=(480, 640), centre_xy=(320, 240), radius=150):
    y, x = np.mgrid[: hw[0], : hw[1]]
    return (x + 0.5 - centre_xy[0]) ** 2 + (y + 0.5 - centre_xy[1]) ** 2 < radius**2


def coco_bytes(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_encode_rle_when_worked_by_hand_then_columns_come_first():
    mask = np.array([[0, 1], [1, 1], [0, 0]], dtype=bool)  # columns 010 and 110: runs 1 1 1 2 1
    rle = encode_rle(mask)
    assert rle["size"] == [3, 2]
    # 1, 1, 1, then 2 - 1 = 1 and 1 - 1 = 0, each a letter from "0" on
    assert rle["counts"] == "11110"


@settings(max_examples=150, deadline=None)
@given(masks())
def test_encode_rle_when_any_mask_then_bytes_equal_pycocotools_and_both_read_both(mask):
    rle = encode_rle(mask)
    assert rle["counts"].encode() == coco_bytes(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    theirs = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()})
    np.testing.assert_array_equal(theirs.astype(bool), mask)


@pytest.mark.parametrize("value", [False, True])
def test_encode_rle_when_large_and_uniform_then_equals_pycocotools(value):
    mask = np.full((2000, 3000), value)
    assert encode_rle(mask)["counts"].encode() == coco_bytes(mask)
    assert decode_rle(encode_rle(mask)).sum() == mask.sum()


def test_encode_rle_when_runs_jump_between_long_and_short_then_equals_pycocotools():
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[500, ::7] = True
    mask[:, 40:300] = True
    mask[3, 3] = True
    assert encode_rle(mask)["counts"].encode() == coco_bytes(mask)
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)), mask)


def test_decode_rle_when_counts_are_bytes_or_a_list_then_same_mask():
    mask = disc((40, 30), (10, 20), 8)
    rle = encode_rle(mask)
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    for form in (rle["counts"].encode(), counts, tuple(counts), np.array(counts)):
        np.testing.assert_array_equal(decode_rle({"size": [40, 30], "counts": form}), mask)


def test_decode_rle_when_a_run_inside_is_empty_then_read_as_pycocotools_reads_it():
    np.testing.assert_array_equal(decode_rle({"size": [2, 2], "counts": [1, 1, 0, 2]}), [[0, 1], [1, 1]])


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 2]},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": []},
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": [1.5, 2.5]},
        {"size": [2, 2], "counts": ["4"]},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [2, 2], "counts": [10**30]},
        {"size": [2, 2], "counts": [2**62, 2**62, 2**62, 2**62, 4]},  # adds up to 4 where sums wrap around
        {"size": [2, 2], "counts": "P"},  # says that another letter follows
        {"size": [2, 2], "counts": "\u00e9"},
        {"size": [2, 2], "counts": "\ud800"},
        {"size": [2, 2], "counts": " "},
        {"size": [2, 2], "counts": "o" * 12 + "0"},
        {"size": [2, 2], "counts": "4" * 1000},
        {"size": [2], "counts": "4"},
        {"size": [2, -2], "counts": "4"},
        {"size": [0, 2], "counts": "0"},
        {"size": [True, 4], "counts": "4"},
        {"size": ["2", 2], "counts": "4"},
        {"size": [2.0, 2], "counts": "4"},
        {"size": "22", "counts": "4"},
        {"size": [MAX_PIXELS, 2], "counts": [2 * MAX_PIXELS]},
        {"size": [10**9, 10**9], "counts": [10**18]},
    ],
)
def test_decode_rle_when_malformed_then_value_error_says_what_was_expected(rle):
    with pytest.raises(ValueError, match=r"^expected"):
        decode_rle(rle)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_decode_rle_when_any_letters_then_mask_or_value_error(text):
    try:
        mask = decode_rle({"size": [3, 5], "counts": text})
    except ValueError:
        return
    assert mask.shape == (3, 5)


def test_encode_rle_when_no_pixels_then_value_error():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        encode_rle(np.zeros((0, 3), dtype=bool))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99), st.tuples(st.integers(1, 9), st.integers(1, 9)), *[st.sampled_from((0.0, 0.2, 0.7, 1.0))] * 2
)
def test_overlap_when_compared_with_pixels_then_equal(seed, hw, first, second):
    a, b = (np.random.default_rng(seed + k).random(hw) < share for k, share in enumerate((first, second)))
    runs_a, runs_b = run_lengths(encode_rle(a)), run_lengths(encode_rle(b))
    assert area_of_runs(runs_a) == a.sum()
    assert overlap_of_runs(runs_a, runs_b) == (a & b).sum()


def test_iou_when_compared_with_pycocotools_then_within_1e_9():
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


def test_rasterize_polygons_when_rectangle_then_centres_in_fifths_of_a_pixel_decide():
    # in fifths x goes from 5 to 17 and y from 3 to 13; a centre's fifth is 2 + 5 k: columns 1, 2 and rows 1, 2
    mask = rasterize_polygons([[1, 0.6, 3.4, 0.6, 3.4, 2.6, 1, 2.6]], (4, 5))
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:3] = True
    np.testing.assert_array_equal(mask, expected)


def test_rasterize_polygons_when_triangle_then_worked_by_hand():
    # (0,0) (4,0) (0,4), in fifths 20: between x = 5 k + 2 and 5 k + 3 the long side lies at y = 17 - 5 k, above the
    # centre's fifth 5 r + 2 of the rows r from 3 - k on; so column k holds the rows before
    mask = rasterize_polygons([[0, 0, 4, 0, 0, 4]], (4, 4))
    np.testing.assert_array_equal(mask.sum(axis=1), [3, 2, 1, 0])
    np.testing.assert_array_equal(mask.sum(axis=0), [3, 2, 1, 0])


def test_rasterize_polygons_when_two_overlap_then_union():
    mask = rasterize_polygons([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], (4, 4))
    assert mask.sum() == 4 + 4 - 1


def test_rasterize_polygons_when_outside_the_image_then_cut_at_its_border():
    mask = rasterize_polygons([[-50, -50, 50, -50, 50, 2, -50, 2]], (5, 6))
    np.testing.assert_array_equal(mask.sum(axis=1), [6, 6, 0, 0, 0])
    assert not rasterize_polygons([[100, 100, 200, 100, 200, 200]], (5, 6)).any()
    assert not rasterize_polygons([[-9, 0, -2, 0, -2, 5, -9, 5]], (5, 6)).any()


def test_rasterize_polygons_when_none_then_empty():
    assert not rasterize_polygons([], (3, 4)).any()


POINTS = st.one_of(
    st.floats(-30, 90), st.integers(-30, 90).map(float), st.floats(0, 60).map(lambda value: round(value, 1))
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.tuples(POINTS, POINTS), min_size=3, max_size=20), min_size=1, max_size=3),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_rasterize_polygons_when_of_any_points_then_pixel_for_pixel_as_pycocotools(polygons, height, width):
    flat = [[value for point in polygon for value in point] for polygon in polygons]
    theirs = coco.decode(coco.merge(coco.frPyObjects(flat, height, width))).astype(bool)
    np.testing.assert_array_equal(rasterize_polygons(flat, (height, width)), theirs)


def test_rasterize_polygons_when_the_border_is_drawn_in_parts_then_nothing_is_lost(monkeypatch):
    star = [
        50 + 40 * math.cos(2.4 * k) if axis == 0 else 50 + 40 * math.sin(2.4 * k) for k in range(9) for axis in (0, 1)
    ]
    whole = rasterize_polygons([star], (100, 100))
    monkeypatch.setattr("deixis.geometry.masks._BORDER_AT_ONCE", 100)
    np.testing.assert_array_equal(rasterize_polygons([star], (100, 100)), whole)


@pytest.mark.parametrize(
    "polygon",
    [
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [],
        [1, 2, 3, 4, 5, math.nan],
        [1, 2, 3, 4, 5, math.inf],
        [1, 2, 3, 4, 5, 1e9],
        [[1, 2], [3, 4], [5, 6]],
        ["a", 2, 3, 4, 5, 6],
        [None, 2, 3, 4, 5, 6],
        "polygon",
        7,
        [10**400, 2, 3, 4, 5, 6],
    ],
)
def test_rasterize_polygons_when_malformed_then_value_error(polygon):
    with pytest.raises(ValueError, match=r"^expected (a )?polygon"):
        rasterize_polygons([polygon], (10, 10))


def test_rasterize_polygons_when_the_border_is_endless_then_value_error():
    zigzag = np.tile([0, -10, 5, 1e6], 200).tolist()
    with pytest.raises(ValueError, match="border"):
        rasterize_polygons([zigzag], (1_000_000, 10))


@pytest.mark.parametrize("hw", [(0, 5), (5, -1), (10**6, 10**6)])
def test_rasterize_polygons_when_size_is_wrong_then_value_error(hw):
    with pytest.raises(ValueError, match="mask size"):
        rasterize_polygons([], hw)


def test_polygons_from_mask_when_one_rectangle_then_its_four_corners():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:3, 2:5] = True
    (polygon,) = polygons_from_mask(mask)
    corners = {tuple(polygon[i : i + 2]) for i in range(0, len(polygon), 2)}
    assert corners == {(2, 1), (5, 1), (5, 3), (2, 3)}
    assert len(polygon) == 8


def test_polygons_from_mask_when_ring_inside_a_ring_then_each_hole_goes_to_its_own_part():
    mask = np.zeros((9, 9), dtype=bool)
    mask[0:9, 0:9] = True
    mask[1:8, 1:8] = False
    mask[2:7, 2:7] = True
    mask[4, 4] = False
    polygons = polygons_from_mask(mask)
    assert len(polygons) == 2
    assert sorted(rasterize_polygons([p], (9, 9)).sum() for p in polygons) == [24, 32]


@settings(max_examples=150, deadline=None)
@given(masks())
def test_polygons_from_mask_when_drawn_again_then_the_same_mask(mask):
    np.testing.assert_array_equal(rasterize_polygons(polygons_from_mask(mask), mask.shape), mask)


def test_box_from_mask_when_worked_by_hand_then_edges_lie_on_pixel_borders():
    mask = np.zeros((6, 8), dtype=bool)
    mask[2, 3] = mask[4, 5] = True
    assert box_from_mask(mask) == (3, 2, 6, 5)
    assert box_from_mask(np.zeros((6, 8), dtype=bool)) is None


def test_read_mask_when_any_form_then_the_same_mask(tmp_path):
    mask = disc((30, 40), (20, 15), 9)
    path = tmp_path / "mask.png"
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    for form in (encode_rle(mask), polygons_from_mask(mask), path):
        np.testing.assert_array_equal(read_mask(form, (30, 40)), mask)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_read_mask_when_image_file_of_any_mode_then_nonzero_is_true(tmp_path, mode):
    mask = disc((30, 40), (20, 15), 9)
    grey = Image.fromarray(mask.astype(np.uint8))
    image = {
        "1": lambda: Image.fromarray(mask),
        "P": lambda: Image.frombytes("P", grey.size, grey.tobytes()),
        "I;16": lambda: Image.fromarray(mask.astype(np.uint16)),
    }.get(mode, lambda: grey.convert(mode))()
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (30, 40)), mask)


def test_read_mask_when_of_another_size_then_value_error_names_both(tmp_path):
    with pytest.raises(ValueError, match=r"\(30, 40\).*\(30, 41\)"):
        read_mask(encode_rle(np.ones((30, 41), dtype=bool)), (30, 40))
    Image.new("L", (3, 3)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png"):
        read_mask(tmp_path / "small.png", (30, 40))


def test_read_mask_when_neither_form_then_value_error():
    with pytest.raises(ValueError, match="polygons or a file"):
        read_mask("oops", (3, 3))  # type: ignore[arg-type]


def test_read_mask_when_file_is_missing_then_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_mask(tmp_path / "gone.png", (3, 3))
