"""Columns of numbers and texts in one flat file that is mapped into memory: nothing in it is run or unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deixis.data.annotation_fields import shorten
from deixis.files import atomic_write

Columns = dict[str, NDArray[Any]]

_ALIGNMENT = 64
_MAX_ROWS = 2**40


class Texts:
    """Texts of any length one behind the other in UTF-8; ``ends`` [n + 1] tells where each starts and the next."""

    def __init__(self, letters: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        check_starts(starts, len(starts) - 1, len(letters))
        self._letters, self._starts = letters, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        return self._letters[int(self._starts[index]) : int(self._starts[index + 1])].tobytes().decode("utf-8")


def pack_texts(texts: Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Letters and starts for `Texts`; ValueError for a text that has no UTF-8."""
    encoded = [text.encode("utf-8") for text in texts]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), starts


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Write the columns, whole or not at all; where each one starts, in bytes."""
    starts: dict[str, int] = {}
    with atomic_write(path) as file:
        for name, column in columns.items():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            starts[name] = file.tell()
            file.write(np.ascontiguousarray(column).data)
        file.write(b"\0")  # a file of nothing cannot be mapped
    return starts


def read_columns(path: Path, table: object, schema: Mapping[str, tuple[str, int]]) -> Columns:
    """Map the columns of a file, read-only.

    Args:
        path: what `write_columns` wrote.
        table: by name [start in bytes, rows], as a stranger's file states it.
        schema: by name the type and how many numbers a row has; 0 for a row that is a number.

    Raises:
        ValueError: a column is missing or does not lie inside the file.
    """
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    entries = cast("dict[str, object]", table if isinstance(table, dict) else {})
    columns: Columns = {}
    for name, (kind, width) in schema.items():
        start, rows = _place(entries.get(name), name)
        size = rows * max(width, 1) * np.dtype(kind).itemsize
        if start % np.dtype(kind).itemsize or start + size > len(whole):
            raise ValueError(f"expected the column {name!r} inside of {len(whole)} bytes, got {start} and {size} more")
        column = np.asarray(whole[start : start + size]).view(kind)
        columns[name] = column.reshape(rows, width) if width else column
    return columns


def check_starts(starts: NDArray[np.int64], rows: int, end: int) -> None:
    """ValueError unless ``starts`` [rows + 1] run from 0 to ``end`` and never back."""
    if rows < 0 or len(starts) != rows + 1 or starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 0).any():
        raise ValueError(f"expected {rows} starts from 0 to {end}, got others")


def check_places(places: NDArray[Any], count: int, *, least: int = 0) -> None:
    """ValueError unless all numbers are at least ``least`` and below ``count``."""
    if places.size and not least <= int(places.min()) <= int(places.max()) < count:
        raise ValueError(f"expected places of {least} to {count - 1}, got {places.min()} to {places.max()}")


def _place(entry: object, name: str) -> tuple[int, int]:
    if isinstance(entry, list) and len(entry) == 2 and all(type(v) is int and 0 <= v < _MAX_ROWS for v in entry):
        return cast("tuple[int, int]", tuple(entry))
    raise ValueError(f"expected the column {name!r} as [start, rows], got {shorten(entry)}")
