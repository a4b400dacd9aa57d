"""Damaged files of every form: samples or one clear sentence, and never a record lost without a word.

Two kinds of damage. Bytes: cut, overwritten, in another encoding; in any file of a release. Values: one field of one
record renamed, dropped or replaced by what does not belong there, where the number of expressions stays what it was.
"""

import contextlib
import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import open_dataset
from deixis.data.formats.coco import CocoInstances
from deixis.geometry.masks import read_mask

NAME = "COCO_train2014_000000000025.jpg"
POLYGON = [[10, 20, 40, 20, 40, 45]]
IMAGE = {"id": 25, "file_name": NAME, "height": 50, "width": 100, "license": 1}
THINGS = [
    {"id": n, "image_id": 25, "category_id": 1, "bbox": [10, 20, 30, 25], "segmentation": POLYGON, "iscrowd": 0}
    for n in (1, 2)
]
INSTANCES = {"images": [IMAGE], "annotations": THINGS, "categories": [{"id": 1, "name": "dog"}]}
REFS = [
    {"ref_id": n, "ann_id": n, "image_id": 25, "split": "val", "category_id": 1, "file_name": NAME,
     "sentences": [{"sent_id": 2 * n + i, "sent": "left dog", "raw": "Left dog", "tokens": ["left", "dog"]}
                   for i in range(2)]}
    for n in (1, 2)
]  # fmt: skip
GREFS = [
    copy.deepcopy(ref) | {"ann_id": ids, "no_target": not ids} for ref, ids in zip(REFS, ([1, 2], []), strict=True)
]
TUPLES = [[NAME, f"{n}_0.pth", [10.5, 20.0, 30.25, 5.0], "left dog", [["r1", ["left"]]]] for n in range(3)]
SEQTR = [
    {"image_id": 25, "width": 100, "height": 50, "bbox": [10.5, 20, 30, 5], "mask": POLYGON, "category": "dog",
     "expressions": ["left dog", "dog"]},
    {"image_id": 36979, "bbox": [10.5, 20, 30, 5], "expressions": ["man", "he"], "data_source": "flickr"},
]  # fmt: skip
SIMREC = [
    {"iid": 25, "bbox": [10.5, 20, 30, 5], "cat_id": 0, "refs": ["left dog", "dog"], "mask_id": n} for n in (1, 2)
]
MDETR = {
    "images": [IMAGE | {"id": n, "original_id": 25, "caption": "left dog", "dataset_name": "refcoco"} for n in (1, 2)],
    "annotations": [thing | {"id": n, "image_id": n, "tokens_positive": [[5, 8]]} for n, thing in enumerate(THINGS, 1)],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
}
REGIONS = [{"id": n, "regions": [{"region_id": 10 * n + i, "image_id": n, "x": 5, "y": 6, "width": 30, "height": 20,
                                  "phrase": "green clock"} for i in range(2)]} for n in (1, 2)]  # fmt: skip
IMAGE_DATA = [{"image_id": n, "url": f"https://x/VG_100K/{n}.jpg", "width": 100, "height": 50, "coco_id": 25}
              for n in (1, 2)]  # fmt: skip
LINES = [{"image": NAME, "phrase": "left dog", "box": [10, 20, 40, 45], "mask": POLYGON, "id": str(n), "split": "val",
          "image_id": "25", "category": "dog", "kind": "x"} for n in range(3)]  # fmt: skip
SENTENCES = b"[/EN#1/people Two guys] with [/EN#2/bodyparts hair] .\n[/EN#1/people/other Two men] sit .\n"
XML = b"""<?xml version="1.0"?>
<annotation><filename>36979.jpg</filename><size><width>100</width><height>50</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object>
<object><name>2</name><bndbox><xmin>41</xmin><ymin>1</ymin><xmax>100</xmax><ymax>50</ymax></bndbox></object></annotation>
"""
MCN = f"{NAME} 10,20,40,25,16,7 ~ left dog ~ dog\n{NAME} 10,20,40,25,16,8 ~ cat\n".encode()


def as_json(value):
    return json.dumps(value).encode()


def as_lines(values):
    return b"".join(as_json(value) + b"\n" for value in values)


def as_pickle(value):
    return pickle.dumps(value, protocol=2)


def as_torch(rows):
    path = Path(as_torch.folder) / "rows.pth"
    torch.save([tuple(row) if isinstance(row, list) else row for row in rows], path)
    return path.read_bytes()


RELEASES = {
    "refer": ("refcoco", "val", 4, {
        "refcoco/refs(unc).p": (REFS, as_pickle), "refcoco/instances.json": (INSTANCES, as_json),
        "refcoco/images/" + NAME: (b"", None)}),
    "grefcoco": ("g", "val", 4, {"g/grefs(unc).json": (GREFS, as_json), "g/instances.json": (INSTANCES, as_json)}),
    "transvg": ("unc_val.pth", "val", 3, {"unc_val.pth": (TUPLES, as_torch)}),
    "seqtr": ("instances.json", "val", 4, {"instances.json": ({"train": [], "val": SEQTR}, as_json)}),
    "simrec": ("refcoco.json", "val", 4, {"refcoco.json": ({"val": SIMREC, "train": []}, as_json)}),
    "mdetr": ("a_val.json", "val", 2, {"a_val.json": (MDETR, as_json)}),
    "vg": ("v", "all", 4, {
        "v/region_descriptions.json": (REGIONS, as_json), "v/image_data.json": (IMAGE_DATA, as_json)}),
    "jsonl": ("a.jsonl", None, 3, {"a.jsonl": (LINES, as_lines)}),
    "flickr30k": ("f", "val", 3, {
        "f/Sentences/36979.txt": (SENTENCES, None), "f/Annotations/36979.xml": (XML, None),
        "f/val.txt": (b"36979\n", None)}),
    "mcn": ("val.txt", "val", 3, {"val.txt": (MCN, None)}),
    "coco": ("instances.json", "all", 2, {"instances.json": (INSTANCES, as_json)}),
}  # fmt: skip
"""What to open, the split, how many expressions it holds, and its files: their content and what writes it."""
OF_VALUES = [form for form, release in RELEASES.items() if form not in ("flickr30k", "mcn")]
LISTS = ("sentences", "expressions", "refs", "regions", "images", "annotations", "val", "train", "split", "categories")
"""Keys that say how many expressions there are, so that without them nobody knows."""
WRONG = [
    None, True, -1, 0, 10**400, 1e308, math.nan, math.inf, "", " ", "\ud800", "\0", "../../x", "/etc/passwd", "n" * 500,
    [], {}, [[]], [None] * 4, [math.nan] * 4, [1e300] * 4, [0, 0, 0, 0], [-9, -9, 1, 1], "[1, 2, 3, 4]", [10**30] * 4,
    {"size": [50, 100], "counts": "o"}, {"size": [10**9, 10**9], "counts": [1]}, [[1, 2, 3]], [[math.nan] * 6],
]  # fmt: skip


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def contents(form, folder):
    as_torch.folder = str(folder)
    return {name: value if how is None else how(value) for name, (value, how) in RELEASES[form][3].items()}


def read(form, folder):
    """The number of samples, after a look at each, and the number of those told to be left out; or None and why."""
    target, split, _, _ = RELEASES[form]
    try:
        if form == "coco":
            coco = CocoInstances.read(folder / target)
            told = sum(one.startswith("annotations[") and "without its mask" not in one for one in coco.problems)
            return sum(map(len, coco.annotations.values())), told
        data = open_dataset(folder / target, split)
    except (ValueError, FileNotFoundError) as error:
        assert "expected " in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 2000  # noqa: PT017
        return None, str(error)
    for sample in data:
        assert sample.phrase.strip()
        sample.phrase.encode()
        box = sample.box_xyxy_px
        assert box is None or (all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3])
        if sample.mask is not None:
            with contextlib.suppress(ValueError, FileNotFoundError):
                read_mask(sample.mask, (50, 100))
    assert all("\n" not in one for one in data.problems)
    return len(data), data.left_out


def paths_of(value, path=()):
    """The way to every value below a JSON value, but for those that say how many expressions there are."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        holds_several = isinstance(one, dict) and not one.keys().isdisjoint(LISTS)
        if key not in LISTS and not holds_several:
            yield (*path, key)
        yield from paths_of(one, (*path, key))


def changed(value, path, kind, wrong):
    """A copy with one value at the end of a path replaced, renamed or gone."""
    whole = copy.deepcopy(value)
    place = whole
    for key in path[:-1]:
        place = place[key]
    if kind == "replace" or isinstance(place, list):
        place[path[-1]] = wrong
    else:
        old = place.pop(path[-1])
        if kind == "rename":
            place[f"{path[-1]}s"] = old
    return whole


@pytest.mark.parametrize("form", RELEASES)
def test_open_dataset_when_a_release_is_whole_then_all_its_expressions_are_there(form, tmp_path):
    write(tmp_path, contents(form, tmp_path))
    assert read(form, tmp_path) == (RELEASES[form][2], 0)


@pytest.mark.parametrize("form", RELEASES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_open_dataset_when_bytes_are_damaged_then_samples_or_one_sentence(form, data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / f"bytes-{form}"
    folder.mkdir(exist_ok=True)
    files = contents(form, folder)
    name = data.draw(st.sampled_from(sorted(files)))
    old = bytearray(files[name])
    place = data.draw(st.integers(0, len(old)))
    kind = data.draw(st.sampled_from(["cut", "patch", "utf-16", "bom", "latin-1", "zeros", "twice"]))
    if kind == "patch":
        patch = data.draw(
            st.binary(min_size=1, max_size=6) | st.sampled_from([b"NaN", b"1e999", b"\xff", b"[[[[", b"9" * 30])
        )
        old[place : place + data.draw(st.integers(0, 8))] = patch
    else:
        old = {
            "cut": old[:place],
            "utf-16": old.decode("latin-1").encode("utf-16"),
            "bom": b"\xef\xbb\xbf" + old,
            "latin-1": old[:place] + b"caf\xe9" + old[place:],
            "zeros": old[:place] + bytes(len(old) - place),
            "twice": old + old,
        }[kind]
    write(folder, files | {name: bytes(old)})
    read(form, folder)


@pytest.mark.parametrize("form", OF_VALUES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_open_dataset_when_a_value_is_wrong_then_each_expression_is_read_or_told(form, data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / f"values-{form}"
    folder.mkdir(exist_ok=True)
    files, (_, _, count, parts) = contents(form, folder), RELEASES[form]
    name = data.draw(st.sampled_from(sorted(name for name, (_, how) in parts.items() if how is not None)))
    value, how = parts[name]
    path = data.draw(st.sampled_from(list(paths_of(value))))
    new = changed(
        value, path, data.draw(st.sampled_from(["replace", "rename", "drop"])), data.draw(st.sampled_from(WRONG))
    )
    write(folder, files | {name: how(new)})
    found, told = read(form, folder)
    if found is not None:
        assert found + told == count
