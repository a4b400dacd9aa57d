"""Augmentations in which image, boxes, masks and words move together.

Two kinds. A `View` is an image with all its annotated things and no words yet: its transforms are free, because the
phrases are written afterwards, for what is then to be seen. What moves an image whose phrase is already there
(`mirror_phrased`, `crop_phrased`, and `deixis.data.augment.pipelines`) does nothing where the phrase would become
untrue.

Every function is pure, and what draws by chance takes a NumPy generator. Arrays of the result may share memory with
those of the argument, so write into neither.
"""

from deixis.data.augment.chance import random_view
from deixis.data.augment.cropping import crop, crop_phrased, random_crop
from deixis.data.augment.looks import blur, colour_jitter, grey, scale_saturation_and_value
from deixis.data.augment.mirroring import Phrased, mirror, mirror_phrased, random_mirror
from deixis.data.augment.pasting import Cutout, cut_out, paste, random_paste
from deixis.data.augment.resizing import resize, zoom_out
from deixis.data.augment.views import View, WindowXyxy
from deixis.data.augment.warping import AffineRange, affine_matrix, random_affine, warp

__all__ = [
    "AffineRange",
    "Cutout",
    "Phrased",
    "View",
    "WindowXyxy",
    "affine_matrix",
    "blur",
    "colour_jitter",
    "crop",
    "crop_phrased",
    "cut_out",
    "grey",
    "mirror",
    "mirror_phrased",
    "paste",
    "random_affine",
    "random_crop",
    "random_mirror",
    "random_paste",
    "random_view",
    "resize",
    "scale_saturation_and_value",
    "warp",
    "zoom_out",
]
