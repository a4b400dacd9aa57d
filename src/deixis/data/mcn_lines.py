"""The text files of MCN: ``image.jpg x1,y1,x2,y2,category,referent sentence ~ sentence``, a line a referent.

Boxes are whole pixels. The masks, where there are any, are arrays ``<referent>.npy`` in a folder, as MCN wants them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from deixis.data.annotation_fields import shorten
from deixis.data.image_folders import image_id_of, safe_name
from deixis.data.sample_table import SampleTable
from deixis.geometry.images import MAX_PIXELS
from deixis.geometry.masks import encode_rle
from deixis.structures import Mask

_LINE = re.compile(r"(\S.*?)\s+(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,18}),(-?\d{1,18})(?:\s+(.*))?")
_BETWEEN = re.compile(r"(?:\s+|^)~(?=\s|$)")
_SPLITS = ("trainval", "train", "val", "testA", "testB", "test")


class McnLines(SampleTable):
    """Samples of such a file; a mask is read from its array when its sample is asked for."""

    def _mask(self, row: int) -> Mask | None:
        path = self._masks.get(row)
        return _read_array(path) if isinstance(path, Path) else None


def read_mcn_lines(
    path: str | Path,
    images: str | Path | None = None,
    *,
    masks: str | Path | None = None,
    limit: int | None = None,
    need_images: bool = False,
) -> McnLines:
    """Read such a file; a sample a sentence.

    Args:
        path: the file in UTF-8; its name tells the split.
        images: the folder to look for the images below; by default the file's folder and the two above.
        masks: the folder of arrays; by default ``<file>.masks`` or ``masks`` beside the file, where there is one.
        limit: at most so many samples, see `SampleTable.finish`.
        need_images: whether to refuse to go on without images.

    Returns:
        The samples; ``referents`` are the lines. An id is the line's number and the sentence's, ``12-0``.

    Raises:
        FileNotFoundError: there is no such file, or no images where they are needed.
        ValueError: no line can be used.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of MCN lines, got {str(path)!r}, which is no file; check the path")
    folder = _masks_folder(path, masks)
    table = McnLines(path)
    split = next((one for one in _SPLITS if path.stem.endswith(one)), "")
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if raw.strip():
            _add_line(table, number, raw, split, folder)
    bases = [Path(images)] if images is not None else [path.parent, path.parent.parent, path.parent.parent.parent]
    table.finish(bases, limit=limit, need_images=need_images, what="lines")
    return table


def _masks_folder(path: Path, masks: str | Path | None) -> Path | None:
    if masks is not None:
        return Path(masks)
    beside = (path.with_name(f"{path.name}.masks"), path.parent / "masks")
    return next((folder for folder in beside if folder.is_dir()), None)


def _add_line(table: McnLines, number: int, raw: bytes, split: str, folder: Path | None) -> None:
    where = f"line {number}"
    sentences: list[str] = [""]
    try:
        line = raw.decode("utf-8").strip()
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"expected 'image x1,y1,x2,y2,category,referent sentence ~ sentence', got {shorten(line)}; correct it"
            )
        sentences = _BETWEEN.split(match[8] or "")
        file = safe_name(match[1])
        x1, y1, x2, y2 = (float(value) for value in match.groups()[1:5])
    except ValueError as error:
        why = f"expected text in UTF-8, got {shorten(raw)}; correct it" if isinstance(error, UnicodeError) else error
        table.leave_out(where, why, len(sentences))
        return
    place = table.image(image_id_of(file), file)
    mask = None if folder is None else folder / f"{match[7]}.npy"
    if mask is not None and not mask.is_file():
        table.problems.append(f"{where}, read without its mask: expected {str(mask)!r}, got no file; add it")
        mask = None
    for order, sentence in enumerate(sentences):
        with table.telling(f"{where}, sentence {order}"):
            table.add(
                place,
                sentence.strip(),
                (x1, y1, x2, y2),
                name=f"{number}-{order}",
                mask=mask,
                split=split,
                referent=number,
            )


def _read_array(path: Path) -> Mask:
    """The array of a mask: whole numbers [H, W], where overlapping polygons may have given 2."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 2 or not 0 < array.size <= MAX_PIXELS or array.dtype.kind not in "biuf":
            raise ValueError(f"shape {array.shape!r} of {array.dtype}")
        return encode_rle(np.asarray(array) > 0)
    except FileNotFoundError:
        raise FileNotFoundError(f"expected the mask {str(path)!r}, got no file; add it") from None
    except Exception as error:  # a damaged header raises nearly everything
        raise ValueError(f"expected an array [H, W] in {str(path)!r}, got {error}; write it anew") from error
