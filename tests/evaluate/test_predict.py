"""Asking: in the same company whatever is known already, absent phrases, and pieces that split no image."""

import pytest

from deixis.evaluate.evaluate import evaluate
from deixis.evaluate.predict import AbsentPhrases, Predictor
from deixis.evaluate.predictions import PredictionLog
from deixis.evaluate.processes import split_by_image

PHRASES = ("10 10 0.9", "8 3 0.7", "3 8 0.6", "1 1 0.4", "6 6 0.2")


def data_of(make_sample):
    return [make_sample(i, PHRASES[i % 5], image=i // 3) for i in range(15)]


def cut_and_resumed(fake_grounder, data, path, dies_at):
    with PredictionLog(path) as log, pytest.raises(KeyboardInterrupt):
        evaluate(fake_grounder(dies_at=dies_at), data, log=log)
    with path.open("ab") as file:
        file.write(b'{"id": "s14", "ima')
    grounder = fake_grounder()
    with PredictionLog(path, resume=True) as log:
        return evaluate(grounder, data, log=log), grounder


def test_evaluate_when_cut_and_resumed_then_figures_and_file_are_identical(fake_grounder, make_sample, tmp_path):
    data = data_of(make_sample)
    data[10] = make_sample(10, "a thing at last", image=3)
    with PredictionLog(tmp_path / "whole.jsonl") as log:
        whole = evaluate(fake_grounder(), data, log=log)
    resumed, grounder = cut_and_resumed(fake_grounder, data, tmp_path / "cut.jsonl", "a thing at last")
    assert resumed.num_resumed == 9
    assert len(grounder.asked) == 2  # the images that were not through
    assert resumed.report() == whole.report()
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_parts_when_one_sample_of_an_image_is_unknown_then_all_of_it_is_asked(fake_grounder, make_sample):
    data = data_of(make_sample)
    known = {one.index: one for one in evaluate(fake_grounder(), data).predictions if one.index != 4}
    grounder = fake_grounder()
    predictor = Predictor(grounder=grounder, dataset=data)
    found = [one for part in predictor.parts(range(15), known) for one in part.predictions]
    assert grounder.asked == [[sample.phrase for sample in data[3:6]]]
    assert [one.index for one in found] == list(range(15))


def test_parts_when_a_sample_has_changed_then_its_image_is_asked_again(fake_grounder, make_sample):
    data = data_of(make_sample)
    known = {one.index: one for one in evaluate(fake_grounder(), data).predictions}
    data[1] = make_sample(1, PHRASES[1], image=0, box=(0, 0, 9, 10))
    data[7] = make_sample(7, "other words", image=2)
    grounder = fake_grounder()
    predictor = Predictor(grounder=grounder, dataset=data)
    assert sum(len(part.predictions) for part in predictor.parts(range(15), known) if part.is_fresh) == 6
    assert len(grounder.asked) == 2


def test_absent_phrases_when_the_category_is_there_then_another_or_none(make_sample):
    data = [
        make_sample(0, "left dog", categories=("dog",)),
        make_sample(1, "red cup", category="cup", categories=("cup", "dog")),
        make_sample(2, "a bench", category="bench"),
    ]
    absent = AbsentPhrases(data)
    assert {absent.pick(i, data[0]) for i in range(3)} == {"red cup", "a bench"}
    assert {absent.pick(i, data[1]) for i in range(3)} == {"a bench"}
    assert absent.pick(0, data[2]) is None  # nobody listed what is in it


def test_evaluate_when_images_list_their_things_then_false_alarms_are_counted(fake_grounder, make_sample):
    data = [
        make_sample(0, "left dog", categories=("dog",)),
        make_sample(1, "red cup", category="cup", categories=("cup",)),
        make_sample(2, "a bench", category="bench"),
    ]
    grounder = fake_grounder()
    result = evaluate(grounder, data)
    assert result.found["n_absent"] == 2
    assert result.found["false_alarm_rate"] == 1.0  # whatever is said, it points
    assert result.report()["n"] == 3
    assert len(grounder.asked) == 5
    assert evaluate(fake_grounder(), data, absent=False).found["n_absent"] == 0


def test_split_by_image_when_images_have_many_samples_then_none_is_split(make_sample):
    data = [make_sample(i, image=i // 4) for i in range(22)]
    pieces = list(split_by_image(data, at_least=6))
    assert pieces == [range(8), range(8, 16), range(16, 22)]
    assert list(split_by_image([], at_least=6)) == []


def test_split_by_image_when_a_sample_cannot_be_read_then_not_there(make_sample):
    class Broken(list):
        def __getitem__(self, index):
            if index == 2:
                raise ValueError("expected something else")
            return super().__getitem__(index)

    data = Broken(make_sample(i) for i in range(6))
    assert list(split_by_image(data, at_least=2)) == [range(4), range(4, 6)]


def test_parts_when_asked_in_pieces_then_what_one_asking_gives(fake_grounder, make_sample):
    data = [make_sample(i, PHRASES[i % 5], image=i // 3, categories=("dog",)) for i in range(40)]

    def parts(pieces):
        predictor = Predictor(grounder=fake_grounder(), dataset=data, absent=AbsentPhrases(data), keep_masks=True)
        return [one for piece in pieces for part in predictor.parts(piece) for one in part.predictions]

    assert parts(split_by_image(data, at_least=5)) == parts([range(40)])
