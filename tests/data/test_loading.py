import dataclasses

import numpy as np
import pytest
from PIL import Image

from deixis.data.loading import (
    Mixture,
    PhotoSource,
    Picture,
    SceneSource,
    Target,
    absent_targets,
    collate,
    content_of,
    mask_on_grid,
)
from deixis.data.transforms import View
from deixis.geometry.images import letterbox
from deixis.language.phrases import VisibleInstance


class FixedSource:
    """Gives one picture again and again."""

    largest = 512

    def __init__(self, picture):
        self.picture = picture

    def draw(self, rng, size, phrases):
        rng.random()
        return self.picture


class Record:
    """Stands for a photo of the right size that is already decoded."""

    def __init__(self, *instances):
        self.instances = instances

    def view(self):
        image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        return View(image=image, instances=self.instances)


def seen(category, x1, x2):
    mask = np.zeros((60, 80), bool)
    mask[10:50, x1:x2] = True
    return VisibleInstance(category=category, box_xyxy_px=(x1, 10, x2, 50), mask=mask)


def picture_of(*targets, hw=(40, 80), categories=None):
    return Picture(np.full((*hw, 3), 200, np.uint8), list(targets), categories)


def mask_of(rows, columns, hw=(40, 80)):
    mask = np.zeros(hw, bool)
    mask[rows, columns] = True
    return mask


LEFT = Target("left dog", (0.0, 0.0, 40.0, 40.0), mask_of(slice(0, 40), slice(0, 40)), "dog")
BOX_ONLY = Target("cat", (40.0, 20.0, 80.0, 40.0), None, "cat")


def assert_equal_batches(a, b):
    for field in dataclasses.fields(a):
        one, two = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(one, two), field.name


# collate: an image of 40 x 80 on a canvas of 64 is scaled by 0.8 to 32 x 64, between rows 16 and 48


def test_collate_when_worked_by_hand_then_fractions_of_the_canvas():
    batch = collate([picture_of(LEFT, BOX_ONLY)], 64, np.random.default_rng(0), absent=0.0)
    np.testing.assert_allclose(batch.content, [[0, 0.25, 1, 0.75]])
    np.testing.assert_allclose(batch.boxes, [[0, 0.25, 0.5, 0.75], [0.5, 0.5, 1, 0.75]])
    assert batch.pixels.shape == (1, 64, 64, 3)
    assert (batch.pixels[0, 16:48] == 200).all()
    assert (batch.pixels[0, :16] == 114).all()
    assert batch.phrases == ["left dog", "cat"]
    np.testing.assert_array_equal(batch.has_mask, [True, False])
    np.testing.assert_array_equal(batch.present, [True, True])
    expected = np.zeros((16, 16), np.float32)
    expected[4:12, :8] = 1
    np.testing.assert_array_equal(batch.masks, [expected, np.zeros((16, 16))])


def test_collate_when_several_pictures_then_index_says_whose_phrase():
    pictures = [picture_of(LEFT), picture_of(BOX_ONLY, BOX_ONLY, hw=(80, 40))]
    batch = collate(pictures, 64, np.random.default_rng(0), absent=0.0)
    np.testing.assert_array_equal(batch.image_index, [0, 1, 1])
    np.testing.assert_allclose(batch.content, [[0, 0.25, 1, 0.75], [0.25, 0, 0.75, 1]])


def test_collate_when_absent_then_no_box_no_mask_not_present():
    pictures = [
        picture_of(LEFT, categories=frozenset({"dog"})),
        picture_of(BOX_ONLY, categories=frozenset({"cat"})),
    ]
    batch = collate(pictures, 64, np.random.default_rng(0), absent=1.0)
    assert batch.phrases == ["left dog", "cat", "cat", "left dog"]
    np.testing.assert_array_equal(batch.image_index, [0, 1, 0, 1])
    np.testing.assert_array_equal(batch.present, [True, True, False, False])
    assert not batch.has_mask[2:].any()
    assert not batch.boxes[2:].any()
    assert not batch.masks[2:].any()


def test_mask_on_grid_when_a_cell_is_half_covered_then_its_share():
    frame = letterbox(np.zeros((64, 64, 3), np.uint8), 64)[1]
    board = mask_on_grid(mask_of(slice(0, 4), slice(0, 6), hw=(64, 64)), frame, 16)
    np.testing.assert_allclose(board[0, :3], [1, 0.5, 0], atol=0.01)
    assert board[1:].sum() == 0


@pytest.mark.parametrize("hw", [(1, 300), (300, 1), (3, 200), (1, 1), (77, 31)])
def test_mask_on_grid_when_picture_has_any_shape_then_full_mask_stays_within_it(hw):
    frame = letterbox(np.zeros((*hw, 3), np.uint8), 64)[1]
    board = mask_on_grid(np.ones(hw, bool), frame, 16)
    x1, y1, x2, y2 = content_of(frame) * 16
    rows, columns = np.nonzero(board)
    assert len(rows)
    assert (rows + 1 >= y1).all()
    assert (rows <= y2).all()
    assert (columns + 1 >= x1).all()
    assert (columns <= x2).all()


def test_mask_on_grid_when_padding_is_no_whole_cell_then_the_mask_lies_where_the_pixels_do():
    # 64 x 44 on a canvas of 64: the content begins at pixel 10, in the middle of the third cell of four
    frame = letterbox(np.zeros((64, 44, 3), np.uint8), 64)[1]
    board = mask_on_grid(np.ones((64, 44), bool), frame, 16)
    np.testing.assert_allclose(board[3], [0, 0, 0.5, *[1] * 10, 0.5, 0, 0], atol=0.01)


def test_collate_when_a_mask_is_too_thin_for_the_canvas_then_only_the_box_is_known():
    thin = np.zeros((4, 640), bool)
    thin[:, 7] = True
    batch = collate([picture_of(Target("pole", (7, 0, 8, 4), thin, "pole"), hw=(4, 640))], 64, None, absent=0.0)
    assert not batch.masks.any()
    np.testing.assert_array_equal(batch.has_mask, [False])


# absent phrases


def test_absent_when_category_is_there_or_unknown_or_unnamed_then_none():
    vague = Target("the one on the left", (0, 0, 9, 9), None, "cat")
    pictures = [
        picture_of(LEFT, categories=frozenset({"dog"})),  # lacks the cat, but its phrase does not say cat
        picture_of(vague, categories=None),  # nobody knows what else is there
    ]
    assert absent_targets(pictures, np.random.default_rng(0), 1.0) == []


@pytest.mark.parametrize(
    ("phrase", "category", "present"),
    [("left bear", "bear", "teddy bear"), ("left car", "car", "truck"), ("the cup", "cup", "bottle")],
)
def test_absent_when_a_like_thing_is_there_then_none(phrase, category, present):
    told = Target(phrase, (0, 0, 9, 9), None, category)
    pictures = [picture_of(told), picture_of(LEFT, categories=frozenset({"dog", present}))]
    assert absent_targets(pictures, np.random.default_rng(0), 1.0) == []
    pictures[1] = picture_of(LEFT, categories=frozenset({"dog"}))
    assert [target.phrase for _, target in absent_targets(pictures, np.random.default_rng(0), 1.0)] == [phrase]


def test_absent_when_share_is_given_then_about_that_many():
    pictures = [picture_of(LEFT, categories=frozenset({"dog"})) for _ in range(400)]
    rows = absent_targets([*pictures, picture_of(BOX_ONLY)], np.random.default_rng(0), 0.25)
    assert 60 < len(rows) < 140
    assert all(target.phrase == "cat" and target.box_xyxy_px is None for _, target in rows)


# sources and mixtures


@pytest.fixture(scope="module")
def scenes():
    return Mixture([SceneSource("scenes", count=5), SceneSource("scenesg", count=5)], [1.0, 1.0])


def test_batch_when_seed_and_step_are_the_same_then_equal_and_else_not(scenes):
    options = {"images": 2, "phrases": 2, "size": 64, "absent": 0.5}
    first = scenes.batch(1, 7, **options)
    scenes.batch(1, 3, **options)  # what came between does not matter
    assert_equal_batches(first, scenes.batch(1, 7, **options))
    for seed, step in ((1, 8), (2, 7)):
        assert scenes.batch(seed, step, **options).phrases != first.phrases


def test_scene_source_when_drawn_then_targets_fit_the_image():
    picture = SceneSource("scenes+", count=3).draw(np.random.default_rng(0), 64, 2)
    assert picture.image.shape == (64, 64, 3)
    assert 1 <= len(picture.targets) <= 2
    for target in picture.targets:
        assert target.mask.shape == (64, 64)
        assert target.category in picture.categories


def test_batch_when_shares_are_given_then_pictures_come_in_that_proportion():
    mixture = Mixture([FixedSource(picture_of(LEFT)), FixedSource(picture_of(BOX_ONLY))], [3.0, 1.0])
    batch = mixture.batch(0, 0, images=400, phrases=1, size=32, absent=0.0)
    assert 260 < batch.phrases.count("left dog") < 340


def test_batch_when_some_pictures_say_nothing_then_they_are_left_out():
    mixture = Mixture([FixedSource(picture_of(LEFT)), FixedSource(picture_of())], [1.0, 1.0])
    batch = mixture.batch(0, 0, images=20, phrases=1, size=32, absent=0.0)
    assert 0 < len(batch.pixels) == len(batch.phrases) < 20


def test_batch_when_a_draw_says_nothing_at_all_then_it_draws_again():
    class Slow(FixedSource):
        def draw(self, rng, size, phrases):
            return self.picture if rng.random() < 0.2 else picture_of()

    mixture = Mixture([Slow(picture_of(LEFT))], [1.0])
    assert {mixture.batch(0, step, images=1, phrases=1, size=32, absent=0.0).phrases[0] for step in range(9)} == {
        "left dog"
    }


def test_batch_when_nothing_can_ever_be_said_then_one_sentence():
    with pytest.raises(ValueError, match="expected something to tell apart"):
        Mixture([FixedSource(picture_of())], [1.0]).batch(0, 0, images=2, phrases=1, size=32, absent=0.0)


def test_photo_source_when_drawn_then_phrases_name_what_is_left_in_the_view():
    source = PhotoSource([Record(seen("dog", 2, 30), seen("cat", 45, 78))], fully_annotated=True)
    rng = np.random.default_rng(0)
    for _ in range(10):
        picture = source.draw(rng, 64, 2)
        assert len(picture.targets) <= 2
        height, width = picture.image.shape[:2]
        for target in picture.targets:
            assert target.category in picture.categories
            assert target.mask.shape == (height, width)
            x1, y1, x2, y2 = target.box_xyxy_px
            assert -1e-6 <= x1 < x2 <= width + 1e-6
            assert -1e-6 <= y1 < y2 <= height + 1e-6


class Unreadable:
    """Stands for a photo that cannot be read."""

    def view(self):
        raise FileNotFoundError("expected an image file, found nothing")


def test_photo_source_when_a_photo_or_donor_cannot_be_read_then_another_is_taken():
    good = Record(seen("dog", 2, 30), seen("cat", 45, 78))
    source = PhotoSource([Unreadable(), good], fully_annotated=True, donors=[good, Unreadable()], paste_share=1.0)
    rng = np.random.default_rng(0)
    assert any(source.draw(rng, 64, 2).targets for _ in range(6))


def test_photo_source_when_no_photo_can_be_read_then_the_last_error():
    with pytest.raises(FileNotFoundError, match="found nothing"):
        PhotoSource([Unreadable()], fully_annotated=True).draw(np.random.default_rng(0), 64, 2)


def test_photo_source_when_partly_annotated_then_every_phrase_has_its_noun():
    source = PhotoSource([Record(seen("dog", 2, 30))], fully_annotated=False)
    rng = np.random.default_rng(0)
    phrases = [t.phrase for _ in range(60) for t in source.draw(rng, 64, 2).targets]
    assert all({"dog", "pup"} & set(phrase.split()) for phrase in phrases), phrases


def test_scene_source_when_backgrounds_then_about_a_quarter_is_upon_them_and_the_rest_is_unknown(tmp_path):
    path = tmp_path / "flat.png"
    Image.new("RGB", (80, 80), (1, 250, 3)).save(path)
    source, rng = SceneSource("scenes", count=50, backgrounds=[path]), np.random.default_rng(0)
    pictures = [source.draw(rng, 64, 1) for _ in range(60)]
    green = [p for p in pictures if np.abs(p.image.reshape(-1, 3) - np.array([1, 250, 3])).max(axis=1).min() < 40
             and (np.abs(p.image - np.array([1, 250, 3])).max(axis=2) < 60).mean() > 0.2]  # fmt: skip
    assert 6 <= len(green) <= 26
    assert all(picture.categories is None for picture in green)
    assert any(picture.categories is not None for picture in pictures)


def test_scene_source_when_a_background_cannot_be_read_then_the_scene_is_drawn_without(tmp_path):
    source, rng = SceneSource("scenes", count=5, backgrounds=[tmp_path / "none.png"]), np.random.default_rng(0)
    assert all(source.draw(rng, 64, 1).targets for _ in range(12))


def test_photo_source_when_partly_annotated_then_what_is_absent_is_not_known():
    source = PhotoSource([Record(seen("dog", 2, 30))], fully_annotated=False)
    assert source.draw(np.random.default_rng(0), 64, 2).categories is None


def test_photo_source_when_donors_are_pasted_then_they_count_as_present():
    donors = [Record(seen("zebra", 15, 65))]
    source = PhotoSource([Record(seen("dog", 2, 30))], fully_annotated=True, donors=donors, paste_share=1.0)
    rng = np.random.default_rng(0)
    present = [source.draw(rng, 64, 3).categories for _ in range(10)]
    assert any("zebra" in categories for categories in present)
