"""COCO JSON with captions, as MDETR, Grounding DINO and their kin train on: images that carry a ``caption``.

An entry of ``images`` is an image with one caption, its annotations say by ``tokens_positive`` which letters of the
caption mean them. In referring expressions (``dataset_name`` refcoco and the like) the caption is the phrase of its
annotations, of which gRefCOCO has several, or one marked ``empty``; in Flickr30k, Visual Genome and the mix each span
of letters is a phrase. Several boxes of one phrase are joined to one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from deixis.data.annotation_fields import (
    Key,
    Record,
    box_around,
    check_phrase,
    four_numbers,
    read_key,
    read_words,
    record_of,
    safe_name,
    shorten,
    stated_hw,
    words_or_none,
)
from deixis.data.annotation_masks import PackedMask, merge_masks, pack_mask
from deixis.data.formats import Format, Request
from deixis.data.formats.image_folders import folders_above, image_id_of
from deixis.data.formats.json_stream import Element, stream_json
from deixis.data.table import SampleTable, TableWriter
from deixis.structures import BoxXyxy

_SPLIT = re.compile(r"(?:^|[_-])(trainval|train|val|testA|testB|test)(?:$|[_-])")
_REFERRING = ("ref", "clef", "deixis")
_SPANS = ("flickr", "mixed", "vg")
_KEPT = ("dataset_name", "sample_id", "split", "kind", "category")
SEVERAL = "several"
"""The ``kind`` of a sample whose box joins several."""


_Span: TypeAlias = tuple[tuple[int, int], ...]
"""What of a caption, as places of letters: [start, end) each."""


@dataclass
class _Caption:
    """An entry of ``images``."""

    number: int
    text: str
    file: str
    image: Key
    hw: tuple[int, int] | None
    record: Record
    targets: list[_Target] = field(default_factory=list)
    bad: int = 0
    told: str = ""


@dataclass
class _Target:
    """An annotation; ``span`` is what it means in the caption, None for all of it."""

    box: BoxXyxy
    mask: PackedMask
    category: Key | None
    span: _Span | None


def is_captioned(element: Element) -> bool:
    """Whether an element of a file's ``images`` is one of this form."""
    return element.key == "images" and isinstance(element.value, dict) and "caption" in element.value


def read_mdetr(path: str | Path, images: str | Path | None = None, *, need_images: bool = False) -> SampleTable:
    """Read such a file.

    Args:
        path: the file; its name ends in the split, as in ``finetune_refcoco_val.json``, unless its entries state it.
        images: the folder to look for the images below; by default the file's folder and the two above.
        need_images: whether to refuse to go on without images.

    Returns:
        A sample a caption or a span of it. A referring caption without annotations means nothing: its box is None. The
        category is the annotation's where the file names more than one.

    Raises:
        FileNotFoundError: there is no such file, or no images where they are needed.
        ValueError: it is no such file, or nothing in it can be used.
    """
    path = Path(path)
    table, captions, names = TableWriter(path), dict[Key, _Caption](), dict[Key, str]()
    late: list[Element] = []
    parts: dict[str, bool] = dict.fromkeys(("images", "annotations", "categories"), False)
    for element in stream_json(path):
        is_part = element.key in parts and (element.number is not None or element.value == [])
        if not is_part:
            continue
        parts[element.key] = True
        if element.number is None:
            continue
        if element.key == "images":
            _add_caption(table, captions, element)
        elif element.key == "categories":
            _add_category(table, names, element)
        elif parts["images"]:
            _add_target(table, captions, element)
        else:
            late.append(element)
    for element in late:
        _add_target(table, captions, element)
    if not (parts["images"] and parts["annotations"]):
        raise ValueError(f"expected lists 'images' and 'annotations' in {str(path)!r}, got {parts!r}; check the file")
    match = _SPLIT.search(path.stem)
    _add_samples(table, list(captions.values()), names, match[1] if match else "")
    bases = [Path(images)] if images is not None else folders_above(path)
    return table.finish(bases, need_images=need_images, what="captions")


def _add_category(table: TableWriter, names: dict[Key, str], element: Element) -> None:
    try:
        record = record_of(element.value)
        names[read_key(record, "id")] = read_words(record, "name")
    except ValueError as error:
        table.problems.append(f"{element.where}: {error}")


def _add_caption(table: TableWriter, captions: dict[Key, _Caption], element: Element) -> None:
    with table.telling(element.where):
        record = record_of(element.value)
        key = read_key(record, "id")
        if key in captions:
            raise ValueError(f"expected an id of its own, got {key!r} again; renumber it")
        file = safe_name(record.get("file_name"))
        hw = stated_hw(record)
        image = next((read_key(record, name) for name in ("original_img_id", "original_id", "image_id")
                      if record.get(name) is not None), image_id_of(file))  # fmt: skip
        kept = {name: record[name] for name in _KEPT if name in record}
        text = check_phrase(record.get("caption"))
        captions[key] = _Caption(element.number or 0, text, file, image, hw, kept)


def _add_target(table: TableWriter, captions: dict[Key, _Caption], element: Element) -> None:
    caption = None
    try:
        record = record_of(element.value)
        caption = captions.get(read_key(record, "image_id"))
        if caption is None:
            raise ValueError(f"expected the id of an image, got {shorten(record['image_id'])}; add or correct it")
        if record.get("empty") is True:  # gRefCOCO's way to say that the caption means nothing
            return
        x, y, w, h = four_numbers(record.get("bbox"), "a bbox [x, y, width, height]")
        if w <= 0 or h <= 0:
            raise ValueError(f"expected a bbox with an area, got {record['bbox']!r}; correct or drop it")
        box = table.inside((x, y, x + w, y + h), caption.hw)
        span = _span(record.get("tokens_positive"), len(caption.text))
        category = None if record.get("category_id") is None else read_key(record, "category_id")
        mask = table.read_mask(element.where, lambda: pack_mask(record.get("segmentation")))
        caption.targets.append(_Target(box, mask, category, span))
    except ValueError as error:
        if caption is None:
            table.problems.append(f"{element.where}: {error}")
        else:
            caption.bad += 1
            caption.told = caption.told or f"{element.where}: {error}"


def _span(value: object, length: int) -> _Span | None:
    if value is None or value == []:
        return None
    pairs = value if isinstance(value, list) and isinstance(value[0], list) else [value]
    for pair in pairs:
        ends = pair if isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair) else (1, 0)
        if not 0 <= ends[0] < ends[1] <= length:
            raise ValueError(f"expected tokens_positive inside a caption of {length} letters, got {shorten(value)}")
    return tuple((start, end) for start, end in cast("list[list[int]]", pairs))


def _add_samples(table: TableWriter, captions: list[_Caption], names: dict[Key, str], split: str) -> None:
    single = all(len(caption.targets) + caption.bad <= 1 for caption in captions)
    for caption in captions:
        where = f"images[{caption.number}]"
        if caption.bad and not caption.targets:
            table.leave_out(where, caption.told)
            continue
        if caption.bad:
            table.problems.append(caption.told)
        name = str(caption.record.get("dataset_name", "")).lower()
        spans = any(word in name for word in _SPANS)
        if spans and not caption.targets:
            table.leave_out(where, "no box for any phrase of the caption, such as a scene")
            continue
        whole = any(word in name for word in _REFERRING) or (single and not spans)
        groups: dict[_Span | None, list[_Target]] = {}
        for target in caption.targets:
            for span in [None] if whole or target.span is None else _phrases_of(target.span, name):
                groups.setdefault(span, []).append(target)
        place = table.image(caption.image, caption.file)
        stated = caption.record.get("split")
        for number, (span, targets) in enumerate((groups or {None: []}).items()):
            phrase = caption.text if span is None else " ".join(caption.text[a:b].strip() for a, b in span)
            told = caption.record.get("sample_id")
            with table.telling(f"{where}, phrase {number}"):
                table.add(
                    place,
                    phrase,
                    box_around([target.box for target in targets]),
                    name=told if isinstance(told, str | int) else f"{caption.number}-{number}",
                    mask=table.mask(_joined_mask(targets, caption.hw)),
                    split=stated if isinstance(stated, str) else split,
                    category=_category(targets, names) or words_or_none(caption.record.get("category")),
                    kind=SEVERAL if len(targets) > 1 else words_or_none(caption.record.get("kind")),
                )


def _phrases_of(span: _Span, name: str) -> list[_Span]:
    """In Flickr30k each stretch of letters is a phrase of its own ("a man", "he"), elsewhere all are one phrase."""
    return [(one,) for one in span] if "flickr" in name else [span]


def _category(targets: list[_Target], names: dict[Key, str]) -> str | None:
    """The category, where there is more than the one that MDETR gives to all."""
    if len(names) < 2 or not targets or targets[0].category is None:
        return None
    return names.get(targets[0].category)


def _joined_mask(targets: list[_Target], hw: tuple[int, int] | None) -> PackedMask:
    if len(targets) == 1:
        return targets[0].mask
    masks = [target.mask for target in targets]
    if hw is None and not all(isinstance(mask, tuple) for mask in masks):
        return None
    return merge_masks(masks, hw or (1, 1))


def _read(request: Request) -> SampleTable:
    table = read_mdetr(request.path, request.images, need_images=request.need_images)
    return table.split(request.split)


FORMAT = Format(read=_read, names=("mdetr",), suffix=".json", is_head=is_captioned)
