"""How long one augmented training picture takes, beside plain Pillow doing the same work step by step.

python benchmarks/loading.py [PHOTO] [--size 416] [--num 60]: a photo is scaled to 640 x 480, and once more to the size
at which packed data is kept. The ways take turns within one run; figures are means of CPU time, the slowest and fastest
tenth left out.
"""

import argparse
import io
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from deixis.data.pipelines import PIPELINES, Pipeline
from deixis.data.transforms import View
from deixis.geometry.masks import box_from_mask
from deixis.language.phrases import VisibleInstance

FILL = (114, 114, 114)


def plain(image, mask, rng, size, augment):
    """Letterbox, mirror, colour, affine and blur as separate Pillow calls, and the box from the moved mask."""
    scale = size / max(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (size - width) // 2, (size - height) // 2
    canvas, mask_canvas = Image.new("RGB", (size, size), FILL), Image.new("L", (size, size))
    is_mirrored = rng.random() < augment.mirror
    if is_mirrored:
        image, mask = (one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in (image, mask))
    if augment.colour is not None:
        hue, saturation, value = image.convert("HSV").split()
        factors = rng.uniform(0.5, 1.5, 2)
        saturation, value = (
            plane.point([min(255, round(level * factor)) for level in range(256)])
            for plane, factor in zip((saturation, value), factors, strict=True)
        )
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    mask_canvas.paste(mask.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    if augment.affine is not None:
        angle, dx, dy, shear = rng.uniform(-1, 1, 4)
        move = (int(dx * size / 10), int(dy * size / 10))
        wide = np.tan(np.radians(2 * shear))
        grow = rng.uniform(0.9, 1.1)
        moved = (1 / grow, wide, (1 - 1 / grow - wide) * size / 2, 0, 1 / grow, (1 - 1 / grow) * size / 2)
        canvas = canvas.rotate(5 * angle, Image.Resampling.BILINEAR, translate=move, fillcolor=FILL)
        canvas = canvas.transform(canvas.size, Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR, fillcolor=FILL)
        mask_canvas = mask_canvas.rotate(5 * angle, Image.Resampling.BILINEAR, translate=move)
        mask_canvas = mask_canvas.transform(canvas.size, Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR)
    if augment.blur is not None and rng.random() < augment.blur.chance:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2)))
    return np.asarray(canvas), box_from_mask(np.asarray(mask_canvas) >= 128)


def ours(pixels, thing, rng, size, augment):
    return augment.on_canvas(View(pixels, (thing,)), ["the red one"], rng, size)


def milliseconds(work):
    begun = time.process_time()
    work()
    return 1000 * (time.process_time() - begun)


def compare(name, augment, photo, size, num):
    """Print the means of ``num`` pictures: plain from a JPEG, ours from that and from pixels as packs hold them."""
    jpeg = io.BytesIO()
    photo.save(jpeg, "JPEG", quality=92)
    rows, columns = np.ogrid[: photo.height, : photo.width]
    mask = (rows - photo.height / 2) ** 2 + (columns - photo.width / 2) ** 2 < (photo.height / 4) ** 2
    mask_image = Image.fromarray(mask.astype(np.uint8) * 255)
    scale = size / max(photo.size)
    packed_wh = (round(photo.width * scale), round(photo.height * scale))
    packed = np.asarray(photo.resize(packed_wh, Image.Resampling.BILINEAR))
    packed_mask = np.asarray(mask_image.resize(packed_wh)) >= 128
    thing, packed_thing = (
        VisibleInstance(category="thing", box_xyxy_px=box_from_mask(one), mask=one) for one in (mask, packed_mask)
    )

    def decode():
        return Image.open(jpeg).convert("RGB")

    took = [], [], []
    for seed in range(num + 3):

        def rng(seed=seed):
            return np.random.default_rng(seed)

        took[0].append(milliseconds(lambda: plain(decode(), mask_image, rng(), size, augment)))
        took[1].append(milliseconds(lambda: ours(np.asarray(decode()), thing, rng(), size, augment)))
        took[2].append(milliseconds(lambda: ours(packed, packed_thing, rng(), size, augment)))
    step, jpegs, pack = (statistics.mean(sorted(one[3:])[num // 10 : -(num // 10) or None]) for one in took)
    print(f"{name:8}{size:5}{step:9.2f}{jpegs:9.2f}{pack:9.2f}{step / jpegs:12.2f}{step / pack:12.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", default=Path(__file__).parent.parent / "examples/photos/riders.jpg")
    parser.add_argument("--size", type=int, nargs="+", default=[416, 512])
    parser.add_argument("--num", type=int, default=60)
    options = parser.parse_args()
    photo = Image.open(options.photo).convert("RGB").resize((640, 480))
    print(f"{'':13}{'ms':>9}{'':18}{'times as fast as plain':>24}")
    print(f"{'list':8}{'size':>5}{'plain':>9}{'JPEG':>9}{'packed':>9}{'JPEG':>12}{'packed':>12}")
    steps = {"mcn": PIPELINES["mcn"], "mirror": Pipeline(mirror=0.5), "smcim": PIPELINES["smcim"]}
    for size in options.size:
        for name, augment in steps.items():
            compare(name, augment, photo, size, options.num)


if __name__ == "__main__":
    main()
