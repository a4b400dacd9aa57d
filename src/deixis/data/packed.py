"""Packs: small pictures in flat files that are mapped into memory, and their samples at the original size.

A folder holds ``pack.json``, ``samples`` (a `SampleTable`) and ``pixels-00000.bin`` and so on: pictures one behind the
other, uint8 [H, W, 3]. docs/packing.md says more.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.annotation_fields import parse_json, safe_name, shorten
from deixis.data.annotation_masks import PackedMask
from deixis.data.columns import Columns, check_places, checksum, read_columns, write_columns
from deixis.data.dataset import Dataset, as_dataset
from deixis.data.formats import Format
from deixis.data.table import SCHEMA, SampleTable, TableWriter, Thing, check_columns
from deixis.files import PART, atomic_write, write_text
from deixis.geometry.images import MAX_PIXELS, Letterbox, read_image
from deixis.geometry.masks import decode_rle, encode_rle, read_mask
from deixis.structures import Instance, Mask, Sample

INDEX = "pack.json"
SAMPLES = "samples"
FORM = 2
PACK_SCHEMA = {
    **SCHEMA,
    "image_small_hw": ("<i4", 2),
    "image_shard": ("<i4", 0),
    "image_start": ("<i8", 0),  # bytes into the shard
    "mask_small_rle": ("<i4", 0),  # the mask at the size of the packed picture, where a sample means it
}
Progress = Callable[[int, int], None]
_MAX_INDEX_BYTES = 1 << 28
_PROBED_IMAGES = 16
_OWN_FILE = re.compile(rf"pack\.json|samples(\.bin)?|pixels-\d{{5}}\.(bin|json)|\..*\{PART}")
_SHARD_IMAGES = 256
_SHOWN_PROBLEMS = 1000


class PackedSamples(SampleTable):
    """The samples of a pack. Open with `open_pack`.

    Boxes and masks are those of the original images, which a sample names, so evaluation is as exact as without the
    pack. `small` gives the same sample at the size of the packed picture, with its pixels; training takes that. Where
    no original is there, all samples are such, and ``problems`` says so.
    """

    def __init__(self, folder: Path, index: dict[str, Any], columns: Columns, head: dict[str, Any]) -> None:
        super().__init__(columns, head)
        self.folder, self.size = folder, _whole(index, "size")
        self._shards = [(folder / one["file"], int(one["bytes"])) for one in index["shards"]]
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._root = Path()
        self._opened: tuple[Any, ...] = (folder,)
        self.originals = True

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _reopen, (*self._opened, self._rows)

    def small(self, index: int) -> Sample:
        """The sample at the size of its packed picture, whose pixels it holds: read-only, not copied.

        The other instances of the image come without masks.
        """
        return self._small(self._row(index))

    def image_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of the image that the box and the mask of a sample are of."""
        return self._hw("image_hw" if self.originals else "image_small_hw", self._image_of(self._row(index)))

    def pixels(self, image: int) -> NDArray[np.uint8]:
        """The packed picture of that number, uint8 [H, W, 3], read-only."""
        shard, start = int(self._columns["image_shard"][image]), int(self._columns["image_start"][image])
        height, width = self._hw("image_small_hw", image)
        if shard not in self._maps:
            self._maps[shard] = _map_shard(*self._shards[shard])
        return self._maps[shard][start : start + 3 * height * width].reshape(height, width, 3)

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

    def _sample(self, row: int) -> Sample:
        return super()._sample(row) if self.originals else self._small(row)

    def _small(self, row: int) -> Sample:
        image = self._image_of(row)
        (height, width), (small_height, small_width) = self._hw("image_hw", image), self._hw("image_small_hw", image)
        return self._make(row, self.pixels(image), (small_width / width, small_height / height))

    def _picture(self, image: int) -> Path | NDArray[np.uint8]:
        """The original; pictures that never had a file are packed at their own size."""
        file = self._texts["image_file"][image]
        return self._root / safe_name(file) if file else self.pixels(image)

    def _hw(self, column: str, image: int) -> tuple[int, int]:
        height, width = self._columns[column][image].tolist()
        return height, width

    def at(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """A view of these records."""
        self._rows = rows
        return self


def open_pack(folder: str | Path, split: str | None = None, root: str | Path | None = None) -> PackedSamples:
    """Open a pack.

    Args:
        folder: what ``deixis data pack`` wrote.
        split: the split that was packed, or one of those that its samples name; by default all samples.
        root: the folder of the original images, where they are no longer where they were.

    Raises:
        FileNotFoundError: a file is missing, or the pack was never finished.
        ValueError: a file is not what the index says; pack again.
    """
    folder = Path(folder)
    index = _read_index(folder)
    try:
        columns, head = read_columns(folder / SAMPLES, PACK_SCHEMA)
        check_columns(columns)
        _check_pictures(columns, [one["bytes"] for one in index["shards"]])
        samples = PackedSamples(folder, index, columns, head)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"expected {str(error.filename)!r}, got no file; pack again, which mends it") from error
    except Exception as error:  # numpy raises nearly everything on damaged heads
        raise ValueError(f"expected a pack in {str(folder)!r}, got a damaged one ({error}); pack again") from error
    named, relative = str(index.get("images") or ""), str(index.get("images_relative") or "")
    samples.find_originals([Path(root)] if root is not None else [Path(named), folder / relative])
    samples._opened = (folder, root)
    return samples.split(None if split == index.get("split") else split)


def damage(folder: str | Path) -> list[str]:
    """Read all pictures of a pack and compare them with their checksums: a sentence for each file that is wrong."""
    folder = Path(folder)
    wrong = [one["file"] for one in _read_index(folder)["shards"] if checksum(folder / one["file"]) != one["sha256"]]
    return [f"expected {name!r} as it was written, got other bytes; pack again, which mends it" for name in wrong]


@dataclass
class Packing:
    """What `write_pack` did: ``samples + left_out`` is how many samples came."""

    folder: Path
    size: int
    images: int = 0
    samples: int = 0
    left_out: int = 0
    shards: int = 0
    kept_shards: int = 0
    """Files of pictures that an earlier run had written and that were right."""
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kept = f", of which {self.kept_shards} were there" if self.kept_shards else ""
        return (
            f"{self.samples} samples of {self.images} images packed in {self.folder}, {self.left_out} left out\n"
            f"{self.shards} files of pictures of at most {self.size} pixels a side{kept}, {self.bytes / 1e6:.0f} MB"
        )


class _Picture(NamedTuple):
    """A packed picture: the size of the original (height, width), its own, its file of pictures and where it starts."""

    hw: tuple[int, int]
    small_hw: tuple[int, int]
    shard: int
    start: int


class _Source(NamedTuple):
    """An image to pack; ``sample`` is the first one that shows it."""

    file: Path | None
    sample: int


class _Shard(NamedTuple):
    """A written file of pictures: sizes and start of each, as in `_Picture`, or why it cannot be read."""

    images: list[tuple[tuple[int, int], tuple[int, int], int] | str]
    bytes: int
    sha256: str


def write_pack(
    samples: Sequence[Sample],
    folder: str | Path,
    size: int = 416,
    *,
    dataset: str = "",
    split: str | None = None,
    shard_images: int = _SHARD_IMAGES,
    progress: Progress | None = None,
) -> Packing:
    """Write samples and their pictures, whose longer side becomes ``size`` pixels where it is longer.

    Each file is written whole or not at all, the index last. A run that was broken off goes on where it was, and
    files of pictures that do not match their checksum are written anew. Pictures without a file, such as drawn scenes,
    keep their own size. An image or a mask that cannot be read leaves its samples out, with a problem each.

    Args:
        samples: of any data set.
        folder: is made where it is not there; else it must be empty or hold a pack.
        size: pixels.
        dataset: where the samples come from, for the index.
        split: which split they are, where all are of one.
        shard_images: so many pictures a file.
        progress: called with (images done, images in all).

    Raises:
        ValueError: the folder holds something else, or there is no sample to pack; the sentence says why.
        OSError: the folder cannot be written to.
    """
    if size < 32 or shard_images < 1:
        raise ValueError(f"expected a size of at least 32 and images a file, got {(size, shard_images)!r}; choose more")
    folder, data = Path(folder), as_dataset(samples)
    _prepare(folder)
    done = Packing(folder, size, problems=list(data.problems))
    sources = _find_images(data)
    shards: list[_Shard] = []
    for number, first in enumerate(range(0, len(sources), shard_images)):
        part = list(sources.values())[first : first + shard_images]
        shards.append(_pack_shard(data, part, folder / f"pixels-{number:05d}.bin", done))
        if progress is not None:
            progress(first + len(part), len(sources))
    base = _common_folder(sources)
    writer = _PackWriter(base)
    _add_samples(writer, data, _pictures(sources, shards), done)
    if not done.samples:
        why = done.problems[0] if done.problems else "there are none"
        raise ValueError(f"expected samples to pack, got none ({why}); choose other data")
    _write_index(writer, shards, done, {"dataset": dataset, "split": split}, data.left_out + done.left_out)
    return done


class _PackWriter(TableWriter):
    """Collects samples with their packed pictures; what samples of one image share is kept once."""

    def __init__(self, base: Path) -> None:
        super().__init__("", PACK_SCHEMA)
        self.base = base
        self._last = -1
        self._known_masks: list[tuple[Mask, int]] = []
        self._known_groups: list[tuple[tuple[Instance, ...], int]] = []

    def mask(self, mask: PackedMask) -> int:
        """As of every table, with room for the mask at the size of the packed picture."""
        place = super().mask(mask)
        if place == len(self.numbers["mask_small_rle"]):
            self.numbers["mask_small_rle"].append(-1)
        return place

    def add_sample(self, sample: Sample, picture: _Picture, referent: object) -> None:
        """Add a sample.

        Raises:
            ValueError: a text has no UTF-8, or its mask cannot be read.
            FileNotFoundError: its mask is a file that is not there.
        """
        for text in (sample.id, sample.phrase, sample.image_id, sample.split, sample.category or "", sample.kind or ""):
            text.encode("utf-8")
        image = self._image(sample, picture)
        if image != self._last:
            self._last, self._known_masks, self._known_groups = image, [], []
        mask = -1 if sample.mask is None else self._mask(sample.mask, picture, is_meant=True)
        self.add(
            image,
            sample.phrase,
            sample.box_xyxy_px,
            name=sample.id,
            mask=mask,
            group=self._group(sample, picture),
            split=sample.split,
            category=sample.category,
            kind=sample.kind,
            referent=(image, sample.box_xyxy_px) if referent is None else referent,
        )

    def _image(self, sample: Sample, picture: _Picture) -> int:
        file = ""
        if isinstance(sample.image, Path):
            file = Path(os.path.abspath(sample.image)).relative_to(self.base).as_posix()
        image = self.image(sample.image_id, file, hw=picture.hw)
        if image == len(self.numbers["image_shard"]):
            for name, values in (
                ("image_small_hw", picture.small_hw),
                ("image_shard", (picture.shard,)),
                ("image_start", (picture.start,)),
            ):
                self.numbers[name].extend(values)
        return image

    def _group(self, sample: Sample, picture: _Picture) -> int:
        for known, group in self._known_groups:
            if known is sample.instances or known == sample.instances:
                return group
        group = self.group([self._thing(one, picture, sample.id) for one in sample.instances])
        self._known_groups.append((sample.instances, group))
        return group

    def _thing(self, thing: Instance, picture: _Picture, sample: str) -> Thing:
        mask = -1
        if thing.mask is not None:
            try:
                mask = self._mask(thing.mask, picture, is_meant=False)
            except (OSError, ValueError) as error:
                self.problems.append(f"sample {sample!r}, another {thing.category!r} without its mask: {error}")
        return Thing(thing.category, thing.box_xyxy_px, mask, thing.is_crowd, thing.attributes)

    def _mask(self, mask: Mask, picture: _Picture, *, is_meant: bool) -> int:
        """A mask's place; one that a sample means is also drawn at the size of the packed picture."""
        place = next((place for known, place in self._known_masks if known is mask or known == mask), None)
        drawn = None
        if place is None:
            if isinstance(mask, Path):
                drawn = read_mask(mask, picture.hw)
                place = self.mask(encode_rle(drawn))
            elif isinstance(mask, list):
                place = self.mask(tuple(array("d", polygon) for polygon in mask))
            else:
                place = self.mask(mask if isinstance(mask["counts"], str) else encode_rle(decode_rle(mask)))
            self._known_masks.append((mask, place))
        if is_meant and self.numbers["mask_small_rle"][place] < 0:
            drawn = read_mask(mask, picture.hw) if drawn is None else drawn
            self.numbers["mask_small_rle"][place] = self.rle(encode_rle(shrink_mask(drawn, picture.small_hw)))
        return place


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture uint8 [H, W, 3] with a longer side of at most ``size``, as `letterbox` would bring it there."""
    hw = pixels.shape[0], pixels.shape[1]
    if max(hw) <= size:  # no image is enlarged
        return pixels
    height, width = Letterbox.fit(hw, size).content_hw
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def shrink_mask(mask: NDArray[np.bool_], hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool [H, W] on a smaller picture of ``hw``: True where at least half of the pixel is covered."""
    if mask.shape == hw:
        return mask
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((hw[1], hw[0]), Image.Resampling.BILINEAR)) >= 128


def _prepare(folder: Path) -> None:
    """Make the folder; refuse one with other files; clear away what a killed run left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(one.name for one in folder.iterdir() if not _OWN_FILE.fullmatch(one.name))
    if foreign:
        raise ValueError(
            f"expected an empty folder or a pack, got {str(folder)!r} with {foreign[0]!r}; choose another folder"
        )
    for one in (*folder.glob(f".*{PART}"), folder / "samples.bin"):  # the last of packs of an earlier form
        if one.is_dir():
            shutil.rmtree(one)
        else:
            one.unlink(missing_ok=True)


def _image_key(sample: Sample) -> str:
    return f"file {sample.image}" if isinstance(sample.image, Path) else f"drawn {sample.image_id}"


def _find_images(samples: Dataset) -> dict[str, _Source]:
    """The images in the order in which samples first show them; samples that fail are reported when they are added."""
    sources: dict[str, _Source] = {}
    for number in range(len(samples)):
        try:
            sample = samples[number]
        except (OSError, ValueError):
            continue
        image = sample.image
        sources.setdefault(_image_key(sample), _Source(image if isinstance(image, Path) else None, number))
    return sources


def _pack_shard(samples: Dataset, sources: Sequence[_Source], path: Path, done: Packing) -> _Shard:
    """Write a file of pictures and beside it its record, or take those that are there."""
    done.shards += 1
    record = path.with_suffix(".json")
    keys = [_fingerprint(samples, source) for source in sources]
    known = _read_record(record, keys, done.size)
    if known is not None and path.is_file() and path.stat().st_size == known.bytes and checksum(path) == known.sha256:
        done.kept_shards += 1
        return known
    (path.parent / INDEX).unlink(missing_ok=True)  # what it says is no longer so
    record.unlink(missing_ok=True)
    digest, images, start = hashlib.sha256(), [], 0
    with atomic_write(path) as file:
        for source in sources:
            try:
                pixels = read_image(source.file if source.file is not None else samples[source.sample].image)
            except (OSError, ValueError) as error:
                images.append(str(error))
                continue
            small = pixels if source.file is None else shrink(pixels, done.size)
            images.append((pixels.shape[:2], small.shape[:2], start))
            content = np.ascontiguousarray(small).data
            digest.update(content)
            file.write(content)
            start += small.nbytes
    shard = _Shard(images, start, digest.hexdigest())
    write_text(record, json.dumps({"size": done.size, "keys": keys, **shard._asdict()}))
    return shard


def _fingerprint(samples: Dataset, source: _Source) -> str:
    """What an image is known by: its file's name, size and time; of pixels a checksum."""
    if source.file is None:
        return hashlib.sha256(np.ascontiguousarray(samples[source.sample].image).data).hexdigest()
    try:
        state = source.file.stat()
    except (OSError, ValueError):
        return f"{source.file} is not there"
    return f"{source.file} {state.st_size} {state.st_mtime_ns}"


def _read_record(path: Path, keys: list[str], size: int) -> _Shard | None:
    """The record of a file of pictures; None where there is none for these images at this size."""
    try:
        record: Any = parse_json(path.read_text(encoding="utf-8"))
        if record["keys"] != keys or record["size"] != size or len(record["images"]) != len(keys):
            return None
        images = [
            one if isinstance(one, str) else (tuple(map(int, one[0])), tuple(map(int, one[1])), int(one[2]))
            for one in record["images"]
        ]
        return _Shard(images, int(record["bytes"]), str(record["sha256"]))  # pyright: ignore[reportArgumentType]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _common_folder(sources: dict[str, _Source]) -> Path:
    """The deepest folder that holds all images."""
    folders = {os.path.abspath(source.file.parent) for source in sources.values() if source.file is not None}
    try:
        return Path(os.path.commonpath(sorted(folders))) if folders else Path.cwd()
    except ValueError:  # on two drives
        raise ValueError("expected images on one drive, got several; pack them one by one") from None


def _pictures(sources: dict[str, _Source], shards: Sequence[_Shard]) -> dict[str, _Picture | str]:
    """By image the packed picture, or why there is none."""
    packed = [(number, image) for number, shard in enumerate(shards) for image in shard.images]
    return {
        key: image if isinstance(image, str) else _Picture(image[0], image[1], number, image[2])
        for key, (number, image) in zip(sources, packed, strict=True)
    }


def _add_samples(writer: _PackWriter, samples: Dataset, pictures: dict[str, _Picture | str], done: Packing) -> None:
    referents: list[object] = [None] * len(samples)
    for referent, group in enumerate(samples.referents if samples.has_referents else ()):
        for number in group:
            referents[number] = referent
    used: set[str] = set()
    for number in range(len(samples)):
        try:
            sample = samples[number]
            picture = pictures[_image_key(sample)]
            if isinstance(picture, str):
                raise ValueError(picture)
            writer.add_sample(sample, picture, referents[number])
        except (OSError, ValueError) as error:
            done.left_out += 1
            done.problems.append(f"sample {number}: {error}")
            continue
        used.add(_image_key(sample))
        done.samples += 1
    done.images = len(used)
    done.problems += writer.problems


def _write_index(
    writer: _PackWriter, shards: Sequence[_Shard], done: Packing, origin: dict[str, str | None], left_out: int
) -> None:
    folder = done.folder
    (folder / INDEX).unlink(missing_ok=True)  # there is an index only where all that it names is there
    shown = done.problems[:_SHOWN_PROBLEMS]
    shown += [f"and {len(done.problems) - len(shown)} more"] if len(shown) < len(done.problems) else []
    write_columns(folder / SAMPLES, writer.columns(), {"problems": shown, "left_out": left_out, "clipped_boxes": 0})
    for one in folder.glob("pixels-*"):
        if int(one.stem[7:]) >= len(shards):  # of an earlier, larger pack
            one.unlink()
    size = sum(one.stat().st_size for one in (folder / SAMPLES).iterdir())
    done.bytes = size + sum(shard.bytes for shard in shards)
    index = {
        "deixis_pack": FORM, "size": done.size, **origin, "images": str(writer.base),
        "images_relative": os.path.relpath(writer.base, folder),
        "counts": {"images": done.images, "samples": done.samples, "left_out": done.left_out},
        "shards": [{"file": f"pixels-{number:05d}.bin", "bytes": shard.bytes, "sha256": shard.sha256}
                   for number, shard in enumerate(shards)],
    }  # fmt: skip
    write_text(folder / INDEX, json.dumps(index, indent=1))


def _read_index(folder: Path) -> dict[str, Any]:
    """The index, with the files of pictures that it names there and of their size."""
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
        if not isinstance(index.get("split"), str | None):
            raise ValueError("other fields")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected the index of a pack in {str(path)!r}, got another file ({error}); pack again"
        ) from None
    for name, size, _ in files:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"expected {name!r} in {str(folder)!r}, got none; pack again, which mends it")
        _check_size(folder / name, size)
    return index


def _whole(record: dict[str, Any], key: str) -> int:
    value = record[key]
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number as {key!r}, got {shorten(value)}")
    return value


def _check_pictures(columns: Columns, shard_bytes: list[int]) -> None:
    """ValueError unless every picture lies inside its file, and every mask of a small one is there."""
    check_places(columns["image_shard"], len(shard_bytes))
    check_places(columns["mask_small_rle"], len(columns["rle_hw"]), least=-1)
    for name in ("image_hw", "image_small_hw"):
        check_places(columns[name], MAX_PIXELS + 1, least=1)
    size = 3 * columns["image_small_hw"].astype(np.int64).prod(axis=1)
    room = np.array(shard_bytes, dtype=np.int64)[columns["image_shard"]]
    if (columns["image_start"] < 0).any() or (columns["image_start"] > room - size).any():
        raise ValueError("expected pictures inside of their files, got others")


def _map_shard(path: Path, size: int) -> NDArray[np.uint8]:
    _check_size(path, size)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _check_size(path: Path, size: int) -> None:
    if (found := path.stat().st_size) != size:
        raise ValueError(f"expected {size} bytes in {str(path)!r}, got {found}; pack again, which mends it")


def _reopen(folder: Path, root: Path | None, rows: Sequence[int] | NDArray[np.int64]) -> PackedSamples:
    """A pack in another process."""
    return open_pack(folder, root=root).at(rows)


FORMAT = Format(
    read=lambda request: open_pack(request.path, request.split, request.images),
    is_folder=lambda folder: (folder / INDEX).is_file() or (folder / "pixels-00000.json").is_file(),
)
