"""What a release's instances.json says about the images that are needed, in little memory.

The file holds a hundred megabytes and more of polygons. Those of other images are dropped while the text is parsed, the
rest is kept as arrays of numbers: eight bytes a coordinate instead of thirty-two.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from deixis.data.annotation_fields import four_numbers, has_half_letters, stated_hw
from deixis.data.formats.image_folders import Key
from deixis.data.formats.packed_masks import PackedMask, pack_mask, pack_polygons, unpack_mask
from deixis.structures import BoxXyxy, Instance

Record = dict[str, object]


class _Thing(NamedTuple):
    """An annotation with its polygons packed."""

    category: str
    box_xyxy_px: BoxXyxy
    mask: PackedMask
    is_crowd: bool


class ImageRecord(NamedTuple):
    """An image of the file: ``hw`` is (height, width); ``file_name`` is empty where the file names none of use."""

    file_name: str
    hw: tuple[int, int]


@dataclass
class ReferInstances:
    """What instances.json holds for the needed images; two maps are by (image id, annotation id)."""

    images: dict[Key, ImageRecord] = field(default_factory=dict)
    things: dict[Key, list[_Thing]] = field(default_factory=dict)
    places: dict[tuple[Key, Key], int] = field(default_factory=dict)
    """Where in ``things[image id]`` an annotation stands."""
    unreadable: dict[tuple[Key, Key], str] = field(default_factory=dict)
    """Why an annotation was left out."""
    problems: list[str] = field(default_factory=list)
    clipped: int = 0

    @classmethod
    def read(cls, path: Path, needed: set[Key]) -> ReferInstances:
        """Read a COCO instances file; what belongs to other images is dropped while its text is parsed."""
        document = _parse(path, needed)
        found, categories = cls(), dict[Key, str]()
        for where, record in found._records(document, "categories"):
            with found._telling(where):
                categories[read_key(record, "id")] = read_words(record, "name")
        for where, record in found._records(document, "images"):
            with found._telling(where):
                image = read_key(record, "id")
                if image in needed:
                    found.images[image] = _image(record)
        for where, record in found._records(document, "annotations"):
            with found._telling(where):
                found._add(record, where, categories)
        return found

    def instances(self, image: Key) -> tuple[Instance, ...]:
        """The things annotated in a needed image, in the file's order."""
        return tuple(
            Instance(
                category=one.category, box_xyxy_px=one.box_xyxy_px, mask=unpack_mask(one.mask), is_crowd=one.is_crowd
            )
            for one in self.things.get(image, ())
        )

    def keep(self, images: set[Key]) -> None:
        """Forget all images but these."""
        self.images = {image: self.images[image] for image in images}
        self.things = {image: self.things[image] for image in images}
        self.places = {}

    def other_problems(self, told: set[tuple[Key, Key]]) -> list[str]:
        """The problems beside those of the annotations ``told``, by (image id, annotation id)."""
        return self.problems + [why for key, why in self.unreadable.items() if key not in told]

    def _records(self, document: dict[str, list[object]], part: str) -> Iterator[tuple[str, Record]]:
        for number, record in enumerate(document[part]):
            if isinstance(record, dict):
                yield f"{part}[{number}]", cast(Record, record)
            elif record is not _NOT_NEEDED:
                self.problems.append(
                    f"{part}[{number}]: expected a JSON object, got {reprlib.repr(record)}; correct it"
                )

    @contextmanager
    def _telling(self, where: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{where}: {error}")

    def _add(self, record: Record, where: str, categories: dict[Key, str]) -> None:
        key = image, annotation = read_key(record, "image_id"), read_key(record, "id")
        if key in self.places or key in self.unreadable:
            raise ValueError(f"expected an id of its own, got {annotation!r} again; renumber it")
        try:
            thing = self._thing(record, where, image, categories)
        except ValueError as error:
            self.unreadable[key] = f"{where}: {error}"
            return
        there = self.things.setdefault(image, [])
        self.places[key] = len(there)
        there.append(thing)

    def _thing(self, record: Record, where: str, image: Key, categories: dict[Key, str]) -> _Thing:
        category = categories.get(read_key(record, "category_id"))
        if category is None:
            raise ValueError(
                f"expected the id of a category, got {reprlib.repr(record['category_id'])}; add or correct it"
            )
        if image not in self.images:
            raise ValueError(f"expected the id of an image in 'images', got {image!r}; add or correct it")
        height, width = self.images[image].hw
        x, y, w, h = four_numbers(record.get("bbox"), "a bbox [x, y, width, height]")
        cut = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
        if cut[0] >= cut[2] or cut[1] >= cut[3]:
            shown = reprlib.repr(record["bbox"])
            raise ValueError(
                f"expected a bbox with an area inside the image of {width} x {height} pixels, got {shown}; "
                "correct or drop it"
            )
        self.clipped += cut != (x, y, x + w, y + h)
        return _Thing(category, cut, self._mask(record, where), bool(record.get("iscrowd", 0)))

    def _mask(self, record: Record, where: str) -> PackedMask:
        """The mask, or None where there is none or, with a problem noted, a wrong one."""
        segmentation = record.get("segmentation")
        if segmentation is None or segmentation == []:
            return None
        if isinstance(segmentation, tuple):  # packed while the text was parsed
            return segmentation
        try:
            return pack_mask(segmentation)
        except ValueError as error:
            self.problems.append(f"{where}, read without its mask: {error}")
            return None


_NOT_NEEDED = object()


def _parse(path: Path, needed: set[Key]) -> dict[str, list[object]]:
    """The JSON document with `_NOT_NEEDED` in the place of annotations of other images, and polygons packed."""

    def hook(record: Record) -> object:
        if "image_id" in record and "bbox" in record:
            try:
                if read_key(record, "image_id") not in needed:
                    return _NOT_NEEDED
            except ValueError:
                return record
            record["segmentation"] = pack_polygons(record.get("segmentation"))
        return record

    try:
        document = json.loads(path.read_bytes(), object_hook=hook)
    except RecursionError:
        raise ValueError(f"expected JSON in {str(path)!r}, got it nested too deep; check the file") from None
    except ValueError as error:
        raise ValueError(f"expected JSON in {str(path)!r}, got something else ({error}); check the file") from error
    for part in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(part), list):
            shown = list(document) if isinstance(document, dict) else document
            raise ValueError(
                f"expected a JSON object with a list {part!r} in {str(path)!r}, got {reprlib.repr(shown)}; "
                "put the instances.json of the release there"
            )
    return document


def read_key(record: Record, name: str) -> Key:
    """The id that a record states as ``name``: a whole number, also one in quotes, or text; ValueError for others."""
    value = record.get(name)
    if isinstance(value, str) and 0 < len(value) < 100 and value.isprintable():
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError(f"expected an id as {name!r}, got {reprlib.repr(value)}; correct it")
    return value


def read_name(record: Record, name: str) -> str:
    """The id that a record states as ``name``, as it stands there, leading zeros and all; ValueError for others."""
    key = read_key(record, name)
    return str(record[name]) if isinstance(record[name], str) else str(key)


def read_words(record: Record, name: str) -> str:
    """The text that a record states as ``name``; ValueError where it has no words or cannot be written as UTF-8."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip() or has_half_letters(value):
        raise ValueError(f"expected words as {name!r}, got {reprlib.repr(value)}; add them or drop it")
    return value


def _image(record: Record) -> ImageRecord:
    hw = stated_hw(record)
    if hw is None:
        shown = reprlib.repr((record.get("height"), record.get("width")))
        raise ValueError(f"expected a height and width of at least 1 pixel, got {shown}; correct them")
    name = record.get("file_name")
    usable = (
        isinstance(name, str) and "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts
    )
    return ImageRecord(cast(str, name) if usable else "", hw)
