"""Named augmentations for pictures that bring their own words: the two papers' lists, and TransVG's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deixis.data.augment.cropping import CropRange, crop
from deixis.data.augment.looks import BlurRange, ColourRange, HsvRange
from deixis.data.augment.resizing import ScaleRange
from deixis.data.augment.views import MIN_VISIBLE, View, WindowXyxy, area, intersect, shift_box
from deixis.data.augment.warping import (
    AffineRange,
    Matrix,
    compose,
    fit_resolution,
    hull_of,
    move_box,
    move_instance,
    warp_image,
)
from deixis.data.captions.writing import VisibleInstance
from deixis.geometry.images import FILL, Letterbox
from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror, crop_effect, names_order
from deixis.structures import BoxXyxy

AFFINE_TRIES = 10


class Placed(NamedTuple):
    """A view on its frame, the phrases as they are true of it, and where on the frame the picture lies."""

    view: View
    phrases: list[str]
    content_xyxy_px: BoxXyxy


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What may happen to a picture with its phrases, in this order; all geometry is one resampling.

    The first ``meant`` instances of a view are what the phrases mean: they keep their places in the list, a crop never
    cuts them, and a warp leaves 60 % of their boxes at least on the frame. The other instances are known rivals.
    A step that would make one of the phrases untrue is left out: see `deixis.language.invariance`.
    """

    mirror: float = 0.0
    """Chance."""
    crop: CropRange | None = None
    scale: ScaleRange | None = None
    affine: AffineRange | None = None
    colour: HsvRange | ColourRange | None = None
    blur: BlurRange | None = None

    def __call__(self, view: View, phrase: str, rng: np.random.Generator) -> tuple[View, str]:
        """Move one picture, on a frame of its own size (of a crop's size) in `FILL` grey, with its phrase."""
        placed = self._place(view, [phrase], rng, None, FILL, min(1, len(view.instances)))
        return placed.view, placed.phrases[0]

    def on_canvas(
        self,
        view: View,
        phrases: Sequence[str],
        rng: np.random.Generator,
        size: int,
        *,
        resize: str = "letterbox",
        fill: int = FILL,
        meant: int = 1,
    ) -> Placed:
        """Move a picture straight onto the canvas of side ``size``; boxes and masks of the answer are the canvas'."""
        return self._place(view, phrases, rng, (size, resize), fill, meant)

    def _place(
        self,
        view: View,
        phrases: Sequence[str],
        rng: np.random.Generator,
        canvas: tuple[int, str] | None,
        fill: int,
        meant: int,
    ) -> Placed:
        is_mirrored = rng.random() < self.mirror and all(can_mirror(phrase) for phrase in phrases)
        if self.crop is not None:
            view = _cropped(view, phrases, rng, self.crop, meant)
        hw = content_hw = view.hw
        if canvas is not None:
            hw, content_hw = (canvas[0], canvas[0]), Letterbox.fit(view.hw, *canvas).content_hw
        share, offset = (1.0, (0.5, 0.5)) if self.scale is None else self.scale.draw(rng)
        matrix = _lay(view.hw, content_hw, hw, share, offset)
        if is_mirrored:
            matrix = compose(np.array([[-1.0, 0.0, view.hw[1]], [0.0, 1.0, 0.0]]), matrix)
        if self.affine is not None:
            counts = any(names_order(phrase) for phrase in phrases)
            matrix = _shaken(matrix, self.affine, view, hw, rng, meant, counts)
        image, rest = fit_resolution(view.image, matrix)
        for look in (self.colour, self.blur):
            image = image if look is None else look(image, rng)
        moved = View(image=warp_image(image, rest, hw, fill), instances=_moved(view.instances, matrix, hw, meant))
        whole = hull_of((0.0, 0.0, view.hw[1], view.hw[0]), matrix)
        told = [mirror_phrase(phrase) if is_mirrored else phrase for phrase in phrases]
        return Placed(moved, told, intersect(whole, (0.0, 0.0, hw[1], hw[0])))


PIPELINES: dict[str, Pipeline] = {
    "none": Pipeline(),
    "mcn": Pipeline(),
    "smcim": Pipeline(mirror=0.5, affine=AffineRange(), colour=HsvRange(), blur=BlurRange()),
    "transvg": Pipeline(mirror=0.5, crop=CropRange(), scale=ScaleRange(), colour=ColourRange()),
}
"""``mcn``: the official code augments nothing. ``smcim``: the paper's list, with ReSC's bounds and TransVG's blur."""


def _cropped(view: View, phrases: Sequence[str], rng: np.random.Generator, bounds: CropRange, meant: int) -> View:
    """The view in a window drawn within bounds, where the phrases stay true of that; else the view."""
    effects = {crop_effect(phrase) for phrase in phrases}
    compares, others_known = "needs others" in effects, len(view.instances) > meant
    if "breaks" in effects or (compares and not others_known):
        return view
    height, width = view.hw
    kept = view.instances if compares else view.instances[:meant]
    boxes = [intersect(instance.box_xyxy_px, (0.0, 0.0, width, height)) for instance in kept]
    if any(area(box) == 0 for box in boxes):
        return view
    x1, y1, x2, y2 = zip(*boxes, strict=True) if boxes else ((width,), (height,), (0.0,), (0.0,))
    window = bounds.draw(rng, view.hw, (min(x1), min(y1), max(x2), max(y2)))
    if window is None:
        return view
    others = crop(replace(view, instances=view.instances[meant:]), window)
    return replace(others, instances=(*(_shifted(i, window) for i in view.instances[:meant]), *others.instances))


def _shifted(instance: VisibleInstance, window: WindowXyxy) -> VisibleInstance:
    x1, y1, x2, y2 = window
    mask = None if instance.mask is None else instance.mask[y1:y2, x1:x2]
    return replace(instance, box_xyxy_px=shift_box(instance.box_xyxy_px, -x1, -y1), mask=mask)


def _lay(
    hw: tuple[int, int],
    content_hw: tuple[int, int],
    frame_hw: tuple[int, int],
    share: float,
    offset: tuple[float, float],
) -> Matrix:
    """A picture of ``hw`` as that share of the content's size, offset in a frame; whole pixels, as a letterbox is."""
    height, width = (max(1, round(side * share)) for side in content_hw)
    left, top = int((frame_hw[1] - width) * offset[0]), int((frame_hw[0] - height) * offset[1])
    return np.array([[width / hw[1], 0.0, left], [0.0, height / hw[0], top]])


def _shaken(
    matrix: Matrix,
    bounds: AffineRange,
    view: View,
    hw: tuple[int, int],
    rng: np.random.Generator,
    meant: int,
    counts: bool,
) -> Matrix:
    """The matrix and one drawn within bounds after it, that leaves enough of the things on the frame.

    Where the phrase counts ("second from left") that is asked of all things, and nothing is drawn if they are unknown.
    """
    if counts and len(view.instances) <= meant:
        return matrix
    kept = view.instances if counts else view.instances[:meant]
    for _ in range(AFFINE_TRIES):
        shaken = compose(matrix, bounds.draw(rng, hw))
        if all(_share_on_frame(i.box_xyxy_px, shaken, hw) >= MIN_VISIBLE for i in kept):
            return shaken
    return matrix


def _share_on_frame(box: BoxXyxy, matrix: Matrix, hw: tuple[int, int]) -> float:
    whole = hull_of(box, matrix)
    return area(intersect(whole, (0.0, 0.0, hw[1], hw[0]))) / area(whole)


def _moved(
    instances: Sequence[VisibleInstance], matrix: Matrix, hw: tuple[int, int], meant: int
) -> tuple[VisibleInstance, ...]:
    """The things on the frame; those that are meant stay whatever is left of them."""
    moved = []
    for index, instance in enumerate(instances):
        seen = move_instance(instance, matrix, hw)
        if seen is None and index < meant:
            box = move_box(instance.box_xyxy_px, instance.mask, matrix)
            seen = replace(instance, box_xyxy_px=box, mask=None)
        if seen is not None:
            moved.append(seen)
    return tuple(moved)
