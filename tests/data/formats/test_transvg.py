import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import open_dataset
from deixis.data.formats.pickles import read_torch_pickle
from deixis.data.formats.transvg import read_transvg

NAME = "COCO_train2014_000000000025.jpg"
FIVE = (NAME, "a_0.pth", [10.5, 20.0, 30.25, 5.0], "left dog", [("r1", ["left"])])
BACKWARDS = ("COCO_train2014_000000000030.jpg", "b", [60.0, 20.0, 30.0, 5.0], "cat", [])


def save(path, rows, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(rows, path, **how)
    return path


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
def test_read_transvg_when_torch_wrote_it_old_or_new_then_a_sample_a_tuple(tmp_path, how):
    path = save(tmp_path / "unc" / "unc_val.pth", [FIVE, BACKWARDS], **how)
    first, second = read_transvg(path, tmp_path)
    assert (first.id, first.phrase, first.image_id, first.split) == ("a_0.pth", "left dog", "25", "val")
    assert first.box_xyxy_px == (10.5, 20, 40.75, 25)
    assert first.image == tmp_path / NAME
    assert second.box_xyxy_px == (60, 20, 90, 25)


@pytest.mark.parametrize(
    ("name", "row", "box"),
    [
        ("referit_test.pth", FIVE, (10.5, 20, 30.25, 5)),
        ("gref_umd_val.pth", FIVE, (10.5, 20, 40.75, 25)),
        ("unc+_testA.pth", FIVE, (10.5, 20, 40.75, 25)),
        ("mine_xywh.pth", FIVE, (10.5, 20, 40.75, 25)),
        ("flickr_train.pth", ("36979.jpg", [1, 2, 30, 40], "a man"), (1, 2, 30, 40)),
        ("mine.pth", ("36979.jpg", [1, 2, 30, 40], "a man"), (1, 2, 30, 40)),
    ],
)
def test_read_transvg_when_the_name_tells_the_boxes_then_as_it_tells(tmp_path, name, row, box):
    row = row if box[3] > box[1] else (*row[:2], [10.5, 2.0, 30.25, 5.0], *row[3:])
    box = box if box[3] > box[1] else (10.5, 2, 30.25, 5)
    assert read_transvg(save(tmp_path / name, [row]))[0].box_xyxy_px == box


def test_read_transvg_when_no_name_tells_then_the_boxes_do(tmp_path):
    sizes = save(tmp_path / "a.pth", [FIVE, BACKWARDS])
    assert read_transvg(sizes)[0].box_xyxy_px == (10.5, 20, 40.75, 25)
    Image.new("RGB", (100, 50)).save(tmp_path / NAME)
    corners = save(tmp_path / "b.pth", [(NAME, "a", [70.0, 20.0, 95.0, 45.0], "dog", [])])
    assert read_transvg(corners)[0].box_xyxy_px == (70, 20, 95, 45)  # as sizes it would end at 165 of 100


def test_read_transvg_when_boxes_are_arrays_then_read_with_weights_only(tmp_path):
    rows = [(NAME, "a", np.array([1.0, 2.0, 3.0, 4.0]), "dog", []), (NAME, "b", torch.tensor([1, 2, 3, 5]), "cat", [])]
    for name, how in (("unc_a.pth", {}), ("unc_b.pth", {"_use_new_zipfile_serialization": False})):
        data = read_transvg(save(tmp_path / name, rows, **how))
        assert [one.box_xyxy_px for one in data] == [(1, 2, 4, 6), (1, 2, 4, 7)]


class Evil:
    def __reduce__(self):
        return __import__("os").system, ("touch owned",)


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("bait", [[], [np.arange(3)]])
def test_read_torch_pickle_when_it_would_run_something_then_refused_by_name(tmp_path, monkeypatch, how, bait):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "unc_val.pth", [*bait, Evil()], **how)
    with pytest.raises(ValueError, match=r"asks for '(posix|nt|os)\.system'"):
        read_torch_pickle(path)
    assert not (tmp_path / "owned").exists()


def test_read_torch_pickle_when_it_asks_for_a_class_then_refused(tmp_path):
    with pytest.raises(ValueError, match=r"asks for 'collections\.OrderedDict'"):
        read_torch_pickle(save(tmp_path / "a.pth", OrderedDict(a=1)))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ((NAME, "a", [1, 2, 0, 4], "dog", []), "expected a box"),
        ((NAME, "a", [1, 2, float("nan"), 4], "dog", []), "four finite numbers"),
        ((NAME, "a", "1 2 3 4", "dog", []), "four finite numbers"),
        ((NAME, "a", [1, 2, 3, 4], " ", []), "expected a phrase with words"),
        ((NAME, "a", [1, 2, 3, 4], "\ud800", []), "expected a phrase with words"),
        (("../x.jpg", "a", [1, 2, 3, 4], "dog", []), "below the folder of images"),
        ((None, "a", [1, 2, 3, 4], "dog", []), "expected a file name"),
        ((NAME, [1, 2, 3, 4]), "expected (image, name, box, phrase, attributes)"),
        ("text", "expected (image, name, box, phrase, attributes)"),
    ],
)
def test_read_transvg_when_a_tuple_is_wrong_then_told_and_the_rest_read(tmp_path, row, why):
    data = read_transvg(save(tmp_path / "unc_val.pth", [FIVE, row, BACKWARDS]))
    assert [one.phrase for one in data] == ["left dog", "cat"]
    assert (data.left_out, len(data.problems)) == (1, 1)
    assert data.problems[0].startswith("tuple 1: ")
    assert why in data.problems[0]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x02", pickle.dumps({"a": 1})]
)
def test_read_transvg_when_it_is_no_such_file_then_one_sentence(tmp_path, content):
    path = tmp_path / "unc_val.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected"):
        read_transvg(path)


def test_read_transvg_when_nothing_is_right_then_the_first_reason(tmp_path):
    with pytest.raises(ValueError, match=r"expected tuples in .* got none \(tuple 0: expected"):
        read_transvg(save(tmp_path / "unc_val.pth", [3, 4]))
    with pytest.raises(FileNotFoundError):
        read_transvg(tmp_path / "none.pth")


def test_open_dataset_when_transvg_and_a_root_then_the_file_of_the_split(tmp_path):
    save(tmp_path / "unc" / "unc_val.pth", [FIVE])
    save(tmp_path / "unc" / "unc_testA.pth", [BACKWARDS])
    folder = tmp_path / "other/images/mscoco/images/train2014"
    folder.mkdir(parents=True)
    Image.new("RGB", (100, 50)).save(folder / NAME)
    assert [one.phrase for one in open_dataset("transvg", root=tmp_path)] == ["left dog"]
    assert open_dataset("transvg", "val", root=tmp_path)[0].image == folder / NAME
    with pytest.raises(FileNotFoundError, match=r"expected the images, such as 'COCO_train2014_0+30\.jpg'"):
        open_dataset("transvg", "testA", root=tmp_path)
    save(tmp_path / "gref" / "gref_val.pth", [FIVE])
    with pytest.raises(ValueError, match=r"expected one transvg file of the split 'val'.*unc/unc_val\.pth"):
        open_dataset("transvg", root=tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=6), st.integers(0, 100_000), st.booleans(), st.booleans())
def test_read_transvg_when_damaged_then_samples_or_one_sentence(tmp_path_factory, patch, place, cut, new):
    path = tmp_path_factory.getbasetemp() / "damaged_unc_val.pth"
    torch.save([FIVE, BACKWARDS], path, _use_new_zipfile_serialization=new)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : None if cut else place + len(patch)] = patch
    path.write_bytes(bytes(data))
    try:
        table = read_transvg(path)
    except ValueError as error:
        assert str(error).startswith("expected ")  # noqa: PT017
    else:
        assert len(list(table)) + table.left_out == len(read_torch_pickle(path))
