"""Images: any file or array to uint8 RGB, and the letterbox with its exact way back.

For any file, :func:`read_image` returns an array or raises an error of one sentence that names the file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.structures import BoxXyxy

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its notes on damaged files land on stderr

MAX_PIXELS = 100_000_000
"""Images and masks with more pixels are refused before they are decoded."""
FILL = 114
"""Grey of the canvas around a letterboxed image."""
MAX_FILE_BYTES = 512 * 1024**2
"""Files with more bytes are refused before they are read."""
RESIZES = ("letterbox", "squash")
"""How an image fits the canvas: in its own shape with grey around it, or stretched to fill it."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are read. Pillow knows others, some of which start programs or parse without bounds."""

ImageSource = str | Path | Image.Image | NDArray[np.uint8]

_MAX_SCAN_PIXELS = 2_000_000_000  # a progressive JPEG paints all pixels once a scan, and may have thousands of scans
_STRIP_PIXELS = 4_000_000  # large images change mode strip by strip, which keeps the peak of memory low
_EIGHT_OF_SIXTEEN = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
_ORIENTATION_TAG = 0x0112
_STDERR_LOCK = threading.Lock()


def read_image(source: ImageSource) -> NDArray[np.uint8]:
    """Return the image as a fresh uint8 array [H, W, 3], RGB, the right way up.

    EXIF rotation is applied; CMYK, palette, grey and 1-bit images become RGB; transparent images are laid over white;
    16-bit grey is scaled to 8 bits; an animation gives its first frame. 32-bit integers count as 16-bit values and
    floats as 0..1 or 0..255 if they fit; otherwise their range is stretched to 0..255.

    Args:
        source: a file of one of :data:`FORMATS`, a PIL image, or a uint8 array [H, W, 3], [H, W] or [H, W, 4].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file, PIL image or array cannot be read as an image.
    """
    if isinstance(source, np.ndarray):
        return _rgb_from_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "the given PIL image")
    if not isinstance(source, str | Path):
        raise ValueError(f"expected an image file, a PIL image or a uint8 array, got {type(source).__name__}")
    with _open(Path(source)) as image:
        return _decode(image, f"{str(source)!r}")


def image_hw(source: Path | NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) as `read_image` would give them; of a file only the head is read.

    A file whose head is not plain is decoded after all, so that it is refused in the same words. An orientation that
    a PNG states behind its pixels is not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image that `read_image` takes.
    """
    if isinstance(source, np.ndarray):
        return int(source.shape[0]), int(source.shape[1])
    hw = _head_hw(source)
    if hw is None:
        height, width, _ = read_image(source).shape
        return height, width
    return hw


def _head_hw(path: Path) -> tuple[int, int] | None:
    """(height, width) where the head of a file tells them plainly."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                exif = Image.Image.getexif(image)  # that of the PNG plug-in would decode the pixels first
                is_turned, is_tiff = exif.get(_ORIENTATION_TAG) in (5, 6, 7, 8), image.format == "TIFF"
    except Exception:  # Pillow's parsers raise anything on damaged files; decoding says what is wrong
        return None
    if min(width, height) < 1 or width * height > MAX_PIXELS or (is_tiff and is_turned):  # Pillow turns TIFF itself
        return None
    return (width, height) if is_turned else (height, width)


def read_mask_file(path: Path) -> NDArray[np.bool_]:
    """Return a mask image file as bool [H, W]: True where any channel except alpha, or a palette index, is not zero.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image that can be read.
    """
    with _open(path) as image, _quiet_pillow(), _mute_libtiff(image.format):
        _check_size(image.size, f"{str(path)!r}")
        try:
            values = np.array(image)
        except Exception as error:  # Pillow raises nearly anything on damaged files
            raise ValueError(_unreadable(f"{str(path)!r}", error)) from error
        has_alpha = image.mode in ("LA", "PA", "RGBA")
    if values.ndim == 3:
        values = values[..., : values.shape[-1] - has_alpha].any(axis=-1)
    return values != 0


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """How an image of ``hw`` lies in a square canvas of ``size`` pixels, and the exact way back.

    A squashed image fills the canvas, with a separate scale for each axis. Otherwise the content is rounded to whole
    pixels, so that the two scales differ slightly; both are kept exactly.
    """

    hw: tuple[int, int]
    """(height, width) of the original image in pixels."""
    size: int
    """Side of the canvas in pixels."""
    content_hw: tuple[int, int]
    """(height, width) of the resized image inside the canvas, in canvas pixels."""
    pad_xy: tuple[int, int]
    """Canvas pixels to the left of and above the content."""

    @classmethod
    def fit(cls, hw: tuple[int, int], size: int, resize: str = "letterbox") -> Letterbox:
        """Centre an image of ``hw`` in a canvas of ``size`` so that its longer side fills the canvas.

        With ``resize="squash"`` both sides fill it, and the image's shape changes.
        """
        if min(*hw, size) < 1:
            raise ValueError(f"expected sides of at least one pixel, got an image of {hw!r} and a canvas of {size!r}")
        if resize not in RESIZES:
            raise ValueError(f"expected resize to be one of {RESIZES}, got {resize!r}; choose one")
        if resize == "squash":
            return cls(hw=hw, size=size, content_hw=(size, size), pad_xy=(0, 0))
        scale = size / max(hw)
        height, width = (min(size, max(1, round(side * scale))) for side in hw)
        return cls(hw=hw, size=size, content_hw=(height, width), pad_xy=((size - width) // 2, (size - height) // 2))

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Canvas pixels per image pixel, exact, along x and along y."""
        return self.content_hw[1] / self.hw[1], self.content_hw[0] / self.hw[0]

    def box_to_canvas(self, box_xyxy_px: Sequence[float]) -> BoxXyxy:
        """Move a box from original image pixels to canvas pixels."""
        (sx, sy), (px, py) = self.scale_xy, self.pad_xy
        x1, y1, x2, y2 = (float(v) for v in box_xyxy_px)
        return x1 * sx + px, y1 * sy + py, x2 * sx + px, y2 * sy + py

    def box_to_image(self, box_xyxy_canvas: Sequence[float], clip: bool = True) -> BoxXyxy:
        """Move a box from canvas pixels to original image pixels; ``clip`` moves its edges into the image."""
        (sx, sy), (px, py) = self.scale_xy, self.pad_xy
        x1, y1, x2, y2 = (float(v) for v in box_xyxy_canvas)
        x1, y1, x2, y2 = (x1 - px) / sx, (y1 - py) / sy, (x2 - px) / sx, (y2 - py) / sy
        if not clip:
            return x1, y1, x2, y2
        height, width = self.hw
        return min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)

    def mask_to_canvas(self, mask: NDArray[np.bool_], size: int | None = None) -> NDArray[np.bool_]:
        """Move a mask [H, W] of the original image to the canvas.

        Args:
            mask: bool [H, W].
            size: side of the result, to which the canvas is reduced (canvas 512, size 128: the mask at stride 4).

        Returns:
            bool [size, size]: True where at least half of the pixel is covered; padding is False.
        """
        if mask.shape != self.hw:
            raise ValueError(f"expected a mask of the image's shape {self.hw!r}, got {mask.shape!r}")
        height, width = self.content_hw
        content = Image.fromarray(np.asarray(mask, dtype=np.uint8) * np.uint8(255))
        canvas = Image.new("L", (self.size, self.size))
        canvas.paste(content.resize((width, height), Image.Resampling.BILINEAR), self.pad_xy)
        if size is not None and size != self.size:
            canvas = canvas.resize((size, size), Image.Resampling.BOX)
        return np.asarray(canvas) >= 128

    def map_to_image(self, prob: NDArray[np.floating]) -> NDArray[np.float32]:
        """Move a map [s, s] over the canvas, s of any size, to the original image: float32 [H, W].

        The padding is cut off at sub-pixel precision and the rest resized bilinearly. Threshold afterwards.
        """
        if prob.ndim != 2 or prob.shape[0] != prob.shape[1]:
            raise ValueError(f"expected a square map [s, s] over the canvas, got shape {prob.shape!r}")
        (px, py), (height, width), unit = self.pad_xy, self.content_hw, prob.shape[0] / self.size
        content = (px * unit, py * unit, (px + width) * unit, (py + height) * unit)
        source = Image.fromarray(np.ascontiguousarray(prob, dtype=np.float32))
        return np.array(source.resize((self.hw[1], self.hw[0]), Image.Resampling.BILINEAR, box=content))


def letterbox(
    image: NDArray[np.uint8], size: int, fill: int = FILL, resize: str = "letterbox"
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Fit an image into a square canvas, keeping its shape.

    Args:
        image: uint8 [H, W, 3].
        size: side of the canvas in pixels.
        fill: grey value of the padding.
        resize: ``letterbox``, or ``squash``, which changes the shape and leaves no padding.

    Returns:
        The canvas, uint8 [size, size, 3] (bilinear, antialiased when it shrinks), and the way back.
    """
    frame = Letterbox.fit((image.shape[0], image.shape[1]), size, resize)
    height, width = frame.content_hw
    content = image
    if frame.content_hw != frame.hw:
        content = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    canvas = np.full((size, size, 3), fill, dtype=np.uint8)
    left, top = frame.pad_xy
    canvas[top : top + height, left : left + width] = content
    return canvas, frame


def _open(path: Path) -> Image.Image:
    """Open a file of a known format, reading its header only."""
    name = f"{str(path)!r}"
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"expected an image file, found nothing at {name}; check the path") from error
    except (OSError, ValueError) as error:
        raise ValueError(_unreadable(name, error)) from error
    if not stat.S_ISREG(state.st_mode):
        kind = "a directory" if stat.S_ISDIR(state.st_mode) else "a device or pipe"
        raise ValueError(f"expected an image file, got {kind}: {name}; name a file")
    if state.st_size == 0:
        raise ValueError(f"expected an image file, got an empty file: {name}; replace it")
    if state.st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"expected a file of at most {MAX_FILE_BYTES} bytes, got {state.st_size}: {name}; make it smaller"
        )
    with _quiet_pillow():
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ValueError(f"expected at most {MAX_PIXELS} pixels, got far more: {name}; make it smaller") from error
        except Exception as error:  # Pillow raises nearly anything on damaged files
            raise ValueError(_unreadable(name, error)) from error
    if image.format in ("JPEG", "MPO"):
        try:
            _check_scans(path, image.size, name)
        except (OSError, ValueError):
            image.close()
            raise
    return image


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8]:
    _check_size(image.size, name)
    with _quiet_pillow(), _mute_libtiff(image.format):
        try:
            image.load()
            _check_size(image.size, name)
            array = _rgb_from_pil(image)
        except Exception as error:  # Pillow raises nearly anything on damaged files
            raise ValueError(_unreadable(name, error)) from error
        try:
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        except Exception:
            orientation = 1  # damaged EXIF says nothing about the pixels, which are fine
    return np.ascontiguousarray(_turned(array, orientation))


def _rgb_from_array(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shape_fits or 0 in array.shape:
        raise ValueError(
            f"expected a uint8 array [H, W, 3], got {array.dtype} {list(array.shape)}; convert it (RGB, 0..255) first"
        )
    _check_size((array.shape[1], array.shape[0]), "the given array")
    if array.ndim == 3 and array.shape[2] == 3:
        return np.array(array, order="C")
    return _rgb_from_pil(Image.fromarray(array))


def _rgb_from_pil(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("I", "F"):
        return _rgb_from_grey(_eight_bit(np.asarray(image), is_float=image.mode == "F"))
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if rows >= height:
        return _rgb_strip(image)
    array = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        array[top:bottom] = _rgb_strip(image.crop((0, top, width, bottom)))
    return array


def _rgb_strip(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return _rgb_from_grey(_EIGHT_OF_SIXTEEN[np.asarray(image)])
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _rgb_from_grey(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=-1)


def _eight_bit(values: NDArray[np.generic], is_float: bool) -> NDArray[np.uint8]:
    """Scale 32-bit grey values to 0..255: by their nominal range where they fit it, else by their own."""
    with np.errstate(invalid="ignore"):  # damaged floats may be signalling NaNs
        finite = np.clip(np.nan_to_num(values.astype(np.float32), nan=0.0), -1e30, 1e30)
    low, high = float(finite.min()), float(finite.max())
    ranges = (1.0, 255.0) if is_float else (65535.0,)
    fits = [top for top in ranges if low >= 0 and high <= top]
    low, high = (0.0, fits[0]) if fits else (low, high)
    if high <= low:
        return np.zeros(finite.shape, dtype=np.uint8)
    return np.rint((finite - low) * (255 / (high - low))).astype(np.uint8)


def _turned(array: NDArray[np.uint8], orientation: object) -> NDArray[np.uint8]:
    """Undo an EXIF orientation (1..8; anything else counts as 1)."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _check_size(size_wh: tuple[int, int], name: str) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise ValueError(f"expected an image with pixels, got {width} x {height}: {name}; replace it")
    if width * height > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS} pixels, got {width} x {height}: {name}; make it smaller")


def _check_scans(path: Path, size_wh: tuple[int, int], name: str) -> None:
    scans = path.read_bytes().count(b"\xff\xda")
    if scans * size_wh[0] * size_wh[1] > _MAX_SCAN_PIXELS:
        raise ValueError(f"expected an ordinary JPEG, got one with {scans} scans: {name}; save it again")


def _unreadable(name: str, error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        reason = os.strerror(error.errno) if error.errno else error.strerror
    elif "cannot identify image file" in reason:
        reason = f"not one of {', '.join(FORMATS)}"
    return f"expected an image that can be read, got {name} ({reason}); replace or convert it"


class _Quiet:
    """How many threads are reading an image, and the filters to restore when the last one is done."""

    lock = threading.Lock()
    depth = 0
    filters: warnings.catch_warnings[None] | None = None


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Hide Pillow's warnings about damaged metadata from the user; errors are still raised.

    ``warnings`` has one state for all threads, so the first reader sets it and the last one restores it.
    """
    with _Quiet.lock:
        if _Quiet.depth == 0:
            _Quiet.filters = warnings.catch_warnings()
            _Quiet.filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
        _Quiet.depth += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.depth -= 1
            if _Quiet.depth == 0 and _Quiet.filters is not None:
                _Quiet.filters.__exit__(None, None, None)


@contextlib.contextmanager
def _mute_libtiff(image_format: str | None) -> Iterator[None]:
    """Discard standard error while a TIFF decodes.

    libtiff writes a line for every damaged row, which nothing in Python can switch off; the exception says enough.
    """
    if image_format != "TIFF":
        yield
        return
    with _STDERR_LOCK, open(os.devnull, "wb") as nowhere:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # a process without a standard error file: nothing to keep clean
            yield
            return
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
