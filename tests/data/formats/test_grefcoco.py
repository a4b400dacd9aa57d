import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import open_dataset
from deixis.data.formats.grefcoco import read_grefcoco
from deixis.geometry.masks import encode_rle, read_mask


def ref(number, annotations, *phrases, **changes):
    whole = {
        "image_id": 25, "split": "val", "ref_id": number, "ann_id": annotations, "category_id": [1], "no_target": False,
        "file_name": "COCO_train2014_000000000025_0.jpg",
        "sentences": [{"sent_id": 10 * number + i, "sent": one, "raw": one, "tokens": one.split()}
                      for i, one in enumerate(phrases)],
    }  # fmt: skip
    return whole | changes


def right_half():
    mask = np.zeros((50, 100), bool)
    mask[:, 50:] = True
    return encode_rle(mask)


THINGS = [
    {"id": 1, "bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]], "category_id": 1},
    {"id": 2, "bbox": [40, 5, 10, 20], "segmentation": [[40, 5, 50, 5, 50, 25, 40, 25]], "category_id": 1},
    {"id": 3, "bbox": [50, 0, 50, 50], "segmentation": right_half(), "category_id": 2},
    {"id": 4, "bbox": [50, 0, 50, 50], "category_id": 2},
    {"id": 5, "bbox": [50, 0, -1, 50], "category_id": 2},
]
REFS = [
    ref(1, [1], "left dog"),
    ref(2, [1, 2], "two dogs", "both dogs"),
    ref(3, [-1], "zebra", no_target=True),
    ref(4, [1, 3], "dog and cat"),
    ref(5, [2], "dog", split="testA"),
]


def save(folder, refs=REFS):
    (folder / "grefs(unc).json").write_text(json.dumps(refs))
    document = {
        "images": [{"id": 25, "file_name": "COCO_train2014_000000000025.jpg", "height": 50, "width": 100}],
        "annotations": [{"image_id": 25, "iscrowd": 0} | thing for thing in THINGS],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


def test_read_grefcoco_when_one_several_or_none_are_meant_then_box_and_mask_say_it(tmp_path):
    one, two, both, zebra, mixed = data = read_grefcoco(save(tmp_path))
    assert [sample.kind for sample in data] == ["one", "several", "several", "none", "several"]
    assert (one.box_xyxy_px, one.id, one.category) == ((10, 10, 30, 30), "10", "dog")
    assert two.box_xyxy_px == both.box_xyxy_px == (10, 5, 50, 30)
    assert read_mask(two.mask, (50, 100)).sum() == 20 * 20 + 10 * 20
    assert (zebra.box_xyxy_px, zebra.mask, zebra.category) == (None, None, None)
    assert mixed.box_xyxy_px == (10, 0, 100, 50)
    assert read_mask(mixed.mask, (50, 100)).sum() == 20 * 20 + 50 * 50
    assert len(one.instances) == 4
    assert data.referents == ((0,), (1, 2), (3,), (4,))
    assert len(data.problems) == 1  # the thing with no area, which nothing means


@pytest.mark.parametrize("name", ["grefs(unc).json", "."])
def test_open_dataset_when_its_file_or_folder_then_recognised(tmp_path, name):
    assert [one.phrase for one in open_dataset(save(tmp_path) / name, "testA")] == ["dog"]
    assert len(open_dataset(save(tmp_path) / name)) == 5
    assert len(open_dataset(save(tmp_path) / name, limit=2)) == 2
    with pytest.raises(FileNotFoundError, match="expected the images"):
        open_dataset("grefcoco", root=tmp_path)


@pytest.mark.parametrize(
    ("broken", "why", "lost"),
    [
        (ref(9, [1, 77], "a", "b"), "expected annotation 77 of image 25 in instances.json, got none", 2),
        (ref(9, [5], "a"), "expected a bbox with an area", 1),
        (ref(9, None, "a"), "expected an id as 'ann_id'", 1),
        (ref(9, [None], "a"), "expected an id as 'ann_id'", 1),
        (ref(9, [], "a", image_id=26), "expected the image 26 in instances.json", 1),
        (ref(9, [1], " "), "expected words as 'sent'", 1),
        (ref(9, [1], "a", split=None), "expected a split", 1),
        (ref(9, [1], sentences=[3, {}]), "expected a dict, got 3", 2),
        (ref(9, [1], sentences="dog"), "expected a list of sentences", 1),
        ("dog", "expected a dict, got 'dog'", 1),
    ],
)
def test_read_grefcoco_when_a_reference_is_wrong_then_counted_and_the_rest_read(tmp_path, broken, why, lost):
    data = read_grefcoco(save(tmp_path, [broken, *REFS]))
    assert len(data) == 5
    assert data.left_out == lost
    assert data.problems[0].startswith("reference 0")
    assert why in data.problems[0]


def test_read_grefcoco_when_something_is_missing_then_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no 'grefs\(unc\)\.json' there"):
        read_grefcoco(tmp_path)
    save(tmp_path, [REFS[4]])
    with pytest.raises(ValueError, match=r"got none \(the splits there are \['testA'\]\)"):
        read_grefcoco(tmp_path)
    with pytest.raises(ValueError, match="expected a split out of train"):
        read_grefcoco(tmp_path, "test")
    (tmp_path / "grefs(unc).json").write_text('{"a": [1]}')
    with pytest.raises(ValueError, match="expected a list of references"):
        read_grefcoco(tmp_path)


ANY = st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(REFS[0])), ANY), max_size=3))
def test_read_grefcoco_when_fields_are_changed_then_none_is_lost_silently(tmp_path_factory, changes):
    refs = [dict(one) for one in REFS]
    for place, key, value in changes:
        refs[place][key] = value
    (folder := tmp_path_factory.getbasetemp() / "grefs").mkdir(exist_ok=True)
    try:
        data = read_grefcoco(save(folder, refs))
    except ValueError as error:
        assert str(error).startswith("expected ")  # noqa: PT017
        return
    of_split = [one for one in refs if one["split"] == "val" or not isinstance(one["split"], str)]
    expected = sum(len(one["sentences"]) if isinstance(one["sentences"], list) else 1 for one in of_split)
    assert len(list(data)) + data.left_out == expected
