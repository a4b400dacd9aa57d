"""What was read of a release, kept in arrays, so that the second start takes a second.

The copy lies in ``$XDG_CACHE_HOME/deixis`` or ``~/.cache/deixis``. It holds numbers and JSON text, never a pickle, and
is used only as long as both files of the release have the size, the time and the head that they had.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deixis.data.formats.image_folders import Key
from deixis.data.formats.packed_masks import PackedMask, unpack_mask
from deixis.data.formats.refer_instances import ImageRecord, ReferInstances
from deixis.files import atomic_write
from deixis.structures import Instance, Rle

MIN_BYTES = 8 * 2**20
"""Releases smaller than this are read anew each time: it takes less than a second."""
_FORM = 1
_HEAD_BYTES = 1 << 16


class Expression(NamedTuple):
    """A sentence and the thing that it means; ``place`` is the thing's among those of its image."""

    id: str
    phrase: str
    referent: Key
    split: str
    image: Key
    place: int


class Instances(Protocol):
    """The images and annotated things of a split."""

    images: dict[Key, ImageRecord]
    clipped: int

    def instances(self, image: Key) -> tuple[Instance, ...]:
        """The things annotated in an image."""
        ...

    def keep(self, images: set[Key]) -> None:
        """Forget all images but these."""
        ...


class SplitRead(NamedTuple):
    """All that a split of a release holds, and what was wrong with it."""

    expressions: list[Expression]
    instances: Instances
    problems: list[str]
    left_out: int


class PackedInstances:
    """The things of many images in arrays; polygons lie one behind the other in ``coordinates``."""

    def __init__(self, arrays: dict[str, NDArray[Any]], record: dict[str, Any]) -> None:
        self.images = {key: ImageRecord(name, (h, w)) for key, name, h, w in record["images"]}
        self.clipped = int(record["clipped"])
        self._categories: list[str] = record["categories"]
        self._rles: dict[int, Rle] = {int(k): {"size": size, "counts": text} for k, size, text in record["rles"]}
        self._rows = {key: place for place, key in enumerate(self.images)}
        self._first = arrays["first"]  # [images + 1] where each image's things start
        self._boxes = arrays["boxes"]  # [things, 4] xyxy in pixels
        self._category = arrays["category"]
        self._crowd = arrays["crowd"]
        self._polygons = arrays["polygons"]  # [things + 1] where each thing's polygons start
        self._points = arrays["points"]  # [polygons + 1] where each polygon's coordinates start
        self._coordinates = arrays["coordinates"]
        self._check()

    def _check(self) -> None:
        things = len(self._boxes)
        starts = ((self._first, len(self.images), things), (self._polygons, things, len(self._points) - 1),
                  (self._points, len(self._points) - 1, len(self._coordinates)))  # fmt: skip
        for offsets, count, end in starts:
            if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
                raise ValueError("offsets that fit, got others")
        if len(self._category) != things or len(self._crowd) != things:
            raise ValueError("columns of one length, got others")
        if things and not 0 <= int(self._category.min()) <= int(self._category.max()) < len(self._categories):
            raise ValueError("categories with a name, got others")

    def instances(self, image: Key) -> tuple[Instance, ...]:
        """The things annotated in an image, in the file's order."""
        row = self._rows[image]
        return tuple(map(self._instance, range(int(self._first[row]), int(self._first[row + 1]))))

    def _instance(self, thing: int) -> Instance:
        return Instance(
            category=self._categories[int(self._category[thing])],
            box_xyxy_px=tuple(self._boxes[thing].tolist()),  # type: ignore[arg-type]
            mask=unpack_mask(self._mask(thing)),
            is_crowd=bool(self._crowd[thing]),
        )

    def _mask(self, thing: int) -> PackedMask:
        if thing in self._rles:
            return self._rles[thing]
        ends = self._points[int(self._polygons[thing]) : int(self._polygons[thing + 1]) + 1].tolist()
        parts = [self._coordinates[a:b] for a, b in pairwise(ends)]
        return tuple(array("d", part.tobytes()) for part in parts) or None

    def keep(self, images: set[Key]) -> None:
        """Forget the names of all images but these; the arrays stay."""
        self.images = {image: record for image, record in self.images.items() if image in images}


def cache_file(files: Sequence[Path], split: str) -> Path | None:
    """Where the copy of a split lies; None where the files are small or there is no home to put it in."""
    if sum(path.stat().st_size for path in files) < MIN_BYTES:
        return None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    names = "\n".join([*(str(path.resolve()) for path in files), split])
    return Path(home) / "deixis" / f"refer-{hashlib.sha256(os.fsencode(names)).hexdigest()[:24]}.npz"


def load_split(path: Path, files: Sequence[Path]) -> SplitRead | None:
    """The copy; None where there is none, it is not whole, or a file has changed since."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            record = json.loads(archive["record"].tobytes())
            if record["stamp"] != _stamp(files):
                return None
            arrays = {name: archive[name] for name in archive.files if name != "record"}
        instances = PackedInstances(arrays, record)
        expressions = list(map(Expression, *record["expressions"], arrays["place"].tolist()))
        counts = {key: int(n) for key, n in zip(instances.images, np.diff(arrays["first"]), strict=True)}
        if not expressions or not all(0 <= one.place < counts[one.image] for one in expressions):
            return None
        return SplitRead(expressions, instances, record["problems"], int(record["left_out"]))
    except Exception:  # a damaged archive raises nearly everything
        return None


def store_split(path: Path, files: Sequence[Path], read: SplitRead) -> None:
    """Keep a copy; where it cannot be written, nothing happens."""
    instances = read.instances
    assert isinstance(instances, ReferInstances)
    arrays, record = _pack(instances)
    names = ("id", "phrase", "referent", "split", "image")
    record |= {
        "stamp": _stamp(files),
        "expressions": [[getattr(one, name) for one in read.expressions] for name in names],
        "problems": read.problems,
        "left_out": read.left_out,
    }
    arrays["place"] = np.array([one.place for one in read.expressions], dtype=np.int32)
    arrays["record"] = np.frombuffer(json.dumps(record).encode("ascii"), dtype=np.uint8)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def _pack(instances: ReferInstances) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    categories: dict[str, int] = {}
    rles: list[list[object]] = []
    first, polygons, points = array("q", [0]), array("q", [0]), array("q", [0])
    boxes, coordinates, category, crowd = array("d"), array("d"), array("i"), array("b")
    for image in instances.images:
        for thing in instances.things.get(image, ()):
            mask = thing.mask
            if isinstance(mask, tuple):
                for polygon in mask:
                    coordinates.extend(polygon)
                    points.append(len(coordinates))
            elif mask is not None:
                rles.append([len(category), mask["size"], mask["counts"]])
            polygons.append(len(points) - 1)
            boxes.extend(thing.box_xyxy_px)
            category.append(categories.setdefault(thing.category, len(categories)))
            crowd.append(thing.is_crowd)
        first.append(len(category))
    columns = {"first": first, "polygons": polygons, "points": points, "coordinates": coordinates,
               "category": category, "crowd": crowd}  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {name: np.array(column) for name, column in columns.items()}
    arrays["boxes"] = np.array(boxes).reshape(-1, 4)
    images = [[key, one.file_name, *one.hw] for key, one in instances.images.items()]
    return arrays, {"images": images, "categories": list(categories), "rles": rles, "clipped": instances.clipped}


def _stamp(files: Sequence[Path]) -> str:
    """The size, time and head of the files, and the form of the copy, in one line."""
    digest = hashlib.sha256(str(_FORM).encode())
    for path in files:
        stat = path.stat()
        with path.open("rb") as file:
            digest.update(f"{stat.st_size} {stat.st_mtime_ns} ".encode() + file.read(_HEAD_BYTES))
    return digest.hexdigest()
