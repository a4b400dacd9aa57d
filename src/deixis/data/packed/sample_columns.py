"""Samples into the columns of a pack."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deixis.data.packed.columns import Columns, pack_texts
from deixis.data.packed.reading import SCHEMA, TEXTS
from deixis.geometry.masks import decode_rle, encode_rle, read_mask
from deixis.structures import Instance, Mask, Rle, Sample

_NO_BOX = (float("nan"),) * 4
_STARTS = ("group_things", "thing_attributes", "mask_polygons", "polygon_coordinates")


class PackedImage(NamedTuple):
    """An image of a pack: its number, its (height, width) and that of the packed picture."""

    place: int
    hw: tuple[int, int]
    small_hw: tuple[int, int]


class ColumnWriter:
    """Collects images and samples. What samples of one image share is kept once where they follow each other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.problems: list[str] = []
        self._numbers = {name: array("d" if kind == "<f8" else "q") for name, (kind, _) in SCHEMA.items()}
        for name in _STARTS:
            self._numbers[name].append(0)
        self._texts: dict[str, list[str]] = {name: [] for name in TEXTS}
        self._words: dict[str, int] = {}
        self._referents: dict[Hashable, int] = {}
        self._named: set[int] = set()
        self._last = -1
        self._known_masks: list[tuple[Mask, int]] = []
        self._known_groups: list[tuple[tuple[Instance, ...], int]] = []

    @property
    def num_images(self) -> int:
        """Images that some sample shows."""
        return len(self._named)

    def add_image(
        self, file: str, hw: tuple[int, int], small_hw: tuple[int, int], shard: int, start: int
    ) -> PackedImage:
        """Add an image; ``file`` is below the folder of images, or nothing where there is none."""
        place = len(self._texts["image_file"])
        self._texts["image_file"].append(file)
        for name, values in (
            ("image_hw", hw),
            ("small_hw", small_hw),
            ("image_shard", (shard,)),
            ("image_start", (start,)),
        ):
            self._numbers[name].extend(values)
        return PackedImage(place, hw, small_hw)

    def add_sample(self, sample: Sample, image: PackedImage, referent: object) -> None:
        """Add a sample.

        Raises:
            ValueError: a text has no UTF-8, or its mask cannot be read.
            FileNotFoundError: its mask is a file that is not there.
        """
        for text in (sample.id, sample.phrase, sample.image_id, sample.split, sample.category or "", sample.kind or ""):
            text.encode("utf-8")
        if image.place != self._last:
            self._last, self._known_masks, self._known_groups = image.place, [], []
        mask = -1 if sample.mask is None else self._mask(sample.mask, image, is_meant=True)
        group = self._group(sample, image)
        self._named.add(image.place)
        self._texts["sample_id"].append(sample.id)
        self._texts["phrase"].append(sample.phrase)
        key = (image.place, sample.box_xyxy_px) if referent is None else referent
        words = [sample.split, sample.category, sample.kind, sample.image_id]
        row = {
            "sample_image": [image.place],
            "sample_box": sample.box_xyxy_px or _NO_BOX,
            "sample_mask": [mask],
            "sample_group": [group],
            "sample_referent": [self._referents.setdefault(key, len(self._referents))],
            "sample_words": [-1 if word is None else self._word(word) for word in words],
        }
        for name, values in row.items():
            self._numbers[name].extend(values)

    def _word(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))

    def _group(self, sample: Sample, image: PackedImage) -> int:
        for known, group in self._known_groups:
            if known is sample.instances or known == sample.instances:
                return group
        for thing in sample.instances:
            self._thing(thing, image, sample.id)
        self._numbers["group_things"].append(len(self._numbers["thing_crowd"]))
        group = len(self._numbers["group_things"]) - 2
        self._known_groups.append((sample.instances, group))
        return group

    def _thing(self, thing: Instance, image: PackedImage, sample: str) -> None:
        mask = -1
        if thing.mask is not None:
            try:
                mask = self._mask(thing.mask, image, is_meant=False)
            except (OSError, ValueError) as error:
                self.problems.append(f"sample {sample!r}, another {thing.category!r} without its mask: {error}")
        row = {
            "thing_box": thing.box_xyxy_px,
            "thing_category": [self._word(thing.category)],
            "thing_crowd": [thing.is_crowd],
            "thing_mask": [mask],
            "attribute": [self._word(word) for word in thing.attributes],
        }
        for name, values in row.items():
            self._numbers[name].extend(values)
        self._numbers["thing_attributes"].append(len(self._numbers["attribute"]))

    def _mask(self, mask: Mask, image: PackedImage, *, is_meant: bool) -> int:
        """A mask's place; one that a sample means is also drawn at the size of the packed picture."""
        place = next((place for known, place in self._known_masks if known is mask or known == mask), None)
        drawn = None
        if place is None:
            if isinstance(mask, Path):
                drawn = read_mask(mask, image.hw)
                place = self._new_mask(encode_rle(drawn))
            else:
                place = self._new_mask(mask)
            self._known_masks.append((mask, place))
        if is_meant and self._numbers["mask_small_rle"][place] < 0:
            drawn = read_mask(mask, image.hw) if drawn is None else drawn
            small = encode_rle(shrink_mask(drawn, image.small_hw))
            self._numbers["mask_small_rle"][place] = self._rle(small)
        return place

    def _new_mask(self, mask: Rle | list[list[float]]) -> int:
        rle = -1
        if isinstance(mask, list):
            polygons = [array("d", polygon) for polygon in mask]
            for polygon in polygons:
                self._numbers["coordinate"].extend(polygon)
                self._numbers["polygon_coordinates"].append(len(self._numbers["coordinate"]))
        else:
            rle = self._rle(mask if isinstance(mask["counts"], str) else encode_rle(decode_rle(mask)))
        self._numbers["mask_polygons"].append(len(self._numbers["polygon_coordinates"]) - 1)
        self._numbers["mask_rle"].append(rle)
        self._numbers["mask_small_rle"].append(-1)
        return len(self._numbers["mask_rle"]) - 1

    def _rle(self, rle: Rle) -> int:
        rle["counts"].encode("utf-8")
        self._numbers["rle_hw"].extend(rle["size"])
        self._texts["rle"].append(rle["counts"])
        return len(self._texts["rle"]) - 1

    def finish(self) -> Columns:
        """The columns as `deixis.data.packed.reading.SCHEMA` states them."""
        self._texts["word"] = list(self._words)
        columns: dict[str, NDArray[Any]] = {}
        for name in TEXTS:
            columns[name], columns[f"{name}_starts"] = pack_texts(self._texts[name])
        for name, (kind, width) in SCHEMA.items():
            column = columns[name] if name in columns else np.array(self._numbers[name])
            columns[name] = column.astype(kind).reshape((-1, width) if width else -1)
        return columns


def shrink_mask(mask: NDArray[np.bool_], hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool [H, W] on a smaller picture of ``hw``: True where at least half of the pixel is covered."""
    if mask.shape == hw:
        return mask
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((hw[1], hw[0]), Image.Resampling.BILINEAR)) >= 128
