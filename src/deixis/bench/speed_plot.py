"""Speed against accuracy as a picture, one point a model: SMCIM Fig. 2; Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from deixis.charts import FONT_PX, INK, Font, Frame, round_axis
from deixis.drawing import COLOURS

WIDTH_PX, HEIGHT_PX = 960, 640
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 90, 40, 40, 80
DOT_PX = 7
FRAME = (LEFT_PX, TOP_PX, WIDTH_PX - RIGHT_PX, HEIGHT_PX - BOTTOM_PX)
PICTURE = (0, 0, WIDTH_PX, HEIGHT_PX)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model."""

    name: str
    per_second: float
    """Images with a phrase each."""
    accuracy: float
    """0..1."""


def draw_speed_accuracy(points: Sequence[Point], *, accuracy_label: str) -> Image.Image:
    """Draw the points with their names: the further right the faster, the higher the better.

    Args:
        points: at least one; several of one accuracy are told apart by their names.
        accuracy_label: what is measured, on which data.

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("expected at least one model with a known accuracy to plot, got none; give --accuracy")
    frame = Frame(
        box=FRAME,
        across=round_axis([point.per_second for point in points]),
        up=round_axis([100 * point.accuracy for point in points]),
    )
    picture = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=FONT_PX)
    across_label = "images with a phrase each, a second"
    frame.draw(pen, font, across_label=across_label, up_label=f"{accuracy_label}, percent")
    places = [frame.place(point.per_second, 100 * point.accuracy) for point in points]
    taken: list[tuple[float, float, float, float]] = []
    for index, (x, y) in enumerate(places):
        pen.ellipse((x - DOT_PX, y - DOT_PX, x + DOT_PX, y + DOT_PX), fill=COLOURS[index % len(COLOURS)], outline=INK)
        taken.append((x - DOT_PX, y - DOT_PX, x + DOT_PX, y + DOT_PX))
    for point, place in zip(points, places, strict=True):
        taken.append(_draw_name(pen, point.name, place, font, taken))
    return picture


def _draw_name(
    pen: ImageDraw.ImageDraw,
    name: str,
    at: tuple[float, float],
    font: Font,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write the name at the first free place around its point, within the frame if one is; return where it stands."""
    x, y = at
    gap = DOT_PX + 4
    places = [(x + gap, y, "lm"), (x - gap, y, "rm"), (x, y - gap, "mb"), (x, y + gap, "mt")]
    boxes = [(place, pen.textbbox(place[:2], name, font=font, anchor=place[2])) for place in places]
    free = [(place, box) for place, box in boxes if not any(_overlap(box, other) for other in taken)]
    within = [one for one in free if _contains(FRAME, one[1])] or [one for one in free if _contains(PICTURE, one[1])]
    place, box = (within or boxes)[0]
    pen.text(place[:2], name, fill=INK, font=font, anchor=place[2])
    return box


def _contains(outer: Sequence[float], box: Sequence[float]) -> bool:
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
