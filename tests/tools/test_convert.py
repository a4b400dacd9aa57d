"""The contract of all forms: the same records give the same samples, and what a form cannot hold is listed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import open_dataset
from deixis.data.formats.jsonl import read_jsonl
from deixis.geometry.masks import encode_rle, read_mask
from deixis.structures import Instance, Sample
from deixis.tools.convert import FORMS, convert, to_xywh

HW = (50, 100)
POLYGON = [[5.25, 10.5, 25.0, 10.5, 25.0, 40.75, 5.25, 40.75]]
OUT = {"jsonl": "a_val.jsonl", "mdetr": "a_val.json", "transvg": "unc_val.pth", "transvg-xyxy": "a_xyxy_val.pth",
       "seqtr": "instances.json", "mcn": "val.txt", "refer": "refcoco"}  # fmt: skip


def right_half():
    mask = np.zeros(HW, bool)
    mask[:, 50:] = True
    return encode_rle(mask)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (25, 30, 40):
        Image.new("RGB", (HW[1], HW[0]), (number, 0, 0)).save(folder / f"COCO_train2014_{number:012d}.jpg")
    return folder


@pytest.fixture
def records(images):
    """Six phrases of four things in three images: two of one thing, polygons, run lengths, and one without a mask."""
    rows = [
        (25, "left dog", (5.25, 10.5, 25.0, 40.75), POLYGON, "dog"),
        (25, "the dog on the left", (5.25, 10.5, 25.0, 40.75), POLYGON, "dog"),
        (25, "right dog", (50.0, 0.0, 100.0, 50.0), right_half(), "dog"),
        (30, "café's big cat", (0.1, 0.2, 0.30000000000000004, 49.9), None, "cat"),
        (40, 'a "red" cup, far', (1.0, 1.0, 51.0, 41.0), [[1.0, 1.0, 51.0, 1.0, 51.0, 41.0], POLYGON[0]], "cup"),
        (40, "cup", (1.0, 1.0, 51.0, 41.0), [[1.0, 1.0, 51.0, 1.0, 51.0, 41.0], POLYGON[0]], "cup"),
    ]
    return [
        Sample(
            id=str(100 + n), image=images / f"COCO_train2014_{image:012d}.jpg", image_id=str(image), phrase=phrase,
            box_xyxy_px=box, mask=mask, split="val", category=category,
        )
        for n, (image, phrase, box, mask, category) in enumerate(rows)
    ]  # fmt: skip


def read_back(path, form, images):
    if form == "refer":
        return open_dataset("refcoco", "val", root=path.parent)
    return open_dataset(path, "val", root=None if form == "jsonl" else images)


@pytest.mark.parametrize("form", FORMS)
def test_convert_when_read_back_then_the_same_samples_but_for_what_was_told(tmp_path, records, images, form):
    done = convert(records, tmp_path / OUT[form], form, images=images)
    assert (done.written, done.left_out, done.problems) == (6, 0, [])
    gone = {what.split(",")[0] for what in done.lost}
    fields = dict.fromkeys(gone & {"mask", "category"})
    expected = [replace(one, **fields) for one in records]

    found = list(read_back(tmp_path / OUT[form], form, images))
    if form == "mcn":
        check_mcn(found, records)
        return
    # the release lists the things of an image beside the referent, as it always does
    assert [replace(one, instances=()) for one in found] == expected


def check_mcn(found, records):
    assert [one.phrase for one in found] == [one.phrase for one in records]
    assert [one.image for one in found] == [one.image for one in records]
    assert [one.split for one in found] == ["val"] * 6
    assert found[0].box_xyxy_px == (5, 10, 24, 40)  # x, y, width, height are each cut: 5, 10, 19 of 19.75, 30 of 30.25
    assert found[3].box_xyxy_px == (0, 0, 1, 49)
    for one, record in zip(found, records, strict=True):
        assert (one.mask is None) == (record.mask is None)
        if one.mask is not None:
            assert (read_mask(one.mask, HW) == read_mask(record.mask, HW)).all()


LOST = {
    "jsonl": {},
    "mdetr": {},
    "transvg": {"mask": 5, "category": 6},
    "transvg-xyxy": {"mask": 5, "category": 6},
    "seqtr": {},
    "mcn": {"id": 6, "box, cut to whole pixels": 3, "mask, drawn as pixels": 5, "category": 6},
    "refer": {},
}


@pytest.mark.parametrize("form", FORMS)
def test_convert_when_a_form_holds_less_then_what_was_lost_is_counted(tmp_path, records, images, form):
    done = convert(records, tmp_path / OUT[form], form, images=images)
    assert dict(done.lost) == LOST[form]
    assert ("nothing was lost" in str(done)) == (not LOST[form])
    for what, count in LOST[form].items():
        assert f"lost: {what} ({count} samples)" in str(done)


@pytest.mark.parametrize("form", ["transvg", "seqtr", "mcn", "refer"])
def test_convert_when_a_phrase_means_nothing_then_left_out_and_told_unless_the_form_can_say_it(
    tmp_path, records, images, form
):
    nothing = replace(records[0], box_xyxy_px=None, mask=None, phrase="zebra")
    done = convert([*records, nothing], tmp_path / OUT[form], form, images=images)
    assert (done.written, done.left_out) == (6, 1)
    assert done.problems == [f"sample 6: expected a box, got none: {form} cannot say that a phrase means nothing"]


@pytest.mark.parametrize("form", ["jsonl", "mdetr"])
def test_convert_when_a_phrase_means_nothing_and_the_form_can_say_it_then_kept(tmp_path, records, images, form):
    nothing = replace(records[0], box_xyxy_px=None, mask=None, phrase="zebra", id="none", kind="none")
    convert([*records, nothing], tmp_path / OUT[form], form, images=images)
    assert read_back(tmp_path / OUT[form], form, images)[6] == nothing


def test_convert_when_the_release_is_written_then_the_other_things_of_an_image_stay(tmp_path, records, images):
    other = Instance(category="cat", box_xyxy_px=(60.0, 1.0, 70.0, 9.0), mask=POLYGON, is_crowd=True)
    meant = [Instance(category="dog", box_xyxy_px=r.box_xyxy_px, mask=r.mask) for r in (records[0], records[2])]
    with_things = [replace(record, instances=(meant[0], other, meant[1])) for record in records[:3]]
    convert(with_things, tmp_path / "refcoco", "refer", images=images)
    assert list(read_back(tmp_path / "refcoco", "refer", images)) == with_things


@pytest.mark.parametrize(("masks", "kind"), [("rle", dict), ("polygons", list)])
def test_convert_when_masks_are_to_be_of_one_kind_then_the_same_pixels(tmp_path, records, images, masks, kind):
    convert(records, tmp_path / "a_val.json", "mdetr", images=images, masks=masks)
    there_and_back = read_back(tmp_path / "a_val.json", "mdetr", images)
    convert(there_and_back, tmp_path / "b.jsonl", "jsonl", masks={"rle": "polygons", "polygons": "rle"}[masks])
    for record, one, other in zip(records, there_and_back, open_dataset(tmp_path / "b.jsonl"), strict=True):
        if record.mask is None:
            assert one.mask is other.mask is None
            continue
        assert isinstance(one.mask, kind)
        assert not isinstance(other.mask, kind)
        for mask in (one.mask, other.mask):
            assert (read_mask(mask, HW) == read_mask(record.mask, HW)).all()


def test_convert_when_masks_are_files_then_written_as_run_lengths(tmp_path, records, images):
    Image.fromarray(np.uint8(255) * read_mask(right_half(), HW)).save(tmp_path / "mask.png")
    convert([replace(records[2], mask=tmp_path / "mask.png")], tmp_path / "i.json", "seqtr", images=images)
    assert open_dataset(tmp_path / "i.json", root=images)[0].mask == right_half()


def test_convert_when_samples_are_pixels_then_saved_or_told(tmp_path, records):
    drawn = [replace(records[n], image=np.full((*HW, 3), n, np.uint8), image_id=f"a/{n}") for n in (0, 1)]
    with pytest.raises(ValueError, match=r"got none \(sample 0: .*got pixels; name a folder for pictures\)"):
        convert(drawn, tmp_path / "a.jsonl", "jsonl")
    assert not (tmp_path / "a.jsonl").exists()
    convert(drawn, tmp_path / "a.jsonl", "jsonl", pictures=tmp_path / "pictures")
    found = open_dataset(tmp_path / "a.jsonl")
    assert [np.asarray(Image.open(one.image)).max() for one in found] == [0, 1]
    assert [one.image.name for one in found] == ["a_0.png", "a_1.png"]


def test_convert_when_a_name_does_not_tell_then_refused(tmp_path, records, images):
    with pytest.raises(ValueError, match="expected a form out of"):
        convert(records, tmp_path / "a", "voc")
    with pytest.raises(ValueError, match="expected a name with 'xyxy'"):
        convert(records, tmp_path / "unc_val.pth", "transvg-xyxy", images=images)
    with pytest.raises(ValueError, match="expected an image below"):
        convert(records, tmp_path / "unc_val.pth", "transvg", images=tmp_path / "elsewhere")
    assert list(tmp_path.glob("*.pth")) == []


def test_convert_when_writing_fails_then_the_old_file_stays(tmp_path, records, images, monkeypatch):
    old = tmp_path / "instances.json"
    old.write_text("old")
    monkeypatch.setattr("deixis.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        convert(records, old, "seqtr", images=images)
    assert old.read_text() == "old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["images", "instances.json"]


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.floats(0, 1e4, allow_subnormal=False)] * 4))
def test_to_xywh_when_corners_were_sums_then_they_are_again_to_the_last_bit(numbers):
    x1, y1, width, height = numbers
    x, y, w, h = to_xywh((x1, y1, x1 + width, y1 + height))
    assert (x, y, x + w, y + h) == (x1, y1, x1 + width, y1 + height)


def test_write_jsonl_of_a_conversion_when_read_then_as_any_other(tmp_path, records, images):
    convert(records, tmp_path / "a.jsonl", "jsonl")
    samples, problems = read_jsonl(tmp_path / "a.jsonl")
    assert (samples, problems) == (records, [])
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])["image"].startswith("images/")


_KEPT = {  # what each form holds of a sample whose box is not in whole pixels
    "jsonl": {"id", "box", "mask", "category", "kind"}, "mdetr": {"id", "box", "mask", "category", "kind"},
    "seqtr": {"id", "box", "mask", "category", "kind"}, "refer": {"id", "box", "mask", "category"},
    "transvg": {"box"}, "transvg-xyxy": {"box"}, "mcn": {"mask"},
}  # fmt: skip


def random_records(images, seed):
    """Things with boxes in parts of pixels, polygons, run lengths or no mask, and one or two phrases each."""
    rng = np.random.default_rng(seed)
    for number in range(5):
        x, y, w, h = (float(v) for v in rng.uniform((0, 0, 2, 2), (60, 30, 40, 20)))
        drawn = np.zeros(HW, bool)
        drawn[int(y) : int(y + h), int(x) : int(x + w)] = True
        image = (25, 30, 40)[number % 3]
        for phrase in ('dög, "big"', "it's a cat")[: 1 + number % 2]:
            yield Sample(
                id=f"{number}{len(phrase)}",
                image=images / f"COCO_train2014_{image:012d}.jpg",
                image_id=str(image),
                phrase=f"{phrase} {number}",
                box_xyxy_px=(x, y, x + w, y + h),
                mask=(None, [[x, y, x + w, y, x + w, y + h, x, y + h]], encode_rle(drawn))[int(rng.integers(3))],
                split="val",
                category=("dog", "cat")[number % 2],
                kind="place",
            )


def check_kept(found, records, fields):
    """The same phrases of the same images, with these fields as they were."""
    by_phrase = {(one.image.name, one.phrase): one for one in found}
    assert len(found) == len(by_phrase) == len(records)
    for record in records:
        one = by_phrase[record.image.name, record.phrase]
        assert one.split == "val"
        if "mask" in fields:
            drawn, expected = (
                None if mask is None else read_mask(mask, HW).tobytes() for mask in (one.mask, record.mask)
            )
            assert drawn == expected
        if "box" in fields:
            assert one.box_xyxy_px == pytest.approx(record.box_xyxy_px, rel=0, abs=1e-13)
        for name in fields - {"mask", "box"}:
            assert getattr(one, name) == getattr(record, name)


@pytest.mark.parametrize("first", FORMS)
def test_convert_when_from_each_form_to_each_then_all_that_both_hold_is_as_it_was(first, tmp_path, images):
    records = list(random_records(images, seed=len(first)))
    folders = {name: tmp_path / f"as-{name}" for name in ("first", *FORMS)}
    for folder in folders.values():
        folder.mkdir()
        (folder / "images").symlink_to(images)
    convert(records, folders["first"] / OUT[first], first, images=images)
    middle = read_back(folders["first"] / OUT[first], first, folders["first"] / "images")
    check_kept(middle, records, _KEPT[first])
    for second in FORMS:
        out = folders[second] / OUT[second]
        done = convert(middle, out, second)
        assert (done.written, done.left_out) == (len(records), 0)
        check_kept(read_back(out, second, done.images or images), records, _KEPT[first] & _KEPT[second])
