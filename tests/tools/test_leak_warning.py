import json

import pytest

from deixis.data.mixed import MEASURED
from deixis.tools.leak_warning import leak_warning


@pytest.mark.parametrize(
    ("phrased", "dataset", "split", "why"),
    [
        ("refcoco:val", "refcoco", "val", "is the split itself"),
        ("refcocog-google:train", "refcocog-google", "val", "divide things and not images"),
        ("refcocog-umd", "refcoco", "testA", "images of COCO too, split otherwise"),
        ("vg:all", "refcoco+", "val", "half of Visual Genome"),
        ("mine.jsonl:val", "mine.jsonl", "val", "is the split itself"),
    ],
)
def test_leak_warning_when_names_tell_of_a_leak_then_a_sentence_with_the_target(phrased, dataset, split, why):
    told = leak_warning({"phrased": phrased}, dataset, split)
    assert why in told
    assert f"({dataset}:{split})" in told
    assert told == leak_warning({"recipe": {"phrased": phrased}, "family": "smcim"}, dataset, split)


@pytest.mark.parametrize(
    ("phrased", "dataset", "split"),
    [
        ("refcoco:train", "refcoco", "testA"),
        ("refcocog-umd:train", "refcocog-umd", "test"),
        ("refcoco", "refcoco", "val"),
        ("referit:train", "refcoco", "val"),
        ("mine.jsonl", "mine.jsonl", "val"),
        ("", "refcoco", "val"),
        ("mixed:train", "mine.jsonl", None),
    ],
)
def test_leak_warning_when_names_tell_of_none_then_none(phrased, dataset, split):
    assert leak_warning({"phrased": phrased}, dataset, split) is None


def test_leak_warning_when_no_data_set_is_named_then_all_that_papers_measure_on():
    told = leak_warning({"phrased": "refcocog-google:train"})
    assert "refcocog-google:val" in told
    assert "refcoco:testA" in told
    assert "referit" not in told


def test_leak_warning_when_a_recipe_then_its_fields_count():
    from deixis.train.recipes import recipe

    assert leak_warning(recipe("tiny").flat(), "refcoco", "val") is None
    assert "is the split itself" in leak_warning(recipe("mcn").flat(), "refcoco", "train")
    assert "yolov3.weights" in leak_warning(recipe("mcn", image_weights="x/yolov3.weights").flat(), "refcoco", "val")
    assert leak_warning(recipe("mcn", image_weights="x/yolov3.weights").flat(), "referit", "val") is None


def test_leak_warning_when_started_from_a_checkpoint_then_its_recipe_counts_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"phrased": "vg:all", "start": str(tmp_path)}}))
    fields = {"phrased": "refcoco:train", "start": str(tmp_path)}
    assert "half of Visual Genome" in leak_warning(fields, "refcoco", "val")
    for damaged in ("{", "[]", '{"recipe": 3}'):
        (tmp_path / "config.json").write_text(damaged)
        assert leak_warning(fields, "refcoco", "val") is None


def test_leak_warning_when_mixed_then_its_record_tells(tmp_path):
    fields = {"phrased": "mixed:train", "root": str(tmp_path)}
    assert "no readable mix.json" in leak_warning(fields, "refcoco", "val")
    record = {"left_out_for": list(MEASURED), "without_keys": 0}
    (tmp_path / "mix.json").write_text(json.dumps(record))
    assert leak_warning(fields, "refcoco", "val") is None
    assert leak_warning(fields) is None
    (tmp_path / "mix.json").write_text(json.dumps(record | {"without_keys": 3}))
    assert "nothing tells which they are" in leak_warning(fields, "refcoco", "val")
    (tmp_path / "mix.json").write_text(json.dumps(record | {"left_out_for": ["refcoco:val"]}))
    assert leak_warning(fields, "refcoco", "val") is None
    assert "without leaving them out (refcoco:testA)" in leak_warning(fields, "refcoco", "testA")


@pytest.mark.parametrize("odd", [{}, {"recipe": None}, {"phrased": 3}, 7, None, {"phrased": "a:train", "start": 4}])
def test_leak_warning_when_nothing_is_known_then_none(odd):
    assert leak_warning(odd, "refcoco", "val") is None
