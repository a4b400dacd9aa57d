"""The log of predictions: what is written comes back, what was cut off is dropped."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.evaluate.predictions import Absent, Prediction, PredictionLog

PREDICTION = Prediction(
    id="a", image_id="7", phrase="left dog", box=(0.1, 0.0, 10.0, 1 / 3), score=0.9, agreement=1.0, found=True,
    iou=0.25, mask_iou=0.5, index=0, hw=(10, 20), target_box=(0.0, 0.0, 5.0, 5.0), intersection_px=3, union_px=6,
    target_px=4, shown_px=None, labels={"length": "1-2"}, evidence=(0.5, -1.0),
    absent=Absent(phrase="cat", score=0.4, agreement=0.0, found=False, evidence=(0.25, 2.0)),
)  # fmt: skip
MASK = {"size": [10, 20], "counts": "QZn0"}


def test_prediction_when_written_and_read_then_the_same():
    line = json.dumps(replace(PREDICTION, mask=MASK).to_json())
    read = Prediction.from_json(json.loads(line))
    assert (read, read.mask) == (PREDICTION, None)  # masks stay in the file
    assert list(json.loads(line))[:5] == ["id", "image_id", "phrase", "box", "mask"]


def test_prediction_when_a_line_is_of_an_earlier_version_then_read_and_lines_stay_readable_there():
    line = PREDICTION.to_json()
    assert set(line["absent"]) == {"phrase", "score", "agreement", "found"}  # all that earlier versions know there
    evidence = line.pop("evidence"), line.pop("absent_evidence")
    assert evidence == ((0.5, -1.0), (0.25, 2.0))
    read = Prediction.from_json(line)
    assert replace(read, evidence=evidence[0], absent=replace(read.absent, evidence=evidence[1])) == PREDICTION


def test_sample_score_when_made_of_a_line_then_all_that_metrics_need():
    score = PREDICTION.sample_score()
    assert (score.box_iou, score.mask_iou, score.found, score.no_target_right) == (0.25, 0.5, True, None)
    nothing = replace(PREDICTION, target_box=None, iou=None, intersection_px=None, union_px=None, shown_px=9)
    score = nothing.sample_score()
    assert (score.no_target_right, score.found, score.shown_px, score.mask_iou) == (False, None, 9, None)


def test_log_when_resumed_then_what_it_holds_is_known_and_masks_are_read(tmp_path):
    path = tmp_path / "predictions.jsonl"
    with PredictionLog(path) as log:
        log.append([replace(PREDICTION, index=i, mask=MASK if i else None) for i in (2, 0)])
    with PredictionLog(path, resume=True) as log:
        assert sorted(log.known) == [0, 2]
        log.append([replace(PREDICTION, index=1)])
        log.finish([0, 1, 2])
        assert log.masks([2, 1, 0]) == {0: None, 1: None, 2: MASK}
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_log_when_not_resumed_then_empty(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("old\n")
    with PredictionLog(path) as log:
        assert log.known == {}
    assert path.read_bytes() == b""


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 400))
def test_log_when_cut_anywhere_then_whole_lines_alone_are_known(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("log") / "predictions.jsonl"
    with PredictionLog(path) as log:
        log.append([replace(PREDICTION, index=i) for i in range(3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with PredictionLog(path, resume=True) as log:
        assert list(log.known) == list(range(whole[:-cut].count(b"\n")))
        log.append([replace(PREDICTION, index=9)])
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[1]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"id": 1}\n', b"null\n"],
    ids=range(7),
)
def test_log_when_a_line_is_broken_then_dropped_and_the_others_known(tmp_path, line):
    path = tmp_path / "predictions.jsonl"
    good = json.dumps(PREDICTION.to_json()).encode() + b"\n"
    path.write_bytes(line + good)
    with PredictionLog(path, resume=True) as log:
        assert log.known == {0: PREDICTION}


@pytest.mark.parametrize(
    ("key", "value"),
    [("score", "high"), ("index", None), ("box", [1, 2]), ("hw", 3), ("labels", [1]), ("absent", {"phrase": "x"}),
     ("found", 1), ("evidence", ["x"]), ("absent_evidence", 1), ("target_box", [0, 0, float("nan"), 1])],
)  # fmt: skip
def test_prediction_of_when_a_field_is_wrong_then_value_error(key, value):
    with pytest.raises(ValueError, match="expected"):
        Prediction.from_json({**PREDICTION.to_json(), key: value})
