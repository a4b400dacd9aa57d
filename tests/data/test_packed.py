"""Packs: what comes out is what went in, training sees the same, damage is told and mended."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import Samples, open_dataset
from deixis.data.augment.pipelines import PIPELINES
from deixis.data.batches import BatchShape, CanvasRules, Epochs
from deixis.data.columns import HEAD, Texts, check_places, check_starts, checksum, read_columns, write_columns
from deixis.data.packed import damage, open_pack, shrink, shrink_mask, write_pack
from deixis.geometry.images import letterbox
from deixis.geometry.masks import encode_rle
from deixis.structures import Instance, Sample

SIZE = 64
POLYGON = [10.0, 10.0, 70.0, 12.5, 40.0, 50.0]


def mask_of(hw, box):
    mask = np.zeros(hw, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.fixture
def images(tmp_path):
    """Two photos of 80 x 100 pixels, a small one of 20 x 30."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, hw in (("a", (80, 100)), ("b", (80, 100)), ("c", (20, 30))):
        Image.fromarray(rng.integers(0, 256, (*hw, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(mask_of((80, 100), (5, 5, 40, 60))).save(folder / "mask.png")
    return folder


@pytest.fixture
def samples(images):
    dog = Instance(category="dog", box_xyxy_px=(10, 10, 70, 50), mask=[POLYGON], attributes=("red", "big"))
    cat = Instance(category="cat", box_xyxy_px=(0, 0, 5, 5), is_crowd=True)
    rle = encode_rle(mask_of((80, 100), (20, 30, 90, 70)))
    rows = [
        ("a", "left dog", (10.0, 10.0, 70.0, 50.0), [POLYGON], "dog", (dog, cat)),
        ("a", "the dög", (10.0, 10.0, 70.0, 50.0), [POLYGON], "dog", (dog, cat)),
        ("b", "a cup", (20.0, 30.0, 90.0, 70.0), rle, None, ()),
        ("b", "a zebra", None, None, None, ()),
        ("c", "tiny", (1.5, 2.5, 20.0, 19.0), None, "cup", ()),
    ]
    return [
        Sample(
            id=f"s{number}", image=images / f"{name}.png", image_id=f"image {name}", phrase=phrase, box_xyxy_px=box,
            mask=mask, split="train", category=category, kind="plain" if number else None, instances=instances,
        )
        for number, (name, phrase, box, mask, category, instances) in enumerate(rows)
    ]  # fmt: skip


@pytest.fixture
def folder(samples, tmp_path):
    write_pack(samples, tmp_path / "pack", SIZE, split="train", shard_images=2)
    return tmp_path / "pack"


def assert_same(a, b):
    left, right = (dataclasses.replace(one, image=np.zeros(0, np.uint8)) for one in (a, b))
    assert repr(left) == repr(right)
    assert np.array_equal(a.image, b.image)


def test_open_dataset_when_a_folder_is_a_pack_then_its_samples_are_those_that_were_packed(folder, samples):
    pack = open_dataset(folder)
    assert list(pack) == samples
    assert list(pack[1:3]) == samples[1:3]
    assert pack[-1] == samples[-1]
    assert pack.referents == ((0, 1), (2,), (3,), (4,))
    assert [pack.image_hw(index) for index in (0, 4)] == [(80, 100), (20, 30)]
    assert pack.problems == ()
    with pytest.raises(IndexError):
        pack[5]


def test_small_when_asked_then_worked_by_hand_and_pixels_are_mapped(folder, images):
    pack = open_dataset(folder)
    small, whole = pack.small(0), np.asarray(Image.open(images / "a.png"))
    assert small.image.shape == (51, 64, 3)  # 80 * 0.64 = 51.2
    assert not small.image.flags.owndata
    assert not small.image.flags.writeable
    assert np.shares_memory(small.image, pack.small(1).image)
    np.testing.assert_array_equal(small.image, letterbox(whole, SIZE)[0][6:57])
    assert small.box_xyxy_px == pytest.approx((6.4, 6.375, 44.8, 31.875))
    assert small.mask["size"] == [51, 64]
    assert [(one.category, one.is_crowd, one.mask) for one in small.instances] == [
        ("dog", False, None), ("cat", True, None)
    ]  # fmt: skip
    assert pack.small(4).image.shape == (20, 30, 3)  # never enlarged
    assert pack.small(4).box_xyxy_px == (1.5, 2.5, 20.0, 19.0)


def test_write_pack_when_images_are_shared_then_each_is_stored_once(folder):
    index = json.loads((folder / "pack.json").read_text())
    assert [one["bytes"] for one in index["shards"]] == [2 * 51 * 64 * 3, 20 * 30 * 3]
    assert index["counts"] == {"images": 3, "samples": 5, "left_out": 0}


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_epochs_when_packed_at_the_size_of_the_canvas_then_the_batch_of_the_originals(folder, samples, resize):
    given = BatchShape(images=4, phrases=2, size=SIZE, rules=CanvasRules(resize=resize))
    pack = open_dataset(folder)
    ours, theirs = (Epochs(one, pack.referents).batch(3, 0, given) for one in (pack, Samples(samples)))
    for field in dataclasses.fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name == "boxes":
            np.testing.assert_allclose(a, b, atol=1e-6)
        elif resize == "letterbox" or field.name not in ("pixels", "masks", "content"):
            assert np.array_equal(a, b), field.name


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_epochs_when_augmented_then_the_pack_is_not_written_to(folder, name):
    pack = open_dataset(folder)
    epochs = Epochs(pack, pack.referents, augment=PIPELINES[name])
    for step in range(6):
        epochs.batch(0, step, BatchShape(images=2, phrases=1, size=SIZE, absent=0.0))
    assert damage(folder) == []


def test_open_pack_when_the_originals_moved_then_root_finds_them_or_all_is_small_and_told(folder, images, samples):
    moved = images.rename(images.with_name("moved"))
    assert [one.box_xyxy_px for one in open_dataset(folder, root=moved)] == [one.box_xyxy_px for one in samples]
    pack = open_dataset(folder)
    assert len(pack.problems) == 1
    assert "expected the original images, such as 'a.png'" in pack.problems[0]
    assert pack.image_hw(0) == (51, 64)
    assert_same(pack[0], pack.small(0))


def test_open_pack_when_pack_and_images_moved_together_then_found(folder, images, tmp_path):
    (tmp_path / "new").mkdir()
    for one in (folder, images):
        one.rename(tmp_path / "new" / one.name)
    assert open_dataset(tmp_path / "new" / "pack")[0].image == tmp_path / "new" / "pack" / "../images/a.png"


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (9, 5)])
def test_open_pack_when_limited_then_the_first_images_of_a_fixed_order_whole(folder, limit, count):
    pack = open_dataset(folder, limit=limit)
    assert len(pack) == count
    names = [one.image_id for one in pack]
    assert names == sorted(names, key=names.index)
    assert [one.id for one in pack] == [one.id for one in open_dataset(folder, limit=limit)]
    assert sorted(index for group in pack.referents for index in group) == list(range(count))


def test_open_pack_when_a_split_is_named_then_its_samples_or_what_there_is(samples, tmp_path):
    mixed = [dataclasses.replace(one, split="val" if number < 2 else "train") for number, one in enumerate(samples)]
    write_pack(mixed, tmp_path / "pack", SIZE, split="trainval")
    assert len(open_dataset(tmp_path / "pack")) == len(open_dataset(tmp_path / "pack", "trainval")) == 5
    assert [one.id for one in open_dataset(tmp_path / "pack", "val")] == ["s0", "s1"]
    with pytest.raises(ValueError, match=r"expected the split 'testA', got data of \['train', 'val'\]"):
        open_dataset(tmp_path / "pack", "testA")


def test_open_pack_when_pickled_then_opened_anew(folder):
    pack = open_dataset(folder, limit=3)
    data = pickle.dumps(pack)
    assert len(data) < 1000
    assert list(pickle.loads(data)) == list(pack)


def test_write_pack_when_drawn_scenes_then_equal_and_not_resized(tmp_path):
    scenes = open_dataset("scenes", limit=3)
    done = write_pack(scenes, tmp_path / "pack", 100)
    pack = open_dataset(tmp_path / "pack")
    assert (done.samples, len(pack)) == (3, 3)
    for ours, theirs in zip(pack, scenes, strict=True):
        assert_same(ours, theirs)


def test_write_pack_when_a_mask_is_a_file_then_it_is_in_the_pack(samples, images, tmp_path):
    given = dataclasses.replace(samples[0], mask=images / "mask.png")
    write_pack([given], tmp_path / "pack", SIZE)
    assert open_dataset(tmp_path / "pack")[0].mask == encode_rle(mask_of((80, 100), (5, 5, 40, 60)))


def test_write_pack_when_something_cannot_be_read_then_counted_and_told(samples, images, tmp_path):
    (images / "b.png").write_bytes(b"no image")
    wrong_mask = dataclasses.replace(samples[0], id="x", mask={"size": [3, 3], "counts": "9"})
    no_file = dataclasses.replace(samples[0], id="y", mask=images / "none.png")
    lone = dataclasses.replace(samples[0], id="z", phrase="\ud800 dog")
    given = [*samples, wrong_mask, no_file, lone]
    done = write_pack(given, tmp_path / "pack", SIZE)
    assert (done.samples, done.left_out, done.images) == (3, 5, 2)
    assert len(done.problems) == 5
    assert list(open_dataset(tmp_path / "pack")) == [samples[0], samples[1], samples[4]]
    assert open_dataset(tmp_path / "pack").problems == tuple(done.problems)


def test_write_pack_when_the_mask_of_another_thing_is_wrong_then_that_alone_is_lost(samples, tmp_path):
    bad = Instance(category="dog", box_xyxy_px=(0, 0, 5, 5), mask=tmp_path / "none.png")
    done = write_pack([dataclasses.replace(samples[0], instances=(bad,))], tmp_path / "pack", SIZE)
    assert done.samples == 1
    assert "another 'dog' without its mask" in done.problems[0]
    assert open_dataset(tmp_path / "pack")[0].instances == (dataclasses.replace(bad, mask=None),)


def test_write_pack_when_run_again_then_files_are_kept_and_the_same(folder, samples):
    before = {one: one.read_bytes() for one in folder.rglob("*.*") if one.is_file()}
    done = write_pack(samples, folder, SIZE, split="train", shard_images=2)
    assert (done.shards, done.kept_shards) == (2, 2)
    assert {one: one.read_bytes() for one in folder.rglob("*.*") if one.is_file()} == before


def test_write_pack_when_it_was_broken_off_then_it_goes_on(samples, tmp_path, folder, monkeypatch):
    (folder / "pack.json").unlink()
    (folder / "pixels-00001.bin").unlink()
    (folder / ".pixels-00001.bin.x.part").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match=r"expected 'pack\.json'"):
        open_dataset(folder)
    assert write_pack(samples, folder, SIZE, shard_images=2).kept_shards == 1
    assert list(open_dataset(folder)) == samples
    assert not list(folder.glob(".*"))


def test_write_pack_when_an_image_changed_or_a_file_was_damaged_then_that_is_written_anew(samples, images, folder):
    Image.new("RGB", (30, 20), (9, 8, 7)).save(images / "c.png")
    damaged = bytearray((folder / "pixels-00000.bin").read_bytes())
    damaged[5] ^= 1
    (folder / "pixels-00000.bin").write_bytes(damaged)
    assert len(damage(folder)) == 1
    assert write_pack(samples, folder, SIZE, shard_images=2).kept_shards == 0
    assert damage(folder) == []
    assert open_dataset(folder).small(4).image[0, 0].tolist() == [9, 8, 7]


def test_write_pack_when_smaller_than_before_then_old_files_are_gone(samples, folder):
    write_pack(samples[:2], folder, 32, shard_images=2)
    assert sorted(one.name for one in folder.glob("pixels*")) == ["pixels-00000.bin", "pixels-00000.json"]
    assert open_dataset(folder).small(0).image.shape == (26, 32, 3)


def test_write_pack_when_the_folder_holds_other_files_or_nothing_is_left_then_one_sentence(samples, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"expected an empty folder or a pack, got .*'images'"):
        write_pack(samples, tmp_path, SIZE)
    with pytest.raises(ValueError, match=r"expected samples to pack, got none \(sample 0: expected an image"):
        write_pack([dataclasses.replace(samples[0], image=tmp_path / "none.png")], tmp_path / "pack", SIZE)
    with pytest.raises(ValueError, match="expected a size of at least 32"):
        write_pack(samples, tmp_path / "pack", 4)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def change_index(folder, change):
    index = json.loads((folder / "pack.json").read_text())
    change(index)
    (folder / "pack.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda index: index.update(deixis_pack=99), "form 99"),
        (lambda index: index.pop("shards"), "shards"),
        (lambda index: index["shards"][0].update(file="../../images/a.png"), "other names"),
        (lambda index: index["shards"][0].update(bytes=2**50), "bytes in"),
        (lambda index: index["shards"][0].update(bytes=-1), "whole number"),
        (lambda index: index["shards"].pop(), "places of 0 to 0"),
        (lambda index: index.update(split=3), "other fields"),
        (lambda index: index.update(deixis_pack=1), "form 1 instead of 2.*pack again"),
    ],
)
def test_open_pack_when_the_index_is_wrong_then_one_sentence(folder, change, why):
    change_index(folder, change)
    with pytest.raises(ValueError, match=why):
        open_pack(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"deixis_pack": 1}', b"null"])
def test_open_pack_when_the_index_is_something_else_then_one_sentence(folder, content):
    (folder / "pack.json").write_bytes(content)
    with pytest.raises(ValueError, match="expected the index of a pack in"):
        open_pack(folder)


def test_open_pack_when_a_file_is_cut_or_missing_then_one_sentence(folder):
    pixels, phrases = folder / "pixels-00000.bin", folder / "samples" / "phrase.npy"
    content = pixels.read_bytes()
    pixels.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"expected {len(content)} bytes in .*, got {len(content) - 1}; pack again"):
        open_pack(folder)
    pixels.write_bytes(content)
    phrases.write_bytes(phrases.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"expected the columns as they were written, got other bytes.*pack again"):
        open_pack(folder)
    for file in (phrases, pixels):
        file.unlink()
        with pytest.raises(FileNotFoundError, match=file.name):
            open_pack(folder)


def test_open_pack_when_samples_are_forged_then_an_error_or_samples_but_no_crash(folder):
    """Whoever forges the samples can forge their checksum too, so every place in them is checked."""
    rng, files = np.random.default_rng(0), sorted((folder / "samples").glob("*.npy"))
    whole = {file: file.read_bytes() for file in files}
    head = json.loads((folder / "samples" / HEAD).read_text())
    refused = 0
    for number in range(3 * len(files)):
        file = files[number % len(files)]
        forged = bytearray(whole[file])
        for place in rng.integers(len(forged) - 20 if number < len(files) else 0, len(forged), 4):
            forged[place] = int(rng.integers(256))
        file.write_bytes(forged)
        (folder / "samples" / HEAD).write_text(json.dumps(head | {"sha256": checksum(*files)}))
        try:
            pack = open_pack(folder)
            for index in range(len(pack)):
                pack[index]
                pack.small(index)
        except ValueError:
            refused += 1
        file.write_bytes(whole[file])
    assert refused


def test_open_pack_when_a_file_name_leads_out_of_the_folder_then_refused(folder, samples, tmp_path):
    pack = open_pack(folder)
    pack._texts["image_file"] = ["../secret.png"] * 3
    with pytest.raises(ValueError, match="expected a file name below the folder"):
        pack[0]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=6))
@settings(max_examples=30, deadline=None)
def test_texts_when_packed_then_the_same(texts):
    letters = [text.encode() for text in texts]
    starts = np.cumsum([0, *map(len, letters)], dtype=np.int64)
    packed = Texts(np.frombuffer(b"".join(letters), np.uint8), starts)
    assert [packed[index] for index in range(len(packed))] == texts


def test_columns_when_written_then_read_back_and_mapped_read_only(tmp_path):
    given = {"a": np.arange(5, dtype="<i4"), "b": np.arange(6.0).reshape(3, 2), "none": np.zeros(0, "<i8")}
    schema = {"a": ("<i4", 0), "b": ("<f8", 2), "none": ("<i8", 0)}
    write_columns(tmp_path / "c", given, {"size": 7})
    found, head = read_columns(tmp_path / "c", schema)
    assert head["size"] == 7
    for name, column in given.items():
        np.testing.assert_array_equal(found[name], column)
        assert not found[name].flags.writeable
    for wrong in (("<i4", 2), ("<i8", 0)):
        with pytest.raises(ValueError, match="in 'a', got int32"):
            read_columns(tmp_path / "c", schema | {"a": wrong})
    (tmp_path / "c" / "none.npy").unlink()
    with pytest.raises(FileNotFoundError):
        read_columns(tmp_path / "c", schema)


def test_check_starts_and_places_when_they_run_back_or_out_then_refused():
    check_starts(np.array([0, 2, 2, 5]), 3, 5)
    for wrong in ([0, 3, 2, 5], [1, 2, 2, 5], [0, 2, 2, 4], [0, 5]):
        with pytest.raises(ValueError, match="expected 3 starts from 0 to 5"):
            check_starts(np.array(wrong), 3, 5)
    check_places(np.array([-1, 2]), 3, least=-1)
    for wrong in ([3], [-1]):
        with pytest.raises(ValueError, match="expected places of 0 to 2"):
            check_places(np.array(wrong), 3)


def test_shrink_when_half_the_size_then_half_covered_pixels_are_set():
    mask = mask_of((8, 8), (0, 0, 4, 8))
    np.testing.assert_array_equal(shrink_mask(mask, (4, 4)), mask_of((4, 4), (0, 0, 2, 4)))
    assert shrink_mask(mask, (8, 8)) is mask
    pixels = np.full((8, 4, 3), 77, np.uint8)
    assert shrink(pixels, 8) is pixels
    assert shrink(pixels, 4).shape == (4, 2, 3)
    assert (shrink(pixels, 4) == 77).all()
