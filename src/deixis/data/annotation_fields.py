"""Fields that annotation files share, checked: ids, words, numbers, boxes, masks. An error says what came."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from deixis.geometry.masks import decode_rle, encode_rle
from deixis.structures import BoxXyxy, Mask, Rle

Key = int | str
"""An id: a whole number, or text."""
Record = dict[str, object]
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


def record_of(value: object) -> Record:
    """The value if it is a JSON object; ValueError for others."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {shorten(value)}; correct it")
    return cast(Record, value)


def read_key(record: Record, name: str) -> Key:
    """The id that a record states as ``name``: a whole number, also one in quotes, or text; ValueError for others."""
    value = record.get(name)
    if isinstance(value, str) and 0 < len(value) < 100 and value.isprintable():
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError(f"expected an id as {name!r}, got {shorten(value)}; correct it")
    return value


def read_name(record: Record, name: str) -> str:
    """The id that a record states as ``name``, as it stands there, leading zeros and all; ValueError for others."""
    key = read_key(record, name)
    return str(record[name]) if isinstance(record[name], str) else str(key)


def read_words(record: Record, name: str) -> str:
    """The text that a record states as ``name``; ValueError where it has no words or cannot be written as UTF-8."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip() or has_half_letters(value):
        raise ValueError(f"expected words as {name!r}, got {shorten(value)}; add them or drop it")
    return value


def words_or_none(value: object) -> str | None:
    """The text if it has words; None for everything else."""
    return value if isinstance(value, str) and value.strip() else None


def check_phrase(phrase: object) -> str:
    """Text with words that can be written as UTF-8; ValueError for others."""
    if not isinstance(phrase, str) or not phrase.strip() or has_half_letters(phrase):
        raise ValueError(f"expected a phrase with words, got {shorten(phrase)}; write one or drop it")
    return phrase


def safe_name(value: object) -> str:
    """A file name as an annotation states it, relative and without steps upwards; ValueError for others."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"expected a file name, got {shorten(value)}; name the image's file")
    path = Path(value)
    if path.is_absolute() or ".." in path.parts or has_half_letters(value):
        raise ValueError(f"expected a file name below the folder of images, got {shorten(value)}; correct it")
    return value


def clip_to(hw: tuple[int, int], box: BoxXyxy) -> BoxXyxy:
    """The part of a box inside an image of ``hw`` (height, width); ValueError where nothing is left."""
    height, width = hw
    cut = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise ValueError(
            f"expected a bbox with an area inside the image of {width} x {height} pixels, got (x1, y1, x2, y2) "
            f"{box!r}; correct or drop it"
        )
    return cut


def box_around(boxes: Iterable[BoxXyxy]) -> BoxXyxy | None:
    """The smallest box that holds all of them; None for no box."""
    edges = list(zip(*boxes, strict=True))
    if not edges:
        return None
    x1, y1, x2, y2 = edges
    return min(x1), min(y1), max(x2), max(y2)


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
