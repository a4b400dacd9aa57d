"""Scale a view, or lay it on a larger canvas."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from deixis.data.augment.views import View, as_pil
from deixis.data.captions.writing import VisibleInstance


def zoom_out(view: View, ratio: float, offset: tuple[float, float], fill: tuple[int, int, int]) -> View:
    """Lay the image on a larger canvas, ``ratio`` >= 1 times as high and wide.

    ``offset`` says where: (0, 0) top left, (1, 1) bottom right. ``fill`` is the canvas' RGB colour.
    """
    if ratio < 1 or not (0 <= offset[0] <= 1 and 0 <= offset[1] <= 1):
        raise ValueError(f"expected a ratio >= 1 and an offset in 0..1, got {ratio!r} and {offset!r}; correct them")
    height, width = view.hw
    canvas_hw = (round(height * ratio), round(width * ratio))
    dx, dy = int((canvas_hw[1] - width) * offset[0]), int((canvas_hw[0] - height) * offset[1])
    image = np.empty((*canvas_hw, 3), np.uint8)
    image[:] = np.array(fill, np.uint8)
    image[dy : dy + height, dx : dx + width] = view.image

    def move(instance: VisibleInstance) -> VisibleInstance:
        x1, y1, x2, y2 = instance.box_xyxy_px
        mask = None
        if instance.mask is not None:
            mask = np.zeros(canvas_hw, np.bool_)
            mask[dy : dy + height, dx : dx + width] = instance.mask
        return replace(instance, box_xyxy_px=(x1 + dx, y1 + dy, x2 + dx, y2 + dy), mask=mask)

    return View(image=image, instances=tuple(move(instance) for instance in view.instances))


def resize(view: View, size_long: int) -> View:
    """Scale so that the long side has ``size_long`` pixels. Drops a thing whose mask thereby vanishes."""
    height, width = view.hw
    scale = size_long / max(height, width)
    new_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
    if new_hw == view.hw:
        return view
    image = np.asarray(as_pil(view.image).resize((new_hw[1], new_hw[0]), Image.Resampling.BILINEAR))
    # nearest by pixel centres: dividing whole numbers, so that no rounding error moves a pixel
    rows = (2 * np.arange(new_hw[0]) + 1) * height // (2 * new_hw[0])
    columns = (2 * np.arange(new_hw[1]) + 1) * width // (2 * new_hw[1])
    sy, sx = new_hw[0] / height, new_hw[1] / width
    instances = []
    for instance in view.instances:
        x1, y1, x2, y2 = instance.box_xyxy_px
        mask = None if instance.mask is None else instance.mask[rows][:, columns]
        if mask is None or mask.any():
            instances.append(replace(instance, box_xyxy_px=(x1 * sx, y1 * sy, x2 * sx, y2 * sy), mask=mask))
    return View(image=image, instances=tuple(instances))


@dataclass(frozen=True, kw_only=True)
class ScaleRange:
    """How much of its frame a picture fills, and that it lies anywhere in it; the shares are those of TransVG."""

    shares: tuple[float, ...] = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)

    def draw(self, rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
        """One of the shares, and where to lie: (0, 0) top left, (1, 1) bottom right."""
        return float(rng.choice(self.shares)), (float(rng.random()), float(rng.random()))
