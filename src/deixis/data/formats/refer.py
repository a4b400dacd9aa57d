"""The `refer` release of RefCOCO, RefCOCO+, RefCOCOg and ReferItGame: refs(<split_by>).p beside instances.json.

``docs/datasets.md`` says which file goes where and how many sentences each split has.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from deixis.data.formats.image_folders import Key, Layout, find_layout
from deixis.data.formats.record_samples import RecordSamples
from deixis.data.formats.refer_cache import Expression, Instances, SplitRead, cache_file, load_split, store_split
from deixis.data.formats.refer_instances import Record, ReferInstances, read_key, read_name, read_words
from deixis.data.formats.restricted_pickle import load_refs
from deixis.structures import Instance, Sample

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
_LIMIT_SEED = 0


class Refer(RecordSamples[Expression]):
    """Sentences of a release as samples, made when asked for; those of an image stand together. Open with `open_refer`.

    ``problems`` holds one sentence for each expression that was left out, and for each other annotation of a needed
    image, or its mask, that could not be read. ``left_out`` counts the expressions alone, so that
    ``len(self) + self.left_out`` is what the file holds for the split. ``clipped_boxes`` counts the boxes that reached
    over their image's border and were cut there.

    ``referents`` holds for each referent the indices of the samples that mean it, and ``referent_ids`` its ``ref_id``:
    MCN trains on one sentence a referent and epoch, so it draws one index out of each tuple.
    """

    referents: tuple[tuple[int, ...], ...]
    referent_ids: tuple[str, ...]

    def __init__(
        self,
        expressions: Sequence[Expression],
        instances: Instances,
        layout: Layout,
        problems: Iterable[str],
        left_out: int,
    ) -> None:
        self._records = list(expressions)
        instances.keep({expression.image for expression in self._records})
        self._of_images = instances
        self._layout = layout
        grouped: dict[Key, list[int]] = {}
        for index, expression in enumerate(self._records):
            grouped.setdefault(expression.referent, []).append(index)
        self.referents = tuple(map(tuple, grouped.values()))
        self.referent_ids = tuple(map(str, grouped))
        self._last: tuple[Key, tuple[Instance, ...]] | None = None
        self.problems = tuple(problems)
        self.left_out = left_out
        self.clipped_boxes = instances.clipped

    def image_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of a sample's image as the release states it; the image is not opened."""
        return self._of_images.images[self._records[index].image].hw

    def _sample(self, expression: Expression) -> Sample:
        instances = self._instances(expression.image)
        meant = instances[expression.place]
        return Sample(
            id=expression.id,
            image=self._layout.path(expression.image, self._of_images.images[expression.image].file_name),
            image_id=str(expression.image),
            phrase=expression.phrase,
            box_xyxy_px=meant.box_xyxy_px,
            mask=meant.mask,
            split=expression.split,
            category=meant.category,
            instances=instances,
        )

    def _instances(self, image: Key) -> tuple[Instance, ...]:
        last = self._last
        if last is None or last[0] != image:  # the samples of an image share its instances
            self._last = last = image, self._of_images.instances(image)
        return last[1]


def open_refer(
    root: str | Path,
    dataset: str = "refcoco",
    split_by: str = "unc",
    split: str = "val",
    *,
    limit: int | None = None,
    need_images: bool = True,
) -> Refer:
    """Open one split of a release.

    Args:
        root: the folder that holds the folder ``dataset``, or that folder itself.
        dataset: ``refcoco``, ``refcoco+``, ``refcocog`` or ``refclef``.
        split_by: who made the splits: ``unc``, ``google``, ``umd`` or ``berkeley``; see `SPLITS`.
        split: as in `SPLITS`. As in the release, testA takes every referent whose split starts with "test" and has
            an A in it, "test" all that start so, trainval train and val.
        limit: at most so many samples: the first of a seeded shuffle of the images, so the same at every call.
        need_images: whether to refuse a root without images; without, the release's own folder is taken for granted.

    Returns:
        The samples, images in the order in which the file first names them. No image is opened.

    Raises:
        FileNotFoundError: a file is not there, or none of the images is; the sentence says what to put where.
        ValueError: there is no such split, a file is malformed, or nothing in it can be used.
    """
    if split not in SPLITS.get((dataset, split_by), ()):
        known = "; ".join(f"{name} {by}: {', '.join(splits)}" for (name, by), splits in SPLITS.items())
        raise ValueError(f"expected one of these splits ({known}), got {(dataset, split_by, split)!r}; choose one")
    folder = _release_folder(Path(root), dataset, split_by)
    expressions, instances, problems, left_out = _read_split(folder, split_by, split)
    if limit is not None:
        expressions = _first(expressions, limit)
    bases = [Path(root)] if folder != Path(root) else [Path(root), folder.resolve().parent]
    images = [(image, instances.images[image].file_name) for image in dict.fromkeys(one.image for one in expressions)]
    layout = find_layout(bases, "saiapr" if dataset == "refclef" else "coco", images, need_images)
    return Refer(expressions, instances, layout, problems, left_out)


def _read_split(folder: Path, split_by: str, split: str) -> SplitRead:
    """A split out of its copy in the cache, or out of the release's files, of which then a copy is kept."""
    files = (folder / f"refs({split_by}).p", folder / "instances.json")
    copy = cache_file(files, split)
    known = None if copy is None else load_split(copy, files)
    if known is not None:
        return known
    reading = _Reading()
    pending = reading.expressions(load_refs(files[0]), split)
    instances = ReferInstances.read(files[1], {one.image for one in pending})
    expressions = _by_image(reading.resolve(pending, instances))
    problems = [*reading.problems, *instances.other_problems({(one.image, one.annotation) for one in pending})]
    if not expressions:
        why = problems[0] if problems else f"the referents there are of the splits {sorted(reading.splits)!r}"
        raise ValueError(f"expected expressions of the split {split!r} in {str(folder)!r}, got none ({why}); check it")
    read = SplitRead(expressions, instances, problems, reading.left_out)
    if copy is not None:
        store_split(copy, files, read)
    return read


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


class _Pending(NamedTuple):
    """A sentence whose annotation is still to be looked up; ``where`` names it in a problem."""

    id: str
    phrase: str
    referent: Key
    split: str
    image: Key
    annotation: Key
    where: str


@dataclass
class _Reading:
    """Collects problems and counts while referents are read."""

    problems: list[str] = field(default_factory=list)
    left_out: int = 0
    splits: set[str] = field(default_factory=set)
    count: int = 0

    def leave_out(self, where: str, why: object, expressions: int = 1) -> None:
        self.left_out += expressions
        more = f"; its expressions left out: {expressions}" if expressions > 1 else ""
        self.problems.append(f"{where}: {why}{more}")

    def expressions(self, refs: list[Record], split: str) -> list[_Pending]:
        """The sentences of a split. A referent whose split cannot be read is told whichever is asked for."""
        pending: list[_Pending] = []
        for number, ref in enumerate(refs):
            where = f"referent {number}"
            named = ref.get("split")
            if not isinstance(named, str):
                self._leave_out_ref(where, ref, f"expected a split, got {reprlib.repr(named)}; add it")
                continue
            self.splits.add(reprlib.repr(named)[1:-1])
            if not _is_in(named, split):
                continue
            try:
                ids = [read_key(ref, name) for name in ("ref_id", "image_id", "ann_id")]
                sentences = ref.get("sentences")
                if not isinstance(sentences, list):
                    raise ValueError(f"expected a list of sentences, got {reprlib.repr(sentences)}; correct it")
            except ValueError as error:
                self._leave_out_ref(where, ref, error)
                continue
            self._count(len(sentences))
            pending += self._sentences(f"{where} (ref_id {ids[0]!r})", ids, named, sentences)
        return pending

    def _sentences(self, where: str, ids: list[Key], split: str, sentences: list[object]) -> Iterator[_Pending]:
        ref_id, image, annotation = ids
        for number, sentence in enumerate(sentences):
            place = f"{where}, sentence {number}"
            try:
                if not isinstance(sentence, dict):
                    raise ValueError(f"expected a dict, got {reprlib.repr(sentence)}; correct it")
                known = cast(Record, sentence)
                yield _Pending(
                    read_name(known, "sent_id"), read_words(known, "sent"), ref_id, split, image, annotation, place
                )
            except ValueError as error:
                self.leave_out(place, error)

    def _leave_out_ref(self, where: str, ref: Record, why: object) -> None:
        sentences = ref.get("sentences")
        count = len(sentences) if isinstance(sentences, list) else 1
        self._count(count)
        self.leave_out(where, why, count)

    def _count(self, expressions: int) -> None:
        self.count += expressions
        if self.count > MAX_SENTENCES:  # a small pickle may name one long list of sentences very often
            raise ValueError(f"expected at most {MAX_SENTENCES} expressions, got more; check the file of referents")

    def resolve(self, pending: list[_Pending], instances: ReferInstances) -> Iterator[Expression]:
        """The expressions whose thing can be read."""
        for one in pending:
            place = instances.places.get((one.image, one.annotation))
            if place is None:
                why = instances.unreadable.get((one.image, one.annotation)) or (
                    f"expected annotation {one.annotation!r} of image {one.image!r} in instances.json, got none; "
                    "check that both files are of one release"
                )
                self.leave_out(one.where, why)
            else:
                yield Expression(one.id, one.phrase, one.referent, one.split, one.image, place)


def _is_in(named: str, split: str) -> bool:
    if split == "trainval":
        return named in ("train", "val")
    if split.startswith("test"):
        return named.startswith("test") and split[4:] in named[4:]
    return named == split


def _by_image(expressions: Iterable[Expression]) -> list[Expression]:
    """Those of an image together, so that one look at it serves all; images in the order of the file."""
    groups: dict[Key, list[Expression]] = {}
    for expression in expressions:
        groups.setdefault(expression.image, []).append(expression)
    return [expression for group in groups.values() for expression in group]


def _first(expressions: list[Expression], limit: int) -> list[Expression]:
    images = list(dict.fromkeys(expression.image for expression in expressions))
    order = np.random.default_rng(_LIMIT_SEED).permutation(len(images))
    rank = {images[index]: position for position, index in enumerate(order)}
    return sorted(expressions, key=lambda expression: rank[expression.image])[:limit]
