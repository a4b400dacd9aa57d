"""Large JSON files read one element at a time, so that gigabytes of annotations need no gigabytes of memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import ijson

_BOM = b"\xef\xbb\xbf"
Events = Iterator[tuple[str, Any]]


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
    given = 0
    try:
        with path.open("rb") as file:
            file.seek(len(_BOM) if file.read(len(_BOM)) == _BOM else 0)
            for element in _elements(ijson.basic_parse(file, use_float=True)):
                yield element
                given += 1
    except RecursionError:
        raise ValueError(f"expected JSON in {str(path)!r}, got it nested too deep; check the file") from None
    except ijson.JSONError as error:
        yield from islice(_all_elements(path, error), given, None)


def _all_elements(path: Path, error: ijson.JSONError) -> list[Element]:
    """All elements, read at once by Python's own reader, which takes numbers as NaN and 2 ** 64 too."""
    try:
        held = json.loads(path.read_bytes().removeprefix(_BOM).decode("utf-8"))
        return list(_elements(_events(held)))
    except (ValueError, RecursionError, ijson.JSONError):
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(
            f"expected JSON in {str(path)!r}, got something else ({reason.splitlines()[0]}); check the file"
        ) from error


def _events(value: object) -> Events:
    """The events of :func:`ijson.basic_parse` of a value that is read already."""
    if isinstance(value, list):
        yield "start_array", None
        for one in value:
            yield from _events(one)
        yield "end_array", None
    elif isinstance(value, dict):
        yield "start_map", None
        for key, one in value.items():
            yield "map_key", key
            yield from _events(one)
        yield "end_map", None
    else:
        yield "value", value


def _elements(events: Events) -> Iterator[Element]:
    event, value = next(events)
    if event == "start_array":
        yield from _items("", events)
    elif event == "start_map":
        for event, key in events:
            if event == "end_map":
                break
            event, value = next(events)
            if event == "start_array":
                yield from _items(key, events)
            else:
                yield Element(key, None, _value(event, value, events))
    else:
        raise ijson.JSONError(f"{value!r}, no list and no object")
    for _ in events:  # nothing may follow
        pass


def _items(key: str, events: Events) -> Iterator[Element]:
    number = 0
    for event, value in events:
        if event == "end_array":
            break
        yield Element(key, number, _value(event, value, events))
        number += 1
    if not number:
        yield Element(key, None, [])


def _value(event: str, value: object, events: Events) -> object:
    """The value that starts with an event."""
    if event == "start_array":
        items = []
        for event, value in events:
            if event == "end_array":
                break
            items.append(_value(event, value, events))
        return items
    if event == "start_map":
        found = {}
        for event, key in events:
            if event == "end_map":
                break
            found[key] = _value(*next(events), events)
        return found
    return value
