import json

import numpy as np
import pytest
from PIL import Image

from deixis.structures import Sample
from deixis.tools.image_keys import (
    Exclusions,
    coco_id_of,
    image_keys,
    join_keys,
    read_exclusions,
    split_keys,
    write_exclusions,
)
from deixis.tools.leaks import find_leaks, leak_warning
from deixis.tools.mix import MEASURED


def picture(seed, size=(64, 48)):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def lines(tmp_path):
    """Write a JSONL file of (image, phrase, box) rows; the number in an image's name seeds its pixels."""

    def write(name, *rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(dict(zip(("image", "phrase", "box"), r, strict=True))) + "\n" for r in rows))
        return str(path)

    return write


COCO = "COCO_train2014_000000000025.jpg"


def save(folder, name, seed, size=(64, 48)):
    (folder / name).parent.mkdir(exist_ok=True)
    picture(seed, size).save(folder / name)


def sample(image, image_id="7"):
    return Sample(id="1", image=image, image_id=image_id, phrase="dog", box_xyxy_px=None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (COCO, 25),
        ("COCO_val2014_000000581857.png", 581857),
        ("COCO_train2014_000000581857_3.jpg", 581857),
        ("000000000025.jpg", 25),
        ("0000000000025.jpg", None),  # thirteen digits
        ("COCO_train2014_0000000000251.jpg", None),
        ("25.jpg", None),
        ("000000000025", None),
        ("a000000000025.jpg", None),
    ],
)
def test_coco_id_of_when_a_name_carries_one_then_it(name, expected):
    assert coco_id_of(name) == expected


def test_image_keys_when_the_data_set_or_the_file_tells_then_the_collection_and_id(tmp_path):
    keys = image_keys
    assert keys(sample(tmp_path / "7.jpg"), "refcoco+") == ("coco:7",)
    assert keys(sample(tmp_path / "7.jpg"), "referit") == ("saiapr:7",)
    assert keys(sample(tmp_path / "7.jpg"), "flickr30k") == ("flickr:7",)
    assert keys(sample(tmp_path / COCO), "x.jsonl") == ("coco:25",)
    assert keys(sample(tmp_path / "7.jpg"), "x.jsonl") == ()
    assert keys(sample(tmp_path / "7.jpg"), "vg", {"7": 25}) == ("vg:7", "coco:25")
    assert keys(sample(tmp_path / "8.jpg", "8"), "vg", {"7": 25}) == ("vg:8",)
    assert keys(sample(tmp_path / "7.jpg", "vg:7=coco:25"), "mixed") == ("vg:7", "coco:25")
    assert keys(sample(tmp_path / "7.jpg"), "vg", {}) == ()


def test_split_keys_when_joined_then_the_same_and_other_ids_are_none():
    assert split_keys(join_keys(("vg:1", "coco:2"))) == ("vg:1", "coco:2")
    assert split_keys("coco:2") == ("coco:2",)
    assert [split_keys(one) for one in ("", "25", "a.jpg", "coco:", "coco:2=", r"C:\a b.jpg")] == [None] * 6


def test_find_leaks_when_coco_ids_are_shared_then_images_samples_and_triples_are_counted(lines):
    train = lines("train.jsonl", (f"a/{COCO}", "Left  dog", [1, 2, 10.2, 20]), (f"a/{COCO}", "cat", [1, 2, 3, 4]),
                  ("COCO_train2014_000000000030.jpg", "cup", [1, 2, 3, 4]))  # fmt: skip
    val = lines("val.jsonl", ("b/000000000025.jpg", "left dog", [1, 2, 9.8, 20]), ("b/000000000025.jpg", "cat", None),
                ("b/000000000031.jpg", "cup", [1, 2, 3, 4]))  # fmt: skip
    found = find_leaks([train], [val])
    (leak,) = found.leaks
    assert not found.is_clean
    assert (leak.images, leak.samples, leak.triples, leak.by) == (1, 2, 1, {"COCO id": 1})
    assert (leak.train_images, leak.eval_images, leak.eval_samples) == (2, 2, 3)
    assert leak.examples == ["coco:25 is coco:25, by COCO id"]
    assert found.exclusions.keys >= {"coco:25", "coco:31"}
    assert "coco:30" not in found.exclusions.keys


def test_find_leaks_when_visual_genome_knows_coco_ids_then_they_tell(lines, tmp_path):
    regions = [
        {"region_id": n, "width": 3, "height": 3, "image_id": n, "phrase": "cup", "y": 1, "x": 1} for n in (1, 2)
    ]
    (tmp_path / "vg").mkdir()
    (tmp_path / "vg/region_descriptions.json").write_text(json.dumps([{"id": n["image_id"], "regions": [n]} for n in regions]))  # fmt: skip  # noqa: E501
    data = [{"width": 9, "height": 9, "image_id": n, "coco_id": {1: None, 2: 25}[n]} for n in (1, 2)]
    (tmp_path / "vg/image_data.json").write_text(json.dumps(data))
    val = lines("val.jsonl", (COCO, "dog", [1, 1, 4, 4]), (COCO, "cup", [1, 1, 4, 4]))
    found = find_leaks([str(tmp_path / "vg")], [val], hashing="never")
    (leak,) = found.leaks
    assert leak.by == {"COCO id, through Visual Genome's coco_id": 1}
    assert (leak.samples, leak.triples, leak.unknown) == (2, 1, 0)
    assert found.exclusions.keys >= {"coco:25", "vg:2"}
    assert "vg:1" not in found.exclusions.keys


def test_find_leaks_when_no_id_tells_then_files_and_looks_do(lines, tmp_path):
    save(tmp_path, "a.jpg", 1)
    save(tmp_path, "b.jpg", 2)
    save(tmp_path, "copy.png", 2, (128, 96))
    save(tmp_path, "other.jpg", 3)
    train = lines("train.jsonl", ("a.jpg", "dog", None), ("copy.png", "dog", None), ("other.jpg", "dog", None))
    val = lines("val.jsonl", ("a.jpg", "dog", None), ("b.jpg", "dog", None))
    (leak,) = find_leaks([train], [val]).leaks
    assert leak.by == {"file": 1, "perceptual hash": 1}
    assert (leak.images, leak.triples, leak.unread) == (2, 2, 0)
    (leak,) = find_leaks([train], [val], hashing="never").leaks
    assert leak.by == {"file": 1}
    assert leak.unknown == 5


def test_find_leaks_when_all_images_have_ids_then_no_picture_is_opened_unless_asked(lines, tmp_path, monkeypatch):
    save(tmp_path, "COCO_train2014_000000000001.jpg", 5)
    save(tmp_path, "COCO_train2014_000000000002.jpg", 5)
    train = lines("train.jsonl", ("COCO_train2014_000000000001.jpg", "dog", None))
    val = lines("val.jsonl", ("COCO_train2014_000000000002.jpg", "dog", None))
    assert find_leaks([train], [val], hashing="always").leaks[0].by == {"perceptual hash": 1}
    monkeypatch.setattr("deixis.tools.leaks.hash_images", lambda *a: pytest.fail("a picture was opened"))
    assert find_leaks([train], [val]).is_clean


def test_find_leaks_when_a_picture_cannot_be_read_then_told(lines, tmp_path):
    save(tmp_path, "a.jpg", 1)
    train = lines("train.jsonl", ("gone.jpg", "dog", None))
    val = lines("val.jsonl", ("a.jpg", "dog", None))
    (leak,) = find_leaks([train], [val]).leaks
    assert (leak.images, leak.unread) == (0, 1)


def test_find_leaks_when_several_then_every_pair_is_compared(lines):
    one, two = lines("1.jsonl", (COCO, "dog", None)), lines("2.jsonl", ("COCO_train2014_000000000030.jpg", "dog", None))
    found = find_leaks([one, two, one], [two, one])
    assert [(leak.train, leak.eval, leak.images) for leak in found.leaks] == [
        (one, two, 0), (one, one, 1), (two, two, 1), (two, one, 0)]  # fmt: skip


def test_find_leaks_when_scenes_or_an_unknown_way_then_refused(lines):
    path = lines("1.jsonl", (COCO, "dog", None))
    with pytest.raises(ValueError, match="scenes are drawn"):
        find_leaks(["scenes:train"], [path])
    with pytest.raises(ValueError, match="expected hashing out of auto, always, never, got 'sometimes'"):
        find_leaks([path], [path], hashing="sometimes")


def test_exclusions_when_written_then_read_back_and_they_cover(tmp_path):
    own = Exclusions(frozenset({"coco:25", "vg:2", f"file:{tmp_path}/a b.jpg"}), ("refcoco:val",))
    write_exclusions(tmp_path / "x.json", own)
    assert read_exclusions(tmp_path / "x.json") == own
    assert own.covers(("vg:2", "coco:9"), None)
    assert own.covers((), tmp_path / "a b.jpg")
    assert not own.covers(("coco:26",), tmp_path / "c.jpg")
    both = own | Exclusions(frozenset({"coco:26"}), ("refcoco:val", "mine"))
    assert both.covers(("coco:26",), None)
    assert both.sources == ("refcoco:val", "mine")


def test_read_exclusions_when_coco_instances_then_all_their_images(tmp_path):
    path = tmp_path / "instances_val2014.json"
    path.write_text(json.dumps({"info": {}, "images": [{"id": 42}, {"id": 73}], "annotations": []}))
    assert read_exclusions(path) == Exclusions(frozenset({"coco:42", "coco:73"}), ("instances_val2014.json",))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}", "expected a list of exclusions of version 1 or a COCO instances file"),
        ('{"deixis_exclusions": 2, "keys": ["coco:1"]}', "expected a list of exclusions of version 1"),
        ('{"deixis_exclusions": 1, "keys": ["coco 1"]}', "expected a key such as 'coco:25' at keys"),
        ('{"deixis_exclusions": 1, "keys": [7]}', "expected a key such as 'coco:25'"),
        ('{"images": [{"id": "x"}]}', "expected an image with a whole number as 'id'"),
        ("[1", "expected JSON in"),
        ("\ud800", "expected JSON in"),
    ],
)
def test_read_exclusions_when_wrong_then_one_sentence(tmp_path, content, why):
    (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=why):
        read_exclusions(tmp_path / "x.json")


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
