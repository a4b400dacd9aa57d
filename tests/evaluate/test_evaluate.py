"""Evaluation with a stand-in for the grounder: what is asked, what is measured, what is left out."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from deixis.data import Samples
from deixis.evaluate.evaluate import evaluate, evaluate_command_result
from deixis.evaluate.predictions import Prediction, PredictionLog
from deixis.evaluate.report.tables import format_result, write_report
from deixis.evaluate.score import score_table
from deixis.geometry.masks import encode_rle
from deixis.structures import Instance, Sample

HW = (10, 20)
LARGE, SMALL = (0, 0, 10, 10), (12, 0, 16, 5)


def filled(box):
    x1, y1, x2, y2 = box
    mask = np.zeros(HW, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


@dataclass
class Answer:
    box: tuple | None
    mask: np.ndarray | None
    score: float = 0.9
    agreement: float = 1.0
    found: bool = True
    hw: tuple = HW


class FakeGrounder:
    """Points at `LARGE`, whatever is said, but calls "nothing" nothing; writes down what it was asked."""

    def __init__(self, *, boxes=True, masks=True):
        self.looks, self.asked = [], []
        self.box, self.mask = LARGE if boxes else None, filled(LARGE) if masks else None

    def look(self, image):
        if image.sum() > 0:
            raise ValueError("expected an image that can be read, got 'bad.jpg'")
        self.looks.append(image)
        return self

    def ground_all(self, phrases):
        if "refused" in phrases:
            raise ValueError("expected a phrase that is short, got 'refused'")
        self.asked.append(list(phrases))
        return [Answer(self.box, self.mask, found=phrase != "nothing") for phrase in phrases]


def sample(number, phrase="thing", box=LARGE, image_id="a", readable=True, **fields):
    value = 0 if readable else 255
    mask = None if box is None else encode_rle(filled(box))
    return Sample(
        id=str(number),
        image=np.full((*HW, 3), value, dtype=np.uint8),
        image_id=image_id,
        phrase=phrase,
        box_xyxy_px=box,
        **{"mask": mask, **fields},
    )


def test_evaluate_when_worked_by_hand_then_figures_agree():
    result = evaluate(FakeGrounder(), [sample(1), sample(2, box=SMALL)], name="toy", split="val")
    report = result.report()
    assert report["dataset"] == "toy"
    assert report["split"] == "val"
    assert report["n"] == 2
    assert report["rec"]["acc@0.5"] == 0.5
    assert report["res"]["miou"] == 0.5
    assert report["res"]["oiou"] == pytest.approx(100 / (100 + 100 + 20))
    assert report["ie"] == 0.0
    assert report["baselines"]["largest_instance"] is None
    assert [p.iou for p in result.predictions] == [1.0, 0.0]


def test_evaluate_when_samples_share_an_image_then_one_look_and_one_batch():
    grounder = FakeGrounder()
    evaluate(grounder, [sample(1), sample(2, "cat"), sample(3, "dog", image_id="b"), sample(4)])
    assert len(grounder.looks) == 3  # the first image comes back after another one
    assert grounder.asked == [["thing", "cat"], ["dog"], ["thing"]]


def test_evaluate_when_an_image_has_very_many_phrases_then_asked_in_parts():
    grounder = FakeGrounder()
    result = evaluate(grounder, [sample(i) for i in range(70)])
    assert [len(phrases) for phrases in grounder.asked] == [32, 32, 6]
    assert len(grounder.looks) == 1
    assert len(result.predictions) == 70


def test_evaluate_when_samples_are_bad_then_told_and_left_out():
    data = [
        sample(1),
        sample(2, image_id="b", readable=False),
        sample(3, image_id="c", mask={"size": [3, 3], "counts": "9"}),
        sample(4, "refused", image_id="c"),
        sample(5, image_id="c"),
    ]
    result = evaluate(FakeGrounder(), data)
    assert [p.id for p in result.predictions] == ["1", "5"]
    assert [problem.split(":")[0] for problem in result.problems] == ["sample '2'", "sample '3'", "sample '4'"]
    assert "bad.jpg" in result.problems[0]
    assert result.report()["n"] == 2
    assert result.report()["n_problems"] == 3


def test_evaluate_when_a_lazy_data_set_fails_at_one_index_then_told_and_left_out():
    class Lazy:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise ValueError("expected something else")
            return sample(index)

    result = evaluate(FakeGrounder(), Lazy())
    assert len(result.predictions) == 2
    assert result.problems == ("sample number 1: expected something else",)


def test_evaluate_when_nothing_can_be_measured_then_value_error_with_the_first_reason():
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        evaluate(FakeGrounder(), [sample(1, readable=False)])
    with pytest.raises(ValueError, match="empty"):
        evaluate(FakeGrounder(), [])


def test_evaluate_when_phrases_mean_nothing_then_counted_apart():
    data = [sample(1), sample(2, "nothing", box=None), sample(3, "unicorn", box=None)]
    result = evaluate(FakeGrounder(), data)
    report = result.report()
    assert report["no_target_accuracy"] == 0.5
    assert report["rec"]["acc@0.5"] == 1.0
    assert result.predictions[1].iou is None
    assert "2 of them mean nothing in the image, which the model says of 50.0 %" in format_result(result)


def test_evaluate_when_instances_are_listed_then_baselines_stand_beside():
    things = tuple(Instance(category="t", box_xyxy_px=b, mask=encode_rle(filled(b))) for b in (SMALL, LARGE))
    data = [sample(1, box=SMALL, instances=things), sample(2, instances=things)]
    baselines = evaluate(FakeGrounder(), data).report()["baselines"]
    assert baselines["largest_instance"]["rec"]["acc@0.5"] == 0.5
    assert baselines["random_instance"]["rec"]["acc@0.5"] == pytest.approx(0.5)
    assert evaluate(FakeGrounder(), data, baselines=False).report()["baselines"] == {}


def test_evaluate_when_progress_is_given_then_it_wraps_the_indices():
    seen = []

    def progress(indices):
        for index in indices:
            seen.append(index)
            yield index

    evaluate(FakeGrounder(), [sample(1), sample(2)], progress=progress)
    assert seen == [0, 1]


def test_format_table_when_parts_are_missing_then_dashes_and_not_zeros():
    result = evaluate(FakeGrounder(), [sample(1, mask=None), sample(2, box=SMALL, mask=None)], name="toy")
    table = format_result(replace(result, model="tiny"))
    lines = table.splitlines()
    assert lines[0] == "toy: 2 samples, figures in percent"
    assert lines[4].split() == ["tiny", "50.0", "50.0", "-", "-", "-", "-", "-", "-"]
    assert lines[7].split() == ["random", "instance", *["-"] * 8]
    assert len({line.index("50.0") for line in lines if "50.0" in line}) == 1


def test_write_report_when_written_then_both_files_are_whole_and_nothing_is_left_over(tmp_path):
    folder = tmp_path / "new" / "report"
    folder.mkdir(parents=True)
    with PredictionLog(folder / "predictions.jsonl") as log:
        data = [sample(1), sample(2, "nothing", box=None), sample(3, readable=False)]
        result = evaluate(FakeGrounder(), data, log=log)
    write_report(result, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.json", "metrics.md", "predictions.jsonl"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["rec"] == result.report()["rec"]
    assert metrics["problems"] == list(result.problems)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "id": "1", "image_id": "a", "phrase": "thing", "box": [0, 0, 10, 10], "mask": encode_rle(filled(LARGE)),
        "score": 0.9, "agreement": 1.0, "found": True, "iou": 1.0, "mask_iou": 1.0, "index": 0, "hw": [10, 20],
        "target_box": [0, 0, 10, 10], "intersection_px": 100, "union_px": 100, "target_px": 100, "shown_px": None,
        "labels": {
            "length": "1-2", "box size": "small", "image share": ">25 %", "kind": "plain", "words": "no place word",
        },
        "absent": None, "evidence": [],
    }  # fmt: skip
    assert score_table([Prediction.from_json(line) for line in lines]).tally() == result.tally
    assert lines[1]["iou"] is None


def test_evaluate_when_a_box_reaches_over_the_border_then_it_is_clipped():
    result = evaluate(FakeGrounder(), [sample(1, box=(-30, 0, 10, 10), mask=None)])
    assert result.predictions[0].iou == 1.0
    assert result.problems == ()


def test_evaluate_when_a_box_lies_outside_then_it_is_told_and_left_out():
    result = evaluate(FakeGrounder(), [sample(1), sample(2, box=(20, 0, 30, 5), mask=None)])
    assert [p.id for p in result.predictions] == ["1"]
    assert len(result.problems) == 1
    assert result.problems[0].startswith("sample '2': expected a box that overlaps its image")


def test_evaluate_when_the_data_set_has_problems_then_they_are_told():
    dataset = Samples([sample(1)], ["line 2: expected a JSON object"])
    assert evaluate(FakeGrounder(), dataset).problems == ("line 2: expected a JSON object",)


def test_evaluate_when_the_model_gives_boxes_only_then_the_masks_part_is_null():
    result = evaluate(FakeGrounder(masks=False), [sample(1), sample(2, box=SMALL), sample(3, "nothing", box=None)])
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["rec"]["acc@0.5"] == 0.5
    assert (report["res"], report["ie"], report["ie_box_only"], report["ie_mask_only"]) == (None, None, None, None)
    assert report["no_target_accuracy"] == 1.0
    assert report["baselines"]["best_constant_box"]["res"]["miou"] > 0  # the data has masks all the same
    assert [(p.iou, p.mask_iou) for p in result.predictions] == [(1.0, None), (0.0, None), (None, None)]
    assert format_result(replace(result, model="tiny")).splitlines()[4].split() == ["tiny", "50.0", "50.0", *["-"] * 6]


def test_evaluate_when_the_model_gives_masks_only_then_the_boxes_part_is_null():
    result = evaluate(FakeGrounder(boxes=False), [sample(1), sample(2, box=SMALL), sample(3, mask=None)])
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert (report["rec"], report["ie"]) == (None, None)
    assert report["res"]["miou"] == 0.5
    assert [(p.box, p.iou, p.mask_iou) for p in result.predictions] == [
        (None, None, 1.0), (None, None, 0.0), (None, None, None)
    ]  # fmt: skip
    cells = format_result(replace(result, model="tiny")).splitlines()[4].split()
    assert cells == ["tiny", "-", "-", "50.0", "45.5", "50.0", "50.0", "50.0", "-"]  # 100 of 220 pixels


def test_evaluate_when_there_is_no_mask_then_the_answers_own_size_counts():
    beyond = sample(1, box=(20, 0, 30, 5), mask=None)
    with pytest.raises(ValueError, match=r"overlaps its image of \(height, width\) \(10, 20\)"):
        evaluate(FakeGrounder(masks=False), [beyond])


def test_report_when_suppression_is_known_then_it_is_recorded(tmp_path):
    result = evaluate(FakeGrounder(), [sample(1)])
    assert result.report()["suppression"] is None
    write_report(replace(result, suppression="crop"), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["suppression"] == "crop"


@pytest.mark.parametrize(("asked", "used"), [(None, "soft"), ("none", "none"), ("crop", "crop")])
def test_evaluate_command_result_when_suppression_is_asked_for_then_in_place_of_the_models(monkeypatch, asked, used):
    grounder = FakeGrounder()
    grounder.name, grounder.suppression = "fake", "soft"
    monkeypatch.setattr("deixis.grounder.load", lambda model, **_options: grounder)
    monkeypatch.setattr("deixis.data.open_dataset", lambda name, **_options: [sample(1)])
    result = evaluate_command_result("fake", "toy.jsonl", suppression=asked)
    assert (grounder.suppression, result.suppression) == (used, used)


def test_evaluate_command_result_when_there_is_no_such_suppression_then_one_sentence():
    with pytest.raises(ValueError, match=r"expected a suppression out of .*'adaptive'.*, got 'hard'"):
        evaluate_command_result("fake", "toy.jsonl", suppression="hard")


def test_write_report_when_written_then_the_markdown_holds_intervals_and_parts(tmp_path):
    things = (Instance(category="a|b", box_xyxy_px=LARGE),)
    data = [sample(i, box=(LARGE, SMALL)[i % 2], image_id=str(i), category="a|b", instances=things) for i in range(8)]
    result = evaluate(FakeGrounder(), data, name="toy")
    write_report(replace(result, model="tiny"), tmp_path)
    lines = (tmp_path / "metrics.md").read_text().splitlines()
    assert lines[0].startswith("`tiny` on toy: 8 samples")
    row = next(line for line in lines if line.startswith("| tiny |"))
    assert "| 50.0 (12.5 to 87.5) |" in row
    best = next(line for line in lines if line.startswith("| best constant box |"))
    assert best.split("|")[2].strip() == "50.0"
    assert any(line.startswith("| category a\\|b | 8 |") for line in lines)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ci95"]["rec.acc@0.5"] == [0.125, 0.875]
    assert metrics["slices"]["length"]["1-2"]["rec.acc@0.5"] == 0.5
    assert metrics["slices"]["words"]["no place word"]["rec.acc@0.5"] == 0.5
    assert {part: one["rec.acc@0.5"] for part, one in metrics["slices"]["image share"].items()} == {
        "10-25 %": 0.0, ">25 %": 1.0,
    }  # fmt: skip
    assert any(line.startswith("| words no place word | 8 |") for line in lines)


def test_evaluate_when_numbers_are_not_finite_then_told_and_left_out():
    grounder = FakeGrounder()
    grounder.box = (0.0, 0.0, float("nan"), 10.0)
    with pytest.raises(ValueError, match="sample '1': expected finite numbers of the model"):
        evaluate(grounder, [sample(1)])


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    """Runs the command's work on a stand-in model and data; gives the result."""
    data = [sample(i, image_id=str(i)) for i in range(5)]

    def run(model="fake", **options):
        grounder = FakeGrounder()
        grounder.name, grounder.suppression = model, "soft"
        monkeypatch.setattr("deixis.grounder.load", lambda *_arguments, **_options: grounder)
        monkeypatch.setattr("deixis.data.open_dataset", lambda name, **_options: data)
        return evaluate_command_result(model, "toy.jsonl", report=tmp_path, **options)

    return run


def test_evaluate_command_result_when_run_then_four_files_and_none_left_over(evaluated, tmp_path):
    evaluated()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["metrics.json", "metrics.md", "predictions.jsonl", "report.html", "run.json"]


def test_evaluate_command_result_when_cut_off_then_the_same_command_goes_on(evaluated, tmp_path):
    whole = evaluated()
    lines = (tmp_path / "predictions.jsonl").read_bytes()
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "predictions.jsonl").write_bytes(lines[: len(lines) // 2])
    resumed = evaluated()
    assert resumed.num_resumed == 2
    assert resumed.report() == whole.report()
    assert (tmp_path / "predictions.jsonl").read_bytes() == lines


def test_evaluate_command_result_when_the_folder_holds_other_answers_then_they_are_kept_and_told(evaluated, tmp_path):
    (tmp_path / "predictions.jsonl").write_text('{"id": "1", "box": null}\n')  # of some other model, for deixis score
    result = evaluated()
    assert result.earlier == tmp_path / "predictions-before.jsonl"
    assert result.earlier.read_text() == '{"id": "1", "box": null}\n'
    assert evaluated().earlier is None  # the same evaluation again gives the same answers


@pytest.mark.parametrize("options", [{"model": "other"}, {"limit": 4}, {"resume": False}, {"precision": "float32"}])
def test_evaluate_command_result_when_something_else_was_cut_off_then_it_starts_anew(evaluated, tmp_path, options):
    evaluated()
    (tmp_path / "metrics.json").unlink()
    assert evaluated(**options).num_resumed == 0


def test_evaluate_command_result_when_it_was_finished_then_it_starts_anew(evaluated):
    evaluated()
    assert evaluated().num_resumed == 0
