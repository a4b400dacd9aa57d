"""Samples in columns: what a reader found in a file, in a fifth of the memory of as many `Sample`.

A reader fills a `TableWriter`; `TableWriter.finish` gives the `SampleTable`, which makes samples when they are asked
for. A table can be stored in a folder of columns and mapped into memory again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deixis.data.annotation_fields import Key, check_phrase, clip_to
from deixis.data.annotation_masks import PackedMask, read_mask_array
from deixis.data.columns import Columns, Texts, check_places, check_starts, read_columns, slices, write_columns
from deixis.data.dataset import Dataset, Report
from deixis.data.formats.image_folders import Layout, find_layout
from deixis.structures import BoxXyxy, Instance, Mask, Rle, Sample, check_box

TEXTS = ("image_id", "image_file", "sample_id", "phrase", "word", "rle", "mask_path")
SCHEMA: dict[str, tuple[str, int]] = {
    "image_hw": ("<i4", 2),  # 0 where the data does not state it
    "image_collection": ("<i4", 0),  # a word
    "sample_image": ("<i4", 0),
    "sample_box": ("<f8", 4),  # NaN where the phrase means nothing
    "sample_mask": ("<i4", 0),  # -1: none, as in all columns of places
    "sample_group": ("<i4", 0),
    "sample_referent": ("<i4", 0),
    "sample_words": ("<i4", 3),  # split, category, kind
    "group_things": ("<i8", 0),  # [groups + 1] the instances that a sample lists
    "thing_box": ("<f8", 4),
    "thing_category": ("<i4", 0),
    "thing_crowd": ("|u1", 0),
    "thing_mask": ("<i4", 0),
    "thing_attributes": ("<i8", 0),  # [things + 1]
    "attribute": ("<i4", 0),
    "mask_polygons": ("<i8", 0),  # [masks + 1]
    "polygon_coordinates": ("<i8", 0),  # [polygons + 1]
    "coordinate": ("<f8", 0),
    "mask_rle": ("<i4", 0),
    "mask_file": ("<i4", 0),
    "rle_hw": ("<i4", 2),
    **dict.fromkeys(TEXTS, ("|u1", 0)),
    **{f"{name}_starts": ("<i8", 0) for name in TEXTS},
}
"""The columns of a table: type, and numbers a row where it holds several."""
FORM = 1
_STARTS = ("group_things", "thing_attributes", "mask_polygons", "polygon_coordinates")
_NO_BOX = (float("nan"),) * 4


class Thing(NamedTuple):
    """An instance for `TableWriter.group`; ``mask`` is its place, see `TableWriter.mask`."""

    category: str
    box_xyxy_px: BoxXyxy
    mask: int = -1
    is_crowd: bool = False
    attributes: tuple[str, ...] = ()


class TableWriter(Report):
    """Collects the samples of one source, and counts what is left out."""

    def __init__(self, source: str | Path, schema: dict[str, tuple[str, int]] = SCHEMA) -> None:
        super().__init__()
        self.source, self.schema = str(source), schema
        self.clipped_boxes = 0
        self.numbers: dict[str, array[Any]] = {
            name: array("d" if kind == "<f8" else "q", [0] if name in _STARTS else [])
            for name, (kind, _) in schema.items()
            if name not in TEXTS
        }
        self._letters = {name: bytearray() for name in TEXTS}
        for name in TEXTS:
            self.numbers[f"{name}_starts"].append(0)
        self._images: dict[tuple[Key, str, str], int] = {}
        self._words: dict[str, int] = {}
        self._referents: dict[Hashable, int] = {}
        self._num_referents = 0

    def __len__(self) -> int:
        return len(self.numbers["sample_image"])

    def image(self, image: Key, file_name: str, collection: str = "any", hw: tuple[int, int] = (0, 0)) -> int:
        """The place of an image; the same for the same id and file. ``hw`` is (height, width) as the data states it."""
        key = (image, file_name, collection)
        if key not in self._images:
            self._images[key] = self._text("image_id", str(image))
            self._text("image_file", file_name)
            self._extend({"image_hw": hw, "image_collection": (self.word(collection),)})
        return self._images[key]

    def mask(self, mask: PackedMask) -> int:
        """The place of a mask, for samples and instances; -1 for none."""
        if mask is None:
            return -1
        rle = file = -1
        if isinstance(mask, Path):
            file = self._text("mask_path", str(mask))
        elif isinstance(mask, dict):
            rle = self.rle(mask)
        else:
            for polygon in mask:
                self.numbers["coordinate"].extend(polygon)
                self.numbers["polygon_coordinates"].append(len(self.numbers["coordinate"]))
        self.numbers["mask_polygons"].append(len(self.numbers["polygon_coordinates"]) - 1)
        self._extend({"mask_rle": (rle,), "mask_file": (file,)})
        return len(self.numbers["mask_rle"]) - 1

    def rle(self, rle: Rle) -> int:
        """The place of run lengths."""
        place = self._text("rle", rle["counts"])
        self.numbers["rle_hw"].extend(rle["size"])
        return place

    def group(self, things: Iterable[Thing]) -> int:
        """The place of the instances that a sample lists."""
        for thing in things:
            self._extend(
                {
                    "thing_box": thing.box_xyxy_px,
                    "thing_category": (self.word(thing.category),),
                    "thing_crowd": (thing.is_crowd,),
                    "thing_mask": (thing.mask,),
                    "attribute": [self.word(word) for word in thing.attributes],
                }
            )
            self.numbers["thing_attributes"].append(len(self.numbers["attribute"]))
        self.numbers["group_things"].append(len(self.numbers["thing_crowd"]))
        return len(self.numbers["group_things"]) - 2

    def add(
        self,
        image: int,
        phrase: object,
        box_xyxy_px: BoxXyxy | None,
        *,
        name: object = None,
        mask: int = -1,
        group: int = -1,
        split: str = "",
        category: str | None = None,
        kind: str | None = None,
        referent: Hashable = None,
    ) -> None:
        """Add a sample; its id is ``name``, or its number from 1. Samples of one ``referent`` mean the same thing.

        Raises:
            ValueError: the phrase has no words, the box no area, or a text no UTF-8.
        """
        words = check_phrase(phrase)
        if box_xyxy_px is not None:
            check_box(box_xyxy_px)
        known = [-1 if word is None else self.word(word) for word in (split, category, kind)]
        self._text("sample_id", str(len(self) + 1 if name is None else name))
        self._text("phrase", words)
        self._extend(
            {
                "sample_image": (image,),
                "sample_box": box_xyxy_px or _NO_BOX,
                "sample_mask": (mask,),
                "sample_group": (group,),
                "sample_referent": (self._referent(referent),),
                "sample_words": known,
            }
        )

    def read_mask(self, where: str, read: Callable[[], PackedMask]) -> PackedMask:
        """The mask that ``read()`` gives; None, with a problem noted, where it raises ValueError."""
        try:
            return read()
        except ValueError as error:
            self.problems.append(f"{where}, read without its mask: {error}")
            return None

    def inside(self, box: BoxXyxy, hw: tuple[int, int] | None) -> BoxXyxy:
        """The box cut at the image's border, counted where something was cut; ValueError where nothing is left."""
        cut = box if hw is None else clip_to(hw, box)
        self.clipped_boxes += cut != box
        return cut

    def finish(self, bases: Sequence[Path] = (), *, need_images: bool = False, what: str = "samples") -> SampleTable:
        """The table, with its images looked for below the folders ``bases``, where any are named.

        Raises:
            FileNotFoundError: ``need_images`` and none is there.
            ValueError: there is no sample; the first problem says why.
        """
        if not len(self):
            why = self.problems[0] if self.problems else "it holds none"
            raise ValueError(f"expected {what} in {self.source!r}, got none ({why}); check it")
        head = {"problems": self.problems, "left_out": self.left_out, "clipped_boxes": self.clipped_boxes}
        table = SampleTable(self.columns(), head)
        if bases:
            table.find_images(bases, need_images=need_images)
        return table

    def columns(self) -> Columns:
        """The columns as the schema states them."""
        letters = self._letters["word"] = bytearray()
        self.numbers["word_starts"] = array("q", [0])
        for word in self._words:
            letters += word.encode("utf-8", "surrogateescape")
            self.numbers["word_starts"].append(len(letters))
        columns: Columns = {name: np.frombuffer(self._letters[name], dtype=np.uint8) for name in TEXTS}
        for name, (kind, width) in self.schema.items():
            if name not in TEXTS:
                column = np.asarray(self.numbers[name]).astype(kind)
                columns[name] = column.reshape(-1, width) if width else column
        return columns

    def word(self, word: str) -> int:
        """The place of a text that many samples share; ValueError for one without UTF-8."""
        if word not in self._words:
            word.encode("utf-8", "surrogateescape")
            self._words[word] = len(self._words)
        return self._words[word]

    def _text(self, name: str, text: str) -> int:
        self._letters[name] += text.encode("utf-8", "surrogateescape")
        self.numbers[f"{name}_starts"].append(len(self._letters[name]))
        return len(self.numbers[f"{name}_starts"]) - 2

    def _extend(self, rows: dict[str, Iterable[Any]]) -> None:
        for name, values in rows.items():
            self.numbers[name].extend(values)

    def _referent(self, referent: Hashable) -> int:
        if referent is not None and referent in self._referents:
            return self._referents[referent]
        if referent is not None:
            self._referents[referent] = self._num_referents
        self._num_referents += 1
        return self._num_referents - 1


class SampleTable(Dataset):
    """The samples of a table."""

    has_referents = True

    def __init__(self, columns: Columns, head: dict[str, Any]) -> None:
        self._columns = columns
        self._texts = {name: Texts(columns[name], columns[f"{name}_starts"]) for name in TEXTS}
        words = self._texts["word"]
        self._words = [words[place] for place in range(len(words))]
        self._rows = np.arange(len(columns["sample_image"]))
        self._layouts: dict[str, Layout] = {}
        self._last: tuple[tuple[int, object], tuple[Instance, ...]] | None = None
        self.problems = tuple(map(str, head["problems"]))
        self._left_out, self.clipped_boxes = int(head["left_out"]), int(head["clipped_boxes"])

    @classmethod
    def load(cls, folder: Path, stamp: object = None) -> SampleTable | None:
        """The table that `save` wrote with this stamp; None where it has another one.

        Raises:
            FileNotFoundError, ValueError: it is not whole.
        """
        columns, head = read_columns(folder, SCHEMA)
        if head.get("form") != FORM or head.get("stamp") != stamp:
            return None
        check_columns(columns)
        return cls(columns, head)

    def save(self, folder: Path, stamp: object = None) -> None:
        """Store all samples, without their layouts, for `load`.

        Raises:
            OSError: the folder cannot be written.
        """
        counts = {"problems": self.problems, "left_out": self.left_out, "clipped_boxes": self.clipped_boxes}
        write_columns(folder, self._columns, {"form": FORM, "stamp": stamp, **counts})

    def find_images(self, bases: Sequence[Path], *, need_images: bool = False) -> None:
        """Look below the folders ``bases`` for the images of each collection, see `find_layout`."""
        used = np.unique(self._columns["sample_image"])
        of_collection = self._columns["image_collection"][used]
        for collection in dict.fromkeys(of_collection.tolist()):
            images = [(self._texts["image_id"][one], self._texts["image_file"][one])
                      for one in used[of_collection == collection].tolist()]  # fmt: skip
            name = self._words[collection]
            self._layouts[name] = find_layout(bases, name, images, need_images)

    def image_hw(self, index: int) -> tuple[int, int]:
        """(height, width) as the data states it, else from the head of the image file."""
        height, width = self._columns["image_hw"][self._image_of(self._row(index))].tolist()
        return (height, width) if height else super().image_hw(index)

    def _images(self) -> list[int]:
        return self._columns["sample_image"][self._rows].tolist()

    def _splits(self) -> list[str]:
        return [self._word(place) or "" for place in self._columns["sample_words"][self._rows, 0].tolist()]

    def _referents(self) -> list[int]:
        return self._columns["sample_referent"][self._rows].tolist()

    def _sample(self, row: int) -> Sample:
        return self._make(row, self._picture(self._image_of(row)))

    def _make(self, row: int, picture: Path | NDArray[np.uint8], scale: tuple[float, float] | None = None) -> Sample:
        """The sample of a record; with a ``scale`` along x and y at the size of a smaller picture."""
        split, category, kind = (self._word(place) for place in self._columns["sample_words"][row].tolist())
        box = self._columns["sample_box"][row].tolist()
        return Sample(
            id=self._texts["sample_id"][row],
            image=picture,
            image_id=self._texts["image_id"][self._image_of(row)],
            phrase=self._texts["phrase"][row],
            box_xyxy_px=None if box[0] != box[0] else _scaled(box, scale),
            mask=self._mask(int(self._columns["sample_mask"][row]), is_small=scale is not None),
            split=split or "",
            category=category,
            kind=kind,
            instances=self._things(int(self._columns["sample_group"][row]), scale),
        )

    def _things(self, group: int, scale: tuple[float, float] | None) -> tuple[Instance, ...]:
        """The instances that a sample lists; those of a smaller picture come without masks."""
        if group < 0:
            return ()
        if self._last is None or self._last[0] != (group, scale):  # samples of an image share their instances
            first, end = self._columns["group_things"][group : group + 2].tolist()
            things = tuple(self._thing(thing, scale) for thing in range(first, end))
            self._last = (group, scale), things
        return self._last[1]

    def _thing(self, thing: int, scale: tuple[float, float] | None) -> Instance:
        columns = self._columns
        first, end = columns["thing_attributes"][thing : thing + 2].tolist()
        return Instance(
            category=self._word(int(columns["thing_category"][thing])) or "",
            box_xyxy_px=_scaled(columns["thing_box"][thing].tolist(), scale),
            mask=None if scale else self._mask(int(columns["thing_mask"][thing])),
            is_crowd=bool(columns["thing_crowd"][thing]),
            attributes=tuple(self._word(place) or "" for place in columns["attribute"][first:end].tolist()),
        )

    def _mask(self, mask: int, *, is_small: bool = False) -> Mask | None:
        if mask < 0:
            return None
        columns = self._columns
        rle = int(columns["mask_small_rle" if is_small else "mask_rle"][mask])
        if rle >= 0:
            return {"size": columns["rle_hw"][rle].tolist(), "counts": self._texts["rle"][rle]}
        if (file := int(columns["mask_file"][mask])) >= 0:
            path = Path(self._texts["mask_path"][file])
            return read_mask_array(path) if path.suffix == ".npy" else path
        first, end = columns["mask_polygons"][mask : mask + 2].tolist()
        return [part.tolist() for part in slices(columns["coordinate"], columns["polygon_coordinates"], first, end)]

    def _picture(self, image: int) -> Path | NDArray[np.uint8]:
        layout = self._layouts[self._words[int(self._columns["image_collection"][image])]]
        return layout.path(self._texts["image_id"][image], self._texts["image_file"][image])

    def _image_of(self, row: int) -> int:
        return int(self._columns["sample_image"][row])

    def _word(self, place: int) -> str | None:
        return None if place < 0 else self._words[place]


def check_columns(columns: Columns) -> None:
    """ValueError unless every place in a column of a stored table is there."""
    counts = {name: len(columns[f"{name}_starts"]) - 1 for name in TEXTS}
    images, samples, rles = counts["image_id"], counts["phrase"], counts["rle"]
    groups, things, masks = len(columns["group_things"]) - 1, len(columns["thing_box"]), len(columns["mask_rle"])
    rows = {"image": images, "sample": samples, "thing": things, "mask": masks, "rle": rles}
    starts = {
        **{f"{name}_starts": (counts[name], len(columns[name])) for name in TEXTS},
        "group_things": (groups, things),
        "thing_attributes": (things, len(columns["attribute"])),
        "mask_polygons": (masks, len(columns["polygon_coordinates"]) - 1),
        "polygon_coordinates": (len(columns["polygon_coordinates"]) - 1, len(columns["coordinate"])),
    }
    for name, (count, end) in starts.items():
        check_starts(columns[name], count, end)
    for name, column in columns.items():
        count = rows.get(name.partition("_")[0])
        if count is not None and name not in TEXTS and name not in starts and len(column) != count:
            raise ValueError(f"expected {count} rows of {name!r}, got {len(column)}")
    if not samples or counts["sample_id"] != samples or counts["image_file"] != images:
        raise ValueError(f"expected names of {samples} samples and {images} images, got others")
    for name, count in {"sample_image": images, "sample_referent": samples, "image_collection": counts["word"]}.items():
        check_places(columns[name], count)
    for name, count in {"sample_mask": masks, "thing_mask": masks, "sample_group": groups, "mask_rle": rles,
                        "mask_file": counts["mask_path"]}.items():  # fmt: skip
        check_places(columns[name], count, least=-1)
    for name in ("sample_words", "thing_category", "attribute"):
        check_places(columns[name], counts["word"], least=-1)


def _scaled(box: list[float], scale: tuple[float, float] | None) -> BoxXyxy:
    x, y = scale or (1.0, 1.0)
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y
