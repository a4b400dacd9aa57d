"""Which images that are measured on are also trained on, by id, by file or by what they look like.

`leak_warning` answers from names and records alone, opening no data.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from deixis.data import SCENES, Dataset, open_dataset, parse_dataset_spec
from deixis.geometry.images import ImageSource
from deixis.structures import Sample
from deixis.tools.image_hash import BITS, Hashes, hash_images, near_pairs
from deixis.tools.image_keys import COLLECTIONS, Exclusions, file_key, image_keys
from deixis.tools.mix import MEASURED, read_record

HASHING = ("auto", "always", "never")
"""When pictures are compared: ``auto``, where an image has no id that identifies it."""

_MAX_STARTS = 8
_COCO = frozenset(name for name, collection in COLLECTIONS.items() if collection == "coco")
_GOOGLE = frozenset({"refcocog-google", "refcoco-google"})
_EXAMPLES = 3
_UNREADABLE = -1

Tell = Callable[[int, int | None], None]


class _Image(NamedTuple):
    keys: tuple[str, ...]
    file: str
    """Its absolute path; empty where it has none."""
    sample: int
    """The index of one sample that shows it."""


@dataclass
class Side:
    """A split and its images."""

    spec: str
    samples: Dataset
    images: list[_Image] = field(default_factory=list)
    image_of: array[int] = field(default_factory=lambda: array("q"))
    """For each sample the place of its image."""
    problems: list[str] = field(default_factory=list)
    hashes: dict[int, bytes | None] = field(default_factory=dict)
    """By the image's place, as far as they were needed; None where it cannot be read."""

    @property
    def unknown(self) -> list[int]:
        """The places of images that have no key."""
        return [place for place, image in enumerate(self.images) if not image.keys]


@dataclass
class Leak:
    """What a split to be measured on shares with one that is trained on."""

    train: str
    eval: str
    train_images: int
    eval_images: int
    eval_samples: int
    images: int = 0
    """Images measured on that are trained on."""
    samples: int = 0
    """Samples measured on that show one of these."""
    triples: int = 0
    """Samples measured on whose image, box and phrase are all trained on."""
    by: dict[str, int] = field(default_factory=dict)
    """How the images were recognised."""
    unread: int = 0
    """Images that had to be compared by their looks and could not."""
    unknown: int = 0
    """Images without an id that were not compared by their looks, as that was not wanted."""
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is shared; images that could not be compared are told apart, in ``unread``, ``unknown``."""
        return not self.images

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"clean": self.is_clean}


@dataclass
class LeakCheck:
    """All pairs of splits, the images that no training may see, and what the readers told."""

    leaks: list[Leak]
    exclusions: Exclusions
    problems: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether no pair shares anything."""
        return all(leak.is_clean for leak in self.leaks)


def find_leaks(
    train: Sequence[str],
    evaluation: Sequence[str],
    root: str | Path | None = None,
    *,
    hashing: str = "auto",
    progress: Tell | None = None,
) -> LeakCheck:
    """Compare every split that is trained on with every one that is measured on.

    Args:
        train: ``DATASET:SPLIT`` each.
        evaluation: the same.
        root: the folder of the data sets' files.
        hashing: out of `HASHING`.
        progress: called with (done, in all) for each split that is read, and for the pictures compared.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a name, split or ``hashing`` is unknown, or a data set is drawn.
    """
    if hashing not in HASHING:
        raise ValueError(f"expected hashing out of {', '.join(HASHING)}, got {hashing!r}; choose one")
    tell = progress or (lambda done, total: None)
    sides = {spec: _read_side(spec, root, tell) for spec in dict.fromkeys((*train, *evaluation))}
    leaks: list[Leak] = []
    keys = {key for spec in evaluation for image in sides[spec].images for key in image.keys or _file_keys(image)}
    for one in dict.fromkeys(train):
        for other in dict.fromkeys(evaluation):
            leak, found = _compare(sides[one], sides[other], hashing, tell)
            leaks.append(leak)
            for place in found:  # a copy may have another id or none
                image = sides[one].images[place]
                keys.update((*image.keys, *_file_keys(image)))
    problems = [f"{spec}: {problem}" for spec, side in sides.items() for problem in side.problems]
    return LeakCheck(leaks, Exclusions(frozenset(keys), tuple(dict.fromkeys(evaluation))), problems)


def _read_side(spec: str, root: str | Path | None, tell: Tell) -> Side:
    name, split = parse_dataset_spec(spec)
    if name in SCENES:
        raise ValueError(
            f"expected data sets of files, got {spec!r}: scenes are drawn, each split from seeds of its own, and share "
            "no picture; leave it out"
        )
    samples = open_dataset(name, split, root)
    side = Side(spec, samples, problems=list(samples.problems))
    places: dict[tuple[tuple[str, ...], str], int] = {}
    for index in range(len(samples)):
        tell(index + 1, len(samples))
        try:
            sample = samples[index]
        except (OSError, ValueError) as error:
            side.problems.append(f"sample {index}: {error}")
            side.image_of.append(_UNREADABLE)
            continue
        keys = image_keys(sample, name, samples.coco_ids)
        file = os.path.abspath(sample.image) if isinstance(sample.image, Path) else ""
        name_of_pixels = "" if file or keys else sample.image_id
        place = places.setdefault((keys, file or name_of_pixels), len(side.images))
        if place == len(side.images):
            side.images.append(_Image(keys, file, index))
        side.image_of.append(place)
    return side


def _compare(train: Side, other: Side, hashing: str, tell: Tell) -> tuple[Leak, dict[int, int]]:
    """The leak, and for each shared image of ``train`` its place in ``other``."""
    leak = Leak(train.spec, other.spec, len(train.images), len(other.images), len(other.samples))
    same, how = _by_keys(train, other)
    for one, place in _by_looks(train, other, hashing, leak, tell):
        same.setdefault(one, place)
        how.setdefault(place, "perceptual hash")
    leak.images = len(how)
    leak.by = dict(Counter(how.values()))
    leak.samples = sum(place in how for place in other.image_of)
    leak.triples = _shared_triples(train, other, same)
    for one, place in list(same.items())[:_EXAMPLES]:
        leak.examples.append(f"{_name(train.images[one])} is {_name(other.images[place])}, by {how[place]}")
    return leak, same


def _by_keys(train: Side, other: Side) -> tuple[dict[int, int], dict[int, str]]:
    """Shared images by id or file: of ``train`` by place of ``other``, and how each of ``other`` was recognised."""
    known = {key: place for place, image in enumerate(other.images) for key in (*image.keys, *_file_keys(image))}
    same: dict[int, int] = {}
    how: dict[int, str] = {}
    for one, image in enumerate(train.images):
        for key in (*image.keys, *_file_keys(image)):
            if key in known:
                same[one] = known[key]
                how.setdefault(known[key], _how(key, image, other.images[known[key]]))
                break
    return same, how


def _how(key: str, one: _Image, other: _Image) -> str:
    collection = key.partition(":")[0]
    if collection == "coco" and any(name.startswith("vg:") for name in (*one.keys, *other.keys)):
        return "COCO id, through Visual Genome's coco_id"
    return {"coco": "COCO id", "file": "file"}.get(collection, f"{collection} id")


def _by_looks(train: Side, other: Side, hashing: str, leak: Leak, tell: Tell) -> Iterator[tuple[int, int]]:
    """Pairs of places whose pictures are nearly the same, of which at least one has no id."""
    lost = set(train.unknown), set(other.unknown)
    if hashing == "never":
        leak.unknown = len(lost[0]) + len(lost[1])
        return
    always = hashing == "always"
    ours = list(range(len(train.images))) if lost[1] or always else sorted(lost[0])
    theirs = list(range(len(other.images))) if lost[0] or always else sorted(lost[1])
    if not ours or not theirs:
        return
    a, b = _hashes(train, ours, tell), _hashes(other, theirs, tell)
    leak.unread = len(ours) - len(a[0]) + len(theirs) - len(b[0])
    for i, j in near_pairs(a[1], b[1]):
        one, place = a[0][i], b[0][j]
        if always or one in lost[0] or place in lost[1]:
            yield one, place


def _hashes(side: Side, places: Sequence[int], tell: Tell) -> tuple[list[int], Hashes]:
    """The places of images that could be read, and their hashes."""
    import numpy as np

    wanted = [place for place in places if place not in side.hashes]
    hashes, usable = hash_images((_source(side, place) for place in wanted), len(wanted), tell)
    for place, found, is_usable in zip(wanted, hashes, usable, strict=True):
        side.hashes[place] = found.tobytes() if is_usable else None
    read = [place for place in places if side.hashes[place] is not None]
    found = np.frombuffer(b"".join(side.hashes[one] or b"" for one in read), np.uint8)
    return read, found.reshape(len(read), BITS // 8)


def _source(side: Side, place: int) -> ImageSource:
    """The picture of an image, which may be pixels in a file of samples."""
    image = side.images[place]
    return Path(image.file) if image.file else side.samples[image.sample].image


def _shared_triples(train: Side, other: Side, same: dict[int, int]) -> int:
    """Samples of ``other`` whose image, box in whole pixels and words are those of a sample of ``train``."""
    if not same:
        return 0
    trained = {
        (same[place], *_box_and_words(train.samples[index]))
        for index, place in enumerate(train.image_of)
        if place in same
    }
    shown = {key[0] for key in trained}
    return sum(
        (place, *_box_and_words(other.samples[index])) in trained
        for index, place in enumerate(other.image_of)
        if place in shown
    )


def _box_and_words(sample: Sample) -> tuple[tuple[int, ...] | None, str]:
    box = sample.box_xyxy_px
    return None if box is None else tuple(round(value) for value in box), " ".join(sample.phrase.lower().split())


def _file_keys(image: _Image) -> tuple[str, ...]:
    return (file_key(Path(image.file)),) if image.file else ()


def _name(image: _Image) -> str:
    return " = ".join(image.keys) or image.file or "an image without a file"


def leak_warning(trained: object, dataset: str | None = None, split: str | None = None) -> str | None:
    """One sentence where images measured on may be among those trained on; None where names show none.

    Names tell of public data sets only; for the user's own files ``deixis data leaks`` looks.

    Args:
        trained: the fields of a recipe, or the ``config.json`` of a checkpoint that holds them as ``recipe``. What it
            started from is followed through the checkpoints that are still there.
        dataset: the name of the data set to be measured on; None for all that papers measure on.
        split: its split.
    """
    targets = [f"{dataset}:{split}" if split else dataset] if dataset is not None else list(MEASURED)
    found: dict[str, list[str]] = {}
    for fields in _chain(_fields(trained)):
        for target in targets:
            reason = _reason(fields, target)
            if reason is not None:
                found.setdefault(reason, []).append(target)
    if not found:
        return None
    reasons = "; ".join(f"{reason} ({', '.join(dict.fromkeys(targets))})" for reason, targets in found.items())
    return f"evaluation images may be among the training images: {reasons}; check with: deixis data leaks"


def _chain(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The recipe, and those of the checkpoints that it started from."""
    for _ in range(_MAX_STARTS):
        yield fields
        start = fields.get("start")
        if not isinstance(start, str) or not start:
            return
        try:
            fields = _fields(json.loads((Path(start) / "config.json").read_bytes()))
        except (OSError, ValueError, RecursionError):
            return


def _fields(trained: object) -> Mapping[str, Any]:
    fields = trained if isinstance(trained, Mapping) else getattr(trained, "__dict__", {})
    inner = fields.get("recipe")
    return inner if isinstance(inner, Mapping) else fields


def _reason(fields: Mapping[str, Any], target: str) -> str | None:
    dataset, split = parse_dataset_spec(target)
    weights = str(fields.get("image_weights") or "")
    if dataset in _COCO and "yolov3" in Path(weights).name.lower():
        return f"the detector {Path(weights).name!r} has seen all of COCO's train2014"
    phrased = fields.get("phrased")
    if not isinstance(phrased, str) or not phrased.strip():
        return None
    name, part = parse_dataset_spec(phrased)
    part = part or (None if Path(name).suffix else "train")
    if name == "mixed":
        return _mixed_reason(str(fields.get("root") or ""), target)
    if name == dataset:
        if part == split:
            return f"{phrased!r} is the split itself"
        return f"the splits of {name!r} divide things and not images" if name in _GOOGLE else None
    if {name, dataset} <= _COCO:
        return f"{phrased!r} has images of COCO too, split otherwise"
    if (name == "vg" and dataset in _COCO) or (dataset == "vg" and name in _COCO):
        return "about half of Visual Genome's images are COCO's"
    return None


def _mixed_reason(root: str, target: str) -> str | None:
    if target not in MEASURED:
        return None
    record = read_record(root)
    if record is None:
        return "the mix has no readable mix.json, which would tell what it left out"
    left_out = record.get("left_out_for")
    if not isinstance(left_out, list) or target not in left_out:
        return "the mix was made without leaving them out"
    return "of some images in the mix nothing tells which they are" if record.get("without_keys") else None
