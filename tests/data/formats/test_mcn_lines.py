import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data import open_dataset
from deixis.data.formats.mcn_lines import read_mcn_lines
from deixis.geometry.masks import read_mask

LINE = "COCO_train2014_000000000025.jpg 10,20,40,25,16,7 left dog ~ the dog on the left\n"


def save(tmp_path, text, name="val.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_read_mcn_lines_when_a_line_has_sentences_then_a_sample_each(tmp_path):
    path = save(tmp_path, LINE + "\n36979.jpg 1,2,3,4,0,8 cup\r\n", "testA.txt")
    first, second, third = data = read_mcn_lines(path, tmp_path)
    assert [one.phrase for one in data] == ["left dog", "the dog on the left", "cup"]
    assert (first.box_xyxy_px, first.image_id, first.id) == ((10, 20, 40, 25), "25", "1-0")
    assert first.image == tmp_path / "COCO_train2014_000000000025.jpg"
    assert (second.id, third.id, third.image_id) == ("1-1", "3-0", "36979")
    assert {one.split for one in data} == {"testA"}
    assert data.referents == ((0, 1), (2,))
    assert first.mask is None
    assert open_dataset(path, "testA", root=tmp_path)[0] == first
    with pytest.raises(ValueError, match=r"expected the split 'val', got data of \['testA'\]"):
        open_dataset(path, "val")


def test_read_mcn_lines_when_as_the_official_script_writes_them_then_read_with_masks_and_images(tmp_path, monkeypatch):
    for folder in ("anns/refcoco", "masks/refcoco", "images/train2014"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images/train2014/COCO_train2014_000000581857.jpg").write_bytes(b"")
    np.save(tmp_path / "masks/refcoco/17.npy", np.ones((4, 6), np.uint8))
    line = "COCO_train2014_000000581857.jpg 103,93,446,476,0,17 ~ the lady in blue ~ lady w back to us\n"
    path = save(tmp_path / "anns/refcoco", line, "train.txt")
    data = read_mcn_lines(path, need_images=True)
    assert [one.phrase for one in data] == ["the lady in blue", "lady w back to us"]
    assert (data.left_out, data.problems) == (0, ())
    assert data[0].mask is not None
    assert read_mask(data[0].mask, (4, 6)).all()
    monkeypatch.chdir(path.parent)
    assert read_mcn_lines("train.txt", need_images=True)[1].image.is_file()


@pytest.mark.parametrize("where", ["val.txt.masks", "masks"])
def test_read_mcn_lines_when_there_are_masks_then_read_when_asked_for(tmp_path, where):
    (tmp_path / where).mkdir()
    array = np.zeros((50, 100), np.uint8)
    array[20:25, 10:40] = 2  # polygons that overlap
    np.save(tmp_path / where / "7.npy", array)
    data = read_mcn_lines(save(tmp_path, LINE + "b.jpg 1,2,3,4,0,8 cup\n"))
    assert (read_mask(data[0].mask, (50, 100)) == (array > 0)).all()
    assert data[2].mask is None
    assert len(data.problems) == 1
    assert data.problems[0].startswith("line 2, read without its mask: ")
    (tmp_path / where / "7.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="expected an array"):
        _ = data[0]


@pytest.mark.parametrize(
    ("line", "why", "lost"),
    [
        (b"a.jpg 1,2,3,4 dog\n", "expected 'image x1,y1,x2,y2,category,referent", 1),
        (b"a.jpg 1,2,3.5,4,0,1 dog\n", "expected 'image x1", 1),
        (b"dog\n", "expected 'image x1", 1),
        (b"a.jpg 5,2,3,4,0,1 dog ~ cat\n", "expected a box", 2),
        (b"a.jpg 1,2,3,4,0,1\n", "expected a phrase with words", 1),
        (b"a.jpg 1,2,3,4,0,1 dog ~ ~ cat\n", "expected a phrase with words", 1),
        (b"a.jpg 1,2,3,4,0,1 ~ dog ~ ~ cat\n", "expected a phrase with words", 1),
        (b"a.jpg 1,2,3,4,0,1 ~\n", "expected a phrase with words", 1),
        (b"../a.jpg 1,2,3,4,0,1 dog ~ cat\n", "below the folder of images", 2),
        (b"../a.jpg 1,2,3,4,0,1 ~ dog ~ cat\n", "below the folder of images", 2),
        (b"a.jpg 1,2,3,4,0,1 caf\xe9\n", "expected text in UTF-8", 1),
        (b"a.jpg 1,2,3,4,0,1 ~ caf\xe9 ~ dog ~ cat\n", "expected text in UTF-8", 3),
    ],
)
def test_read_mcn_lines_when_a_line_is_wrong_then_counted_and_the_rest_read(tmp_path, line, why, lost):
    data = read_mcn_lines(save(tmp_path, LINE.encode() + line))
    assert data[0].phrase == "left dog"
    assert data.left_out == lost
    assert data.problems[0].startswith("line 2")
    assert why in data.problems[0]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.just(LINE.encode()), max_size=4))
def test_read_mcn_lines_when_any_bytes_then_samples_or_problems(tmp_path_factory, lines):
    path = save(tmp_path_factory.getbasetemp(), LINE.encode() + b"\n".join(lines), "any.txt")
    data = read_mcn_lines(path)
    whole = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    assert len({one.id.split("-")[0] for one in data}) + data.left_out >= len(whole)


def test_read_mcn_lines_when_empty_or_not_there_then_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"expected lines in .* got none"):
        read_mcn_lines(save(tmp_path, "\n"))
    with pytest.raises(FileNotFoundError):
        read_mcn_lines(tmp_path / "none.txt")
