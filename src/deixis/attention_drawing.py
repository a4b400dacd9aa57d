"""Pictures of where a model looks: each map as colour over the photo, side by side; numpy and Pillow only."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

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


def draw_attention(image: NDArray[np.uint8], maps: Mapping[str, NDArray[np.floating]], phrase: str) -> Image.Image:
    """Draw the photo once a map, side by side on white, each under its map's name and the phrase.

    Args:
        image: uint8 [H, W, 3]; it is not changed.
        maps: by name, strength 0..1 [H, W] of the image: see :meth:`deixis.grounder.Scene.attention`.
        phrase: the words that were looked for.

    Returns:
        An RGB picture; its lowest H rows hold the photos, W wide each.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], there is no map, or one has another size or other values.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [H, W, 3], got {image.dtype} {image.shape!r}; convert it first")
    if not maps:
        raise ValueError("expected at least one map to draw, got none; use a model that has some")
    height, width = image.shape[:2]
    font = ImageFont.load_default(size=max(10, round(min(height, width) / 24)))
    labels = [_wrap(f"{name}: {phrase}", font, width) for name in maps]
    pad = max(2, round(getattr(font, "size", 10) / 5))
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    bottoms = [pen.multiline_textbbox((0, 0), label, font=font, spacing=pad)[3] for label in labels]
    top = round(max(bottoms)) + 2 * pad
    sheet = Image.new("RGB", (len(maps) * (width + _GAP_PX) - _GAP_PX, top + height), "white")
    for index, (label, strength) in enumerate(zip(labels, maps.values(), strict=True)):
        strip = Image.new("RGB", (width, top), "white")  # what is too wide ends here and not over a neighbour
        ImageDraw.Draw(strip).multiline_text((pad, pad), label, fill="black", font=font, spacing=pad)
        left = index * (width + _GAP_PX)
        sheet.paste(strip, (left, 0))
        sheet.paste(_lay_over(image, strength), (left, top))
    return sheet


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


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """Break into at most three lines that fit by the text's mean width of a character; the rest is left out."""
    text = " ".join(text[:_MAX_LABEL_CHARS].encode("utf-8", "replace").decode("utf-8").split())
    per_line = int(0.9 * width_px * len(text) / max(font.getlength(text), 1))
    return "\n".join(textwrap.wrap(text, max(per_line, 4), max_lines=_MAX_LABEL_LINES, placeholder="..."))
