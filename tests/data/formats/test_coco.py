import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.formats.coco import CocoInstances


def document(**changes):
    whole = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50, "license": 4},
            {"id": "8", "file_name": "deep/b.jpg", "width": 20, "height": 30},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 1,
                "bbox": [10, 5, 20, 30],
                "segmentation": [[10, 5, 30, 5, 30, 35]],
            },
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [90, 40, 20, 20.5], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    return whole | changes


def read(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return CocoInstances.read(path)


def test_read_when_the_file_is_right_then_images_and_instances_come(tmp_path):
    coco = read(tmp_path, document())

    assert [(i.id, i.hw, i.license) for i in coco.images] == [(7, (50, 100), 4), (8, (30, 20), None)]
    assert coco.images[1].path == tmp_path / "deep" / "b.jpg"
    dog, cat = coco.instances(7)
    assert (dog.category, dog.box_xyxy_px, dog.mask) == ("dog", (10.0, 5.0, 30.0, 35.0), [[10, 5, 30, 5, 30, 35]])
    assert (cat.category, cat.is_crowd, cat.mask) == ("cat", True, None)
    assert coco.instances(8) == []
    assert coco.category_names == {1: "dog", 2: "cat"}
    assert coco.problems == []


def test_read_when_a_box_reaches_over_the_border_then_clipped_and_counted(tmp_path):
    coco = read(tmp_path, document())

    assert coco.instances(7)[1].box_xyxy_px == (90.0, 40.0, 100.0, 50.0)
    assert coco.clipped_boxes == 1


def test_read_when_annotations_carry_scores_then_those_below_the_least_are_left_out_without_a_word(tmp_path):
    box = {"image_id": 7, "category_id": 1, "bbox": [10, 5, 20, 30]}
    scores = [{"score": 0.5}, {"score": 0.49}, {}, {"score": "high"}]
    coco = document(annotations=[box | {"bbox": [k, 5, 20, 30]} | score for k, score in enumerate(scores)])
    assert len(read(tmp_path, coco).instances(7)) == 3
    found = CocoInstances.read(tmp_path / "instances.json", min_score=0.5)
    assert [one.box_xyxy_px[0] for one in found.instances(7)] == [0, 2]
    assert found.problems == ["annotations[3]: expected a number as 'score', got 'high'; correct it"]


def test_read_when_an_images_folder_lies_beside_then_it_is_the_root(tmp_path):
    (tmp_path / "images").mkdir()
    coco = read(tmp_path, document())

    assert coco.images[0].path == tmp_path / "images" / "a.jpg"
    given_root = CocoInstances.read(tmp_path / "instances.json", tmp_path / "other")
    assert given_root.images[0].path == tmp_path / "other" / "a.jpg"


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ({"bbox": [10, 5, 0, 30]}, "bbox with an area inside"),
        ({"bbox": [200, 5, 10, 10]}, "inside the image of 100 x 50"),
        ({"bbox": [10, 5, 20]}, "four finite numbers"),
        ({"bbox": [10, 5, 20, float("nan")]}, "four finite numbers"),
        ({"bbox": [10, 5, 20, True]}, "four finite numbers"),
        ({"bbox": None}, "four finite numbers"),
        ({"image_id": 99}, "id of an image"),
        ({"category_id": 99}, "id of a category"),
        ({"category_id": []}, "expected an id as 'category_id'"),
    ],
)
def test_read_when_one_record_is_bad_then_it_is_reported_and_the_rest_stays(tmp_path, annotation, why):
    good = {"image_id": 7, "category_id": 1, "bbox": [10, 5, 20, 30]}
    coco = read(tmp_path, document(annotations=[good | annotation, good]))

    assert len(coco.problems) == 1
    assert coco.problems[0].startswith("annotations[0]: expected ")
    assert why in coco.problems[0]
    assert len(coco.instances(7)) == 1


def test_read_when_only_the_mask_is_bad_then_the_box_stays(tmp_path):
    bad = {"image_id": 7, "category_id": 1, "bbox": [10, 5, 20, 30], "segmentation": [[1, 2, 3]]}
    coco = read(tmp_path, document(annotations=[bad]))

    assert coco.instances(7)[0].mask is None
    assert "read without its mask" in coco.problems[0]


def test_read_when_run_lengths_are_plain_counts_then_compressed(tmp_path):
    plain = {"size": [2, 2], "counts": [1, 2, 1]}
    record = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": plain, "iscrowd": 1}
    mask = read(tmp_path, document(annotations=[record])).instances(7)[0].mask

    assert isinstance(mask, dict)
    assert mask["size"] == [2, 2]
    assert isinstance(mask["counts"], str)


def test_read_when_images_or_categories_are_bad_then_reported(tmp_path):
    images = [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}] * 2 + [{"id": 9, "file_name": ""}, 3]
    coco = read(tmp_path, document(images=images, categories=[{"id": 1, "name": "dog"}, {"id": 2}]))

    assert len(coco.images) == 1
    assert [problem.split(":")[0] for problem in coco.problems] == [
        "categories[1]",
        "images[1]",
        "images[2]",
        "images[3]",
        "annotations[1]",
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("not json", "expected JSON"),
        ("", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[1, 2]", "expected a JSON object with a list 'images'"),
        ('{"images": [], "annotations": []}', "with a list 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "with a list 'images'"),
    ],
)
def test_read_when_the_file_is_no_coco_file_then_one_sentence(tmp_path, content, why):
    with pytest.raises(ValueError, match=why):
        read(tmp_path, content)


def test_read_when_the_file_is_missing_or_binary_then_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        CocoInstances.read(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="expected JSON"):
        CocoInstances.read(tmp_path / "bytes.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "size", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["image_id", "category_id", "bbox", "segmentation", "iscrowd"]), JSON, max_size=5
        ),
        max_size=4,
    )
)
def test_read_when_records_are_arbitrary_then_each_is_read_or_reported(tmp_path_factory, records):
    coco = read(tmp_path_factory.mktemp("coco"), document(annotations=records))
    lost = [problem for problem in coco.problems if "without its mask" not in problem]

    assert len(coco.instances(7)) + len(coco.instances(8)) + len(lost) == len(records)
