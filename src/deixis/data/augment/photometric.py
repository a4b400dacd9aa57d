"""Colour and sharpness: all that leaves boxes, masks and words as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_STRIP_ROWS = 64
_LEVELS = np.arange(256, dtype=np.float32)[:, None]
_SPREAD = np.maximum(_LEVELS - _LEVELS.T, 1)  # [greatest channel, least channel]


def as_pil(image: NDArray[np.uint8]) -> Image.Image:
    """An array uint8 [H, W, 3] or [H, W] as an image of Pillow; a mirrored one is copied."""
    return Image.fromarray(np.ascontiguousarray(image))


def colour_jitter(image: NDArray[np.uint8], brightness: float, contrast: float, saturation: float) -> NDArray[np.uint8]:
    """Scale brightness, contrast (about the mean grey) and saturation; 1 changes nothing.

    Hues stay, so that colour words stay true. ``image`` is uint8 [H, W, 3], and so is the result.
    """
    # the mean on every eighth pixel: the same within a grey level
    mean = float(image[::8, ::8].mean()) * brightness
    levels = (np.arange(256, dtype=np.float32) * brightness - mean) * contrast + mean
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    jittered = as_pil(image).point(np.tile(table, 3).tolist())
    return np.asarray(Image.blend(jittered.convert("L").convert("RGB"), jittered, saturation))


def blur(image: NDArray[np.uint8], radius_px: float) -> NDArray[np.uint8]:
    """Blur uint8 [H, W, 3] with a Gaussian (approximated by box filters) of this standard deviation."""
    return np.asarray(as_pil(image).filter(ImageFilter.GaussianBlur(radius_px)))


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the colours out of uint8 [H, W, 3]; the three channels stay."""
    return np.asarray(as_pil(image).convert("L").convert("RGB"))


def scale_saturation_and_value(image: NDArray[np.uint8], saturation: float, value: float) -> NDArray[np.uint8]:
    """Multiply S and V of HSV, each held below its maximum; hues stay, so that colour words stay true.

    A channel c becomes V' - k (V - c): V is the greatest channel, and k follows from V and the least channel alone, so
    a table does it, and no pixel is turned to HSV and back. ``image`` is uint8 [H, W, 3], and so is the result, within
    two levels of exact arithmetic. SMCIM section IV-B, "color space jittering (saturation and intensity)".
    """
    tops = np.minimum(np.rint(_LEVELS * value), 255)
    slopes = np.minimum(tops / _SPREAD, saturation * np.minimum(value, 255 / np.maximum(_LEVELS, 1)))
    # eight bits behind the point: k (V - c) is at most V', so the product fits into sixteen
    tables = (tops * 256 + 128).ravel().astype(np.uint16), (slopes * 256).astype(np.uint16).ravel()
    jittered = np.empty(image.shape, np.uint8)
    for row in range(0, image.shape[0], _STRIP_ROWS):  # small arrays stay in the cache, and need no fresh memory
        _jitter_strip(image[row : row + _STRIP_ROWS], *tables, jittered[row : row + _STRIP_ROWS])
    return jittered


def _jitter_strip(
    strip: NDArray[np.uint8], tops: NDArray[np.uint16], slopes: NDArray[np.uint16], out: NDArray[np.uint8]
) -> None:
    planes = [strip[..., channel].astype(np.uint16) for channel in range(3)]
    top = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    low = np.minimum(np.minimum(planes[0], planes[1]), planes[2])
    new_top, slope = tops.take(top), slopes.take(top << 8 | low)
    for channel, plane in enumerate(planes):
        np.subtract(top, plane, out=plane)
        plane *= slope
        np.subtract(new_top, plane, out=plane)
        out[..., channel] = np.right_shift(plane, 8, out=plane)


@dataclass(frozen=True, kw_only=True)
class HsvRange:
    """Bounds for `scale_saturation_and_value`; each factor is drawn by itself. The values are those of ReSC."""

    saturation: tuple[float, float] = (0.5, 1.5)
    value: tuple[float, float] = (0.5, 1.5)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Recolour uint8 [H, W, 3]."""
        return scale_saturation_and_value(image, float(rng.uniform(*self.saturation)), float(rng.uniform(*self.value)))


@dataclass(frozen=True, kw_only=True)
class ColourRange:
    """Bounds for `colour_jitter`: each factor is 1 at most ``spread`` off, in any order. The values are TransVG's."""

    chance: float = 0.8
    spread: float = 0.4

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Recolour uint8 [H, W, 3], or leave it."""
        if rng.random() >= self.chance:
            return image
        for which in rng.permutation(3):
            factors = [1.0, 1.0, 1.0]
            factors[which] += self.spread * float(rng.uniform(-1, 1))
            image = colour_jitter(image, *factors)
        return image


@dataclass(frozen=True, kw_only=True)
class BlurRange:
    """Bounds for `blur`: how often, and the standard deviation in pixels of the canvas."""

    chance: float = 0.5
    sigma_px: tuple[float, float] = (0.1, 2.0)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Blur uint8 [H, W, 3], or leave it."""
        sigma = float(rng.uniform(*self.sigma_px))
        return blur(image, sigma) if rng.random() < self.chance else image


@dataclass(frozen=True, kw_only=True)
class PhotoJitter:
    """Chances and bounds for photos: brightness, contrast and saturation at once, and now and then blur or grey."""

    jitter: float = 0.8
    spread: float = 0.2
    blur: float = 0.05
    sigma_px: tuple[float, float] = (0.5, 1.5)
    grey: float = 0.02

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Recolour uint8 [H, W, 3], or leave it."""
        if rng.random() < self.jitter:
            brightness, contrast, saturation = (1 + self.spread * float(v) for v in rng.uniform(-1, 1, 3))
            image = colour_jitter(image, brightness, contrast, saturation)
        if rng.random() < self.blur:
            image = blur(image, float(rng.uniform(*self.sigma_px)))
        if rng.random() < self.grey:
            image = grey(image)
        return image
