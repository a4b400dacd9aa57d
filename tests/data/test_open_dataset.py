import json
import re

import numpy as np
import pytest
from PIL import Image

from deixis.data import NAMES, SCENES, default_split, open_dataset, parse_dataset_spec


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("scenes", ("scenes", None)),
        ("scenes:val", ("scenes", "val")),
        ("scenes+:testA", ("scenes+", "testA")),
        ("refcocog-umd:test", ("refcocog-umd", "test")),
        ("file.json:test", ("file.json", "test")),
        ("/data/a b/file.jsonl", ("/data/a b/file.jsonl", None)),
        ("../file.jsonl:train", ("../file.jsonl", "train")),
        (r"C:\data\file.json", (r"C:\data\file.json", None)),
        (r"C:\data\file.json:test", (r"C:\data\file.json", "test")),
        ("C:/data/file.json", ("C:/data/file.json", None)),
        ("C:/data/file.json:all", ("C:/data/file.json", "all")),
        ("d:file.jsonl", ("d:file.jsonl", None)),
        ("C:folder", ("C:folder", None)),
        ("run 10:30/file.jsonl", ("run 10:30/file.jsonl", None)),
    ],
)
def test_parse_dataset_spec_when_any_then_name_and_split(spec, expected):
    assert parse_dataset_spec(spec) == expected


@pytest.mark.parametrize("spec", ["", " ", ":", "scenes:", ":val", "file.json: "])
def test_parse_dataset_spec_when_a_part_is_empty_then_it_is_told(spec):
    with pytest.raises(ValueError, match="expected DATASET or DATASET:SPLIT, such as scenes:val"):
        parse_dataset_spec(spec)


@pytest.mark.parametrize("name", ["scenes", "scenes+", "scenesg"])
def test_open_dataset_when_scenes_then_the_val_split_of_that_many(name):
    samples = open_dataset(name, limit=3)
    assert len(samples) == 3
    assert {s.split for s in samples} == {"val"}
    assert all(s.phrase and s.box_xyxy_px for s in samples)


def test_open_dataset_when_scenes_of_a_split_then_others_than_val():
    assert open_dataset("scenes", "testA", limit=1)[0].split == "testA"


@pytest.fixture
def jsonl(tmp_path):
    """Five images of three phrases each, the last image in the split "val"."""
    lines = []
    for n in range(5):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{n}.png")
        for word in ("left", "right", "middle"):
            split = "val" if n == 4 else "train"
            lines.append({"image": f"{n}.png", "phrase": f"{word} cup", "box": [1, 2, 20, 25], "split": split})
    path = tmp_path / "cups.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_open_dataset_when_jsonl_then_its_lines_in_order(jsonl):
    samples = open_dataset(jsonl)
    assert [s.phrase for s in samples[:4]] == ["left cup", "right cup", "middle cup", "left cup"]
    assert len(samples) == 15
    assert samples[0].box_xyxy_px == (1, 2, 20, 25)


def test_open_dataset_when_jsonl_with_a_split_then_only_its_lines(jsonl):
    samples = open_dataset(str(jsonl), "val")
    assert len(samples) == 3
    assert len({s.image_id for s in samples}) == 1


def test_open_dataset_when_limited_then_whole_images_in_an_order_that_stays(jsonl):
    samples = open_dataset(jsonl, limit=7)
    assert [s.image_id for s in samples[:3]] == [samples[0].image_id] * 3
    assert [s.image_id for s in samples[3:6]] == [samples[3].image_id] * 3
    assert len(samples) == 7
    assert len({s.image_id for s in samples}) == 3
    assert [s.id for s in samples] == [s.id for s in open_dataset(jsonl, limit=7)]
    assert len(open_dataset(jsonl, limit=100)) == 15


WRONG_LINE = '{"image": "0.png", "phrase": "cup", "box": [9, 9, 1, 1]}\n'


@pytest.mark.parametrize("limit", [None, 15])
def test_open_dataset_when_a_line_is_wrong_then_the_place_is_told_and_the_rest_is_there(jsonl, limit):
    jsonl.write_text(jsonl.read_text() + WRONG_LINE)
    samples = open_dataset(jsonl, limit=limit)
    assert len(samples) == len(list(samples)) == 15
    assert len(samples.problems) == 1
    assert "cups.jsonl', line 16: expected a box" in samples.problems[0]
    assert list(samples[:2]) == [samples[0], samples[1]]


def test_open_dataset_when_all_lines_are_wrong_then_one_sentence(jsonl):
    jsonl.write_text(WRONG_LINE * 2)
    with pytest.raises(ValueError, match=r"cups\.jsonl', line 1: .*; lines that are wrong: 2$"):
        open_dataset(jsonl)


def test_open_dataset_when_coco_instances_then_phrases_for_the_test_split(tmp_path):
    pixels = np.full((80, 120, 3), (90, 140, 80), np.uint8)
    pixels[20:60, 10:50] = (200, 30, 30)
    (tmp_path / "photos").mkdir()
    for image_id in (7, 8):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{image_id}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 80} for i in (7, 8)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 20, 40, 40], "area": 1600, "iscrowd": 0}
            for i in (7, 8)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    assert {s.image_id for s in open_dataset(path, root=tmp_path / "photos")} == {"7"}
    assert {s.image_id for s in open_dataset(path, "all", root=tmp_path / "photos")} == {"7", "8"}
    assert len(open_dataset(path, "all", root=tmp_path / "photos", limit=1)) == 1


@pytest.mark.parametrize("name", [one for one in NAMES if one not in SCENES])
def test_open_dataset_when_a_release_or_form_has_no_root_then_it_is_asked_for(name):
    with pytest.raises(ValueError, match=f"expected a root, the files' folder, got none for '{re.escape(name)}'"):
        open_dataset(name)


@pytest.mark.parametrize("name", [one for one in NAMES if one not in SCENES])
def test_open_dataset_when_its_files_are_not_there_then_told_what_to_put_there(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="expected "):
        open_dataset(name, root=tmp_path)


def test_open_dataset_when_a_folder_is_none_that_is_known_then_what_works_is_told(tmp_path):
    (tmp_path / "cats.csv").write_text("")
    with pytest.raises(ValueError, match=r"expected a folder with refs\(\*\)\.p, .*\['cats\.csv'\]"):
        open_dataset(tmp_path)


def test_open_dataset_when_unknown_then_what_works_is_told():
    with pytest.raises(ValueError, match="got 'cats'; choose one"):
        open_dataset("cats")
    with pytest.raises(ValueError, match="got 'refcocoo'; perhaps 'refcoco' is meant"):
        open_dataset("refcocoo")
    with pytest.raises(ValueError, match="perhaps 'refcocog-umd' or 'refcocog-google' is meant"):
        open_dataset("refcocog")


@pytest.mark.parametrize("name", ["none.jsonl", "none.json"])
def test_open_dataset_when_the_file_is_not_there_then_file_not_found(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        open_dataset(tmp_path / name)


def test_open_dataset_when_the_limit_is_zero_then_it_is_refused():
    with pytest.raises(ValueError, match="expected a limit of at least 1 sample, got 0"):
        open_dataset("scenes", limit=0)


@pytest.mark.parametrize(
    ("name", "split"),
    [("scenes", "val"), ("scenesg", "val"), ("a/b.json", "test"), ("B.JSON", "test"), ("c.jsonl", None)],
)
def test_default_split_when_none_is_named_then_the_one_that_is_opened(name, split):
    assert default_split(name) == split
