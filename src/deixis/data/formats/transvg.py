"""The .pth files of TransVG and the one-stage family before it: a list of tuples, one an expression.

(image file, name, box, phrase, attributes) with the box x, y, width, height in ``unc``, ``unc+``, ``gref`` and
``gref_umd``, and x1, y1, x2, y2 in ``referit``; (image file, box x1, y1, x2, y2, phrase) in ``flickr``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from deixis.data.annotation_fields import four_numbers, safe_name, shorten
from deixis.data.formats import Format, Request
from deixis.data.formats.image_folders import find_layout, folders_above, image_id_of
from deixis.data.formats.pickles import read_torch_pickle
from deixis.data.table import SampleTable, TableWriter
from deixis.geometry.images import image_hw
from deixis.structures import BoxXyxy

_NAMED_FORMS = (("xywh", "xywh"), ("xyxy", "xyxy"), ("referit", "xyxy"), ("flickr", "xyxy"), ("unc", "xywh"),
                ("gref", "xywh"), ("refcoco", "xywh"))  # fmt: skip
_SPLIT = re.compile(r"(?:^|[_-])(trainval|train|val|testA|testB|test)$")
_PROBED_SIZES = 64


def read_transvg(
    path: str | Path,
    images: str | Path | None = None,
    *,
    need_images: bool = False,
) -> SampleTable:
    """Read a .pth file of tuples.

    Args:
        path: such as ``unc/unc_val.pth``; its name ends in the split.
        images: the folder to look for the images below; by default the file's folder and the two above.
        need_images: whether to refuse to go on without images.

    Returns:
        A sample a tuple. Its id is the tuple's name where all have names of their own, else its number. Whether boxes
        are corners or a corner and a size follows from the file's name, or, where that says nothing, from the boxes:
        those that run backwards as corners are sizes, those that reach over their image as sizes are corners.

    Raises:
        FileNotFoundError: there is no such file, or no images where they are needed.
        ValueError: it is no such file, asks for more than values, or nothing in it can be used.
    """
    path = Path(path)
    rows = read_torch_pickle(path)
    if not isinstance(rows, list | tuple):
        raise ValueError(f"expected a list of tuples in {str(path)!r}, got {type(rows).__name__}; check the file")
    bases = [Path(images)] if images is not None else folders_above(path)
    form = _form(path, rows, bases)
    match = _SPLIT.search(path.stem)
    table = TableWriter(path)
    for number, (row, name) in enumerate(zip(rows, _names(rows), strict=True)):
        with table.telling(f"tuple {number}"):
            file, box, phrase = _parts(row)
            file = safe_name(file)
            place = table.image(image_id_of(file), file)
            table.add(place, phrase, _box(box, form), name=name, split=match[1] if match else "")
    return table.finish(bases, need_images=need_images, what="tuples")


def _parts(row: object) -> tuple[object, object, object]:
    if isinstance(row, list | tuple) and len(row) == 5:
        return row[0], row[2], row[3]
    if isinstance(row, list | tuple) and len(row) in (3, 4):
        return (row[0], row[1], row[2]) if len(row) == 3 else (row[0], row[2], row[3])
    raise ValueError(
        f"expected (image, name, box, phrase, attributes) or (image, box, phrase), got {shorten(row)}; correct it"
    )


def _names(rows: Sequence[object]) -> Sequence[object]:
    names = [row[1] if isinstance(row, list | tuple) and len(row) in (4, 5) else None for row in rows]
    own = [name for name in names if isinstance(name, str) and name.strip()]
    return own if len(own) == len(names) == len(set(own)) else [number + 1 for number in range(len(rows))]


def _four(box: object) -> BoxXyxy:
    return four_numbers(box.tolist() if hasattr(box, "tolist") else box, "a box")  # type: ignore[union-attr]


def _box(box: object, form: str) -> BoxXyxy:
    x, y, z, w = _four(box)
    return (x, y, x + z, y + w) if form == "xywh" else (x, y, z, w)


def _form(path: Path, rows: Sequence[object], bases: list[Path]) -> str:
    told = next((form for word, form in _NAMED_FORMS if word in path.stem.lower()), None)
    if told is not None:
        return told
    if all(isinstance(row, list | tuple) and len(row) == 3 for row in rows):
        return "xyxy"
    known: list[tuple[str, BoxXyxy]] = []
    for row in rows:
        try:
            file, box, _ = _parts(row)
            known.append((safe_name(file), _four(box)))
        except ValueError:
            continue
    backwards = sum(box[2] <= box[0] or box[3] <= box[1] for _, box in known)
    if 2 * backwards < len(known) and _reach_over(known, bases):
        return "xyxy"
    return "xywh" if backwards or len(known) < _PROBED_SIZES else "xyxy"


def _reach_over(known: list[tuple[str, BoxXyxy]], bases: list[Path]) -> bool:
    """Whether boxes, taken as x, y, width and height, reach far over their images."""
    if not known:
        return False
    layout = find_layout(bases, "any", [(image_id_of(file), file) for file, _ in known], need_images=False)
    over = seen = 0
    for file, (x, y, w, h) in known[:: max(1, len(known) // _PROBED_SIZES)]:
        try:
            height, width = image_hw(layout.path(image_id_of(file), file))
        except (OSError, ValueError):
            continue
        seen += 1
        over += x + w > width + 2 or y + h > height + 2
    return over > 0.1 * seen


def _read(request: Request) -> SampleTable:
    table = read_transvg(request.path, request.images, need_images=request.need_images)
    return table.split(request.split)


FORMAT = Format(read=_read, names=("transvg",), suffix=".pth")
