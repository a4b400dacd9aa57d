"""Images: every mode comes in right, every damaged file gives one sentence, the letterbox finds its way back."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from deixis.geometry.boxes import box_iou
from deixis.geometry.images import MAX_PIXELS, Letterbox, image_hw, letterbox, read_image
from deixis.geometry.masks import box_from_mask

RED, WHITE = (255, 0, 0), (255, 255, 255)


def blocks(seed=0):
    """A 48 x 64 photo-like picture of coloured blocks."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(colours, np.ones((8, 8, 1), dtype=np.uint8)))


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"])
def test_read_image_when_rgb_and_lossless_then_same_pixels(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    array = read_image(saved(tmp_path, blocks(), name, **options))
    np.testing.assert_array_equal(array, np.asarray(blocks()))
    assert array.dtype == np.uint8
    assert array.flags.writeable
    assert array.flags.c_contiguous


def test_read_image_when_source_is_str_path_pil_or_array_then_same_pixels(tmp_path):
    path = saved(tmp_path, blocks(), "a.png")
    expected = np.asarray(blocks())
    for source in (path, str(path), blocks(), expected):
        np.testing.assert_array_equal(read_image(source), expected)


def test_read_image_when_array_changes_later_then_result_stays():
    array = np.zeros((2, 2, 3), dtype=np.uint8)
    result = read_image(array)
    array[:] = 9
    assert not result.any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_read_image_when_exif_turns_it_then_upright_as_pillow_does(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, blocks(), name, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    array = read_image(path)
    np.testing.assert_array_equal(array, expected)
    assert array.flags.c_contiguous


def test_read_image_when_exif_is_damaged_then_pixels_still_come(tmp_path):
    path = saved(tmp_path, blocks(), "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(read_image(path), np.asarray(blocks()))


def test_read_image_when_grey_16_bit_then_scaled_to_eight(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        array = read_image(saved(tmp_path, Image.fromarray(values), name))
        np.testing.assert_array_equal(array[0, :, 0], [0, 1, 128, 255])
        assert (array[..., 0] == array[..., 2]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 65535]], dtype=np.int32), [0, 1, 255]),  # fits 16 bit
        (np.array([[-100, 0, 100]], dtype=np.int32), [0, 128, 255]),  # stretched
        (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], dtype=np.float32), [0, 100, 255]),
        (np.array([[0, 1000, 2000]], dtype=np.float32), [0, 128, 255]),
        (np.array([[np.nan, 1, np.nan]], dtype=np.float32), [0, 255, 0]),
        (np.array([[-5, -5, -5]], dtype=np.float32), [0, 0, 0]),
    ],
)
def test_read_image_when_32_bit_grey_then_documented_range(tmp_path, values, expected):
    array = read_image(saved(tmp_path, Image.fromarray(values), "a.tif"))
    np.testing.assert_array_equal(array[0, :, 1], expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_read_image_when_alpha_then_over_white(tmp_path, mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    array = read_image(saved(tmp_path, image.convert(mode), "a.png"))
    np.testing.assert_array_equal(array[0, :, 0], [255, 0, 127])


def test_read_image_when_palette_has_a_transparent_colour_then_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    plain = read_image(saved(tmp_path, image, "plain.png"))
    np.testing.assert_array_equal(plain[0], [RED, (0, 0, 255)])
    for name, transparency in (("one.png", 1), ("bytes.png", b"\xff\x00"), ("one.gif", 1)):
        array = read_image(saved(tmp_path, image, name, transparency=transparency))
        np.testing.assert_array_equal(array[0], [RED, WHITE])


def test_read_image_when_rgb_png_names_a_transparent_colour_then_white(tmp_path):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (1, 2, 3))
    array = read_image(saved(tmp_path, image, "a.png", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(array[0], [RED, WHITE])


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_read_image_when_cmyk_then_colours_are_right(tmp_path, name):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    array = read_image(saved(tmp_path, image, name))
    np.testing.assert_allclose(array, np.broadcast_to(RED, array.shape), atol=3)


def test_read_image_when_one_bit_then_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(read_image(saved(tmp_path, image, "a.png"))[0, :, 0], [255, 0])


def test_read_image_when_animated_then_first_frame(tmp_path):
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), (0, 0, 255))
    path = saved(tmp_path, first, "a.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(path)[0, 0], RED)


def test_read_image_when_larger_than_a_strip_then_same_as_at_once():
    alpha = np.random.default_rng(0).integers(0, 256, (2100, 2000, 4), dtype=np.uint8)
    image = Image.fromarray(alpha)
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    np.testing.assert_array_equal(read_image(image), np.asarray(expected))


def test_read_image_when_array_is_grey_or_has_alpha_then_rgb():
    grey = np.array([[0, 200]], dtype=np.uint8)
    np.testing.assert_array_equal(read_image(grey), [[[0] * 3, [200] * 3]])
    clear = np.zeros((1, 1, 4), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(clear), [[WHITE]])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 3), dtype=np.int64),
        np.zeros((4, 4, 3), dtype=bool),
        np.zeros((3, 4, 4, 3), dtype=np.uint8),
        np.zeros((4, 4, 2), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros(5, dtype=np.uint8),
    ],
)
def test_read_image_when_array_is_of_another_kind_then_value_error_says_which(array):
    with pytest.raises(ValueError, match=rf"expected a uint8 array.*{array.dtype}"):
        read_image(array)


def test_read_image_when_nothing_is_there_then_file_not_found(tmp_path):
    for path in (tmp_path / "gone.png", tmp_path / "gone" / "a.png"):
        with pytest.raises(FileNotFoundError, match=r"found nothing at .*gone"):
            read_image(path)


def _not_images(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "zeros.png").write_bytes(bytes(1000))
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    whole = io.BytesIO()
    blocks().save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-200])
    return ["empty.jpg", "text.jpg", "zeros.png", "a.eps", "a.svg", "cut.jpg"]


def test_read_image_when_file_is_no_image_then_one_sentence_names_it(tmp_path):
    for name in _not_images(tmp_path):
        with pytest.raises(ValueError, match=r"^expected an image") as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_read_image_when_a_directory_or_device_then_value_error(tmp_path):
    with pytest.raises(ValueError, match="directory"):
        read_image(tmp_path)
    with pytest.raises(ValueError, match="device"):
        read_image("/dev/null")


@pytest.mark.parametrize("source", ["a\0b", "x" * 5000])
def test_read_image_when_path_is_impossible_then_value_error(source):
    with pytest.raises(ValueError, match=r"^expected an image"):
        read_image(source)


@pytest.mark.parametrize("source", [None, 5, b"bytes"])
def test_read_image_when_source_is_something_else_then_value_error_names_its_type(source):
    with pytest.raises(ValueError, match=type(source).__name__):
        read_image(source)


def _png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def _jpeg_header(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", _png_header(20_000, 15_000)),
        ("b.png", _png_header(10_001, 10_000)),  # just above, and above Pillow's warning
        ("a.jpg", _jpeg_header(20_000, 15_000)),
        ("a.ppm", b"P6 20000 15000 255\n"),
        ("a.gif", b"GIF89a\x0a\0\x0a\0\0\0\0,\0\0\0\0" + struct.pack("<HH", 60_000, 60_000) + b"\0\x02\x01\0\0;"),
    ],
)
def test_read_image_when_header_promises_too_many_pixels_then_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"at most {MAX_PIXELS} pixels.*{name}"):
        read_image(tmp_path / name)


def test_read_image_when_jpeg_repaints_itself_without_end_then_refused(tmp_path):
    data = _jpeg_header(9_000, 9_000)
    (tmp_path / "a.jpg").write_bytes(data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 500)
    with pytest.raises(ValueError, match="scans"):
        read_image(tmp_path / "a.jpg")


def _seeds():
    """The bytes of small files of every format and of many modes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    two_frames = {"save_all": True, "append_images": [blocks(1)]}
    kinds = [
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("MPO", "RGB", two_frames),
        ("PNG", "RGB", {"exif": exif}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "RGB", two_frames),
        ("WEBP", "RGB", {"exif": exif}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "RGB", two_frames),
        ("TIFF", "RGB", {"exif": exif}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "F", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("PPM", "RGB", {}),
    ]
    for image_format, mode, options in kinds:
        buffer = io.BytesIO()
        blocks().convert(mode).save(buffer, image_format, **options)
        yield buffer.getvalue()


def _damaged(data, rng):
    """One of: cut short, flipped bits, a changed header, a lost or added stretch."""
    broken = bytearray(data)
    match rng.integers(0, 4):
        case 0:
            return bytes(broken[: rng.integers(0, len(broken))])
        case 1:
            for at in rng.integers(0, len(broken), rng.integers(1, 20)):
                broken[at] ^= 1 << rng.integers(0, 8)
        case 2:
            for at in rng.integers(0, min(96, len(broken)), rng.integers(1, 6)):
                broken[at] = rng.choice([0, 1, 127, 128, 255])
        case _:
            at = int(rng.integers(0, len(broken)))
            broken[at : at + int(rng.integers(0, 40))] = rng.bytes(int(rng.integers(0, 40)))
    return bytes(broken)


def test_read_image_when_files_are_damaged_in_500_ways_then_array_or_one_sentence(tmp_path, capfd):
    path = tmp_path / "damaged.img"
    seeds = list(_seeds())
    sentences = []
    for number in range(500):
        path.write_bytes(_damaged(seeds[number % len(seeds)], np.random.default_rng(number)))
        try:
            array = read_image(path)
        except ValueError as error:
            sentences.append(str(error))
        else:
            assert array.dtype == np.uint8
            assert array.ndim == 3
            assert array.shape[2] == 3
    assert 50 < len(sentences) < 500
    odd = [s for s in sentences if not s.startswith("expected") or "damaged.img" not in s or "\n" in s]
    assert odd == []
    assert capfd.readouterr() == ("", "")  # nothing slips past Python either


def test_read_image_when_many_threads_read_then_warning_filters_are_as_before(tmp_path):
    path = saved(tmp_path, blocks(), "a.png")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(20)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_letterbox_when_wide_then_centred_with_padding_above_and_below():
    canvas, frame = letterbox(np.full((50, 100, 3), 200, dtype=np.uint8), 64)
    assert canvas.shape == (64, 64, 3)
    assert frame == Letterbox(hw=(50, 100), size=64, content_hw=(32, 64), pad_xy=(0, 16))
    assert (canvas[:16] == 114).all()
    assert (canvas[16:48] == 200).all()
    assert (canvas[48:] == 114).all()


def test_letterbox_when_box_is_worked_by_hand_then_agrees():
    frame = Letterbox.fit((50, 100), 64)
    assert frame.box_to_canvas((0, 0, 100, 50)) == pytest.approx((0, 16, 64, 48))
    assert frame.box_to_canvas((25, 25, 50, 50)) == pytest.approx((16, 32, 32, 48))


SIDES = st.integers(1, 3000)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.sampled_from([1, 32, 255, 416, 512]), st.tuples(*[st.floats(-100, 4000)] * 4))
def test_letterbox_when_box_goes_there_and_back_then_same(height, width, size, box):
    frame = Letterbox.fit((height, width), size)
    np.testing.assert_allclose(frame.box_to_image(frame.box_to_canvas(box), clip=False), box, atol=1e-6)
    assert frame.box_to_canvas((0, 0, width, height)) == pytest.approx(
        (*frame.pad_xy, frame.pad_xy[0] + frame.content_hw[1], frame.pad_xy[1] + frame.content_hw[0])
    )


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.tuples(*[st.floats(-1e5, 1e5)] * 4))
def test_letterbox_when_box_is_clipped_then_inside_the_image(height, width, box):
    x1, y1, x2, y2 = Letterbox.fit((height, width), 416).box_to_image(box)
    assert 0 <= x1 <= width
    assert 0 <= x2 <= width
    assert 0 <= y1 <= height
    assert 0 <= y2 <= height


@pytest.mark.parametrize("hw", [(1, 2000), (2000, 1), (1, 1), (333, 512), (7, 5)])
def test_letterbox_when_shape_is_extreme_then_map_returns_at_image_size(hw):
    canvas, frame = letterbox(np.zeros((*hw, 3), dtype=np.uint8), 128)
    assert canvas.shape == (128, 128, 3)
    back = frame.map_to_image(np.ones((32, 32), dtype=np.float32))
    assert back.shape == hw
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, 1, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(60, 400), st.integers(60, 400), st.integers(0, 1000), st.sampled_from([None, 64, 128]))
def test_letterbox_when_mask_goes_there_and_back_then_nearly_same(height, width, seed, size):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) * rng.uniform(0.3, 0.45)
    mask = (x - width * rng.uniform(0.4, 0.6)) ** 2 + (y - height * rng.uniform(0.4, 0.6)) ** 2 < radius**2
    frame = Letterbox.fit((height, width), 256)
    there = frame.mask_to_canvas(mask, size)
    assert there.shape == ((size or 256),) * 2
    assert there.dtype == bool
    back = frame.map_to_image(there.astype(np.float32)) > 0.5
    # a narrow image fills few of the small map's pixels
    assert (back & mask).sum() / (back | mask).sum() > (0.96 if min(height, width) / max(height, width) > 0.5 else 0.85)


def test_letterbox_when_mask_moves_to_canvas_then_its_box_is_the_moved_box():
    mask = np.zeros((300, 400), dtype=bool)
    mask[40:200, 100:360] = True
    frame = Letterbox.fit((300, 400), 512)
    moved = box_from_mask(frame.mask_to_canvas(mask))
    assert moved is not None
    assert box_iou(moved, frame.box_to_canvas((100, 40, 360, 200))) > 0.99


def test_letterbox_when_map_is_a_ramp_then_returns_unshifted_below_a_pixel():
    # a linear ramp along x over the canvas must come back as the same ramp over the image, at any map size
    frame = Letterbox.fit((300, 200), 256)
    for size in (64, 256):
        centres = (np.arange(size, dtype=np.float32) + 0.5) * (256 / size)
        back = frame.map_to_image(np.broadcast_to(centres, (size, size)))
        expected = (np.arange(200) + 0.5) * frame.scale_xy[0] + frame.pad_xy[0]
        inner = slice(20, 180)  # the outermost map pixels hold no more than their own value
        np.testing.assert_allclose(back[150, inner], expected[inner], atol=0.6)
        assert abs(float((back[150, inner] - expected[inner]).mean())) < 0.01


def test_letterbox_when_arguments_are_wrong_then_value_error():
    frame = Letterbox.fit((30, 40), 64)
    with pytest.raises(ValueError, match="square map"):
        frame.map_to_image(np.zeros((8, 9), dtype=np.float32))
    with pytest.raises(ValueError, match=r"\(30, 40\)"):
        frame.mask_to_canvas(np.zeros((40, 30), dtype=bool))
    with pytest.raises(ValueError, match="at least one pixel"):
        Letterbox.fit((0, 40), 64)


# squash


def test_squash_when_worked_by_hand_then_each_axis_has_its_scale_and_nothing_is_padded():
    canvas, frame = letterbox(np.full((20, 40, 3), 7, np.uint8), 80, resize="squash")
    assert (canvas == 7).all()
    assert (frame.scale_xy, frame.pad_xy, frame.content_hw) == ((2, 4), (0, 0), (80, 80))
    assert frame.box_to_canvas((10, 5, 20, 15)) == (20, 20, 40, 60)
    assert frame.box_to_image((20, 20, 40, 60)) == (10, 5, 20, 15)


def test_squash_when_a_mask_goes_and_comes_back_then_it_is_the_same():
    mask = np.zeros((20, 40), bool)
    mask[5:15, 10:20] = True
    frame = Letterbox.fit((20, 40), 80, "squash")
    canvas = frame.mask_to_canvas(mask)
    assert canvas[21:59, 20:40].all()  # the corners are rounded off
    assert not canvas[:20].any()
    assert not canvas[:, 40:].any()
    np.testing.assert_array_equal(frame.map_to_image(canvas.astype(np.float32)) >= 0.5, mask)


def test_letterbox_when_the_way_to_resize_is_unknown_then_refused():
    with pytest.raises(ValueError, match=r"expected resize to be one of \('letterbox', 'squash'\), got 'crop'"):
        Letterbox.fit((20, 40), 80, "crop")


# sizes from heads


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_image_hw_when_photo_is_turned_then_as_decoded(tmp_path, ending, orientation):
    photo, path = Image.new("RGB", (40, 20)), tmp_path / f"p.{ending}"
    exif = photo.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    photo.save(path, exif=exif)
    assert image_hw(path) == read_image(path).shape[:2]
    assert image_hw(path) == ((40, 20) if (orientation or 1) > 4 else (20, 40))


@pytest.mark.parametrize("ending", ["gif", "bmp", "ppm"])
def test_image_hw_when_format_has_no_orientation_then_as_stored(tmp_path, ending):
    Image.new("RGB", (40, 20)).save(tmp_path / f"p.{ending}")
    assert image_hw(tmp_path / f"p.{ending}") == (20, 40)


def test_image_hw_when_too_large_then_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    Image.new("1", (10_001, 10_000)).save(path)
    with pytest.raises(ValueError, match="at most 100000000 pixels, got 10001 x 10000"):
        image_hw(path)
    monkeypatch.setattr("deixis.geometry.images.MAX_FILE_BYTES", 9)
    with pytest.raises(ValueError, match="at most 9 bytes"):
        image_hw(path)


def test_image_hw_when_just_small_enough_then_read_without_a_warning(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "p.png")  # Pillow warns from 89 million pixels on
    assert image_hw(tmp_path / "p.png") == (10_000, 10_000)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"], ids=len)
def test_image_hw_when_file_is_no_image_then_in_the_words_of_reading(tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    told = []
    for read in (image_hw, read_image):
        with pytest.raises(ValueError, match=r"bad\.png") as caught:
            read(path)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_image_hw_when_it_is_a_folder_or_missing_then_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="got a directory"):
        image_hw(tmp_path)
    with pytest.raises(FileNotFoundError, match="none"):
        image_hw(tmp_path / "none.jpg")


def test_image_hw_when_exif_is_damaged_then_the_pixels_count(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "p.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert image_hw(tmp_path / "p.jpg") == (20, 40)
