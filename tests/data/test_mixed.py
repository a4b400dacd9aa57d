import json
import os
import pickle

import pytest
from PIL import Image

import deixis.data
from deixis.data import open_dataset
from deixis.data.batches import group_by_referent
from deixis.data.exclusions import exclusions_of, write_exclusions
from deixis.data.mixed import MEASURED, make_mixed, open_mixed, read_record

REAL = os.environ.get("DEIXIS_REFCOCO_REAL")
COCO = "images/mscoco/images/train2014"


def ref(number, image, split, *phrases):
    sentences = [{"sent_id": 10 * number + i, "sent": phrase} for i, phrase in enumerate(phrases)]
    return {"ref_id": number, "ann_id": 100 + image, "image_id": image, "split": split, "sentences": sentences}


def release(root, name, refs, maker="unc"):
    """A release of RefCOCO's kind whose images are of 40 x 30 pixels; every thing is where it is in every release."""
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / f"refs({maker}).p").write_bytes(pickle.dumps(refs, protocol=2))
    images = sorted({one["image_id"] for one in refs})
    box = [5, 5, 20, 20]
    polygon = [[5, 5, 25, 5, 25, 25, 5, 25]]
    content = {
        "images": [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": 30, "width": 40} for i in images],
        "annotations": [{"id": 100 + i, "image_id": i, "category_id": 1, "bbox": box, "segmentation": polygon}
                        for i in images],
        "categories": [{"id": 1, "name": "dog"}],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(content))
    (root / COCO).mkdir(parents=True, exist_ok=True)
    for i in images:
        Image.new("RGB", (40, 30), (i, 0, 0)).save(root / COCO / f"COCO_train2014_{i:012d}.jpg")


def visual_genome(root, coco_ids, data=True):
    regions = [
        {"id": i, "regions": [{"region_id": i, "x": 1, "y": 1, "width": 5, "height": 5, "phrase": f"thing {i}"}]}
        for i in coco_ids
    ]
    (root / "vg").mkdir()
    (root / "vg/region_descriptions.json").write_text(json.dumps(regions))
    if data:
        images = [{"image_id": i, "width": 40, "height": 30, "coco_id": coco} for i, coco in coco_ids.items()]
        (root / "vg/image_data.json").write_text(json.dumps(images))
    (root / "images/VG_100K").mkdir(parents=True, exist_ok=True)
    for i in coco_ids:
        Image.new("RGB", (40, 30)).save(root / f"images/VG_100K/{i}.jpg")


@pytest.fixture
def root(tmp_path):
    """Image 2 is measured on by RefCOCO and trained on by RefCOCOg; image 12 of Visual Genome is COCO's image 2."""
    unc = [ref(1, 1, "train", "dog", "the dog"), ref(2, 2, "val", "cat"), ref(3, 3, "testA", "cow"),
           ref(4, 4, "testB", "cup")]  # fmt: skip
    release(tmp_path, "refcoco", unc)
    umd = [ref(1, 1, "train", "dog", "a dog on grass"), ref(2, 2, "train", "a cat"), ref(5, 5, "val", "a bus"),
           ref(6, 6, "test", "a van")]  # fmt: skip
    release(tmp_path, "refcocog", umd, "umd")
    visual_genome(tmp_path, {11: None, 12: 2, 15: 5, 17: 1})
    return tmp_path


def test_make_mixed_when_images_are_measured_on_then_left_out_and_counted(root):
    mix = make_mixed(root, root / "mixed")
    by_spec = {one.spec: one for one in mix.parts}
    assert list(by_spec) == ["refcoco:train", "refcocog-umd:train", "vg:all"]
    told = [(one.samples, one.measured_on, one.images_left_out, one.repeated, one.unusable, one.written)
            for one in mix.parts]  # fmt: skip
    # "dog" of image 1 is in both releases; of Visual Genome's images 12 and 15 are COCO's 2 and 5
    assert told == [(2, 0, 0, 0, 0, 2), (3, 1, 1, 1, 0, 1), (4, 2, 2, 0, 0, 2)]
    assert mix.written == 5
    assert mix.left_out_for == ["refcoco:val", "refcoco:testA", "refcoco:testB", "refcocog-umd:val",
                                "refcocog-umd:test"]  # fmt: skip
    assert set(mix.left_out_for) | set(mix.not_known) == set(MEASURED)
    assert mix.excluded_images == 5
    assert mix.without_keys == 0
    record = read_record(root)
    assert record == read_record(root / "mixed") == json.loads(json.dumps(mix.report()))
    assert record["written"] == 5
    assert sorted(os.listdir(root / "mixed")) == ["mix.json", "train.jsonl"]


def test_open_mixed_when_written_then_the_samples_with_their_keys_masks_and_referents(root):
    make_mixed(root, root / "mixed")
    samples = open_mixed(root)
    assert [(one.id, one.image_id, one.phrase, one.split) for one in samples] == [
        ("refcoco:10", "coco:1", "dog", "train"),
        ("refcoco:11", "coco:1", "the dog", "train"),
        ("refcocog-umd:11", "coco:1", "a dog on grass", "train"),
        ("vg:11", "vg:11", "thing 11", "train"),
        ("vg:17", "vg:17=coco:1", "thing 17", "train"),
    ]
    assert all(one.image.is_file() for one in samples)
    assert samples[0].image == root / "mixed" / root / COCO / "COCO_train2014_000000000001.jpg"
    assert samples[0].box_xyxy_px == (5, 5, 25, 25)
    assert samples[0].mask == [[5, 5, 25, 5, 25, 25, 5, 25]]
    assert samples[0].category == "dog"
    assert samples.referents == tuple(map(tuple, group_by_referent(samples))) == ((0, 1, 2), (3,), (4,))
    assert len(open_mixed(root / "mixed", limit=2)) == 2


def test_open_dataset_when_mixed_then_that_mix(root, monkeypatch):
    opener = lambda name, split, root, limit: open_mixed(root, split, limit=limit)  # noqa: E731
    if "mixed" not in deixis.data._OPENERS:
        monkeypatch.setitem(deixis.data._OPENERS, "mixed", opener)
    make_mixed(root, root / "mixed")
    assert len(open_dataset("mixed", "train", root)) == 5
    assert len(open_dataset("mixed", root=root, limit=3)) == 3


def test_make_mixed_when_the_images_are_elsewhere_then_still_found(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere") / "mix"
    make_mixed(root, out, parts=["refcoco:train"])
    assert all(one.image.is_file() for one in open_mixed(out))


def test_make_mixed_when_asked_to_keep_measured_images_then_none_is_left_out(root):
    mix = make_mixed(root, root / "mixed", keep_measured=True)
    assert [one.measured_on for one in mix.parts] == [0, 0, 0]
    assert mix.left_out_for == []


def test_make_mixed_when_a_list_is_named_then_its_images_are_left_out_too(root):
    write_exclusions(root / "x.json", exclusions_of({"vg:11"}, ["mine"]))
    (root / "instances_val2014.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": []}))
    mix = make_mixed(root, root / "m", parts=["vg:all"], exclude=[root / "x.json"], keep_measured=True)
    assert mix.parts[0].written == 3
    assert mix.left_out_for == ["mine"]
    lists = [root / "x.json", root / "instances_val2014.json"]
    mix = make_mixed(root, root / "m", parts=["vg:all", "refcocog-umd:train"], exclude=lists[:1])
    assert [one.written for one in mix.parts] == [1, 2]
    with pytest.raises(ValueError, match=r"expected samples to mix from .*'vg:all'.*, got none"):
        make_mixed(root, root / "m", exclude=lists)
    assert len(open_mixed(root / "m")) == 3  # what was there stays


def test_make_mixed_when_nothing_tells_which_of_vgs_images_are_cocos_then_told(root):
    (root / "vg/image_data.json").unlink()
    mix = make_mixed(root, root / "mixed")
    assert mix.without_keys == 4
    assert mix.parts[-1].written == 4


def test_make_mixed_when_counted_then_nothing_is_lost(root):
    region = {"id": 11, "regions": [{"region_id": 1, "x": 1, "y": 1, "width": 0, "height": 5, "phrase": "x"}]}
    path = root / "vg/region_descriptions.json"
    path.write_text(json.dumps([region, *json.loads(path.read_text())]))
    mix = make_mixed(root, root / "mixed")
    for one in mix.parts:
        assert one.samples == one.written + one.measured_on + one.repeated + one.unusable
    assert mix.parts[-1].unusable == 1
    assert any("vg:all: element [0]" in problem for problem in mix.problems)


def test_make_mixed_when_a_part_is_not_there_then_one_sentence(root, tmp_path_factory):
    with pytest.raises(FileNotFoundError):
        make_mixed(root, root / "mixed", parts=["flickr30k:train"])
    with pytest.raises(FileNotFoundError, match=r"expected one of refcoco:train, .* below"):
        make_mixed(tmp_path_factory.mktemp("empty"), root / "mixed")
    assert not (root / "mixed").exists()


def test_open_mixed_when_not_there_or_damaged_then_told(root):
    with pytest.raises(FileNotFoundError, match=r"expected 'train\.jsonl' in .*deixis data make mixed"):
        open_mixed(root)
    make_mixed(root, root / "mixed")
    path = root / "mixed/train.jsonl"
    path.write_text(path.read_text() + "{not json\n")
    samples = open_mixed(root)
    assert (len(samples), samples.left_out) == (5, 1)
    assert "line 6: expected a JSON object" in samples.problems[0]


@pytest.mark.skipif(REAL is None, reason="DEIXIS_REFCOCO_REAL does not name the real records")
def test_make_mixed_when_the_records_are_real_then_what_is_written_is_what_was_read(tmp_path):
    make_mixed(REAL, tmp_path / "m", parts=["refcoco:train"])
    own = open_dataset("refcoco", "train", REAL)
    for one, other in zip(open_mixed(tmp_path / "m"), own, strict=True):
        assert (one.phrase, one.box_xyxy_px, one.mask) == (other.phrase, other.box_xyxy_px, other.mask)
        assert one.image.samefile(other.image)
