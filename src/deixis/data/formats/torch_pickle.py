"""Plain values out of the files that ``torch.save`` writes, read as data: nothing in them is run.

Both forms are known: the zip archive, and the row of pickles that torch wrote before 1.6, as the older copies are.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from deixis.data.annotation_fields import shorten
from deixis.data.formats.restricted_pickle import MAX_BYTES, read_pickle

_OLD_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""What the older form starts with: two pickles, its magic number and its version."""
_OLD_TAIL = b"\x80\x02]q\x00."
"""What it ends with where no tensors follow."""
_LONGEST_HEAD = 4096
_ASKED = re.compile(r"GLOBAL ([\w.]+)")
_KNOWN_FOREIGN = ("numpy.", "torch.")


def read_torch_pickle(path: str | Path) -> object:
    """Return what a .pth file holds: lists, tuples, dicts, text and numbers, and arrays of numbers.

    Plain values are read without torch. Where the file asks for arrays of numpy or torch, torch's own reader takes
    it with ``weights_only``, which runs nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or holds other than values; the sentence names what it asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a .pth file, got {str(path)!r}, which is no file; check the path")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes in {str(path)!r}, got more; check what file it is")
    data = path.read_bytes()
    try:
        return read_pickle(_object_of(data, path), str(path))
    except ValueError as error:
        if any(f"asks for '{name}" in str(error) for name in _KNOWN_FOREIGN):
            return _with_arrays(path)
        raise


def _object_of(data: bytes, path: Path) -> bytes:
    """The pickle of the value itself."""
    if data[:2] == b"PK":
        return _from_zip(path)
    if not data.startswith(_OLD_HEAD):
        return data  # a bare pickle
    body = data[len(_OLD_HEAD) :]
    try:
        *_, (_, _, end) = pickletools.genops(body[:_LONGEST_HEAD])
    except ValueError:
        raise ValueError(f"expected a whole .pth file in {str(path)!r}, got a torn one; get it again") from None
    return body[(end or 0) + 1 :].removesuffix(_OLD_TAIL)


def _from_zip(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(names) != 1:
                raise ValueError(f"expected one data.pkl in {str(path)!r}, got {len(names)}; check what file it is")
            if archive.getinfo(names[0]).file_size > MAX_BYTES:
                raise ValueError(f"expected at most {MAX_BYTES} bytes in {str(path)!r}, got more; check the file")
            with archive.open(names[0]) as file:
                return file.read(MAX_BYTES)
    except ValueError as error:
        if isinstance(error, UnicodeError):  # a member's name
            raise ValueError(f"expected a whole .pth file in {str(path)!r}, got a torn one; get it again") from error
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(
            f"expected a whole .pth file in {str(path)!r}, got a torn one ({error}); get it again"
        ) from error


def _with_arrays(path: Path) -> object:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_names()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader raises nearly everything on damaged files
        asked = _ASKED.search(str(error))
        why = f"a pickle that asks for {asked[1]!r}" if asked else f"something else ({shorten(str(error))})"
        raise ValueError(
            f"expected only values and arrays in {str(path)!r}, got {why}, which was not done; do not trust this file, "
            "get another copy"
        ) from error


def _numpy_names() -> list[Any]:
    """What arrays and numbers of numpy are made with, under the names of numpy 1 and 2."""
    import numpy as np

    core = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray  # type: ignore[attr-defined]
    names: list[Any] = [np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names += [(core._reconstruct, f"{module}._reconstruct"), (core.scalar, f"{module}.scalar")]
    return names + [type(np.dtype(letter)) for letter in "bhilqBHILQefd?"]
