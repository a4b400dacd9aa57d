from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.augment.pipelines import PHOTOS, PIPELINES, CropRange, Pipeline, ScaleRange
from deixis.data.augment.warping import AffineRange
from deixis.geometry.images import letterbox
from deixis.geometry.masks import box_from_mask
from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror
from deixis.structures import AnnotatedImage, Expression, VisibleInstance

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
    """The first of the things is the one that is meant."""
    return AnnotatedImage(np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8), things)


def _said(view, *phrases):
    """An expression for each phrase, which means the first instance, if there is one."""
    meant = view.instances[0] if view.instances else VisibleInstance("dog", None)
    return replace(view, expressions=tuple(Expression(p, meant.box_xyxy_px, meant.mask, "dog") for p in phrases))


def _phrases(image):
    return [one.phrase for one in image.expressions]


def _on_canvas(pipeline, view, phrases, seed, size, **options):
    return pipeline.on_canvas(_said(view, *phrases), np.random.default_rng(seed), size, **options)


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
    np.testing.assert_array_equal(other.pixels, view.pixels)
    assert len(other.expressions) == len(view.expressions)
    for before, after in zip(view.expressions, other.expressions, strict=True):
        assert after.box_xyxy_px == pytest.approx(before.box_xyxy_px)
        if before.mask is None:
            assert after.mask is None
        else:
            np.testing.assert_array_equal(after.mask, before.mask)


# mirror


@property_test
@given(views(), PHRASES)
def test_mirror_when_done_twice_then_image_boxes_masks_and_words_are_as_before(view, phrase):
    view, rng = _said(view, phrase), np.random.default_rng(0)
    once = MIRROR(view, rng)
    assert _phrases(once) == [mirror_phrase(phrase) if can_mirror(phrase) else phrase]
    twice = MIRROR(once, rng)
    _assert_same(view, twice)
    assert _phrases(twice) == [phrase]


def test_mirror_when_words_can_be_swapped_then_the_thing_changes_sides():
    image = MIRROR(_said(_view(DOG), "left dog"), np.random.default_rng(0))
    assert _phrases(image) == ["right dog"]
    assert image.instances[0].box_xyxy_px == image.expressions[0].box_xyxy_px == (100, 20, 130, 70)
    np.testing.assert_array_equal(image.pixels, _view(DOG).pixels[:, ::-1])


@pytest.mark.parametrize("phrase", ["number 5 jersey", "dog by the clock", "man facing us"])
def test_mirror_when_the_phrase_would_be_untrue_then_nothing_moves(phrase):
    view = _said(_view(DOG), phrase)
    same = MIRROR(view, np.random.default_rng(0))
    _assert_same(view, same)
    assert _phrases(same) == [phrase]


def test_mirror_when_one_of_several_phrases_would_be_untrue_then_none_is_swapped():
    placed = _on_canvas(MIRROR, _view(DOG), ["left dog", "dog by the clock"], 0, 160)
    assert _phrases(placed) == ["left dog", "dog by the clock"]
    assert placed.expressions[0].box_xyxy_px[0] == 30


def test_mirror_when_even_odds_then_half_of_the_seeds_mirror():
    view = _said(_view(), "left dog")
    phrases = [_phrases(Pipeline(mirror=0.5)(view, np.random.default_rng(seed))) for seed in range(200)]
    assert 70 < phrases.count(["right dog"]) < 130


# crop


@property_test
@given(views(), st.integers(0, 1000))
def test_crop_when_any_seed_then_what_is_meant_is_whole(view, seed):
    cropped = CROP(_said(view, "red dog"), np.random.default_rng(seed))
    before, after = view.instances[0], cropped.expressions[0]
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


def _contents(phrase, *things):
    return {_on_canvas(CROP, _view(*things), [phrase], seed, 160).content_xyxy_px for seed in range(20)}


WHOLE = (0, 30, 160, 130)


@pytest.mark.parametrize("phrase", ["left dog", "top dog", "second dog", "dog next to the cat"])
def test_crop_when_the_phrase_says_where_or_compares_with_what_is_unknown_then_never(phrase):
    assert _contents(phrase, DOG) == {WHOLE}


def test_crop_when_the_phrase_says_how_it_looks_then_windows_of_many_sizes():
    assert len(_contents("red dog", DOG)) > 10


def test_crop_when_the_phrase_compares_then_all_known_things_stay_whole():
    near_cat = _thing(62, 30, 80, 60, category="cat")
    for seed in range(20):
        placed = _on_canvas(CROP, _view(DOG, near_cat), ["dog next to the cat"], seed, 160)
        assert [(i.category, i.is_crowd) for i in placed.instances] == [("dog", False), ("cat", False)]
    assert len(_contents("dog next to the cat", DOG, near_cat)) > 5
    assert _contents("dog next to the cat", DOG, FAR_CAT) == {WHOLE}  # no window of 70 holds both
    assert len(_contents("red dog", DOG, FAR_CAT)) > 5  # nothing is said of the cat


def test_crop_when_what_is_meant_lies_outside_the_image_then_nothing_is_cut():
    assert _contents("red dog", VisibleInstance(category="dog", box_xyxy_px=(200, 20, 220, 40))) == {WHOLE}


def test_crop_when_nothing_is_meant_then_any_window():
    image = replace(_view(FAR_CAT), expressions=(Expression("red dog", None, None, "dog"),))
    placed = CROP.on_canvas(image, np.random.default_rng(0), 64)
    assert placed.hw == (64, 64)
    assert placed.content_xyxy_px != (0, 12, 64, 52)  # the window has another shape than the picture


# affine


@property_test
@given(st.integers(0, 1000))
def test_affine_when_any_seed_then_most_of_what_is_meant_stays_on_the_frame(seed):
    box_only = _thing(2, 2, 20, 20, with_mask=False)
    placed = _on_canvas(AFFINE, _view(box_only, FAR_CAT), ["left dog"], seed, 160)
    x1, y1, x2, y2 = placed.expressions[0].box_xyxy_px
    assert (x2 - x1) * (y2 - y1) > 0.6 * 0.9**2 * 18 * 18 * 0.95
    assert _phrases(placed) == ["left dog"]


def test_affine_when_the_phrase_counts_then_all_known_things_stay_on_the_frame():
    for seed in range(30):
        placed = _on_canvas(AFFINE, _view(DOG, FAR_CAT), ["second from left"], seed, 160)
        assert len(placed.instances) == 2
        assert not any(instance.is_crowd for instance in placed.instances)
    crowds = [_on_canvas(AFFINE, _view(DOG, FAR_CAT), ["red dog"], seed, 160).instances for seed in range(30)]
    assert any(len(things) < 2 or things[1].is_crowd for things in crowds)


def test_affine_when_the_phrase_counts_and_nobody_knows_what_then_nothing_moves():
    assert _on_canvas(AFFINE, _view(DOG), ["third dog"], 0, 160).content_xyxy_px == WHOLE


# canvas


@pytest.mark.parametrize("name", ["none", "mcn"])
@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_on_canvas_when_nothing_is_to_be_done_then_as_the_letterbox(name, resize):
    view = _view(DOG)
    canvas, frame = letterbox(view.pixels, 64, 9, resize)
    placed = _on_canvas(PIPELINES[name], view, ["a", "b"], 0, 64, resize=resize, fill=9)
    np.testing.assert_array_equal(placed.pixels, canvas)
    assert placed.expressions[1].box_xyxy_px == pytest.approx(frame.box_to_canvas(DOG.box_xyxy_px))
    assert placed.content_xyxy_px == pytest.approx(frame.box_to_canvas((0, 0, 160, 100)))
    assert _phrases(placed) == ["a", "b"]


@property_test
@given(views(), st.integers(0, 1000), st.sampled_from(sorted(PIPELINES)), st.sampled_from(["letterbox", "squash"]))
def test_on_canvas_when_any_pipeline_then_all_agree_and_the_seed_decides(view, seed, name, resize):
    placed, again = (_on_canvas(PIPELINES[name], view, ["dog"], seed, 64, resize=resize) for _ in range(2))
    _assert_same(placed, again)
    assert placed.hw == (64, 64)
    assert placed.pixels.flags.c_contiguous
    left, top, right, bottom = placed.content_xyxy_px
    assert 0 <= left < right <= 64
    assert 0 <= top < bottom <= 64
    assert placed.instances
    for instance in (*placed.instances, *placed.expressions):
        x1, y1, x2, y2 = instance.box_xyxy_px
        assert left - 1e-6 <= x1 < x2 <= right + 1e-6
        assert top - 1e-6 <= y1 < y2 <= bottom + 1e-6
        if instance.mask is not None and instance.mask.any():
            assert instance.box_xyxy_px == pytest.approx(box_from_mask(instance.mask), abs=2.1)


def test_on_canvas_when_the_scale_varies_then_the_picture_is_whole_and_anywhere():
    contents = {
        _on_canvas(Pipeline(scale=ScaleRange()), _view(DOG), ["dog"], seed, 160).content_xyxy_px for seed in range(60)
    }
    widths = {right - left for left, _, right, _ in contents}
    assert widths == {112, 120, 128, 136, 144, 152, 160}
    assert all((right - left) / (bottom - top) == pytest.approx(1.6, abs=0.02) for left, top, right, bottom in contents)
    assert min(left for left, *_ in contents) == 0
    assert max(bottom for *_, bottom in contents) > 150


def test_on_canvas_when_smcim_then_every_step_of_the_paper_happens_to_some_seed():
    flat = AnnotatedImage(np.full((100, 160, 3), (160, 80, 80), np.uint8), (DOG,))
    seen = {"mirrored": 0, "turned": 0, "recoloured": 0, "blurred": 0}
    for seed in range(40):
        placed = _on_canvas(PIPELINES["smcim"], flat, ["left dog"], seed, 160, fill=0)
        seen["mirrored"] += _phrases(placed) == ["right dog"]
        seen["turned"] += placed.content_xyxy_px != (0, 30, 160, 130)
        seen["recoloured"] += placed.pixels[80, 80, 0] != 160
    edge = np.zeros((100, 160, 3), np.uint8)
    edge[:, 80:] = 255
    for seed in range(40):
        row = _on_canvas(PIPELINES["smcim"], AnnotatedImage(edge), ["dog"], seed, 160)
        steps = np.abs(np.diff(row.pixels[80, 40:120, 0].astype(int)))
        seen["blurred"] += steps.max() < 0.4 * steps.sum()
    assert seen["turned"] == 40
    assert 10 < seen["mirrored"] < 30
    assert seen["recoloured"] > 35
    assert 5 < seen["blurred"] < 30


def test_on_canvas_when_what_is_meant_lies_outside_the_image_then_it_stays():
    outside = VisibleInstance(category="dog", box_xyxy_px=(300, 20, 340, 60))
    placed = _on_canvas(PIPELINES["smcim"], _view(outside, FAR_CAT), ["dog"], 3, 64)
    assert placed.instances[0].category == "dog"
    assert placed.expressions[0].box_xyxy_px is not None


@pytest.mark.parametrize("name", ["smcim", "transvg"])
def test_call_when_the_pipeline_needs_a_canvas_then_refused(name):
    with pytest.raises(ValueError, match="call on_canvas"):
        PIPELINES[name](_view(DOG), np.random.default_rng(0))


def test_on_canvas_when_the_pipeline_zooms_out_then_refused():
    with pytest.raises(ValueError, match="call it without a canvas"):
        PHOTOS.on_canvas(_view(DOG), np.random.default_rng(0), 64)
