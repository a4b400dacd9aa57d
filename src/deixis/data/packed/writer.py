"""Write a pack: see `deixis.data.packed.reading` for what is in it, and docs/packing.md."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.annotation_fields import parse_json
from deixis.data.packed.columns import write_columns
from deixis.data.packed.reading import FORM, INDEX, SAMPLES, checksum
from deixis.data.packed.sample_columns import ColumnWriter, PackedImage
from deixis.files import atomic_write
from deixis.geometry.images import Letterbox, read_image
from deixis.structures import Sample

Progress = Callable[[int, int], None]

_OWN_FILE = re.compile(r"pack\.json|samples\.bin|pixels-\d{5}\.(bin|json)|\.(pack|samples|pixels).*\.part")
_SHARD_IMAGES = 256
_TOLD_PROBLEMS = 1000


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


class _Source(NamedTuple):
    """An image to pack; ``sample`` is the first one that shows it."""

    file: Path | None
    sample: int


class _Shard(NamedTuple):
    """A written file of pictures: each one's size, the packed one's and where it starts; or why it cannot be read."""

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
    folder = Path(folder)
    _prepare(folder)
    done = Packing(folder, size, problems=list(getattr(samples, "problems", ())))
    sources = _find_images(samples)
    shards = []
    for number, first in enumerate(range(0, len(sources), shard_images)):
        part = list(sources.values())[first : first + shard_images]
        shards.append(_pack_shard(samples, part, folder / f"pixels-{number:05d}.bin", done))
        if progress is not None:
            progress(first + len(part), len(sources))
    base = _common_folder(sources)
    columns = ColumnWriter(size)
    places = _add_images(columns, sources, shards, base)
    _add_samples(columns, samples, places, done)
    if not done.samples:
        why = done.problems[0] if done.problems else "there are none"
        raise ValueError(f"expected samples to pack, got none ({why}); choose other data")
    _write_index(columns, shards, base, done, {"dataset": dataset, "split": split})
    return done


def _prepare(folder: Path) -> None:
    """Make the folder; refuse one with other files; clear away what a killed run left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(one.name for one in folder.iterdir() if not _OWN_FILE.fullmatch(one.name))
    if foreign:
        raise ValueError(
            f"expected an empty folder or a pack, got {str(folder)!r} with {foreign[0]!r}; choose another folder"
        )
    for one in folder.glob(".*.part"):
        one.unlink(missing_ok=True)


def _image_key(sample: Sample) -> str:
    return f"file {sample.image}" if isinstance(sample.image, Path) else f"drawn {sample.image_id}"


def _find_images(samples: Sequence[Sample]) -> dict[str, _Source]:
    """The images in the order in which samples first show them; samples that fail are told when they are added."""
    sources: dict[str, _Source] = {}
    for number in range(len(samples)):
        try:
            sample = samples[number]
        except (OSError, ValueError):
            continue
        image = sample.image
        sources.setdefault(_image_key(sample), _Source(image if isinstance(image, Path) else None, number))
    return sources


def _pack_shard(samples: Sequence[Sample], sources: Sequence[_Source], path: Path, done: Packing) -> _Shard:
    """Write a file of pictures and beside it its record, or take those that are there."""
    done.shards += 1
    record = path.with_suffix(".json")
    keys = [_fingerprint(samples, source) for source in sources]
    known = _read_record(record, keys, done.size)
    if known is not None and path.is_file() and path.stat().st_size == known.bytes and checksum(path) == known.sha256:
        done.kept_shards += 1
        return known
    (path.parent / INDEX).unlink(missing_ok=True)  # what it tells is no longer so
    record.unlink(missing_ok=True)
    digest, images, start = hashlib.sha256(), [], 0
    with atomic_write(path) as file:
        for source in sources:
            try:
                pixels = _read(samples, source)
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
    text = json.dumps({"size": done.size, "keys": keys, **shard._asdict()})
    with atomic_write(record) as file:
        file.write(text.encode("utf-8"))
    return shard


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture uint8 [H, W, 3] with a longer side of at most ``size``, as `letterbox` would bring it there."""
    height, width = packed_hw((pixels.shape[0], pixels.shape[1]), size)
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def packed_hw(hw: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) of the packed picture of an image; no image is enlarged."""
    return Letterbox.fit(hw, size).content_hw if max(hw) > size else hw


def _read(samples: Sequence[Sample], source: _Source) -> NDArray[np.uint8]:
    return read_image(source.file if source.file is not None else samples[source.sample].image)


def _fingerprint(samples: Sequence[Sample], source: _Source) -> str:
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


def _add_images(
    columns: ColumnWriter, sources: dict[str, _Source], shards: Sequence[_Shard], base: Path
) -> dict[str, PackedImage | str]:
    """By key the images that are packed, or why one is not."""
    places: dict[str, PackedImage | str] = {}
    shard_of = [(number, image) for number, shard in enumerate(shards) for image in shard.images]
    for (key, source), (shard, image) in zip(sources.items(), shard_of, strict=True):
        if isinstance(image, str):
            places[key] = image
            continue
        hw, small_hw, start = image
        file = ""
        if source.file is not None:
            file = Path(os.path.abspath(source.file)).relative_to(base).as_posix()
        places[key] = columns.add_image(file, hw, small_hw, shard, start)
    return places


def _add_samples(
    columns: ColumnWriter, samples: Sequence[Sample], places: dict[str, PackedImage | str], done: Packing
) -> None:
    referents = _referents(samples)
    for number in range(len(samples)):
        try:
            sample = samples[number]
            image = places[_image_key(sample)]
            if isinstance(image, str):
                raise ValueError(image)
            columns.add_sample(sample, image, referents[number])
        except (OSError, ValueError) as error:
            done.left_out += 1
            done.problems.append(f"sample {number}: {error}")
            continue
        done.samples += 1
    done.images = columns.num_images
    done.problems += columns.problems


def _referents(samples: Sequence[Sample]) -> list[object]:
    """What each sample's referent is known by: as the data set says, else its image and box."""
    known: Sequence[Sequence[int]] | None = getattr(samples, "referents", None)
    if not known:
        return [None] * len(samples)
    referents: list[object] = [None] * len(samples)
    for referent, group in enumerate(known):
        for number in group:
            referents[number] = referent
    return referents


def _write_index(
    columns: ColumnWriter, shards: Sequence[_Shard], base: Path, done: Packing, origin: dict[str, str | None]
) -> None:
    folder = done.folder
    (folder / INDEX).unlink(missing_ok=True)  # there is an index only where all that it names is there
    arrays = columns.finish()
    starts = write_columns(folder / SAMPLES, arrays)
    for one in folder.glob("pixels-*"):
        if int(one.stem[7:]) >= len(shards):  # of an earlier, larger pack
            one.unlink()
    table = {name: [start, len(arrays[name])] for name, start in starts.items()}
    state = {"bytes": (folder / SAMPLES).stat().st_size, "sha256": checksum(folder / SAMPLES)}
    done.bytes = state["bytes"] + sum(shard.bytes for shard in shards)
    told = done.problems[:_TOLD_PROBLEMS]
    index = {
        "deixis_pack": FORM, "size": done.size, **origin, "images": str(base),
        "images_relative": os.path.relpath(base, folder),
        "counts": {"images": done.images, "samples": done.samples, "left_out": done.left_out},
        "samples": {"file": SAMPLES, **state, "columns": table},
        "shards": [{"file": f"pixels-{number:05d}.bin", "bytes": shard.bytes, "sha256": shard.sha256}
                   for number, shard in enumerate(shards)],
        "problems": told + ([f"and {len(done.problems) - len(told)} more"] if len(told) < len(done.problems) else []),
    }  # fmt: skip
    with atomic_write(folder / INDEX) as file:
        file.write(json.dumps(index, indent=1).encode("utf-8"))
