"""Pictures of groundings: box, tinted mask, phrase and score over the photo; numpy and Pillow only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deixis.structures import BoxXyxy
from deixis.verdict import score_in_words

Rgb = tuple[int, int, int]

COLOURS: tuple[Rgb, ...] = (
    (255, 64, 64),
    (64, 170, 255),
    (90, 220, 90),
    (255, 190, 30),
    (220, 110, 255),
    (40, 220, 210),
    (255, 130, 40),
    (255, 120, 190),
)
"""One colour a phrase, in order; they repeat after the last."""

_TINT = 110  # of 255: the thing stays recognisable under its colour
_MAX_LABEL_LINES = 3
_MAX_LABEL_CHARS = 300  # more cannot be read in a picture, and measuring text costs time per character


class Drawable(Protocol):
    """What a picture needs to know of a grounding."""

    @property
    def phrase(self) -> str:
        """The words."""
        ...

    @property
    def box(self) -> BoxXyxy | None:
        """In pixels of the image, or None where there is no box."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """[H, W] of the image, or None where there is no mask."""
        ...

    @property
    def score(self) -> float:
        """0..1."""
        ...

    @property
    def verdict(self) -> str:
        """Of `deixis.verdict.VERDICTS`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box with words that is no grounding: the truth of a sample, for example."""

    text: str
    box_xyxy_px: BoxXyxy | None
    mask: NDArray[np.bool_] | None = None


def draw_grounding(image: NDArray[np.uint8], groundings: Drawable | Sequence[Drawable]) -> Image.Image:
    """Draw one or several groundings over an image of their own size.

    Args:
        image: uint8 [H, W, 3], of any size; it is not changed.
        groundings: boxes and masks in pixels of ``image``; each gets its own colour.

    Returns:
        An RGB picture of the size of ``image``.
    """
    found = list(groundings) if isinstance(groundings, Sequence) else [groundings]
    marks = [Mark(text=_caption(one), box_xyxy_px=one.box, mask=one.mask) for one in found]
    return draw_marks(image, marks)


def draw_marks(image: NDArray[np.uint8], marks: Sequence[Mark]) -> Image.Image:
    """Draw boxes, masks and words over an image; labels keep inside it and off each other where they can.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], or a mask is of another size.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [H, W, 3], got {image.dtype} {image.shape!r}; convert it first")
    canvas = Image.fromarray(np.ascontiguousarray(image))
    height, width = image.shape[:2]
    line_px = max(1, round(min(height, width) / 160))
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(marks))]
    for mark, colour in zip(marks, colours, strict=True):
        if mark.mask is not None:
            _tint_mask(canvas, mark.mask, colour, line_px)
    pen = ImageDraw.Draw(canvas)
    for mark, colour in zip(marks, colours, strict=True):
        if mark.box_xyxy_px is not None:
            pen.rectangle(_pixel_box(mark.box_xyxy_px, (height, width)), outline=colour, width=line_px)
    taken: list[tuple[int, int, int, int]] = []
    font = _font((height, width))
    for mark, colour in zip(marks, colours, strict=True):
        taken.append(_draw_label(pen, mark, colour, (height, width), font, taken))
    return canvas


def draw_sheet(pictures: Sequence[Image.Image], *, columns: int = 4, cell_px: int = 320) -> Image.Image:
    """Lay pictures out in rows on a white sheet, each fitted into a square cell.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("expected at least one picture for a sheet, got none; choose a data set with samples")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    gap = 6
    sheet = Image.new("RGB", (columns * (cell_px + gap) + gap, rows * (cell_px + gap) + gap), "white")
    for index, picture in enumerate(pictures):
        scale = cell_px / max(picture.size)
        fitted = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        left = gap + (index % columns) * (cell_px + gap) + (cell_px - fitted.width) // 2
        top = gap + (index // columns) * (cell_px + gap) + (cell_px - fitted.height) // 2
        sheet.paste(fitted, (left, top))
    return sheet


def _caption(grounding: Drawable) -> str:
    return f"{grounding.phrase[:_MAX_LABEL_CHARS]} {score_in_words(grounding.score, grounding.verdict)}"


def _font(hw: tuple[int, int]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that can be read when the whole picture fills a screen; small pictures get small letters."""
    return ImageFont.load_default(size=max(10, round(min(hw) / 24)))


def _pixel_box(box: BoxXyxy, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Continuous edges as the first and last pixel to paint, inside the image."""
    height, width = hw
    left = min(max(round(box[0]), 0), width - 1)
    top = min(max(round(box[1]), 0), height - 1)
    right = min(max(round(box[2]) - 1, left), width - 1)
    bottom = min(max(round(box[3]) - 1, top), height - 1)
    return left, top, right, bottom


def _tint_mask(canvas: Image.Image, mask: NDArray[np.bool_], colour: Rgb, line_px: int) -> None:
    if mask.shape != (canvas.height, canvas.width):
        raise ValueError(
            f"expected a mask of the image's size {(canvas.height, canvas.width)}, got {mask.shape}; "
            "resize one to the other"
        )
    mask = mask.astype(bool, copy=False)
    inner = mask.copy()
    # The rim: mask pixels whose neighbour line_px away in any of four directions lies outside.
    inner[line_px:] &= mask[:-line_px]
    inner[:-line_px] &= mask[line_px:]
    inner[:, line_px:] &= mask[:, :-line_px]
    inner[:, :-line_px] &= mask[:, line_px:]
    opacity = np.where(inner, np.uint8(_TINT), np.where(mask, np.uint8(220), np.uint8(0)))
    canvas.paste(colour, (0, 0, canvas.width, canvas.height), Image.fromarray(opacity))


def _draw_label(
    pen: ImageDraw.ImageDraw,
    mark: Mark,
    colour: Rgb,
    hw: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Write the label on its own colour at the first free place around the box; return where it stands."""
    height, width = hw
    pad = max(2, round(getattr(font, "size", 10) / 5))
    text = _wrap(mark.text, font, width - 2 * pad)
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font, spacing=pad)
    label_wh = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    box = _pixel_box(mark.box_xyxy_px or (0.0, 0.0, float(width), float(height)), hw)
    place = _free_place(box, label_wh, hw, taken)
    pen.rectangle(place, fill=colour)
    ink = "black" if colour[0] * 0.3 + colour[1] * 0.59 + colour[2] * 0.11 > 110 else "white"
    pen.multiline_text((place[0] + pad - left, place[1] + pad - top), text, fill=ink, font=font, spacing=pad)
    return place


def _free_place(
    box: tuple[int, int, int, int],
    label_wh: tuple[int, int],
    hw: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Above the box, below it, inside at its top, inside at its bottom; else the first of these."""
    label_width, label_height = label_wh
    left = max(0, min(box[0], hw[1] - label_width))
    tops = [box[1] - label_height, box[3] + 1, box[1], box[3] - label_height]
    places = []
    for top in tops:
        if top < 0 or top + label_height > hw[0]:
            continue
        place = (left, top, left + label_width - 1, top + label_height - 1)
        if not any(_overlap(place, other) for other in taken):
            return place
        places.append(place)
    if places:
        return places[0]
    return left, 0, left + label_width - 1, label_height - 1


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> str:
    """Break into at most three lines that fit; what does not fit is cut with an ellipsis."""
    words = text[:_MAX_LABEL_CHARS].encode("utf-8", "replace").decode("utf-8").split()
    lines: list[str] = []
    while words and len(lines) < _MAX_LABEL_LINES:
        count = len(words)
        while count > 1 and font.getlength(" ".join(words[:count])) > width_px:
            count -= 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    if words:
        lines[-1] += " ..."
    return "\n".join(_shorten(line, font, width_px) for line in lines)


def _shorten(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> str:
    if font.getlength(line) <= width_px:
        return line
    kept = line.removesuffix(" ...")
    fitting = bisect_right(range(len(kept) + 1), width_px, key=lambda count: font.getlength(kept[:count] + "...")) - 1
    return kept[:fitting] + "..." if fitting > 0 else ""
