"""Where the images of a data set lie below a root, and under which names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_PROBED_IMAGES = 16
_SHOWN_FOLDERS = 6
_COCO = (
    "images/mscoco/images/train2014",
    "images/mscoco/train2014",
    "images/train2014",
    "images/coco/train2014",
    "coco/images/train2014",
    "coco/train2014",
    "mscoco/train2014",
    "train2014",
    "other/images/mscoco/images/train2014",
    "images/mscoco/images/train2017",
    "images/train2017",
    "coco/train2017",
    "train2017",
    "ln_data/other/images/mscoco/images/train2014",  # TransVG, from its own folder
    "images",
    "",
)
_SAIAPR = (
    "images/saiapr_tc-12",
    "saiapr_tc-12",
    "images/saiaprtc12",
    "images/referit/images",
    "referit/images",
    "images/refclef",
    "refclef/images",
    "ln_data/referit/images",
    "images",
    "",
)
_FLICKR = (
    "images/flickr30k",
    "flickr30k-images",
    "flickr30k_images",
    "images/flickr30k-images",
    "images/flickr30k_images",
    "Flickr30k/flickr30k_images",
    "Flickr30k/flickr30k-images",
    "flickr30k/flickr30k-images",
    "flickr30k/flickr30k_images",
    "flickr30k/images",
    "flickr30k_images/flickr30k_images",
    "ln_data/Flickr30k/flickr30k_images",
    "images/flickr",
    "flickr30k",
    "images",
    "",
)
_VG = ("images/visual-genome", "images/vg", "visual-genome", "images/VG", "VG", "vg", "images/VG_100K", "VG_100K",
       "images/visual_genome", "visual_genome")  # fmt: skip
FOLDERS: dict[str, tuple[str, ...]] = {
    "coco": _COCO,
    "saiapr": _SAIAPR,
    "flickr": _FLICKR,
    "vg": (*_VG, "images", ""),
    "any": tuple(dict.fromkeys(["", "images", *_COCO, *_SAIAPR, *_FLICKR, *_VG])),
}
"""The folders below a root in which the images of each collection are looked for, the most usual first."""
_NAMES = (
    "{file}",
    "{base}",
    "COCO_train2014_{image:0>12}.jpg",
    "{image:0>12}.jpg",
    "{image}.jpg",
    "{shelf}/images/{image}.jpg",  # SAIAPR TC-12 as it was published: 02/images/2345.jpg
)
_COCO_FILE = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?0*(\d{1,12})\.\w+")


class Layout(NamedTuple):
    """Where the images are and what they are called."""

    folder: Path
    name: str

    def path(self, image: str, file_name: str) -> Path:
        """The file of an image by its id and its name in the annotations, there or not."""
        shelf = f"{int(image) // 1000:02d}" if image.isascii() and image.isdigit() else ""
        name = self.name.format(image=image, file=file_name, base=Path(file_name).name, shelf=shelf)
        return self.folder / name


def find_layout(
    bases: Sequence[Path], collection: str, images: Sequence[tuple[str, str]], need_images: bool = True
) -> Layout:
    """The first folder and way of naming under which most of some images are there.

    Args:
        bases: the folders to look below.
        collection: a key of `FOLDERS`.
        images: (id, file name) of the images, at least one.
        need_images: whether to refuse bases without images; without, the first folder is taken for granted.

    Raises:
        FileNotFoundError: none of the images is in any of the folders; the sentence names them.
    """
    step = math.ceil(len(images) / _PROBED_IMAGES)
    probed = images[::step]
    folders = [base / name for base in bases for name in FOLDERS[collection]]
    layouts = [Layout(folder, name) for folder in folders if folder.is_dir() for name in _NAMES]
    best, most = None, 0
    for layout in layouts:
        hits = sum(_is_file(layout.path(*image)) for image in probed)
        if hits > most:
            best, most = layout, hits
        if most == len(probed):
            break
    if best is not None:
        return best
    if not need_images:
        return Layout(folders[0], _NAMES[0])
    example = probed[0][1] or f"the image {probed[0][0]}"
    usual = ", ".join(name or "." for name in FOLDERS[collection][1 : 1 + _SHOWN_FOLDERS])
    raise FileNotFoundError(
        f"expected the images, such as {example!r}, in {str(folders[0])!r}, got none there nor in any other of "
        f"{len(folders)} usual places below {' and '.join(repr(str(base)) for base in bases)}, such as {usual}; put or "
        "link the folder of images there"
    )


def folders_above(path: Path) -> list[Path]:
    """The folder of a file and the two above it: where its images are looked for unless a folder is named."""
    above = path.parents if path.is_absolute() or len(path.parts) > 3 else path.absolute().parents
    return [path.parent, *above[1:3]]


def image_id_of(file_name: str) -> str:
    """The id of an image where the name of its file holds it, as in COCO and Flickr30k; else the name.

    >>> image_id_of("train2014/COCO_train2014_000000000025.jpg"), image_id_of("36979.jpg"), image_id_of("a cup.png")
    ('25', '36979', 'a cup.png')
    """
    match = _COCO_FILE.fullmatch(Path(file_name).name)
    return match[1] if match else file_name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
