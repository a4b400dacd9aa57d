"""benchmarks/prepare_photos.py on a folder of three photos."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from deixis.data.formats.jsonl import read_jsonl
from deixis.data.photos import Photos

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "prepare_photos.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("prepare_photos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def annotation(number, image, bbox, kind, **more):
    named = {} if kind == "referring" else {"category": kind}
    return {"id": number, "image_id": image, "bbox": bbox, "kind": kind} | named | more


def detection(image, category, bbox, score):
    return {"image_id": image, "category_id": 1, "category": category, "bbox": bbox, "score": score}


@pytest.fixture
def folder(tmp_path):
    """Photo 2 is for training, 7 held out, 15 for validation and in another folder."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    images = [{"id": k, "file_name": f"{k}.png", "width": 100, "height": 60} for k in (2, 7, 15)]
    images[2]["images_in"] = "other"
    for number, place in ((2, "set/images"), (7, "set/images"), (15, "other")):
        Image.new("RGB", (100, 60)).save(tmp_path / place / f"{number}.png")
    annotations = [
        annotation(1, 2, [60, 10, 60, 30], "referring", expression="right bus"),  # over the border: 60..100
        annotation(2, 2, [0, 0, 20, 40], "person"),
        annotation(3, 7, [0, 0, 20, 40], "referring", expression="the man", category="person"),
        annotation(4, 15, [0, 0, 20, 40], "referring", expression="woman"),
        annotation(5, 15, [0, 0, 20, 41], "person"),
    ]
    detections = [
        detection(2, "bus", [62, 10, 38, 30], 0.9),  # 1140 of 1200 pixels: IoU 0.95 with what is meant
        detection(2, "truck", [62, 10, 38, 31], 0.6),  # where the bus is
        detection(2, "person", [0, 0, 20, 38], 0.8),  # annotated already
        detection(2, "person", [30, 0, 20, 38], 0.8),  # another; persons are as annotated
        detection(2, "dog", [40, 40, 10, 10], 0.3),  # unsure
        detection(2, "cat", [40, 40, 10, 10], 0.5),
    ]
    document = {"images": images, "annotations": annotations}
    (tmp_path / "set" / "refs.json").write_text(json.dumps(document))
    (tmp_path / "set" / "pseudo_detections.json").write_text(json.dumps(detections))
    return tmp_path / "set"


def test_prepare_when_expressions_then_lines_with_box_split_category_and_known_things(script, folder, tmp_path):
    script.prepare([folder], tmp_path / "out")
    samples, problems = read_jsonl(tmp_path / "out" / "human.jsonl")
    assert problems == []
    assert [(s.id, s.phrase, s.split, s.category, s.image_id) for s in samples] == [
        ("set-1", "right bus", "train", "bus", "2"),
        ("set-3", "the man", "test", "person", "7"),
        ("set-4", "woman", "val", "person", "15"),
    ]
    assert samples[0].box_xyxy_px == (60, 10, 100, 40)
    assert [s.image for s in samples] == [
        folder / "images" / "2.png", folder / "images" / "7.png", tmp_path / "other" / "15.png"
    ]  # fmt: skip
    known = [(one.category, one.box_xyxy_px) for one in samples[0].instances]
    assert known == [
        ("person", (0, 0, 20, 40)), ("bus", (62, 10, 100, 40)), ("person", (30, 0, 50, 38)),
        ("truck", (62, 10, 100, 41)), ("cat", (40, 40, 50, 50)), ("dog", (40, 40, 50, 50)),
    ]  # fmt: skip
    assert [one.is_crowd for one in samples[0].instances] == [False] * 5 + [True]  # the dog


def test_prepare_when_boxes_then_coco_instances_that_training_reads(script, folder, tmp_path):
    counts = script.prepare([folder], tmp_path / "out")
    (record,) = Photos.read(tmp_path / "out" / "pseudo.json", "all")  # 7 has no box, 15 is annotated elsewhere
    assert (record.image_id, record.path, record.hw) == (2, folder / "images" / "2.png", (60, 100))
    told = [(one.category, one.box_xyxy_px) for one in record.instances]
    assert told == [("person", (0, 0, 20, 40)), ("bus", (62, 10, 100, 40)), ("cat", (40, 40, 50, 50))]
    assert counts["pseudo.json"] == {"photos": {"train": 1}, "persons": 1, "other things": 2}
    assert counts["set"] == {"expressions": 3, "photos with boxes": 1}
    assert record.decode().pixels.shape == (60, 100, 3)


def test_prepare_when_nothing_was_detected_then_what_else_is_there_is_not_told(script, folder, tmp_path):
    (folder / "pseudo_detections.json").unlink()
    script.prepare([folder], tmp_path / "out")
    samples, _ = read_jsonl(tmp_path / "out" / "human.jsonl")
    assert [(s.category, s.instances) for s in samples] == [(None, ()), ("person", ()), ("person", ())]


def test_prepare_when_a_photo_is_missing_then_one_sentence(script, folder, tmp_path):
    (folder / "images" / "7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the photo '7.png' in .*; bring it"):
        script.prepare([folder], tmp_path / "out")
