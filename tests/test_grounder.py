import json
import math
from dataclasses import replace

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
)
from deixis.hub import load_checkpoint, save_checkpoint
from deixis.models.suppression import finish_mask

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


def test_evidence_when_grounded_then_the_models_signs_and_last_the_agreement(grounder, scene):
    found = scene.ground("cat")
    ids, valid = (torch.from_numpy(x) for x in grounder.tokenizer.encode(["cat"]))
    with torch.inference_mode():
        answer = grounder.model.answer(scene.features.pick(torch.tensor([0])), ids, valid)
    assert found.evidence == (*answer.signs[0].tolist(), found.agreement)
    assert found.score == pytest.approx(calibrated(found.evidence, {}, (0.5, 0.0, 0.5, 0.0, 0.0)))


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


def test_calibrated_when_by_hand_then_logistic_of_the_weighted_sum():
    calibration = {"weights": [1.0, 0.5, 0.0, 2.0], "bias": -1.0}
    logit = 1.0 * 0.2 + 0.5 * 4 + 2.0 * 0.5 - 1.0
    assert calibrated((0.2, 4.0, 9.0, 0.5), calibration, (7.0,) * 4) == pytest.approx(1 / (1 + math.exp(-logit)))


def test_calibrated_when_nothing_is_stored_then_the_models_own_weights_and_no_bias():
    assert calibrated((0.2, 0.5), {}, (3.0, 2.0)) == pytest.approx(1 / (1 + math.exp(-1.6)))


@pytest.mark.parametrize("sign", [-1, 1])
def test_calibrated_when_weights_are_huge_then_still_a_probability(sign):
    assert 0 <= calibrated((12.0, 9.0, 9.0, 1.0), {"weights": [sign * 1e300, 0, 0, 0]}, ()) <= 1


@pytest.mark.parametrize(
    ("hw", "largest", "side"),
    [((480, 640), 384, 384), ((200, 300), 384, 320), ((256, 256), 384, 256), ((257, 10), 384, 288), ((9, 9), 64, 64)],
)
def test_canvas_side_when_small_then_not_enlarged_and_when_large_then_the_models_own(hw, largest, side):
    assert canvas_side(hw, largest) == side


# the mcn family


def mcn_answer(grounder, scene, phrase):
    """What the model itself says, on the canvas."""
    ids, valid = (torch.from_numpy(x) for x in grounder.tokenizer.encode([phrase]))
    with torch.inference_mode():
        return grounder.model.answer(scene.features.pick(torch.tensor([0])), ids, valid)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (3000, 20, 3), (40, 60, 3)], ids=str)
def test_mcn_when_image_has_any_shape_then_contract_holds_and_batches_equal_single_phrases(make_mcn_checkpoint, shape):
    scene = load(make_mcn_checkpoint(), precision="float32").look(
        np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    )
    for one, phrase in zip(scene.ground_all(PHRASES), PHRASES, strict=True):
        check_contract(one, shape[:2])
        assert one.hw == shape[:2]
        assert_same(one, scene.ground(phrase))


def test_mcn_when_image_is_small_then_still_the_canvas_and_the_grey_of_its_training(make_mcn_checkpoint):
    scene = load(make_mcn_checkpoint(image_size=288, fill=7), precision="float32").look(np.full((30, 60, 3), 255, "u1"))
    assert scene.frame.size == 288
    grounder = scene.grounder
    seen = []
    grounder.model.encode_image = lambda pixels, content: seen.append((pixels, content))
    grounder.look(np.full((30, 60, 3), 255, np.uint8))
    ((pixels, content),) = seen
    assert pixels.shape == (1, 3, 288, 288)
    torch.testing.assert_close(pixels[0, :, 0], torch.full((3, 288), 7 / 255))
    assert (pixels[0, :, 144] == 1).all()
    torch.testing.assert_close(content, torch.tensor([[0.0, 0.25, 1.0, 0.75]]))


def test_mcn_score_when_not_calibrated_then_the_boxs_confidence(make_mcn_checkpoint, photo):
    grounder = load(make_mcn_checkpoint(), precision="float32")
    scene = grounder.look(photo)
    found, answer = scene.ground("red ball"), mcn_answer(grounder, scene, "red ball")
    assert found.score == pytest.approx(float(answer.confidence[0]), abs=1e-5)
    assert found.evidence == (*answer.signs[0].tolist(), found.agreement)
    assert len(found.evidence) == 2


def test_mcn_box_and_mask_when_recomputed_from_the_answer_then_the_official_order(make_mcn_checkpoint, photo):
    grounder = load(make_mcn_checkpoint(suppression="crop"), precision="float32")
    assert grounder.suppression == "crop"
    scene = grounder.look(photo)
    found, answer = scene.ground("cat"), mcn_answer(grounder, scene, "cat")
    canvas_px = (answer.boxes[0] * 64).tolist()
    np.testing.assert_allclose(found.box, keep_inside(scene.frame.box_to_image(canvas_px), (40, 60)), atol=1e-4)
    probability = answer.mask_probability[0].numpy()
    for method in ("crop", "none"):
        grounder.suppression = method
        wanted = finish_mask(probability, scene.frame, canvas_px, float(answer.confidence[0]), method, "official")
        np.testing.assert_array_equal(scene.ground("cat").mask, wanted)


def sure_of_everything(grounder):
    """The mask's probability is 1 everywhere."""
    with torch.no_grad():
        grounder.model.mask.conv.bias.fill_(100)
    return grounder


def test_mcn_mask_when_suppression_crops_then_nothing_outside_the_box(make_mcn_checkpoint, photo):
    grounder = sure_of_everything(load(make_mcn_checkpoint(suppression="crop"), precision="float32"))
    found = grounder.ground(photo, "cat")
    own = box_from_mask(found.mask)
    assert not found.mask.all()
    np.testing.assert_allclose(own, found.box, atol=2.0)  # the canvas is as fine as the image
    grounder.suppression = "none"
    assert grounder.ground(photo, "cat").mask.all()


BOX_ONLY = ("single-rec-13", "single-rec-52")
MASK_ONLY = ("single-res-13", "single-res-52")


@pytest.mark.parametrize("structure", [*BOX_ONLY, *MASK_ONLY])
def test_one_branch_when_grounded_then_the_other_part_is_none_everywhere(make_mcn_checkpoint, photo, structure):
    found = load(make_mcn_checkpoint(structure), precision="float32").ground(photo, "left dog")
    row = json.loads(json.dumps(found.to_json("a.jpg"), allow_nan=False))
    assert list(row) == ["image", "phrase", "box", "score", "agreement", "found", "mask", "model", "ms"]
    if structure in BOX_ONLY:
        assert (found.mask, row["mask"]) == (None, None)
        x1, y1, x2, y2 = found.box
        assert 0 <= x1 < x2 <= 60
        assert 0 <= y1 < y2 <= 40
        np.testing.assert_allclose(row["box"], found.box, atol=0.0051)
    else:
        assert (found.box, row["box"]) == (None, None)
        assert (found.mask.shape, found.mask.dtype) == ((40, 60), np.bool_)
        np.testing.assert_array_equal(decode_rle(row["mask"]), found.mask)
    assert found.hw == (40, 60)
    assert found.agreement == row["agreement"] == 1.0
    assert 0 < found.score < 1
    assert row["model"] == structure


@pytest.mark.parametrize("structure", MASK_ONLY)
def test_mask_only_when_suppression_is_configured_then_there_is_no_box_to_go_by(make_mcn_checkpoint, photo, structure):
    grounder = load(make_mcn_checkpoint(structure, suppression="crop"), precision="float32")
    assert sure_of_everything(grounder).ground(photo, "cat").mask.all()
    assert grounder.ground(photo, "cat").score == pytest.approx(0.9999)  # its surest pixel, kept away from 1


@pytest.mark.parametrize("structure", [*BOX_ONLY, *MASK_ONLY])
def test_draw_when_a_part_is_none_then_the_other_is_drawn(make_mcn_checkpoint, photo, structure):
    found = replace(load(make_mcn_checkpoint(structure), precision="float32").ground(photo, "cat"), image=photo)
    if found.mask is not None:
        found.mask[:] = True
    drawn = np.asarray(found.draw())
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()


@pytest.mark.parametrize("structure", ["mcn", "single-rec-13", "single-res-52"])
def test_mcn_when_bfloat16_then_answers_are_near_float32(make_mcn_checkpoint, photo, structure):
    folder = make_mcn_checkpoint(structure)
    fine, coarse = (load(folder, precision=one).ground(photo, "red dog") for one in ("float32", "bfloat16"))
    assert coarse.score == pytest.approx(fine.score, abs=0.05)
    assert (coarse.box is None, coarse.mask is None) == (fine.box is None, fine.mask is None)
    if structure != "mcn":  # there, a mask's border may move with the box
        assert fine.box is None or np.abs(np.array(coarse.box) - np.array(fine.box)).max() < 2
        assert fine.mask is None or (fine.mask != coarse.mask).mean() < 0.1


def test_found_when_mcn_thresholds_are_stored_then_they_count(make_mcn, tmp_path, photo):
    model, tokenizer = make_mcn("single-rec-13")
    for bias, expected, verdict in ((9.0, True, "found"), (-0.5, False, "unsure"), (-9.0, False, "not found")):
        calibration = {"weights": [0.0, 0.0], "bias": bias, "found_score": 0.6, "found_agreement": 0.5}
        save_checkpoint(tmp_path / "one", model, tokenizer, calibration=calibration)
        found = load(tmp_path / "one", precision="float32").ground(photo, "cat")
        assert found.score == pytest.approx(1 / (1 + math.exp(-bias)))
        assert found.found is expected
        assert found.verdict == verdict  # from half of 0.6 on: unsure
        assert not {"verdict", "found_score"} & set(found.to_json())
