"""Augmentations in which image, boxes, masks and words move together.

Two kinds. A `View` is an image with all its annotated things and no words yet: its transforms are free, because the
phrases are written afterwards, for what is then to be seen. `mirror_phrased` and `crop_phrased` move an image whose
phrase is already there, and do nothing where the phrase would become untrue.

Every function is pure. Arrays of the result may share memory with those of the argument, so write into neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from deixis.geometry.masks import box_from_mask
from deixis.language.directions import can_mirror, mirror_phrase, names_direction
from deixis.language.phrases import VisibleInstance
from deixis.structures import BoxXyxy

WindowXyxy = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels, the far edges excluded."""

MIN_VISIBLE = 0.6
"""A thing of which less than this share is left is no referent any more, only a distractor (``is_crowd``)."""
MIN_KEPT = 0.05
"""A thing of which less than this share is left is forgotten."""
MAX_COVERED_BOX = 0.3
"""Without a mask nobody knows which part of a box is the thing, so less may be covered before it is no referent."""


@dataclass(frozen=True)
class View:
    """An image and every annotated thing in it, as far as it is to be seen.

    ``image`` is uint8 [H, W, 3]; masks of the instances, where known, are bool [H, W] of the same image.
    Raises ValueError where a dtype or a shape is another.
    """

    image: NDArray[np.uint8]
    instances: tuple[VisibleInstance, ...]

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"expected a uint8 image [H, W, 3], got {self.image.dtype} {self.image.shape}; read it with read_image"
            )
        for instance in self.instances:
            if instance.mask is not None and instance.mask.shape != self.hw:
                raise ValueError(
                    f"expected masks of the image's size {self.hw}, got {instance.mask.shape} for "
                    f"{instance.category!r}; rasterise the masks at the image's size"
                )

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Cutout:
    """A thing cut out of a photo, to be pasted into another: ``image`` uint8 [h, w, 3], ``mask`` bool [h, w]."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    category: str


class Phrased(NamedTuple):
    """An image uint8 [H, W, 3], the box of the thing meant, its mask bool [H, W] or None, and the phrase."""

    image: NDArray[np.uint8]
    box_xyxy_px: BoxXyxy
    mask: NDArray[np.bool_] | None
    phrase: str


# --- geometry ---------------------------------------------------------------------------------------------------------


def mirror(view: View) -> View:
    """Left becomes right."""
    width = view.hw[1]
    return View(
        image=view.image[:, ::-1],
        instances=tuple(
            replace(
                instance,
                box_xyxy_px=_mirror_box(instance.box_xyxy_px, width),
                mask=None if instance.mask is None else instance.mask[:, ::-1],
            )
            for instance in view.instances
        ),
    )


def crop(view: View, window: WindowXyxy, min_visible: float = MIN_VISIBLE) -> View:
    """Keep what lies in ``window``.

    A thing of which less than ``min_visible`` of its area (of the mask, else of the box) is left becomes ``is_crowd``:
    never meant, but still there to be confused with. Less than 5 %, and it is dropped.
    Raises ValueError where the window is empty or leaves the image.
    """
    x1, y1, x2, y2 = window
    _check_window(window, view.hw)
    cropped = (_crop_instance(instance, window, min_visible) for instance in view.instances)
    return View(image=view.image[y1:y2, x1:x2], instances=tuple(i for i in cropped if i is not None))


def zoom_out(view: View, ratio: float, offset: tuple[float, float], fill: tuple[int, int, int]) -> View:
    """Lay the image on a larger canvas, ``ratio`` >= 1 times as high and wide.

    ``offset`` says where: (0, 0) top left, (1, 1) bottom right. ``fill`` is the canvas' RGB colour.
    """
    if ratio < 1 or not (0 <= offset[0] <= 1 and 0 <= offset[1] <= 1):
        raise ValueError(f"expected a ratio >= 1 and an offset in 0..1, got {ratio!r} and {offset!r}; correct them")
    height, width = view.hw
    canvas_hw = (round(height * ratio), round(width * ratio))
    dx, dy = int((canvas_hw[1] - width) * offset[0]), int((canvas_hw[0] - height) * offset[1])
    image = np.empty((*canvas_hw, 3), np.uint8)
    image[:] = np.array(fill, np.uint8)
    image[dy : dy + height, dx : dx + width] = view.image

    def move(instance: VisibleInstance) -> VisibleInstance:
        x1, y1, x2, y2 = instance.box_xyxy_px
        mask = None
        if instance.mask is not None:
            mask = np.zeros(canvas_hw, np.bool_)
            mask[dy : dy + height, dx : dx + width] = instance.mask
        return replace(instance, box_xyxy_px=(x1 + dx, y1 + dy, x2 + dx, y2 + dy), mask=mask)

    return View(image=image, instances=tuple(move(instance) for instance in view.instances))


def resize(view: View, size_long: int) -> View:
    """Scale so that the long side has ``size_long`` pixels. Drops a thing whose mask thereby vanishes."""
    height, width = view.hw
    scale = size_long / max(height, width)
    new_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
    if new_hw == view.hw:
        return view
    image = np.asarray(_pil(view.image).resize((new_hw[1], new_hw[0]), Image.Resampling.BILINEAR))
    # nearest by pixel centres: dividing whole numbers, so that no rounding error moves a pixel
    rows = (2 * np.arange(new_hw[0]) + 1) * height // (2 * new_hw[0])
    columns = (2 * np.arange(new_hw[1]) + 1) * width // (2 * new_hw[1])
    sy, sx = new_hw[0] / height, new_hw[1] / width
    instances = []
    for instance in view.instances:
        x1, y1, x2, y2 = instance.box_xyxy_px
        mask = None if instance.mask is None else instance.mask[rows][:, columns]
        if mask is None or mask.any():
            instances.append(replace(instance, box_xyxy_px=(x1 * sx, y1 * sy, x2 * sx, y2 * sy), mask=mask))
    return View(image=image, instances=tuple(instances))


# --- looks ------------------------------------------------------------------------------------------------------------


def colour_jitter(image: NDArray[np.uint8], brightness: float, contrast: float, saturation: float) -> NDArray[np.uint8]:
    """Scale brightness, contrast (about the mean grey) and saturation; 1 changes nothing.

    Hues stay, so that colour words stay true. ``image`` is uint8 [H, W, 3], and so is the result.
    """
    # the mean on every eighth pixel: the same within a grey level
    mean = float(image[::8, ::8].mean()) * brightness
    levels = (np.arange(256, dtype=np.float32) * brightness - mean) * contrast + mean
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    jittered = _pil(image).point(np.tile(table, 3).tolist())
    return np.asarray(Image.blend(jittered.convert("L").convert("RGB"), jittered, saturation))


def blur(image: NDArray[np.uint8], radius_px: float) -> NDArray[np.uint8]:
    """Blur uint8 [H, W, 3] with a Gaussian (approximated by box filters) of this standard deviation."""
    return np.asarray(_pil(image).filter(ImageFilter.GaussianBlur(radius_px)))


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the colours out of uint8 [H, W, 3]; the three channels stay."""
    return np.asarray(_pil(image).convert("L").convert("RGB"))


# --- copy and paste ---------------------------------------------------------------------------------------------------


def cut_out(view: View, index: int, min_side_px: int = 40) -> Cutout | None:
    """Copy one thing out of a photo; None where it is not worth pasting elsewhere.

    That is: no mask, a crowd, less than ``min_side_px`` high or wide, or cut off by the photo's edge.
    """
    instance = view.instances[index]
    box = None if instance.mask is None or instance.is_crowd else box_from_mask(instance.mask)
    if instance.mask is None or box is None:
        return None
    x1, y1, x2, y2 = (int(v) for v in box)
    is_whole = x1 > 0 and y1 > 0 and x2 < view.hw[1] and y2 < view.hw[0]
    if not is_whole or min(x2 - x1, y2 - y1) < min_side_px:
        return None
    # copies, so that a drawer full of cutouts does not hold the photos in memory
    return Cutout(view.image[y1:y2, x1:x2].copy(), instance.mask[y1:y2, x1:x2].copy(), instance.category)


def paste(view: View, cutout: Cutout, window: WindowXyxy, feather_px: float = 0.0) -> View:
    """Lay a cutout, scaled to ``window``, over the view; it becomes the last instance.

    What it covers is no longer seen: masks lose the covered pixels, boxes shrink to what is left. A thing of which less
    than 60 % is left, or without a mask more than 30 % of the box is covered, becomes ``is_crowd``; less than 5 % is
    dropped. ``feather_px`` softens the edge of the picture, not of the mask.
    Raises ValueError where the window is empty or leaves the image.
    """
    x1, y1, x2, y2 = window
    _check_window(window, view.hw)
    size_wh = (x2 - x1, y2 - y1)
    shape = np.asarray(_pil(cutout.mask.astype(np.uint8) * 255).resize(size_wh, Image.Resampling.BILINEAR)) >= 128
    shape_box = box_from_mask(shape)
    if shape_box is None:
        return view  # too thin to show at this size
    mask = np.zeros(view.hw, np.bool_)
    mask[y1:y2, x1:x2] = shape
    image = view.image.copy()
    _blend(image[y1:y2, x1:x2], cutout.image, shape, feather_px)
    covered = (_cover_instance(instance, shape, window) for instance in view.instances)
    pasted = VisibleInstance(category=cutout.category, box_xyxy_px=_shift_box(shape_box, x1, y1), mask=mask)
    return View(image=image, instances=(*(i for i in covered if i is not None), pasted))


# --- by chance --------------------------------------------------------------------------------------------------------


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


def random_crop(view: View, rng: np.random.Generator, min_share: float = 0.5, min_area: float = 0.03) -> View:
    """Crop to a window of at least ``min_share`` of the image in which at least one thing stays whole.

    That thing is drawn among those that are no crowd and whose box takes ``min_area`` of the image or more; without any
    the view stays as it is.
    """
    height, width = view.hw
    wide_enough = [i for i in view.instances if not i.is_crowd and _area(i.box_xyxy_px) >= min_area * height * width]
    if not wide_enough:
        return view
    anchor = wide_enough[int(rng.integers(len(wide_enough)))]
    return crop(view, _window_around(anchor.box_xyxy_px, view.hw, rng, min_share))


def random_paste(view: View, donors: Sequence[View], rng: np.random.Generator, max_pastes: int = 2) -> View:
    """Paste one or two things out of the donors at a random place and size, mirrored at even odds.

    A place that would hide more than half of a referent's box is not taken. Where only some categories are annotated
    (only persons, say), pass donors with those alone: else a pasted dog stands beside a dog that nobody has marked.
    """
    for _ in range(int(rng.integers(1, max_pastes + 1)) if donors else 0):
        cutout = _random_cutout(donors[int(rng.integers(len(donors)))], rng)
        window = None if cutout is None else _free_window(view, cutout, rng)
        if cutout is not None and window is not None:
            view = paste(view, cutout, window, feather_px=float(rng.choice([0.0, 0.7, 1.2])))
    return view


# --- with words -------------------------------------------------------------------------------------------------------


def mirror_phrased(
    image: NDArray[np.uint8], box_xyxy_px: BoxXyxy, mask: NDArray[np.bool_] | None, phrase: str
) -> Phrased:
    """Mirror image, box, mask and the words "left" and "right"; all unchanged where the phrase cannot be mirrored."""
    if not can_mirror(phrase):
        return Phrased(image, box_xyxy_px, mask, phrase)
    mirrored_mask = None if mask is None else mask[:, ::-1]
    return Phrased(image[:, ::-1], _mirror_box(box_xyxy_px, image.shape[1]), mirrored_mask, mirror_phrase(phrase))


def crop_phrased(
    image: NDArray[np.uint8],
    box_xyxy_px: BoxXyxy,
    mask: NDArray[np.bool_] | None,
    phrase: str,
    rng: np.random.Generator,
    min_share: float = 0.5,
) -> Phrased:
    """Crop to a random window around the whole referent; unchanged where the phrase names a direction.

    "the left one" may be in the middle of what is left of the image; "the red one" stays the red one.
    """
    if names_direction(phrase):
        return Phrased(image, box_xyxy_px, mask, phrase)
    hw = (image.shape[0], image.shape[1])
    x1, y1, x2, y2 = _window_around(box_xyxy_px, hw, rng, min_share)
    cropped_mask = None if mask is None else mask[y1:y2, x1:x2]
    return Phrased(image[y1:y2, x1:x2], _shift_box(box_xyxy_px, -x1, -y1), cropped_mask, phrase)


# --- parts ------------------------------------------------------------------------------------------------------------


def _pil(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image))


def _check_window(window: WindowXyxy, hw: tuple[int, int]) -> None:
    (x1, y1, x2, y2), (height, width) = window, hw
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f"expected a window inside the image of {width} x {height} pixels, got {window!r}; clip it")


def _area(box: BoxXyxy) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _intersect(a: BoxXyxy, b: BoxXyxy) -> BoxXyxy:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _shift_box(box: BoxXyxy, dx: float, dy: float) -> BoxXyxy:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _mirror_box(box: BoxXyxy, width: int) -> BoxXyxy:
    return width - box[2], box[1], width - box[0], box[3]


def _crop_instance(instance: VisibleInstance, window: WindowXyxy, min_visible: float) -> VisibleInstance | None:
    x1, y1, x2, y2 = window
    box = instance.box_xyxy_px
    mask = None if instance.mask is None else instance.mask[y1:y2, x1:x2]
    clipped = _intersect(box, window)
    if clipped == box:
        return replace(instance, box_xyxy_px=_shift_box(box, -x1, -y1), mask=mask)
    if instance.mask is None or mask is None:
        share, seen = _area(clipped) / _area(box), _shift_box(clipped, -x1, -y1)
    else:
        share, seen = _count(mask) / max(1, _count(instance.mask)), box_from_mask(mask)
    if share < MIN_KEPT or seen is None:
        return None
    return replace(instance, box_xyxy_px=seen, mask=mask, is_crowd=instance.is_crowd or share < min_visible)


def _cover_instance(instance: VisibleInstance, shape: NDArray[np.bool_], window: WindowXyxy) -> VisibleInstance | None:
    x1, y1, x2, y2 = window
    box = instance.box_xyxy_px
    if _area(_intersect(box, window)) == 0:
        return instance
    if instance.mask is None:
        bx1, by1, bx2, by2 = (round(v) for v in box)
        hidden = _count(shape[max(0, by1 - y1) : max(0, by2 - y1), max(0, bx1 - x1) : max(0, bx2 - x1)])
        share = 1 - hidden / _area(box)
        is_crowd = instance.is_crowd or share < 1 - MAX_COVERED_BOX
        return None if share < MIN_KEPT else replace(instance, is_crowd=is_crowd)
    mask = instance.mask.copy()
    mask[y1:y2, x1:x2] &= ~shape
    before, after = _count(instance.mask), _count(mask)
    if before == after:
        return instance
    seen = box_from_mask(mask)
    if seen is None or after < MIN_KEPT * before:
        return None
    return replace(instance, box_xyxy_px=seen, mask=mask, is_crowd=instance.is_crowd or after < MIN_VISIBLE * before)


def _blend(target: NDArray[np.uint8], image: NDArray[np.uint8], shape: NDArray[np.bool_], feather_px: float) -> None:
    """Write ``image``, resized, into ``target`` uint8 [h, w, 3] where ``shape`` bool [h, w] says so."""
    source = _pil(image).resize((shape.shape[1], shape.shape[0]), Image.Resampling.BILINEAR)
    alpha = _pil(shape.astype(np.uint8) * 255)
    if feather_px > 0:
        alpha = alpha.filter(ImageFilter.GaussianBlur(feather_px))
    target[:] = np.asarray(Image.composite(source, _pil(target), alpha))


def _window_around(box: BoxXyxy, hw: tuple[int, int], rng: np.random.Generator, min_share: float) -> WindowXyxy:
    """A random window that holds the whole box and at least ``min_share`` of the image."""
    height, width = hw
    share = float(rng.uniform(min_share, 1))
    aspect = float(np.exp(rng.uniform(-0.3, 0.3)))
    bx1, by1 = max(0, int(box[0])), max(0, int(box[1]))
    bx2, by2 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    w = max(min(width, width * (share / aspect) ** 0.5), bx2 - bx1)
    h = max(min(height, height * share * width / w), by2 - by1)
    w, h = min(width, int(np.ceil(w))), min(height, int(np.ceil(h)))
    x1 = int(rng.integers(max(0, bx2 - w), min(bx1, width - w) + 1))
    y1 = int(rng.integers(max(0, by2 - h), min(by1, height - h) + 1))
    return x1, y1, x1 + w, y1 + h


def _random_cutout(donor: View, rng: np.random.Generator) -> Cutout | None:
    for index in rng.permutation(len(donor.instances)):
        cutout = cut_out(donor, int(index))
        if cutout is not None:
            is_mirrored = rng.random() < 0.5
            return replace(cutout, image=cutout.image[:, ::-1], mask=cutout.mask[:, ::-1]) if is_mirrored else cutout
    return None


def _free_window(view: View, donor: Cutout, rng: np.random.Generator) -> WindowXyxy | None:
    """A random place and size for the donor that hides no referent; None after five tries."""
    height, width = view.hw
    donor_h, donor_w = donor.mask.shape
    for _ in range(5):
        # the mean side of the box, 20 % to 55 % of the image's; enlarged at most 1.5 times, else it shows
        side = float(rng.uniform(0.2, 0.55)) * (height * width) ** 0.5
        scale = min(side / (donor_h * donor_w) ** 0.5, 1.5, 0.9 * height / donor_h, 0.9 * width / donor_w)
        h, w = max(1, round(donor_h * scale)), max(1, round(donor_w * scale))
        x1, y1 = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        window = (x1, y1, x1 + w, y1 + h)
        hides = (
            _area(_intersect(i.box_xyxy_px, window)) > 0.5 * _area(i.box_xyxy_px)
            for i in view.instances
            if not i.is_crowd
        )
        if not any(hides):
            return window
    return None


def _random_looks(image: NDArray[np.uint8], rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    if rng.random() < 0.8 * strength:
        brightness, contrast, saturation = (1 + 0.2 * strength * float(v) for v in rng.uniform(-1, 1, 3))
        image = colour_jitter(image, brightness, contrast, saturation)
    if rng.random() < 0.05 * strength:
        image = blur(image, float(rng.uniform(0.5, 1.5)))
    if rng.random() < 0.02 * strength:
        image = grey(image)
    return image
