"""Packed data: small pictures in flat files that are mapped into memory, their samples at the original size.

A folder holds ``pack.json``, ``samples.bin`` (see `deixis.data.packed.columns`) and ``pixels-00000.bin`` and so on:
pictures one behind the other, uint8 [H, W, 3]. Written by `deixis.data.packed.writer`; docs/packing.md tells all of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from deixis.data.annotation_fields import parse_json, shorten
from deixis.data.formats.image_folders import safe_name
from deixis.data.packed.columns import Columns, Texts, check_places, check_starts, read_columns
from deixis.geometry.images import MAX_PIXELS
from deixis.structures import BoxXyxy, Instance, Mask, Sample

INDEX = "pack.json"
SAMPLES = "samples.bin"
FORM = 1
TEXTS = ("image_file", "sample_id", "phrase", "word", "rle")
SCHEMA: dict[str, tuple[str, int]] = {
    "image_hw": ("<i4", 2),
    "small_hw": ("<i4", 2),
    "image_shard": ("<i4", 0),
    "image_start": ("<i8", 0),  # bytes into the shard
    "sample_image": ("<i4", 0),
    "sample_box": ("<f8", 4),  # NaN where the phrase means nothing
    "sample_mask": ("<i4", 0),  # -1: none, as in all columns of places
    "sample_group": ("<i4", 0),
    "sample_referent": ("<i4", 0),
    "sample_words": ("<i4", 4),  # split, category, kind, image_id
    "group_things": ("<i8", 0),  # [groups + 1] the things that a sample lists
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
    "mask_small_rle": ("<i4", 0),
    "rle_hw": ("<i4", 2),
    **dict.fromkeys(TEXTS, ("|u1", 0)),
    **{f"{name}_starts": ("<i8", 0) for name in TEXTS},
}
"""The columns of ``samples.bin``: type, and numbers a row where it holds several."""
_MAX_INDEX_BYTES = 1 << 28
_PROBED_IMAGES = 16
_LIMIT_SEED = 0
_BLOCK_BYTES = 1 << 24


class PackedSamples(Sequence[Sample]):
    """The samples of a pack, made when asked for. Open with `open_pack`.

    Boxes and masks are those of the original images, which a sample names, so evaluation is as exact as without the
    pack. `small` gives the same sample at the size of the packed picture, with its pixels; training takes that. Where
    no original is there, all samples are such, and ``problems`` tells it.
    """

    def __init__(self, folder: Path, index: dict[str, Any], columns: Columns) -> None:
        self.folder, self.size = folder, _whole(index, "size")
        self._columns = columns
        self._texts = {name: Texts(columns[name], columns[f"{name}_starts"]) for name in TEXTS}
        words = self._texts["word"]
        self._words = [words[place] for place in range(len(words))]
        self._shards = [(folder / one["file"], int(one["bytes"])) for one in index["shards"]]
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._rows: NDArray[np.int64] = np.arange(len(columns["sample_image"]))
        self._opened: tuple[Any, ...] = (folder,)
        self._root = Path()
        self.originals = True
        self.problems: tuple[str, ...] = tuple(map(str, index["problems"]))
        _check(columns, self._texts, [size for _, size in self._shards])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return self._sample(self._row(index), is_small=not self.originals)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open_pack, self._opened

    def small(self, index: int) -> Sample:
        """The sample at the size of its packed picture, whose pixels it holds: read-only, not copied.

        The other things of the image come without masks.
        """
        return self._sample(self._row(index), is_small=True)

    def image_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of the image that the box and the mask of sample ``index`` are of."""
        return self._hw("image_hw" if self.originals else "small_hw", self._image_of(self._row(index)))

    @property
    def referents(self) -> tuple[tuple[int, ...], ...]:
        """For each referent the indices of its samples."""
        groups: dict[int, list[int]] = {}
        for index, referent in enumerate(self._columns["sample_referent"][self._rows].tolist()):
            groups.setdefault(referent, []).append(index)
        return tuple(map(tuple, groups.values()))

    def pixels(self, image: int) -> NDArray[np.uint8]:
        """The packed picture of that number, uint8 [H, W, 3], read-only."""
        shard, start = int(self._columns["image_shard"][image]), int(self._columns["image_start"][image])
        height, width = self._hw("small_hw", image)
        if shard not in self._maps:
            self._maps[shard] = _map_shard(*self._shards[shard])
        return self._maps[shard][start : start + 3 * height * width].reshape(height, width, 3)

    def _row(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index!r}")
        return int(self._rows[index])

    def _sample(self, row: int, *, is_small: bool) -> Sample:
        image = self._image_of(row)
        split, category, kind, image_id = (self._word(place) for place in self._columns["sample_words"][row].tolist())
        scale = self._scale(image) if is_small else None
        box = self._columns["sample_box"][row].tolist()
        return Sample(
            id=self._texts["sample_id"][row],
            image=self.pixels(image) if is_small else self._picture(image),
            image_id=image_id or "",
            phrase=self._texts["phrase"][row],
            box_xyxy_px=None if box[0] != box[0] else _scaled(box, scale),
            mask=self._mask(int(self._columns["sample_mask"][row]), scale),
            split=split or "",
            category=category,
            kind=kind,
            instances=self._things(int(self._columns["sample_group"][row]), scale),
        )

    def _things(self, group: int, scale: tuple[float, float] | None) -> tuple[Instance, ...]:
        columns = self._columns
        first, end = columns["group_things"][group : group + 2].tolist()
        starts = columns["thing_attributes"][first : end + 1].tolist()
        attributes = columns["attribute"][starts[0] : starts[-1]].tolist()
        boxes, categories, crowds, masks = (
            columns[f"thing_{name}"][first:end].tolist() for name in ("box", "category", "crowd", "mask")
        )
        return tuple(
            Instance(
                category=self._word(categories[one]) or "",
                box_xyxy_px=_scaled(boxes[one], scale),
                mask=None if scale else self._mask(masks[one], None),
                is_crowd=bool(crowds[one]),
                attributes=tuple(self._word(place) or "" for place in attributes[a - starts[0] : b - starts[0]]),
            )
            for one, (a, b) in enumerate(pairwise(starts))
        )

    def _mask(self, mask: int, scale: tuple[float, float] | None) -> Mask | None:
        if mask < 0:
            return None
        columns = self._columns
        rle = int(columns["mask_small_rle" if scale else "mask_rle"][mask])
        if rle >= 0:
            return {"size": columns["rle_hw"][rle].tolist(), "counts": self._texts["rle"][rle]}
        first, end = columns["mask_polygons"][mask : mask + 2].tolist()
        starts = columns["polygon_coordinates"][first : end + 1].tolist()
        return [columns["coordinate"][a:b].tolist() for a, b in pairwise(starts)]

    def _picture(self, image: int) -> Path | NDArray[np.uint8]:
        """The original; pictures that never had a file are packed at their own size."""
        file = self._texts["image_file"][image]
        return self._root / safe_name(file) if file else self.pixels(image)

    def _image_of(self, row: int) -> int:
        return int(self._columns["sample_image"][row])

    def _word(self, place: int) -> str | None:
        return None if place < 0 else self._words[place]

    def _hw(self, column: str, image: int) -> tuple[int, int]:
        height, width = self._columns[column][image].tolist()
        return height, width

    def _scale(self, image: int) -> tuple[float, float]:
        """Packed pixels for an original pixel along x and y."""
        (height, width), (small_height, small_width) = self._hw("image_hw", image), self._hw("small_hw", image)
        return small_width / width, small_height / height

    def find_originals(self, bases: Sequence[Path]) -> None:
        """Take the first folder in which originals are; where there are some originals but none is found, go small."""
        named = np.flatnonzero(np.diff(self._columns["image_file_starts"]))
        self._root = bases[0]
        if not len(named):
            return
        probed = [self._texts["image_file"][one] for one in named[:: -(-len(named) // _PROBED_IMAGES)].tolist()]
        found = [base for base in bases if any(os.path.isfile(base / file) for file in probed)]
        self.originals = bool(found)
        if found:
            self._root = found[0]
            return
        self.problems += (
            f"expected the original images, such as {probed[0]!r}, in {' or '.join(map(repr, map(str, bases)))}, got "
            f"none: boxes and masks are those of the packed pictures of {self.size} pixels; name the folder as root",
        )

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Have only these samples."""
        self._rows = rows

    def splits(self) -> list[str]:
        """The split of each sample."""
        return [self._word(place) or "" for place in self._columns["sample_words"][self._rows, 0].tolist()]


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a pack, or one that is not finished."""
    return (folder / INDEX).is_file() or (folder / "pixels-00000.json").is_file()


def open_pack(
    folder: str | Path, split: str | None = None, root: str | Path | None = None, limit: int | None = None
) -> PackedSamples:
    """Open a pack.

    Args:
        folder: what ``deixis data pack`` wrote.
        split: the split that was packed, or one of those that its samples name; by default all samples.
        root: the folder of the original images, where they are no longer where they were.
        limit: at most so many samples: the first of a seeded shuffle of the images, so the same at every call.

    Raises:
        FileNotFoundError: a file is missing, or the pack was never finished.
        ValueError: a file is not what the index says; pack again.
    """
    folder = Path(folder)
    index = _read_index(folder)
    try:
        samples = PackedSamples(folder, index, read_columns(folder / SAMPLES, index["samples"]["columns"], SCHEMA))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"expected a pack in {str(folder)!r}, got a damaged one ({error}); pack again") from error
    named, relative = str(index.get("images") or ""), str(index.get("images_relative") or "")
    samples.find_originals([Path(root)] if root is not None else [Path(named), folder / relative])
    if split is not None and split != index.get("split"):
        _choose_split(samples, split)
    if limit is not None:
        images = np.asarray(samples._columns["sample_image"])[samples._rows]
        samples.keep(samples._rows[_first_images(images, limit)])
    samples._opened = (folder, split, root, limit)
    return samples


def damage(folder: str | Path) -> list[str]:
    """Read all pictures of a pack and compare them with their checksums: a sentence for each file that is wrong."""
    folder = Path(folder)
    wrong = [one["file"] for one in _read_index(folder)["shards"] if checksum(folder / one["file"]) != one["sha256"]]
    return [f"expected {name!r} as it was written, got other bytes; pack again, which mends it" for name in wrong]


def checksum(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read_index(folder: Path) -> dict[str, Any]:
    """The index, with the files that it names there and of their size; its samples also of their checksum."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"expected {INDEX!r} in {str(folder)!r}, got none; pack again: it goes on where it was")
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"more than {_MAX_INDEX_BYTES} bytes")
        index = cast("dict[str, Any]", parse_json(path.read_text(encoding="utf-8")))
        if index["deixis_pack"] != FORM:
            raise ValueError(f"form {shorten(index['deixis_pack'])} instead of {FORM}")
        files = [(one["file"], _whole(one, "bytes"), one["sha256"]) for one in index["shards"]]
        if any(name != f"pixels-{number:05d}.bin" for number, (name, _, _) in enumerate(files)):
            raise ValueError("files of pixels with other names")
        files.append((SAMPLES, _whole(index["samples"], "bytes"), index["samples"]["sha256"]))
        if not isinstance(index["problems"], list) or not isinstance(index.get("split"), str | None):
            raise ValueError("other fields")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected the index of a pack in {str(path)!r}, got another file ({error}); pack again"
        ) from None
    for name, size, _ in files:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"expected {name!r} in {str(folder)!r}, got none; pack again, which mends it")
        if (found := (folder / name).stat().st_size) != size:
            raise ValueError(
                f"expected {size} bytes in {str(folder / name)!r}, got {found}; pack again, which mends it"
            )
    if checksum(folder / SAMPLES) != files[-1][2]:
        raise ValueError(f"expected {str(folder / SAMPLES)!r} as it was written, got other bytes; pack again")
    return index


def _whole(record: dict[str, Any], key: str) -> int:
    value = record[key]
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number as {key!r}, got {shorten(value)}")
    return value


def _check(columns: Columns, texts: dict[str, Texts], shard_bytes: list[int]) -> None:
    """ValueError unless every place in a column is there."""
    images, samples, groups = len(texts["image_file"]), len(texts["phrase"]), len(columns["group_things"]) - 1
    things, masks, rles = len(columns["thing_box"]), len(columns["mask_rle"]), len(texts["rle"])
    counts = {"image": images, "small": images, "sample": samples, "thing": things, "rle": rles, "mask": masks}
    own = {"thing_attributes", "mask_polygons", *TEXTS, *(f"{name}_starts" for name in TEXTS)}
    for name, column in columns.items():
        count = counts.get(name.partition("_")[0])
        if name not in own and count is not None and len(column) != count:
            raise ValueError(f"expected {count} rows of {name!r}, got {len(column)}")
    if not samples or len(texts["sample_id"]) != samples:
        raise ValueError(f"expected names of {samples} samples, got others")
    check_starts(columns["group_things"], groups, things)
    check_starts(columns["thing_attributes"], things, len(columns["attribute"]))
    polygons = len(columns["polygon_coordinates"]) - 1
    check_starts(columns["mask_polygons"], masks, polygons)
    check_starts(columns["polygon_coordinates"], polygons, len(columns["coordinate"]))
    places = {
        "sample_image": images,
        "sample_group": groups,
        "sample_referent": samples,
        "image_shard": len(shard_bytes),
    }
    for name, count in places.items():
        check_places(columns[name], count)
    for name in ("sample_words", "thing_category", "attribute"):
        check_places(columns[name], len(texts["word"]), least=-1)
    for name, count in (("sample_mask", masks), ("thing_mask", masks), ("mask_rle", rles), ("mask_small_rle", rles)):
        check_places(columns[name], count, least=-1)
    for name in ("image_hw", "small_hw"):
        check_places(columns[name], MAX_PIXELS + 1, least=1)
    size = 3 * columns["small_hw"].astype(np.int64).prod(axis=1)
    room = np.array(shard_bytes, dtype=np.int64)[columns["image_shard"]]
    if (columns["image_start"] < 0).any() or (columns["image_start"] > room - size).any():
        raise ValueError("expected pictures inside of their files, got others")


def _map_shard(path: Path, size: int) -> NDArray[np.uint8]:
    if path.stat().st_size != size:
        raise ValueError(f"expected {size} bytes in {str(path)!r}, got another size; pack again, which mends it")
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _scaled(box: list[float], scale: tuple[float, float] | None) -> BoxXyxy:
    x, y = scale or (1.0, 1.0)
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _choose_split(samples: PackedSamples, split: str) -> None:
    found = samples.splits()
    if set(found) <= {split, ""}:
        return
    if split not in found:
        raise ValueError(f"expected the split {split!r}, got a pack of {sorted(set(found))!r}; choose one of these")
    samples.keep(samples._rows[[one == split for one in found]])


def _first_images(images: NDArray[np.integer], limit: int) -> NDArray[np.intp]:
    """Which samples a limit leaves: those of the first images of a seeded shuffle."""
    first = np.array(list(dict.fromkeys(images.tolist())))
    rank = np.zeros(int(first.max()) + 1, dtype=np.int64)
    rank[first[np.random.default_rng(_LIMIT_SEED).permutation(len(first))]] = np.arange(len(first))
    return np.argsort(rank[images], kind="stable")[:limit]
