"""Where a `Mixture` draws its images from: scenes of one flavour, and photos whose phrases are written on the spot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from deixis.data.augment.pasting import random_paste
from deixis.data.augment.pipelines import PHOTOS
from deixis.data.captions.writing import write_phrases
from deixis.data.photos import Photo, visible_instance
from deixis.data.scenes import draw_scene
from deixis.geometry.masks import read_mask
from deixis.structures import AnnotatedImage, Expression, VisibleInstance

MAX_DRAWS = 20


class ImageSource(Protocol):
    """Gives annotated images by a random generator."""

    @property
    def largest(self) -> int:
        """The largest canvas side that its images stand on."""
        ...

    def draw(self, rng: np.random.Generator, size: int, phrases: int) -> AnnotatedImage:
        """One image of about ``size`` pixels with up to ``phrases`` expressions."""
        ...


@dataclass(frozen=True)
class SceneSource:
    """Drawn scenes of one flavour; about a quarter of them are drawn upon ``backgrounds``, photos, if there are any."""

    flavour: str
    count: int = 100_000
    backgrounds: Sequence[Path] = ()
    largest: int = 256
    """The largest canvas side that they stand on, enlarged where they are drawn smaller."""
    side: int = 256
    """They are drawn no larger than this, in pixels."""

    def draw(self, rng: np.random.Generator, size: int, phrases: int) -> AnnotatedImage:
        """One scene of the train split, of ``size`` or ``side`` pixels, whichever is less."""
        index, side = int(rng.integers(self.count)), min(size, self.side)
        # `draw_scene` takes a photo for every second scene to which it is given some
        upon = self.backgrounds if self.backgrounds and rng.random() < 0.5 else ()
        try:
            pixels, samples = draw_scene(self.flavour, "train", index, side, phrases, backgrounds=upon)
        except (OSError, ValueError):  # one unreadable photo must not end a training
            if not upon:
                raise
            upon = ()
            pixels, samples = draw_scene(self.flavour, "train", index, side, phrases)
        hw = (pixels.shape[0], pixels.shape[1])
        instances = tuple(visible_instance(one, hw) for one in samples[0].instances)
        expressions = tuple(
            Expression(s.phrase, s.box_xyxy_px, None if s.mask is None else read_mask(s.mask, hw), s.category or "")
            for s in samples
        )
        image = AnnotatedImage(pixels, instances, expressions)
        if upon:  # nobody knows what a photo behind the scene shows
            return image
        categories = frozenset(i.category for i in instances)
        return replace(image, categories=categories, counts=counted(instances), complete=True)


@dataclass(frozen=True)
class PhotoSource:
    """Annotated photos; phrases are written after the image was cropped, mirrored and pasted on, so they are true."""

    photos: Sequence[Photo]
    fully_annotated: bool
    donors: Sequence[Photo] = ()
    paste_share: float = 0.0
    min_area: float = 0.02
    largest: int = 512
    counts_known: bool = True
    """Whether each category that is annotated is annotated in full; no phrase's colour is swapped where it is not."""

    def draw(self, rng: np.random.Generator, size: int, phrases: int) -> AnnotatedImage:
        """One augmented photo, the last of a few tries if no phrase can be written for any.

        Photos that cannot be read are skipped.

        Raises:
            OSError, ValueError: many photos in a row cannot be read; that of the last.
        """
        image = None
        for _ in range(5):
            image = self._described(self._augmented(rng), rng, phrases)
            if image.expressions:
                break
        assert image is not None
        return image

    def _augmented(self, rng: np.random.Generator) -> AnnotatedImage:
        image = PHOTOS(_read_any(self.photos, rng), rng)
        if self.donors and rng.random() < self.paste_share:
            image = random_paste(image, [_read_any(self.donors, rng) for _ in range(2)], rng)
        return image

    def _described(self, image: AnnotatedImage, rng: np.random.Generator, phrases: int) -> AnnotatedImage:
        written = write_phrases(
            image.instances,
            image.hw,
            image.pixels,
            rng,
            per_instance=2,
            min_area=self.min_area,
            loose_synonyms=rng.random() < 0.5,
            fully_annotated=self.fully_annotated,
        )
        chosen = [written[pick] for pick in rng.permutation(len(written))[:phrases]]
        meant = [image.instances[one.index] for one in chosen]
        return replace(
            image,
            expressions=tuple(
                Expression(one.text, i.box_xyxy_px, i.mask, i.category) for one, i in zip(chosen, meant, strict=True)
            ),
            categories=frozenset(i.category for i in image.instances) if self.fully_annotated else None,
            counts=counted(image.instances) if self.counts_known else {},
            complete=self.fully_annotated,
        )


def counted(instances: Iterable[VisibleInstance]) -> dict[str, int]:
    """How many of each category there are; a crowd, or what an edge cuts, counts as several."""
    counts: Counter[str] = Counter()
    for instance in instances:
        counts[instance.category] += 2 if instance.is_crowd else 1
    return dict(counts)


def _read_any(photos: Sequence[Photo], rng: np.random.Generator) -> AnnotatedImage:
    """A random photo out of those that can be read; the last error if `MAX_DRAWS` in a row cannot."""
    for left in reversed(range(MAX_DRAWS)):
        try:
            return photos[int(rng.integers(len(photos)))].decode()
        except (OSError, ValueError):
            if not left:
                raise
    raise AssertionError("unreachable: the last try returns or raises")
