import json

import numpy as np
import pytest

from deixis.data.batches import Mixture
from deixis.data.dataset import in_split
from deixis.data.image_sources import PhotoSource, SceneSource
from deixis.data.photos import Photo, Photos
from deixis.geometry.masks import encode_rle
from deixis.structures import Instance

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
    assert [record.image_id for record in Photos.read(coco_json, split)] == ids


def test_load_views_when_a_record_is_wrong_then_a_training_can_tell_it(coco_json):
    document = json.loads(coco_json.read_text())
    document["annotations"].append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [1, 2, 0, 0]})
    coco_json.write_text(json.dumps(document))
    records = Photos.read(coco_json, "train")
    assert len(records.problems) == 1
    assert "expected a bbox with an area" in records.problems[0]
    mixture = Mixture([PhotoSource(records, fully_annotated=True), SceneSource("scenes")], [0.5, 0.5])
    assert mixture.problems == records.problems


def test_view_when_decoded_then_image_boxes_and_masks_are_those_of_the_file(coco_json):
    view = Photos.read(coco_json, "val")[0].decode()
    assert view.pixels.shape == (80, 120, 3)
    assert view.pixels[30, 20].tolist() == [200, 30, 30]
    cup, dog = view.instances
    assert (cup.category, cup.box_xyxy_px) == ("cup", (10, 20, 50, 60))
    assert cup.mask is not None
    expected = np.zeros((80, 120), np.bool_)
    expected[20:60, 10:50] = True
    np.testing.assert_array_equal(cup.mask, expected)
    assert (dog.category, dog.box_xyxy_px, dog.mask) == ("dog", (70, 10, 110, 70), None)


def test_view_when_pixels_are_kept_then_the_photo_is_read_once(coco_json):
    record = Photos.read(coco_json, "val", keep_pixels=True)[0]
    first = record.decode()
    record.path.unlink()
    assert record.decode().pixels is first.pixels
    with pytest.raises(ValueError, match="read-only"):
        first.pixels[0, 0] = 0


def test_view_when_the_photo_is_gone_then_file_not_found(coco_json):
    record = Photos.read(coco_json, "val")[0]
    record.path.unlink()
    with pytest.raises(FileNotFoundError):
        record.decode()


def test_view_when_the_photo_has_another_size_then_it_is_told(photo_file):
    record = Photo(image_id=3, path=photo_file, hw=(120, 80), instances=())
    with pytest.raises(ValueError, match=r"\(height, width\) \(120, 80\), as its annotations say, got \(80, 120\)"):
        record.decode()


def test_view_when_a_mask_is_empty_then_only_the_box_is_known(photo_file):
    thing = Instance(category="cup", box_xyxy_px=(1, 1, 9, 9), mask=encode_rle(np.zeros((80, 120), np.bool_)))
    view = Photo(image_id=3, path=photo_file, hw=(80, 120), instances=(thing,)).decode()
    assert view.instances[0].mask is None


def test_view_when_a_mask_has_another_size_then_the_photo_is_named(photo_file):
    thing = Instance(category="cup", box_xyxy_px=(1, 1, 9, 9), mask=encode_rle(np.ones((8, 12), np.bool_)))
    with pytest.raises(ValueError, match=r"this is a mask of 'cup' in .*3\.png"):
        Photo(image_id=3, path=photo_file, hw=(80, 120), instances=(thing,)).decode()
