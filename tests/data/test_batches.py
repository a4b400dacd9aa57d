import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data.attributes import WORD_GROUPS, word_labels
from deixis.data.batches import BatchShape, CanvasRules, Mixture, collate, content_of, mask_on_grid
from deixis.data.image_sources import PhotoSource, SceneSource, counted
from deixis.data.scenes import draw_scene
from deixis.geometry.images import letterbox
from deixis.structures import AnnotatedImage, Expression, VisibleInstance


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

    def decode(self):
        image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        return AnnotatedImage(image, self.instances)


def seen(category, x1, x2):
    mask = np.zeros((60, 80), bool)
    mask[10:50, x1:x2] = True
    return VisibleInstance(category=category, box_xyxy_px=(x1, 10, x2, 50), mask=mask)


def picture_of(*targets, hw=(40, 80), categories=None):
    return AnnotatedImage(np.full((*hw, 3), 200, np.uint8), expressions=targets, categories=categories)


def mask_of(rows, columns, hw=(40, 80)):
    mask = np.zeros(hw, bool)
    mask[rows, columns] = True
    return mask


LEFT = Expression("left dog", (0.0, 0.0, 40.0, 40.0), mask_of(slice(0, 40), slice(0, 40)), "dog")
BOX_ONLY = Expression("cat", (40.0, 20.0, 80.0, 40.0), None, "cat")


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


def test_collate_when_squashed_then_no_padding_and_each_axis_has_its_scale():
    batch = collate([picture_of(LEFT)], 64, np.random.default_rng(0), 0.0, CanvasRules(resize="squash"))
    np.testing.assert_allclose(batch.content, [[0, 0, 1, 1]])
    np.testing.assert_allclose(batch.boxes, [[0, 0, 0.5, 1]])
    assert (batch.pixels == 200).all()


def test_collate_when_the_image_is_a_canvas_already_then_its_content_is_as_told():
    target = dataclasses.replace(LEFT, mask=None)
    picture = dataclasses.replace(picture_of(target, hw=(64, 64)), content_xyxy_px=(0.0, 16.0, 32.0, 48.0))
    batch = collate([picture], 64, np.random.default_rng(0), absent=0.0)
    np.testing.assert_allclose(batch.content, [[0, 0.25, 0.5, 0.75]])
    np.testing.assert_allclose(batch.boxes, [[0, 0, 0.625, 0.625]])
    assert (batch.pixels == 200).all()


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
    batch = collate([picture_of(Expression("pole", (7, 0, 8, 4), thin, "pole"), hw=(4, 640))], 64, None, absent=0.0)
    assert not batch.masks.any()
    np.testing.assert_array_equal(batch.has_mask, [False])


# the rules of a canvas


@pytest.mark.parametrize(
    ("stride", "columns", "nearest", "area"),
    [
        (8, 4, 0, 0.5), (8, 5, 1, 0.625), (8, 8, 1, 1.0), (8, 1, 0, 0.125),
        (32, 16, 0, 0.5), (32, 17, 1, 17 / 32), (32, 32, 1, 1.0),
        (4, 2, 0, 0.5), (4, 3, 1, 0.75),
    ],
)  # fmt: skip
def test_mask_on_grid_when_by_a_rule_then_the_middle_pixel_or_the_share(stride, columns, nearest, area):
    frame, grid = letterbox(np.zeros((64, 64, 3), np.uint8), 64)[1], 64 // stride
    mask = mask_of(slice(0, 64), slice(0, columns), hw=(64, 64))
    expected = np.zeros((grid, grid))
    for rule, value in (("nearest", nearest), ("area", area)):
        expected[:, 0] = value
        board = mask_on_grid(mask, frame, grid, rule)
        assert board.dtype == np.float32
        np.testing.assert_allclose(board, expected, atol=1 / 255)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from([4, 8, 32]), st.integers(0, 99),
    st.floats(0, 1),
)  # fmt: skip
def test_mask_on_grid_when_a_cell_is_empty_or_full_then_both_rules_agree(hw, stride, seed, share):
    frame = letterbox(np.zeros((*hw, 3), np.uint8), 64)[1]
    mask = np.random.default_rng(seed).random(hw) < share
    area, nearest = (mask_on_grid(mask, frame, 64 // stride, rule) for rule in ("area", "nearest"))
    assert set(np.unique(nearest)) <= {0, 1}
    assert (nearest[area == 0] == 0).all()
    assert (nearest[area == 1] == 1).all()


@pytest.mark.parametrize("rule", ["area", "nearest"])
@pytest.mark.parametrize("stride", [8, 32])
def test_collate_when_rules_are_given_then_stride_rule_and_grey_are_theirs(stride, rule):
    rules = CanvasRules(mask_stride=stride, mask_rule=rule, fill=7)
    batch = collate([picture_of(LEFT, BOX_ONLY)], 64, None, 0.0, rules)
    assert batch.masks.shape == (2, 64 // stride, 64 // stride)
    assert (batch.pixels[0, :16] == 7).all()
    assert (batch.pixels[0, 16:48] == 200).all()
    # of a canvas of 64 the mask covers rows 16 to 47 and columns 0 to 31
    covers = {(8, "area"): 1, (8, "nearest"): 1, (32, "area"): 0.5, (32, "nearest"): None}[(stride, rule)]
    left = batch.masks[0, :, : 32 // stride]
    assert not batch.masks[0, :, 32 // stride :].any()
    if covers is None:  # pixel 16 is in, pixel 48 is not
        np.testing.assert_array_equal(left, [[1], [0]])
    else:
        np.testing.assert_allclose(left[left > 0], covers, atol=1 / 255)
        assert left.sum() * stride**2 == pytest.approx(32 * 32, rel=1e-2)
    np.testing.assert_allclose(batch.boxes, collate([picture_of(LEFT, BOX_ONLY)], 64, None, 0.0).boxes)


def test_collate_when_no_middle_pixel_is_met_then_the_mask_is_not_known_at_that_stride():
    small = Expression("dot", (0, 0, 4, 4), mask_of(slice(0, 4), slice(0, 4), hw=(64, 64)), "dot")
    picture = picture_of(small, hw=(64, 64))
    known = {
        (stride, rule): collate([picture], 64, None, 0.0, CanvasRules(stride, rule)).has_mask.item()
        for stride in (4, 8, 32) for rule in ("area", "nearest")
    }  # fmt: skip
    assert {key for key, value in known.items() if not value} == {(8, "nearest"), (32, "nearest")}


def test_rules_when_not_given_then_as_the_deixis_family_wants_them():
    assert CanvasRules() == CanvasRules(mask_stride=4, mask_rule="area", fill=114)


# instances


def labels_of(instance):
    return word_labels(instance.category, instance.attributes)


def thing(rows, columns, kind, *attributes, hw=(40, 80)):
    return VisibleInstance(kind, (0, 0, 9, 9), mask_of(rows, columns, hw), attributes=attributes)


def test_collate_when_things_are_told_then_each_cells_share_of_them():
    # on the canvas the picture lies in rows 16 to 47: the second and third row of cells
    left = thing(slice(0, 40), slice(0, 20), "dog", "brown")
    wide = thing(slice(0, 20), slice(0, 60), "cat")
    batch = collate(
        [dataclasses.replace(picture_of(BOX_ONLY), instances=(left,)),
         dataclasses.replace(picture_of(LEFT), instances=()),
         dataclasses.replace(picture_of(LEFT), instances=(wide, left))],
        64, None, 0.0,
    )  # fmt: skip
    assert batch.thing_index.tolist() == [0, 2, 2]
    cells = batch.thing_cells.reshape(3, 4, 4)
    first = np.zeros((4, 4))
    first[1:3, 0] = 0.5
    second = np.zeros((4, 4))
    second[1, :3] = 1 / 3
    for board, expected in zip(cells, (first, second, first), strict=True):
        np.testing.assert_allclose(board, expected, atol=0.01)
    np.testing.assert_array_equal(batch.thing_labels, [labels_of(left), labels_of(wide), labels_of(left)])


def test_collate_when_there_are_no_things_then_no_rows_of_the_right_width():
    batch = collate([picture_of(LEFT)], 96, None, 0.0)
    assert batch.thing_index.shape == (0,)
    assert batch.thing_cells.shape == (0, 36)
    assert batch.thing_labels.shape == (0, len(WORD_GROUPS))
    assert (batch.thing_index.dtype, batch.thing_cells.dtype, batch.thing_labels.dtype) == ("i8", "f4", "i8")


def test_collate_when_a_thing_is_too_thin_for_the_canvas_then_it_is_left_out():
    thin = thing(slice(0, 4), slice(7, 8), "kite", hw=(4, 640))
    thick = thing(slice(0, 4), slice(0, 320), "bus", hw=(4, 640))
    nothing = thing(slice(0, 0), slice(0, 0), "dog", hw=(4, 640))
    picture = dataclasses.replace(picture_of(BOX_ONLY, hw=(4, 640)), instances=(thin, thick, nothing))
    batch = collate([picture], 64, None, 0.0)
    np.testing.assert_array_equal(batch.thing_labels, [labels_of(thick)])
    np.testing.assert_allclose(batch.thing_cells.sum(1), 1, rtol=1e-5)


def test_batch_when_drawn_then_every_things_cells_sum_to_1_and_words_are_known(scenes):
    batch = scenes.batch(0, 0, BatchShape(images=3, phrases=1, size=64))
    assert set(batch.thing_index) == {0, 1, 2}
    np.testing.assert_allclose(batch.thing_cells.sum(1), 1, rtol=1e-5)
    assert (batch.thing_labels >= 0).all()


def test_scene_source_when_drawn_then_its_things_are_the_scenes_own():
    rng = np.random.default_rng(3)
    index = int(np.random.default_rng(3).integers(50))
    picture = SceneSource("scenes", count=50).draw(rng, 64, 2)
    instances = draw_scene("scenes", "train", index, 64, 2)[1][0].instances
    assert len(instances) == len(picture.instances) > 1
    for one, instance in zip(picture.instances, instances, strict=True):
        assert (one.category, one.attributes) == (instance.category, instance.attributes)
        assert one.mask.shape == (64, 64)
        assert one.mask.any()


def test_scene_source_when_upon_a_photo_then_the_drawn_things_are_known_all_the_same(tmp_path):
    Image.new("RGB", (80, 80), (1, 250, 3)).save(tmp_path / "flat.png")
    source, rng = SceneSource("scenes", count=50, backgrounds=[tmp_path / "flat.png"]), np.random.default_rng(0)
    upon = [picture for picture in (source.draw(rng, 64, 1) for _ in range(8)) if picture.categories is None]
    assert upon
    assert all(picture.instances for picture in upon)


def test_photo_source_when_drawn_then_things_have_a_kind_alone():
    without = VisibleInstance(category="bird", box_xyxy_px=(2, 51, 20, 59), mask=None)
    source = PhotoSource([Record(seen("dog", 2, 30), seen("zeppelin", 45, 78), without)], fully_annotated=True)
    rng = np.random.default_rng(0)
    kinds = {"dog": WORD_GROUPS[0].index("dog"), "zeppelin": -1}
    for _ in range(5):
        picture = source.draw(rng, 64, 2)
        for one in picture.instances:
            assert one.mask is None or one.mask.shape == picture.hw
            assert one.category == "bird" or labels_of(one).tolist() in [[kind, -1, -1] for kind in kinds.values()]


# sources and mixtures


@pytest.fixture(scope="module")
def scenes():
    return Mixture([SceneSource("scenes", count=5), SceneSource("scenesg", count=5)], [1.0, 1.0])


def test_batch_when_seed_and_step_are_the_same_then_equal_and_else_not(scenes):
    options = {"images": 2, "phrases": 2, "size": 64, "absent": 0.5}
    first = scenes.batch(1, 7, BatchShape(**options))
    scenes.batch(1, 3, BatchShape(**options))  # what came between does not matter
    assert_equal_batches(first, scenes.batch(1, 7, BatchShape(**options)))
    for seed, step in ((1, 8), (2, 7)):
        assert scenes.batch(seed, step, BatchShape(**options)).phrases != first.phrases


def test_scene_source_when_drawn_then_targets_fit_the_image():
    picture = SceneSource("scenes+", count=3).draw(np.random.default_rng(0), 64, 2)
    assert picture.pixels.shape == (64, 64, 3)
    assert 1 <= len(picture.expressions) <= 2
    for target in picture.expressions:
        assert target.mask.shape == (64, 64)
        assert target.category in picture.categories


def test_batch_when_shares_are_given_then_pictures_come_in_that_proportion():
    mixture = Mixture([FixedSource(picture_of(LEFT)), FixedSource(picture_of(BOX_ONLY))], [3.0, 1.0])
    batch = mixture.batch(0, 0, BatchShape(images=400, phrases=1, size=32))
    assert 260 < batch.phrases.count("left dog") < 340


def test_batch_when_some_pictures_say_nothing_then_they_are_left_out():
    mixture = Mixture([FixedSource(picture_of(LEFT)), FixedSource(picture_of())], [1.0, 1.0])
    batch = mixture.batch(0, 0, BatchShape(images=20, phrases=1, size=32))
    assert 0 < len(batch.pixels) == len(batch.phrases) < 20


def test_batch_when_a_draw_says_nothing_at_all_then_it_draws_again():
    class Slow(FixedSource):
        def draw(self, rng, size, phrases):
            return self.picture if rng.random() < 0.2 else picture_of()

    mixture = Mixture([Slow(picture_of(LEFT))], [1.0])
    assert {
        mixture.batch(0, step, BatchShape(images=1, phrases=1, size=32, absent=0.0)).phrases[0] for step in range(9)
    } == {"left dog"}


def test_batch_when_nothing_can_ever_be_said_then_one_sentence():
    with pytest.raises(ValueError, match="expected an instance that a phrase can single out"):
        Mixture([FixedSource(picture_of())], [1.0]).batch(0, 0, BatchShape(images=2, phrases=1, size=32))


def test_photo_source_when_drawn_then_phrases_name_what_is_left_in_the_view():
    source = PhotoSource([Record(seen("dog", 2, 30), seen("cat", 45, 78))], fully_annotated=True)
    rng = np.random.default_rng(0)
    for _ in range(10):
        picture = source.draw(rng, 64, 2)
        assert len(picture.expressions) <= 2
        height, width = picture.pixels.shape[:2]
        for target in picture.expressions:
            assert target.category in picture.categories
            assert target.mask.shape == (height, width)
            x1, y1, x2, y2 = target.box_xyxy_px
            assert -1e-6 <= x1 < x2 <= width + 1e-6
            assert -1e-6 <= y1 < y2 <= height + 1e-6


class Unreadable:
    """Stands for a photo that cannot be read."""

    def decode(self):
        raise FileNotFoundError("expected an image file, found nothing")


def test_photo_source_when_a_photo_or_donor_cannot_be_read_then_another_is_taken():
    good = Record(seen("dog", 2, 30), seen("cat", 45, 78))
    source = PhotoSource([Unreadable(), good], fully_annotated=True, donors=[good, Unreadable()], paste_share=1.0)
    rng = np.random.default_rng(0)
    assert any(source.draw(rng, 64, 2).expressions for _ in range(6))


def test_photo_source_when_no_photo_can_be_read_then_the_last_error():
    with pytest.raises(FileNotFoundError, match="found nothing"):
        PhotoSource([Unreadable()], fully_annotated=True).draw(np.random.default_rng(0), 64, 2)


def test_photo_source_when_partly_annotated_then_every_phrase_has_its_noun():
    source = PhotoSource([Record(seen("dog", 2, 30))], fully_annotated=False)
    rng = np.random.default_rng(0)
    phrases = [t.phrase for _ in range(60) for t in source.draw(rng, 64, 2).expressions]
    assert all({"dog", "pup"} & set(phrase.split()) for phrase in phrases), phrases


def test_scene_source_when_backgrounds_then_about_a_quarter_is_upon_them_and_the_rest_is_unknown(tmp_path):
    path = tmp_path / "flat.png"
    Image.new("RGB", (80, 80), (1, 250, 3)).save(path)
    source, rng = SceneSource("scenes", count=50, backgrounds=[path]), np.random.default_rng(0)
    pictures = [source.draw(rng, 64, 1) for _ in range(60)]
    green = [p for p in pictures if np.abs(p.pixels.reshape(-1, 3) - np.array([1, 250, 3])).max(axis=1).min() < 40
             and (np.abs(p.pixels - np.array([1, 250, 3])).max(axis=2) < 60).mean() > 0.2]  # fmt: skip
    assert 6 <= len(green) <= 26
    assert all(picture.categories is None for picture in green)
    assert any(picture.categories is not None for picture in pictures)


def test_scene_source_when_a_background_cannot_be_read_then_the_scene_is_drawn_without(tmp_path):
    source, rng = SceneSource("scenes", count=5, backgrounds=[tmp_path / "none.png"]), np.random.default_rng(0)
    assert all(source.draw(rng, 64, 1).expressions for _ in range(12))


def test_scene_source_when_the_canvas_is_larger_than_its_side_then_drawn_at_its_side_and_enlarged():
    # as one mixture of photos and scenes on a canvas of 128: scenes of 64 pixels are in it, twice as large
    scenes = SceneSource("scenes", count=3, largest=128, side=64)
    picture = scenes.draw(np.random.default_rng(0), 128, 2)
    assert picture.pixels.shape == (64, 64, 3)
    batch = Mixture([scenes, FixedSource(picture_of(LEFT))], [1.0, 0.0]).batch(
        0, 0, BatchShape(images=3, phrases=1, size=128, absent=0.0)
    )
    assert batch.pixels.shape == (3, 128, 128, 3)
    np.testing.assert_allclose(batch.content, [[0, 0, 1, 1]] * 3)
    assert batch.has_mask.all()
    one = collate([picture], 128, np.random.default_rng(0), 0.0)
    np.testing.assert_allclose(one.boxes[0], np.array(picture.expressions[0].box_xyxy_px) / 64, rtol=1e-6)


def test_batch_when_the_canvas_is_larger_than_a_source_allows_then_the_others_alone():
    mixture = Mixture([SceneSource("scenes", count=3), FixedSource(picture_of(LEFT))], [1.0, 1.0])
    assert mixture._shares_at(256).tolist() == [1, 1]
    assert mixture._shares_at(384).tolist() == [0, 1]
    assert mixture._shares_at(640).tolist() == [1, 1]  # none stands there, so all do


def test_sources_when_drawn_then_things_are_counted_where_all_of_a_category_are_known():
    records = [Record(seen("dog", 2, 30), seen("dog", 45, 78))]
    rng = np.random.default_rng(0)
    assert set(PhotoSource(records, fully_annotated=False).draw(rng, 64, 1).counts) == {"dog"}
    assert PhotoSource(records, fully_annotated=False, counts_known=False).draw(rng, 64, 1).counts == {}
    drawn = SceneSource("scenes", count=3).draw(rng, 64, 1)
    assert sum(drawn.counts.values()) == len(drawn.instances)


def test_counted_when_there_is_a_crowd_then_it_is_several():
    things = [seen("dog", 2, 30), dataclasses.replace(seen("cat", 2, 30), is_crowd=True)]
    assert counted(things) == {"dog": 1, "cat": 2}


def test_photo_source_when_a_thing_is_smaller_than_min_area_then_nothing_is_said_of_it():
    # 10 x 6 of 80 x 60 pixels: a crop of half the photo makes 1/40 of them at most
    small = VisibleInstance(category="bird", box_xyxy_px=(20, 20, 30, 26), mask=None)
    rng = np.random.default_rng(0)
    told = {
        least: {
            target.category
            for _ in range(30)
            for target in PhotoSource(
                [Record(seen("dog", 35, 75), small)], fully_annotated=True, min_area=least
            ).draw(rng, 64, 4).expressions
        }
        for least in (0.001, 0.1)
    }  # fmt: skip
    assert told == {0.001: {"dog", "bird"}, 0.1: {"dog"}}


def test_photo_source_when_partly_annotated_then_what_is_absent_is_not_known():
    source = PhotoSource([Record(seen("dog", 2, 30))], fully_annotated=False)
    assert source.draw(np.random.default_rng(0), 64, 2).categories is None


def test_photo_source_when_donors_are_pasted_then_they_count_as_present():
    donors = [Record(seen("zebra", 15, 65))]
    source = PhotoSource([Record(seen("dog", 2, 30))], fully_annotated=True, donors=donors, paste_share=1.0)
    rng = np.random.default_rng(0)
    present = [source.draw(rng, 64, 3).categories for _ in range(10)]
    assert any("zebra" in categories for categories in present)
