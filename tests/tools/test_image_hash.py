import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from deixis.tools.image_hash import BITS, MAX_DISTANCE, difference_hash, hash_images, near_pairs


def picture(seed, hw=(120, 160)):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((hw[1], hw[0]), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))


def distance(a, b):
    return int(np.unpackbits(a ^ b).sum())


def saved(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_difference_hash_when_cells_get_brighter_to_the_right_then_all_bits():
    ramp = np.repeat(np.arange(0, 255, 3, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    assert np.unpackbits(difference_hash(ramp)).sum() == BITS
    assert np.unpackbits(difference_hash(ramp[:, ::-1])).sum() == 0


@pytest.mark.parametrize("change", [lambda im: saved(im, 40), lambda im: im.resize((80, 60)),
                                    lambda im: im.resize((256, 256)), lambda im: im.convert("L")])  # fmt: skip
def test_difference_hash_when_copied_then_near_and_other_pictures_are_far(change):
    own = difference_hash(picture(0))
    assert distance(own, difference_hash(change(picture(0)))) <= MAX_DISTANCE
    assert min(distance(own, difference_hash(picture(seed))) for seed in range(1, 9)) > 2 * MAX_DISTANCE


def test_near_pairs_when_bits_differ_then_within_the_distance_alone(monkeypatch):
    a = np.zeros((3, BITS // 8), np.uint8)
    a[1] = 255
    b = np.zeros((2, BITS // 8), np.uint8)
    b[0, :4] = 255  # 32 bits from a[0]
    b[1, :5] = 255  # 40 bits
    expected = [(0, 0), (2, 0)]
    assert near_pairs(a, b) == expected
    monkeypatch.setattr("deixis.tools.image_hash._PAIRS_AT_ONCE", 2)
    assert near_pairs(a, b) == expected
    assert near_pairs(a[:0], b) == near_pairs(a, b[:0]) == []


def test_hash_images_when_some_cannot_be_told_apart_then_marked(tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    Image.new("RGB", (50, 50), "red").save(tmp_path / "c.png")
    seen = []
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png", tmp_path / "gone.png"]
    hashes, usable = hash_images(files, 4, lambda done, total: seen.append((done, total)))
    assert usable.tolist() == [True, False, False, False]
    assert hashes.shape == (4, BITS // 8)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
