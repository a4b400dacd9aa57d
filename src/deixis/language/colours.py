"""The colour that a person would name for an instance, measured from its pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deixis.structures import BoxXyxy

COLOURS = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
"""Basic colour terms, in the order of `colour_shares`; a pixel that fits none is not counted."""

_UNNAMED = len(COLOURS)
_LEVELS = 32
_WHITE, _GRAY = COLOURS.index("white"), COLOURS.index("gray")
NEAR_COLOURS: dict[str, tuple[str, ...]] = {
    "black": ("gray",),
    "white": ("gray",),
    "gray": ("white", "black"),
    "red": ("orange", "pink", "brown"),
    "orange": ("red", "yellow", "brown"),
    "yellow": ("orange",),
    "green": (),
    "blue": ("purple",),
    "purple": ("blue", "pink"),
    "pink": ("red", "purple"),
    "brown": ("orange", "red"),
}
"""Colours that people confuse; a colour is not in its own list."""


@lru_cache(maxsize=1)
def _colour_table() -> NDArray[np.uint8]:
    """The colour index of every coarse RGB cell: uint8 [32 * 32 * 32]."""
    level = (np.arange(_LEVELS) + 0.5) / _LEVELS
    r, g, b = (axis.ravel() for axis in np.meshgrid(level, level, level, indexing="ij"))
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    chroma = np.maximum(high - low, 1e-9)
    from_red, from_green, from_blue = (g - b) / chroma % 6, (b - r) / chroma + 2, (r - g) / chroma + 4
    hue = 60 * np.where(high == r, from_red, np.where(high == g, from_green, from_blue))
    saturation = (high - low) / high
    table = np.full(high.shape, _UNNAMED, np.uint8)

    def name(colour: str, where: NDArray[np.bool_]) -> None:
        table[where & (table == _UNNAMED)] = COLOURS.index(colour)

    name("black", (high < 0.19) | ((high < 0.27) & (saturation < 0.35)))
    name("white", ((high > 0.68) & (saturation < 0.14)) | ((high > 0.8) & (saturation < 0.2)))
    name("gray", (saturation < 0.16) & (high < 0.64))
    vivid = (saturation > 0.25) & (high > 0.25)
    reddish = (hue >= 345) | (hue < 11)
    name("pink", vivid & (((hue >= 315) & (hue < 345)) | (reddish & (high > 0.75) & (saturation < 0.5))))
    name("red", vivid & reddish & (saturation > 0.5))
    warm = vivid & (hue >= 11) & (hue < 42)
    name("orange", warm & (high > 0.7) & (saturation > 0.65) & (hue < 40))
    name("brown", warm & (high < 0.6) & (saturation > 0.32))
    name("yellow", vivid & (hue >= 42) & (hue < 68) & (high > 0.6) & (saturation > 0.45))
    name("green", vivid & (hue >= 70) & (hue < 165))
    bluish = vivid & (hue >= 185) & (hue < 255)
    name("blue", bluish & ((saturation > 0.36) | (high < 0.6)))  # paler ones are white in the shade
    name("purple", vivid & (hue >= 260) & (hue < 315))
    return table


def colour_shares(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of ``pixels`` (uint8 [N, 3], RGB) of each of COLOURS: float64 [11], with a sum of at most 1."""
    if pixels.size == 0:
        return np.zeros(len(COLOURS))
    cells = pixels.astype(np.intp) >> 3
    index = _colour_table()[(cells[:, 0] * _LEVELS + cells[:, 1]) * _LEVELS + cells[:, 2]]
    return np.bincount(index, minlength=_UNNAMED + 1)[:_UNNAMED] / len(index)


def dominant_colour(shares: NDArray[np.float64], *, least: float = 0.45) -> str | None:
    """The colour with at least ``least`` of the pixels and 1.8 times as many as the next; None if there is none.

    Shaded white has gray pixels but looks white to a person: if the bright part is large, both count as white.
    """
    white, gray = float(shares[_WHITE]), float(shares[_GRAY])
    if white >= 0.3 and white >= gray:
        shares = shares.copy()
        shares[_WHITE], shares[_GRAY] = white + gray, 0.0
    first, second = np.argsort(shares)[[-1, -2]]
    if shares[first] < least or shares[first] < 1.8 * shares[second]:
        return None
    return COLOURS[int(first)]


def colour_pair(shares: NDArray[np.float64]) -> tuple[str, str] | None:
    """The two colours of a two-coloured instance, the larger first; None if a person would name one or three."""
    first, second = np.argsort(shares)[[-1, -2]]
    names = COLOURS[int(first)], COLOURS[int(second)]
    if shares[second] < 0.27 or shares[first] + shares[second] < 0.7 or names[1] in NEAR_COLOURS[names[0]]:
        return None
    return names


def may_be_called(shares: NDArray[np.float64], colour: str) -> bool:
    """Whether somebody might call the instance ``colour``; generous, so that a distractor is ruled out for certain."""
    near = sum(float(shares[COLOURS.index(other)]) for other in NEAR_COLOURS[colour])
    return float(shares[COLOURS.index(colour)]) + 0.4 * near >= 0.22 or float(shares.sum()) < 0.25


def sample_pixels(
    image: NDArray[np.uint8], box_xyxy_px: BoxXyxy, mask: NDArray[np.bool_] | None, most: int = 500
) -> NDArray[np.uint8]:
    """About ``most`` pixels of the box, or of ``mask`` (bool [H, W]) within it: uint8 [N, 3], N may be 0."""
    x1, y1, x2, y2 = box_xyxy_px
    rows, columns = slice(max(int(y1), 0), max(int(y2), 0) + 1), slice(max(int(x1), 0), max(int(x2), 0) + 1)
    patch = image[rows, columns]
    step = max(int((patch.shape[0] * patch.shape[1] / most) ** 0.5), 1)
    patch = patch[::step, ::step]
    if mask is None:
        return patch.reshape(-1, 3)
    return patch[mask[rows, columns][::step, ::step]]


def middle_of(box_xyxy_px: BoxXyxy) -> BoxXyxy:
    """The middle half of a box, which has less background in it."""
    x1, y1, x2, y2 = box_xyxy_px
    inset_x, inset_y = (x2 - x1) / 4, (y2 - y1) / 4
    return (x1 + inset_x, y1 + inset_y, x2 - inset_x, y2 - inset_y)


def upper_body(box_xyxy_px: BoxXyxy, *, has_mask: bool) -> BoxXyxy | None:
    """The shirt of an upright person, in pixels; None for a box of another shape.

    It lies between 20 % and 45 % of the height of a full figure, lower in a half-length one. Without a mask it is only
    the middle of the width.
    """
    x1, y1, x2, y2 = box_xyxy_px
    width, height = x2 - x1, y2 - y1
    if height < 1.15 * width or height < 24:
        return None
    top, bottom = (0.2, 0.45) if height >= 2.0 * width else (0.38, 0.75)
    inset = 0.1 if has_mask else 0.3
    return (x1 + inset * width, y1 + top * height, x2 - inset * width, y1 + bottom * height)


def beside_body(box_xyxy_px: BoxXyxy, body_xyxy_px: BoxXyxy) -> tuple[BoxXyxy, BoxXyxy]:
    """Strips along the left and right edges of a person's box, at the height of the measured part, in pixels."""
    x1, _, x2, _ = box_xyxy_px
    _, top, _, bottom = body_xyxy_px
    width = x2 - x1
    return (x1 - 0.12 * width, top, x1 + 0.05 * width, bottom), (x2 - 0.05 * width, top, x2 + 0.12 * width, bottom)


def thighs(box_xyxy_px: BoxXyxy) -> BoxXyxy | None:
    """The pants or skirt of a person standing at full length, in pixels; None for a box that is not slim enough."""
    x1, y1, x2, y2 = box_xyxy_px
    width, height = x2 - x1, y2 - y1
    if height < 2.2 * width or height < 60:
        return None
    return (x1 + 0.1 * width, y1 + 0.55 * height, x2 - 0.1 * width, y1 + 0.7 * height)
