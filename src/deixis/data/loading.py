"""Training batches: images from several sources, several phrases an image, all arrays.

A batch is a function of (seed, step) alone, so the number of workers changes nothing.
Letters: B images, P phrases, S canvas side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.absent import absent_targets
from deixis.data.attributes import WORD_GROUPS, word_labels
from deixis.data.augment import View, random_paste, random_view
from deixis.data.captions.writing import write_phrases
from deixis.data.captions.written import PhotoRecord
from deixis.data.pictures import Picture, Target, Thing, boxed, counted
from deixis.data.scenes import draw_scene
from deixis.geometry.images import FILL, Letterbox, letterbox
from deixis.geometry.masks import read_mask
from deixis.structures import BoxXyxy, TrainingBatch

TOKEN_STRIDE = 16
MAX_DRAWS = 20


@dataclass(frozen=True)
class CanvasRules:
    """How a model wants its pictures and masks."""

    mask_stride: int = 4
    """Pixels of the canvas to a cell of a mask."""
    mask_rule: str = "area"
    """``area``: the share of the cell that is covered; ``nearest``: whether its middle pixel is."""
    fill: int = FILL
    """Grey of the canvas around the picture."""
    resize: str = "letterbox"
    """``letterbox``, or ``squash``: see `Letterbox.fit`."""


class Source(Protocol):
    """Gives pictures by a random generator."""

    @property
    def largest(self) -> int:
        """The largest canvas side that its pictures stand on."""
        ...

    def draw(self, rng: np.random.Generator, size: int, phrases: int) -> Picture:
        """One picture of about ``size`` pixels with up to ``phrases`` targets."""
        ...


@dataclass(frozen=True)
class SceneSource:
    """Drawn scenes of one flavour; about a quarter of them are drawn upon ``backgrounds``, photos, if there are any."""

    flavour: str
    count: int = 100_000
    backgrounds: Sequence[Path] = ()
    largest: int = 256
    """The largest canvas side that it stands on, enlarged where it is drawn smaller."""
    side: int = 256
    """It is drawn no larger than this, in pixels."""

    def draw(self, rng: np.random.Generator, size: int, phrases: int) -> Picture:
        """One scene of the train split, of ``size`` or ``side`` pixels, whichever is less."""
        index, side = int(rng.integers(self.count)), min(size, self.side)
        # `draw_scene` takes a photo for every second scene to which it is given some
        upon = self.backgrounds if self.backgrounds and rng.random() < 0.5 else ()
        try:
            image, samples = draw_scene(self.flavour, "train", index, side, phrases, backgrounds=upon)
        except (OSError, ValueError):  # one unreadable photo must not end a training
            if not upon:
                raise
            upon = ()
            image, samples = draw_scene(self.flavour, "train", index, side, phrases)
        targets = [
            Target(s.phrase, s.box_xyxy_px, read_mask(s.mask, image.shape[:2]) if s.mask else None, s.category or "")
            for s in samples
        ]
        known = samples and not upon  # nobody knows what a photo behind the things shows
        return Picture(
            image,
            targets,
            frozenset(i.category for i in samples[0].instances) if known else None,
            [
                Thing(read_mask(i.mask, image.shape[:2]), word_labels(i.category, i.attributes))
                for i in samples[0].instances
                if i.mask
            ],
            counts=counted(samples[0].instances) if known else {},
            boxed=boxed(samples[0].instances) if samples else [],
            complete=bool(known),
        )


@dataclass(frozen=True)
class PhotoSource:
    """Annotated photos; phrases are written after the image was cropped, mirrored and pasted on, so they stay true."""

    records: Sequence[PhotoRecord]
    fully_annotated: bool
    donors: Sequence[PhotoRecord] = ()
    paste_share: float = 0.0
    min_area: float = 0.02
    largest: int = 512
    counts_known: bool = True
    """Whether each category that is annotated is annotated in full; no phrase's colour is swapped where it is not."""

    def draw(self, rng: np.random.Generator, size: int, phrases: int) -> Picture:
        """One augmented photo; tries again, a few times, where nothing can be told apart.

        Photos that cannot be read are passed over.

        Raises:
            OSError, ValueError: many photos in a row cannot be read; that of the last.
        """
        picture = None
        for _ in range(5):
            view = self._augmented(rng)
            picture = self._with_phrases(view, rng, phrases)
            if picture.targets:
                break
        assert picture is not None
        return picture

    def _augmented(self, rng: np.random.Generator) -> View:
        view = random_view(_readable_view(self.records, rng), rng, 1.0)
        if self.donors and rng.random() < self.paste_share:
            donors = [_readable_view(self.donors, rng) for _ in range(2)]
            view = random_paste(view, donors, rng)
        return view

    def _with_phrases(self, view: View, rng: np.random.Generator, phrases: int) -> Picture:
        hw = view.image.shape[:2]
        written = write_phrases(
            view.instances,
            hw,
            view.image,
            rng,
            per_instance=2,
            min_area=self.min_area,
            loose_synonyms=rng.random() < 0.5,
            fully_annotated=self.fully_annotated,
        )
        order = rng.permutation(len(written))[:phrases]
        targets = []
        for pick in order:
            instance = view.instances[written[pick].index]
            targets.append(Target(written[pick].text, instance.box_xyxy_px, instance.mask, instance.category))
        present = frozenset(i.category for i in view.instances)
        things = [Thing(i.mask, word_labels(i.category, ())) for i in view.instances if i.mask is not None]
        counts = counted(view.instances) if self.counts_known else {}
        known = present if self.fully_annotated else None
        return Picture(
            view.image,
            targets,
            known,
            things,
            counts=counts,
            boxed=boxed(view.instances),
            complete=self.fully_annotated,
        )


def _readable_view(records: Sequence[PhotoRecord], rng: np.random.Generator) -> View:
    """A random photo out of those that can be read; the last error if `MAX_DRAWS` in a row cannot."""
    for left in reversed(range(MAX_DRAWS)):
        try:
            return records[int(rng.integers(len(records)))].view()
        except (OSError, ValueError):
            if not left:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


@dataclass(frozen=True)
class Mixture:
    """Sources and how often each is drawn."""

    sources: Sequence[Source]
    shares: Sequence[float]

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each record of the photos' files that was left out, to be told when a training starts."""
        photos = [source.records for source in self.sources if isinstance(source, PhotoSource)]
        return tuple(problem for records in photos for problem in getattr(records, "problems", ()))

    def batch(
        self,
        seed: int,
        step: int,
        *,
        images: int,
        phrases: int,
        size: int,
        absent: float,
        rules: CanvasRules = CanvasRules(),
    ) -> TrainingBatch:
        """The batch of that step: ``images`` pictures of up to ``phrases`` phrases on a canvas of side ``size``.

        ``absent`` is the chance that an image also gets a phrase that means nothing in it. Pictures of which nothing
        can be said are left out; ValueError if that is so of all, again and again.
        """
        rng = np.random.default_rng((seed, step))
        shares = self._shares_at(size)
        picks = rng.choice(len(self.sources), size=images, p=shares / shares.sum())
        for _ in range(MAX_DRAWS):
            pictures = [self.sources[pick].draw(rng, size, phrases) for pick in picks]
            if told := [picture for picture in pictures if picture.targets]:
                return collate(told, size, rng, absent, rules)
        raise ValueError(
            f"expected something to tell apart in {MAX_DRAWS} draws of {images} pictures, got nothing; use other data"
        )

    def _shares_at(self, size: int) -> NDArray[np.float64]:
        """The shares of the sources whose pictures stand on such a canvas; of all, if there is none."""
        fits = [size <= source.largest for source in self.sources]
        return np.array([share * (fit or not any(fits)) for share, fit in zip(self.shares, fits, strict=True)])


def collate(
    pictures: list[Picture],
    size: int,
    rng: np.random.Generator,
    absent: float,
    rules: CanvasRules = CanvasRules(),
) -> TrainingBatch:
    """Put pictures on canvases of side ``size`` and their targets into arrays."""
    boards = [_on_board(p.image, size, rules) for p in pictures]
    rows = [(i, t) for i, p in enumerate(pictures) for t in p.targets]
    rows += absent_targets(pictures, rng, absent)
    grid = size // rules.mask_stride
    boxes = np.zeros((len(rows), 4), np.float32)
    targets = np.zeros((len(rows), grid, grid), np.float32)
    for row, (image, target) in enumerate(rows):
        frame = boards[image][1]
        if target.box_xyxy_px is not None:
            boxes[row] = np.asarray(frame.box_to_canvas(target.box_xyxy_px)) / size
        if target.mask is not None:
            targets[row] = mask_on_grid(target.mask, frame, grid, rules.mask_rule)
    frames = [frame for _, frame in boards]
    thing_index, thing_cells, thing_labels = _things_on_grid(pictures, frames, size)
    boxed_index, boxed_boxes, boxed_labels = _boxed_on_canvas(pictures, frames)
    return TrainingBatch(
        pixels=np.stack([board for board, _ in boards]),
        content=np.stack([content_of(f, p.content_xyxy_px) for p, (_, f) in zip(pictures, boards, strict=True)]),
        phrases=[t.phrase for _, t in rows],
        image_index=np.array([i for i, _ in rows], np.int64),
        boxes=boxes,
        masks=targets,
        has_mask=targets.reshape(len(rows), -1).max(axis=1) > 0,  # too thin for the canvas: the box alone
        present=np.array([t.box_xyxy_px is not None for _, t in rows]),
        thing_index=thing_index,
        thing_cells=thing_cells,
        thing_labels=thing_labels,
        boxed_index=boxed_index,
        boxed_boxes=boxed_boxes,
        boxed_labels=boxed_labels,
        complete=np.array([picture.complete for picture in pictures]),
    )


def _on_board(image: NDArray[np.uint8], size: int, rules: CanvasRules) -> tuple[NDArray[np.uint8], Letterbox]:
    """The image on its canvas; one that is a canvas already, as augmentation leaves it, is not copied."""
    if image.shape[:2] == (size, size):
        return image, Letterbox.fit((size, size), size, rules.resize)
    return letterbox(image, size, rules.fill, rules.resize)


def _things_on_grid(
    pictures: list[Picture], frames: list[Letterbox], size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """The last three arrays of a batch; a thing too thin for the canvas is left out."""
    grid = size // TOKEN_STRIDE
    shares = [
        (index, mask_on_grid(thing.mask, frames[index], grid).ravel(), thing.labels)
        for index, picture in enumerate(pictures)
        for thing in picture.things
    ]
    kept = [(index, share / share.sum(), labels) for index, share, labels in shares if share.sum() > 0]
    return (
        np.array([index for index, _, _ in kept], np.int64),
        np.array([share for _, share, _ in kept], np.float32).reshape(-1, grid * grid),
        np.array([labels for _, _, labels in kept], np.int64).reshape(-1, len(WORD_GROUPS)),
    )


def _boxed_on_canvas(
    pictures: list[Picture], frames: list[Letterbox]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Every annotated thing: its image, its box and its words."""
    rows = [(index, one) for index, picture in enumerate(pictures) for one in picture.boxed]
    boxes = [np.asarray(frames[index].box_to_canvas(one.box_xyxy_px)) / frames[index].size for index, one in rows]
    return (
        np.array([index for index, _ in rows], np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([one.labels for _, one in rows], np.int64).reshape(-1, len(WORD_GROUPS)),
    )


def content_of(frame: Letterbox, content_xyxy_px: BoxXyxy | None = None) -> NDArray[np.float32]:
    """The picture's xyxy on the canvas as fractions of it; ``content_xyxy_px`` is a part of the image, else all."""
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
