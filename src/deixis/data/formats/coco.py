"""Read a COCO instances file. One bad record is reported and left out; it never loses the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from deixis.data.annotation_fields import MAX_SIDE, four_numbers, mask_from_json, parse_json, shorten
from deixis.structures import Instance, Mask

Record = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """An image of the file: ``hw`` is (height, width) as the file states it, ``license`` the file's id or None."""

    id: int
    path: Path
    hw: tuple[int, int]
    license: int | None = None


@dataclass(frozen=True, kw_only=True)
class CocoInstances:
    """The images and annotated things of a COCO instances file.

    ``problems`` holds one sentence for each record that was left out, or whose mask was. ``clipped_boxes`` counts
    the boxes that reached over the image's border and were cut there.
    """

    images: tuple[CocoImage, ...]
    category_names: dict[int, str]
    problems: tuple[str, ...] = ()
    clipped_boxes: int = 0
    by_image: dict[int, list[Instance]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls, json_path: str | Path, image_root: str | Path | None = None, *, min_score: float = 0.0
    ) -> CocoInstances:
        """Read ``json_path``; no image is opened.

        Args:
            json_path: a COCO instances file with ``images``, ``annotations`` and ``categories``.
            image_root: what ``file_name`` is relative to; by default the folder ``images`` beside the file where
                there is one, else the file's own folder.
            min_score: annotations that carry a lower ``score``, a detector's, are left out without a word.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not JSON, or lacks one of the three lists.
        """
        path = Path(json_path)
        document = _read_document(path)
        root = Path(image_root) if image_root is not None else _default_root(path)
        reading = _Reading(min_score=min_score)
        names = reading.categories(document["categories"])
        images = reading.images(document["images"], root)
        by_image = reading.annotations(document["annotations"], {i.id: i for i in images}, names)
        return cls(
            images=tuple(images),
            category_names=names,
            problems=tuple(reading.problems),
            clipped_boxes=reading.clipped,
            by_image=by_image,
        )

    def instances(self, image_id: int) -> list[Instance]:
        """The things annotated in an image, in the file's order; none for an image without annotations."""
        return list(self.by_image.get(image_id, ()))


def _default_root(path: Path) -> Path:
    beside = path.parent / "images"
    return beside if beside.is_dir() else path.parent


def _read_document(path: Path) -> dict[str, list[object]]:
    if not path.is_file():
        raise FileNotFoundError(f"expected a COCO instances file, got {str(path)!r}, which is no file; check the path")
    try:
        document = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"expected JSON in {str(path)!r}, got something else ({error}); check the file") from error
    if not isinstance(document, dict):
        raise ValueError(
            f"expected one JSON object in {str(path)!r}, got {shorten(document)}; give a COCO instances file"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise ValueError(
                f"expected a list {key!r} in {str(path)!r}, got the keys {shorten(list(document))}; "
                "give a COCO instances file"
            )
    return cast(dict[str, list[object]], document)


@dataclass
class _Reading:
    """Collects problems while the parts of a file are read."""

    min_score: float = 0.0
    problems: list[str] = field(default_factory=list)
    clipped: int = 0

    def categories(self, records: list[object]) -> dict[int, str]:
        """Names by category id."""
        names: dict[int, str] = {}
        for number, record in enumerate(records):
            try:
                known = _record(record)
                name = known.get("name")
                if not isinstance(name, str) or not name.strip():
                    raise ValueError(f"expected a name with letters, got {shorten(name)}; name the category")
                names[_whole(known, "id")] = name.strip()
            except ValueError as error:
                self.problems.append(f"categories[{number}]: {error}")
        return names

    def images(self, records: list[object], root: Path) -> list[CocoImage]:
        """All images that have an id of their own, a file name and a size."""
        images: dict[int, CocoImage] = {}
        for number, record in enumerate(records):
            try:
                image = _image(_record(record), root)
                if image.id in images:
                    raise ValueError(f"expected an id of its own, got {image.id!r} again; renumber the image")
                images[image.id] = image
            except ValueError as error:
                self.problems.append(f"images[{number}]: {error}")
        return list(images.values())

    def annotations(
        self, records: list[object], images: dict[int, CocoImage], names: dict[int, str]
    ) -> dict[int, list[Instance]]:
        """All usable instances by image id."""
        by_image: dict[int, list[Instance]] = {}
        for number, record in enumerate(records):
            try:
                known = _record(record)
                image = images.get(_whole(known, "image_id"))
                if image is None:
                    raise ValueError(
                        f"expected the id of an image, got {known['image_id']!r}; add or correct the image"
                    )
                instance = self._instance(known, image, names, number)
                if _score(known) >= self.min_score:
                    by_image.setdefault(image.id, []).append(instance)
            except ValueError as error:
                self.problems.append(f"annotations[{number}]: {error}")
        return by_image

    def _instance(self, record: Record, image: CocoImage, names: dict[int, str], number: int) -> Instance:
        category = names.get(_whole(record, "category_id"))
        if category is None:
            raise ValueError(f"expected the id of a category, got {record['category_id']!r}; add or correct it")
        x, y, width, height = four_numbers(record.get("bbox"), "a bbox [x, y, width, height]")
        if width <= 0 or height <= 0:
            raise ValueError(f"expected a bbox with an area, got {record['bbox']!r}; correct or drop it")
        full = (x, y, x + width, y + height)
        rows, columns = image.hw
        cut = (max(x, 0.0), max(y, 0.0), min(full[2], float(columns)), min(full[3], float(rows)))
        if cut[0] >= cut[2] or cut[1] >= cut[3]:
            raise ValueError(
                f"expected a bbox inside the image of {columns} x {rows} pixels, got {record['bbox']!r}; "
                "correct or drop it"
            )
        self.clipped += any(abs(a - b) > 1e-6 for a, b in zip(full, cut, strict=True))
        mask = self._mask(record, number)
        return Instance(category=category, box_xyxy_px=cut, mask=mask, is_crowd=bool(record.get("iscrowd", 0)))

    def _mask(self, record: Record, number: int) -> Mask | None:
        """The mask, or None where there is none or, with a problem noted, a wrong one."""
        segmentation = record.get("segmentation")
        if segmentation is None or segmentation == []:
            return None
        try:
            return mask_from_json(segmentation)
        except ValueError as error:
            self.problems.append(f"annotations[{number}], read without its mask: {error}")
            return None


def _record(value: object) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {shorten(value)}; drop it")
    return cast(Record, value)


def _whole(record: Record, key: str) -> int:
    value = record.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number as {key!r}, got {shorten(value)}; correct it")
    return value


def _score(record: Record) -> float:
    """How sure a detector was of the annotation, 0..1; 1 for one without a score."""
    value = record.get("score", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number as 'score', got {shorten(value)}; correct it")
    return float(value)


def _image(record: Record, root: Path) -> CocoImage:
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"expected a file_name, got {shorten(name)}; name the image's file")
    hw = _whole(record, "height"), _whole(record, "width")
    if not 1 <= min(hw) <= max(hw) <= MAX_SIDE:
        raise ValueError(f"expected a height and width of at least 1 pixel, got {shorten(hw)}; correct them")
    given = record.get("license")
    return CocoImage(id=_whole(record, "id"), path=root / name, hw=hw, license=given if type(given) is int else None)
