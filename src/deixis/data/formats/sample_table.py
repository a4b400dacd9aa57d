"""Samples in columns: what a reader found in a file, a fifth of the memory of as many `Sample`."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from deixis.data.annotation_fields import has_half_letters, shorten
from deixis.data.formats.image_folders import Key, Layout, find_layout
from deixis.data.formats.mask_arrays import read_mask_array
from deixis.data.formats.packed_masks import PackedMask, unpack_mask
from deixis.structures import BoxXyxy, Instance, Mask, Sample, check_box

_LIMIT_SEED = 0
_NO_BOX = float("nan")


class _Image(NamedTuple):
    id: Key
    file_name: str
    collection: str


class SampleTable(Sequence[Sample]):
    """A file's samples, made when asked for; filled by one reader, then only read.

    ``problems`` holds a sentence for each record that was left out or read in part, ``left_out`` counts the
    expressions among them: ``len(self) + self.left_out`` is what the file holds for the split. ``clipped_boxes``
    counts boxes that reached over their image's border and were cut there. ``referents`` holds for each referent the
    indices of its samples, ``referent_ids`` its name.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.problems: list[str] = []
        self.left_out = 0
        self.clipped_boxes = 0
        self._images: list[_Image] = []
        self._places: dict[tuple[Key, str, str], int] = {}
        self._layouts: dict[str, Layout] = {}
        self._ids: list[str] = []
        self._image_of = array("q")
        self._phrases: list[str] = []
        self._boxes = array("d")
        self._texts: list[tuple[str, str | None, str | None]] = []
        self._known_texts: dict[tuple[str, str | None, str | None], tuple[str, str | None, str | None]] = {}
        self._masks: dict[int, PackedMask | Path] = {}
        self._referents: list[Key] = []
        self._rows: NDArray[np.int64] | None = None

    def image(self, image: Key, file_name: str, collection: str = "any") -> int:
        """The place of an image; the same for the same id and file."""
        key = (image, file_name, collection)
        if key not in self._places:
            self._places[key] = len(self._images)
            self._images.append(_Image(*key))
        return self._places[key]

    def add(
        self,
        image: int,
        phrase: object,
        box_xyxy_px: BoxXyxy | None,
        *,
        name: object = None,
        mask: PackedMask | Path = None,
        split: str = "",
        category: str | None = None,
        kind: str | None = None,
        referent: Key | None = None,
    ) -> None:
        """Add a sample; its id is ``name``, or the number of samples before it and one.

        Raises:
            ValueError: the phrase has no words, or the box no area.
        """
        words = check_phrase(phrase)
        if box_xyxy_px is not None:
            check_box(box_xyxy_px)
        row = len(self._ids)
        self._ids.append(str(row + 1 if name is None else name))
        self._image_of.append(image)
        self._phrases.append(words)
        self._boxes.extend((_NO_BOX,) * 4 if box_xyxy_px is None else box_xyxy_px)
        texts = (sys.intern(split), category, kind)
        self._texts.append(self._known_texts.setdefault(texts, texts))
        if mask is not None:
            self._masks[row] = mask
        self._referents.append(f"row {row}" if referent is None else referent)

    def leave_out(self, where: str, why: object, expressions: int = 1) -> None:
        """Tell why a record is left out, with so many expressions in it."""
        self.left_out += expressions
        more = f"; its expressions left out: {expressions}" if expressions > 1 else ""
        self.problems.append(f"{where}: {why}{more}")

    @contextmanager
    def telling(self, where: str, expressions: int = 1) -> Iterator[None]:
        """A ValueError inside leaves the record out."""
        try:
            yield
        except ValueError as error:
            self.leave_out(where, error, expressions)

    def inside(self, box: BoxXyxy, hw: tuple[int, int] | None) -> BoxXyxy:
        """The box cut at the image's border, counted where something was cut; ValueError where nothing is left."""
        if hw is None:
            return box
        height, width = hw
        cut = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
        if cut[0] >= cut[2] or cut[1] >= cut[3]:
            raise ValueError(
                f"expected a box with an area inside the image of {width} x {height} pixels, got {box!r}; "
                "correct or drop it"
            )
        self.clipped_boxes += cut != box
        return cut

    def finish(
        self, bases: Sequence[Path], *, limit: int | None = None, need_images: bool = False, what: str = "samples"
    ) -> SampleTable:
        """Find the images, and keep at most ``limit`` samples: the first of a seeded shuffle of the images.

        Raises:
            FileNotFoundError: ``need_images`` and none is there.
            ValueError: there is no sample; the first problem tells why.
        """
        if not self._ids:
            why = self.problems[0] if self.problems else "it holds none"
            raise ValueError(f"expected {what} in {self.source!r}, got none ({why}); check it")
        used = sorted(set(self._image_of))
        for collection in dict.fromkeys(self._images[i].collection for i in used):
            images = [(one.id, one.file_name) for one in map(self._images.__getitem__, used)
                      if one.collection == collection]  # fmt: skip
            self._layouts[collection] = find_layout(bases, collection, images, need_images)
        if limit is not None:
            image_of = np.asarray(self._image_of, dtype=np.int64)
            first, rank = list(dict.fromkeys(self._image_of)), np.zeros(len(self._images), dtype=np.int64)
            rank[np.array(first)[np.random.default_rng(_LIMIT_SEED).permutation(len(first))]] = np.arange(len(first))
            self._rows = np.argsort(rank[image_of], kind="stable")[:limit]
        self._places = {}
        return self

    @property
    def referents(self) -> tuple[tuple[int, ...], ...]:
        """For each referent the indices of its samples."""
        return tuple(map(tuple, self._by_referent().values()))

    @property
    def referent_ids(self) -> tuple[str, ...]:
        """The referents' names, in the order of `referents`."""
        return tuple(map(str, self._by_referent()))

    def _by_referent(self) -> dict[Key, list[int]]:
        groups: dict[Key, list[int]] = {}
        for index in range(len(self)):
            groups.setdefault(self._referents[self._row(index)], []).append(index)
        return groups

    def _row(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])

    def __len__(self) -> int:
        return len(self._ids) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index!r}")
        return self._sample(self._row(index % len(self)))

    def _sample(self, row: int) -> Sample:
        image = self._images[self._image_of[row]]
        x1, y1, x2, y2 = self._boxes[4 * row : 4 * row + 4]
        split, category, kind = self._texts[row]
        return Sample(
            id=self._ids[row],
            image=self._layouts[image.collection].path(image.id, image.file_name),
            image_id=str(image.id),
            phrase=self._phrases[row],
            box_xyxy_px=None if x1 != x1 else (x1, y1, x2, y2),
            mask=self._mask(row),
            split=split,
            category=category,
            kind=kind,
            instances=self._instances(row),
        )

    def _mask(self, row: int) -> Mask | None:
        mask = self._masks.get(row)
        if isinstance(mask, Path):
            return read_mask_array(mask) if mask.suffix == ".npy" else mask
        return unpack_mask(mask)

    def _instances(self, row: int) -> tuple[Instance, ...]:
        return ()


def check_phrase(phrase: object) -> str:
    """Text with words that can be written as UTF-8; ValueError for others."""
    if not isinstance(phrase, str) or not phrase.strip() or has_half_letters(phrase):
        raise ValueError(f"expected a phrase with words, got {shorten(phrase)}; write one or drop it")
    return phrase
