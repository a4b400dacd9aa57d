"""COCO instances turned into a grounding data set: photos with their things, and phrases written for these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from deixis.data.augment import View
from deixis.data.captions.writing import VisibleInstance, write_phrases
from deixis.data.dataset import Samples, in_split
from deixis.data.formats.coco import CocoInstances
from deixis.geometry.images import read_image
from deixis.geometry.masks import read_mask
from deixis.structures import Instance, Sample


def is_fully_annotated(coco: CocoInstances) -> bool:
    """Whether a file may be taken to annotate all that is in its photos: not if it knows one category only.

    A file of one category (people, cars) lists all things of that category, but nothing else.
    """
    return len(set(coco.category_names.values())) > 1


@dataclass
class PhotoRecord:
    """A photo and its annotated things, decoded only when looked at.

    ``hw`` is (height, width) as the file of annotations states it; boxes lie inside the image.
    ``keep_pixels`` keeps the decoded photo in memory after the first look (H * W * 3 bytes); masks are drawn anew.
    """

    image_id: int
    path: Path
    hw: tuple[int, int]
    instances: tuple[Instance, ...]
    keep_pixels: bool = False
    _pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def view(self) -> View:
        """Decode photo and masks; the instances stand in the order of ``self.instances``. The image is read-only.

        Raises:
            FileNotFoundError: the photo is not there.
            ValueError: it is no image, or of another size than the annotations say, or a mask is malformed.
        """
        return View(image=self._read_pixels(), instances=tuple(self._decode(instance) for instance in self.instances))

    def _read_pixels(self) -> NDArray[np.uint8]:
        if self._pixels is not None:
            return self._pixels
        pixels = read_image(self.path)
        if pixels.shape[:2] != self.hw:
            raise ValueError(
                f"expected {str(self.path)!r} to have (height, width) {self.hw}, as its annotations say, got "
                f"{pixels.shape[:2]}; annotate the image as it is, or correct its width and height in the file"
            )
        pixels.flags.writeable = False
        if self.keep_pixels:
            self._pixels = pixels
        return pixels

    def _decode(self, instance: Instance) -> VisibleInstance:
        try:
            mask = None if instance.mask is None else read_mask(instance.mask, self.hw)
        except ValueError as error:
            raise ValueError(f"{error}; this is a mask of {instance.category!r} in {str(self.path)!r}") from error
        return VisibleInstance(
            category=instance.category,
            box_xyxy_px=instance.box_xyxy_px,
            # a sliver may hold no pixel's centre: then only its box is known
            mask=mask if mask is not None and mask.any() else None,
            is_crowd=instance.is_crowd,
        )


class PhotoRecords(list[PhotoRecord]):
    """Photos of a file, with ``problems``: one sentence for each record that was left out, or whose mask was."""

    def __init__(self, records: Iterable[PhotoRecord] = (), problems: Iterable[str] = ()) -> None:
        super().__init__(records)
        self.problems = tuple(problems)


def load_views(
    instances_json: str | Path,
    split: str,
    *,
    image_root: str | Path | None = None,
    keep_pixels: bool = False,
    min_score: float = 0.0,
) -> PhotoRecords:
    """Read a COCO instances file: its photos of one split (see `in_split`) that have at least one instance.

    Of annotations that carry a ``score``, a detector's, those of at least ``min_score`` count. Nothing is decoded yet.
    Raises FileNotFoundError and ValueError as `CocoInstances.read` does, and ValueError for an unknown split.
    """
    coco = CocoInstances.read(instances_json, image_root, min_score=min_score)
    return PhotoRecords(_records(coco, split, keep_pixels), coco.problems)


class WrittenPhrases(Samples):
    """Samples with phrases written for the instances of a COCO file; the same phrases at every construction.

    A file of more than one category counts as fully annotated: see `is_fully_annotated` and `write_phrases`.

    Construction writes them all, and for that decodes each photo once (colours are measured in it): some
    milliseconds a photo. ``progress`` is called with (photos done, photos in all). The phrases of a photo depend on
    ``seed`` and the photo's id alone, so a subset has the phrases of the whole. ``problems`` holds one sentence for
    each record of the file and each photo that was left out.

    Args:
        instances_json: a COCO instances file.
        image_root: the folder of the images; by default as `CocoInstances.read` finds it.
        split: ``train``, ``val``, ``test`` or ``all``; see `in_split`.
        seed: not negative.
        per_instance: at most so many phrases for one thing.
        min_area: the least share of the image that a thing's box has to take to be spoken of.
        limit: at most so many samples, from the first photos of a seeded shuffle; None for all, in the file's order.
        progress: called after each photo.

    Raises:
        FileNotFoundError: the file is not there, or all photos are missing.
        ValueError: the file or the split's name is wrong, or no photo can be used.
    """

    def __init__(
        self,
        instances_json: str | Path,
        image_root: str | Path | None = None,
        *,
        split: str,
        seed: int = 0,
        per_instance: int = 2,
        min_area: float = 0.03,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        coco = CocoInstances.read(instances_json, image_root)
        fully = is_fully_annotated(coco)
        problems = list(coco.problems)
        records = _records(coco, split, keep_pixels=False)
        if limit is not None:
            records = [records[i] for i in np.random.default_rng(seed).permutation(len(records))]
        samples: list[Sample] = []
        unusable = 0
        for done, record in enumerate(records, start=1):
            rng = np.random.default_rng([seed, record.image_id % 2**64])  # an id may be negative, a seed may not
            try:
                samples.extend(_write_samples(record, split, rng, per_instance, min_area, fully))
            except (OSError, ValueError) as error:
                unusable += 1
                if unusable == len(records):  # a wrong folder, most likely
                    raise
                problems.append(f"image {record.image_id}: {error}")
            if progress is not None:
                progress(done, len(records))
            if limit is not None and len(samples) >= limit:
                break
        super().__init__(samples[:limit], problems)
        self._is_limited = limit is not None

    def limit(self, n: int | None, seed: int = 0) -> Self:
        """As of every data set; samples that were limited when they were written stay in their order."""
        return self.take(range(len(self))[:n]) if self._is_limited else super().limit(n, seed)


def _records(coco: CocoInstances, split: str, keep_pixels: bool) -> list[PhotoRecord]:
    return [
        PhotoRecord(image.id, image.path, image.hw, instances, keep_pixels)
        for image in coco.images
        if in_split(image.id, split) and (instances := tuple(coco.instances(image.id)))
    ]


def _write_samples(
    record: PhotoRecord, split: str, rng: np.random.Generator, per_instance: int, min_area: float, fully_annotated: bool
) -> Iterator[Sample]:
    view = record.view()
    phrases = write_phrases(
        view.instances,
        record.hw,
        view.image,
        rng,
        per_instance=per_instance,
        min_area=min_area,
        fully_annotated=fully_annotated,
    )
    for number, phrase in enumerate(phrases):
        meant = record.instances[phrase.index]
        yield Sample(
            id=f"{record.image_id}-{number}",
            image=record.path,
            image_id=str(record.image_id),
            phrase=phrase.text,
            box_xyxy_px=meant.box_xyxy_px,
            mask=meant.mask,
            split=split,
            category=meant.category,
            kind=phrase.kind,
            instances=record.instances,
        )
