import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import open_dataset
from deixis.data.formats.mdetr import read_mdetr

CAPTION = "a man in a red hat holds two cups"


def image(number, caption="left dog", **changes):
    whole = {
        "file_name": f"COCO_train2014_{number:012d}.jpg", "height": 50, "width": 100, "id": number,
        "original_id": number,
        "caption": caption, "dataset_name": "refcoco", "tokens_negative": [[0, len(caption)]],
    }  # fmt: skip
    return whole | changes


def thing(number, of, box, span=None, **changes):
    whole = {"area": 1.0, "iscrowd": 0, "image_id": of, "category_id": 1, "id": number, "bbox": box}
    return whole | ({"tokens_positive": span} if span else {}) | changes


def save(tmp_path, images, annotations, name="finetune_refcoco_val.json", categories=None, first="images"):
    parts = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": categories or [{"id": 1, "name": "x"}],
    }
    order = sorted(parts, key=lambda key: key != first)
    path = tmp_path / name
    path.write_text(json.dumps({key: parts[key] for key in order}))
    return path


@pytest.mark.parametrize("first", ["images", "annotations"])
def test_read_mdetr_when_a_caption_has_one_thing_then_the_caption_is_the_phrase(tmp_path, first):
    images = [image(25), image(30, "no such thing")]
    path = save(
        tmp_path, images, [thing(1, 25, [10.5, 20, 30.25, 5], [[5, 8]], segmentation=[[1, 1, 9, 1, 9, 9]])], first=first
    )
    dog, nothing = read_mdetr(path, tmp_path)
    assert (dog.phrase, dog.box_xyxy_px, dog.mask) == ("left dog", (10.5, 20, 40.75, 25), [[1, 1, 9, 1, 9, 9]])
    assert (dog.id, dog.image_id, dog.split, dog.category) == ("0-0", "25", "val", None)
    assert dog.image == tmp_path / "COCO_train2014_000000000025.jpg"
    assert (nothing.phrase, nothing.box_xyxy_px) == ("no such thing", None)
    assert open_dataset(path, root=tmp_path)[0] == dog


def test_read_mdetr_when_of_grefcoco_then_the_caption_means_all_its_things_or_none(tmp_path):
    caption = "the two cups and the hat"
    images = [image(25, caption, dataset_name="grefcoco"), image(30, "no such thing", dataset_name="grefcoco")]
    things = [
        thing(1, 25, [10, 10, 20, 20], [[4, 12]], empty=False),
        thing(2, 25, [40, 5, 10, 10], [[4, 12]], empty=False),
        thing(3, 30, [0, 0, 0, 0], [[8, 13]], empty=True, category_id=-1, area=-1, iscrowd=-1),
    ]
    path = save(tmp_path, images, things, "finetune_grefcoco_val.json")
    cups, nothing = data = read_mdetr(path, tmp_path)
    assert (cups.phrase, cups.box_xyxy_px, cups.kind) == (caption, (10, 5, 50, 30), "several")
    assert (nothing.phrase, nothing.box_xyxy_px) == ("no such thing", None)
    assert (data.left_out, data.problems) == (0, ())


def test_read_mdetr_when_of_flickr30k_then_sizes_may_be_text_and_each_span_is_a_phrase(tmp_path):
    flickr = {"dataset_name": "flickr", "height": "50", "width": "100", "original_img_id": 36979}
    images = [image(0, CAPTION, file_name="36979.jpg", **flickr), image(1, "in the yard", **flickr)]
    path = save(tmp_path, images, [thing(1, 0, [90, 0, 20, 50], [[0, 5], [9, 18]])], "final_flickr_mergedGT_val.json")
    data = read_mdetr(path, tmp_path)
    assert [one.phrase for one in data] == ["a man", "a red hat"]
    assert {one.box_xyxy_px for one in data} == {(90, 0, 100, 50)}
    assert (data.clipped_boxes, data[0].image_id, data.left_out) == (1, "36979", 1)
    assert data.problems == ("images[1]: no box for any phrase of the caption, such as a scene",)


def test_read_mdetr_when_a_caption_has_several_things_then_their_spans_are_phrases(tmp_path):
    things = [
        thing(1, 25, [10, 0, 20, 50], [[0, 5]]),
        thing(2, 25, [10, 0, 20, 10], [[9, 18]]),
        thing(3, 25, [0, 20, 10, 10], [[25, 33]]),
        thing(4, 25, [40, 20, 10, 15], [[25, 33]]),
    ]
    names = [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}]
    data = read_mdetr(
        save(tmp_path, [image(25, CAPTION, dataset_name="flickr")], things, "final_flickr_train.json", names)
    )
    assert [one.phrase for one in data] == ["a man", "a red hat", "two cups"]
    assert [one.box_xyxy_px for one in data] == [(10, 0, 30, 50), (10, 0, 30, 10), (0, 20, 50, 35)]
    assert [one.kind for one in data] == [None, None, "several"]
    assert {one.category for one in data} == {"thing"}
    assert {one.split for one in data} == {"train"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bbox": [1, 2, 0, 4]}, "expected a bbox with an area"),
        ({"bbox": [1, 2, "3", 4]}, "four finite numbers"),
        ({"bbox": [200, 2, 3, 4]}, "inside the image of 100 x 50"),
        ({"tokens_positive": [[0, 99]]}, "expected tokens_positive inside a caption of 8 letters"),
        ({"tokens_positive": [[5, 5]]}, "expected tokens_positive"),
    ],
)
def test_read_mdetr_when_a_thing_is_wrong_then_its_caption_is_left_out_and_told(tmp_path, changes, why):
    data = read_mdetr(
        save(tmp_path, [image(25), image(30)], [thing(1, 25, [1, 2, 3, 4]) | changes, thing(2, 30, [1, 2, 3, 4])])
    )
    assert [one.image_id for one in data] == ["30"]  # never as a phrase that means nothing
    assert data.left_out == 1
    assert data.problems[0].startswith("images[0]: annotations[0]: ")
    assert why in data.problems[0]


def test_read_mdetr_when_records_are_wrong_then_each_is_told(tmp_path):
    images = [image(25), image(25), image(26, " "), 7, image(27, file_name=None)]
    things = [thing(1, 25, [1, 2, 3, 4], segmentation=[[1, 2]]), thing(2, 99, [1, 2, 3, 4]), "x"]
    data = read_mdetr(save(tmp_path, images, things))
    assert len(data) == 1
    assert data[0].mask is None
    assert data.left_out == 4
    assert len(data.problems) == 7


def test_read_mdetr_when_a_part_is_missing_then_one_sentence(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [image(25)]}))
    with pytest.raises(ValueError, match="expected lists 'images' and 'annotations'"):
        read_mdetr(path)


ANY = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3),
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(image(1))), st.sampled_from(sorted(thing(1, 1, [], [[0, 1]]))), ANY, ANY)
def test_read_mdetr_when_fields_are_changed_then_none_is_lost_silently(tmp_path_factory, in_image, in_thing, a, b):
    images = [image(1), image(25) | {in_image: a}]
    things = [thing(1, 1, [1, 2, 3, 4], [[0, 4]]), thing(2, 25, [1, 2, 3, 4], [[0, 2]]) | {in_thing: b}]
    data = read_mdetr(save(tmp_path_factory.getbasetemp(), images, things, "changed.json"))
    assert len(list(data)) + data.left_out >= 2
    assert bool(data.problems) >= bool(data.left_out)
