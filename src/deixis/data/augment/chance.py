"""Views changed by chance, for photos whose phrases are written afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deixis.data.augment.cropping import random_crop
from deixis.data.augment.looks import blur, colour_jitter, grey
from deixis.data.augment.mirroring import mirror
from deixis.data.augment.resizing import zoom_out
from deixis.data.augment.views import View


def random_view(view: View, rng: np.random.Generator, strength: float = 1.0) -> View:
    """Mirror, crop, zoom out and recolour by chance; write the phrases afterwards.

    ``strength`` in 0..1 scales how often and how much; the mirror has even odds at any strength.
    The arrays of the result are contiguous.
    """
    if rng.random() < 0.5:
        view = mirror(view)
    if rng.random() < 0.5 * strength:
        view = random_crop(view, rng, min_share=1 - 0.5 * strength)
    view = replace(view, image=_random_looks(view.image, rng, strength))
    if rng.random() < 0.15 * strength:
        # not the grey of the letterbox: there "left" must mean left in the canvas, so its border must be seen
        mean = view.image[::8, ::8].reshape(-1, 3).mean(axis=0)
        fill = (int(mean[0]), int(mean[1]), int(mean[2]))
        ratio = 1 + float(rng.uniform(0.1, 0.6)) * strength
        view = zoom_out(view, ratio, (float(rng.random()), float(rng.random())), fill)
    instances = tuple(i if i.mask is None else replace(i, mask=np.ascontiguousarray(i.mask)) for i in view.instances)
    return View(image=np.ascontiguousarray(view.image), instances=instances)


def _random_looks(image: NDArray[np.uint8], rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    if rng.random() < 0.8 * strength:
        brightness, contrast, saturation = (1 + 0.2 * strength * float(v) for v in rng.uniform(-1, 1, 3))
        image = colour_jitter(image, brightness, contrast, saturation)
    if rng.random() < 0.05 * strength:
        image = blur(image, float(rng.uniform(0.5, 1.5)))
    if rng.random() < 0.02 * strength:
        image = grey(image)
    return image
