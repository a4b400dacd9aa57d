"""Training batches: annotated images, drawn or read, augmented, and put on canvases as arrays.

A batch is a function of (seed, step) alone, so the number of workers changes nothing. What gives batches has
``problems``, one sentence for each record that was left out, and ``batch(seed, step, shape)``: `Mixture` draws from
several sources of images, `Epochs` goes through a data set, `Rehearsed` joins the two.
Letters: B images, P phrases, S canvas side.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.absent import absent_expressions
from deixis.data.attributes import WORD_GROUPS, word_labels
from deixis.data.augment.pipelines import Pipeline
from deixis.data.dataset import as_dataset
from deixis.data.image_sources import MAX_DRAWS, ImageSource, PhotoSource, counted
from deixis.data.packed import PackedSamples
from deixis.geometry.images import FILL, Letterbox, letterbox, read_image
from deixis.geometry.masks import read_mask
from deixis.structures import AnnotatedImage, BoxXyxy, Expression, Sample, TrainingBatch, VisibleInstance

TOKEN_STRIDE = 16
ONE_PER = ("referent", "expression")


@dataclass(frozen=True)
class CanvasRules:
    """How a model wants its images and masks."""

    mask_stride: int = 4
    """Pixels of the canvas to a cell of a mask."""
    mask_rule: str = "area"
    """``area``: the share of the cell that is covered; ``nearest``: whether its middle pixel is."""
    fill: int = FILL
    """Grey of the canvas around the image."""
    resize: str = "letterbox"
    """``letterbox``, or ``squash``: see `Letterbox.fit`."""


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """What a batch is to hold: ``images`` images of up to ``phrases`` phrases on canvases of side ``size``."""

    images: int
    phrases: int
    size: int
    absent: float = 0.0
    """The chance that an image also gets a phrase that means nothing in it."""
    rules: CanvasRules = CanvasRules()


class BatchSource(Protocol):
    """Gives batches by seed and step."""

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each record that was left out."""
        ...

    def batch(self, seed: int, step: int, shape: BatchShape) -> TrainingBatch:
        """The batch of that step."""
        ...


@dataclass(frozen=True)
class Mixture:
    """Sources of images and how often each is drawn."""

    sources: Sequence[ImageSource]
    shares: Sequence[float]

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of the photos' files."""
        photos = [source.photos for source in self.sources if isinstance(source, PhotoSource)]
        return tuple(problem for one in photos for problem in getattr(one, "problems", ()))

    def batch(self, seed: int, step: int, shape: BatchShape) -> TrainingBatch:
        """The batch of that step. Images of which nothing can be said are left out.

        Raises ValueError if that is so of all of them again and again.
        """
        rng = np.random.default_rng((seed, step))
        shares = self._shares_at(shape.size)
        picks = rng.choice(len(self.sources), size=shape.images, p=shares / shares.sum())
        for _ in range(MAX_DRAWS):
            images = [self.sources[pick].draw(rng, shape.size, shape.phrases) for pick in picks]
            if described := [image for image in images if image.expressions]:
                return collate(described, shape.size, rng, shape.absent, shape.rules)
        raise ValueError(
            f"expected an instance that a phrase can single out, found none in {MAX_DRAWS} draws of {shape.images} "
            "images; use other data"
        )

    def _shares_at(self, size: int) -> NDArray[np.float64]:
        """The shares of the sources whose images stand on such a canvas; of all, if there is none."""
        fits = [size <= source.largest for source in self.sources]
        return np.array([share * (fit or not any(fits)) for share, fit in zip(self.shares, fits, strict=True)])


@dataclass(frozen=True)
class Epochs:
    """The referents, or expressions, of a data set in a new order each epoch.

    What is drawn for one of them, its expression and its augmentation, follows from (seed, epoch, its index) alone:
    no number of workers, size of batch or damaged neighbour changes it.
    """

    samples: Sequence[Sample]
    referents: Sequence[Sequence[int]]
    """Indices of ``samples``: one group of expressions a referent."""
    augment: Pipeline | None = None
    one_per: str = "referent"
    """``referent``: an expression of each, drawn at random (MCN section 4.3); ``expression``: all of them (SMCIM)."""

    def __post_init__(self) -> None:
        if self.one_per not in ONE_PER:
            raise ValueError(f"expected one_per out of {ONE_PER}, got {self.one_per!r}; choose one")

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of the samples."""
        return as_dataset(self.samples).problems

    @cached_property
    def _groups(self) -> Sequence[Sequence[int]]:
        """Groups of expressions of which each gives one image an epoch."""
        if self.one_per == "referent":
            return self.referents
        return [[one] for group in self.referents for one in group]

    def num_steps(self, images: int) -> int:
        """Batches of ``images`` images in an epoch; the last one of an epoch may be smaller."""
        return -(-len(self._groups) // images)

    def batch(self, seed: int, step: int, shape: BatchShape) -> TrainingBatch:
        """The batch of that step.

        An image that cannot be read is skipped. Where that is so of a whole batch, the next one of the epoch's order
        that can be read takes its place; ValueError if there is none.
        """
        epoch, place = divmod(step, self.num_steps(shape.images))
        order = _order_of(seed, epoch, len(self._groups))
        begin, images, problem = place * shape.images, [], "no referents"
        own = len(order[begin : begin + shape.images])
        for count in range(len(order)):
            if count >= own and images:
                break
            index = order[(begin + count) % len(order)]
            try:
                images.append(self._draw(index, np.random.default_rng((seed, epoch, index, 1)), shape))
            except (OSError, ValueError) as error:
                problem = str(error)
                _warn_once(problem)
        if not images:
            raise ValueError(f"expected images that can be read, got none of {len(order)} referents ({problem})")
        rng = np.random.default_rng((seed, epoch, place, 2))
        return collate(images, shape.size, rng, shape.absent, shape.rules)

    def _draw(self, index: int, rng: np.random.Generator, shape: BatchShape) -> AnnotatedImage:
        """The image of a group with some of its expressions; of packed data at the size of its packed image."""
        group = self._groups[index]
        is_packed = isinstance(self.samples, PackedSamples)
        take = self.samples.small if isinstance(self.samples, PackedSamples) else self.samples.__getitem__
        samples = [take(group[one]) for one in rng.permutation(len(group))[: shape.phrases]]
        pixels = samples[0].image
        if not is_packed or not isinstance(pixels, np.ndarray):
            pixels = read_image(pixels)  # packed pixels are neither decoded nor copied
        image = _annotated(pixels, samples)
        if self.augment is not None and self.augment != Pipeline():
            return self.augment.on_canvas(image, rng, shape.size, resize=shape.rules.resize, fill=shape.rules.fill)
        return image if any(not i.is_crowd for i in image.instances) else replace(image, instances=_meant(image))


def _annotated(pixels: NDArray[np.uint8], samples: Sequence[Sample]) -> AnnotatedImage:
    """Samples of one image, and the instances that it lists, without masks."""
    hw = (pixels.shape[0], pixels.shape[1])
    masks = [None if sample.mask is None else read_mask(sample.mask, hw) for sample in samples]
    instances = tuple(
        VisibleInstance(category=i.category, box_xyxy_px=i.box_xyxy_px, is_crowd=i.is_crowd, attributes=i.attributes)
        for i in samples[0].instances
    )
    return AnnotatedImage(
        pixels,
        instances,
        tuple(Expression(s.phrase, s.box_xyxy_px, m, s.category or "") for s, m in zip(samples, masks, strict=True)),
        categories=frozenset(i.category for i in instances) or None,
        counts=counted(instances),
    )


def _meant(image: AnnotatedImage) -> tuple[VisibleInstance, ...]:
    """What the expressions mean, each instance once, without masks."""
    meant = {one.box_xyxy_px: one.category for one in image.expressions if one.box_xyxy_px is not None}
    return tuple(VisibleInstance(category=category, box_xyxy_px=box) for box, category in meant.items())


@lru_cache(maxsize=4)  # a batch needs a few of hundred thousands
def _order_of(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False
    return order


_WARNED: set[str] = set()
_MOST_WARNINGS = 5


def _warn_once(problem: str) -> None:
    """Say on stderr that an image was skipped, the first few times in each process that reads."""
    if problem in _WARNED or len(_WARNED) >= _MOST_WARNINGS or sys.stderr is None:
        return
    _WARNED.add(problem)
    more = "; further warnings of this kind are left out" if len(_WARNED) == _MOST_WARNINGS else ""
    print(f"training: an image is skipped: {problem}{more}", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """``own`` data, with drawn scenes or a whole mixture in every batch, so that what a model knows is not lost."""

    own: Epochs
    beside: Mixture
    share: float
    """Of a batch's images that are of ``beside``, above 0 and below 1; at least one image is of each."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Of both."""
        return (*self.own.problems, *self.beside.problems)

    def batch(self, seed: int, step: int, shape: BatchShape) -> TrainingBatch:
        """The batch of that step; of one image alone, it is ``own``."""
        rehearsed = min(max(round(self.share * shape.images), 1), shape.images - 1)
        own = self.own.batch(seed, step, replace(shape, images=shape.images - rehearsed))
        return joined(own, self.beside.batch(seed, step, replace(shape, images=rehearsed))) if rehearsed else own


_OF_AN_IMAGE = ("image_index", "thing_index", "boxed_index")


def joined(one: TrainingBatch, two: TrainingBatch) -> TrainingBatch:
    """Two batches of one canvas as one: the images, phrases and instances of the first, then those of the second."""
    values = {}
    for field in fields(TrainingBatch):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name == "seen":
            values[field.name] = a and {name: np.concatenate([a[name], b[name]]) for name in a}
        elif isinstance(a, list):
            values[field.name] = [*a, *b]
        else:
            values[field.name] = np.concatenate([a, b + len(one.pixels) if field.name in _OF_AN_IMAGE else b])
    return TrainingBatch(**values)


def collate(
    images: Sequence[AnnotatedImage],
    size: int,
    rng: np.random.Generator,
    absent: float,
    rules: CanvasRules = CanvasRules(),
) -> TrainingBatch:
    """Put images on canvases of side ``size`` and all that is known of them into arrays."""
    canvases = [_on_canvas(image.pixels, size, rules) for image in images]
    frames = [frame for _, frame in canvases]
    rows = [(index, one) for index, image in enumerate(images) for one in image.expressions]
    rows += absent_expressions(images, rng, absent)
    grid = size // rules.mask_stride
    boxes = np.zeros((len(rows), 4), np.float32)
    masks = np.zeros((len(rows), grid, grid), np.float32)
    for row, (index, one) in enumerate(rows):
        if one.box_xyxy_px is not None:
            boxes[row] = np.asarray(frames[index].box_to_canvas(one.box_xyxy_px)) / size
        if one.mask is not None:
            masks[row] = mask_on_grid(one.mask, frames[index], grid, rules.mask_rule)
    thing_index, thing_cells, thing_labels = _masked_instances(images, frames, size)
    boxed_index, boxed_boxes, boxed_labels = _boxed_instances(images, frames)
    return TrainingBatch(
        pixels=np.stack([canvas for canvas, _ in canvases]),
        content=np.stack([content_of(f, image.content_xyxy_px) for image, f in zip(images, frames, strict=True)]),
        phrases=[one.phrase for _, one in rows],
        image_index=np.array([index for index, _ in rows], np.int64),
        boxes=boxes,
        masks=masks,
        has_mask=masks.reshape(len(rows), -1).max(axis=1) > 0,  # too thin for the canvas: the box alone
        present=np.array([one.box_xyxy_px is not None for _, one in rows]),
        thing_index=thing_index,
        thing_cells=thing_cells,
        thing_labels=thing_labels,
        boxed_index=boxed_index,
        boxed_boxes=boxed_boxes,
        boxed_labels=boxed_labels,
        complete=np.array([image.complete for image in images]),
    )


def _on_canvas(pixels: NDArray[np.uint8], size: int, rules: CanvasRules) -> tuple[NDArray[np.uint8], Letterbox]:
    """The image on its canvas; one that is a canvas already, as augmentation leaves it, is not copied."""
    if pixels.shape[:2] == (size, size):
        return pixels, Letterbox.fit((size, size), size, rules.resize)
    return letterbox(pixels, size, rules.fill, rules.resize)


def _masked_instances(
    images: Sequence[AnnotatedImage], frames: list[Letterbox], size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Instances with masks: image, share of each token's cell, words. One too thin for the canvas is left out."""
    grid = size // TOKEN_STRIDE
    shares = [
        (index, mask_on_grid(one.mask, frames[index], grid).ravel(), word_labels(one.category, one.attributes))
        for index, image in enumerate(images)
        for one in image.instances
        if one.mask is not None
    ]
    kept = [(index, share / share.sum(), labels) for index, share, labels in shares if share.sum() > 0]
    return (
        np.array([index for index, _, _ in kept], np.int64),
        np.array([share for _, share, _ in kept], np.float32).reshape(-1, grid * grid),
        np.array([labels for _, _, labels in kept], np.int64).reshape(-1, len(WORD_GROUPS)),
    )


def _boxed_instances(
    images: Sequence[AnnotatedImage], frames: list[Letterbox]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Instances that are no crowds, whether anything is said of them or not: image, box, words."""
    rows = [(index, one) for index, image in enumerate(images) for one in image.instances if not one.is_crowd]
    boxes = [np.asarray(frames[index].box_to_canvas(one.box_xyxy_px)) / frames[index].size for index, one in rows]
    return (
        np.array([index for index, _ in rows], np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([word_labels(one.category, one.attributes) for _, one in rows], np.int64).reshape(
            -1, len(WORD_GROUPS)
        ),
    )


def content_of(frame: Letterbox, content_xyxy_px: BoxXyxy | None = None) -> NDArray[np.float32]:
    """The image's xyxy on the canvas as fractions of it; ``content_xyxy_px`` is a part of the image, else all."""
    height, width = frame.hw
    content = frame.box_to_canvas(content_xyxy_px or (0, 0, width, height))
    return (np.asarray(content) / frame.size).astype(np.float32)


def mask_on_grid(mask: NDArray[np.bool_], frame: Letterbox, grid: int, rule: str = "area") -> NDArray[np.float32]:
    """A mask of the original image on ``grid`` x ``grid`` cells of the canvas, 0..1, by a rule of `CanvasRules`.

    It goes through the canvas, pixel by pixel, so that `Letterbox.map_to_image` is its way back.
    """
    lies_there = frame.hw == frame.content_hw == (frame.size, frame.size)  # augmentation lays masks on the canvas
    whole = mask if lies_there and mask.shape == frame.hw else frame.mask_to_canvas(mask)
    if rule == "nearest":
        stride = frame.size // grid
        return whole[stride // 2 :: stride, stride // 2 :: stride].astype(np.float32)
    canvas = Image.fromarray(whole.view(np.uint8) * np.uint8(255))
    return np.asarray(canvas.resize((grid, grid), Image.Resampling.BOX), np.float32) / np.float32(255)
