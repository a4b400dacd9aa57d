from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.structures import Sample
from deixis.tools.anchors import find_anchors, read_shapes, shape_iou


def rng(seed=0):
    return np.random.default_rng(seed)


def sample(image, box, *, image_id="a", phrase="dog"):
    return Sample(id="0", image=image, image_id=image_id, phrase=phrase, box_xyxy_px=box)


# the search

THREE_CLUSTERS = np.array(
    [
        *[(20, 40), (20, 40), (22, 44), (18, 36), (19, 41)],  # medians (20, 40)
        *[(100, 100), (104, 96), (98, 101)],  # (100, 100)
        *[(300, 150), (310, 140), (290, 160)],  # (300, 150)
    ],
    np.float64,
)


@pytest.mark.parametrize("seed", range(5))
def test_anchors_when_clusters_are_plain_then_their_medians_by_area(seed):
    found = find_anchors(rng(9).permutation(THREE_CLUSTERS), 3, rng(seed))
    np.testing.assert_allclose(found, [(20, 40), (100, 100), (300, 150)])


def test_anchors_when_one_then_the_median_of_all():
    np.testing.assert_allclose(find_anchors(np.array([[1.0, 9.0], [2.0, 5.0], [30.0, 6.0]]), 1, rng()), [(2, 6)])


def test_anchors_when_areas_are_equal_then_still_in_one_order():
    found = find_anchors(np.array([[40.0, 10.0], [10.0, 40.0], [20.0, 20.0]]), 3, rng())
    np.testing.assert_allclose(found, [(10, 40), (20, 20), (40, 10)])


def test_anchors_when_state_is_the_same_then_the_same_anchors():
    sizes = rng(1).uniform(10, 400, (300, 2))
    np.testing.assert_array_equal(find_anchors(sizes, 5, rng(7)), find_anchors(sizes, 5, rng(7)))


def test_anchors_when_as_many_as_different_boxes_then_these():
    different = np.array([[10.0, 10.0], [11.0, 10.0], [10.0, 12.0], [200.0, 100.0]])
    found = find_anchors(np.repeat(different, 4, axis=0), 4, rng())
    np.testing.assert_allclose(found, different)


@pytest.mark.parametrize(("sizes", "number"), [([[5.0, 5.0]] * 9, 2), ([[5.0, 5.0], [6.0, 5.0]], 3), ([], 1)])
def test_anchors_when_fewer_different_boxes_then_one_sentence(sizes, number):
    sizes = np.array(sizes).reshape(-1, 2)
    with pytest.raises(ValueError, match=f"got {number} for {len(np.unique(sizes, axis=0))} such boxes"):
        find_anchors(sizes, number, rng())


@pytest.mark.parametrize("sizes", [[[0.0, 5.0]], [[-1.0, 5.0]], [[np.nan, 5.0]], [[np.inf, 5.0]], [[1.0, 2.0, 3.0]]])
def test_anchors_when_a_shape_is_none_then_refused(sizes):
    with pytest.raises(ValueError, match="above 0"):
        find_anchors(np.array(sizes), 1, rng())


def test_anchors_when_none_is_asked_for_then_refused():
    with pytest.raises(ValueError, match="got 0"):
        find_anchors(THREE_CLUSTERS, 0, rng())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.25, 0.5, 2, 8]))
def test_anchors_when_the_unit_changes_then_they_scale_with_it_and_lie_among_the_boxes(seed, number, unit):
    sizes = rng(seed).uniform(10, 400, (40, 2))
    found = find_anchors(sizes, number, rng(seed))
    assert found.shape == (number, 2)
    assert (np.diff(found.prod(1)) >= 0).all()
    assert (found >= sizes.min(0)).all()
    assert (found <= sizes.max(0)).all()
    np.testing.assert_array_equal(find_anchors(sizes * unit, number, rng(seed)), found * unit)


def test_shape_iou_when_worked_by_hand_then_that():
    iou = shape_iou(np.array([[2.0, 4.0], [4.0, 2.0]]), np.array([[2.0, 4.0], [4.0, 4.0]]))
    np.testing.assert_allclose(iou, [(1, 1 / 2), (4 / 12, 1 / 2)])


# the boxes


def test_shapes_when_image_is_wide_then_measured_on_the_letterboxed_canvas():
    image = np.zeros((100, 200, 3), np.uint8)  # to 416 x 208: everything times 2.08
    shapes = read_shapes([sample(image, (0.0, 10.0, 50.0, 35.0))], 416)
    np.testing.assert_allclose(shapes.sizes_px, [(104, 52)])
    assert shapes.problems == ()


def test_shapes_when_phrases_share_a_box_or_mean_nothing_then_each_box_once():
    image = np.zeros((64, 64, 3), np.uint8)
    boxes = [(0.0, 0.0, 8.0, 8.0), (0.0, 0.0, 8.0, 8.0), (8.0, 0.0, 16.0, 8.0), None]
    samples = [sample(image, box) for box in boxes] + [sample(image, boxes[0], image_id="b")]
    np.testing.assert_allclose(read_shapes(samples, 128).sizes_px, [(16, 16)] * 3)


def test_shapes_when_a_photo_lies_on_its_side_then_measured_the_right_way_up(tmp_path):
    photo = Image.new("RGB", (40, 20))
    exif = photo.getexif()
    exif[0x0112] = 6  # turn a quarter: 20 wide, 40 high
    photo.save(tmp_path / "p.jpg", exif=exif)
    shapes = read_shapes([sample(tmp_path / "p.jpg", (0.0, 0.0, 20.0, 10.0))], 80)
    np.testing.assert_allclose(shapes.sizes_px, [(40, 20)])


def test_shapes_when_an_image_is_missing_then_left_out_and_told_once(tmp_path):
    image = np.zeros((10, 10, 3), np.uint8)
    gone = tmp_path / "gone.jpg"
    samples = [sample(gone, (0.0, 0.0, 5.0, 5.0)), sample(gone, (0.0, 0.0, 6.0, 5.0)), sample(image, (0.0, 0, 5, 5))]
    shapes = read_shapes(samples, 20)
    np.testing.assert_allclose(shapes.sizes_px, [(10, 10)])
    (problem,) = shapes.problems
    assert "gone.jpg" in problem


def test_shapes_when_no_image_is_there_then_the_first_error():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_shapes([sample(Path("nowhere.jpg"), (0.0, 0.0, 5.0, 5.0))], 20)


def test_shapes_when_no_sample_has_a_box_then_none():
    assert read_shapes([], 416).sizes_px.shape == (0, 2)


def test_shapes_when_files_are_plain_then_no_pixel_is_decoded(tmp_path, monkeypatch):
    for ending in ("jpg", "png", "webp", "tif", "gif"):
        Image.new("RGB", (40, 20)).save(tmp_path / f"p.{ending}")

    def fail(*_args, **_options):
        raise AssertionError("decoded")

    monkeypatch.setattr("deixis.geometry.images.read_image", fail)
    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    samples = [sample(path, (0.0, 0.0, 20.0, 10.0)) for path in tmp_path.iterdir()]
    np.testing.assert_allclose(read_shapes(samples, 80).sizes_px, [(40, 20)] * 5)
