"""Fields that annotation files share, checked: numbers, boxes, masks. An error says what came."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from deixis.geometry.masks import decode_rle, encode_rle
from deixis.structures import BoxXyxy, Mask, Rle

MAX_SIDE = 10**6
"""A side of an image in pixels that is still believed."""
_SHOWN = 80


def parse_json(text: str, *, unique_keys: bool = False) -> object:
    """JSON text as Python values.

    Args:
        text: what is to be parsed.
        unique_keys: whether to refuse objects that name a key twice, of which the last would be taken.

    Raises:
        ValueError: it is no JSON, nested too deep to parse, or names a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object if unique_keys else None)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"expected each key once, got {shorten(twice)} twice; leave one out")
    return found


def has_half_letters(text: str) -> bool:
    """Whether there are halves of surrogate pairs in it, which JSON can state and UTF-8 cannot."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def shorten(value: object) -> str:
    """``repr(value)``, cut to one readable line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def four_numbers(value: object, what: str) -> BoxXyxy:
    """A list of four finite numbers as floats; ``what`` names it in the ValueError, such as "a box [x, y, w, h]"."""
    if isinstance(value, list | tuple) and len(value) == 4 and all(_is_finite(v) for v in value):
        x, y, z, w = value
        return float(x), float(y), float(z), float(w)
    raise ValueError(f"expected {what} of four finite numbers, got {shorten(value)}; correct it")


def stated_hw(record: Mapping[str, object]) -> tuple[int, int] | None:
    """(height, width) as a record states them, also as text, which MDETR's files have; None where they are no sizes."""
    sides = [
        int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value
        for value in (record.get("height"), record.get("width"))
    ]
    if all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
        return cast(tuple[int, int], tuple(sides))
    return None


def mask_from_json(value: object, folder: Path | None = None) -> Mask:
    """A mask as files state it: RLE (plain counts are compressed), polygons, or a file's name relative to ``folder``.

    The shape is checked, the pixels are not drawn. ``folder`` None allows no file.

    Raises:
        ValueError: it is none of these, a polygon has under three points or an odd or non-finite coordinate.
    """
    if isinstance(value, str) and folder is not None and value.strip():
        return folder / value
    if isinstance(value, dict):
        return _run_lengths(value)
    if isinstance(value, list) and value:
        return [_polygon(polygon) for polygon in value]
    allowed = "RLE, polygons" if folder is None else "RLE, polygons or a file name"
    raise ValueError(f"expected a mask as {allowed}, got {shorten(value)}; correct it or leave it out")


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9 and math.isfinite(value)


def _polygon(value: object) -> list[float]:
    shaped = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    if shaped and all(_is_finite(v) for v in cast(list[object], value)):
        return [float(v) for v in cast(list[float], value)]
    raise ValueError(f"expected a polygon [x, y, x, y, ...] of three or more finite points, got {shorten(value)}")


def _run_lengths(value: dict[object, object]) -> Rle:
    size, counts = value.get("size"), value.get("counts")
    whole = isinstance(size, list) and len(size) == 2 and all(type(v) is int and v > 0 for v in size)
    if whole and isinstance(counts, str):
        return {"size": cast(list[int], size), "counts": counts}
    if whole and isinstance(counts, list):
        return encode_rle(decode_rle(cast(dict[str, object], value)))
    raise ValueError(f"expected RLE with size [height, width] and counts, got {shorten(value)}; correct or drop it")
