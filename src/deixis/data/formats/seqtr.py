"""The files of SeqTR and SimREC: an object of splits, each a list of referents with their expressions.

SeqTR's ``{"train": [{"image_id", "width", "height", "bbox": [x, y, w, h], "expressions": [...], "mask", "category"?,
"data_source"?}, ...], "val": ...}``; ``data_source`` is ``coco``, ``vg``, ``saiaprtc12`` or ``flickr`` in the mix of
data sets, where further splits such as ``val_refcoco_unc`` stand. SimREC's ``{"train": [{"iid", "bbox", "refs": [...],
"cat_id", "mask_id"}, ...]}`` names the masks, arrays in a folder of their own (`masks_folder`), and has no sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deixis.data.annotation_fields import (
    Key,
    Record,
    four_numbers,
    read_key,
    record_of,
    safe_name,
    shorten,
    stated_hw,
    words_or_none,
)
from deixis.data.annotation_masks import PackedMask, mask_file, masks_folder, pack_mask
from deixis.data.formats import Format, Request
from deixis.data.formats.image_folders import folders_above, image_id_of
from deixis.data.formats.json_stream import Element, stream_json
from deixis.data.table import SampleTable, TableWriter

_COLLECTIONS = {"coco": "coco", "vg": "vg", "visual-genome": "vg", "saiaprtc12": "saiapr", "saiapr": "saiapr",
                "referit": "saiapr", "refclef": "saiapr", "flickr": "flickr", "flickr30k": "flickr"}  # fmt: skip


def read_seqtr(
    path: str | Path,
    images: str | Path | None = None,
    split: str = "val",
    *,
    need_images: bool = False,
) -> SampleTable:
    """Read one split of the file; a sample an expression.

    Args:
        path: the file.
        images: the folder to look for the images below; by default the file's folder and the two above.
        split: a key of the file's object.
        need_images: whether to refuse to go on without images.

    Returns:
        The samples; ``referents`` are the file's entries. An id is the entry's number and the expression's, ``12-0``,
        or what the entry states under ``ids``.

    Raises:
        FileNotFoundError: there is no such file, or no images where they are needed.
        ValueError: it is no such file, has no such split, or nothing in the split can be used.
    """
    path = Path(path)
    table, splits, release = TableWriter(path), dict[str, None](), _Release(_collection(path), masks_folder(path))
    for element in stream_json(path):
        if element.number is not None or element.value == []:
            splits[element.key] = None
        if element.key == split and element.number is not None:
            _add_entry(table, element, release)
    if split not in splits:
        raise ValueError(f"expected the split {split!r} in {str(path)!r}, got {list(splits)!r}; choose one of these")
    bases = [Path(images)] if images is not None else folders_above(path)
    return table.finish(bases, need_images=need_images, what=f"expressions of the split {split!r}")


class _Release(NamedTuple):
    """What an entry does not say: whose image it means, and where the arrays of masks are."""

    collection: str
    masks: Path | None


def _collection(path: Path) -> str:
    """Whose images a file without ``data_source`` means, by the names of its folder and of the file."""
    names = f"{path.parent.name}/{path.stem}".lower()
    return next((kind for word, kind in _COLLECTIONS.items() if word in names), "coco")


def _add_entry(table: TableWriter, element: Element, release: _Release) -> None:
    where, stated = element.where, element.value if isinstance(element.value, dict) else {}
    expressions = stated.get("expressions", stated.get("refs"))
    count = len(expressions) if isinstance(expressions, list) else 1
    with table.telling(where, count):
        entry = record_of(element.value)
        if not isinstance(expressions, list):
            raise ValueError(f"expected a list of expressions, got {shorten(expressions)}; correct it")
        place = _image(table, entry, release.collection)
        box = None
        if entry.get("bbox", ...) is not None:
            x, y, w, h = four_numbers(entry.get("bbox"), "a bbox [x, y, width, height]")
            box = table.inside((x, y, x + w, y + h), stated_hw(entry))
        mask = table.mask(table.read_mask(where, lambda: _mask(entry, release.masks)))
        ids = entry.get("ids")
        names = ids if isinstance(ids, list) and len(ids) == count else [f"{element.number}-{i}" for i in range(count)]
        for number, (phrase, name) in enumerate(zip(expressions, names, strict=True)):
            with table.telling(f"{where}, expression {number}"):
                table.add(
                    place,
                    phrase,
                    box,
                    name=name,
                    mask=mask,
                    split=element.key,
                    category=words_or_none(entry.get("category")),
                    kind=words_or_none(entry.get("kind")),
                    referent=element.number,
                )


def _image(table: TableWriter, entry: Record, collection: str) -> int:
    image = read_key(entry, "iid" if "iid" in entry and "image_id" not in entry else "image_id")
    source = entry.get("data_source")
    if isinstance(source, str):
        collection = _COLLECTIONS.get(source.lower(), "any")
    stated = entry.get("file_name", entry.get("url"))
    if stated is not None:
        return table.image(image, safe_name(stated), "any")
    if isinstance(image, str) and image.lower().endswith(".jpg"):  # as in SimREC's mix
        image = read_key({"iid": image_id_of(safe_name(image))}, "iid")
    return table.image(image, _file_name(image, collection), collection)


def _file_name(image: Key, collection: str) -> str:
    is_coco = collection == "coco" and isinstance(image, int) and image >= 0
    return f"COCO_train2014_{image:012d}.jpg" if is_coco else f"{image}.jpg"


def _mask(entry: Record, folder: Path | None) -> PackedMask:
    if entry.get("mask") is None and folder is not None and entry.get("mask_id") is not None:
        return mask_file(folder, safe_name(str(read_key(entry, "mask_id"))))
    return pack_mask(entry.get("mask"))


def _read(request: Request) -> SampleTable:
    return read_seqtr(request.path, request.images, request.split or "val", need_images=request.need_images)


def _is_head(element: Element) -> bool:
    value = element.value
    is_listed = element.number is not None and element.key not in ("images", "annotations", "categories")
    return is_listed and isinstance(value, dict) and "bbox" in value and ("expressions" in value or "refs" in value)


def _locate(root: Path) -> Path | None:
    path = root / "instances.json"  # holds all splits
    return path if path.is_file() else None


FORMAT = Format(read=_read, names=("seqtr",), default_split="val", suffix=".json", is_head=_is_head, locate=_locate)
