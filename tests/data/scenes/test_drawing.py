import math

import numpy as np
import pytest
from PIL import Image

from deixis.data.scenes.drawing import place
from deixis.data.scenes.layout import SceneInstance, sample_layout
from deixis.data.scenes.painting import RGB, Style, paint, sample_background
from deixis.data.scenes.vocabulary import COLOURS, SHAPES, TEXTURES


def instance(shape="square", x=0.5, y=0.5, radius=0.1, colour="red", size="medium", texture="plain", angle=0.0):
    return SceneInstance(shape=shape, colour=colour, size=size, texture=texture, x=x, y=y, radius=radius, angle=angle)


def ground(size, grey=128):
    return np.full((size, size, 3), grey, dtype=np.uint8)


def test_place_when_one_square_covers_half_of_another_then_masks_and_boxes_as_by_hand():
    drawing = place([instance(x=0.5), instance(x=0.6, colour="blue")], 100)
    assert [int(mask.sum()) for mask in drawing.masks] == [200, 400]
    assert drawing.masks[0, 40:60, 40:50].all()
    assert drawing.masks[1, 40:60, 50:70].all()
    back, front = drawing.facts
    assert back.box_xyxy_norm == (0.4, 0.4, 0.5, 0.6)
    assert back.outline_xyxy_norm == (0.4, 0.4, 0.6, 0.6)
    assert front.box_xyxy_norm == (0.5, 0.4, 0.7, 0.6)
    assert back.hidden_by == {1: pytest.approx(0.5)}
    assert front.hidden_by == {}
    assert back.extent == pytest.approx(0.2)


def test_place_when_thing_is_hidden_too_far_then_left_out():
    drawing = place([instance(x=0.5), instance(x=0.58, colour="blue")], 100)
    assert [t.colour for t in drawing.instances] == ["blue"]
    assert len(drawing.facts) == len(drawing.masks) == 1


def test_place_when_thing_crosses_the_edge_then_box_ends_there():
    drawing = place([instance(x=0.05)], 100)
    assert drawing.facts[0].box_xyxy_norm == (0.0, 0.4, 0.15, 0.6)
    assert drawing.facts[0].outline_xyxy_norm == (-0.05, 0.4, 0.15, 0.6)


def test_place_when_ring_then_its_hole_is_not_of_it():
    mask = place([instance("ring", radius=0.3)], 100).masks[0]
    assert not mask[40:60, 40:60].any()
    assert mask[50, 22:30].all()
    assert mask.sum() == pytest.approx(math.pi * 900 * (1 - 0.58**2), rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_paint_when_clean_then_changed_pixels_are_the_mask(shape):
    drawing = place([instance(shape, radius=0.3, colour="white", angle=0.3)], 96)
    image = paint(drawing, ground(96, 20), Style(), np.random.default_rng(0))
    halfway = (20 + np.mean(RGB["white"][0])) / 2
    differs = image.mean(axis=2) > halfway
    assert np.count_nonzero(differs ^ drawing.masks[0]) <= 0.05 * drawing.masks[0].sum()
    untouched = image.astype(int).min(axis=2) == 20
    assert untouched[0].all()
    assert np.count_nonzero(untouched & drawing.masks[0]) == 0


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_paint_when_textured_then_main_tone_keeps_the_larger_part(colour, texture):
    drawing = place([instance(radius=0.3, colour=colour, texture=texture)], 128)
    far_from_all = np.full((128, 128, 3), (0, 255, 255), dtype=np.uint8)  # so that no rim is drawn
    image = paint(drawing, far_from_all, Style(), np.random.default_rng(1))
    pixels = image[drawing.masks[0]].astype(float)
    main, second = (np.abs(pixels - tone).sum(axis=1) for tone in RGB[colour])
    share = np.mean(main <= second)
    low, high = (0.85, 1.0) if texture == "plain" else (0.45, 0.85)
    assert low <= share <= high


def test_paint_when_thing_has_the_colour_of_the_ground_then_a_rim_parts_them():
    drawing = place([instance(radius=0.3, colour="gray")], 96)
    image = paint(drawing, ground(96, 130), Style(), np.random.default_rng(0))
    left_edge = int(drawing.facts[0].box_xyxy_norm[0] * 96)
    assert image[48, left_edge].mean() < 90


def test_paint_when_seeded_then_same_pixels_and_background_untouched():
    things = sample_layout("scenes", "train", np.random.default_rng(3))
    background = sample_background(64, np.random.default_rng(4))
    before = background.copy()
    images = [
        paint(place(things, 64), background, Style(noise_sd=5.0, blur_px=0.5), np.random.default_rng(5))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(background, before)


@pytest.mark.parametrize("size", [64, 97, 256])
def test_sample_background_when_any_size_then_image_of_that_size(size):
    rng = np.random.default_rng(0)
    for _ in range(30):
        image = sample_background(size, rng)
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8


def test_sample_background_when_photos_then_half_are_cut_from_them(tmp_path):
    path = tmp_path / "flat.png"
    Image.new("RGB", (90, 70), (1, 2, 3)).save(path)
    rng = np.random.default_rng(0)
    flat = sum(bool((sample_background(64, rng, [path]) == (1, 2, 3)).all()) for _ in range(60))
    assert 15 < flat < 45


def test_sample_background_when_photo_is_missing_then_file_not_found(tmp_path):
    rng = np.random.default_rng(0)

    def draw_many():
        for _ in range(40):
            sample_background(64, rng, [tmp_path / "none.jpg"])

    with pytest.raises(FileNotFoundError):
        draw_many()
