"""Masks as MCN and SimREC keep them: an array ``<referent>.npy`` each, in a folder ``masks/<data set>``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deixis.geometry.images import MAX_PIXELS
from deixis.geometry.masks import encode_rle
from deixis.structures import Rle


def masks_folder(path: Path) -> Path | None:
    """The folder of arrays of a file of annotations, where there is one.

    That is ``<file>.masks`` or ``masks`` beside it; or, as both releases lie, ``masks/refcoco`` where the file is
    ``anns/refcoco/train.txt``, ``anns/refcoco/refcoco.json`` or ``anns/refcoco.json``.
    """
    above = path.absolute().parent
    beside = (path.with_name(f"{path.name}.masks"), path.parent / "masks")
    release = (above.parent.parent / "masks" / above.name, above.parent / "masks" / path.stem)
    return next((folder for folder in (*beside, *release) if folder.is_dir()), None)


def read_mask_array(path: Path) -> Rle:
    """The array of a mask: whole numbers [H, W], where overlapping polygons may have given 2.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.ndim != 2 or not 0 < array.size <= MAX_PIXELS or array.dtype.kind not in "biuf":
            raise ValueError(f"shape {array.shape!r} of {array.dtype}")
        return encode_rle(np.asarray(array) > 0)
    except FileNotFoundError:
        raise FileNotFoundError(f"expected the mask {str(path)!r}, got no file; add it") from None
    except Exception as error:  # a damaged header raises nearly everything
        raise ValueError(f"expected an array [H, W] in {str(path)!r}, got {error}; write it anew") from error
