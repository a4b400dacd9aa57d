import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import Samples
from deixis.structures import Sample
from deixis.tools.check import (
    MESSAGES,
    SAMPLED_IMAGES,
    SplitCheck,
    check_dataset,
    check_split,
    compare_counts,
    phrase_damage,
)
from deixis.tools.published_counts import ALL, PUBLISHED, Count, published_counts, published_name


@pytest.fixture
def lines(tmp_path):
    """Write JSON lines beside a picture a.png of 100 x 50 pixels."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)).save(tmp_path / "a.png")

    def write(*changes):
        row = {"image": "a.png", "phrase": "left dog", "box": [10, 10, 40, 40]}
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row | change) + "\n" for change in changes), encoding="utf-8")
        return path

    return write


def kinds(path, **options):
    (check,) = check_dataset(str(path), **options)
    return {one.kind: one.count for one in check.findings}


def square(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def test_check_dataset_when_nothing_is_wrong_then_nothing_is_found(lines):
    path = lines({"mask": square(10, 10, 40, 40)}, {"phrase": "the café sign", "box": None}, {"box": [0, 0, 100, 50]})
    (check,) = check_dataset(path)
    assert check.findings == []
    assert (check.samples, check.left_out, check.images, check.images_decoded) == (3, 0, 1, 1)
    assert (check.boxes_checked, check.masks_checked) == (2, 1)
    assert (check.count("error"), check.count("warning")) == (0, 0)


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        ({"image": "gone.png"}, "missing images", "error"),
        ({"image": "broken.png"}, "unreadable images", "error"),
        ({"phrase": "  "}, "left out", "error"),
        ({"box": [10, 10, 10, 40]}, "left out", "error"),
        ({"box": [100, 10, 120, 40]}, "box outside", "error"),
        ({"box": [10, 10, 102, 40]}, "box over the border", "warning"),
        ({"box": [10, 10, 10.5, 11]}, "tiny box", "warning"),
        ({"mask": square(60, 10, 90, 40)}, "mask elsewhere", "error"),
        ({"mask": square(10, 10, 30, 40)}, "mask loose", "warning"),  # IoU 2/3
        ({"mask": {"size": [10, 10], "counts": [0, 100]}}, "mask unusable", "error"),
        ({"mask": square(10.6, 10, 10.9, 40)}, "mask unusable", "error"),  # no pixel's centre
        ({"phrase": "left \ufffd dog"}, "damaged characters", "error"),
        ({"phrase": "left\x07 dog"}, "damaged characters", "error"),
        ({"phrase": "cafÃ© sign"}, "wrong encoding", "error"),
        ({"phrase": "the manâ€™s hat"}, "wrong encoding", "error"),
        ({"phrase": "???"}, "no words", "warning"),
        ({"phrase": "dog\n"}, "line breaks", "warning"),
        ({"phrase": "salt &amp; pepper"}, "HTML", "warning"),
        ({"phrase": "cup"}, "duplicates", "warning"),
    ],
)
def test_check_dataset_when_one_line_is_wrong_then_that_is_found_and_nothing_else(
    lines, tmp_path, change, kind, severity
):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    path = lines({"phrase": "cup"}, change)
    assert kinds(path) == {kind: 1}
    assert MESSAGES[kind][0] == severity
    (check,) = check_dataset(path)
    assert check.samples + check.left_out == 2
    assert (check.count("error"), check.count("warning")) == ((1, 0) if severity == "error" else (0, 1))


def test_check_dataset_when_a_box_reaches_one_pixel_over_then_it_is_right(lines):
    assert kinds(lines({"box": [0, 0, 101, 51]})) == {}


def test_check_dataset_when_no_images_are_wanted_then_none_is_decoded(lines, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    path = lines({"image": "broken.png", "phrase": "???"}, {"image": "gone.png"})
    assert kinds(path, images="none") == {"missing images": 1, "no words": 1}


def test_check_split_when_sampled_then_the_same_images_at_every_call(monkeypatch):
    seen = []
    monkeypatch.setattr("deixis.tools.check._check_image", lambda samples, group, check: seen.append(tuple(group)))
    image = np.zeros((8, 8, 3), np.uint8)
    samples = [
        Sample(id=str(i), image=image, image_id=str(i // 2), phrase=f"dog {i}", box_xyxy_px=None) for i in range(1000)
    ]
    check_split(samples, "x", None)
    assert len(seen) == SAMPLED_IMAGES
    assert all(b == a + 1 and a % 2 == 0 for a, b in seen)
    again, seen[:] = list(seen), []
    check_split(samples, "x", None)
    assert seen == again
    seen.clear()
    check_split(samples, "x", None, images="all")
    assert len(seen) == 500


def test_check_split_when_images_is_unknown_then_refused():
    with pytest.raises(ValueError, match="expected images out of sample, all, none, got 'some'"):
        check_split([], "x", None, images="some")


def test_check_split_when_a_sample_cannot_be_read_then_counted():
    class Bad(Samples):
        def _sample(self, row):
            raise ValueError("broken")

    check = check_split(Bad([1, 2]), "x", None)
    assert (check.samples, check.left_out, check.count("error")) == (0, 2, 2)


def test_check_dataset_when_a_release_then_all_splits_and_their_counts(tmp_path, monkeypatch):
    def opened(name, split, root):
        if split == "testB":
            raise ValueError("no testB here")
        image = np.zeros((20, 20, 3), np.uint8)
        return [Sample(id=f"{i}", image=image, image_id=f"{i}", phrase=f"dog {i}", box_xyxy_px=None) for i in range(4)]

    small = {"train": {"expressions": (Count(4, "A"),)}, "val": {"expressions": (Count(5, "A"), Count(4, "B"))},
             "testA": {"expressions": (Count(5, "A"),), "images": (Count(3, "C", firm=False),)},
             "all": {"expressions": (Count(20, "A"),)}}  # fmt: skip
    monkeypatch.setitem(PUBLISHED, "refcoco", small)
    monkeypatch.setattr("deixis.tools.check.open_dataset", opened)
    train, val, test_a, test_b = check_dataset("refcoco", root=tmp_path)
    assert train.notes == ["4 expressions, as published (A)"]
    assert val.notes == ["4 expressions, as published (B)"]
    assert {one.kind: one.examples for one in test_a.findings} == {
        "counts": ["4 expressions; published: 5 (A)"],
        "uncertain counts": ["4 images; published: 3 (C)"],
    }
    assert {one.kind: one.examples for one in test_b.findings} == {
        "unopened": ["no testB here"],
        "counts": ["all splits together: 12 expressions; published: 20 (A)"],
    }
    assert [one.split for one in check_dataset("refcoco", "val", tmp_path)] == ["val"]
    assert check_dataset("refcoco", "testA", tmp_path, published="none")[0].findings == []
    with pytest.raises(ValueError, match="no testB here"):
        check_dataset("refcoco", "testB", tmp_path)


def test_check_dataset_when_compared_with_an_unknown_data_set_then_refused(lines):
    with pytest.raises(ValueError, match=r"expected a data set out of refcoco, .*, none, got 'cats'"):
        check_dataset(lines({}), published="cats")


def test_compare_counts_when_expressions_were_left_out_then_they_count():
    check = SplitCheck("refcoco", "val", samples=10_830, left_out=4)
    compare_counts(check, published_counts("refcoco", "val"))
    assert check.notes == ["10,834 expressions, as published (MCN paper, section 4.1)"]
    assert [one.kind for one in check.findings] == ["counts"]  # no images


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_when_splits_share_no_sample_then_their_sum_is_one_of_the_whole_counts(name):
    for kind in ("expressions", "referents"):
        whole = PUBLISHED[name].get("all", {}).get(kind, ())
        splits = [published_counts(name, split).get(kind, ()) for split in PUBLISHED[name] if split != ALL]
        if whole and splits and all(splits):
            assert sum(counts[0].value for counts in splits) == whole[0].value


@pytest.mark.parametrize(
    ("dataset", "split", "expected"),
    [
        ("refcocog-umd", "val", ("refcocog-umd", "val")),
        ("data/refcoco+", "testA", ("refcoco+", "testA")),
        ("data/refcocog", "val", ("", None)),  # umd or google
        ("unc+_testB.pth", None, ("refcoco+", "testB")),
        ("x/gref_train.pth", None, ("refcocog-google", "train")),
        ("mine_train.pth", None, ("", None)),
        ("refcoco.jsonl", None, ("", None)),
    ],
)
def test_published_name_when_a_name_tells_it_then_known(dataset, split, expected):
    assert published_name(dataset, split) == expected


FOREIGN = ["naïve café", "Ã", "Åland", "50 °C", "señor", "日本語の犬", "left – right", "dog 🐶", "auf dem Fuß”", "ç––"]


@pytest.mark.parametrize("phrase", FOREIGN)
def test_phrase_damage_when_letters_are_foreign_then_none(phrase):
    assert phrase_damage(phrase) == []


@settings(max_examples=60, deadline=None)
@given(st.text("éàüñçßø’“–€", min_size=1, max_size=4), st.sampled_from(["cp1252", "latin-1"]))
def test_phrase_damage_when_utf8_is_read_as_another_encoding_then_told(word, encoding):
    try:
        damaged = word.encode("utf-8").decode(encoding)
    except UnicodeError:
        return
    assert "wrong encoding" in phrase_damage(f"a {damaged} dog")


@settings(max_examples=40, deadline=None)
@given(st.text("éàüñçßøÅæabc ", min_size=1, max_size=8))
def test_phrase_damage_when_accented_letters_are_whole_then_none(word):
    assert phrase_damage(f"a {word} dog") == []
