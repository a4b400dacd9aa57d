import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from deixis.evaluate.calibration import calibration_error
from deixis.grounder import calibrated, load
from deixis.structures import Instance, Sample
from deixis.train.calibrate import (
    Evidence,
    best_thresholds,
    fit_calibration,
    fit_temperature,
    gather_evidence,
    store_in_config,
    stored_regression,
)

WEIGHTS, BIAS = np.array([0.8, -0.4, 1.2, 2.0]), -0.5


def drawn_evidence(count, seed=0):
    """Signs at random, and "right" by chance with the probability of a known logistic regression."""
    rng = np.random.default_rng(seed)
    signs = np.concatenate([rng.normal(0, 2, (count, 3)), rng.random((count, 1))], axis=1)
    probability = 1 / (1 + np.exp(-(signs @ WEIGHTS + BIAS)))
    right = rng.random(count) < probability
    return [Evidence(tuple(s.tolist()), float(s[3]), bool(r)) for s, r in zip(signs, right, strict=True)]


def test_fit_when_evidence_follows_a_regression_then_weights_come_back_and_error_is_low():
    found = fit_calibration(drawn_evidence(4000))
    assert np.sign(found["weights"]).tolist() == [1, -1, 1, 1]
    np.testing.assert_allclose(found["weights"], WEIGHTS, atol=0.35)
    assert found["bias"] == pytest.approx(BIAS, abs=0.25)
    assert found["n"] == 4000
    assert found["expected_calibration_error"] < 0.03


def test_fit_when_used_on_fresh_evidence_then_scores_mean_what_they_say():
    found = fit_calibration(drawn_evidence(4000))
    fresh = drawn_evidence(2000, seed=1)
    score = np.array([calibrated(e.signs, found, ()) for e in fresh])
    assert calibration_error(score, np.array([e.right for e in fresh])) < 0.05
    json.dumps(found, allow_nan=False)


def test_fit_when_signs_separate_perfectly_then_weights_stay_finite():
    evidence = [Evidence((x, 0.0, 0.0, 0.0), 0.5, x > 0) for x in (-2.0, -1.0, 1.0, 2.0)]
    found = fit_calibration(evidence)
    assert all(math.isfinite(w) for w in [*found["weights"], found["bias"]])
    assert found["weights"][0] > 0


@pytest.mark.parametrize("right", [True, False])
def test_fit_when_all_is_right_or_all_wrong_then_refused(right):
    with pytest.raises(ValueError, match="both right and wrong boxes among 3"):
        fit_calibration([Evidence((0.0, 0.0, 0.0, 0.0), 0.5, right)] * 3)


def test_fit_when_no_evidence_then_refused():
    with pytest.raises(ValueError, match="both right and wrong boxes among 0"):
        fit_calibration([])


def test_fit_temperature_when_logits_are_three_times_too_large_then_three():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(3 * logits, right) == pytest.approx(3, rel=0.1)
    assert fit_temperature(logits / 2, right) == pytest.approx(0.5, rel=0.1)


def test_fit_when_weights_are_fitted_on_few_samples_then_the_temperature_makes_them_doubt():
    rng = np.random.default_rng(0)
    evidence = [Evidence(tuple(rng.normal(0, 1, 8).tolist()), 1.0, bool(rng.random() < 0.5)) for _ in range(40)]
    told = fit_calibration(evidence)
    assert told["temperature"] > 1.5  # the signs are worth nothing
    loud = np.array(told["weights"]) * told["temperature"]
    assert np.abs(told["weights"]).max() < np.abs(loud).max()


def test_fit_when_weights_are_kept_then_temperature_alone_moves_them():
    told = fit_calibration(drawn_evidence(4000), keep=((3 * WEIGHTS).tolist(), 3 * BIAS))
    assert told["temperature"] == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(np.array(told["weights"]) * told["temperature"], 3 * WEIGHTS, rtol=1e-3)
    assert told["bias"] * told["temperature"] == pytest.approx(3 * BIAS, rel=1e-3)
    assert told["expected_calibration_error"] < 0.03


def test_fit_when_two_groundings_are_of_one_image_then_they_share_a_fold():
    # each image stands twice; folds that split an image would score it by weights that have seen it
    rng = np.random.default_rng(0)
    evidence = [
        Evidence(tuple(rng.normal(0, 1, 8).tolist()), 1.0, bool(rng.random() < 0.5), image=str(index))
        for index in range(30)
    ]
    assert fit_calibration([e for e in evidence for _ in range(2)])["temperature"] > 1.5


def test_best_thresholds_when_score_alone_separates_then_between_the_two():
    score, right = np.array([0.2, 0.4, 0.7, 0.9]), np.array([False, False, True, True])
    threshold, floor = best_thresholds(score, np.ones(4), right)
    assert 0.4 < threshold <= 0.7
    assert floor == 0


def test_best_thresholds_when_agreement_alone_separates_then_its_floor():
    agreement, right = np.array([0.1, 0.15, 0.45, 0.9]), np.array([False, False, True, True])
    threshold, floor = best_thresholds(np.full(4, 0.8), agreement, right)
    assert 0.15 < floor <= 0.45
    assert threshold <= 0.8


def sample_of(phrase, category, value):
    image = np.full((32, 32, 3), value, np.uint8)
    box = (0.0, 0.0, 32.0, 32.0)
    instance = Instance(category=category, box_xyxy_px=box)
    return Sample(
        id=phrase,
        image=image,
        image_id=phrase,
        phrase=phrase,
        box_xyxy_px=box,
        category=category,
        instances=(instance,),
    )


def test_gather_when_absent_phrases_are_added_then_they_count_as_wrong(tiny_checkpoint):
    samples = [sample_of("left dog", "dog", 20), sample_of("red ball", "ball", 200)] * 4
    evidence = gather_evidence(load(tiny_checkpoint, precision="float32"), samples, absent_share=1.0, problems=[])
    plain = gather_evidence(load(tiny_checkpoint, precision="float32"), samples, absent_share=0.0, problems=[])
    assert len(plain) == 8
    assert 8 < len(evidence) <= 16
    assert sum(not e.right for e in evidence) >= len(evidence) - 8
    assert all(len(e.signs) == 5 and 0 <= e.agreement <= 1 for e in evidence)
    assert sum(not e.belongs for e in evidence) == len(evidence) - 8
    assert {e.image for e in evidence} == {"left dog", "red ball"}


def test_gather_when_an_image_cannot_be_read_then_told_and_left_out(tiny_checkpoint):
    bad = dataclasses.replace(sample_of("left dog", "dog", 20), image=Path("none.png"))
    grounder, problems = load(tiny_checkpoint, precision="float32"), []
    evidence = gather_evidence(grounder, [bad, sample_of("red ball", "ball", 200)], absent_share=0.0, problems=problems)
    assert len(evidence) == len(problems) == 1
    assert "none.png" in problems[0]


@pytest.mark.parametrize("second", [("left bear", "teddy bear", 200), ("red ball", "ball", 200)])
def test_gather_when_a_phrase_may_mean_what_is_there_or_nobody_knows_then_it_is_not_called_absent(
    tiny_checkpoint, second
):
    samples = [sample_of("bear", "bear", 20), sample_of(*second)] * 4
    if second[1] == "ball":  # as JSON lines are: nobody lists what else is there
        samples = [dataclasses.replace(sample, instances=()) for sample in samples]
    evidence = gather_evidence(load(tiny_checkpoint, precision="float32"), samples, absent_share=1.0, problems=[])
    assert len(evidence) == 8


def test_stored_regression_when_nothing_was_fitted_then_the_models_own(tiny_checkpoint):
    grounder = load(tiny_checkpoint, precision="float32")
    weights, bias = stored_regression(grounder)
    assert (tuple(weights), bias) == (tuple(grounder.model.score_weights), 0.0)
    signs = (1.0, -1.0, 0.5, 0.25, 0.75)
    told = {"weights": list(weights), "bias": bias}
    assert calibrated(signs, told, ()) == calibrated(signs, {}, grounder.model.score_weights)


def test_store_when_entries_are_given_then_these_alone_change(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"name": "a", "calibration": {}}))
    store_in_config(tmp_path, calibration={"bias": 1.0})
    assert json.loads((tmp_path / "config.json").read_text()) == {"name": "a", "calibration": {"bias": 1.0}}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_store_when_value_is_no_json_then_the_old_file_stays(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "a"}')
    with pytest.raises(TypeError):
        store_in_config(tmp_path, calibration=object())
    assert (tmp_path / "config.json").read_text() == '{"name": "a"}'


# the mcn family


def test_gather_when_model_is_of_the_mcn_family_then_two_signs_and_a_fit_that_it_can_load(make_mcn_checkpoint):
    folder = make_mcn_checkpoint()
    samples = [sample_of("left dog", "dog", 20), sample_of("red ball", "ball", 200)] * 2
    evidence = gather_evidence(load(folder, precision="float32"), samples, absent_share=1.0, problems=[])
    assert {len(e.signs) for e in evidence} == {2}
    told = fit_calibration([dataclasses.replace(e, right=bool(k % 2)) for k, e in enumerate(evidence)])
    assert len(told["weights"]) == 2
    store_in_config(folder, calibration=told)
    found = load(folder, precision="float32").ground(samples[0].image, "left dog")
    assert found.score == pytest.approx(calibrated(found.evidence, told, ()))


def test_gather_when_model_gives_masks_only_then_no_box_is_right_and_a_fit_is_refused(make_mcn_checkpoint):
    grounder = load(make_mcn_checkpoint("single-res-52"), precision="float32")
    evidence = gather_evidence(grounder, [sample_of("left dog", "dog", 20)] * 2, absent_share=0.0, problems=[])
    assert [(e.right, e.agreement) for e in evidence] == [(False, 1.0)] * 2
    with pytest.raises(ValueError, match="both right and wrong boxes among 2"):
        fit_calibration(evidence)
