"""Which picture a sample's image is, with the same key in every data set; and lists of images to leave out.

A key names a collection and an id in it: ``coco:581857``, ``flickr:36979``, ``saiapr:25``, ``vg:2407``. An image of
Visual Genome that is COCO's too has both.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deixis.data.annotation_fields import shorten
from deixis.data.formats.json_stream import Element, stream_json
from deixis.files import write_text
from deixis.structures import Sample

COLLECTIONS = {
    "refcoco": "coco",
    "refcoco+": "coco",
    "refcocog-umd": "coco",
    "refcocog-google": "coco",
    "refcoco-google": "coco",
    "grefcoco": "coco",
    "referit": "saiapr",
    "referit-unc": "saiapr",
    "flickr30k": "flickr",
    "vg": "vg",
    "scenes": "scenes",
    "scenes+": "scenes+",
    "scenesg": "scenesg",
}
"""Whose images a data set's ids count, by its name."""
_LIST_VERSION = 1
_COCO_NAME = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d{12})(?!\d)|^(\d{12})\.\w+$")
_KEY = re.compile(r"[a-z0-9+]+:[^=\s]+")


def image_keys(sample: Sample, dataset: str, coco_ids: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """The keys of a sample's image; none where nothing identifies it.

    Args:
        sample: of a data set.
        dataset: the name that it was opened by.
        coco_ids: `Dataset.coco_ids` of it.
    """
    if (keys := split_keys(sample.image_id)) is not None:
        return keys
    collection = COLLECTIONS.get(dataset, "")
    if coco_ids is not None:
        if not coco_ids:  # without image_data.json nobody knows which images are COCO's
            return ()
        coco = coco_ids.get(sample.image_id)
        return (f"vg:{sample.image_id}",) if coco is None else (f"vg:{sample.image_id}", f"coco:{coco}")
    if isinstance(sample.image, Path) and (coco_id := coco_id_of(sample.image.name)) is not None:
        return (f"coco:{coco_id}",)
    return (f"{collection}:{sample.image_id}",) if collection and collection != "vg" else ()


def coco_id_of(file_name: str) -> int | None:
    """The COCO id that a file's name carries: that of COCO's releases of 2014, or twelve digits as in that of 2017.

    >>> coco_id_of("COCO_train2014_000000581857.jpg"), coco_id_of("COCO_train2014_000000581857_16.jpg")
    (581857, 581857)
    >>> coco_id_of("000000000025.jpg"), coco_id_of("2407.jpg"), coco_id_of("a cup.png")
    (25, None, None)
    """
    found = _COCO_NAME.search(file_name)
    return int(found[1] or found[2]) if found else None


def join_keys(keys: Iterable[str]) -> str:
    """Keys as one ``image_id``, which `split_keys` takes apart: ``vg:2407=coco:581857``."""
    return "=".join(keys)


def split_keys(image_id: str) -> tuple[str, ...] | None:
    """The keys in an ``image_id`` that `join_keys` made; None for others."""
    parts = tuple(image_id.split("="))
    return parts if all(_KEY.fullmatch(part) for part in parts) else None


def file_key(image: Path) -> str:
    """The key of a file as such."""
    return f"file:{os.path.abspath(image)}"


@dataclass(frozen=True)
class Exclusions:
    """Keys of images that no training may see (or ``file:`` and an absolute path), and where they came from."""

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
    content = {"deixis_exclusions": _LIST_VERSION, "from": list(exclusions.sources), "keys": sorted(exclusions.keys)}
    write_text(path, json.dumps(content, ensure_ascii=False, indent=0) + "\n")


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
    if version not in (None, _LIST_VERSION) or not keys:
        raise ValueError(
            f"expected a list of exclusions of version {_LIST_VERSION} or a COCO instances file, got {str(path)!r}, "
            "which names no image so; write it with: deixis data leaks --write-exclusions"
        )
    return Exclusions(frozenset(keys), tuple(sources) or (Path(path).name,))


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
