"""Named augmentations: of photos whose phrases are written afterwards, and the papers' of images with phrases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deixis.data.augment.photometric import BlurRange, ColourRange, HsvRange, PhotoJitter
from deixis.data.augment.transforms import (
    MIN_VISIBLE,
    WindowXyxy,
    area,
    crop,
    intersect,
    mirror,
    warp_instance,
    zoom_out,
)
from deixis.data.augment.warping import AffineRange, Matrix, compose, fit_resolution, hull_of, move_box, warp_image
from deixis.geometry.images import FILL, Letterbox
from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror, crop_effect, names_order
from deixis.structures import AnnotatedImage, BoxXyxy, Expression, VisibleInstance

AFFINE_TRIES = 10
PhotometricStep = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class CropAround:
    """A window around one random referent, for images whose phrases are written afterwards."""

    chance: float = 0.5
    min_share: float = 0.5
    """Of the image that the window holds at least."""
    min_area: float = 0.03
    """Share of the image that the box of the referent takes at least."""

    def draw(self, image: AnnotatedImage, rng: np.random.Generator) -> WindowXyxy | None:
        """A window; None where none is wanted, or nothing is large enough."""
        if rng.random() >= self.chance:
            return None
        least = self.min_area * image.hw[0] * image.hw[1]
        large = [i.box_xyxy_px for i in image.instances if not i.is_crowd and area(i.box_xyxy_px) >= least]
        return window_around(large[int(rng.integers(len(large)))], image.hw, rng, self.min_share) if large else None


@dataclass(frozen=True, kw_only=True)
class CropRange:
    """A window that leaves the phrases true; the values are those of TransVG.

    The image counts as scaled to a short side out of ``short_sides``, and the window's sides are drawn in ``sides``.
    """

    chance: float = 0.5
    short_sides: tuple[int, ...] = (400, 500, 600)
    sides: tuple[int, int] = (384, 600)
    tries: int = 20

    def draw(self, image: AnnotatedImage, rng: np.random.Generator) -> WindowXyxy | None:
        """A window that holds all that must stay; None where none is drawn, or a phrase may be untrue of any."""
        keep = _box_to_keep(image)
        if keep is None:
            return None
        height, width = image.hw
        x1, y1, x2, y2 = (int(v) for v in intersect((*np.floor(keep[:2]), *np.ceil(keep[2:])), (0, 0, width, height)))
        scale = float(rng.choice(self.short_sides)) / min(image.hw)
        for _ in range(self.tries if rng.random() < self.chance else 0):
            w, h = (min(side, int(rng.uniform(*self.sides) / scale)) for side in (width, height))
            if min(w, h) < 1 or w < x2 - x1 or h < y2 - y1:
                continue
            left = int(rng.integers(max(0, x2 - w), min(x1, width - w) + 1))
            top = int(rng.integers(max(0, y2 - h), min(y1, height - h) + 1))
            return left, top, left + w, top + h
        return None


@dataclass(frozen=True, kw_only=True)
class ScaleRange:
    """How much of its canvas an image fills, and that it lies anywhere on it; the shares are those of TransVG."""

    shares: tuple[float, ...] = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)

    def draw(self, rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
        """One of the shares, and where to lie: (0, 0) top left, (1, 1) bottom right."""
        return float(rng.choice(self.shares)), (float(rng.random()), float(rng.random()))


@dataclass(frozen=True, kw_only=True)
class ZoomRange:
    """How often and how far to zoom out; the frame around the image has its mean colour."""

    chance: float = 0.15
    enlarge: tuple[float, float] = (0.1, 0.6)

    def __call__(self, image: AnnotatedImage, rng: np.random.Generator) -> AnnotatedImage:
        """Zoom out, or not."""
        if rng.random() >= self.chance:
            return image
        # not the grey of the letterbox: "left" must mean left in the frame, so its border must be visible
        mean = image.pixels[::8, ::8].reshape(-1, 3).mean(axis=0)
        ratio = 1 + float(rng.uniform(*self.enlarge))
        offset = (float(rng.random()), float(rng.random()))
        return zoom_out(image, ratio, offset, (int(mean[0]), int(mean[1]), int(mean[2])))


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What may happen to an image. A step that would make one of its phrases untrue is left out.

    Called, it moves whole pixels; `on_canvas` resamples once, straight onto the model's canvas.
    `deixis.language.invariance` says which phrases stay true.
    """

    mirror: float = 0.0
    """Chance."""
    crop: CropAround | CropRange | None = None
    photometric: tuple[PhotometricStep, ...] = ()
    zoom_out: ZoomRange | None = None
    """Not on a canvas."""
    scale: ScaleRange | None = None
    """On a canvas only."""
    affine: AffineRange | None = None
    """On a canvas only."""

    def __call__(self, image: AnnotatedImage, rng: np.random.Generator) -> AnnotatedImage:
        """Mirror, crop, recolour and zoom out by chance. The arrays of the result are contiguous.

        Raises ValueError for a pipeline that needs a canvas.
        """
        if self.scale is not None or self.affine is not None:
            raise ValueError(f"expected a pipeline without scale and affine, got {self!r}; call on_canvas")
        if self._mirrors(image, rng):
            image = mirror(image)
        image = self._cropped(image, rng)
        image = replace(image, pixels=self._recoloured(image.pixels, rng))
        if self.zoom_out is not None:
            image = self.zoom_out(image, rng)
        instances = tuple(
            i if i.mask is None else replace(i, mask=np.ascontiguousarray(i.mask)) for i in image.instances
        )
        return replace(image, pixels=np.ascontiguousarray(image.pixels), instances=instances)

    def on_canvas(
        self, image: AnnotatedImage, rng: np.random.Generator, size: int, *, resize: str = "letterbox", fill: int = FILL
    ) -> AnnotatedImage:
        """Move an image and its expressions onto the canvas of side ``size``, grey of ``fill`` around it.

        A crop never cuts what the expressions mean, and an affine map leaves 60 % of its boxes at least on the canvas.
        The instances of the result are those that are meant, one for each such expression, and the others that are
        still visible: without masks, and without attributes, which recolouring may make untrue.
        """
        if self.zoom_out is not None:
            raise ValueError(f"expected a pipeline without zoom_out, got {self!r}; call it without a canvas")
        meant = image.expressions[0].box_xyxy_px if image.expressions else None
        image = replace(image, instances=tuple(i for i in image.instances if i.box_xyxy_px != meant))
        is_mirrored = self._mirrors(image, rng)
        image = self._cropped(image, rng)
        share, offset = (1.0, (0.5, 0.5)) if self.scale is None else self.scale.draw(rng)
        hw, content_hw = (size, size), Letterbox.fit(image.hw, size, resize).content_hw
        matrix = _placed(image.hw, content_hw, hw, share, offset)
        if is_mirrored:
            matrix = compose(np.array([[-1.0, 0.0, image.hw[1]], [0.0, 1.0, 0.0]]), matrix)
        if self.affine is not None:
            matrix = _shaken(matrix, self.affine, image, hw, rng)
        pixels, rest = fit_resolution(image.pixels, matrix)
        pixels = warp_image(self._recoloured(pixels, rng), rest, hw, fill)
        return _warped(image, pixels, matrix, is_mirrored)

    def _mirrors(self, image: AnnotatedImage, rng: np.random.Generator) -> bool:
        return rng.random() < self.mirror and all(can_mirror(one.phrase) for one in image.expressions)

    def _cropped(self, image: AnnotatedImage, rng: np.random.Generator) -> AnnotatedImage:
        window = None if self.crop is None else self.crop.draw(image, rng)
        return image if window is None else crop(image, window)

    def _recoloured(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        for step in self.photometric:
            pixels = step(pixels, rng)
        return pixels


PHOTOS = Pipeline(mirror=0.5, crop=CropAround(), photometric=(PhotoJitter(),), zoom_out=ZoomRange())
"""For photos whose phrases are written afterwards, for what is then to be seen."""

PIPELINES: dict[str, Pipeline] = {
    "none": Pipeline(),
    "mcn": Pipeline(),
    "smcim": Pipeline(mirror=0.5, affine=AffineRange(), photometric=(HsvRange(), BlurRange())),
    "transvg": Pipeline(mirror=0.5, crop=CropRange(), scale=ScaleRange(), photometric=(ColourRange(),)),
}
"""For images that bring their phrases.

``mcn``: the official code augments nothing. ``smcim``: the paper's list, with ReSC's bounds and TransVG's blur.
"""


def window_around(box: BoxXyxy, hw: tuple[int, int], rng: np.random.Generator, min_share: float) -> WindowXyxy:
    """Draw a window that holds the whole box and at least ``min_share`` of the image."""
    height, width = hw
    share = float(rng.uniform(min_share, 1))
    aspect = float(np.exp(rng.uniform(-0.3, 0.3)))
    bx1, by1 = max(0, int(box[0])), max(0, int(box[1]))
    bx2, by2 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    w = max(min(width, width * (share / aspect) ** 0.5), bx2 - bx1)
    h = max(min(height, height * share * width / w), by2 - by1)
    w, h = min(width, int(np.ceil(w))), min(height, int(np.ceil(h)))
    x1 = int(rng.integers(max(0, bx2 - w), min(bx1, width - w) + 1))
    y1 = int(rng.integers(max(0, by2 - h), min(by1, height - h) + 1))
    return x1, y1, x1 + w, y1 + h


def _meant(image: AnnotatedImage) -> list[BoxXyxy]:
    return [one.box_xyxy_px for one in image.expressions if one.box_xyxy_px is not None]


def _box_to_keep(image: AnnotatedImage) -> BoxXyxy | None:
    """The box around all that a crop must hold so that the phrases stay true; None where no crop is sure to."""
    effects = {crop_effect(one.phrase) for one in image.expressions}
    compares = "needs others" in effects
    if "breaks" in effects or (compares and not image.instances):
        return None
    height, width = image.hw
    kept = [*_meant(image), *(i.box_xyxy_px for i in image.instances if compares)]
    boxes = [intersect(box, (0.0, 0.0, width, height)) for box in kept]
    if any(area(box) == 0 for box in boxes):
        return None
    return _around(boxes) if boxes else (width, height, 0.0, 0.0)


def _around(boxes: Sequence[BoxXyxy]) -> BoxXyxy:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _placed(
    hw: tuple[int, int],
    content_hw: tuple[int, int],
    frame_hw: tuple[int, int],
    share: float,
    offset: tuple[float, float],
) -> Matrix:
    """An image of ``hw`` as that share of the content's size, offset in a frame; whole pixels, as a letterbox is."""
    height, width = (max(1, round(side * share)) for side in content_hw)
    left, top = int((frame_hw[1] - width) * offset[0]), int((frame_hw[0] - height) * offset[1])
    return np.array([[width / hw[1], 0.0, left], [0.0, height / hw[0], top]])


def _shaken(
    matrix: Matrix, bounds: AffineRange, image: AnnotatedImage, hw: tuple[int, int], rng: np.random.Generator
) -> Matrix:
    """The matrix and one drawn within bounds after it that leaves enough of what is meant on the frame.

    Where a phrase counts ("second from left") the same holds for all instances; if none is known, nothing is drawn.
    """
    counts = any(names_order(one.phrase) for one in image.expressions)
    if counts and not image.instances:
        return matrix
    kept = [*_meant(image), *(i.box_xyxy_px for i in image.instances if counts)]
    for _ in range(AFFINE_TRIES):
        shaken = compose(matrix, bounds.draw(rng, hw))
        if all(_share_on_frame(box, shaken, hw) >= MIN_VISIBLE for box in kept):
            return shaken
    return matrix


def _share_on_frame(box: BoxXyxy, matrix: Matrix, hw: tuple[int, int]) -> float:
    whole = hull_of(box, matrix)
    return area(intersect(whole, (0.0, 0.0, hw[1], hw[0]))) / area(whole)


def _warped(image: AnnotatedImage, pixels: NDArray[np.uint8], matrix: Matrix, is_mirrored: bool) -> AnnotatedImage:
    """The image on its frame, whose pixels are warped already."""
    hw = (pixels.shape[0], pixels.shape[1])
    expressions: list[Expression] = []
    meant: list[VisibleInstance] = []
    for one in image.expressions:
        phrase = mirror_phrase(one.phrase) if is_mirrored else one.phrase
        if one.box_xyxy_px is None:
            expressions.append(replace(one, phrase=phrase))
            continue
        whole = VisibleInstance(category=one.category, box_xyxy_px=one.box_xyxy_px, mask=one.mask)
        seen = warp_instance(whole, matrix, hw)
        if seen is None:  # what is meant stays, whatever is left of it
            seen = replace(whole, box_xyxy_px=move_box(one.box_xyxy_px, one.mask, matrix), mask=None)
        expressions.append(replace(one, phrase=phrase, box_xyxy_px=seen.box_xyxy_px, mask=seen.mask))
        meant.append(replace(seen, mask=None))
    others = (warp_instance(replace(i, mask=None, attributes=()), matrix, hw) for i in image.instances)
    content = intersect(hull_of((0.0, 0.0, image.hw[1], image.hw[0]), matrix), (0.0, 0.0, hw[1], hw[0]))
    return replace(
        image,
        pixels=pixels,
        instances=(*meant, *(i for i in others if i is not None)),
        expressions=tuple(expressions),
        content_xyxy_px=content,
    )
