"""Affine maps of images, masks and boxes: rotation, translation, scale, shear, and any chain of them as one resampling.

A matrix [2, 3] takes (x, y, 1) of the image, in pixels with continuous edges, to (x, y) of the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.augment.photometric import as_pil
from deixis.geometry.images import FILL
from deixis.geometry.masks import box_from_mask
from deixis.structures import BoxXyxy

Matrix = NDArray[np.float64]


def affine_matrix(
    hw: tuple[int, int],
    *,
    angle_deg: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear_deg: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """Rotate (clockwise on the screen), scale and shear about the middle of a frame of ``hw``, then move it.

    ``translate`` is in shares of the frame's width and height.
    """
    height, width = hw
    turn = math.radians(angle_deg)
    rotation = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shear = np.array([[1.0, math.tan(math.radians(shear_deg[0]))], [math.tan(math.radians(shear_deg[1])), 1.0]])
    linear = shear @ rotation
    middle = np.array([width / 2, height / 2])
    offset = middle - linear @ middle + np.array([translate[0] * width, translate[1] * height])
    return np.column_stack([linear, offset])


def compose(*matrices: Matrix) -> Matrix:
    """One matrix that does what these do one after the other, the first one first."""
    whole = np.eye(3)
    for matrix in matrices:
        whole = np.vstack([matrix, (0, 0, 1)]) @ whole
    return whole[:2]


def move_points(points: NDArray[np.floating], matrix: Matrix) -> NDArray[np.float64]:
    """Points [N, 2] of the image in the frame."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def hull_of(box: BoxXyxy, matrix: Matrix) -> BoxXyxy:
    """The box around the four moved corners of a box."""
    x1, y1, x2, y2 = box
    return _around(move_points(np.array([(x1, y1), (x2, y1), (x1, y2), (x2, y2)]), matrix))


def move_box(box: BoxXyxy, mask: NDArray[np.bool_] | None, matrix: Matrix) -> BoxXyxy:
    """The box of a moved instance, not clipped.

    With a mask it is as tight around the moved mask as ``box`` was around the mask. Without, it is the hull of the
    moved corners, drawn in by the square root of max(|sin|, |cos|) of the angle turned by, as ReSC does: hardly
    any instance fills the corners of its box.
    """
    around = None if mask is None else box_from_mask(mask)
    if mask is None or around is None:
        return _drawn_in(hull_of(box, matrix), matrix)
    x1, y1, x2, y2 = _around(move_points(_outermost(mask, around), matrix))
    sx, sy = np.hypot(matrix[0, 0], matrix[1, 0]), np.hypot(matrix[0, 1], matrix[1, 1])
    left, right = (around[0] - box[0]) * sx, (box[2] - around[2]) * sx
    if matrix[0, 0] < 0:
        left, right = right, left
    return (
        float(x1 - left),
        float(y1 - (around[1] - box[1]) * sy),
        float(x2 + right),
        float(y2 + (box[3] - around[3]) * sy),
    )


def fit_resolution(image: NDArray[np.uint8], matrix: Matrix) -> tuple[NDArray[np.uint8], Matrix]:
    """Bring an image uint8 [H, W, 3] near the scale at which the frame shows it; the matrix does the rest.

    Shrinking is antialiased, which a warp is not; enlarging is left to the warp. Where the matrix maps the image on a
    rectangle of whole pixels, the image comes out as this rectangle, and the rest is to lay it there.
    """
    height, width = image.shape[:2]
    rectangle = _whole_rectangle(matrix, (height, width))
    if rectangle is not None:
        x1, y1, x2, y2 = rectangle
        image = image[:, ::-1] if matrix[0, 0] < 0 else image
        return _resized(image, (x2 - x1, y2 - y1)), np.array([[1.0, 0.0, x1], [0.0, 1.0, y1]])
    sx, sy = np.hypot(matrix[0, 0], matrix[1, 0]), np.hypot(matrix[0, 1], matrix[1, 1])
    size_wh = (max(1, round(width * min(1.0, sx))), max(1, round(height * min(1.0, sy))))
    if min(sx, sy) > 0.95 or size_wh == (width, height):
        return image, matrix
    grown = np.array([[width / size_wh[0], 0.0, 0.0], [0.0, height / size_wh[1], 0.0]])
    return _resized(image, size_wh), compose(grown, matrix)


def warp_image(image: NDArray[np.uint8], matrix: Matrix, hw: tuple[int, int], fill: int = FILL) -> NDArray[np.uint8]:
    """The image uint8 [H, W, 3] on a frame of ``hw``, bilinear, with grey around it; see `fit_resolution`."""
    image, matrix = fit_resolution(image, matrix)
    source, size_wh, colour = as_pil(image), (hw[1], hw[0]), (fill, fill, fill)
    if (matrix[:, :2] == np.eye(2)).all() and (matrix[:, 2] == np.rint(matrix[:, 2])).all():
        frame = Image.new("RGB", size_wh, colour)
        frame.paste(source, (int(matrix[0, 2]), int(matrix[1, 2])))
        return np.asarray(frame)
    data = _inverse(matrix)
    return np.asarray(
        source.transform(size_wh, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=colour)
    )


def warp_mask(mask: NDArray[np.bool_], matrix: Matrix, hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool [H, W] on a frame of ``hw``: True where the middle of a pixel is."""
    rectangle = _whole_rectangle(matrix, (mask.shape[0], mask.shape[1]))
    if rectangle is not None and (rectangle[2] - rectangle[0], rectangle[3] - rectangle[1]) == mask.shape[::-1]:
        source = as_pil((mask[:, ::-1] if matrix[0, 0] < 0 else mask).view(np.uint8))
        frame = Image.new("L", (hw[1], hw[0]))
        frame.paste(source, rectangle[:2])
        return np.asarray(frame).view(np.bool_)
    source = as_pil(mask.view(np.uint8))
    moved = source.transform((hw[1], hw[0]), Image.Transform.AFFINE, _inverse(matrix), Image.Resampling.NEAREST)
    return np.asarray(moved).view(np.bool_)


@dataclass(frozen=True, kw_only=True)
class AffineRange:
    """Bounds of a random affine map. The values are those of ReSC, whose list of augmentations SMCIM names."""

    angle_deg: float = 5.0
    translate: float = 0.1
    """Share of the frame's sides."""
    scale: tuple[float, float] = (0.9, 1.1)
    shear_deg: float = 2.0

    def draw(self, rng: np.random.Generator, hw: tuple[int, int]) -> Matrix:
        """A matrix within these bounds, about the middle of a frame of ``hw``."""
        angle, tx, ty, sx, sy = (float(v) for v in rng.uniform(-1, 1, 5))
        return affine_matrix(
            hw,
            angle_deg=angle * self.angle_deg,
            translate=(tx * self.translate, ty * self.translate),
            scale=float(rng.uniform(*self.scale)),
            shear_deg=(sx * self.shear_deg, sy * self.shear_deg),
        )


def _around(points: NDArray[np.float64]) -> BoxXyxy:
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def _outermost(mask: NDArray[np.bool_], around: BoxXyxy) -> NDArray[np.float64]:
    """Corners [N, 2] of the first and last pixel of every row: no pixel lies beyond them whichever way one looks."""
    x1, y1, x2, y2 = map(int, around)
    part = mask[y1:y2, x1:x2]
    rows = np.flatnonzero(part.any(axis=1))
    part = part if len(part) == len(rows) else part[rows]
    first = part.argmax(axis=1)
    last = x2 - x1 - part[:, ::-1].argmax(axis=1)
    x, y = np.concatenate([first, last]) + x1, np.concatenate([rows, rows]) + y1
    return np.concatenate([np.column_stack([x, y]), np.column_stack([x, y + 1])]).astype(np.float64)


def _drawn_in(box: BoxXyxy, matrix: Matrix) -> BoxXyxy:
    turn = math.atan2(matrix[1, 0], matrix[0, 0])
    share = max(abs(math.sin(turn)), abs(math.cos(turn))) ** 0.5
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) * (1 - share) / 2, (y2 - y1) * (1 - share) / 2
    return x1 + dx, y1 + dy, x2 - dx, y2 - dy


def _resized(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    if size_wh == (image.shape[1], image.shape[0]):
        return image
    return np.asarray(as_pil(image).resize(size_wh, Image.Resampling.BILINEAR))


def _inverse(matrix: Matrix) -> tuple[float, ...]:
    """As Pillow wants it: from the frame to the image."""
    return tuple(np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2].ravel().tolist())


def _whole_rectangle(matrix: Matrix, hw: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Where the image comes to lie, if that is a rectangle of whole pixels."""
    if matrix[0, 1] != 0 or matrix[1, 0] != 0 or matrix[1, 1] <= 0:
        return None
    edges = hull_of((0.0, 0.0, hw[1], hw[0]), matrix)
    x1, y1, x2, y2 = (round(v) for v in edges)
    near = all(abs(edge - round(edge)) <= 1e-6 for edge in edges)
    return (x1, y1, x2, y2) if near and x1 < x2 and y1 < y2 else None
