"""Prediction files: ``{"id", "box": [...] | null, "mask"?, "found"?}`` a line, whatever model wrote them.

A line with neither box nor mask says nothing; a null box and no mask say that the phrase means nothing in the image,
if ``found`` does not say otherwise. Further keys are passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from deixis.data.annotation_fields import four_numbers, mask_from_json, parse_json, shorten
from deixis.geometry.boxes import xyxy_from_cxcywh, xyxy_from_xywh
from deixis.structures import BoxXyxy, Mask

BOX_FORMATS = ("xyxy", "xywh", "cxcywh")
UNITS = ("pixel", "normalised")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class BoxForm:
    """How a file writes its boxes."""

    format: str = "xyxy"
    """Out of `BOX_FORMATS`: corners, corner and size, or centre and size."""
    units: str = "pixel"
    """Out of `UNITS`: pixels of the original image, or fractions of its width and height."""

    def __post_init__(self) -> None:
        for name, value, known in (("format", self.format, BOX_FORMATS), ("units", self.units, UNITS)):
            if value not in known:
                raise ValueError(f"expected {name} of boxes out of {known}, got {value!r}; choose one of these")

    def to_pixels(self, box: BoxXyxy, hw: tuple[int, int] | None) -> BoxXyxy:
        """A box as the file writes it as (x1, y1, x2, y2) in pixels.

        Raises:
            ValueError: it is normalised, and the size of the image is not known.
        """
        if self.format == "xyxy" and self.units == "pixel":
            return box
        values = np.array(box)
        if self.format != "xyxy":
            values = (xyxy_from_xywh if self.format == "xywh" else xyxy_from_cxcywh)(values)
        if self.units == "normalised":
            if hw is None:
                raise ValueError("expected the image, to know its size for a normalised box, got none; put it there")
            values = values * np.array([hw[1], hw[0], hw[1], hw[0]])
        x1, y1, x2, y2 = values.tolist()
        return x1, y1, x2, y2


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the file; ``error`` says why it cannot be used, ``id`` is None where not even that can be read."""

    number: int
    id: str | None = None
    box: BoxXyxy | None = None
    """As the file writes it."""
    mask: Mask | Mapping[str, object] | None = None
    found: bool = True
    says: bytes = b""
    """Equal for lines that say the same."""
    error: str | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a prediction file, one by one; blank lines are passed over.

    Masks in files are only read from the file's own folder and the folders in it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of predictions, got {str(path)!r}, which is no file; check the path")
    folder = path.parent.resolve()
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            text = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
            if text.strip():
                yield _line(text, number, folder)


def _line(text: bytes, number: int, folder: Path) -> Line:
    try:
        record = parse_json(text.decode("utf-8"), unique_keys=True)
        if not isinstance(record, dict):
            raise ValueError(f"expected a JSON object, got {shorten(record)}; write one object a line, not one list")
        name = _id(record)
    except ValueError as error:
        return Line(number=number, error=_sentence(error, text))
    try:
        box, mask = record.get("box"), record.get("mask")
        if "box" not in record and "mask" not in record:
            keys = shorten(list(record))
            raise ValueError(f"expected a 'box' or a 'mask', got the keys {keys}; add one, or null for nothing there")
        box = None if box is None else four_numbers(box, "a box")
        mask = None if mask is None else _mask(mask, folder)
        found = _found(record, box is not None or mask is not None)
    except (ValueError, OSError) as error:
        return Line(number=number, id=name, says=_digest(text), error=str(error))
    shape = mask if isinstance(mask, list) else record.get("mask")
    says = _digest(json.dumps([box, shape, found], sort_keys=True).encode())
    return Line(number=number, id=name, box=box, mask=mask, found=found, says=says)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _id(record: dict[str, object]) -> str:
    key = "id" if "id" in record else "line"  # as `deixis ground --batch` answers lines without ids
    if key not in record:
        raise ValueError(f"expected an 'id', got the keys {shorten(list(record))}; name the sample under 'id'")
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"expected text or a whole number as {key!r}, got {shorten(value)}; correct it")
    return str(value)


def _found(record: dict[str, object], shows: bool) -> bool:
    value = record.get("found")
    if value is None:
        return shows
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false as 'found', got {shorten(value)}; correct it")
    return value


def _mask(value: object, folder: Path) -> Mask | Mapping[str, object]:
    """Run lengths stay as they are, since their size is to be compared before anything is decoded."""
    if isinstance(value, dict):
        return cast(dict[str, object], value)
    if isinstance(value, str):
        return _file_within(value, folder)
    return mask_from_json(value)


def _file_within(name: str, folder: Path) -> Path:
    if not name.strip() or "\0" in name:
        raise ValueError(f"expected the name of a mask's file, got {shorten(name)}; correct it")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"expected a mask's file in the predictions' folder, got {shorten(name)}; move it there")
    return path


def _sentence(error: ValueError, text: bytes) -> str:
    reason = str(error)
    return (
        reason if reason.startswith("expected") else f"expected a JSON object in UTF-8, got {shorten(text)}; correct it"
    )
