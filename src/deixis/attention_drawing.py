"""Pictures of where a model looks: each map as colour over the photo, side by side; numpy and Pillow only."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deixis.structures import BoxXyxy

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
_MAX_LABEL_LINES = 3
_MAX_LABEL_CHARS = 300
_MAX_WORD_CHARS = 40
_BOX = (255, 64, 64)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
        An RGB picture; its lowest H rows hold the photos, W wide each.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], there is no map, one has another size or other values, or a share
            of a word is not in 0..1.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [H, W, 3], got {image.dtype} {image.shape!r}; convert it first")
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
    font = ImageFont.load_default(size=max(10, round(min(height, width) / 24)))
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
    pad, lines = _pad(font), _wrap(text, font, width)
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
    """The box on the photo, inside it."""
    left, top = (min(max(round(edge), 0), side - 1) for edge, side in zip(box[:2], photo.size, strict=True))
    right, bottom = (min(round(edge), side) - 1 for edge, side in zip(box[2:], photo.size, strict=True))
    line_px = max(1, round(min(photo.size) / 160))
    ImageDraw.Draw(photo).rectangle((left, top, max(right, left), max(bottom, top)), outline=_BOX, width=line_px)


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


def _wrap(text: str, font: Font, width_px: int) -> str:
    """Break into at most three lines that fit by the text's mean width of a character; the rest is left out."""
    text = _printable(text[:_MAX_LABEL_CHARS])
    per_line = int(0.9 * width_px * len(text) / max(font.getlength(text), 1))
    return "\n".join(textwrap.wrap(text, max(per_line, 4), max_lines=_MAX_LABEL_LINES, placeholder="..."))


def _printable(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
