"""Pickles read as data: lists, dicts, tuples, text, numbers. Whatever would load or call anything is refused by name.

The files refs(unc).p of the `refer` release are Python-2 pickles from strangers, and .pth files hold pickles too. They
go through Python's own unpickler in its Python form, which knows only the opcodes of plain values here. Its C form
would not do, even with a closed ``find_class``: a memo index of four bytes makes it allocate gigabytes, and hashing a
dict key of nested tuples can crash or stall it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from deixis.data.annotation_fields import shorten

MAX_BYTES = 128 * 2**20
"""The largest file that is read; the releases take less than half of it."""
MAX_STEPS = 20_000_000
"""The most opcodes of a file: three times what 142,210 expressions take in protocol 0, and under 2 GB at the worst."""
_ALLOWED = {
    *("STOP", "PROTO", "FRAME", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("GLOBAL", "INST", "STACK_GLOBAL"),
}
"""The last three only ask for a name, which `_Plain.find_class` refuses."""
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_DEEDS = {
    **dict.fromkeys(("REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"), "a call"),
    "BUILD": "an object's state to be set",
    **dict.fromkeys(("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"), "an object kept outside the file"),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "a class registered with copyreg"),
    **dict.fromkeys(("EMPTY_SET", "ADDITEMS", "FROZENSET"), "a set"),
    "BYTEARRAY8": "a bytearray",
    "BINBYTES8": "bytes",
}
"""What the refused opcodes ask for."""

_OLD_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""What a .pth file from before torch 1.6 starts with: two pickles, its magic number and its version."""
_OLD_TAIL = b"\x80\x02]q\x00."
"""What it ends with where no tensors follow."""
_LONGEST_HEAD = 4096
_ASKED = re.compile(r"GLOBAL ([\w.]+)")


class RefusedError(ValueError):
    """A pickle asks for more than plain values; ``wanted`` is the name of what it asked for."""

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.wanted = wanted


def load_refs(path: str | Path) -> list[dict[str, object]]:
    """Read the referents of a file refs(unc|google|umd|berkeley).p, in the file's order.

    A Python-2 string is read as UTF-8 where it is valid UTF-8, else as Latin-1. Pickles of every protocol are read.
    The values may be shared or contain themselves, as pickles can say it; go through them no deeper than expected.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no whole pickle, holds other than plain values (the sentence names what it asked for), is
            larger than `MAX_BYTES` or longer than `MAX_STEPS`, or is no list of dicts.
    """
    path = Path(path)
    value = read_pickle(_read_bytes(path, "a pickle of referents"), str(path))
    if not isinstance(value, list):
        raise ValueError(f"expected a list of referents in {str(path)!r}, got {type(value).__name__}; check the file")
    for number, ref in enumerate(value):
        if not isinstance(ref, dict):
            raise ValueError(
                f"expected a dict as each referent in {str(path)!r}, got {type(ref).__name__} at place {number}; "
                "check the file"
            )
    return cast("list[dict[str, object]]", value)


def read_pickle(data: bytes, name: str) -> object:
    """Return the plain value that a pickle holds; ``name`` stands for it in the ValueErrors that `load_refs` lists."""
    file = io.BytesIO(data)
    try:
        value = _Plain(file).load()
        if rest := file.read().strip():
            raise ValueError(f"{len(rest)} more bytes follow its end")
    except RefusedError as error:
        error.args = (
            f"expected only lists, dicts, text and numbers in {name!r}, got a pickle that asks for {error.wanted}, "
            "which was not done; do not trust this file, get another copy",
        )
        raise
    except EOFError:
        raise ValueError(f"expected a whole pickle in {name!r}, got one that breaks off; get the file again") from None
    except Exception as error:  # on damaged data it raises nearly everything
        why = shorten(str(error) or type(error).__name__)
        raise ValueError(f"expected a pickle in {name!r}, got a broken one ({why}); get it again") from error
    return value


def read_torch_pickle(path: str | Path) -> object:
    """Return what a .pth file holds: lists, tuples, dicts, text and numbers, and arrays of numbers.

    Both forms are read: the zip archive, and the row of pickles that torch wrote before 1.6. Plain values are read
    without torch. Where the file asks for arrays of numpy or torch, torch's own reader takes it with
    ``weights_only``, which runs nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or holds other than values; the sentence names what it asked for.
    """
    path = Path(path)
    data = _read_bytes(path, "a .pth file")
    try:
        return read_pickle(_object_of(data, path), str(path))
    except RefusedError as error:
        if error.wanted.startswith(("'numpy.", "'torch.")):
            return _with_arrays(path)
        raise


class _Steps(dict[int, Callable[[Any], None]]):
    """The unpickler's steps by opcode: counts them, and refuses the unknown ones."""

    left = MAX_STEPS

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"more than {MAX_STEPS} opcodes")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Callable[[Any], None]:
        name = _NAMES.get(code)
        if name is None:
            raise ValueError(f"{bytes([code])!r} is no opcode")
        raise RefusedError(f"{_DEEDS.get(name, name)} ({name})")


class _Plain(pickle._Unpickler):  # type: ignore[name-defined]
    """Reads plain values; a dict's keys are text and whole numbers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        known = {code: step for code, step in super().dispatch.items() if _NAMES.get(code) in _ALLOWED}
        self.dispatch = _Steps(known)  # pyright: ignore[reportAttributeAccessIssue]
        self.dispatch.left = MAX_STEPS
        for opcode, step in (
            (pickle.BINBYTES, known[pickle.BINSTRING[0]]),  # Python 3 writes a Python-2 string as bytes again
            (pickle.SHORT_BINBYTES, known[pickle.SHORT_BINSTRING[0]]),
            (pickle.SETITEM, _checking(known[pickle.SETITEM[0]], lambda stack: stack[-2:-1])),
            (pickle.SETITEMS, _checking(known[pickle.SETITEMS[0]], lambda stack: stack[::2])),
            (pickle.DICT, _checking(known[pickle.DICT[0]], lambda stack: stack[::2])),
        ):
            self.dispatch[opcode[0]] = step

    def find_class(self, module: str, name: str) -> object:
        """Refuse every name."""
        raise RefusedError(shorten(f"{module}.{name}"))

    def _decode_string(self, value: bytes) -> str:
        """A Python-2 string as text."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")


def _checking(step: Callable[[Any], None], keys: Callable[[list[object]], list[object]]) -> Callable[[Any], None]:
    """The step, with a check of the keys on the stack: to hash nested tuples can take for ever."""

    def checked(reader: Any) -> None:  # noqa: ANN401
        for key in keys(reader.stack):
            if type(key) is not str and type(key) is not int:
                raise ValueError(f"a {type(key).__name__} as key")
        step(reader)

    return checked


def _read_bytes(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"expected {what}, got {str(path)!r}, which is no file; check the path")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes in {str(path)!r}, got {size}; check what file it is")
    return path.read_bytes()


def _object_of(data: bytes, path: Path) -> bytes:
    """The pickle of the value itself in a .pth file."""
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
            sizes = [archive.getinfo(name).file_size for name in names]
            if len(names) == 1 and sizes[0] <= MAX_BYTES:
                with archive.open(names[0]) as file:
                    return file.read(MAX_BYTES)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"expected a whole .pth file in {str(path)!r}, got a torn one ({error}); get it again"
        ) from error
    raise ValueError(
        f"expected one data.pkl of at most {MAX_BYTES} bytes in {str(path)!r}, got {sizes!r}; check what file it is"
    )


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
