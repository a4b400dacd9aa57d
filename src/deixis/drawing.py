"""Photos with what is meant drawn over them: box, tinted mask, phrase and score; and where a model looks.

numpy and Pillow only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deixis.structures import BoxXyxy
from deixis.verdict import score_in_words

Rgb = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

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

_TINT = 110  # of 255: the instance stays recognisable under its colour
_MAX_LABEL_LINES = 3
_MAX_LABEL_CHARS = 300  # more cannot be read in an image, and measuring text costs time per character

COLOUR_STOPS: tuple[tuple[int, int, int], ...] = (
    (38, 8, 88),
    (66, 18, 141),
    (126, 19, 149),
    (182, 18, 147),
    (231, 39, 131),
    (255, 95, 105),
    (255, 149, 96),
    (255, 193, 105),
    (253, 235, 78),
)
"""Strength 0 to 1 in even steps, dark violet to yellow: the lightness (CIE L*) rises by about 10 a step."""

_OPACITY = (0.45, 0.7)  # at strength 0 and 1: the photo stays recognisable, the strongest place shines
_GAP_PX = 6
_MAX_WORD_CHARS = 40


class Drawable(Protocol):
    """What drawing needs to know of a grounding."""

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
        An RGB image of the size of ``image``.
    """
    found = list(groundings) if isinstance(groundings, Sequence) else [groundings]
    marks = [Mark(text=_caption(one), box_xyxy_px=one.box, mask=one.mask) for one in found]
    return draw_marks(image, marks)


def draw_marks(image: NDArray[np.uint8], marks: Sequence[Mark]) -> Image.Image:
    """Draw boxes, masks and words over an image; labels keep inside it and off each other where they can.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], or a mask is of another size.
    """
    _check_image(image)
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
    """Lay images out in rows on a white sheet, each fitted into a square cell.

    Raises:
        ValueError: no images.
    """
    if not pictures:
        raise ValueError("expected at least one image for a sheet, got none; choose a data set with samples")
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


def _font(hw: tuple[int, int]) -> Font:
    """A font that can be read when the whole image fills a screen; small images get small letters."""
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
    font: Font,
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Write the label on its own colour at the first free place around the box; return where it stands."""
    height, width = hw
    pad = _pad(font)
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


def _wrap(text: str, font: Font, width_px: float) -> str:
    """Break into at most three lines that fit; what does not fit is cut with an ellipsis."""
    words = _printable(text[:_MAX_LABEL_CHARS]).split()
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


def _shorten(line: str, font: Font, width_px: float) -> str:
    if font.getlength(line) <= width_px:
        return line
    kept = line.removesuffix(" ...")
    fitting = bisect_right(range(len(kept) + 1), width_px, key=lambda count: font.getlength(kept[:count] + "...")) - 1
    return kept[:fitting] + "..." if fitting > 0 else ""


def draw_attention(
    image: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.floating]],
    phrase: str,
    *,
    words: Sequence[tuple[str, float]] = (),
    box: BoxXyxy | None = None,
) -> Image.Image:
    """Draw the photo once a map, side by side on white, each under its map's name and the phrase.

    Args:
        image: uint8 [H, W, 3]; it is not changed.
        maps: by name, strength 0..1 [H, W] of the image: see :meth:`deixis.grounder.Scene.attention`.
        phrase: the words that were looked for.
        words: each word with its share 0..1, see :func:`deixis.evaluate.word_attention.words_reaching_cls`; they stand
            above the photos on the colour of their share, the largest as the strongest place of a map.
        box: xyxy in pixels of the image, drawn on every map, and on the photo alone as one more at the left.

    Returns:
        An RGB image; its lowest H rows hold the photos, W wide each.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], there is no map, one has another size or other values, or a share
            of a word is not in 0..1.
    """
    _check_image(image)
    if not maps:
        raise ValueError("expected at least one map to draw, got none; use a model that has some")
    for word, share in words:
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share from 0 to 1 of {word!r}, got {share!r}; scale it first")
    panels = [(f"{name}: {phrase}", _lay_over(image, strength)) for name, strength in maps.items()]
    if box is not None:
        panels.insert(0, (phrase, Image.fromarray(np.ascontiguousarray(image))))
        for _, photo in panels:
            _outline(photo, box)
    height, width = image.shape[:2]
    font = _font((height, width))
    labels = [_label(text, font, width) for text, _ in panels]
    strip = _word_strip(words, font, len(panels) * (width + _GAP_PX) - _GAP_PX)
    top = max(label.height for label in labels)
    sheet = Image.new("RGB", (strip.width, top + strip.height + height), "white")
    sheet.paste(strip, (0, top))
    for index, (label, (_, photo)) in enumerate(zip(labels, panels, strict=True)):
        left = index * (width + _GAP_PX)
        sheet.paste(label, (left, 0))
        sheet.paste(photo, (left, top + strip.height))
    return sheet


def _pad(font: Font) -> int:
    return max(2, round(getattr(font, "size", 10) / 5))


def _label(text: str, font: Font, width: int) -> Image.Image:
    """The text on white, as wide as a photo: what is too wide ends there and not over a neighbour."""
    pad = _pad(font)
    lines = _wrap(text, font, width - 2 * pad)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    bottom = round(pen.multiline_textbbox((0, 0), lines, font=font, spacing=pad)[3])
    label = Image.new("RGB", (width, bottom + 2 * pad), "white")
    ImageDraw.Draw(label).multiline_text((pad, pad), lines, fill="black", font=font, spacing=pad)
    return label


def _word_strip(words: Sequence[tuple[str, float]], font: Font, width: int) -> Image.Image:
    """The words with their percent, each on the colour of its share of the largest, in lines of ``width``."""
    pad = _pad(font)
    row = round(sum(font.getbbox("Ag")[1::2])) + 2 * pad
    largest = max((share for _, share in words), default=0.0) or 1.0
    placed: list[tuple[int, int, int, str, float]] = []
    x = y = 0
    for word, share in words:
        text = f"{_printable(word[:_MAX_WORD_CHARS])} {100 * share:.0f} %"
        wide = round(font.getlength(text)) + 2 * pad
        if x and x + wide > width:
            x, y = 0, y + row + pad
        placed.append((x, y, wide, text, share / largest))
        x += wide + pad
    strip = Image.new("RGB", (width, y + row + pad if words else 0), "white")
    pen, table = ImageDraw.Draw(strip), colour_table()
    for left, top, wide, text, strength in placed:
        red, green, blue = (int(level) for level in table[round(255 * strength)])
        pen.rectangle((left, top, left + wide - 1, top + row - 1), fill=(red, green, blue))
        ink = "black" if strength > 0.5 else "white"
        pen.text((left + pad, top + row / 2), text, fill=ink, font=font, anchor="lm")
    return strip


def _outline(photo: Image.Image, box: BoxXyxy) -> None:
    line_px = max(1, round(min(photo.size) / 160))
    ImageDraw.Draw(photo).rectangle(_pixel_box(box, (photo.height, photo.width)), outline=COLOURS[0], width=line_px)


def colour_table() -> NDArray[np.uint8]:
    """Colours [256, 3] of strength 0 to 1: :data:`COLOUR_STOPS`, linear in between."""
    stops = np.array(COLOUR_STOPS, dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _lay_over(image: NDArray[np.uint8], strength: NDArray[np.floating]) -> Image.Image:
    """The photo under the map's colours, which cover it the more, the stronger they are."""
    if strength.shape != image.shape[:2]:
        raise ValueError(
            f"expected a map of the image's size {image.shape[:2]}, got {strength.shape!r}; resize one to the other"
        )
    if not (strength.min() >= 0 and strength.max() <= 1):
        low, high = float(strength.min()), float(strength.max())
        raise ValueError(f"expected a map of values from 0 to 1, got {low!r} to {high!r}; scale it first")
    level = np.rint(strength * 255).astype(np.uint8)
    opacity = np.rint(np.linspace(*_OPACITY, 256) * 255).astype(np.uint8)
    photo = Image.fromarray(np.ascontiguousarray(image))
    return Image.composite(Image.fromarray(colour_table()[level]), photo, Image.fromarray(opacity[level]))


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [H, W, 3], got {image.dtype} {image.shape!r}; convert it first")


def _printable(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
