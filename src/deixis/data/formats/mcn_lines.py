"""The text files of MCN: ``image.jpg x1,y1,x2,y2,category,referent ~ sentence ~ sentence``, a line a referent.

The first ~ may be missing. Boxes are whole pixels. The masks, where there are any, are arrays ``<referent>.npy`` in
a folder `deixis.data.annotation_masks.masks_folder`, as MCN wants them.
"""

from __future__ import annotations

import re
from pathlib import Path

from deixis.data.annotation_fields import safe_name, shorten
from deixis.data.annotation_masks import mask_file, masks_folder
from deixis.data.formats import Format, Request
from deixis.data.formats.image_folders import folders_above, image_id_of
from deixis.data.table import SampleTable, TableWriter

_LINE = re.compile(r"(\S.*?)\s+(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,18}),(-?\d{1,18})(?:\s+(.*))?")
_BETWEEN = re.compile(r"(?:\s+|^)~(?=\s|$)")
_SPLITS = ("trainval", "train", "val", "testA", "testB", "test")


def read_mcn_lines(path: str | Path, images: str | Path | None = None, *, need_images: bool = False) -> SampleTable:
    """Read such a file; a sample a sentence.

    Args:
        path: the file in UTF-8; its name ends in the split.
        images: the folder to look for the images below; by default the file's folder and the two above.
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
    folder = masks_folder(path)
    table = TableWriter(path)
    split = next((one for one in _SPLITS if path.stem.endswith(one)), "")
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if raw.strip():
            _add_line(table, number, raw, split, folder)
    bases = [Path(images)] if images is not None else folders_above(path)
    return table.finish(bases, need_images=need_images, what="lines")


def _add_line(table: TableWriter, number: int, raw: bytes, split: str, folder: Path | None) -> None:
    where = f"line {number}"
    try:
        line = raw.decode("utf-8").strip()
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"expected 'image x1,y1,x2,y2,category,referent ~ sentence ~ sentence', got {shorten(line)}; correct it"
            )
        sentences = _sentences(match[8] or "")
        file = safe_name(match[1])
        x1, y1, x2, y2 = (float(value) for value in match.groups()[1:5])
    except ValueError as error:
        why = f"expected text in UTF-8, got {shorten(raw)}; correct it" if isinstance(error, UnicodeError) else error
        table.leave_out(where, why, _count(raw))
        return
    place = table.image(image_id_of(file), file)
    mask = -1 if folder is None else table.mask(table.read_mask(where, lambda: mask_file(folder, match[7])))
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


def _sentences(text: str) -> list[str]:
    first, *others = _BETWEEN.split(text)
    return others if others and not first.strip() else [first, *others]


def _count(raw: bytes) -> int:
    """How many sentences a line seems to hold that cannot be read."""
    first, *others = _BETWEEN.split(raw.decode("utf-8", errors="replace").strip())
    return len(others) + (len(first.split()) > 2) or 1


def _read(request: Request) -> SampleTable:
    table = read_mcn_lines(request.path, request.images, need_images=request.need_images)
    return table.split(request.split)


FORMAT = Format(read=_read, names=("mcn",), suffix=".txt")
