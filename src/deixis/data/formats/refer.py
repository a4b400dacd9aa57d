"""The `refer` release of RefCOCO, RefCOCO+, RefCOCOg and ReferItGame: refs(<split_by>).p beside instances.json.

``docs/datasets.md`` says which file goes where and how many sentences each split has. What was read of a large release
is kept in the cache (`deixis.files.cache_folder`), and used as long as both files have the size, the time and the head
that they had, so that the second start takes a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from deixis.data.annotation_fields import Key, Record, read_key, read_name, read_words, shorten
from deixis.data.formats import Format, Request
from deixis.data.formats.coco import CocoInstances
from deixis.data.formats.pickles import load_refs
from deixis.data.table import SampleTable, TableWriter, Thing
from deixis.files import cache_folder

REFER = {
    "refcoco": ("refcoco", "unc"),
    "refcoco+": ("refcoco+", "unc"),
    "refcocog-umd": ("refcocog", "umd"),
    "refcocog-google": ("refcocog", "google"),
    "refcoco-google": ("refcoco", "google"),
    "referit": ("refclef", "berkeley"),
    "referit-unc": ("refclef", "unc"),
}
"""Data sets of the release by name: the folder below the root, and who made the splits."""
_UNC = ("train", "val", "testA", "testB")
SPLITS: dict[tuple[str, str], tuple[str, ...]] = {
    ("refcoco", "unc"): _UNC,
    ("refcoco", "google"): ("train", "val", "test"),
    ("refcoco+", "unc"): _UNC,
    ("refcocog", "umd"): ("train", "val", "test"),
    ("refcocog", "google"): ("train", "val"),
    ("refclef", "berkeley"): ("train", "val", "trainval", "test"),
    ("refclef", "unc"): (*_UNC, "testC"),
}
"""The splits by (dataset, split_by). ``refclef`` is the release's name for ReferItGame."""

MAX_SENTENCES = 5_000_000
MIN_CACHED_BYTES = 8 * 2**20
"""Releases smaller than this are read anew each time: it takes less than a second."""
_HEAD_BYTES = 1 << 16


def open_refer(
    root: str | Path,
    dataset: str = "refcoco",
    split_by: str = "unc",
    split: str = "val",
    *,
    limit: int | None = None,
    need_images: bool = True,
) -> SampleTable:
    """Open one split of a release.

    Args:
        root: the folder that holds the folder ``dataset``, or that folder itself.
        dataset: ``refcoco``, ``refcoco+``, ``refcocog`` or ``refclef``.
        split_by: who made the splits: ``unc``, ``google``, ``umd`` or ``berkeley``; see `SPLITS`.
        split: as in `SPLITS`. As in the release, testA takes every referent whose split starts with "test" and has
            an A in it, "test" all that start so, trainval train and val.
        limit: see `Dataset.limit`.
        need_images: whether to refuse a root without images; without, the release's own folder is taken for granted.

    Returns:
        The sentences as samples, images in the order in which the file first names them. ``referents`` groups them by
        what they mean: MCN trains on one sentence a referent and epoch. ``problems`` also names annotations of the
        images that could not be read and that no sentence means; ``left_out`` counts sentences alone.

    Raises:
        FileNotFoundError: a file is not there, or none of the images is; the sentence says what to put where.
        ValueError: there is no such split, a file is malformed, or nothing in it can be used.
    """
    if split not in SPLITS.get((dataset, split_by), ()):
        known = "; ".join(f"{name} {by}: {', '.join(splits)}" for (name, by), splits in SPLITS.items())
        raise ValueError(f"expected one of these splits ({known}), got {(dataset, split_by, split)!r}; choose one")
    folder = _release_folder(Path(root), dataset, split_by)
    files = (folder / f"refs({split_by}).p", folder / "instances.json")
    collection = "saiapr" if dataset == "refclef" else "coco"
    table = _cached(files, split, collection)
    bases = [Path(root)] if folder != Path(root) else [Path(root), folder.resolve().parent]
    table.find_images(bases, need_images=need_images)
    return table.limit(limit)


class Expression(NamedTuple):
    """A sentence whose annotations are still to be looked up; ``where`` names it in a problem."""

    id: str
    phrase: str
    referent: Key
    split: str
    image: Key
    annotations: tuple[Key, ...]
    where: str


class ReferReader:
    """Reads references and what they mean into a table; with ``several``, they may mean several instances, or none."""

    def __init__(self, source: Path, split: str, *, several: bool = False) -> None:
        self.table, self.split, self.several = TableWriter(source), split, several
        self.splits: set[str] = set()
        self._count = 0

    def expressions(self, refs: Iterable[object]) -> list[Expression]:
        """The sentences of the split. A reference whose split cannot be read is reported for every split."""
        found: list[Expression] = []
        for number, ref in enumerate(refs):
            where = f"{'reference' if self.several else 'referent'} {number}"
            sentences = ref.get("sentences") if isinstance(ref, dict) else None
            count = len(sentences) if isinstance(sentences, list) else 1
            with self.table.telling(where, count):
                if not isinstance(ref, dict):
                    raise ValueError(f"expected a dict, got {shorten(ref)}; correct it")
                named = ref.get("split")
                if not isinstance(named, str):
                    raise ValueError(f"expected a split, got {shorten(named)}; add it")
                self.splits.add(shorten(named)[1:-1])
                if not _is_in(named, self.split):
                    continue
                found += self._of_ref(where, ref)
            self._count += count
            if self._count > MAX_SENTENCES:  # a small pickle may name one long list of sentences very often
                raise ValueError(f"expected at most {MAX_SENTENCES} expressions, got more; check the file of referents")
        return found

    def _of_ref(self, where: str, ref: Record) -> list[Expression]:
        referent, image = read_key(ref, "ref_id"), read_key(ref, "image_id")
        annotations = _annotations(ref) if self.several else (read_key(ref, "ann_id"),)
        sentences = ref.get("sentences")
        if not isinstance(sentences, list):
            raise ValueError(f"expected a list of sentences, got {shorten(sentences)}; correct it")
        found: list[Expression] = []
        for number, sentence in enumerate(sentences):
            place = f"{where} (ref_id {referent!r}), sentence {number}"
            with self.table.telling(place):
                if not isinstance(sentence, dict):
                    raise ValueError(f"expected a dict, got {shorten(sentence)}; correct it")
                name, phrase = read_name(sentence, "sent_id"), read_words(sentence, "sent")
                found.append(Expression(name, phrase, referent, str(ref["split"]), image, annotations, place))
        return found

    def is_complete(self, one: Expression, coco: CocoInstances) -> bool:
        """Whether the image of a sentence and all that it means can be read; what is missing is reported."""
        for annotation in one.annotations:
            key = one.image, annotation
            if key not in coco.places:
                self.table.leave_out(one.where, coco.unreadable.get(key) or (
                    f"expected annotation {annotation!r} of image {one.image!r} in instances.json, got none; "
                    "check that both files are of one release"
                ))  # fmt: skip
                return False
        if one.image not in coco.by_id:
            self.table.leave_out(
                one.where, f"expected the image {one.image!r} in instances.json, got none; check both files"
            )
            return False
        return True

    def tell_others(self, expressions: Iterable[Expression], coco: CocoInstances) -> None:
        """Report what is wrong with annotations that no sentence means."""
        meant = {(one.image, annotation) for one in expressions for annotation in one.annotations}
        self.table.problems += coco.problems + [why for key, why in coco.unreadable.items() if key not in meant]


class ImagePlaces(NamedTuple):
    """The places in a table of an image, of its group of instances, and of their masks."""

    image: int
    group: int
    masks: list[int]


def add_image(table: TableWriter, coco: CocoInstances, image: Key, collection: str) -> ImagePlaces:
    """Add an image with all its instances."""
    record, annotations = coco.by_id[image], coco.annotations.get(image, [])
    masks = [table.mask(one.mask) for one in annotations]
    group = table.group(
        Thing(one.category, one.box_xyxy_px, mask, one.is_crowd) for one, mask in zip(annotations, masks, strict=True)
    )
    return ImagePlaces(table.image(image, record.file_name, collection, record.hw), group, masks)


def _read(files: Sequence[Path], split: str, collection: str) -> SampleTable:
    reader = ReferReader(files[0].parent, split)
    expressions = reader.expressions(load_refs(files[0]))
    coco = CocoInstances.read(files[1], needed={one.image for one in expressions})
    by_image: dict[Key, list[Expression]] = {}  # those of an image together, so that one look at it serves all
    for one in expressions:
        if reader.is_complete(one, coco):
            by_image.setdefault(one.image, []).append(one)
    reader.tell_others(expressions, coco)
    table = reader.table
    for image, group in by_image.items():
        places = add_image(table, coco, image, collection)
        for one in group:
            place = coco.places[image, one.annotations[0]]
            meant = coco.annotations[image][place]
            table.add(
                places.image, one.phrase, meant.box_xyxy_px, name=one.id, mask=places.masks[place], group=places.group,
                split=one.split, category=meant.category, referent=one.referent,
            )  # fmt: skip
    table.clipped_boxes = coco.clipped_boxes
    if not table.problems and not len(table):
        table.problems.append(f"the referents there are of the splits {sorted(reader.splits)!r}")
    return table.finish(what=f"expressions of the split {split!r}")


def _cached(files: Sequence[Path], split: str, collection: str) -> SampleTable:
    """A split out of its copy in the cache, or out of the release's files, of which then a copy is kept."""
    home = cache_folder()
    if home is None or sum(path.stat().st_size for path in files) < MIN_CACHED_BYTES:
        return _read(files, split, collection)
    names = "\n".join([*(str(path.resolve()) for path in files), split])
    copy, stamp = home / f"refer-{hashlib.sha256(os.fsencode(names)).hexdigest()[:24]}", _stamp(files)
    with contextlib.suppress(Exception):  # a damaged copy raises nearly everything
        if (known := SampleTable.load(copy, stamp)) is not None:
            return known
    table = _read(files, split, collection)
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        table.save(copy, stamp)
    return table


def _stamp(files: Sequence[Path]) -> str:
    """The size, time and head of the files in one line."""
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        with path.open("rb") as file:
            digest.update(f"{stat.st_size} {stat.st_mtime_ns} ".encode() + file.read(_HEAD_BYTES))
    return digest.hexdigest()


def _release_folder(root: Path, dataset: str, split_by: str) -> Path:
    """The folder with the two files of a data set: ``root / dataset``, or ``root`` if that is its name."""
    names = (f"refs({split_by}).p", "instances.json")
    folder = root if root.resolve().name == dataset and (root / names[0]).is_file() else root / dataset
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"expected {names[0]!r} and {names[1]!r} in {str(folder)!r}, got no {name!r} there; "
                "put the files of the release there, or name the folder above as root"
            )
    return folder


def _annotations(ref: Record) -> tuple[Key, ...]:
    """What a reference means; nothing for ``no_target`` and for the ids [-1] that stand for it."""
    value = ref.get("ann_id")
    if ref.get("no_target") is True or value in (-1, [-1], []):
        return ()
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(read_key({"ann_id": one}, "ann_id") for one in values))


def _is_in(named: str, split: str) -> bool:
    if split == "trainval":
        return named in ("train", "val")
    if split.startswith("test"):
        return named.startswith("test") and split[4:] in named[4:]
    return named == split


def _open(request: Request) -> SampleTable:
    """A data set by its name, or the folder of a release."""
    split = request.split or "val"
    if request.name:
        return open_refer(request.path, *REFER[request.name], split)
    folder = request.path
    dataset = folder.resolve().name
    makers = [one.name[len("refs(") : -len(").p")] for one in sorted(folder.glob("refs(*).p"))]
    known = [maker for maker in makers if split in SPLITS.get((dataset, maker), ())]
    if len(known) != 1:
        raise ValueError(
            f"expected a folder named after one of {sorted({name for name, _ in SPLITS})!r} with one refs(*).p of the "
            f"split {split!r}, got {str(folder)!r} with {makers!r}; name the data set and its root"
        )
    return open_refer(request.images or folder, dataset, known[0], split)


FORMAT = Format(
    read=_open, names=tuple(REFER), default_split="val", is_folder=lambda folder: any(folder.glob("refs(*).p"))
)
