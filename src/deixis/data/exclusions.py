"""Images that no training may see: those of the splits that are measured on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from deixis.data.annotation_fields import shorten
from deixis.data.formats.json_stream import Element, stream_json
from deixis.data.image_keys import file_key, split_keys
from deixis.files import atomic_write

_VERSION = 1


@dataclass(frozen=True)
class Exclusions:
    """Keys of images (`deixis.data.image_keys`, or ``file:`` and an absolute path), and where they came from."""

    keys: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()

    def covers(self, keys: Iterable[str], image: object) -> bool:
        """Whether an image of these keys, or this file, is to be left out."""
        return any(key in self.keys for key in keys) or (isinstance(image, Path) and file_key(image) in self.keys)

    def __or__(self, other: Exclusions) -> Exclusions:
        return Exclusions(self.keys | other.keys, tuple(dict.fromkeys((*self.sources, *other.sources))))


def write_exclusions(path: Path, exclusions: Exclusions) -> None:
    """Write a list, whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    content = {"deixis_exclusions": _VERSION, "from": list(exclusions.sources), "keys": sorted(exclusions.keys)}
    with atomic_write(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=0).encode("utf-8") + b"\n")


def read_exclusions(path: str | Path) -> Exclusions:
    """Read a list that `write_exclusions` wrote; or a COCO instances file, of which all images are to be left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, or an entry is wrong.
    """
    keys: set[str] = set()
    sources: list[str] = []
    version: object = None
    for element in stream_json(path):
        if element.key == "deixis_exclusions":
            version = element.value
        elif element.key == "keys" and element.number is not None:
            keys.add(_key(element, path))
        elif element.key == "from" and element.number is not None:
            sources.append(str(element.value))
        elif element.key == "images" and element.number is not None and version is None:
            keys.add(_coco_key(element, path))
    if version not in (None, _VERSION) or not keys:
        raise ValueError(
            f"expected a list of exclusions of version {_VERSION} or a COCO instances file, got {str(path)!r}, "
            "which names no image so; write it with: deixis data leaks --write-exclusions"
        )
    return Exclusions(frozenset(keys), tuple(sources) or (Path(path).name,))


def exclusions_of(keys: Collection[str], sources: Iterable[str]) -> Exclusions:
    """A list of keys and where they came from."""
    return Exclusions(frozenset(keys), tuple(sources))


def _key(element: Element, path: str | Path) -> str:
    value = element.value
    if isinstance(value, str) and (value.startswith("file:") or split_keys(value) is not None):
        return value
    raise ValueError(
        f"expected a key such as 'coco:25' at {element.where} of {str(path)!r}, got {shorten(value)}; correct it"
    )


def _coco_key(element: Element, path: str | Path) -> str:
    image = element.value.get("id") if isinstance(element.value, dict) else None
    if type(image) is int and image >= 0:
        return f"coco:{image}"
    raise ValueError(
        f"expected an image with a whole number as 'id' at {element.where} of {str(path)!r}, got "
        f"{shorten(element.value)}; correct it"
    )
