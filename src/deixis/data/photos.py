"""Photos of a COCO instances file, decoded only when needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deixis.data.dataset import in_split
from deixis.data.formats.coco import CocoInstances
from deixis.geometry.images import read_image
from deixis.geometry.masks import read_mask
from deixis.structures import AnnotatedImage, Instance, VisibleInstance


def visible_instance(instance: Instance, hw: tuple[int, int]) -> VisibleInstance:
    """An instance with its mask decoded for an image of ``hw``. Raises ValueError for a malformed mask."""
    return VisibleInstance(
        category=instance.category,
        box_xyxy_px=instance.box_xyxy_px,
        mask=None if instance.mask is None else read_mask(instance.mask, hw),
        is_crowd=instance.is_crowd,
        attributes=instance.attributes,
    )


def read_pixels(path: Path, hw: tuple[int, int]) -> NDArray[np.uint8]:
    """A photo as uint8 [H, W, 3].

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no image, or its height and width are not ``hw``, those of its annotations.
    """
    pixels = read_image(path)
    if pixels.shape[:2] != hw:
        raise ValueError(
            f"expected {str(path)!r} to have (height, width) {hw}, as its annotations say, got {pixels.shape[:2]}; "
            "annotate the image as it is, or correct its width and height in the file"
        )
    return pixels


@dataclass
class Photo:
    """A photo and its annotated instances, whose boxes lie inside it.

    ``keep_pixels`` keeps the decoded photo in memory after it was read (H * W * 3 bytes); masks are decoded anew.
    """

    image_id: int
    path: Path
    hw: tuple[int, int]
    instances: tuple[Instance, ...]
    keep_pixels: bool = False
    _pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def decode(self) -> AnnotatedImage:
        """Pixels, which are read-only, and instances in the order of ``self.instances``.

        Raises:
            FileNotFoundError: the photo is not there.
            ValueError: it is no image, or of another size than the annotations say, or a mask is malformed.
        """
        pixels = self._pixels
        if pixels is None:
            pixels = read_pixels(self.path, self.hw)
            pixels.flags.writeable = False
            self._pixels = pixels if self.keep_pixels else None
        return AnnotatedImage(pixels, tuple(map(self._decode, self.instances)))

    def _decode(self, instance: Instance) -> VisibleInstance:
        try:
            visible = visible_instance(instance, self.hw)
        except ValueError as error:
            raise ValueError(f"{error}; this is a mask of {instance.category!r} in {str(self.path)!r}") from error
        # a sliver may cover no pixel's centre: then only its box is known
        return replace(visible, mask=None) if visible.mask is not None and not visible.mask.any() else visible


class Photos(list[Photo]):
    """Photos of a file, with ``problems``: one sentence for each record that was left out, or whose mask was."""

    def __init__(self, photos: Iterable[Photo] = (), problems: Iterable[str] = ()) -> None:
        super().__init__(photos)
        self.problems = tuple(problems)

    @classmethod
    def read(
        cls,
        instances_json: str | Path,
        split: str,
        *,
        keep_pixels: bool = False,
        min_score: float = 0.0,
    ) -> Photos:
        """The photos of one split (see `in_split`) of a COCO instances file that have an instance; none is decoded.

        Of annotations that carry a ``score``, a detector's, those of at least ``min_score`` count.
        Raises FileNotFoundError and ValueError as `CocoInstances.read` does, and ValueError for an unknown split.
        """
        coco = CocoInstances.read(instances_json, min_score=min_score)
        return cls.of(coco, split, keep_pixels=keep_pixels)

    @classmethod
    def of(cls, coco: CocoInstances, split: str, *, keep_pixels: bool = False) -> Photos:
        """The same of a file that is read already."""
        photos = (
            Photo(image.id, image.path, image.hw, instances, keep_pixels)
            for image in coco.images
            if in_split(image.id, split) and (instances := tuple(coco.instances(image.id)))
        )
        return cls(photos, coco.problems)
