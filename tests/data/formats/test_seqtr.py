import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import default_split, open_dataset
from deixis.data.formats.seqtr import read_seqtr
from deixis.geometry.masks import read_mask

ENTRY = {
    "bbox": [10.5, 20.0, 30.25, 5.0], "image_id": 25, "width": 100, "height": 50, "category": "dog",
    "expressions": ["left dog", "the dog"], "mask": [[10, 20, 40, 20, 40, 25]],
}  # fmt: skip
RLE = {"size": [50, 100], "counts": [0, 100, 4900]}


def save(tmp_path, document, name="instances.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_read_seqtr_when_an_entry_has_expressions_then_a_sample_each(tmp_path):
    path = save(tmp_path, {"train": [ENTRY], "val": [ENTRY | {"mask": RLE, "bbox": [90, 40, 20, 5]}]})
    first, second = data = read_seqtr(path, tmp_path, "train")
    assert [first.phrase, second.phrase] == ["left dog", "the dog"]
    assert [first.id, second.id] == ["0-0", "0-1"]
    assert first.box_xyxy_px == second.box_xyxy_px == (10.5, 20, 40.75, 25)
    assert (first.image_id, first.split, first.category) == ("25", "train", "dog")
    assert first.image.name == "COCO_train2014_000000000025.jpg"
    assert first.mask == [[10, 20, 40, 20, 40, 25]]
    assert data.referents == ((0, 1),)
    other = read_seqtr(path, tmp_path)
    assert read_mask(other[0].mask, (50, 100)).sum() == 100
    assert other[0].box_xyxy_px == (90, 40, 100, 45)
    assert other.clipped_boxes == 1
    assert data[0] == open_dataset(path, "train", root=tmp_path)[0]


def test_read_seqtr_when_of_the_mix_then_each_image_where_its_source_keeps_it(tmp_path):
    sources = {"coco": 25, "flickr": 36979, "vg": 2, "saiaprtc12": 8756}
    places = {
        "coco": "images/mscoco/train2014/COCO_train2014_000000000025.jpg", "flickr": "images/flickr30k/36979.jpg",
        "vg": "images/visual-genome/2.jpg", "saiaprtc12": "images/saiaprtc12/8756.jpg",
    }  # fmt: skip
    for place in places.values():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    entries = [ENTRY | {"data_source": name, "image_id": number} for name, number in sources.items()]
    data = read_seqtr(save(tmp_path, {"val_refcoco_unc": entries}), tmp_path, "val_refcoco_unc")
    assert [one.image for one in data[::2]] == [tmp_path / place for place in places.values()]


def test_read_seqtr_when_of_simrec_then_read_with_the_arrays_of_masks(tmp_path):
    for folder in ("anns", "masks/refcoco", "images/train2014"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images/train2014/COCO_train2014_000000581857.jpg").write_bytes(b"")
    array = np.zeros((50, 100), np.uint8)
    array[20:25, 10:40] = 2
    np.save(tmp_path / "masks/refcoco/3.npy", array)
    entry = {"iid": 581857, "bbox": [1.5, 2, 10, 5], "cat_id": 0, "refs": ["the lady", "lady w"], "mask_id": 3}
    path = save(tmp_path / "anns", {"train": [entry], "val": [entry | {"mask_id": 4}]}, "refcoco.json")
    first, second = data = open_dataset(path, "train")
    assert (first.phrase, second.phrase, first.box_xyxy_px) == ("the lady", "lady w", (1.5, 2, 11.5, 7))
    assert (first.image_id, first.image.is_file(), data.left_out, data.problems) == ("581857", True, 0, ())
    assert (read_mask(first.mask, (50, 100)) == (array > 0)).all()
    other = open_dataset(path)
    assert (len(other), other[0].mask, other.left_out) == (2, None, 0)
    assert other.problems[0].startswith("val[0], read without its mask: expected ")
    np.save(tmp_path / "masks/refcoco/3.npy", array[0])
    with pytest.raises(ValueError, match="expected an array"):
        _ = data[0]


@pytest.mark.parametrize(
    ("source", "iid", "place"),
    [
        ("coco", "581857.jpg", "images/train2014/COCO_train2014_000000581857.jpg"),
        ("flickr", "36979.jpg", "images/flickr/36979.jpg"),
        ("refclef", 8756, "images/refclef/8756.jpg"),
    ],
)
def test_read_seqtr_when_of_the_mix_of_simrec_then_each_image_where_it_keeps_it(tmp_path, source, iid, place):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(b"")
    entry = {"iid": iid, "data_source": source, "bbox": [1, 2, 10, 5], "refs": ["the lady"], "mask_id": -1}
    path = save(tmp_path, {"train": [entry]}, "merge.json")
    assert open_dataset(path, "train")[0].image == tmp_path / place


@pytest.mark.parametrize(
    ("changes", "why", "lost"),
    [
        ({"bbox": [1, 2, 0, 4]}, "with an area inside the image", 2),
        ({"bbox": [1, 2, "3", 4]}, "four finite numbers", 2),
        ({"bbox": "no"}, "four finite numbers", 2),
        ({"expressions": "left dog"}, "expected a list of expressions", 1),
        ({"expressions": ["dog", 3, " "]}, "expected a phrase with words", 2),
        ({"image_id": None}, "expected an id as 'image_id'", 2),
        ({"image_id": [1]}, "expected an id as 'image_id'", 2),
        ({"file_name": "../../x"}, "below the folder of images", 2),
    ],
)
def test_read_seqtr_when_an_entry_is_wrong_then_counted_and_the_rest_read(tmp_path, changes, why, lost):
    data = read_seqtr(save(tmp_path, {"val": [ENTRY, ENTRY | changes, 4]}))
    assert data.left_out == lost + 1
    assert data.problems[0].startswith("val[1]")
    assert why in data.problems[0]
    assert data.problems[-1].startswith("val[2]: expected a JSON object")


def test_read_seqtr_when_a_mask_is_wrong_then_read_without(tmp_path):
    data = read_seqtr(save(tmp_path, {"val": [ENTRY | {"mask": [[1, 2, 3]]}]}))
    assert [one.mask for one in data] == [None, None]
    assert (data.left_out, len(data.problems)) == (0, 1)


def test_read_seqtr_when_the_split_is_not_there_then_those_there_are(tmp_path):
    path = save(tmp_path, {"train": [ENTRY], "testA": []})
    with pytest.raises(ValueError, match=r"expected the split 'val' in .* got \['train', 'testA'\]"):
        read_seqtr(path)
    with pytest.raises(ValueError, match="expected expressions of the split 'testA'"):
        read_seqtr(path, split="testA")
    assert default_split(path) == "val"


ANY = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda x: st.lists(x, max_size=5),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*sorted(ENTRY), "data_source", "ids"]), ANY), max_size=3), st.booleans())
def test_read_seqtr_when_fields_are_changed_then_none_is_lost_silently(tmp_path_factory, changes, drop):
    entry = dict(ENTRY)
    for key, value in changes:
        entry.pop(key, None) if drop else entry.update({key: value})
    path = save(tmp_path_factory.getbasetemp(), {"val": [ENTRY, entry]}, "changed.json")
    data = read_seqtr(path)
    expressions = entry.get("expressions")
    assert len(list(data)) + data.left_out == 2 + (len(expressions) if isinstance(expressions, list) else 1)
    assert bool(data.problems) >= bool(data.left_out)
