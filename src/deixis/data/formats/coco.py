"""COCO instances files. One bad record is reported and left out; it never loses the rest.

The files hold a hundred megabytes and more of polygons. Those of images that are not needed are dropped while the text
is parsed, the rest is kept as arrays of numbers: eight bytes a coordinate instead of thirty-two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

from deixis.data.annotation_fields import (
    Key,
    Record,
    clip_to,
    four_numbers,
    has_half_letters,
    read_key,
    read_words,
    record_of,
    shorten,
    stated_hw,
)
from deixis.data.annotation_masks import PackedMask, pack_mask, pack_polygons, unpack_mask
from deixis.data.dataset import Dataset
from deixis.data.formats import Format, Request
from deixis.structures import BoxXyxy, Instance

_PARTS = ("images", "annotations", "categories")
_NOT_NEEDED = object()


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """An image of the file: ``hw`` is (height, width) as the file states it, ``license`` the file's id or None."""

    id: int
    path: Path
    hw: tuple[int, int]
    license: int | None = None
    file_name: str = ""
    """As the file states it; empty where that leads elsewhere."""


class Annotation(NamedTuple):
    """An annotated instance with its mask packed."""

    category: str
    box_xyxy_px: BoxXyxy
    mask: PackedMask
    is_crowd: bool


@dataclass
class CocoInstances:
    """The images and annotated instances of a COCO instances file.

    ``problems`` holds one sentence for each record that was left out, or whose mask was. ``clipped_boxes`` counts
    the boxes that reached over the image's border and were cut there. ``places`` says by (image id, annotation id)
    where in ``annotations[image id]`` an annotation stands, and ``unreadable`` why one was left out; both are filled
    where the needed images were named.
    """

    by_id: dict[Key, CocoImage] = field(default_factory=dict)
    category_names: dict[Key, str] = field(default_factory=dict)
    annotations: dict[Key, list[Annotation]] = field(default_factory=dict, repr=False)
    problems: list[str] = field(default_factory=list)
    clipped_boxes: int = 0
    places: dict[tuple[Key, Key], int] = field(default_factory=dict, repr=False)
    unreadable: dict[tuple[Key, Key], str] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        json_path: str | Path,
        image_root: str | Path | None = None,
        *,
        min_score: float = 0.0,
        needed: Collection[Key] | None = None,
    ) -> CocoInstances:
        """Read ``json_path``; no image is opened.

        Args:
            json_path: a COCO instances file with ``images``, ``annotations`` and ``categories``.
            image_root: what ``file_name`` is relative to; by default the folder ``images`` beside the file where
                there is one, else the file's own folder.
            min_score: annotations that carry a lower ``score``, a detector's, are left out without a word.
            needed: the ids of the images that are asked for, which may be text, and whose file names may be missing.
                By default all images, whose ids are whole numbers.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not JSON, or lacks one of the three lists.
        """
        path = Path(json_path)
        document = _parse(path, needed)
        beside = path.parent / "images"
        root = Path(image_root) if image_root is not None else beside if beside.is_dir() else path.parent
        found = cls()
        for where, value in _records(document, "categories"):
            with found._telling(where):
                record = record_of(value)
                found.category_names[read_key(record, "id")] = read_words(record, "name").strip()
        for where, value in _records(document, "images"):
            with found._telling(where):
                found._add_image(record_of(value), root, needed)
        for where, value in _records(document, "annotations"):
            with found._telling(where):
                found._add(record_of(value), where, min_score, has_id=needed is not None)
        return found

    @cached_property
    def images(self) -> tuple[CocoImage, ...]:
        """The images in the file's order."""
        return tuple(self.by_id.values())

    def instances(self, image_id: Key) -> list[Instance]:
        """The instances annotated in an image, in the file's order; none for an image without annotations."""
        return [
            Instance(
                category=one.category, box_xyxy_px=one.box_xyxy_px, mask=unpack_mask(one.mask), is_crowd=one.is_crowd
            )
            for one in self.annotations.get(image_id, ())
        ]

    @contextmanager
    def _telling(self, where: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{where}: {error}")

    def _add_image(self, record: Record, root: Path, needed: Collection[Key] | None) -> None:
        key, hw, name = read_key(record, "id"), stated_hw(record), record.get("file_name")
        if needed is not None and key not in needed:
            return
        if key in self.by_id:
            raise ValueError(f"expected an id of its own, got {key!r} again; renumber the image")
        if hw is None:
            shown = shorten((record.get("height"), record.get("width")))
            raise ValueError(f"expected a height and width of at least 1 pixel, got {shown}; correct them")
        is_name = isinstance(name, str) and bool(name.strip()) and "\0" not in name and not has_half_letters(name)
        if needed is None and not (is_name and isinstance(key, int)):
            raise ValueError(f"expected a whole number as 'id' and a file_name, got {shorten((key, name))}; add them")
        name = cast(str, name) if is_name else ""
        leads_away = Path(name).is_absolute() or ".." in Path(name).parts
        stated = record.get("license")
        self.by_id[key] = CocoImage(
            id=cast(int, key),
            path=root / name,
            hw=hw,
            license=stated if type(stated) is int else None,
            file_name="" if leads_away else name,
        )

    def _add(self, record: Record, where: str, min_score: float, *, has_id: bool) -> None:
        image = read_key(record, "image_id")
        if not has_id:
            annotation = self._annotation(record, where, image)
            if _score(record) >= min_score:
                self.annotations.setdefault(image, []).append(annotation)
            return
        key = image, read_key(record, "id")
        if key in self.places or key in self.unreadable:
            raise ValueError(f"expected an id of its own, got {key[1]!r} again; renumber it")
        try:
            annotation = self._annotation(record, where, image)
        except ValueError as error:
            self.unreadable[key] = f"{where}: {error}"
            return
        there = self.annotations.setdefault(image, [])
        self.places[key] = len(there)
        there.append(annotation)

    def _annotation(self, record: Record, where: str, image: Key) -> Annotation:
        category = self.category_names.get(read_key(record, "category_id"))
        if category is None:
            raise ValueError(f"expected the id of a category, got {shorten(record['category_id'])}; add or correct it")
        if image not in self.by_id:
            raise ValueError(f"expected the id of an image in 'images', got {image!r}; add or correct it")
        x, y, w, h = four_numbers(record.get("bbox"), "a bbox [x, y, width, height]")
        box = clip_to(self.by_id[image].hw, (x, y, x + w, y + h))
        mask: PackedMask = None
        try:
            mask = pack_mask(record.get("segmentation"))
        except ValueError as error:
            self.problems.append(f"{where}, read without its mask: {error}")
        self.clipped_boxes += box != (x, y, x + w, y + h)
        return Annotation(category, box, mask, bool(record.get("iscrowd", 0)))


def _records(document: dict[str, list[object]], part: str) -> Iterator[tuple[str, object]]:
    return ((f"{part}[{i}]", one) for i, one in enumerate(document[part]) if one is not _NOT_NEEDED)


def _parse(path: Path, needed: Collection[Key] | None) -> dict[str, list[object]]:
    """The JSON document with `_NOT_NEEDED` in the place of annotations of other images, and polygons packed."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a COCO instances file, got {str(path)!r}, which is no file; check the path")
    try:
        document = json.loads(path.read_bytes(), object_hook=_packing(needed))
    except RecursionError:
        raise ValueError(f"expected JSON in {str(path)!r}, got it nested too deep; check the file") from None
    except ValueError as error:
        raise ValueError(f"expected JSON in {str(path)!r}, got something else ({error}); check the file") from error
    for part in _PARTS:
        if not isinstance(document, dict) or not isinstance(document.get(part), list):
            shown = shorten(list(document) if isinstance(document, dict) else document)
            raise ValueError(
                f"expected a JSON object with a list {part!r} in {str(path)!r}, got {shown}; give a COCO instances file"
            )
    return document


def _packing(needed: Collection[Key] | None) -> Callable[[Record], object]:
    def hook(record: Record) -> object:
        if "image_id" in record and "bbox" in record:
            try:
                if needed is not None and read_key(record, "image_id") not in needed:
                    return _NOT_NEEDED
            except ValueError:
                return record
            record["segmentation"] = pack_polygons(record.get("segmentation"))
        return record

    return hook


def _score(record: Record) -> float:
    """How sure a detector was of the annotation, 0..1; 1 for one without a score."""
    value = record.get("score", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number as 'score', got {shorten(value)}; correct it")
    return float(value)


def _read(request: Request) -> Dataset:
    from deixis.data.captions.written import WrittenPhrases

    return WrittenPhrases(request.path, request.images, split=request.split or "test", limit=request.limit)


FORMAT = Format(
    read=_read,
    suffix=".json",
    default_split="test",
    is_head=lambda one: one.key == "images" and isinstance(one.value, dict) and "caption" not in one.value,
)
