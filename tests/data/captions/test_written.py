import json

import numpy as np
import pytest
from PIL import Image

from deixis.data.captions.written import PhotoRecord, WrittenPhrases, load_views
from deixis.data.dataset import in_split
from deixis.data.loading import Mixture, PhotoSource, SceneSource
from deixis.geometry.masks import encode_rle, read_mask
from deixis.structures import Instance

RED, BLUE, GRASS = (200, 30, 30), (30, 40, 200), (90, 140, 80)


def _photo(folder, image_id):
    """A red cup on the left, a blue dog on the right, 120 x 80 pixels."""
    pixels = np.full((80, 120, 3), GRASS, np.uint8)
    pixels[20:60, 10:50] = RED
    pixels[10:70, 70:110] = BLUE
    Image.fromarray(pixels).save(folder / f"{image_id}.png")
    return pixels


def _annotations(image_id):
    cup = {"category_id": 1, "bbox": [10, 20, 40, 40], "segmentation": [[10, 20, 50, 20, 50, 60, 10, 60]]}
    dog = {"category_id": 2, "bbox": [70, 10, 40, 60]}
    return [
        {"id": 2 * image_id + n, "image_id": image_id, "area": 1600, "iscrowd": 0, **thing}
        for n, thing in enumerate((cup, dog))
    ]


def _instances_json(folder, image_ids):
    images = folder / "images"
    images.mkdir()
    for image_id in image_ids:
        _photo(images, image_id)
    path = folder / "instances.json"
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 80, "license": 4} for i in image_ids],
        "annotations": [a for i in image_ids for a in _annotations(i)],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco_json(tmp_path):
    return _instances_json(tmp_path, [1, 2, 7, 8, 14, 15])


# --- splits -----------------------------------------------------------------------------------------------------------


def test_in_split_when_each_id_then_exactly_one_of_the_three_and_all():
    expected = {0: "test", 1: "val", 2: "train", 7: "test", 8: "train", 14: "test", 15: "val", 29: "val", 22: "train"}
    for image_id, own in expected.items():
        assert [s for s in ("train", "val", "test") if in_split(image_id, s)] == [own]
        assert in_split(image_id, "all")


def test_in_split_when_unknown_then_the_names_are_told():
    with pytest.raises(ValueError, match="expected a split out of train, val, test, all, got 'testA'"):
        in_split(3, "testA")


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "ids"), [("train", [2, 8]), ("val", [1, 15]), ("test", [7, 14]), ("all", [1, 2, 7, 8, 14, 15])]
)
def test_load_views_when_a_split_then_its_photos(coco_json, split, ids):
    assert [record.image_id for record in load_views(coco_json, split)] == ids


def test_load_views_when_a_record_is_wrong_then_a_training_can_tell_it(coco_json):
    document = json.loads(coco_json.read_text())
    document["annotations"].append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [1, 2, 0, 0]})
    coco_json.write_text(json.dumps(document))
    records = load_views(coco_json, "train")
    assert len(records.problems) == 1
    assert "expected a bbox with an area" in records.problems[0]
    mixture = Mixture([PhotoSource(records, fully_annotated=True), SceneSource("scenes")], [0.5, 0.5])
    assert mixture.problems == records.problems


def test_view_when_decoded_then_image_boxes_and_masks_are_those_of_the_file(coco_json):
    view = load_views(coco_json, "val")[0].view()
    assert view.image.shape == (80, 120, 3)
    assert view.image[30, 20].tolist() == list(RED)
    cup, dog = view.instances
    assert (cup.category, cup.box_xyxy_px) == ("cup", (10, 20, 50, 60))
    assert cup.mask is not None
    expected = np.zeros((80, 120), np.bool_)
    expected[20:60, 10:50] = True
    np.testing.assert_array_equal(cup.mask, expected)
    assert (dog.category, dog.box_xyxy_px, dog.mask) == ("dog", (70, 10, 110, 70), None)


def test_view_when_pixels_are_kept_then_the_photo_is_read_once(coco_json):
    record = load_views(coco_json, "val", keep_pixels=True)[0]
    first = record.view()
    record.path.unlink()
    assert record.view().image is first.image
    with pytest.raises(ValueError, match="read-only"):
        first.image[0, 0] = 0


def test_view_when_the_photo_is_gone_then_file_not_found(coco_json):
    record = load_views(coco_json, "val")[0]
    record.path.unlink()
    with pytest.raises(FileNotFoundError):
        record.view()


def test_view_when_the_photo_has_another_size_then_it_is_told(tmp_path):
    _photo(tmp_path, 3)
    record = PhotoRecord(image_id=3, path=tmp_path / "3.png", hw=(120, 80), instances=())
    with pytest.raises(ValueError, match=r"\(height, width\) \(120, 80\), as its annotations say, got \(80, 120\)"):
        record.view()


def test_view_when_a_mask_is_empty_then_only_the_box_is_known(tmp_path):
    _photo(tmp_path, 3)
    thing = Instance(category="cup", box_xyxy_px=(1, 1, 9, 9), mask=encode_rle(np.zeros((80, 120), np.bool_)))
    view = PhotoRecord(image_id=3, path=tmp_path / "3.png", hw=(80, 120), instances=(thing,)).view()
    assert view.instances[0].mask is None


def test_view_when_a_mask_has_another_size_then_the_photo_is_named(tmp_path):
    _photo(tmp_path, 3)
    thing = Instance(category="cup", box_xyxy_px=(1, 1, 9, 9), mask=encode_rle(np.ones((8, 12), np.bool_)))
    with pytest.raises(ValueError, match=r"this is a mask of 'cup' in .*3\.png"):
        PhotoRecord(image_id=3, path=tmp_path / "3.png", hw=(80, 120), instances=(thing,)).view()


# --- phrases ----------------------------------------------------------------------------------------------------------


def test_written_phrases_when_two_things_then_both_are_spoken_of(coco_json):
    samples = WrittenPhrases(coco_json, split="test")
    assert {s.image_id for s in samples} == {"7", "14"}
    assert {s.category for s in samples} == {"cup", "dog"}
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples:
        assert sample.split == "test"
        assert sample.kind
        assert [i.category for i in sample.instances] == ["cup", "dog"]
        expected = (10, 20, 50, 60) if sample.category == "cup" else (70, 10, 110, 70)
        assert sample.box_xyxy_px == expected
        assert (sample.mask is None) == (sample.category == "dog")


def test_written_phrases_when_the_mask_is_read_then_it_is_the_files(coco_json):
    sample = next(s for s in WrittenPhrases(coco_json, split="val") if s.category == "cup")
    assert sample.mask is not None
    assert read_mask(sample.mask, (80, 120)).sum() == 40 * 40


def test_written_phrases_when_made_again_then_the_same_and_with_another_seed_others(coco_json):
    def words(seed):
        return [(s.id, s.phrase) for s in WrittenPhrases(coco_json, split="all", seed=seed)]

    assert words(0) == words(0)
    assert len({tuple(words(seed)) for seed in range(4)}) > 1


def test_written_phrases_when_a_photo_is_in_another_split_then_its_phrases_are_the_same(coco_json):
    whole = {s.id: s.phrase for s in WrittenPhrases(coco_json, split="all")}
    part = {s.id: s.phrase for s in WrittenPhrases(coco_json, split="val")}
    assert part
    assert part.items() <= whole.items()


@pytest.mark.parametrize("per_instance", [1, 2])
def test_written_phrases_when_per_instance_then_no_thing_has_more(coco_json, per_instance):
    samples = WrittenPhrases(coco_json, split="all", per_instance=per_instance)
    counts = [sum((s.image_id, s.category) == (i, c) for s in samples) for i in ("1", "7") for c in ("cup", "dog")]
    assert max(counts) == per_instance


def test_written_phrases_when_min_area_is_large_then_small_things_are_not_meant(coco_json):
    # the cup's box takes 1600 of 9600 pixels, the dog's 2400
    assert {s.category for s in WrittenPhrases(coco_json, split="all", min_area=0.2)} == {"dog"}


def test_written_phrases_when_limited_then_the_first_of_shuffled_photos(coco_json):
    whole = {s.id for s in WrittenPhrases(coco_json, split="all")}
    calls = []
    few = WrittenPhrases(coco_json, split="all", limit=3, progress=lambda done, total: calls.append((done, total)))
    assert len(few) == 3
    assert {s.id for s in few} < whole
    assert calls[0] == (1, 6)
    assert len(calls) < 6  # no photo is decoded that is not needed
    assert [s.id for s in few] == [s.id for s in WrittenPhrases(coco_json, split="all", limit=3)]


def test_written_phrases_when_sliced_then_a_list(coco_json):
    samples = WrittenPhrases(coco_json, split="val")
    assert list(samples[:2]) == [samples[0], samples[1]]
    assert samples[-1] is samples[len(samples) - 1]


def test_written_phrases_when_a_record_is_wrong_then_it_is_told_and_the_rest_is_there(coco_json):
    content = json.loads(coco_json.read_text())
    content["annotations"][0]["bbox"] = [10, 20, -4, 40]
    coco_json.write_text(json.dumps(content))
    samples = WrittenPhrases(coco_json, split="val")
    assert len(samples.problems) == 1
    assert {(s.image_id, s.category) for s in samples} == {("1", "dog"), ("15", "cup"), ("15", "dog")}


def test_written_phrases_when_a_photo_or_mask_is_bad_then_it_is_told_and_the_rest_is_there(coco_json):
    (coco_json.parent / "images" / "1.png").write_bytes(b"no image")
    content = json.loads(coco_json.read_text())
    broken = next(a for a in content["annotations"] if a["image_id"] == 15 and a["category_id"] == 1)
    broken["segmentation"] = {"size": [8, 12], "counts": [96]}
    coco_json.write_text(json.dumps(content))
    samples = WrittenPhrases(coco_json, split="all")
    assert {s.image_id for s in samples} == {"2", "7", "8", "14"}
    assert [problem.split(":")[0] for problem in samples.problems] == ["image 1", "image 15"]


def test_written_phrases_when_all_photos_are_missing_then_file_not_found(coco_json, tmp_path):
    with pytest.raises(FileNotFoundError):
        WrittenPhrases(coco_json, tmp_path, split="all")


def test_written_phrases_when_the_file_has_one_category_then_every_phrase_has_its_noun(coco_json):
    content = json.loads(coco_json.read_text())
    content["categories"] = [{"id": 1, "name": "cup"}]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1]
    coco_json.write_text(json.dumps(content))
    phrases = [s.phrase for n in range(20) for s in WrittenPhrases(coco_json, split="all", seed=n)]
    assert all({"cup", "mug"} & set(phrase.split()) for phrase in phrases)


def test_written_phrases_when_an_id_is_negative_then_it_works(tmp_path):
    assert {s.image_id for s in WrittenPhrases(_instances_json(tmp_path, [-7]), split="test")} == {"-7"}
