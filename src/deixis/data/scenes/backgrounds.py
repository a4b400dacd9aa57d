"""Backgrounds for scenes, uint8 [size, size, 3]: plain, graded, patterned, and some that resemble photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_EARTH = ((96, 120, 62), (150, 128, 92), (176, 164, 138), (112, 112, 104), (206, 190, 150), (70, 92, 58))
_SKY = ((120, 168, 222), (176, 204, 230), (226, 214, 204), (150, 160, 176), (240, 196, 150))


def sample_background(size: int, rng: np.random.Generator, photos: Sequence[Path] = ()) -> NDArray[np.uint8]:
    """Draw a random background; with ``photos``, half of the backgrounds are crops of those files.

    Raises:
        FileNotFoundError, ValueError: a photo is missing or cannot be read.
    """
    if photos and rng.random() < 0.5:
        return _photo(photos[int(rng.integers(len(photos)))], size, rng)
    chances = np.array([chance for _, chance in _BACKGROUNDS])
    draw = _BACKGROUNDS[int(rng.choice(len(_BACKGROUNDS), p=chances / chances.sum()))][0]
    return draw(size, rng)


def _tone(rng: np.random.Generator, low: float = 30, high: float = 235) -> NDArray[np.float32]:
    """A muted colour: its three channels stay near one grey."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.uniform(-32, 32, 3), 0, 255).astype(np.float32)


def _clouds(size: int, rng: np.random.Generator, *, channels: int = 1, roughness: float = 0.55) -> NDArray[np.float32]:
    """Noise of many scales with about the 1/f spectrum of photographs: [size, size, channels], about -1..1."""
    side, gain = 4, 1.0
    field = rng.standard_normal((side, side, channels), dtype=np.float32)
    while side < size:
        side, gain = side * 2, gain * roughness
        field = _resized(field, side)
        field += np.float32(gain) * rng.standard_normal(field.shape, dtype=np.float32)
    field *= 1.4 / max(float(np.abs(field).max()), 1e-6)
    return _resized(field, size)


def _resized(field: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    layers = [
        np.asarray(Image.fromarray(field[..., c]).resize((size, size), Image.Resampling.BILINEAR))
        for c in range(field.shape[-1])
    ]
    return np.stack(layers, axis=-1)


def _finish(pixels: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _half(size: int) -> int:
    """Half the side: sensor noise, which is faster to draw, supplies the finest octave."""
    return max(32, size // 2)


def _enlarged(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def _plain(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.broadcast_to(_tone(rng).astype(np.uint8), (size, size, 3)).copy()


def _gradient(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    turn = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-0.5, 0.5, 32)  # the rest is between
    share = 0.5 + (steps * np.cos(turn) + steps[:, None] * np.sin(turn)) / 1.42
    return _enlarged(_finish(_tone(rng) * (1 - share[..., None]) + _tone(rng) * share[..., None]), size)


def _cloudy(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    clouds = _clouds(_half(size), rng, channels=3)
    return _enlarged(_finish(_tone(rng, 60, 205) + rng.uniform(15, 50) * clouds), size)


def _wood(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grain in one direction, cut into planks."""
    grain = _resized(_clouds(_half(size), rng, roughness=0.7), size)[..., 0]
    thin = max(4, size // 24)
    rows = np.asarray(Image.fromarray(grain[:, :thin].copy()).resize((size, size), Image.Resampling.BICUBIC))
    base = np.array((188, 148, 100), dtype=np.float32) * np.float32(rng.uniform(0.7, 1.15))
    pixels = base * (1 + 0.22 * rows[..., None] + 0.06 * grain[..., None])
    plank = size // int(rng.integers(3, 7))
    pixels[::plank] *= 0.6
    return _finish(pixels if rng.random() < 0.5 else pixels.transpose(1, 0, 2))


def _tiles(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    count = int(rng.integers(4, 11))
    shades = rng.uniform(-14, 14, (count, count)).astype(np.float32)
    cell = -(-size // count)
    pixels = _tone(rng, 80, 215) + np.kron(shades, np.ones((cell, cell), dtype=np.float32))[:size, :size, None]
    joint = rng.uniform(-60, 40)
    pixels[::cell] += joint
    pixels[:, ::cell] += joint
    return _finish(pixels)


def _landscape(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sky above, rough ground below, with a soft uneven horizon."""
    small = _half(size)
    clouds = _clouds(small, rng)
    level = rng.uniform(0.25, 0.7)
    bumps = clouds[small // 2, :, 0] * rng.uniform(0.0, 0.12)
    rows = (np.arange(small, dtype=np.float32) + 0.5)[:, None] / small
    ground = np.clip((rows - level - bumps) * small / 2 + 0.5, 0, 1)[..., None]
    sky = np.array(_SKY[int(rng.integers(len(_SKY)))], dtype=np.float32) + 45 * rows[..., None] + 18 * clouds
    earth = np.array(_EARTH[int(rng.integers(len(_EARTH)))], dtype=np.float32) * (0.8 + 0.3 * rows[..., None])
    earth = earth + 40 * clouds[::-1]
    return _enlarged(_finish(sky + (earth - sky) * ground), size)


def _out_of_focus(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blurred blobs and blocks, as behind a near subject."""
    small = max(32, size // 4)
    canvas = Image.fromarray(_cloudy(small, rng))
    draw = ImageDraw.Draw(canvas)
    for x, y, width, height in rng.uniform((-0.2, -0.2, 0.1, 0.1), (1.0, 1.0, 0.5, 0.7), (int(rng.integers(6, 16)), 4)):
        box = (x * small, y * small, (x + width) * small, (y + height) * small)
        fill = tuple(int(v) for v in _tone(rng))
        if rng.random() < 0.5:
            draw.ellipse(box, fill=fill)
        else:
            draw.rectangle(box, fill=fill)
    soft = canvas.filter(ImageFilter.GaussianBlur(small * float(rng.uniform(0.04, 0.09))))
    return _enlarged(np.asarray(soft), size)


def _photo(path: Path, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random square crop of a photo, at least half as wide as its shorter side."""
    from deixis.geometry.images import read_image

    pixels = read_image(path)
    height, width = pixels.shape[:2]
    side = int(min(height, width) * rng.uniform(0.5, 1.0)) or 1
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.array(cut.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))


_BACKGROUNDS: tuple[tuple[Callable[[int, np.random.Generator], NDArray[np.uint8]], float], ...] = (
    (_plain, 0.12),
    (_gradient, 0.12),
    (_cloudy, 0.14),
    (_wood, 0.12),
    (_tiles, 0.12),
    (_landscape, 0.2),
    (_out_of_focus, 0.18),
)
