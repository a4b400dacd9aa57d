"""From a layout to pixels: backgrounds, instances painted on them, and the camera's blur, light and noise.

Pillow does most of the work: its 8-bit loops are several times faster than numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from deixis.data.scenes.drawing import Drawing, Stamp
from deixis.data.scenes.layout import SceneInstance
from deixis.geometry.images import read_image

RGB: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "red": ((212, 32, 38), (128, 8, 16)),
    "orange": ((246, 130, 20), (184, 82, 0)),
    "yellow": ((247, 218, 40), (190, 152, 0)),
    "green": ((46, 160, 67), (14, 92, 34)),
    "blue": ((36, 88, 214), (128, 172, 250)),
    "purple": ((126, 50, 172), (190, 138, 222)),
    "pink": ((247, 146, 192), (214, 76, 142)),
    "brown": ((118, 72, 36), (70, 38, 14)),
    "gray": ((130, 130, 132), (78, 78, 80)),
    "white": ((246, 246, 244), (172, 172, 174)),
    "black": ((24, 24, 26), (98, 98, 100)),
}
"""Each colour's main tone and the second tone of its textures."""

_Rgb = tuple[int, int, int]
_MELTS = 110
_NEUTRAL = 128


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one image is drawn."""

    rim: bool = False
    """Draw a rim in the second tone around every instance, not only where one would melt into the background."""
    shadow: bool = False
    light: float = 1.0
    """Factor on every pixel."""
    noise_sd: float = 0.0
    """Standard deviation of the sensor noise, in grey levels."""
    blur_px: float = 0.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Style:
        """A random style."""
        return cls(
            rim=rng.random() < 0.3,
            shadow=rng.random() < 0.3,
            light=float(rng.uniform(0.82, 1.08)),
            noise_sd=float(max(0.0, rng.uniform(-3, 9))),
            blur_px=float(rng.uniform(0.4, 0.9)) if rng.random() < 0.25 else 0.0,
        )


def paint(drawing: Drawing, background: NDArray[np.uint8], style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint the instances on a background uint8 [size, size, 3]; returns a new image of the same shape."""
    canvas = Image.fromarray(background)
    for instance, stamp in zip(drawing.instances, drawing.stamps, strict=True):
        if style.shadow:
            _paint_shadow(canvas, stamp)
        _paint_instance(canvas, instance, stamp, style, rng)
    return np.array(_expose(canvas, style, rng))


def _paint_instance(
    canvas: Image.Image, instance: SceneInstance, stamp: Stamp, style: Style, rng: np.random.Generator
) -> None:
    """Paint one instance where its stamp is, in its tones and texture."""
    tint = rng.uniform(-9, 9, 3)
    main, second = (_shade(tone, tint) for tone in RGB[instance.colour])
    look = Image.new("RGB", stamp.coverage.size, main)
    if instance.texture != "plain":
        look.paste(second, mask=Image.fromarray(_texture(instance, stamp, canvas.width, rng)))
    if style.rim or _melts(canvas, stamp, (main,) if instance.texture == "plain" else (main, second)):
        rim = ImageChops.invert(stamp.coverage.filter(ImageFilter.MinFilter(2 * max(1, round(canvas.width / 200)) + 1)))
        edge: _Rgb = (112, 112, 112) if instance.colour == "black" else _shade(second, np.zeros(3), 0.75)
        look.paste(edge, mask=rim)
    canvas.paste(look, (stamp.left, stamp.top), stamp.coverage)


def _shade(tone: _Rgb, tint: NDArray[np.float64], factor: float = 1.0) -> _Rgb:
    red, green, blue = (round(min(max(factor * t + d, 0.0), 255.0)) for t, d in zip(tone, tint, strict=True))
    return red, green, blue


def _melts(canvas: Image.Image, stamp: Stamp, tones: tuple[_Rgb, ...]) -> bool:
    """Whether the mean colour of the background under the instance is close to one of its tones."""
    width, height = stamp.coverage.size
    box = (max(0, stamp.left), max(0, stamp.top), min(canvas.width, stamp.left + width), stamp.top + height)
    ground = canvas.crop((*box[:3], min(canvas.height, box[3]))).resize((1, 1), Image.Resampling.BOX)
    return bool((np.abs(np.asarray(ground, dtype=int)[0] - np.array(tones)).sum(axis=1) < _MELTS).any())


def _paint_shadow(canvas: Image.Image, stamp: Stamp) -> None:
    """Darken the ground a little to the right of and below the instance."""
    step = max(1, canvas.width // 64)
    soft = stamp.coverage.filter(ImageFilter.BoxBlur(step)).point(_SHADOW)
    canvas.paste((0, 0, 0), (stamp.left + step, stamp.top + step), soft)


def _texture(instance: SceneInstance, stamp: Stamp, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """How far each pixel of the stamp takes the second tone: [h, w] in 0..255."""
    width, height = stamp.coverage.size
    radius_px = instance.radius * size
    turn = float(rng.uniform(0, math.pi)) if instance.texture == "striped" else float(rng.uniform(-0.5, 0.5))
    xs = (np.arange(width, dtype=np.float32) + 0.5 + stamp.left - instance.x * size) / radius_px
    ys = (np.arange(height, dtype=np.float32) + 0.5 + stamp.top - instance.y * size) / radius_px
    along = xs * math.cos(turn) + ys[:, None] * math.sin(turn)
    across = ys[:, None] * math.cos(turn) - xs * math.sin(turn)
    finer = 1 if instance.size == "small" else 0.8
    period = {"striped": 0.5, "dotted": 0.52, "checkered": 0.62}[instance.texture] * finer
    u, v = along / period, across / period
    hardness = radius_px * period  # pixels in a period: edges are about one pixel wide
    if instance.texture == "striped":
        depth = 0.22 - np.abs(u - np.round(u))
    elif instance.texture == "dotted":
        depth = 0.3 - np.hypot(u - np.round(u), v - np.round(v))
    else:
        depth = np.sin(math.pi * 2 * u) * np.sin(math.pi * 2 * v) * 0.15
    return np.clip((depth * hardness + 0.5) * 255, 0, 255).astype(np.uint8)


def _expose(image: Image.Image, style: Style, rng: np.random.Generator) -> Image.Image:
    """Blur, light and noise, as from a camera."""
    if style.blur_px > 0:
        line = np.exp(-0.5 * (np.arange(-1, 2) / style.blur_px) ** 2)
        kernel = np.outer(line, line).ravel()
        image = image.filter(ImageFilter.Kernel((3, 3), kernel.tolist(), scale=float(kernel.sum())))
    if style.light != 1.0:
        image = image.point(_table(_LEVELS * style.light))
    if style.noise_sd > 0:
        chance = Image.frombytes("RGB", image.size, rng.bytes(3 * image.width * image.height))
        noise = chance.point(_table(_NEUTRAL + style.noise_sd * _QUANTILES))
        image = ImageChops.add(image, noise, offset=-_NEUTRAL)
    return image


def _table(levels: NDArray[np.float64]) -> list[int]:
    """Levels for 0..255 as Pillow wants them for three channels."""
    return np.clip(np.rint(levels), 0, 255).astype(int).tolist() * 3


_LEVELS = np.arange(256.0)
_SHADOW = [round(0.4 * level) for level in range(256)]
_QUANTILES = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)])
"""The normal distribution in 256 equal parts: a table is far faster than as many normal numbers."""


# Backgrounds, uint8 [size, size, 3]: plain, graded, patterned, and some that resemble photographs.

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
