import contextlib
import io
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import open_dataset
from deixis.data.formats.hf_datasets import read_hf_dataset

NAME = "COCO_train2014_000000000025.jpg"


@pytest.fixture
def pa():
    return pytest.importorskip("pyarrow")


def picture(value):
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50), (value, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": NAME}


def save_arrow(pa, folder, rows, split="val"):
    """What ``save_to_disk`` writes: a stream of record batches beside state.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [], "_split": split}))
    return folder


def save_parquet(folder, rows, name="data/val-00000-of-00001.parquet"):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return folder


ROWS = [
    {"id": 7, "image": NAME, "phrase": "left dog", "box": [10.5, 20.0, 40.75, 25.0], "category": "dog",
     "mask": json.dumps([[1, 2, 3, 2, 3, 4]])},
    {"id": 8, "image": NAME, "phrase": "zebra", "box": None, "category": None, "mask": None},
]  # fmt: skip


def test_read_hf_dataset_when_saved_to_disk_then_a_sample_a_row(pa, tmp_path):
    dog, zebra = data = read_hf_dataset(save_arrow(pa, tmp_path / "d", ROWS))
    assert (dog.phrase, dog.box_xyxy_px, dog.category, dog.id) == ("left dog", (10.5, 20, 40.75, 25), "dog", "7")
    assert (dog.image, dog.image_id, dog.split) == (tmp_path / "d" / NAME, "25", "val")
    assert dog.mask == [[1, 2, 3, 2, 3, 4]]
    assert zebra.box_xyxy_px is None
    assert list(data[0:2]) == [dog, zebra] == list(open_dataset(tmp_path / "d"))


def test_read_hf_dataset_when_of_several_splits_then_the_one_asked_for(pa, tmp_path):
    save_arrow(pa, tmp_path / "train", ROWS[:1], "train")
    save_arrow(pa, tmp_path / "validation", ROWS[1:], "validation")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert [one.phrase for one in read_hf_dataset(tmp_path)] == ["zebra"]
    assert [one.phrase for one in open_dataset("hf", "train", root=tmp_path)] == ["left dog"]
    with pytest.raises(ValueError, match=r"expected a split out of \['train', 'validation'\]"):
        read_hf_dataset(tmp_path, "test")


def test_read_hf_dataset_when_parquet_holds_images_and_several_answers_then_decoded_when_asked(pa, tmp_path):
    row = {"question_id": "q", "image": picture(200), "answer": ["left dog", "dog"], "bbox": [60.0, 20.0, 30.0, 5.0],
           "segmentation": [60.0, 20.0, 90.0, 20.0, 90.0, 25.0]}  # fmt: skip
    first, second = data = read_hf_dataset(save_parquet(tmp_path, [row, row | {"answer": [" "]}]))
    assert first.image.shape == (50, 100, 3)
    assert first.image[0, 0].tolist() == [200, 0, 0]
    assert first.box_xyxy_px == (60, 20, 90, 25)
    assert first.mask == [[60, 20, 90, 20, 90, 25]]
    assert [first.id, second.id, second.phrase, first.image_id] == ["q", "q-1", "dog", "25"]
    assert data.left_out == 1
    assert "row 1, phrase 0: expected a phrase with words" in data.problems[0]


def test_read_hf_dataset_when_sentences_are_objects_and_boxes_corners_then_read_so(pa, tmp_path):
    row = {"image_path": NAME, "sentences": [{"sent": "left dog", "sent_id": 3}], "bbox": [60.0, 20.0, 90.0, 25.0],
           "raw_anns": "{}"}  # fmt: skip
    (sample,) = read_hf_dataset(save_parquet(tmp_path, [row]))
    assert (sample.phrase, sample.box_xyxy_px) == ("left dog", (60, 20, 90, 25))


@pytest.mark.parametrize("box", [[1.0, 2.0, 3.0], [5.0, 2.0, 1.0, 4.0], [float("nan"), 1.0, 2.0, 3.0]])
def test_read_hf_dataset_when_a_box_is_wrong_then_counted_and_the_rest_read(pa, tmp_path, box):
    data = read_hf_dataset(save_arrow(pa, tmp_path / "d", [ROWS[0], ROWS[0] | {"box": box}]))
    assert (len(data), data.left_out) == (1, 1)
    assert data.problems[0].startswith("row 1: expected ")


def test_read_hf_dataset_when_it_cannot_be_read_then_one_sentence(pa, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of Hugging Face datasets"):
        read_hf_dataset(tmp_path)
    with pytest.raises(ValueError, match="expected columns for the image"):
        read_hf_dataset(save_arrow(pa, tmp_path / "a", [{"x": 1}]))
    folder = save_arrow(pa, tmp_path / "b", ROWS)
    (folder / "data-00000-of-00001.arrow").write_bytes(b"no arrow at all")
    with pytest.raises(ValueError, match="expected arrow data in "):
        read_hf_dataset(folder)
    broken = read_hf_dataset(save_parquet(tmp_path / "c", [ROWS[0] | {"image": {"bytes": b"x", "path": None}}]))
    with pytest.raises(ValueError, match="expected an image in row 0"):
        _ = broken[0]


def test_read_hf_dataset_when_pyarrow_is_not_there_then_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "val.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "deixis\[datasets\]"'):
        read_hf_dataset(tmp_path)


def test_read_hf_dataset_when_limited_then_whole_rows_in_an_order_that_stays(pa, tmp_path):
    rows = [ROWS[0] | {"id": i} for i in range(9)]
    folder = save_arrow(pa, tmp_path / "d", rows)
    few = [one.id for one in read_hf_dataset(folder).limit(4)]
    assert len(few) == 4
    assert few == [one.id for one in read_hf_dataset(folder).limit(4)]
    assert set(few) < {str(i) for i in range(9)}
    assert few != sorted(few)


def test_read_hf_dataset_when_a_mask_is_no_json_then_its_sample_alone_is_refused(pa, tmp_path):
    broken = [ROWS[0] | {"mask": "[[1, 2"}, ROWS[1]]
    data = read_hf_dataset(save_arrow(pa, tmp_path / "d", broken))
    with pytest.raises(ValueError, match=r"expected a mask in JSON, got '\[\[1, 2'"):
        _ = data[0]
    assert data[1].phrase == "zebra"


@pytest.mark.parametrize("text", [b"left dog", b"\xff\xfeft dog"])
def test_read_hf_dataset_when_text_is_no_utf8_then_one_sentence(pa, tmp_path, text):
    path = save_arrow(pa, tmp_path / "d", ROWS) / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes().replace(b"left dog", text))
    if text == b"left dog":
        assert len(read_hf_dataset(tmp_path / "d")) == 2
    else:
        with pytest.raises(ValueError, match=r"expected arrow data in .*get it again"):
            read_hf_dataset(tmp_path / "d")


@settings(max_examples=25, deadline=None)
@given(place=st.integers(0, 100_000), patch=st.binary(max_size=4), kind=st.sampled_from(["arrow", "parquet", "state"]))
def test_read_hf_dataset_when_bytes_are_damaged_then_samples_or_one_sentence(tmp_path_factory, place, patch, kind):
    pyarrow = pytest.importorskip("pyarrow")
    folder = tmp_path_factory.getbasetemp() / f"hf-{kind}"
    if kind == "parquet":
        save_parquet(folder, ROWS)
    else:
        save_arrow(pyarrow, folder, ROWS)
    name = {"arrow": "data-00000-of-00001.arrow", "parquet": "data/val-00000-of-00001.parquet", "state": "state.json"}[
        kind
    ]
    data = bytearray((folder / name).read_bytes())
    place %= len(data)
    data[place : place + len(patch) if patch else None] = patch
    (folder / name).write_bytes(data)
    try:
        samples = read_hf_dataset(folder)
    except (ValueError, FileNotFoundError) as error:
        assert str(error).startswith("expected ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert len(samples) + samples.left_out == 2
    for index in range(len(samples)):
        with contextlib.suppress(ValueError):
            assert samples[index].phrase
