"""Scoring files of predictions: what is measured, and that every line and every sample is accounted for."""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data import Samples
from deixis.evaluate.evaluate import evaluate
from deixis.evaluate.predictions import BoxForm, read_lines
from deixis.evaluate.report.tables import format_result
from deixis.evaluate.result import write_json
from deixis.evaluate.score import score_command_result, score_lines
from deixis.evaluate.targets import read_targets
from deixis.geometry.masks import decode_rle, encode_rle
from deixis.structures import Instance, Sample

HW = (20, 40)
BOX = (4, 2, 14, 12)


def filled(box, hw=HW):
    mask = np.zeros(hw, dtype=bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return mask


def sample(name, box=BOX, image_id="a", mask="filled", phrase="left dog", **fields):
    return Sample(
        id=name,
        image=np.zeros((*HW, 3), dtype=np.uint8),
        image_id=image_id,
        phrase=phrase,
        box_xyxy_px=box,
        mask=encode_rle(filled(box)) if mask == "filled" and box is not None else None if mask == "filled" else mask,
        **fields,
    )


@pytest.fixture
def score(tmp_path):
    """Write the lines as given, score them, and hold what must add up against each other."""

    def run(samples, lines, name="toy", **options):
        path = tmp_path / "predictions.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        problems = []
        targets = read_targets(samples, name, problems)
        result = score_lines(
            read_lines(path), targets, problems=problems, dataset=name, **{"replicates": 20, **options}
        )
        c = result.counts
        assert c.samples == c.answered + c.missing + c.unusable + c.conflicting + c.left_out
        known = c.answered + c.unusable + c.conflicting + c.for_left_out
        assert c.lines == known + c.doubled + c.unknown + c.unreadable
        assert round(result.tally.n) == c.samples - c.left_out
        json.dumps(result.report(), allow_nan=False)
        return result

    return run


def test_score_when_worked_by_hand_then_figures_agree(score):
    # box: 10 x 8 of 10 x 10 is shared, IoU 0.8; mask: 10 x 4 of 10 x 10, IoU 0.4
    line = {"id": "1", "box": [4, 2, 14, 10], "mask": encode_rle(filled((4, 2, 14, 6)))}
    exact = {"id": "2", "box": list(BOX), "mask": encode_rle(filled(BOX))}
    result = score([sample("1"), sample("2", image_id="b")], [line, exact])
    report = result.report()
    assert report["n"] == 2
    assert report["rec"]["mean_iou"] == pytest.approx(0.9)
    assert report["rec"]["acc@0.75"] == 1.0
    assert report["rec"]["acc@0.85"] == 0.5
    assert report["res"]["miou"] == pytest.approx(0.7)
    assert report["res"]["oiou"] == pytest.approx(140 / 200)
    assert report["ie_box_only"] == 0.5
    assert report["ie_mask_only"] == 0.0
    assert report["answered"]["rec"] == report["rec"]
    assert result.problems == ()


def test_score_when_lines_are_missing_then_wrong_in_the_whole_and_told_beside_the_answered(score):
    result = score([sample("1"), sample("2"), sample("3"), sample("4")], [{"id": "1", "box": list(BOX)}])
    assert result.tally.value("rec.acc@0.5") == 0.25
    assert result.answered.value("rec.acc@0.5") == 1.0
    assert result.counts.missing == 3
    assert len(result.problems) == 3
    assert "'2'" in result.problems[0]
    assert "answered alone" in format_result(result)
    assert result.report()["res"] is None  # the model gives no masks: lacking, not wrong


def test_score_when_ids_are_doubled_then_alike_ones_count_once_and_others_are_wrong(score):
    good, bad = {"id": 1, "box": list(BOX)}, {"id": 1, "box": [30, 0, 35, 5]}
    same = score([sample("1"), sample("2")], [good, {"box": list(BOX), "id": "1", "score": 0.3}, {**good, "id": 2}])
    assert (same.counts.doubled, same.counts.conflicting, same.counts.answered) == (1, 0, 2)
    assert same.tally.value("rec.acc@0.5") == 1.0
    for lines in ([good, bad], [bad, good], [good, good, bad], [{"id": 1, "box": "x"}, good]):
        result = score([sample("1"), sample("2")], [*lines, {**good, "id": 2}])
        assert result.counts.conflicting == 1
        assert result.counts.doubled == len(lines) - 1
        assert result.tally.value("rec.acc@0.5") == 0.5
        assert any("again" in problem for problem in result.problems)


def test_score_when_lines_cannot_be_read_or_belong_to_nobody_then_told_and_counted(score):
    deep = '{"id": "1", "box": ' + "[" * 100_000 + "]" * 100_000 + "}"
    lines = [
        {"id": "1", "box": list(BOX)}, {"id": "nobody", "box": list(BOX)}, "{", "[]", deep, '{"box": [1, 2, 3, 4]}',
        {"id": True, "box": None}, {"id": None}, "", '{"id": 1.0, "box": null}',
    ]  # fmt: skip
    result = score([sample("1")], lines)
    assert (result.counts.lines, result.counts.unknown, result.counts.unreadable) == (9, 1, 7)
    assert len(result.problems) == 8
    assert result.tally.value("rec.acc@0.5") == 1.0


@pytest.mark.parametrize(
    ("line", "words"),
    [({"sent_id": 1, "box": BOX}, r"'id', got the keys \['sent_id', 'box'\]"), ([{"id": 1}], "one object a line")],
)
def test_score_when_the_file_has_another_form_then_the_sentence_says_which_is_expected(score, line, words):
    with pytest.raises(ValueError, match=words):
        score([sample("1")], [line])


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"box": [1, 2, 3]}, {"box": "x"}, {"box": [1, 2, 3, float("nan")]}, {"box": [1, 2, 3, 1e300]},
        {"box": [True, 2, 3, 4]}, {"mask": {}}, {"mask": {"size": [20, 40], "counts": "?"}}, {"mask": [[1, 2, 3]]},
        {"mask": {"size": [20, 40], "counts": [3]}}, {"mask": encode_rle(filled((0, 0, 2, 2), (40, 20)))},
        {"mask": {"size": [100_000, 100_000], "counts": [10**10]}}, {"mask": "../out.png"}, {"mask": "none.png"},
        {"mask": "/etc/hostname"}, {"mask": ""}, {"mask": "a\0b"}, {"mask": 5}, {"box": list(BOX), "found": "yes"},
        {"mask": []},
    ],
)  # fmt: skip
def test_score_when_an_answer_cannot_be_used_then_the_sample_is_wrong_and_told(score, wrong):
    other = {"id": "2", "box": list(BOX), "mask": encode_rle(filled(BOX))}
    result = score([sample("1"), sample("2", image_id="b")], [{"id": "1", **wrong}, other])
    assert result.counts.unusable == 1
    assert result.tally.value("rec.acc@0.5") == 0.5
    assert result.tally.value("res.miou") == 0.5
    assert result.answered.value("res.miou") == 1.0
    assert len(result.problems) == 1
    assert "expected" in result.problems[0]


@pytest.mark.parametrize(
    ("form", "box"),
    [
        (BoxForm(), [4, 2, 14, 12]),
        (BoxForm(format="xywh"), [4, 2, 10, 10]),
        (BoxForm(format="cxcywh"), [9, 7, 10, 10]),
        (BoxForm(units="normalised"), [0.1, 0.1, 0.35, 0.6]),
        (BoxForm(format="cxcywh", units="normalised"), [0.225, 0.35, 0.25, 0.5]),
    ],
)
def test_score_when_boxes_are_declared_then_every_form_is_the_same_box(score, form, box):
    result = score([sample("1")], [{"id": "1", "box": box}], form=form)
    assert result.tally.value("rec.mean_iou") == pytest.approx(1.0)
    assert result.hints == ()


def test_score_when_boxes_are_declared_wrongly_then_hinted(score):
    samples = [sample("1")]
    (hint,) = score(samples, [{"id": "1", "box": [0.1, 0.1, 0.35, 1.002]}]).hints
    assert "normalised" in hint
    (hint,) = score(samples, [{"id": "1", "box": [30, 12, 5, 5]}]).hints
    assert "no area" in hint
    (hint,) = score(samples, [{"id": "1", "box": [4, 2, 14, 12]}], form=BoxForm(units="normalised")).hints
    assert "outside" in hint
    with pytest.raises(ValueError, match="xxyy"):
        BoxForm(format="xxyy")


def test_score_when_masks_come_in_every_form_then_the_same(score, tmp_path):
    mask = filled((4, 2, 14, 7))
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "1.png")
    plain = {"size": [20, 40], "counts": [4 * 20 + 2, *[5, 15] * 9, 5, 20 * 40 - (4 * 20 + 2) - 9 * 20 - 5]}
    assert (decode_rle(plain) == mask).all()
    forms = [encode_rle(mask), plain, [[4, 2, 14, 2, 14, 7, 4, 7]], "masks/1.png"]
    for form in forms:
        result = score([sample("1"), sample("2", image_id="b")], [{"id": i, "mask": form} for i in (1, 2)])
        assert result.tally.value("res.miou") == 0.5
        assert result.report()["rec"] is None
    polygons = sample("1", mask=[[4, 2, 14, 2, 14, 12, 4, 12]])
    assert score([polygons], [{"id": 1, "mask": forms[0]}]).tally.value("res.miou") == 0.5


def test_score_when_a_link_leads_out_of_the_folder_then_refused(score, tmp_path_factory, tmp_path):
    outside = tmp_path_factory.mktemp("outside") / "mask.png"
    Image.fromarray(filled(BOX)).save(outside)
    (tmp_path / "link.png").symlink_to(outside)
    result = score([sample("1"), sample("2")], [{"id": 1, "box": BOX, "mask": "link.png"}, {"id": 2, "box": BOX}])
    assert result.counts.unusable == 1
    assert "folder" in result.problems[0]


def test_score_when_phrases_mean_nothing_then_counted_apart_and_generalised(score):
    samples = [sample("1"), sample("2", box=None), sample("3", box=None), sample("4", box=None), sample("5")]
    mask = encode_rle(filled(BOX))
    lines = [
        {"id": 1, "box": list(BOX), "mask": mask}, {"id": 2, "box": None}, {"id": 3, "box": list(BOX), "mask": mask},
        {"id": 4, "box": list(BOX), "mask": mask, "found": False}, {"id": 5, "box": None, "mask": None},
    ]  # fmt: skip
    report = score(samples, lines).report()
    assert report["no_target_accuracy"] == pytest.approx(2 / 3)
    assert report["rec"]["acc@0.5"] == 0.5
    assert report["generalised"] == {
        "n_acc": pytest.approx(2 / 3), "t_acc": 0.5, "giou": pytest.approx(3 / 5), "ciou": pytest.approx(100 / 300),
    }  # fmt: skip


def test_score_when_some_answers_lack_what_others_give_then_wrong_there(score):
    mask = encode_rle(filled(BOX))
    lines = [{"id": 1, "box": list(BOX), "mask": mask}, {"id": 2, "box": list(BOX)}, {"id": 3, "mask": mask}]
    result = score([sample("1"), sample("2"), sample("3"), sample("4", mask=None)], [*lines, {**lines[0], "id": 4}])
    assert (result.counts.without_box, result.counts.without_mask) == (1, 1)
    assert result.tally.value("rec.acc@0.5") == 0.75
    assert result.tally.value("res.miou") == pytest.approx(2 / 3)


def test_score_when_the_data_sets_own_mask_is_wrong_then_left_out_whatever_was_answered(score):
    bad = {"size": [20, 40], "counts": "?"}
    mask = encode_rle(filled(BOX))
    samples = [sample("1"), sample("2", mask=bad), sample("3", mask=bad), sample("4", box=(50, 2, 60, 9), mask=None)]
    result = score(samples, [{"id": 1, "box": list(BOX), "mask": mask}, {"id": 2, "box": list(BOX), "mask": mask}])
    assert (result.counts.left_out, result.counts.for_left_out, result.tally.n) == (2, 1, 1)
    assert sum("left out" in problem for problem in result.problems) == 3


def test_score_when_lines_are_shuffled_then_every_figure_is_equal_to_the_last_digit(score):
    rng = random.Random(0)
    samples = [sample(str(i), image_id=f"{i % 11}", phrase=" ".join(["dog"] * rng.randint(1, 8))) for i in range(60)]
    lines = []
    for i in range(65):
        x, y = rng.uniform(0, 9), rng.uniform(0, 5)
        mask = encode_rle(filled((int(x), int(y), int(x) + 10, int(y) + 10)))
        lines.append({"id": i % 63, "box": [x, y, x + 10, y + 10], **({"mask": mask} if i % 5 else {})})
    reports = []
    for _ in range(3):
        reports.append(score(samples, lines, official="mcn", replicates=50).report())
        rng.shuffle(lines)
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["counts"]["conflicting"] == 2
    assert reports[0]["ci95"]["res.miou"] is not None


def test_score_when_the_same_answers_are_evaluated_then_equal_figures(score):
    class Answer:
        def __init__(self, shift):
            self.box, self.mask = (4.0 + shift, 2.0, 14.0 + shift, 12.0), filled((4 + shift, 2, 14 + shift, 12))
            self.score, self.agreement, self.found, self.hw = 1.0, 1.0, True, HW

    class Model:
        def look(self, image):
            return self

        def ground_all(self, phrases):
            return [Answer(len(phrase.split())) for phrase in phrases]

    samples = [
        sample(str(i), image_id=f"{i // 3}", phrase=" ".join(["dog"] * (1 + i % 7)), box=(4, 2, 14, 25), mask=None)
        if i % 4 == 0
        else sample(str(i), image_id=f"{i // 3}", phrase=" ".join(["dog"] * (1 + i % 7)))
        for i in range(40)
    ]
    asked = evaluate(Model(), samples, baselines=False)
    answers = {s.id: Answer(len(s.phrase.split())) for s in samples}
    lines = [{"id": k, "box": a.box, "mask": encode_rle(a.mask)} for k, a in answers.items()]
    assert score(samples, lines).tally.report() == asked.tally.report()


def test_score_when_official_then_its_value_beside_the_exact_one(score):
    # the target has two polygons that together are 10 x 10; 8 x 8 of it is shown
    two = [[4, 2, 9, 2, 9, 12, 4, 12], [9, 2, 14, 2, 14, 12, 9, 12]]
    line = {"id": 1, "box": list(BOX), "mask": encode_rle(filled((4, 2, 12, 10)))}
    result = score([sample("1", mask=two), sample("2")], [line], official="seqtr")
    figures = result.official["figures"]
    assert figures["res.miou"] == {"official": 0.5, "exact": pytest.approx(0.32)}
    text = format_result(result)
    assert "crowd" in text
    assert "+18.00" in text
    with pytest.raises(ValueError, match="lavt"):
        score([sample("1")], [line], official="none")


def test_score_when_kinds_and_rivals_are_known_then_sliced(score):
    things = tuple(Instance(category="dog", box_xyxy_px=BOX) for _ in range(3))
    samples = [sample("1", kind="colour", category="dog", instances=things), sample("2", phrase="the second dog there")]
    result = score(samples, [{"id": "1", "box": list(BOX)}])
    assert result.slices["kind"]["attribute"]["rec.acc@0.5"] == 1.0
    assert result.slices["kind"]["ordinal"]["rec.acc@0.5"] == 0.0
    assert list(result.slices["length"]) == ["1-2", "4-5"]
    assert result.slices["rivals"]["2"]["n"] == 1
    assert result.slices["words"]["ordinal"]["rec.acc@0.5"] == 0.0
    assert "rivals 2" in format_result(result)


def test_score_when_nothing_belongs_together_then_value_error_with_examples(score):
    with pytest.raises(ValueError, match=r"such as '1'.*'7'"):
        score([sample("1")], [{"id": "7", "box": list(BOX)}])
    with pytest.raises(ValueError, match="empty"):
        score([], [{"id": "7", "box": list(BOX)}])
    lost = Sample(id="1", image=Path("none.jpg"), image_id="a", phrase="dog", box_xyxy_px=BOX)
    with pytest.raises(ValueError, match="needs"):
        score([lost], [{"id": "1", "box": list(BOX)}], official="mcn")
    with pytest.raises(ValueError, match="counts"):
        score([sample("1", mask={"size": [20, 40], "counts": "?"})], [{"id": 1, "mask": encode_rle(filled(BOX))}])
    with pytest.raises(ValueError, match="twice"):
        score([sample("1"), sample("1")], [{"id": "7", "box": list(BOX)}])


def test_read_targets_when_images_are_files_then_their_size_is_known_even_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    samples = [
        Sample(id=name, image=tmp_path / name, image_id=name, phrase="dog", box_xyxy_px=(0, 0, 5, 30))
        for name in ("a.jpg", "b.jpg", "none.jpg")
    ]
    targets = read_targets(samples, "x.jsonl", [])
    assert [targets[s.id].hw for s in samples] == [(40, 20), None, None]

    class Knowing(Samples):
        def image_hw(self, index):
            return 10, 20 + index

    targets = read_targets(Knowing(samples), "x.jsonl", [])
    assert targets["b.jpg"].hw == (10, 21)
    assert targets["b.jpg"].box_xyxy_px == (0, 0, 5, 10)


def test_score_when_the_size_is_needed_and_not_known_then_told(score):
    lost = Sample(
        id="1", image=Path("none.jpg"), image_id="a", phrase="dog", box_xyxy_px=BOX, mask=[[0, 0, 9, 0, 9, 9]]
    )
    good = {"id": "2", "box": list(BOX), "mask": encode_rle(filled(BOX))}
    result = score([lost, sample("2")], [{**good, "id": "1"}, good])
    assert result.counts.left_out == 1
    assert "image" in result.problems[0]
    normal = score([lost, sample("2")], [{"id": 1, "box": [0, 0, 1, 1]}], form=BoxForm(units="normalised"))
    assert normal.counts.left_out == 1
    assert normal.tally.n == 1  # an image that is not there is not the model's fault


def test_score_when_the_data_have_no_masks_then_those_of_answers_are_checked_but_give_no_figure(score):
    samples = [sample("1", mask=None), sample("2", box=None), sample("3", mask=None)]
    lines = [
        {"id": 1, "box": list(BOX), "mask": encode_rle(np.ones(HW, dtype=bool))},
        {"id": 2, "box": None},
        {"id": 3, "box": list(BOX), "mask": {"size": [7, 7], "counts": "zz"}},
    ]
    result = score(samples, lines)
    assert result.tally.value("rec.acc@0.5") == 0.5
    assert result.tally.value("generalised.giou") is result.tally.value("res.miou") is None
    assert result.tally.value("no_target_accuracy") == 1.0
    assert "[7, 7]" in result.problems[0]
    assert "no masks" in result.hints[0]


def test_score_when_nothing_can_be_used_then_error_with_the_keys_that_came(score):
    with pytest.raises(ValueError, match="'bbox'"):
        score([sample("1")], [{"id": 1, "bbox": list(BOX)}])


@pytest.mark.parametrize("again", [{"box": [4.0, 2.0, 14.0, 12.0]}, {"box": list(BOX), "found": True, "score": 0.5}])
def test_score_when_an_answer_comes_again_in_other_letters_then_counted_once(score, again):
    result = score([sample("1")], [{"id": 1, "box": list(BOX)}, {"id": "1", **again}])
    assert (result.counts.doubled, result.counts.conflicting) == (1, 0)
    assert result.tally.value("rec.acc@0.5") == 1.0


def test_score_when_a_line_names_a_key_twice_then_refused(score):
    lines = [{"id": 2, "box": list(BOX)}, '{"id": 1, "box": [4, 2, 14, 12], "box": null}']
    result = score([sample("1"), sample("2")], lines)
    assert result.counts.unreadable == 1
    assert "'box' twice" in result.problems[0]


def test_score_when_a_line_has_its_number_for_an_id_then_it_counts(score):
    assert score([sample("1")], [{"line": 1, "box": list(BOX)}]).tally.value("rec.acc@0.5") == 1.0


def test_score_when_records_of_the_data_are_left_out_then_counted(score):
    broken = sample("2", box=(100.0, 100.0, 120.0, 120.0), mask=None)
    result = score([sample("1"), broken], [{"id": 1, "box": list(BOX)}])
    assert result.counts.data_problems == 1
    assert "1 problems of the data set" in format_result(result)


def test_score_command_result_when_run_on_files_then_same_as_in_memory(tmp_path):
    data = {"id": "1", "image": "none.jpg", "phrase": "left dog", "box": [4, 2, 14, 12], "split": "val"}
    (tmp_path / "data.jsonl").write_text(json.dumps(data) + "\nbad\n")
    predictions = tmp_path / "p.jsonl"
    predictions.write_text("\ufeff" + json.dumps({"id": "1", "box": [4, 2, 14, 10]}), encoding="utf-8")
    result = score_command_result(predictions, str(tmp_path / "data.jsonl"), split="val")
    assert result.tally.value("rec.mean_iou") == pytest.approx(0.8)
    assert "line 2" in result.problems[0]
    write_json(result.report(), result.problems, tmp_path / "score.json")
    written = json.loads((tmp_path / "score.json").read_text())
    assert written["rec"]["acc@0.75"] == 1.0
    assert len(written["problems"]) == written["n_problems"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl", "p.jsonl", "score.json"}
    predictions.write_text("\n\n")
    with pytest.raises(ValueError, match="empty"):
        score_command_result(predictions, str(tmp_path / "data.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        score_command_result(tmp_path / "none.jsonl", str(tmp_path / "data.jsonl"))


def test_score_command_result_when_a_release_has_no_images_then_boxes_are_scored_without(tmp_path):
    (tmp_path / "refcoco").mkdir()
    things = [{"id": i, "image_id": 7, "category_id": 1, "bbox": [20 * i, 0, 20, 20], "iscrowd": 0} for i in (0, 1)]
    document = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 50, "width": 80}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{**thing, "segmentation": [[0, 0, 9, 0, 9, 9]]} for thing in things],
    }
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(document))
    sentences = [{"sent_id": 5, "sent": "right dog"}]
    refs = [{"ref_id": 1, "image_id": 7, "ann_id": 1, "split": "val", "category_id": 1, "sentences": sentences}]
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (tmp_path / "p.jsonl").write_text('{"id": 5, "box": [20, 0, 40, 18]}\n')
    result = score_command_result(tmp_path / "p.jsonl", "refcoco", root=tmp_path)
    assert result.tally.value("rec.mean_iou") == pytest.approx(0.9)
    assert result.split == "val"
    assert list(result.slices["rivals"]) == ["1"]
