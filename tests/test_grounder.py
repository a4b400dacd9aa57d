import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.geometry.boxes import box_iou
from deixis.geometry.masks import box_from_mask, decode_rle
from deixis.grounder import (
    MAX_PHRASE_CHARACTERS,
    Grounder,
    calibrated,
    canvas_side,
    check_phrase,
    keep_inside,
    load,
    score_features,
)
from deixis.hub import load_checkpoint

PHRASES = ["left dog", "the red ball", "cat"]


@pytest.fixture(scope="module")
def grounder(tiny_checkpoint):
    return load(tiny_checkpoint, precision="float32")


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def scene(grounder, photo):
    return grounder.look(photo)


def check_contract(found, hw):
    x1, y1, x2, y2 = found.box
    assert 0 <= x1 < x2 <= hw[1]
    assert 0 <= y1 < y2 <= hw[0]
    assert found.mask.shape == hw
    assert found.mask.dtype == np.bool_
    for value in (found.score, found.agreement):
        assert 0 <= value <= 1
    assert isinstance(found.found, bool)
    assert found.ms > 0
    assert all(math.isfinite(v) for v in (*found.box, found.score, found.agreement, found.ms, *found.evidence))


def assert_same(one, two, tolerance_px=1e-3):
    assert one.phrase == two.phrase
    np.testing.assert_allclose(one.box, two.box, atol=tolerance_px)
    assert one.score == pytest.approx(two.score, abs=1e-3)
    assert (one.mask != two.mask).mean() < 0.01


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 3), (1, 50, 3), (50, 1, 3), (3000, 20, 3), (20, 3000, 3), (64, 64, 3), (31, 47), (31, 47, 4)],
    ids=str,
)
def test_ground_when_image_has_any_shape_then_contract_holds(grounder, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    check_contract(grounder.ground(image, "left dog"), shape[:2])


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA", "I", "F"])
def test_ground_when_pillow_image_of_any_mode_then_contract_holds(grounder, mode):
    check_contract(grounder.ground(Image.new(mode, (30, 20)), "cat"), (20, 30))


@pytest.mark.parametrize("phrase", ["zebra", "日本語", "💡", "left " * 150, "?", "a\x00b", "\u200b"])
def test_ground_when_words_are_odd_then_contract_holds(scene, phrase):
    check_contract(scene.ground(phrase), (40, 60))


def test_ground_all_when_asked_at_once_then_equals_one_by_one(scene):
    for one, phrase in zip(scene.ground_all(PHRASES), PHRASES, strict=True):
        assert one.phrase == phrase
        assert_same(one, scene.ground(phrase))


def test_ground_all_when_more_than_fit_in_a_pass_then_all_in_order(scene, monkeypatch):
    expected = scene.ground_all(PHRASES)
    monkeypatch.setattr("deixis.grounder.PHRASES_AT_ONCE", 2)
    for one, two in zip(expected, scene.ground_all(PHRASES), strict=True):
        assert_same(one, two)


def test_ground_all_when_no_phrases_then_nothing(scene):
    assert scene.ground_all([]) == []


def test_ground_all_when_one_phrase_is_empty_then_refused(scene):
    with pytest.raises(ValueError, match="expected a phrase with words, got ''"):
        scene.ground_all(["dog", ""])


def test_ground_when_asked_twice_then_the_same(scene):
    assert_same(scene.ground("cat"), scene.ground("cat"), tolerance_px=0)


def test_ground_when_called_on_the_grounder_then_as_through_a_scene(grounder, scene, photo):
    assert_same(grounder.ground(photo, "cat"), scene.ground("cat"))


def test_look_when_array_changes_afterwards_then_scene_keeps_its_image(grounder, photo):
    image = photo.copy()
    looked = grounder.look(image)
    image[:] = 0
    np.testing.assert_array_equal(looked.image, photo)


def test_look_when_path_then_as_the_array(grounder, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(photo)):
        assert_same(grounder.ground(source, "cat"), grounder.ground(photo, "cat"))


# ground_many


def test_ground_many_when_some_pairs_fail_then_order_is_kept_and_errors_stand_in_place(grounder, photo, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    Image.fromarray(photo).save(tmp_path / "good.png")
    good = tmp_path / "good.png"
    pairs = [
        (good, "cat"), (tmp_path / "none.png", "cat"), (good, " "), (tmp_path / "bad.png", "cat"), (str(good), "dog"),
        (good, "x" * 1001), (photo, "ball"),
    ]  # fmt: skip
    results = grounder.ground_many(pairs)
    assert [type(result).__name__ for result in results] == [
        "Grounding", "FileNotFoundError", "ValueError", "ValueError", "Grounding", "ValueError", "Grounding"
    ]  # fmt: skip
    for index in (0, 4, 6):
        assert results[index].phrase == pairs[index][1]
        assert_same(results[index], grounder.ground(*pairs[index]))
    assert not [r for r in results if isinstance(r, Exception) and "\n" in str(r)]


def test_ground_many_when_arrays_and_paths_alternate_then_each_is_grounded(grounder, photo, tmp_path):
    Image.fromarray(photo[:20]).save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    results = grounder.ground_many([(photo, "cat"), (path, "cat"), (Image.fromarray(photo), "cat"), (str(path), "cat")])
    assert [r.mask.shape for r in results] == [(40, 60), (20, 60), (40, 60), (20, 60)]


def test_ground_many_when_neighbours_share_a_path_then_one_look(grounder, photo, tmp_path, monkeypatch):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    looks = []
    look = Grounder.look
    monkeypatch.setattr(Grounder, "look", lambda self, image: looks.append(image) or look(self, image))
    pairs = [(tmp_path / "photo.png", "cat"), (str(tmp_path / "photo.png"), "dog"), (photo, "cat"), (photo, "dog")]
    results = grounder.ground_many(iter(pairs))
    assert len(looks) == 3  # an array may be filled anew between two pairs, a path may not
    assert results[0].image == tmp_path / "photo.png"
    assert results[0].draw().size == (photo.shape[1], photo.shape[0])


def test_ground_many_when_a_buffer_is_filled_anew_then_each_pair_sees_its_own_pixels(grounder, photo):
    buffer = photo.copy()

    def frames():
        for frame in (photo, 255 - photo):
            buffer[:] = frame
            yield buffer, "cat"

    first, second = grounder.ground_many(frames())
    assert first.box == grounder.ground(photo, "cat").box
    assert second.box == grounder.ground(255 - photo, "cat").box


def test_ms_when_several_phrases_are_asked_then_only_the_first_carries_the_encoding(grounder, photo):
    scene = grounder.look(photo)
    scene.encode_ms = 1e6
    first, second = scene.ground_all(["cat", "dog"])
    third = scene.ground("cat")
    assert first.ms > 1e6
    assert max(second.ms, third.ms) < 1e6


def test_agreement_when_recomputed_from_box_and_mask_then_equal(grounder, photo):
    found = grounder.ground(photo, "cat")
    own = box_from_mask(found.mask)
    expected = 0.0 if own is None else float(box_iou(np.array(own), np.array(found.box)))
    assert found.agreement == pytest.approx(expected)


def test_ground_many_when_nothing_is_given_then_nothing(grounder):
    assert grounder.ground_many([]) == []


# phrases


@pytest.mark.parametrize("phrase", ["", "   ", "\n\t"])
def test_check_phrase_when_without_words_then_refused(phrase):
    with pytest.raises(ValueError, match="expected a phrase with words"):
        check_phrase(phrase)


def test_check_phrase_when_one_character_too_long_then_refused_shortly():
    assert check_phrase("a" * MAX_PHRASE_CHARACTERS)
    with pytest.raises(ValueError, match="at most 1000 characters, got 1001") as caught:
        check_phrase("a" * (MAX_PHRASE_CHARACTERS + 1))
    assert len(str(caught.value)) < 200


def test_check_phrase_when_a_surrogate_then_refused_in_printable_words():
    with pytest.raises(ValueError, match="valid Unicode") as caught:
        check_phrase("dog \ud800")
    str(caught.value).encode()


def test_check_phrase_when_not_text_then_refused():
    with pytest.raises(ValueError, match="got None"):
        check_phrase(None)  # pyright: ignore[reportArgumentType]


def test_check_phrase_when_blanks_around_then_they_go():
    assert check_phrase("  left dog\n") == "left dog"


# precision


def test_load_when_bfloat16_then_contract_holds_and_answers_are_near_float32(tiny_checkpoint, grounder, photo):
    coarse = load(tiny_checkpoint, precision="bfloat16")
    assert {p.dtype for p in coarse.model.parameters()} == {torch.bfloat16}
    for phrase in PHRASES:
        fine, found = grounder.ground(photo, phrase), coarse.ground(photo, phrase)
        check_contract(found, (40, 60))
        np.testing.assert_allclose(found.box, fine.box, atol=2.0)
        assert found.score == pytest.approx(fine.score, abs=0.05)


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_load_when_precision_is_auto_then_the_machine_decides(tiny_checkpoint, monkeypatch, fast, dtype):
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: fast)
    assert load(tiny_checkpoint).dtype == dtype


def test_load_when_precision_is_unknown_then_refused(tiny_checkpoint):
    with pytest.raises(ValueError, match="got 'int8'"):
        Grounder(load_checkpoint(tiny_checkpoint), precision="int8")


# what comes out


def test_to_json_when_dumped_then_strict_json_with_the_designs_keys(scene):
    found = scene.ground("cat")
    row = json.loads(json.dumps(found.to_json("a.jpg"), allow_nan=False))
    assert list(row) == ["image", "phrase", "box", "score", "agreement", "found", "mask", "model", "ms"]
    np.testing.assert_array_equal(decode_rle(row["mask"]), found.mask)
    np.testing.assert_allclose(row["box"], found.box, atol=0.0051)
    assert row["model"] == "tiny"


def test_draw_when_asked_then_a_picture_of_the_images_size(scene):
    assert scene.ground("cat").draw().size == (60, 40)


def test_found_when_thresholds_are_recorded_then_both_must_be_reached(tiny_checkpoint, photo):
    grounder = load(tiny_checkpoint, precision="float32")
    found = grounder.ground(photo, "cat")
    for score, agreement, expected in ((0.0, 0.0, True), (1.0, 0.0, False), (0.0, 1.01, False)):
        grounder.calibration = {"found_score": score, "found_agreement": agreement}
        again = grounder.ground(photo, "cat")
        assert again.found is expected
        assert again.box == found.box


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.floats(-1e4, 1e4)] * 4),
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_keep_inside_when_any_box_then_inside_with_an_area_even_when_rounded(box, hw):
    kept = keep_inside(box, hw)
    for x1, y1, x2, y2 in (kept, tuple(round(v, 2) for v in kept)):
        assert 0 <= x1 < x2 <= hw[1]
        assert 0 <= y1 < y2 <= hw[0]


def test_keep_inside_when_inside_already_then_untouched():
    assert keep_inside((1.5, 2.5, 7.25, 8.0), (8, 10)) == (1.5, 2.5, 7.25, 8.0)


# score


def test_score_features_when_by_hand_then_log_odds():
    assert score_features(1.5, 0.5, 0.75, 0.3) == pytest.approx((1.5, 0.0, math.log(3), 0.3))


@pytest.mark.parametrize(("exists", "p"), [(1e9, 1.0), (-1e9, 0.0)])
def test_score_features_when_extreme_then_finite(exists, p):
    values = score_features(exists, p, p, p)
    assert all(abs(v) <= 12 for v in values)


def test_calibrated_when_by_hand_then_logistic_of_the_weighted_sum():
    calibration = {"weights": [1.0, 0.5, 0.0, 2.0], "bias": -1.0}
    logit = 1.0 * 0.2 + 0.5 * 4 + 2.0 * 0.5 - 1.0
    assert calibrated((0.2, 4.0, 9.0, 0.5), calibration) == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize("sign", [-1, 1])
def test_calibrated_when_weights_are_huge_then_still_a_probability(sign):
    assert 0 <= calibrated((12.0, 9.0, 9.0, 1.0), {"weights": [sign * 1e300, 0, 0, 0]}) <= 1


@pytest.mark.parametrize(
    ("hw", "largest", "side"),
    [((480, 640), 384, 384), ((200, 300), 384, 320), ((256, 256), 384, 256), ((257, 10), 384, 288), ((9, 9), 64, 64)],
)
def test_canvas_side_when_small_then_not_enlarged_and_when_large_then_the_models_own(hw, largest, side):
    assert canvas_side(hw, largest) == side
