"""A COCO instances file as a grounding data set: phrases are written for the instances of its photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from deixis.data.captions.writing import Phrase, write_phrases
from deixis.data.dataset import Samples
from deixis.data.formats.coco import CocoInstances
from deixis.data.photos import Photo, Photos
from deixis.structures import Sample


def is_fully_annotated(coco: CocoInstances) -> bool:
    """Whether a file may be taken to annotate all that is in its photos: not if it knows one category only.

    A file of one category (people, cars) lists all instances of that category, but nothing else.
    """
    return len(set(coco.category_names.values())) > 1


def rng_of(photo: Photo, seed: int) -> np.random.Generator:
    """What decides the phrases of a photo."""
    return np.random.default_rng([seed, photo.image_id % 2**64])  # an id may be negative, a seed may not


def samples_of(photo: Photo, written: Iterable[Phrase], split: str) -> Iterator[Sample]:
    """A sample for each phrase."""
    for number, phrase in enumerate(written):
        meant = photo.instances[phrase.index]
        yield Sample(
            id=f"{photo.image_id}-{number}",
            image=photo.path,
            image_id=str(photo.image_id),
            phrase=phrase.text,
            box_xyxy_px=meant.box_xyxy_px,
            mask=meant.mask,
            split=split,
            category=meant.category,
            kind=phrase.kind,
            instances=photo.instances,
        )


class WrittenPhrases(Samples):
    """Samples with phrases written for the instances of a COCO file; the same phrases at every construction.

    A file of more than one category counts as fully annotated: see `is_fully_annotated` and `write_phrases`.

    Construction writes them all, and for that decodes each photo once, as colours are measured in it: some
    milliseconds a photo. ``progress`` is called with (photos done, photos in all). The phrases of a photo depend on
    ``seed`` and the photo's id alone, so a subset has the phrases of the whole. ``problems`` holds one sentence for
    each record of the file and each photo that was left out.

    Args:
        instances_json: a COCO instances file.
        image_root: the folder of the images; by default as `CocoInstances.read` finds it.
        split: ``train``, ``val``, ``test`` or ``all``; see `in_split`.
        seed: not negative.
        per_instance: the most phrases for one instance.
        min_area: the least share of the image that an instance's box has to take to get phrases.
        limit: the most samples, from the first photos of a seeded shuffle; None for all, in the file's order.
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
        photos: Sequence[Photo] = Photos.of(coco, split)
        if limit is not None:
            photos = [photos[i] for i in np.random.default_rng(seed).permutation(len(photos))]
        samples: list[Sample] = []
        unusable = 0
        for done, photo in enumerate(photos, start=1):
            try:
                image, rng = photo.decode(), rng_of(photo, seed)
                options = {"per_instance": per_instance, "min_area": min_area, "fully_annotated": fully}
                written = write_phrases(image.instances, photo.hw, image.pixels, rng, **options)
            except (OSError, ValueError) as error:
                unusable += 1
                if unusable == len(photos):  # a wrong folder, most likely
                    raise
                problems.append(f"image {photo.image_id}: {error}")
            else:
                samples.extend(samples_of(photo, written, split))
            if progress is not None:
                progress(done, len(photos))
            if limit is not None and len(samples) >= limit:
                break
        super().__init__(samples[:limit], problems)
        self._is_limited = limit is not None

    def limit(self, n: int | None, seed: int = 0) -> Self:
        """As of every data set; samples that were limited when they were written stay in their order."""
        return self.take(range(len(self))[:n]) if self._is_limited else super().limit(n, seed)
