import json
import os
import pickle
import random

import numpy as np
import pytest

from deixis.data.formats import refer
from deixis.data.formats.refer import open_refer
from deixis.geometry.masks import encode_rle


def document():
    crowd = encode_rle(np.eye(50, 100, dtype=bool))
    boxes = {1: [5.1, 10, 20, 30], 2: [60.5, 10, 45.0, 30], 3: [0, 0, 100, 50], 4: [1, 1, 50, 40]}
    things = [
        {"id": n, "image_id": 25 if n < 4 else 30, "category_id": 1 + n % 2, "bbox": box, "iscrowd": int(n == 3),
         "segmentation": crowd if n == 3 else [] if n == 4 else [[1.5, 2, 3, 4, 5, 6.25], [7, 8, 9, 10, 11, 12]]}
        for n, box in boxes.items()
    ]  # fmt: skip
    images = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": 50, "width": 100} for i in (25, 30)]
    return {"images": images, "annotations": [*things, {"id": 9, "image_id": 25}],
            "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "café"}]}  # fmt: skip


REFS = [
    {"ref_id": n, "ann_id": n, "image_id": 25 if n < 4 else 30, "split": "val",
     "sentences": [{"sent_id": 10 * n + i, "sent": f"thing {n}, ☕ {i}"} for i in range(2)]}
    for n in (1, 2, 3, 4)
] + [{"ref_id": 7, "split": "val", "sentences": [1, 2]}]  # fmt: skip


@pytest.fixture
def release(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(refer, "MIN_CACHED_BYTES", 0)
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(document()))
    return tmp_path


def read(root, **how):
    return open_refer(root, need_images=False, **how)


@pytest.fixture
def not_parsed(monkeypatch):
    def start():
        monkeypatch.setattr(refer, "load_refs", lambda path: pytest.fail("parsed again"))

    return start


def test_open_refer_when_opened_again_then_the_copy_gives_the_same(release, not_parsed):
    first = read(release)
    (copy,) = (release / "cache" / "deixis").iterdir()
    not_parsed()
    again = read(release)
    assert list(again) == list(first)
    assert len(first) == 8
    for name in ("problems", "left_out", "clipped_boxes", "referents"):
        assert getattr(again, name) == getattr(first, name), name
    assert first.left_out == 2
    assert first.clipped_boxes == 1
    assert {type(i.box_xyxy_px[0]) for s in again for i in s.instances} == {float}
    assert list(pickle.loads(pickle.dumps(again))) == list(first)  # as workers get it
    few = read(release, limit=3)
    assert len(few) == 3
    assert all(one in list(first) for one in few)
    assert {one.suffix for one in copy.iterdir()} == {".npy", ".json"}


@pytest.mark.parametrize("name", ["refs(unc).p", "instances.json"])
def test_open_refer_when_a_file_has_changed_then_read_anew_and_the_copy_is_replaced(release, name):
    before = list(read(release))
    path = release / "refcoco" / name
    data = path.read_bytes().replace(b"thing 1", b"thing X").replace(b'"dog"', b'"cow"')
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time: only the head tells
    after = list(read(release))
    assert after != before
    assert list(read(release)) == after
    assert len(list((release / "cache" / "deixis").iterdir())) == 1


def test_open_refer_when_the_copy_is_damaged_then_read_anew(release):
    whole = list(read(release))
    (copy,) = (release / "cache" / "deixis").iterdir()
    rng = random.Random(0)
    for _ in range(30):
        file = rng.choice(sorted(copy.iterdir()))
        bad = bytearray(file.read_bytes())
        place = rng.randrange(len(bad))
        bad[place : rng.choice([place + 3, None])] = b"\xff\x00\x07"
        file.write_bytes(bytes(bad))
        assert list(read(release)) == whole


def test_open_refer_when_the_cache_cannot_be_written_then_read_all_the_same(release, monkeypatch):
    (release / "cache").write_text("a file where the folder is due")
    assert len(read(release)) == len(read(release)) == 8
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("deixis.files.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(read(release)) == 8


def test_open_refer_when_the_files_are_small_then_no_copy_is_kept(release, monkeypatch):
    monkeypatch.setattr(refer, "MIN_CACHED_BYTES", 10**6)
    read(release)
    assert not (release / "cache").exists()
