import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.formats.jsonl import read_jsonl, write_jsonl
from deixis.structures import Sample

GOOD = {"image": "a.jpg", "phrase": "left dog", "box": [1, 2, 30, 40]}


def write_lines(tmp_path, *lines):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return path


def test_read_jsonl_when_lines_are_right_then_samples_come(tmp_path):
    rle = {"size": [40, 50], "counts": "0"}
    path = write_lines(
        tmp_path,
        GOOD,
        "",
        GOOD | {"mask": rle, "id": 12, "split": "val", "image": "/b/c.png"},
        GOOD | {"mask": [[1, 2, 3, 4, 5, 6]], "id": "x", "category": "dog", "kind": "plain", "image_id": 3},
        GOOD | {"mask": "masks/a.png"},
        {"image": "a.jpg", "phrase": "the unicorn", "box": None},
    )
    samples, problems = read_jsonl(path)

    assert problems == []
    assert [s.id for s in samples] == ["1", "12", "x", "5", "6"]
    assert samples[0].image == tmp_path / "a.jpg"
    assert samples[0].box_xyxy_px == (1.0, 2.0, 30.0, 40.0)
    assert (samples[0].image_id, samples[0].split, samples[0].mask) == ("a.jpg", "", None)
    assert (samples[1].image, samples[1].mask, samples[1].split) == (Path("/b/c.png"), rle, "val")
    assert (samples[2].mask, samples[2].category, samples[2].kind) == ([[1, 2, 3, 4, 5, 6]], "dog", "plain")
    assert samples[2].image_id == "3"
    assert samples[3].mask == tmp_path / "masks" / "a.png"
    assert samples[4].box_xyxy_px is None


def test_read_jsonl_when_things_are_listed_then_the_sample_knows_them(tmp_path):
    things = [{"category": "dog", "box": [1, 2, 30, 40]}, {"category": "cat", "box": [0, 0, 5, 5.5], "is_crowd": True}]
    (one, none), problems = read_jsonl(write_lines(tmp_path, GOOD | {"instances": things}, GOOD))
    assert problems == []
    told = [(thing.category, thing.box_xyxy_px, thing.is_crowd) for thing in one.instances]
    assert told == [("dog", (1, 2, 30, 40), False), ("cat", (0, 0, 5, 5.5), True)]
    assert none.instances == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (GOOD | {"instances": {}}, "expected a list of {'category', 'box'} as 'instances'"),
        (GOOD | {"instances": [3]}, "expected a list of {'category', 'box'} as 'instances'"),
        (GOOD | {"instances": [{"box": [1, 2, 3, 4]}]}, "expected words as 'category'"),
        (GOOD | {"instances": [{"category": "dog", "box": [1, 2]}]}, "expected a box [x1, y1, x2, y2] in 'instances'"),
        (GOOD | {"instances": [{"category": "dog", "box": [3, 2, 1, 4]}]}, "expected a box"),
        ("{", "expected a JSON object in UTF-8"),
        ("[" * 50_000, "expected a JSON object in UTF-8"),
        ("[1]", "expected a JSON object, got"),
        ({"phrase": "dog", "box": None}, "as 'image'"),
        (GOOD | {"phrase": "  "}, "as 'phrase'"),
        (GOOD | {"phrase": 3}, "as 'phrase'"),
        (GOOD | {"phrase": "dog \ud800"}, "as 'phrase'"),
        (GOOD | {"id": "\ud800"}, "as 'id'"),
        ({"image": "a.jpg", "phrase": "dog"}, "expected a 'box'"),
        (GOOD | {"box": [1, 2, 3]}, "four finite numbers"),
        (GOOD | {"box": [1, 2, float("inf"), 9]}, "four finite numbers"),
        (GOOD | {"box": [30, 2, 3, 9]}, "x1 < x2"),
        (GOOD | {"mask": 5}, "expected a mask as RLE, polygons or a file name"),
        (GOOD | {"mask": [[1, 2]]}, "expected a polygon"),
        (GOOD | {"mask": {"size": [1]}}, "expected RLE"),
        (GOOD | {"box": None, "mask": "m.png"}, "no mask beside the box null"),
        (GOOD | {"id": [1]}, "as 'id'"),
        (GOOD | {"split": 1.5}, "as 'split'"),
    ],
)
def test_read_jsonl_when_a_line_is_bad_then_its_number_is_told_and_the_rest_is_read(tmp_path, line, why):
    samples, problems = read_jsonl(write_lines(tmp_path, GOOD, line, GOOD))

    assert [s.id for s in samples] == ["1", "3"]
    assert len(problems) == 1
    assert problems[0].startswith("line 2: expected ")
    assert why in problems[0]


def test_read_jsonl_when_bytes_are_no_text_then_only_that_line_is_lost(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\xff\xfe\r\n" + json.dumps(GOOD).encode())
    samples, problems = read_jsonl(path)

    assert len(samples) == 2
    assert [p.split(":")[0] for p in problems] == ["line 2"]


def test_read_jsonl_when_a_split_is_asked_for_then_only_its_lines(tmp_path):
    path = write_lines(tmp_path, GOOD | {"split": "train"}, GOOD | {"split": "val"}, GOOD)

    assert [s.id for s in read_jsonl(path, "val")[0]] == ["2"]
    assert len(read_jsonl(path)[0]) == 3
    assert read_jsonl(path, "test") == (
        [],
        ["expected lines of the split 'test', got the splits ['', 'train', 'val']; choose one of these"],
    )
    path = write_lines(tmp_path, GOOD)
    assert read_jsonl(path, "test") == ([], ["expected lines of the split 'test', got lines without one; name none"])


def test_read_jsonl_when_a_key_stands_twice_then_the_line_is_told(tmp_path):
    path = write_lines(tmp_path, GOOD)
    path.write_text(path.read_text().rstrip("}\n") + ', "box": [0, 0, 1, 1]}\n')

    samples, (problem,) = read_jsonl(path)
    assert samples == []
    assert "'box' twice" in problem


def test_read_jsonl_when_the_file_is_missing_then_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_jsonl(tmp_path / "none.jsonl")


def sample(tmp_path, **changes):
    whole = {
        "id": "1",
        "image": tmp_path / "images" / "a.jpg",
        "image_id": "a",
        "phrase": "left café",
        "box_xyxy_px": (1.5, 2.0, 30.25, 40.0),
        "mask": tmp_path / "m.png",
        "split": "val",
        "category": "dog",
        "kind": "location",
    }
    return Sample(**(whole | changes))


def test_write_jsonl_when_read_again_then_the_same_samples(tmp_path):
    samples = [
        sample(tmp_path),
        sample(tmp_path, id="2", mask=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]], split="", category=None, kind=None),
        sample(tmp_path, id="3", box_xyxy_px=None, mask=None, image=Path("/elsewhere/b.jpg")),
    ]
    path = tmp_path / "out.jsonl"

    assert write_jsonl(path, samples) == 3
    assert read_jsonl(path) == (samples, [])
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["image"] == "images/a.jpg"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl"]


def test_write_jsonl_when_a_sample_cannot_be_written_then_the_old_file_stays(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old\n", encoding="utf-8")
    pixels = sample(tmp_path, image=np.zeros((4, 4, 3), np.uint8))

    with pytest.raises(ValueError, match="expected an image file"):
        write_jsonl(path, [sample(tmp_path), pixels])
    assert path.read_text(encoding="utf-8") == "old\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_read_jsonl_when_any_bytes_come_then_every_line_is_read_or_reported(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    samples, problems = read_jsonl(path)
    expected = [line for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]

    assert len(samples) + len(problems) == len(expected)
