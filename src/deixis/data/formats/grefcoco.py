"""gRefCOCO: grefs(unc).json beside instances.json. A phrase may mean several things, or none.

A phrase that means none becomes a sample without a box, as everywhere in Deixis. One that means several becomes a
sample with the box around all and the union of their masks, which is what REC and RES can ask of it, and its
``kind`` says so: ``several``. The things one by one are in `GrefCoco.targets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from deixis.data.annotation_fields import shorten
from deixis.data.formats.image_folders import Key, find_layout, folders_above
from deixis.data.formats.json_stream import stream_json
from deixis.data.formats.packed_masks import merge_masks
from deixis.data.formats.record_samples import RecordSamples
from deixis.data.formats.refer_instances import Record, ReferInstances, read_key, read_name, read_words
from deixis.structures import BoxXyxy, Instance, Mask, Sample

SPLITS = ("train", "val", "testA", "testB")
KINDS = ("one", "several", "none")
_LIMIT_SEED = 0


class _Expression(NamedTuple):
    id: str
    phrase: str
    referent: Key
    image: Key
    annotations: tuple[Key, ...]
    where: str


class GrefCoco(RecordSamples[_Expression]):
    """The sentences of a split as samples, made when asked for; ``kind`` is out of `KINDS`.

    ``problems``, ``left_out``, ``clipped_boxes``, ``referents`` and ``referent_ids`` are as in
    `deixis.data.formats.refer.Refer`.
    """

    def __init__(
        self,
        expressions: list[_Expression],
        split: str,
        instances: ReferInstances,
        reading: _Reading,
        limit: int | None,
    ) -> None:
        self.split = split
        self._records = expressions if limit is None else _first(expressions, limit)
        self._of_images = instances
        self.problems = tuple(reading.problems)
        self.left_out = reading.left_out
        self.clipped_boxes = instances.clipped
        groups: dict[Key, list[int]] = {}
        for index, expression in enumerate(self._records):
            groups.setdefault(expression.referent, []).append(index)
        self.referents = tuple(map(tuple, groups.values()))
        self.referent_ids = tuple(map(str, groups))

    def find_images(self, bases: list[Path], need_images: bool) -> GrefCoco:
        """Look for the images below the bases, see `find_layout`."""
        used = dict.fromkeys(one.image for one in self._records)
        images = [(image, self._of_images.images[image].file_name) for image in used]
        self._layout = find_layout(bases, "coco", images, need_images)
        return self

    def targets(self, index: int) -> tuple[Instance, ...]:
        """All things that a sample's phrase means; none for a phrase that means nothing."""
        expression = self._records[index]
        return self._targets(expression, self._of_images.instances(expression.image))

    def _targets(self, expression: _Expression, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        places = self._of_images.places
        return tuple(instances[places[expression.image, one]] for one in expression.annotations)

    def _sample(self, expression: _Expression) -> Sample:
        record = self._of_images.images[expression.image]
        instances = self._of_images.instances(expression.image)
        meant = self._targets(expression, instances)
        categories = {one.category for one in meant}
        return Sample(
            id=expression.id,
            image=self._layout.path(expression.image, record.file_name),
            image_id=str(expression.image),
            phrase=expression.phrase,
            box_xyxy_px=_around(meant),
            mask=_merged([one.mask for one in meant], record.hw),
            split=self.split,
            category=categories.pop() if len(categories) == 1 else None,
            kind=KINDS[0] if len(meant) == 1 else KINDS[1] if meant else KINDS[2],
            instances=instances,
        )


def read_grefcoco(
    folder: str | Path,
    split: str = "val",
    images: str | Path | None = None,
    *,
    limit: int | None = None,
    need_images: bool = False,
) -> GrefCoco:
    """Open one split.

    Args:
        folder: the folder with ``grefs(unc).json`` and ``instances.json``, or that ``.json`` of references itself.
        split: out of `SPLITS`.
        images: the folder to look for the images below; by default the folder and the two above.
        limit: at most so many samples: the first of a seeded shuffle of the images.
        need_images: whether to refuse to go on without images.

    Raises:
        FileNotFoundError: a file is not there, or none of the images where they are needed.
        ValueError: there is no such split, a file is malformed, or nothing in it can be used.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split out of {', '.join(SPLITS)}, got {split!r}; choose one")
    path = Path(folder)
    path = path if path.suffix.lower() == ".json" else path / "grefs(unc).json"
    things = path.parent / "instances.json"
    for one in (path, things):
        if not one.is_file():
            raise FileNotFoundError(
                f"expected 'grefs(unc).json' and 'instances.json' in {str(path.parent)!r}, got no {one.name!r} there; "
                "put the files of gRefCOCO there"
            )
    reading = _Reading(split)
    pending = list(reading.expressions(path))
    instances = ReferInstances.read(things, {one.image for one in pending})
    expressions = [one for one in pending if reading.is_complete(one, instances)]
    told = {(one.image, annotation) for one in pending for annotation in one.annotations}
    reading.problems += instances.other_problems(told)
    if not expressions:
        why = reading.problems[0] if reading.problems else f"the splits there are {sorted(reading.splits)!r}"
        raise ValueError(f"expected expressions of the split {split!r} in {str(path)!r}, got none ({why}); check it")
    bases = [Path(images)] if images is not None else folders_above(path)
    return GrefCoco(expressions, split, instances, reading, limit).find_images(bases, need_images)


@dataclass
class _Reading:
    """Collects problems and counts while references are read."""

    split: str
    problems: list[str] = field(default_factory=list)
    left_out: int = 0
    splits: set[str] = field(default_factory=set)

    def expressions(self, path: Path) -> Iterator[_Expression]:
        for element in stream_json(path):
            if element.number is None or element.key:
                if element.value != [] or element.key:
                    raise ValueError(
                        f"expected a list of references in {str(path)!r}, got a key {element.key[:40]!r}; check it"
                    )
                continue
            ref = element.value
            if isinstance(ref, dict) and isinstance(ref.get("split"), str):
                self.splits.add(str(ref["split"])[:40])
                if ref["split"] != self.split:
                    continue
            yield from self._of_ref(f"reference {element.number}", ref)

    def _of_ref(self, where: str, ref: object) -> Iterator[_Expression]:
        sentences = ref.get("sentences") if isinstance(ref, dict) else None
        count = len(sentences) if isinstance(sentences, list) else 1
        try:
            if not isinstance(ref, dict):
                raise ValueError(f"expected a JSON object, got {shorten(ref)}; correct it")
            if not isinstance(ref.get("split"), str):
                raise ValueError(f"expected a split, got {shorten(ref.get('split'))}; add it")
            if not isinstance(sentences, list):
                raise ValueError(f"expected a list of sentences, got {shorten(sentences)}; correct it")
            referent, image, annotations = read_key(ref, "ref_id"), read_key(ref, "image_id"), _annotations(ref)
        except ValueError as error:
            self._leave_out(where, error, count)
            return
        for number, sentence in enumerate(sentences):
            place = f"{where} (ref_id {referent!r}), sentence {number}"
            try:
                if not isinstance(sentence, dict):
                    raise ValueError(f"expected a JSON object, got {shorten(sentence)}; correct it")
                known = cast(Record, sentence)
                name, phrase = read_name(known, "sent_id"), read_words(known, "sent")
            except ValueError as error:
                self._leave_out(place, error)
                continue
            yield _Expression(name, phrase, referent, image, annotations, place)

    def _leave_out(self, where: str, why: object, expressions: int = 1) -> None:
        self.left_out += expressions
        more = f"; its expressions left out: {expressions}" if expressions > 1 else ""
        self.problems.append(f"{where}: {why}{more}")

    def is_complete(self, one: _Expression, instances: ReferInstances) -> bool:
        """Whether the image and all things that it means can be read; what is missing is told."""
        if one.image not in instances.images:
            self._leave_out(one.where, f"expected the image {one.image!r} in instances.json, got none; add it")
            return False
        for annotation in one.annotations:
            key = one.image, annotation
            if key not in instances.places:
                missing = f"expected annotation {annotation!r} of image {one.image!r} in instances.json, got none"
                self._leave_out(one.where, instances.unreadable.get(key) or f"{missing}; check both files")
                return False
        return True


def _annotations(ref: Record) -> tuple[Key, ...]:
    """The things meant; none for ``no_target`` and for the ids [-1] that stand for it."""
    value = ref.get("ann_id")
    if ref.get("no_target") is True or value in (-1, [-1], []):
        return ()
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(read_key({"ann_id": one}, "ann_id") for one in values))


def _merged(masks: list[Mask | None], hw: tuple[int, int]) -> Mask | None:
    """The union; where one cannot be drawn that one, so that who draws it is told."""
    try:
        return merge_masks(masks, hw)
    except ValueError:
        return next(mask for mask in masks if not isinstance(mask, list))


def _around(things: tuple[Instance, ...]) -> BoxXyxy | None:
    if not things:
        return None
    x1, y1, x2, y2 = zip(*(one.box_xyxy_px for one in things), strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _first(expressions: list[_Expression], limit: int) -> list[_Expression]:
    images = list(dict.fromkeys(one.image for one in expressions))
    order = np.random.default_rng(_LIMIT_SEED).permutation(len(images))
    rank = {images[index]: position for position, index in enumerate(order)}
    return sorted(expressions, key=lambda one: rank[one.image])[:limit]
