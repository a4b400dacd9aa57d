"""Two models on the same samples: differences, who is right, and what is written."""

import json

import pytest

from deixis.data import Samples
from deixis.evaluate.compare import compare, compare_command_result, format_comparison
from deixis.evaluate.evaluate import evaluate

PHRASES = ("10 10 0.9", "8 8 0.9", "4 4 0.9")  # the second is wrong when it is halved, the third always


@pytest.fixture
def both(fake_grounder, make_sample):
    data = [make_sample(i, PHRASES[i % 3]) for i in range(12)]
    return evaluate(fake_grounder("b", shrink=2), data), evaluate(fake_grounder("a"), data)


def test_compare_when_worked_by_hand_then_differences_agree(both):
    comparison = compare(*both)
    one = comparison.differences["rec.acc@0.5"]
    assert (one.n, one.a, one.b) == (12, 0.0, pytest.approx(8 / 12))
    assert one.difference == pytest.approx(8 / 12)
    assert one.ci95 is not None
    assert one.ci95[0] > 0
    assert one.is_sure
    assert comparison.outcomes == {"both": 0, "only A": 0, "only B": 8, "neither": 4}
    assert comparison.slices["length"]["3"].n == 12
    assert comparison.slices["image share"][">25 %"].n == 12


def test_compare_when_phrases_say_several_words_then_they_count_for_each(fake_grounder, make_sample):
    data = [make_sample(i, phrase) for i, phrase in enumerate(("left red dog", "left dog", "red dog", "dog"))]
    result = evaluate(fake_grounder(), data)
    parts = compare(result, result).slices["words"]
    assert {name: one.n for name, one in parts.items()} == {"left": 2, "colour": 2, "no place word": 2}


def test_compare_when_turned_round_then_signs_turn(both):
    forth, back = compare(*both).differences, compare(*reversed(both)).differences
    assert {name: -one.difference for name, one in back.items()} == {n: one.difference for n, one in forth.items()}


def test_compare_when_the_same_then_nothing_is_sure(both):
    comparison = compare(both[0], both[0])
    assert not any(one.is_sure or one.difference for one in comparison.differences.values())
    assert "*" not in format_comparison(comparison)


def test_compare_when_one_lacks_samples_then_the_common_ones_count(fake_grounder, make_sample):
    data = [make_sample(i, PHRASES[i % 3]) for i in range(6)]
    shorter = evaluate(fake_grounder(), data[:4])
    report = compare(evaluate(fake_grounder(), data), shorter).report()
    assert (report["n"], report["n_only_a"], report["n_only_b"]) == (4, 2, 0)


def test_compare_when_data_differ_then_value_error(both, fake_grounder, make_sample):
    other = evaluate(fake_grounder(), [make_sample(0, "other words")])
    with pytest.raises(ValueError, match="the same samples"):
        compare(both[0], other)


def test_compare_command_result_when_run_then_reports_and_pictures_of_both(
    fake_grounder, make_sample, tmp_path, monkeypatch
):
    data = Samples([make_sample(i, PHRASES[i % 3]) for i in range(6)], ["line 9: expected a box"])
    made = {"a": fake_grounder("a"), "b": fake_grounder("b", shrink=2)}
    monkeypatch.setattr("deixis.grounder.load", lambda model, **_options: made[model])
    monkeypatch.setattr("deixis.data.open_dataset", lambda name, **_options: data)
    comparison = compare_command_result("a", "b", "toy.jsonl", report=tmp_path)
    assert comparison.problems == ("line 9: expected a box",)
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert written == {**comparison.report(), "problems": ["line 9: expected a box"]}
    page = (tmp_path / "comparison.html").read_text()
    assert "only A is right: 4 samples" in page
    assert "only B is right" not in page
    assert page.count("<img") == 12  # target, A, B of four samples
    assert "A: box IoU 1.00, mask IoU 1.00, score 0.90, agreement 1.00, found" in page
    assert "| box Acc@0.5 | 6 | 66.7 | 0.0 | -66.7 |" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "a" / "report.html").is_file()


def test_compare_command_result_when_both_models_have_one_name_then_their_places_tell_them_apart(
    fake_grounder, make_sample, monkeypatch
):
    made = {"runs/1": fake_grounder("same"), "runs/2": fake_grounder("same", shrink=2)}
    monkeypatch.setattr("deixis.grounder.load", lambda model, **_options: made[model])
    monkeypatch.setattr("deixis.data.open_dataset", lambda name, **_options: [make_sample(0, PHRASES[0])])
    comparison = compare_command_result("runs/1", "runs/2", "toy.jsonl")
    assert "A is same (runs/1), B is same (runs/2)" in format_comparison(comparison)
    assert comparison.report()["a"] == "same (runs/1)"


def test_compare_command_result_when_cut_in_the_second_then_the_first_is_not_asked_again(
    fake_grounder, make_sample, tmp_path, monkeypatch
):
    data = [make_sample(i, PHRASES[i % 3]) for i in range(6)]
    made = {"a": fake_grounder("a"), "b": fake_grounder("b", dies_at="4 4 0.9")}
    monkeypatch.setattr("deixis.grounder.load", lambda model, **_options: made[model])
    monkeypatch.setattr("deixis.data.open_dataset", lambda name, **_options: data)
    with pytest.raises(KeyboardInterrupt):
        compare_command_result("a", "b", "toy.jsonl", report=tmp_path)
    made["b"].dies_at = None
    asked = [len(grounder.asked) for grounder in made.values()]
    comparison = compare_command_result("a", "b", "toy.jsonl", report=tmp_path)
    assert comparison.a.num_resumed == 6
    assert comparison.b.num_resumed == 2
    assert asked == [6, 3]
