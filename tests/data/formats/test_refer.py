import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import REFER, default_split, open_dataset
from deixis.data.formats.pickles import load_refs
from deixis.data.formats.refer import SPLITS, open_refer
from deixis.geometry.masks import encode_rle, read_mask

IMAGES = "images/mscoco/images/train2014"
REAL = os.environ.get("DEIXIS_REFCOCO_REAL")


def ref(number, image, annotation, split, *phrases, **changes):
    sentences = [
        {"sent_id": 10 * number + i, "sent": phrase, "raw": phrase.upper(), "tokens": phrase.split()}
        for i, phrase in enumerate(phrases)
    ]
    whole = {
        "ref_id": number,
        "ann_id": annotation,
        "image_id": image,
        "category_id": 1,
        "split": split,
        "sentences": sentences,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "file_name": f"COCO_train2014_{image}_{annotation}.jpg",
    }
    return whole | changes


def annotation(number, image, box, **changes):
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    whole = {"id": number, "image_id": image, "category_id": 1, "bbox": box, "segmentation": [polygon], "iscrowd": 0}
    return whole | changes


REFS = [
    ref(1, 25, 100, "val", "left dog", "dog on left"),
    ref(2, 30, 300, "val", "big cat"),
    ref(3, 25, 101, "val", "right dog"),
    ref(4, 40, 400, "train", "cat", "the cat"),
    ref(5, 40, 400, "testA", "cat a"),
    ref(6, 40, 400, "testB", "cat b"),
]
ANNOTATIONS = [
    annotation(100, 25, [5, 10, 20, 30]),
    annotation(101, 25, [60.5, 10, 45.0, 30]),  # reaches over the right border at 100
    annotation(102, 25, [0, 0, 100, 50], iscrowd=1, segmentation={"size": [50, 100], "counts": [0, 100, 4900]}),
    annotation(300, 30, [1, 1, 50, 40], category_id=2),
    annotation(400, 40, [1, 1, 50, 40], category_id=2),
]


def document(annotations=ANNOTATIONS, **changes):
    whole = {
        "images": [
            {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": 50, "width": 100} for i in (25, 30, 40)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    return whole | changes


@pytest.fixture
def release(tmp_path):
    def make(refs=REFS, content=None, *, dataset="refcoco", split_by="unc", images=IMAGES, protocol=2):
        folder = tmp_path / dataset
        folder.mkdir(exist_ok=True)
        data = refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol=protocol)
        (folder / f"refs({split_by}).p").write_bytes(data)
        content = document() if content is None else content
        (folder / "instances.json").write_text(content if isinstance(content, str) else json.dumps(content))
        if images is not None:
            (tmp_path / images).mkdir(parents=True, exist_ok=True)
            for i in (25, 30, 40):
                Image.new("RGB", (100, 50)).save(tmp_path / images / f"COCO_train2014_{i:012d}.jpg")
        return tmp_path

    return make


def test_image_hw_when_asked_then_what_the_release_states(release):
    data = open_refer(release(), split="val")
    assert [data.image_hw(index) for index in range(len(data))] == [(50, 100)] * len(data)


@pytest.mark.parametrize("protocol", [0, 2])
def test_open_refer_when_the_release_is_right_then_a_sample_a_sentence(release, protocol):
    root = release(protocol=protocol)
    data = open_refer(root)

    assert [s.phrase for s in data] == ["left dog", "dog on left", "right dog", "big cat"]  # images together
    assert [s.id for s in data] == ["10", "11", "30", "20"]
    assert [s.image_id for s in data] == ["25", "25", "25", "30"]
    first, third = data[0], data[2]
    assert first.image == root / IMAGES / "COCO_train2014_000000000025.jpg"
    assert (first.box_xyxy_px, first.category, first.split) == ((5, 10, 25, 40), "dog", "val")
    assert first.mask == [[5, 10, 25, 10, 25, 40, 5, 40]]
    assert read_mask(first.mask, (50, 100)).sum() == 20 * 30
    assert [(i.category, i.is_crowd) for i in first.instances] == [("dog", False), ("dog", False), ("dog", True)]
    assert read_mask(first.instances[2].mask, (50, 100)).sum() == 100  # plain run lengths
    assert third.box_xyxy_px == (60.5, 10, 100, 40)
    assert data.clipped_boxes == 1
    assert (data.problems, data.left_out) == ((), 0)
    assert list(data[1:3]) == [data[1], data[2]]
    assert data[-1].phrase == "big cat"


def test_open_refer_when_python_2_wrote_the_pickle_then_its_strings_are_read(release):
    strings = {"ref_id": 7, "ann_id": 300, "image_id": 30}
    numbers = b"".join(b"U" + bytes([len(k)]) + k.encode() + b"M" + v.to_bytes(2, "little") for k, v in strings.items())
    sentence = b"}(U\x07sent_idK\x09U\x04sentU\x08the caf\xe9u"
    refs = b"\x80\x02]}(" + numbers + b"U\x05splitU\x03valU\x09sentences]" + sentence + b"aua."

    assert [(s.id, s.phrase) for s in open_refer(release(refs))] == [("9", "the café")]


def test_referents_when_a_thing_has_several_sentences_then_their_samples_stand_together(release):
    data = open_refer(release())

    assert list(pickle.loads(pickle.dumps(data))) == list(data)  # as workers get it
    assert data.referents == ((0, 1), (2,), (3,))
    assert {data[i].box_xyxy_px for i in data.referents[0]} == {(5, 10, 25, 40)}


@pytest.mark.parametrize(
    ("dataset", "split_by", "split", "taken"),
    [
        ("refcoco", "unc", "train", ["train"]),
        ("refcoco", "unc", "val", ["val"]),
        ("refcoco+", "unc", "testA", ["testA", "testAB"]),
        ("refcoco", "unc", "testB", ["testB", "testAB", "testBC"]),
        ("refcocog", "umd", "test", ["test", "testA", "testB", "testAB", "testBC"]),
        ("refcocog", "google", "val", ["val"]),
        ("refclef", "berkeley", "trainval", ["train", "val"]),
        ("refclef", "berkeley", "train", ["train"]),
        ("refclef", "unc", "testC", ["testBC"]),
    ],
)
def test_open_refer_when_a_split_is_asked_for_then_the_rule_of_the_release(release, dataset, split_by, split, taken):
    names = ["train", "val", "test", "testA", "testB", "testAB", "testBC", "", "Train"]
    refs = [ref(i, 25, 100, name, name or "none") for i, name in enumerate(names)]
    root = release(refs, dataset=dataset, split_by=split_by)
    data = open_refer(root, dataset, split_by, split, need_images=False)

    assert [s.split for s in data] == taken


@pytest.mark.parametrize(
    ("dataset", "split_by", "split"),
    [("refcoco", "unc", "test"), ("refcocog", "google", "test"), ("refcoco", "umd", "val"), ("coco", "unc", "val")],
)
def test_open_refer_when_there_is_no_such_split_then_those_there_are_are_told(tmp_path, dataset, split_by, split):
    with pytest.raises(ValueError, match=r"expected one of these splits \(refcoco unc: train, val, testA, testB; "):
        open_refer(tmp_path, dataset, split_by, split)


def test_open_refer_when_the_split_is_empty_then_those_of_the_file_are_told(release):
    root = release(REFS[3:])
    with pytest.raises(ValueError, match=r"got none \(the referents there are of the splits \['testA', 'testB', 'tr"):
        open_refer(root)


def test_open_refer_when_limited_then_whole_images_in_an_order_that_stays(release):
    refs = [ref(i, (25, 30, 40)[i % 3], (100, 300, 400)[i % 3], "val", "a", "b") for i in range(6)]
    root = release(refs)
    whole, part = open_refer(root), open_refer(root, limit=6)

    assert len(whole) == 12
    assert len(part) == 6
    assert [s.image_id for s in part] == [part[0].image_id] * 4 + [part[4].image_id] * 2
    assert [s.id for s in part] == [s.id for s in open_refer(root, limit=6)]
    assert [s.id for s in open_refer(root, limit=3)] == [s.id for s in part[:3]]
    assert part.referents == ((0, 1), (2, 3), (4, 5))
    assert {s.id for s in open_refer(root, limit=99)} == {s.id for s in whole}


@pytest.mark.parametrize(
    ("broken", "why", "lost"),
    [
        (ref(9, 25, 999, "val", "a", "b"), "expected annotation 999 of image 25 in instances.json, got none", 2),
        (ref(9, 25, 300, "val", "a"), "expected annotation 300 of image 25", 1),
        (ref(9, 99, 100, "val", "a"), "expected annotation 100 of image 99", 1),
        (ref(9, 25, 100, "val", " "), "sentence 0: expected words as 'sent', got ' '", 1),
        (ref(9, 25, 100, "val", "\ud800"), "expected words as 'sent'", 1),
        (ref(9, 25, 100, "val", sentences=[{"sent_id": 3}]), "expected words as 'sent', got None", 1),
        (ref(9, 25, 100, "val", sentences=[{"sent": "a"}]), "expected an id as 'sent_id', got None", 1),
        (ref(9, 25, 100, "val", sentences=[["a"], 4]), "sentence 0: expected a dict, got ['a']", 2),
        (ref(9, 25, 100, "val", sentences="dog"), "expected a list of sentences, got 'dog'", 1),
        (ref(9, 25, None, "val", "a", "b"), "expected an id as 'ann_id', got None", 2),
        (ref(9, 25, 100, None, "a", "b"), "expected a split, got None", 2),
        ({}, "expected a split, got None", 1),
        (ref(9, 25, 100, "val", "a", ref_id=[9]), "expected an id as 'ref_id', got [9]", 1),
    ],
)
def test_open_refer_when_a_referent_is_bad_then_it_is_told_and_the_rest_is_read(release, broken, why, lost):
    data = open_refer(release([broken, *REFS]))

    assert len(data) == 4
    assert data.left_out == lost
    assert data.problems[0].startswith("referent 0")
    assert why in data.problems[0]
    assert sum("; its expressions left out: 2" in problem for problem in data.problems) in (0, 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bbox": [5, 10, 0, 30]}, "expected a bbox with an area inside the image of 100 x 50 pixels"),
        ({"bbox": [100, 10, 5, 5]}, "expected a bbox with an area inside"),
        ({"bbox": [5, 10, float("nan"), 30]}, "four finite numbers"),
        ({"bbox": [5, 10, 1e400, 30]}, "four finite numbers"),
        ({"bbox": "5 10 5 5"}, "four finite numbers"),
        ({"category_id": 77}, "expected the id of a category, got 77"),
        ({"category_id": None}, "expected an id as 'category_id'"),
    ],
)
def test_open_refer_when_an_annotation_is_bad_then_its_sentences_tell_why(release, changes, why):
    content = document([ANNOTATIONS[0] | changes, *ANNOTATIONS[1:]])
    data = open_refer(release(REFS, content))

    assert [s.phrase for s in data] == ["big cat", "right dog"]
    assert data.left_out == len(data.problems) == 2
    assert data.problems[0].startswith("referent 0 (ref_id 1), sentence 0: annotations[0]: expected ")
    assert why in data.problems[1]


def test_open_refer_when_another_thing_or_a_mask_is_bad_then_told_and_nothing_left_out(release):
    bad = [
        annotation(500, 25, [5, 5, -1, 5]),
        annotation(300, 30, [1, 1, 50, 40], category_id=2, segmentation=[[1, 2, 3]]),
        annotation(100, 25, [5, 10, 20, 31]),
        annotation(None, 25, [5, 10, 20, 31]),
        {"image_id": 25, "id": 7, "category_id": 1},
        3,
        annotation(600, 77, [1, 1, 2, 2], bbox="of an image that is not needed"),
    ]
    data = open_refer(release(REFS, document(ANNOTATIONS[:3] + bad)))

    assert len(data) == 4
    assert data.left_out == 0
    assert data[3].mask is None
    assert [p.split(":")[0] for p in sorted(data.problems)] == [
        "annotations[3]",
        "annotations[4], read without its mask",
        "annotations[5]",
        "annotations[6]",
        "annotations[7]",
        "annotations[8]",
    ]


def test_open_refer_when_masks_are_run_lengths_in_a_list_then_their_union(release):
    left, right = np.zeros((50, 100), bool), np.zeros((50, 100), bool)
    left[:, :10] = True
    right[:, 5:20] = True
    rles = [encode_rle(left), encode_rle(right)]
    things = [
        annotation("25_1", 25, [0, 0, 20, 50], segmentation=rles),
        annotation("25_2", 25, [0, 0, 20, 50], segmentation=rles[:1]),
        annotation("25_3", 25, [0, 0, 20, 50], segmentation=[rles[0], [1, 2, 3, 4, 5, 6]]),
        annotation("25_4", 25, [0, 0, 20, 50], segmentation=[]),
    ]
    refs = [ref(i, 25, f"25_{i}", "val", "sky") for i in (1, 2, 3, 4)]
    root = release(refs, document(things), dataset="refclef", split_by="berkeley", images="images/saiapr_tc-12")
    data = open_refer(root, "refclef", "berkeley")

    assert read_mask(data[0].mask, (50, 100)).sum() == 20 * 50
    assert data[1].mask == rles[0]
    assert data[2].mask is None
    assert data[3].mask is None
    assert len(data.problems) == 1


@pytest.mark.parametrize("where", [IMAGES, "images/train2014", "train2014", "coco/train2014", "images", "."])
def test_open_refer_when_images_lie_in_a_usual_place_then_found(release, where):
    data = open_refer(release(images=where))
    assert all(s.image.is_file() for s in data)


def test_open_refer_when_images_have_the_names_of_2017_then_found(release):
    root = release(images=None)
    (root / "images" / "train2017").mkdir(parents=True)
    Image.new("RGB", (100, 50)).save(root / "images" / "train2017" / "000000000030.jpg")

    assert open_refer(root)[3].image.is_file()


def test_open_refer_when_saiapr_lies_in_its_own_folders_then_found(release):
    root = release(dataset="refclef", split_by="berkeley", images=None)
    folder = root / "images" / "saiapr_tc-12" / "00" / "images"  # the thousands of the id
    folder.mkdir(parents=True)
    Image.new("RGB", (100, 50)).save(folder / "30.jpg")

    assert open_refer(root, "refclef", "berkeley")[3].image == folder / "30.jpg"


def test_open_refer_when_file_names_lead_elsewhere_then_the_id_names_the_image(release):
    images = [{"id": i, "file_name": name, "height": 50, "width": 100} for i, name in ((25, "../../x.jpg"), (30, None))]
    data = open_refer(release(REFS, document(images=images)))

    assert [s.image.name for s in data[2:]] == ["COCO_train2014_000000000025.jpg", "COCO_train2014_000000000030.jpg"]
    assert all(s.image.is_file() for s in data)


def test_open_refer_when_no_image_is_there_then_the_places_tried_are_told(release):
    root = release(images=None)
    with pytest.raises(FileNotFoundError) as caught:
        open_refer(root)
    message = str(caught.value)
    assert f"such as 'COCO_train2014_000000000025.jpg', in {str(root / IMAGES)!r}" in message
    assert f"usual places below {str(root)!r}, such as images/mscoco/train2014, images/train2014, " in message
    assert message.endswith("put or link the folder of images there")
    assert open_refer(root, need_images=False)[0].image == root / IMAGES / "COCO_train2014_000000000025.jpg"


def test_open_refer_when_the_root_is_the_folder_itself_then_opened(release):
    root = release()
    assert len(open_refer(root / "refcoco")) == 4
    with pytest.raises(FileNotFoundError):  # both have a refs(unc).p: never the one for the other
        open_refer(root / "refcoco", "refcoco+")


@pytest.mark.parametrize("name", ["refs(unc).p", "instances.json"])
def test_open_refer_when_a_file_is_missing_then_told_where_to_put_it(release, name):
    root = release()
    (root / "refcoco" / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        open_refer(root)
    assert f"got no {name!r} there; put the files of the release there" in str(caught.value)
    assert repr(str(root / "refcoco")) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "got something else"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "with a list 'images'"),
        (document(categories=None), "with a list 'categories'"),
        ({"image": [], "annotations": [], "categories": []}, "with a list 'images'"),
        (document([]), "expected expressions of the split 'val'"),
        (document(images=[]), "expected the id of an image in 'images', got 25"),
        (document(images=[3, {"id": 25, "height": 0, "width": 4}, {"id": 30}]), "expected expressions of the split"),
        (document(categories=[{"id": 1}, {"name": "dog"}]), "expected expressions of the split 'val'"),
    ],
)
def test_open_refer_when_instances_are_wrong_then_one_sentence(release, content, why):
    with pytest.raises(ValueError, match="expected ") as caught:
        open_refer(release(REFS, content))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_open_refer_when_the_pickle_is_malicious_then_refused_by_name(release):
    with pytest.raises(ValueError, match=r"asks for 'os\.system'.*which was not done"):
        open_refer(release(b"cos\nsystem\n(S'touch owned'\ntR."))


def test_open_refer_when_one_list_stands_for_many_then_refused(release, monkeypatch):
    monkeypatch.setattr("deixis.data.formats.refer.MAX_SENTENCES", 100)
    shared = ref(1, 25, 100, "val", *["dog"] * 20)
    with pytest.raises(ValueError, match="expected at most 100 expressions"):
        open_refer(release([shared] * 6))
    assert len(open_refer(release([shared] * 5))) == 100


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=8), st.integers(0, 10_000), st.sampled_from(["refs(unc).p", "instances.json"]), st.booleans())
def test_open_refer_when_a_file_is_damaged_then_samples_or_one_sentence(tmp_path_factory, patch, place, name, cut):
    root = tmp_path_factory.getbasetemp() / "damaged"
    folder = root / "refcoco"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    (folder / "instances.json").write_text(json.dumps(document()))
    data = bytearray((folder / name).read_bytes())
    place %= len(data)
    data[place : None if cut else place + len(patch)] = patch
    (folder / name).write_bytes(bytes(data))
    try:
        samples = open_refer(root, need_images=False)
    except ValueError as error:
        assert str(error).startswith("expected ")  # noqa: PT017
    else:
        assert len(list(samples)) == len(samples)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("val"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(sorted(REFS[0])), VALUES), max_size=2),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(ANNOTATIONS[0])), VALUES), max_size=2),
)
def test_open_refer_when_fields_are_changed_then_none_is_lost_silently(tmp_path_factory, in_refs, in_annotations):
    refs, things = [dict(one) for one in REFS[:3]], [dict(one) for one in ANNOTATIONS]
    for target, changes in ((refs, in_refs), (things, in_annotations)):
        for place, key, value in changes:
            target[place][key] = value
    folder = tmp_path_factory.getbasetemp() / "changed" / "refcoco"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
        (folder / "instances.json").write_text(json.dumps(document(things)))
        data = open_refer(folder.parent, need_images=False)
    except ValueError as error:
        assert str(error).startswith("expected ")  # noqa: PT017
        return
    named = [one for one in refs if one["split"] == "val" or not isinstance(one["split"], str)]
    expected = sum(len(one["sentences"]) if isinstance(one["sentences"], list) else 1 for one in named)
    assert len(list(data)) + data.left_out == expected
    assert bool(data.problems) >= bool(data.left_out)


@pytest.mark.parametrize("name", list(REFER))
def test_open_dataset_when_a_public_release_then_read_from_its_root(release, name):
    dataset, split_by = REFER[name]
    root = release(dataset=dataset, split_by=split_by, images="images")

    assert default_split(name) == "val"
    assert [s.phrase for s in open_dataset(name, root=root)] == ["left dog", "dog on left", "right dog", "big cat"]
    assert len(open_dataset(name, "train", root=root, limit=1)) == 1
    with pytest.raises(ValueError, match="name it with root or --root"):
        open_dataset(name)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # from pycocotools
@pytest.mark.skipif(not REAL, reason="DEIXIS_REFCOCO_REAL names no folder with the release's own files")
def test_open_refer_when_the_files_are_the_releases_own_then_read_whole():
    mask_api = pytest.importorskip("pycocotools.mask")
    root = Path(REAL or "")
    read = 0
    annotations = {a["id"]: a for a in json.loads((root / "refcoco" / "instances.json").read_text())["annotations"]}
    refs = {str(one["sent_id"]): r for r in load_refs(root / "refcoco" / "refs(unc).p") for one in r["sentences"]}
    for split in SPLITS["refcoco", "unc"]:
        data = open_refer(root, split=split)
        assert data.problems == ()
        for indices in data.referents:
            truth = annotations[refs[data[indices[0]].id]["ann_id"]]
            x, y, w, h = truth["bbox"]
            for index in indices:
                sample = data[index]
                read += 1
                assert sample.box_xyxy_px == pytest.approx((x, y, x + w, y + h), abs=0.5)
                hw = np.asarray(Image.open(sample.image)).shape[:2]
                drawn = mask_api.decode(mask_api.merge(mask_api.frPyObjects(truth["segmentation"], *hw))).astype(bool)
                mask = read_mask(sample.mask, hw)
                assert (mask & drawn).sum() / (mask | drawn).sum() > 0.95
    assert read == sum(len(r["sentences"]) for r in refs.values())
