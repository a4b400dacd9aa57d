"""Left becomes right: of a view, or of a picture with its phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deixis.data.augment.views import View
from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror
from deixis.structures import BoxXyxy


class Phrased(NamedTuple):
    """An image uint8 [H, W, 3], the box of the thing meant, its mask bool [H, W] or None, and the phrase."""

    image: NDArray[np.uint8]
    box_xyxy_px: BoxXyxy
    mask: NDArray[np.bool_] | None
    phrase: str


def mirror(view: View) -> View:
    """Left becomes right."""
    width = view.hw[1]
    return View(
        image=view.image[:, ::-1],
        instances=tuple(
            replace(
                instance,
                box_xyxy_px=mirror_box(instance.box_xyxy_px, width),
                mask=None if instance.mask is None else instance.mask[:, ::-1],
            )
            for instance in view.instances
        ),
    )


def random_mirror(
    view: View, phrases: Sequence[str], rng: np.random.Generator, chance: float = 0.5
) -> tuple[View, list[str]]:
    """Mirror view and phrases at that chance, unless one of the phrases cannot be mirrored."""
    if rng.random() < chance and all(can_mirror(phrase) for phrase in phrases):
        return mirror(view), [mirror_phrase(phrase) for phrase in phrases]
    return view, list(phrases)


def mirror_phrased(
    image: NDArray[np.uint8], box_xyxy_px: BoxXyxy, mask: NDArray[np.bool_] | None, phrase: str
) -> Phrased:
    """Mirror image, box, mask and the words "left" and "right"; all unchanged where the phrase cannot be mirrored."""
    if not can_mirror(phrase):
        return Phrased(image, box_xyxy_px, mask, phrase)
    mirrored_mask = None if mask is None else mask[:, ::-1]
    return Phrased(image[:, ::-1], mirror_box(box_xyxy_px, image.shape[1]), mirrored_mask, mirror_phrase(phrase))


def mirror_box(box: BoxXyxy, width: int) -> BoxXyxy:
    """The box in an image of that width, mirrored."""
    return width - box[2], box[1], width - box[0], box[3]
