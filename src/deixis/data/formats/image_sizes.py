"""The size of an image file, read from its head alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.images import FORMATS, MAX_PIXELS

_ORIENTATION = 0x0112


def image_hw(image: Path | NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) as `deixis.geometry.images.read_image` would give it, without decoding the pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image.
    """
    if isinstance(image, np.ndarray):
        return int(image.shape[0]), int(image.shape[1])
    from PIL import Image

    if not image.is_file():
        raise FileNotFoundError(f"expected an image, got {str(image)!r}, which is no file; check the path")
    try:
        with Image.open(image, formats=FORMATS) as opened:
            width, height = opened.size
            turned = opened.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except Exception as error:  # Pillow raises nearly everything on damaged files
        raise ValueError(f"expected an image in {str(image)!r}, got something else ({error}); replace it") from error
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"expected an image of at most {MAX_PIXELS} pixels in {str(image)!r}, got more; replace it")
    return (width, height) if turned else (height, width)
