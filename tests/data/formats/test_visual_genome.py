import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import open_dataset
from deixis.data.formats.visual_genome import read_visual_genome

REGION = {"region_id": 1382, "width": 30, "height": 20, "image_id": 1, "phrase": "the clock is green", "y": 10, "x": 5}
IMAGE_DATA = [
    {"width": 100, "height": 50, "url": "https://x/rak248/VG_100K_2/1.jpg", "image_id": 1, "coco_id": None},
    {"width": 100, "height": 50, "url": "https://x/rak248/VG_100K/7.jpg", "image_id": 7, "coco_id": 25},
]


def save(folder, images=None, data=IMAGE_DATA):
    images = [{"id": 1, "regions": [REGION, REGION | {"region_id": 2, "width": 500}]},
              {"id": 7, "regions": [REGION | {"image_id": 7}]}] if images is None else images  # fmt: skip
    (folder / "region_descriptions.json").write_text(json.dumps(images))
    if data is not None:
        (folder / "image_data.json").write_text(json.dumps(data))
    return folder


def test_read_visual_genome_when_regions_then_a_sample_each_and_which_images_are_cocos(tmp_path):
    first, wide, other = data = read_visual_genome(save(tmp_path))
    assert (first.phrase, first.box_xyxy_px, first.id, first.image_id) == (
        "the clock is green",
        (5, 10, 35, 30),
        "1382",
        "1",
    )
    assert first.image == tmp_path / "images/visual-genome/VG_100K_2/1.jpg"
    assert other.image.parts[-2:] == ("VG_100K", "7.jpg")
    assert wide.box_xyxy_px == (5, 10, 100, 30)
    assert (data.clipped_boxes, data.problems, data.left_out) == (1, (), 0)
    assert data.coco_ids == {"7": 25}
    assert [one.image_id for one in read_visual_genome(tmp_path, "test")] == ["7"]  # divisible by 7
    assert len(open_dataset(tmp_path / "region_descriptions.json")) == len(open_dataset(tmp_path)) == 3


@pytest.mark.parametrize("where", ["VG_100K_2", "images/VG_100K_2", "images"])
def test_open_dataset_when_vg_and_a_root_then_images_are_found(tmp_path, where):
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / "1.jpg").write_bytes(b"")
    assert open_dataset("vg", root=save(tmp_path))[0].image == tmp_path / where / "1.jpg"


def test_read_visual_genome_when_the_image_data_is_missing_then_told(tmp_path):
    data = read_visual_genome(save(tmp_path, data=None))
    assert data.coco_ids == {}
    assert data[1].box_xyxy_px == (5, 10, 505, 30)
    assert "nobody knows which images are COCO's" in data.problems[0]
    bad = [3, {"image_id": None}, {"image_id": 1, "coco_id": "x"}, IMAGE_DATA[1]]
    data = read_visual_genome(save(tmp_path, data=bad))
    assert len(data.problems) == 3
    assert data.coco_ids == {"7": 25}


@pytest.mark.parametrize(
    ("image", "why", "lost"),
    [
        ({"id": 3, "regions": [REGION | {"phrase": " "}]}, "expected a phrase with words", 1),
        ({"id": 3, "regions": [REGION | {"x": "10"}]}, "four finite numbers", 1),
        ({"id": 3, "regions": [REGION | {"width": 0}]}, "expected a box", 1),
        ({"id": 1, "regions": [REGION | {"x": 100}]}, "inside the image of 100 x 50", 1),
        ({"id": 3, "regions": [REGION | {"region_id": None}, 4]}, "expected an id as 'region_id'", 2),
        ({"id": None, "regions": [REGION, REGION]}, "expected an id as 'id'", 2),
        ({"id": 3, "regions": 7}, "expected an object with a list 'regions'", 1),
        (5, "expected an object with a list 'regions'", 1),
    ],
)
def test_read_visual_genome_when_a_record_is_wrong_then_counted_and_the_rest_read(tmp_path, image, why, lost):
    data = read_visual_genome(save(tmp_path, [image, {"id": 7, "regions": [REGION]}]))
    assert [one.image_id for one in data] == ["7"]
    assert data.left_out == lost
    assert data.problems[0].startswith("element [0]")
    assert why in data.problems[0]


def test_read_visual_genome_when_nothing_can_be_read_then_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected 'region_descriptions\.json'"):
        read_visual_genome(tmp_path)
    with pytest.raises(ValueError, match="expected a split out of"):
        read_visual_genome(tmp_path, "testA")
    with pytest.raises(ValueError, match="expected a list of images"):
        read_visual_genome(save(tmp_path, {"a": 1}))


ANY = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(REGION)), ANY), max_size=3))
def test_read_visual_genome_when_fields_are_changed_then_none_is_lost_silently(tmp_path_factory, changes):
    (folder := tmp_path_factory.getbasetemp() / "vg").mkdir(exist_ok=True)
    data = read_visual_genome(save(folder, [{"id": 1, "regions": [REGION, REGION | dict(changes)]}]))
    assert len(list(data)) + data.left_out == 2
    assert len(data.problems) == data.left_out
