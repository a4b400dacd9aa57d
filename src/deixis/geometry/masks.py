"""Masks: bool [H, W] arrays, COCO run lengths and polygons, converted in every direction.

The run-length codec writes the same bytes as pycocotools and needs no compiled extension.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import SupportsInt, cast

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.images import MAX_PIXELS, read_mask_file
from deixis.structures import BoxXyxy, Mask, Rle

BoolMask = NDArray[np.bool_]
IntArray = NDArray[np.int64]

_MAX_GROUPS = 7  # letters a count: 35 bits, enough for any difference of two counts up to MAX_PIXELS
_MAX_COORDINATE = 1e6
_FINE = 5
"""COCO draws borders on a grid of fifths of a pixel; the next two count steps on it."""
_MAX_BORDER = 100_000_000
_BORDER_AT_ONCE = 1_000_000


def encode_rle(mask: BoolMask) -> Rle:
    """Return a mask [H, W] as COCO run lengths: compressed, column-major, starting with a run of zeros.

    Raises:
        ValueError: the mask does not have two axes or has no pixels.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"expected a mask [H, W] with pixels, got shape {mask.shape!r}")
    column_major = np.asarray(mask, dtype=np.bool_).T.ravel()
    changes = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    first = [0, 0] if column_major[0] else [0]  # the first run counts zeros, so a leading one makes it empty
    counts = np.diff(np.concatenate([first, changes, [column_major.size]]))
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": _compress_runs(counts).decode("ascii")}


def decode_rle(rle: Rle | Mapping[str, object]) -> BoolMask:
    """Return COCO run lengths as a mask: bool [H, W].

    Args:
        rle: see :func:`run_lengths`, whose errors it raises.
    """
    return np.ascontiguousarray(mask_from_runs(run_lengths(rle), checked_size(rle)))


def mask_from_runs(runs: IntArray, hw: tuple[int, int]) -> BoolMask:
    """Return the runs of :func:`run_lengths` as a mask: bool [H, W], column-major."""
    height, width = hw
    values = np.zeros(runs.size, dtype=np.bool_)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def run_lengths(rle: Mapping[str, object]) -> IntArray:
    """Return the runs of a COCO run-length mask: column-major, alternately unset and set, starting with unset.

    Args:
        rle: ``size`` [H, W] and ``counts``, a compressed string (or bytes) or a plain list of run lengths.

    Raises:
        ValueError: size or counts are missing or malformed, or the counts do not add up to H * W.
    """
    height, width = checked_size(rle)
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = counts.encode("utf-8", errors="surrogatepass")
    if isinstance(counts, bytes):
        runs = _decompress(counts, height * width)
    elif isinstance(counts, list | tuple | np.ndarray):
        runs = _plain_counts(counts)
    else:
        raise ValueError(f"expected RLE counts as a string or a list of whole numbers, got {reprlib.repr(counts)}")
    if runs.size == 0 or runs.min() < 0 or runs.max() > MAX_PIXELS or int(runs.sum()) != height * width:
        raise ValueError(
            f"expected RLE counts of at least 0 that add up to {height} x {width}, got {reprlib.repr(runs.tolist())}"
        )
    return runs


def area_of_runs(runs: IntArray) -> int:
    """Return how many pixels are set."""
    return int(runs[1::2].sum())


def overlap_of_runs(a: IntArray, b: IntArray) -> int:
    """Return how many pixels are set in both of two masks of the same size, without decoding them."""
    edges = np.cumsum(a)
    edges = edges[: edges.size - edges.size % 2]  # where the set runs of a begin and end, alternately
    ends = np.cumsum(b)
    is_set = np.arange(b.size) % 2
    set_before = np.cumsum(b * is_set) - b * is_set
    run = np.minimum(np.searchsorted(ends, edges, side="left"), b.size - 1)
    reached = set_before[run] + (edges - (ends - b)[run]) * is_set[run]
    return int(reached[1::2].sum() - reached[::2].sum())


def rasterize_polygons(polygons: Sequence[Sequence[float]], hw: tuple[int, int]) -> BoolMask:
    """Return the union of polygons as a mask: bool [H, W].

    By COCO's rule, pixel for pixel what pycocotools draws: corners are rounded to fifths of a pixel and joined by
    digital lines; a pixel belongs to the polygon when an odd number of them pass above its centre's fifth.

    Args:
        polygons: each [x, y, x, y, ...] in pixels, closed by itself; parts outside the image are cut off.
        hw: (height, width) of the image.

    Raises:
        ValueError: a polygon has an odd count of numbers, fewer than three points, or numbers that are not
            finite or beyond a million.
    """
    height, width = _checked_hw(hw)
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in polygons:
        _fill(mask, _points(polygon))
    return mask


def polygons_from_mask(mask: BoolMask) -> list[list[float]]:
    """Return polygons that trace the mask's pixel edges; :func:`rasterize_polygons` gives back the same mask.

    One polygon for each part (pixels joined by their sides). COCO polygons have no holes, so a hole is joined to
    its part's outline by a bridge that is walked there and back, which cancels under the even-odd rule.
    """
    rings = _trace_rings(np.asarray(mask, dtype=np.bool_))
    outlines = sorted((ring for ring in rings if _signed_area(ring) > 0), key=_signed_area)
    parts = [ring.tolist() for ring in outlines]
    for hole in (ring for ring in rings if _signed_area(ring) < 0):
        owner = next(i for i, outline in enumerate(outlines) if _encloses(outline, hole))
        parts[owner] += [parts[owner][0], *hole.tolist(), hole[0].tolist()]
    return [[float(value) for point in part for value in point] for part in parts]


def box_from_mask(mask: BoolMask) -> BoxXyxy | None:
    """Return the tightest box around the mask's pixels, edges on pixel borders; None for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if columns.size == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def read_mask(mask: Mask, hw: tuple[int, int]) -> BoolMask:
    """Return a mask as a file holds it (RLE, polygons or an image file) as bool [H, W].

    Raises:
        FileNotFoundError: the mask is an image file that is not there.
        ValueError: the mask is malformed or has another size than ``hw`` (height, width).
    """
    if isinstance(mask, Path):
        found, name = read_mask_file(mask), f"the file {str(mask)!r}"
    elif isinstance(mask, Mapping):
        found, name = decode_rle(mask), "an RLE"
    elif isinstance(mask, list | tuple):
        return rasterize_polygons(mask, hw)
    else:
        raise ValueError(f"expected a mask as RLE, polygons or a file, got {reprlib.repr(mask)}")
    if found.shape != tuple(hw):
        raise ValueError(f"expected a mask of the image's size (H, W) {tuple(hw)!r}, got {name} of {found.shape!r}")
    return found


def _compress_runs(counts: IntArray) -> bytes:
    """Write counts as COCO does: from the fourth on as the difference to the one two before, six bits a letter."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    shifts = 5 * np.arange(_MAX_GROUPS)
    # k letters hold the range [-2^(5k-1), 2^(5k-1)); folding negative numbers over leaves one comparison
    folded = np.where(values < 0, ~values, values)
    letters_needed = 1 + (folded[:, None] >> (shifts[1:] - 1) != 0).sum(axis=1)
    position = np.arange(_MAX_GROUPS)
    letters = (values[:, None] >> shifts) & 0x1F
    letters |= np.where(position < letters_needed[:, None] - 1, 0x20, 0)
    return (letters + 48)[position < letters_needed[:, None]].astype(np.uint8).tobytes()


def checked_size(rle: Mapping[str, object]) -> tuple[int, int]:
    """The ``size`` of run lengths, (height, width); ValueError if it is not one."""
    size = rle.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ValueError(f"expected an RLE with a size [H, W], got {reprlib.repr(size)}")
    return _checked_hw(cast("tuple[int, int]", tuple(size)))


def _checked_hw(hw: tuple[SupportsInt, SupportsInt]) -> tuple[int, int]:
    """A mask's (height, width) of 1 to MAX_PIXELS pixels; ValueError for any other."""
    height, width = hw
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in hw)
    if not whole or int(height) < 1 or int(width) < 1 or int(height) * int(width) > MAX_PIXELS:
        raise ValueError(f"expected a mask size (H, W) of 1 to {MAX_PIXELS} pixels, got {reprlib.repr(hw)}")
    return int(height), int(width)


def _decompress(text: bytes, num_pixels: int) -> IntArray:
    letters = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if letters.size == 0 or letters.size > _MAX_GROUPS * (num_pixels + 2):
        raise ValueError(f"expected RLE counts for {num_pixels} pixels, got a string of {letters.size} letters")
    ends = np.flatnonzero((letters & 0x20) == 0)
    if letters.min() < 0 or letters.max() > 63 or ends.size == 0 or ends[-1] != letters.size - 1:
        raise ValueError(f"expected a compressed RLE string, got {reprlib.repr(text)}; write it again")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise ValueError(f"expected RLE counts of at most {MAX_PIXELS}, got {reprlib.repr(text)}; write it again")
    place = np.arange(letters.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((letters & 0x1F) << (5 * place), starts)
    values -= np.where(letters[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _plain_counts(counts: Sequence[object] | NDArray[np.generic]) -> IntArray:
    try:
        array = np.asarray(counts)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"expected RLE counts as whole numbers, got {reprlib.repr(counts)}") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"expected RLE counts as whole numbers, got {reprlib.repr(counts)}")
    return np.minimum(array, 2 * MAX_PIXELS).astype(np.int64)


def _points(polygon: Sequence[float]) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"expected a polygon as numbers [x, y, x, y, ...], got {reprlib.repr(polygon)}") from error
    if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2:
        raise ValueError(f"expected a polygon [x, y, x, y, ...] of at least three points, got {reprlib.repr(polygon)}")
    if not (np.abs(numbers) <= _MAX_COORDINATE).all():  # also False for NaN
        raise ValueError(f"expected polygon coordinates in pixels within a million, got {reprlib.repr(polygon)}")
    return numbers.reshape(-1, 2)


def _fill(mask: BoolMask, points: NDArray[np.float64]) -> None:
    """Set the pixels of one polygon, points [n, 2], in ``mask``, by counting border crossings down each column."""
    height, width = mask.shape
    columns, rows = [], []
    for x, y in _walk_border((points * _FINE + 0.5).astype(np.int64)):
        left, top = np.minimum(x[1:], x[:-1]), np.minimum(y[1:], y[:-1])
        column, offset = np.divmod(left, _FINE)
        crossed = (x[1:] != x[:-1]) & (offset == _FINE // 2) & (column >= 0) & (column < width)
        columns.append(column[crossed])
        rows.append(np.clip((top[crossed] + _FINE // 2) // _FINE, 0, height))
    column, row = np.concatenate(columns), np.concatenate(rows)
    if column.size == 0:
        return
    left, right = int(column.min()), int(column.max()) + 1
    shape = (right - left, height + 1)
    crossings = np.bincount((column - left) * shape[1] + row, minlength=shape[0] * shape[1]).reshape(shape)
    inside = np.bitwise_xor.accumulate((crossings & 1).astype(np.bool_), axis=1)
    mask[:, left:right] |= inside[:, :-1].T


def _walk_border(corners: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield x and y of every point on the digital lines between corners [n, 2], some edges at a time."""
    ends = np.roll(corners, -1, axis=0)
    length = np.abs(ends - corners).max(axis=1)
    corners, ends, length = corners[length > 0], ends[length > 0], length[length > 0]
    if (total := int(length.sum())) > _MAX_BORDER:
        most = _MAX_BORDER // _FINE
        raise ValueError(
            f"expected a polygon with a border of at most {most} pixels, got {total // _FINE}; simplify it"
        )
    steep = np.abs(ends - corners).argmax(axis=1) == 1  # of equal run and rise the run leads
    lead, side = np.where(steep, 1, 0), np.where(steep, 0, 1)
    edges = np.arange(len(corners))
    turned = corners[edges, lead] > ends[edges, lead]  # a line has the same points from either end
    begin, end = np.where(turned[:, None], ends, corners), np.where(turned[:, None], corners, ends)
    slope = (end - begin)[edges, side] / np.maximum(length, 1)
    for part in np.split(edges, np.flatnonzero(np.diff(np.cumsum(length) // _BORDER_AT_ONCE)) + 1):
        edge = np.repeat(part, length[part] + 1)
        step = np.arange(edge.size) - np.repeat(np.cumsum(length[part] + 1) - length[part] - 1, length[part] + 1)
        step = np.where(turned[edge], length[edge] - step, step)
        along = begin[edge, lead[edge]] + step
        across = (begin[edge, side[edge]] + slope[edge] * step + 0.5).astype(np.int64)
        yield np.where(steep[edge], across, along), np.where(steep[edge], along, across)


def _trace_rings(mask: BoolMask) -> list[NDArray[np.int64]]:
    """Return the closed pixel-edge rings [n, 2] of (x, y) corners, the mask on the right hand of the walk."""
    padded = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for shift, start, step in (
        ((-1, 0), (0, 0), (1, 0)),  # border above a pixel: walk east along its top
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    ):
        neighbour = np.roll(padded, (-shift[0], -shift[1]), axis=(0, 1))[1:-1, 1:-1]
        rows, columns = np.nonzero(mask & ~neighbour)
        for x, y in zip((columns + start[0]).tolist(), (rows + start[1]).tolist(), strict=True):
            steps.setdefault((x, y), []).append(step)
    rings = []
    while steps:
        rings.append(_walk(steps))
    return rings


def _walk(steps: dict[tuple[int, int], list[tuple[int, int]]]) -> NDArray[np.int64]:
    """Take one ring out of ``steps``, keeping corners only; where two ways part, turn right (stay on the pixel)."""
    here = begin = next(iter(steps))
    last = (0, 0)
    corners: list[tuple[int, int]] = []
    while True:
        ways = steps[here]
        right = (-last[1], last[0])
        step = right if right in ways else ways[0]
        ways.remove(step)
        if not ways:
            del steps[here]
        if step != last:
            corners.append(here)
        here, last = (here[0] + step[0], here[1] + step[1]), step
        if here == begin and (here not in steps or (-last[1], last[0]) not in steps[here]):
            return np.array(corners, dtype=np.int64)


def _signed_area(ring: NDArray[np.int64]) -> float:
    """Return the area in pixels, positive for an outline and negative for a hole."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def _encloses(outline: NDArray[np.int64], hole: NDArray[np.int64]) -> bool:
    """Return whether the pixel below the hole's topmost, leftmost corner lies inside the outline."""
    x, y = hole[np.lexsort((hole[:, 0], hole[:, 1]))[0]] + 0.5
    a, b = outline, np.roll(outline, -1, axis=0)
    crossed = (a[:, 1] > y) != (b[:, 1] > y)  # corners only: every crossed edge is vertical
    return bool((crossed & (a[:, 0] > x)).sum() % 2)
