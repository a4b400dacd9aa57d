"""COCO run lengths as numbers: read, written, and measured without drawing a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import SupportsInt, cast

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.images import MAX_PIXELS

IntArray = NDArray[np.int64]

_MAX_GROUPS = 7  # characters a count: 35 bits, enough for any difference of two counts up to MAX_PIXELS


def run_lengths(rle: Mapping[str, object]) -> IntArray:
    """The runs of a COCO run-length mask, column-major, unset and set in turn, beginning with unset.

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
        raise ValueError(f"expected RLE counts as a string or a list of whole numbers, got {short_repr(counts)}")
    if runs.size == 0 or runs.min() < 0 or runs.max() > MAX_PIXELS or int(runs.sum()) != height * width:
        raise ValueError(
            f"expected RLE counts of at least 0 that add up to {height} x {width}, got {short_repr(runs.tolist())}"
        )
    return runs


def area_of_runs(runs: IntArray) -> int:
    """How many pixels are set."""
    return int(runs[1::2].sum())


def overlap_of_runs(a: IntArray, b: IntArray) -> int:
    """How many pixels are set in both of two masks of one size."""
    edges = np.cumsum(a)
    edges = edges[: edges.size - edges.size % 2]  # where the set runs of a begin and end, in turn
    ends = np.cumsum(b)
    is_set = np.arange(b.size) % 2
    set_before = np.cumsum(b * is_set) - b * is_set
    run = np.minimum(np.searchsorted(ends, edges, side="left"), b.size - 1)
    reached = set_before[run] + (edges - (ends - b)[run]) * is_set[run]
    return int(reached[1::2].sum() - reached[::2].sum())


def compress_runs(counts: IntArray) -> bytes:
    """Write counts in COCO's way: from the fourth on as the difference to the one two before, six bits a letter."""
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
    """The ``size`` of run lengths, (height, width); ValueError where it is none."""
    size = rle.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ValueError(f"expected an RLE with a size [H, W], got {short_repr(size)}")
    return checked_hw(cast("tuple[int, int]", tuple(size)))


def checked_hw(hw: tuple[SupportsInt, SupportsInt]) -> tuple[int, int]:
    """A mask's (height, width) of 1 to MAX_PIXELS pixels; ValueError for others."""
    height, width = hw
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in hw)
    if not whole or int(height) < 1 or int(width) < 1 or int(height) * int(width) > MAX_PIXELS:
        raise ValueError(f"expected a mask size (H, W) of 1 to {MAX_PIXELS} pixels, got {short_repr(hw)}")
    return int(height), int(width)


def short_repr(value: object) -> str:
    """``repr(value)``, cut to one readable line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _decompress(text: bytes, num_pixels: int) -> IntArray:
    letters = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if letters.size == 0 or letters.size > _MAX_GROUPS * (num_pixels + 2):
        raise ValueError(f"expected RLE counts for {num_pixels} pixels, got a string of {letters.size} letters")
    ends = np.flatnonzero((letters & 0x20) == 0)
    if letters.min() < 0 or letters.max() > 63 or ends.size == 0 or ends[-1] != letters.size - 1:
        raise ValueError(f"expected a compressed RLE string, got {short_repr(text)}; write it anew")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise ValueError(f"expected RLE counts of at most {MAX_PIXELS}, got {short_repr(text)}; write it anew")
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
        raise ValueError(f"expected RLE counts as whole numbers, got {short_repr(counts)}") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"expected RLE counts as whole numbers, got {short_repr(counts)}")
    return np.minimum(array, 2 * MAX_PIXELS).astype(np.int64)
