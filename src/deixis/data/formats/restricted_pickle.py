"""Pickles read as data: lists, dicts, tuples, text, numbers. What would load or call anything is refused by its name.

The files refs(unc).p of the `refer` release are Python-2 pickles from strangers. The reader below knows the opcodes
that build plain values and no others, so a file cannot run anything, nor take more memory than its size allows.
Python's own unpickler is not used, not even with a closed ``find_class``: a memo index of four bytes makes it
allocate gigabytes, and a dict key of nested tuples can crash or stall it.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from deixis.data.annotation_fields import shorten

MAX_BYTES = 128 * 2**20
"""Largest file that is read; the releases take less than half of it."""
MAX_STEPS = 20_000_000
"""Most opcodes in a file: three times what 142,210 expressions take in protocol 0, and under 2 GB at the very worst."""
MAX_INTEGER_BYTES = 8
_MAX_DIGITS = 24
_NEWEST_PROTOCOL = 5


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
    if not path.is_file():
        raise FileNotFoundError(f"expected a pickle of referents, got {str(path)!r}, which is no file; check the path")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes in {str(path)!r}, got {size}; check what file it is")
    value = read_pickle(path.read_bytes(), str(path))
    if not isinstance(value, list):
        raise ValueError(f"expected a list of referents in {str(path)!r}, got {type(value).__name__}; check the file")
    for number, ref in enumerate(value):
        if not isinstance(ref, dict):
            raise ValueError(
                f"expected a dict as each referent in {str(path)!r}, got {type(ref).__name__} at place {number}; "
                "check the file"
            )
    return cast(list[dict[str, object]], value)


def read_pickle(data: bytes, name: str) -> object:
    """Return the plain value that a pickle holds; ``name`` stands for it in the ValueErrors that `load_refs` lists."""
    return _Reader(data, name).run()


class _Reader:
    """A stack machine for the opcodes in `_STEPS`; Python's pickletools module says what each does.

    A step takes the position behind its opcode and returns that behind its arguments, which is beyond the end of the
    data where these are cut short.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        """The stacks under the open marks."""
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        data, at = self.data, 0
        try:
            for _ in range(MAX_STEPS):
                at = _STEPS[data[at]](self, at + 1)
        except _Stop:
            return self._result(at)
        except _Refused:
            raise self._refusal(at) from None
        except (IndexError, KeyError, ValueError) as error:
            if at + 9 >= len(data) or isinstance(error, _CutShort):  # no fixed arguments are longer than 8 bytes
                raise ValueError(
                    f"expected a whole pickle in {self.name!r}, got one that breaks off after {len(data)} bytes; "
                    "get the file again"
                ) from None
            why = str(error) if isinstance(error, ValueError) else "it uses a value that was never stored"
            raise self._broken(at, why) from error
        raise ValueError(f"expected at most {MAX_STEPS} opcodes in {self.name!r}, got more; check what file it is")

    def close_mark(self) -> list[object]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def line(self, at: int) -> tuple[bytes, int]:
        """The bytes up to the end of the line, and the position behind it."""
        end = self.data.find(b"\n", at)
        if end < 0:
            raise _CutShort
        return self.data[at:end], end + 1

    def _result(self, at: int) -> object:
        if len(self.stack) != 1 or self.below:
            raise self._broken(at, f"it ends with {len(self.stack)} values where one is due")
        if rest := self.data[at + 1 :].strip():
            raise self._broken(at, f"{len(rest)} more bytes follow its end")
        return self.stack[0]

    def _refusal(self, at: int) -> ValueError:
        opcode = _OPCODES.get(self.data[at])
        if opcode is None:
            return self._broken(at, f"{self.data[at : at + 12]!r} starts with no opcode")
        name = _NAMES_GIVEN[opcode](self, at + 1) if opcode in _NAMES_GIVEN else None
        wanted = _DEEDS.get(opcode, opcode) if name is None else shorten(name)
        return ValueError(
            f"expected only lists, dicts, text and numbers in {self.name!r}, got a pickle that asks for {wanted} "
            f"({opcode} at byte {at}), which was not done; do not trust this file, get another copy"
        )

    def _broken(self, at: int, why: str) -> ValueError:
        return ValueError(f"expected a pickle in {self.name!r}, got a broken one at byte {at} ({why}); get it again")


class _Stop(Exception):  # noqa: N818
    """The value is complete."""


class _Refused(Exception):  # noqa: N818
    """An opcode that builds no plain value."""


class _CutShort(ValueError):  # noqa: N818
    """The data ends inside an opcode."""


Step = Callable[[_Reader, int], int]


def _stop(reader: _Reader, at: int) -> int:
    raise _Stop


def _refuse(reader: _Reader, at: int) -> int:
    raise _Refused


def _protocol(reader: _Reader, at: int) -> int:
    if reader.data[at] > _NEWEST_PROTOCOL:
        raise ValueError(f"protocol {reader.data[at]}")
    return at + 1


def _mark(reader: _Reader, at: int) -> int:
    reader.below.append(reader.stack)
    reader.stack = []
    return at


def _pop(reader: _Reader, at: int) -> int:
    if reader.stack:
        reader.stack.pop()
    else:
        reader.close_mark()
    return at


def _pop_mark(reader: _Reader, at: int) -> int:
    reader.close_mark()
    return at


def _duplicate(reader: _Reader, at: int) -> int:
    reader.stack.append(reader.stack[-1])
    return at


def _fresh(make: Callable[[], object]) -> Step:
    def step(reader: _Reader, at: int) -> int:
        reader.stack.append(make())
        return at

    return step


def _from_mark(make: Callable[[list[object]], object]) -> Step:
    """Push what is made of the values since the last mark."""

    def step(reader: _Reader, at: int) -> int:
        items = reader.close_mark()
        reader.stack.append(make(items))
        return at

    return step


def _from_line(read: Callable[[bytes], object]) -> Step:
    def step(reader: _Reader, at: int) -> int:
        line, at = reader.line(at)
        reader.stack.append(read(line))
        return at

    return step


def _get(size: int) -> Step:
    """Push what is stored under an index of ``size`` bytes."""

    def step(reader: _Reader, at: int) -> int:
        reader.stack.append(reader.memo[int.from_bytes(reader.data[at : at + size], "little")])
        return at + size

    return step


def _put(size: int) -> Step:
    def step(reader: _Reader, at: int) -> int:
        reader.memo[int.from_bytes(reader.data[at : at + size], "little")] = reader.stack[-1]
        return at + size

    return step


def _get_line(reader: _Reader, at: int) -> int:
    line, at = reader.line(at)
    reader.stack.append(reader.memo[int(line)])
    return at


def _put_line(reader: _Reader, at: int) -> int:
    line, at = reader.line(at)
    reader.memo[int(line)] = reader.stack[-1]
    return at


def _put_next(reader: _Reader, at: int) -> int:
    reader.memo[len(reader.memo)] = reader.stack[-1]
    return at


def _integer(size: int, *, signed: bool = False) -> Step:
    def step(reader: _Reader, at: int) -> int:
        reader.stack.append(int.from_bytes(reader.data[at : at + size], "little", signed=signed))
        return at + size

    return step


def _long(length_size: int) -> Step:
    def step(reader: _Reader, at: int) -> int:
        length = int.from_bytes(reader.data[at : at + length_size], "little")
        if length > MAX_INTEGER_BYTES:
            raise ValueError(f"a whole number of {length} bytes")
        return _integer(length, signed=True)(reader, at + length_size)

    return step


def _decimal(line: bytes) -> int:
    if len(line) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(line)} digits")
    return line == b"01" if line in (b"00", b"01") else int(line.removesuffix(b"L"))


def _real(reader: _Reader, at: int) -> int:
    reader.stack.append(struct.unpack(">d", reader.data[at : at + 8].ljust(8))[0])
    return at + 8


def _unicode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    """A Python-2 string as text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _string(length_size: int, decode: Callable[[bytes], str]) -> Step:
    """Push text whose length stands in ``length_size`` bytes before it."""

    def step(reader: _Reader, at: int) -> int:
        start = at + length_size
        end = start + int.from_bytes(reader.data[at:start], "little")
        if end > len(reader.data):
            raise _CutShort
        reader.stack.append(decode(reader.data[start:end]))
        return end

    return step


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":
        raise ValueError("a string without quotes")
    line = line[1:-1]
    return _text(_ESCAPE.sub(_unescape, line) if b"\\" in line else line)


_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[\s\S]?)")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) == 3:
        return bytes([int(code[1:], 16)])
    if code not in _ESCAPED:
        raise ValueError(f"an escape {match[0]!r} in a string")
    return _ESCAPED[code]


def _append(reader: _Reader, at: int) -> int:
    value = reader.stack.pop()
    _list(reader.stack[-1]).append(value)
    return at


def _appends(reader: _Reader, at: int) -> int:
    items = reader.close_mark()
    _list(reader.stack[-1]).extend(items)
    return at


def _list(target: object) -> list[object]:
    if type(target) is not list:
        raise ValueError(f"something appended to a {type(target).__name__}")
    return target


def _set_item(reader: _Reader, at: int) -> int:
    value, key = reader.stack.pop(), reader.stack.pop()
    _put_into(reader.stack[-1], (key, value))
    return at


def _set_items(reader: _Reader, at: int) -> int:
    items = reader.close_mark()
    _put_into(reader.stack[-1], items)
    return at


def _put_into(target: object, items: Sequence[object]) -> object:
    if type(target) is not dict or len(items) % 2:
        raise ValueError(f"{len(items)} keys and values put into a {type(target).__name__}")
    for i in range(0, len(items), 2):
        key = items[i]
        if type(key) is not str and type(key) is not int:  # to hash nested tuples can take for ever
            raise ValueError(f"a {type(key).__name__} as key")
        target[key] = items[i + 1]
    return target


def _tuple_of(count: int) -> Step:
    def step(reader: _Reader, at: int) -> int:
        items = tuple(reader.stack.pop() for _ in range(count))
        reader.stack.append(items[::-1])
        return at

    return step


_KNOWN: dict[str, Step] = {
    "STOP": _stop,
    "PROTO": _protocol,
    "FRAME": lambda reader, at: at + 8,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _duplicate,
    "NONE": _fresh(lambda: None),
    "NEWTRUE": _fresh(lambda: True),
    "NEWFALSE": _fresh(lambda: False),
    "EMPTY_TUPLE": _fresh(tuple),
    "INT": _from_line(_decimal),
    "LONG": _from_line(_decimal),
    "BININT": _integer(4, signed=True),
    "BININT1": _integer(1),
    "BININT2": _integer(2),
    "LONG1": _long(1),
    "LONG4": _long(4),
    "FLOAT": _from_line(float),
    "BINFLOAT": _real,
    "STRING": _from_line(_quoted),
    "BINSTRING": _string(4, _text),
    "SHORT_BINSTRING": _string(1, _text),
    "BINBYTES": _string(4, _text),  # what Python 3 makes of a Python-2 string when it writes it again
    "SHORT_BINBYTES": _string(1, _text),
    "UNICODE": _from_line(lambda line: line.decode("raw-unicode-escape")),
    "BINUNICODE": _string(4, _unicode),
    "SHORT_BINUNICODE": _string(1, _unicode),
    "BINUNICODE8": _string(8, _unicode),
    "EMPTY_LIST": _fresh(list),
    "LIST": _from_mark(lambda items: items),
    "APPEND": _append,
    "APPENDS": _appends,
    "EMPTY_DICT": _fresh(dict),
    "DICT": _from_mark(lambda items: _put_into({}, items)),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "TUPLE": _from_mark(tuple),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "GET": _get_line,
    "BINGET": _get(1),
    "LONG_BINGET": _get(4),
    "PUT": _put_line,
    "BINPUT": _put(1),
    "LONG_BINPUT": _put(4),
    "MEMOIZE": _put_next,
}
_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_STEPS = [_KNOWN.get(_OPCODES.get(code, ""), _refuse) for code in range(256)]


def _two_lines(reader: _Reader, at: int) -> str:
    module, name, *_ = [*reader.data[at : at + 1000].split(b"\n"), b"", b""]
    return f"{_text(module)}.{_text(name)}"


def _two_values(reader: _Reader, at: int) -> str:
    return ".".join(value if isinstance(value, str) else "?" for value in reader.stack[-2:])


_NAMES_GIVEN: dict[str, Callable[[_Reader, int], str]] = {
    "GLOBAL": _two_lines,
    "INST": _two_lines,
    "STACK_GLOBAL": _two_values,
}
"""The name that an opcode asks for, such as os.system, where it has one."""
_DEEDS = {
    **dict.fromkeys(("REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"), "a call"),
    "BUILD": "an object's state to be set",
    **dict.fromkeys(("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"), "an object kept outside the file"),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "a class registered with copyreg"),
    **dict.fromkeys(("EMPTY_SET", "ADDITEMS", "FROZENSET"), "a set"),
    "BYTEARRAY8": "a bytearray",
    "BINBYTES8": "bytes",
}
"""What the other refused opcodes do."""
