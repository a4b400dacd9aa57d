"""Which picture a sample's image is, told so that the same picture has the same key in every data set.

A key names a collection and an id in it: ``coco:581857``, ``flickr:36979``, ``saiapr:25``, ``vg:2407``. An image of
Visual Genome that is COCO's too has both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

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
_COCO_NAME = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d{12})(?!\d)|^(\d{12})\.\w+$")
_KEY = re.compile(r"[a-z0-9+]+:[^=\s]+")


def image_keys(sample: Sample, dataset: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    """The keys of a sample's image; none where nothing tells which picture it is.

    Args:
        sample: one of ``samples``.
        dataset: the name that they were opened by.
        samples: as `deixis.data.open_dataset` gave them; those of Visual Genome know which images are COCO's.
    """
    if (keys := split_keys(sample.image_id)) is not None:
        return keys
    collection = COLLECTIONS.get(dataset, "")
    coco_ids: dict[str, int] | None = getattr(samples, "coco_ids", None)
    if coco_ids is not None:
        if not coco_ids:  # without image_data.json nothing tells which images are COCO's
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
