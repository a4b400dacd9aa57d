import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.augment import AffineRange, View
from deixis.data.augment.cropping import CropRange
from deixis.data.augment.pipelines import PIPELINES, Pipeline
from deixis.data.augment.resizing import ScaleRange
from deixis.data.captions.writing import VisibleInstance
from deixis.geometry.images import letterbox
from deixis.geometry.masks import box_from_mask
from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror

property_test = settings(max_examples=25, deadline=None)
MIRROR = Pipeline(mirror=1.0)
CROP = Pipeline(crop=CropRange(chance=1.0, short_sides=(100,), sides=(40, 70)))
AFFINE = Pipeline(affine=AffineRange(translate=0.5))
WORDS = "left right leftmost rt bright upright second clock 5 dog the behind on man next to"
PHRASES = st.lists(st.sampled_from(WORDS.split(" ")), min_size=1, max_size=5).map(" ".join)


def _thing(x1, y1, x2, y2, hw=(100, 160), with_mask=True, category="dog"):
    mask = np.zeros(hw, np.bool_)
    mask[y1:y2, x1:x2] = True
    return VisibleInstance(category=category, box_xyxy_px=(x1, y1, x2, y2), mask=mask if with_mask else None)


def _view(*things, hw=(100, 160), seed=0):
    return View(np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8), things)


DOG = _thing(30, 20, 60, 70)
FAR_CAT = _thing(140, 80, 158, 98, category="cat")


@st.composite
def views(draw):
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    things = []
    for _ in range(draw(st.integers(1, 3))):
        x1, y1 = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
        x2, y2 = draw(st.integers(x1 + 4, width)), draw(st.integers(y1 + 4, height))
        things.append(_thing(x1, y1, x2, y2, (height, width), draw(st.booleans())))
    return _view(*things, hw=(height, width), seed=draw(st.integers(0, 3)))


def _assert_same(view, other):
    np.testing.assert_array_equal(other.image, view.image)
    assert len(other.instances) == len(view.instances)
    for before, after in zip(view.instances, other.instances, strict=True):
        assert after.box_xyxy_px == pytest.approx(before.box_xyxy_px)
        if before.mask is None:
            assert after.mask is None
        else:
            np.testing.assert_array_equal(after.mask, before.mask)


# mirror


@property_test
@given(views(), PHRASES)
def test_mirror_when_done_twice_then_image_boxes_masks_and_words_are_as_before(view, phrase):
    rng = np.random.default_rng(0)
    once, told = MIRROR(view, phrase, rng)
    assert told == (mirror_phrase(phrase) if can_mirror(phrase) else phrase)
    twice, again = MIRROR(once, told, rng)
    _assert_same(view, twice)
    assert again == phrase


def test_mirror_when_words_can_be_swapped_then_the_thing_changes_sides():
    view, phrase = MIRROR(_view(DOG), "left dog", np.random.default_rng(0))
    assert phrase == "right dog"
    assert view.instances[0].box_xyxy_px == (100, 20, 130, 70)
    np.testing.assert_array_equal(view.image, _view(DOG).image[:, ::-1])


@pytest.mark.parametrize("phrase", ["number 5 jersey", "dog by the clock", "man facing us"])
def test_mirror_when_the_phrase_would_be_untrue_then_nothing_moves(phrase):
    view = _view(DOG)
    same, told = MIRROR(view, phrase, np.random.default_rng(0))
    _assert_same(view, same)
    assert told == phrase


def test_mirror_when_one_of_several_phrases_would_be_untrue_then_none_is_swapped():
    placed = MIRROR.on_canvas(_view(DOG), ["left dog", "dog by the clock"], np.random.default_rng(0), 160)
    assert placed.phrases == ["left dog", "dog by the clock"]
    assert placed.view.instances[0].box_xyxy_px[0] == 30


def test_mirror_when_even_odds_then_half_of_the_seeds_mirror():
    phrases = [Pipeline(mirror=0.5)(_view(), "left dog", np.random.default_rng(seed))[1] for seed in range(200)]
    assert 70 < phrases.count("right dog") < 130


# crop


@property_test
@given(views(), st.integers(0, 1000))
def test_crop_when_any_seed_then_what_is_meant_is_whole(view, seed):
    cropped, _ = CROP(view, "red dog", np.random.default_rng(seed))
    before, after = view.instances[0], cropped.instances[0]
    x1, y1, x2, y2 = after.box_xyxy_px
    assert x1 >= 0
    assert y1 >= 0
    assert (x2 - x1, y2 - y1) == (
        before.box_xyxy_px[2] - before.box_xyxy_px[0],
        before.box_xyxy_px[3] - before.box_xyxy_px[1],
    )
    assert x2 <= cropped.hw[1]
    assert y2 <= cropped.hw[0]
    if before.mask is not None:
        assert after.mask.sum() == before.mask.sum()


def _sizes(phrase, *things, pipeline=CROP):
    return {pipeline(_view(*things), phrase, np.random.default_rng(seed))[0].hw for seed in range(20)}


@pytest.mark.parametrize("phrase", ["left dog", "top dog", "second dog", "dog next to the cat"])
def test_crop_when_the_phrase_says_where_or_compares_with_what_is_unknown_then_never(phrase):
    assert _sizes(phrase, DOG) == {(100, 160)}


def test_crop_when_the_phrase_says_how_it_looks_then_windows_of_many_sizes():
    assert len(_sizes("red dog", DOG)) > 10


def test_crop_when_the_phrase_compares_then_all_known_things_stay_whole():
    near_cat = _thing(62, 30, 80, 60, category="cat")
    for seed in range(20):
        view, _ = CROP(_view(DOG, near_cat), "dog next to the cat", np.random.default_rng(seed))
        assert [(i.category, i.mask.sum()) for i in view.instances] == [("dog", 1500), ("cat", 540)]
    assert len(_sizes("dog next to the cat", DOG, near_cat)) > 5
    assert _sizes("dog next to the cat", DOG, FAR_CAT) == {(100, 160)}  # no window of 70 holds both
    assert len(_sizes("red dog", DOG, FAR_CAT)) > 5  # nothing is said of the cat


def test_crop_when_what_is_meant_lies_outside_the_image_then_nothing_is_cut():
    assert _sizes("red dog", VisibleInstance(category="dog", box_xyxy_px=(200, 20, 220, 40))) == {(100, 160)}


def test_crop_when_nothing_is_meant_then_any_window():
    placed = CROP.on_canvas(_view(FAR_CAT), ["red dog"], np.random.default_rng(0), 64, meant=0)
    assert placed.view.hw == (64, 64)
    assert placed.content_xyxy_px != (0, 12, 64, 52)  # the window has another shape than the picture


# affine


@property_test
@given(st.integers(0, 1000))
def test_affine_when_any_seed_then_most_of_what_is_meant_stays_on_the_frame(seed):
    box_only = _thing(2, 2, 20, 20, with_mask=False)
    view, phrase = AFFINE(_view(box_only, FAR_CAT), "left dog", np.random.default_rng(seed))
    x1, y1, x2, y2 = view.instances[0].box_xyxy_px
    assert (x2 - x1) * (y2 - y1) > 0.6 * 0.9**2 * 18 * 18 * 0.95
    assert phrase == "left dog"


def test_affine_when_the_phrase_counts_then_all_known_things_stay_on_the_frame():
    for seed in range(30):
        view, _ = AFFINE(_view(DOG, FAR_CAT), "second from left", np.random.default_rng(seed))
        assert len(view.instances) == 2
        assert not any(instance.is_crowd for instance in view.instances)
    crowds = [AFFINE(_view(DOG, FAR_CAT), "red dog", np.random.default_rng(seed))[0].instances for seed in range(30)]
    assert any(len(things) < 2 or things[1].is_crowd for things in crowds)


def test_affine_when_the_phrase_counts_and_nobody_knows_what_then_nothing_moves():
    _assert_same(_view(DOG), AFFINE(_view(DOG), "third dog", np.random.default_rng(0))[0])


# canvas


@pytest.mark.parametrize("name", ["none", "mcn"])
@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_on_canvas_when_nothing_is_to_be_done_then_as_the_letterbox(name, resize):
    view = _view(DOG)
    canvas, frame = letterbox(view.image, 64, 9, resize)
    placed = PIPELINES[name].on_canvas(view, ["a", "b"], np.random.default_rng(0), 64, resize=resize, fill=9)
    np.testing.assert_array_equal(placed.view.image, canvas)
    assert placed.view.instances[0].box_xyxy_px == pytest.approx(frame.box_to_canvas(DOG.box_xyxy_px))
    assert placed.content_xyxy_px == pytest.approx(frame.box_to_canvas((0, 0, 160, 100)))
    assert placed.phrases == ["a", "b"]


@property_test
@given(views(), st.integers(0, 1000), st.sampled_from(sorted(PIPELINES)), st.sampled_from(["letterbox", "squash"]))
def test_on_canvas_when_any_pipeline_then_all_agree_and_the_seed_decides(view, seed, name, resize):
    def place():
        rng = np.random.default_rng(seed)
        return PIPELINES[name].on_canvas(view, ["dog"], rng, 64, resize=resize, meant=1)

    placed = place()
    _assert_same(placed.view, place().view)
    assert placed.view.hw == (64, 64)
    assert placed.view.image.flags.c_contiguous
    left, top, right, bottom = placed.content_xyxy_px
    assert 0 <= left < right <= 64
    assert 0 <= top < bottom <= 64
    assert placed.view.instances
    for instance in placed.view.instances:
        x1, y1, x2, y2 = instance.box_xyxy_px
        assert left - 1e-6 <= x1 < x2 <= right + 1e-6
        assert top - 1e-6 <= y1 < y2 <= bottom + 1e-6
        if instance.mask is not None and instance.mask.any():
            assert instance.box_xyxy_px == pytest.approx(box_from_mask(instance.mask), abs=2.1)


def test_on_canvas_when_the_scale_varies_then_the_picture_is_whole_and_anywhere():
    contents = {
        Pipeline(scale=ScaleRange()).on_canvas(_view(DOG), ["dog"], np.random.default_rng(s), 160).content_xyxy_px
        for s in range(60)
    }
    widths = {right - left for left, _, right, _ in contents}
    assert widths == {112, 120, 128, 136, 144, 152, 160}
    assert all((right - left) / (bottom - top) == pytest.approx(1.6, abs=0.02) for left, top, right, bottom in contents)
    assert min(left for left, *_ in contents) == 0
    assert max(bottom for *_, bottom in contents) > 150


def test_on_canvas_when_smcim_then_every_step_of_the_paper_happens_to_some_seed():
    flat = View(np.full((100, 160, 3), (160, 80, 80), np.uint8), (DOG,))
    seen = {"mirrored": 0, "turned": 0, "recoloured": 0, "blurred": 0}
    for seed in range(40):
        placed = PIPELINES["smcim"].on_canvas(flat, ["left dog"], np.random.default_rng(seed), 160, fill=0)
        seen["mirrored"] += placed.phrases == ["right dog"]
        seen["turned"] += placed.content_xyxy_px != (0, 30, 160, 130)
        seen["recoloured"] += placed.view.image[80, 80, 0] != 160
    edge = np.zeros((100, 160, 3), np.uint8)
    edge[:, 80:] = 255
    for seed in range(40):
        row = PIPELINES["smcim"].on_canvas(View(edge, ()), ["dog"], np.random.default_rng(seed), 160, meant=0)
        steps = np.abs(np.diff(row.view.image[80, 40:120, 0].astype(int)))
        seen["blurred"] += steps.max() < 0.4 * steps.sum()
    assert seen["turned"] == 40
    assert 10 < seen["mirrored"] < 30
    assert seen["recoloured"] > 35
    assert 5 < seen["blurred"] < 30


def test_on_canvas_when_what_is_meant_lies_outside_the_image_then_it_keeps_its_place_in_the_list():
    outside = VisibleInstance(category="dog", box_xyxy_px=(300, 20, 340, 60))
    placed = PIPELINES["smcim"].on_canvas(_view(outside, FAR_CAT), ["dog"], np.random.default_rng(3), 64)
    assert placed.view.instances[0].category == "dog"
