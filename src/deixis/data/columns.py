"""Columns of numbers and texts, one ``.npy`` file each in a folder that is mapped into memory: nothing in it is run.

``head.json`` beside them holds what is not a column, and a checksum of the columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.data.annotation_fields import parse_json
from deixis.files import atomic_folder

Columns = dict[str, NDArray[Any]]
HEAD = "head.json"
_BLOCK_BYTES = 1 << 24
_MAX_HEAD_BYTES = 1 << 28


class Texts:
    """Texts of any length in UTF-8, one behind the other; ``starts`` [n + 1] says where each starts."""

    def __init__(self, letters: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        check_starts(starts, len(starts) - 1, len(letters))
        self._letters, self._starts = letters, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        letters = self._letters[int(self._starts[index]) : int(self._starts[index + 1])]
        return letters.tobytes().decode("utf-8", "surrogateescape")


def write_columns(folder: Path, columns: Mapping[str, NDArray[Any]], head: Mapping[str, object]) -> None:
    """Write a folder of columns, which replaces an earlier one.

    Raises:
        OSError: the folder cannot be written.
    """
    with atomic_folder(folder) as fresh:
        for name, column in columns.items():
            np.save(fresh / f"{name}.npy", column, allow_pickle=False)
        digest = checksum(*(fresh / f"{name}.npy" for name in sorted(columns)))
        (fresh / HEAD).write_text(json.dumps({**head, "sha256": digest}), encoding="utf-8")


def read_columns(folder: Path, schema: Mapping[str, tuple[str, int]]) -> tuple[Columns, dict[str, Any]]:
    """Map the columns of a folder, read-only, and read its head.

    Args:
        folder: what `write_columns` wrote.
        schema: by name the type and how many numbers a row has; 0 for a row that is a number.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the columns are not those that were written, or of another kind.
    """
    if (folder / HEAD).stat().st_size > _MAX_HEAD_BYTES:
        raise ValueError(f"expected a head of at most {_MAX_HEAD_BYTES} bytes, got more")
    head = parse_json((folder / HEAD).read_text(encoding="utf-8"))
    if not isinstance(head, dict) or head.get("sha256") != checksum(*(folder / f"{one}.npy" for one in sorted(schema))):
        raise ValueError("expected the columns as they were written, got other bytes")
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in schema}
    for name, (kind, width) in schema.items():
        column = columns[name]
        if column.dtype != np.dtype(kind) or column.shape[1:] != ((width,) if width else ()) or column.ndim < 1:
            raise ValueError(f"expected {kind} of {width} a row in {name!r}, got {column.dtype} {column.shape!r}")
    return columns, head


def checksum(*paths: Path) -> str:
    """The SHA-256 of the bytes of some files in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def slices(column: NDArray[Any], starts: NDArray[np.int64], first: int, end: int) -> Iterable[NDArray[Any]]:
    """The parts ``first`` to ``end`` of a column, of which ``starts`` says where each starts."""
    return (column[a:b] for a, b in pairwise(starts[first : end + 1].tolist()))


def check_starts(starts: NDArray[np.int64], rows: int, end: int) -> None:
    """ValueError unless ``starts`` [rows + 1] run from 0 to ``end`` and never back."""
    if rows < 0 or len(starts) != rows + 1 or starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 0).any():
        raise ValueError(f"expected {rows} starts from 0 to {end}, got others")


def check_places(places: NDArray[Any], count: int, *, least: int = 0) -> None:
    """ValueError unless all numbers are at least ``least`` and below ``count``."""
    if places.size and not least <= int(places.min()) <= int(places.max()) < count:
        raise ValueError(f"expected places of {least} to {count - 1}, got {places.min()} to {places.max()}")
