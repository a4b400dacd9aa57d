"""Large JSON files read one element at a time, so that gigabytes of annotations need no gigabytes of memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

_CHUNK = 1 << 20
_MAX_ELEMENT = 1 << 28
_SPACE = " \t\n\r"


class Element(NamedTuple):
    """A value of a JSON file: ``number`` counts within the list under ``key``; it is None for what stands in no list.

    ``key`` is "" for a file that is one list. The file's own empty lists come as the value [] without a number.
    """

    key: str
    number: int | None
    value: object

    @property
    def where(self) -> str:
        """Its place in the file, for a problem."""
        return self.key if self.number is None else f"{self.key or 'element '}[{self.number}]"


def stream_json(path: str | Path) -> Iterator[Element]:
    """Yield what a file's one list or one object holds; of an object's lists the elements one by one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON in UTF-8, or neither a list nor an object; also late, at the place where it breaks.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a JSON file, got {str(path)!r}, which is no file; check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _Reader(file).document()
    except RecursionError:
        raise ValueError(f"expected JSON in {str(path)!r}, got it nested too deep; check the file") from None
    except _Broken as error:
        raise ValueError(f"expected JSON in {str(path)!r}, got something else ({error}); check the file") from error


class _Broken(ValueError):  # noqa: N818
    """The text is no JSON."""


class _Reader:
    """A window on the text: what was used is dropped, what is needed is read."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.text = ""
        self.at = 0
        self.decoder = json.JSONDecoder()

    def document(self) -> Iterator[Element]:
        opening = self.peek()
        if opening == "[":
            yield from self.elements("")
        elif opening == "{":
            yield from self.members()
        else:
            raise _Broken(f"it starts with {opening!r}, no list and no object")
        if rest := self.peek():
            raise _Broken(f"{rest!r} follows its end")

    def members(self) -> Iterator[Element]:
        self.at += 1
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise _Broken(f"a key is {str(key)[:40]!r}")
            self.take(":")
            if self.peek() == "[":
                yield from self.elements(key)
            else:
                yield Element(key, None, self.value())
            if self.take(",}") == "}":
                return

    def elements(self, key: str) -> Iterator[Element]:
        self.at += 1
        if self.peek() == "]":
            self.at += 1
            yield Element(key, None, [])
            return
        number = 0
        while True:
            yield Element(key, number, self.value())
            number += 1
            if self.take(",]") == "]":
                return

    def take(self, expected: str) -> str:
        found = self.peek()
        if not found or found not in expected:
            raise _Broken(f"{found!r} stands where one of {expected!r} is due" if found else "it breaks off")
        self.at += 1
        return found

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> object:
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.more():
                    continue
                raise _Broken(error.msg if self.at < len(self.text) else "it breaks off") from error
            except ValueError as error:  # a whole number of thousands of digits
                raise _Broken(str(error)) from error
            if len(self.text) - end <= 2 and self.more():
                continue  # a number may go on, also behind what is left of "1.5e+"
            self.at = end
            return value

    def more(self) -> bool:
        kept = self.text[self.at :]
        if len(kept) > _MAX_ELEMENT:
            raise _Broken(f"an element is longer than {_MAX_ELEMENT} letters, or never ends")
        try:
            fresh = self.file.read(max(_CHUNK, len(kept)))
        except UnicodeDecodeError as error:
            raise _Broken(f"it is no UTF-8: {error.reason}") from error
        if fresh:
            self.text, self.at = kept + fresh, 0
        return bool(fresh)
