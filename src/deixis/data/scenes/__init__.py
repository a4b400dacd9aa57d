"""Drawn scenes: seeded images of shapes with exact masks, and phrases that mean exactly one of the shapes.

``scenes`` uses places, ``scenes+`` appearance only, ``scenesg`` long relations. A sample depends only on
(seed, name, split, index, size): no files, no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from deixis.data.dataset import Dataset
from deixis.data.scenes.drawing import Drawing, place
from deixis.data.scenes.layout import sample_layout
from deixis.data.scenes.painting import Style, paint, sample_background
from deixis.data.scenes.vocabulary import FLAVOURS, HELD_OUT_PAIRS, SPLITS
from deixis.data.scenes.writer import ScenePhrase, write
from deixis.geometry.masks import encode_rle
from deixis.structures import BoxXyxy, Instance, Sample

NUM_TRAIN = 100_000
NUM_HELD_OUT = 1000
MIN_SIZE = 64

_MAX_REDRAWS = 100


class Scenes(Dataset):
    """Sample i is drawn when it is asked for, and is always the same."""

    def __init__(
        self, name: str, split: str, n: int, size: int, seed: int = 0, backgrounds: Sequence[Path] = ()
    ) -> None:
        _check(name, split, size)
        if n < 0:
            raise ValueError(f"expected a number of samples of 0 or more, got {n!r}; ask for fewer or more")
        self.name, self.drawn_split, self.size, self.seed = name, split, size, seed
        self.backgrounds = tuple(backgrounds)
        self._rows = range(n)

    def limit(self, n: int | None, seed: int = 0) -> Self:
        """The first samples: they are in random order already."""
        return self if n is None else self.take(range(len(self))[:n])

    def image_hw(self, index: int) -> tuple[int, int]:
        """(height, width), without drawing."""
        return self.size, self.size

    def _sample(self, row: int) -> Sample:
        return draw_sample(self.name, self.drawn_split, row, self.size, seed=self.seed, backgrounds=self.backgrounds)

    def _splits(self) -> list[str]:
        return [self.drawn_split] * len(self)

    def _referents(self) -> Sequence[int]:
        return range(len(self))


def open_scenes(
    name: str,
    split: str,
    n: int | None = None,
    size: int = 256,
    seed: int = 0,
    *,
    backgrounds: Sequence[Path] = (),
) -> Scenes:
    """Open drawn scenes as a sequence of samples that are drawn on access.

    Args:
        name: 'scenes' (places), 'scenes+' (appearance only) or 'scenesg' (long relations).
        split: 'train', 'val', 'testA' (many instances of one shape) or 'testB' (shape-colour pairs that no other
            split draws). Splits never share a seed.
        n: number of samples, as many as you like; by default 100,000 for 'train' and 1000 for each other split.
        size: height and width of the images in pixels, 64 or more.
        seed: each seed gives a different data set.
        backgrounds: photo files; half of the scenes are then drawn on crops of them.

    Raises:
        ValueError: an unknown name or split, or a size or number out of range.
    """
    if n is None:
        n = NUM_TRAIN if split == "train" else NUM_HELD_OUT
    return Scenes(name, split, n, size, seed, backgrounds)


def draw_sample(
    name: str, split: str, index: int, size: int = 256, *, seed: int = 0, backgrounds: Sequence[Path] = ()
) -> Sample:
    """Draw one sample; the same arguments give the same sample (see ``open_scenes``)."""
    return draw_scene(name, split, index, size, phrases=1, seed=seed, backgrounds=backgrounds)[1][0]


def draw_scene(
    name: str,
    split: str,
    index: int,
    size: int = 256,
    phrases: int = 3,
    *,
    seed: int = 0,
    backgrounds: Sequence[Path] = (),
) -> tuple[NDArray[np.uint8], list[Sample]]:
    """Draw one image with 1 to ``phrases`` different samples, of different instances as far as possible.

    Returns:
        The image, uint8 [size, size, 3], and the samples, which share it; the first is that of ``draw_sample``.

    Raises:
        ValueError: an unknown name or split, a size below 64, or ``phrases`` below 1.
    """
    _check(name, split, size)
    if phrases < 1 or index < 0:
        raise ValueError(f"expected phrases >= 1 and index >= 0, got {phrases!r} and {index!r}")
    for attempt in range(_MAX_REDRAWS):
        drawing, written, rng = compose_scene(name, split, size, seed_scene(name, split, index, seed, attempt), phrases)
        if written:
            break
    else:
        raise RuntimeError(f"no scene with a phrase found for {name}:{split} {index}; use another index")
    image = paint(drawing, sample_background(size, rng, backgrounds), Style.sample(rng), rng)
    image.flags.writeable = False
    return image, samples_of(drawing, written, image, f"{name}-{split}-{seed}-{index}", split)


def compose_scene(
    name: str, split: str, size: int, seeds: np.random.SeedSequence, phrases: int
) -> tuple[Drawing, list[ScenePhrase], np.random.Generator]:
    """Lay out a scene and write its phrases, without painting it; no phrases if there is nothing to say.

    Returns the drawing, the phrases, and the generator for painting. Phrases have their own generator, so that the
    image does not depend on the number of phrases.
    """
    layout_rng, phrase_rng, paint_rng = (np.random.default_rng(s) for s in seeds.spawn(3))
    drawing = place(sample_layout(name, split, layout_rng), size)
    if len(drawing.facts) < 2:
        return drawing, [], paint_rng
    held_out = [(one.shape, one.colour) in HELD_OUT_PAIRS for one in drawing.facts]
    referents = [k for k, is_held_out in enumerate(held_out) if is_held_out == (split == "testB")]
    return drawing, write(drawing.facts, name, phrase_rng, referents=referents, count=phrases), paint_rng


def seed_scene(name: str, split: str, index: int, seed: int = 0, attempt: int = 0) -> np.random.SeedSequence:
    """The only source of a scene's randomness: different for any two scenes."""
    return np.random.SeedSequence((seed, FLAVOURS.index(name), SPLITS.index(split), index, attempt))


def samples_of(
    drawing: Drawing, phrases: Sequence[ScenePhrase], image: NDArray[np.uint8], image_id: str, split: str
) -> list[Sample]:
    """The samples of a drawn image: one a phrase, each with all instances."""
    instances = tuple(
        Instance(
            category=one.shape,
            box_xyxy_px=_to_pixels(one.box_xyxy_norm, drawing.size),
            mask=encode_rle(mask),
            attributes=(one.colour, one.texture),
        )
        for one, mask in zip(drawing.facts, drawing.masks, strict=True)
    )
    return [
        Sample(
            id=f"{image_id}-{k}",
            image=image,
            image_id=image_id,
            phrase=phrase.text,
            box_xyxy_px=instances[phrase.index].box_xyxy_px,
            mask=instances[phrase.index].mask,
            split=split,
            category=instances[phrase.index].category,
            kind=phrase.kind,
            instances=instances,
        )
        for k, phrase in enumerate(phrases)
    ]


def _to_pixels(box_xyxy_norm: BoxXyxy, size: int) -> BoxXyxy:
    x1, y1, x2, y2 = (float(round(v * size)) for v in box_xyxy_norm)  # the edges are whole pixels
    return x1, y1, x2, y2


def _check(name: str, split: str, size: int) -> None:
    if name not in FLAVOURS:
        raise ValueError(f"expected one of the drawn scenes, got {name!r}; choose one of {', '.join(FLAVOURS)}")
    if split not in SPLITS:
        raise ValueError(f"expected a split of drawn scenes, got {split!r}; choose one of {', '.join(SPLITS)}")
    if size < MIN_SIZE:
        raise ValueError(f"expected a size of at least {MIN_SIZE} pixels, got {size!r}; ask for a larger one")
