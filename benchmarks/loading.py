"""How long one augmented training picture takes, beside plain Pillow doing the same work step by step.

python benchmarks/loading.py [PHOTO] [--size 416] [--num 60] [--pack]: a photo is scaled to 640 x 480, and once more to
the size at which packed data is kept. The ways take turns within one run; figures are means of CPU time, the slowest
and fastest tenth left out.

With --pack the pictures come from files: a folder of JPEGs with one polygon each, and a pack that `write_pack` makes of
it. Plain reads and decodes the JPEG and draws the polygon; ours goes all the way of training, from the sample's record
to the batch of one picture, from the JPEGs and from the pack.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from deixis.data import open_dataset
from deixis.data.augment.pipelines import PIPELINES, Pipeline
from deixis.data.batches import BatchShape, Epochs
from deixis.data.formats.jsonl import write_jsonl
from deixis.data.packed import write_pack
from deixis.geometry.masks import box_from_mask
from deixis.structures import AnnotatedImage, Expression, Sample

FILES = 24
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
    if augment.photometric:
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
    if augment.photometric and rng.random() < 0.5:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2)))
    return np.asarray(canvas), mask_canvas, box_from_mask(np.asarray(mask_canvas) >= 128)


def ours(pixels, thing, rng, size, augment):
    return augment.on_canvas(AnnotatedImage(pixels, expressions=(thing,)), rng, size)


def write_files(photo, folder):
    """JPEGs that differ, each with an ellipse of 40 corners that is meant."""
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    samples = []
    for number in range(FILES):
        path = folder / f"{number}.jpg"
        photo.transform(photo.size, Image.Transform.AFFINE, (1, 0, number, 0, 1, number)).save(path, quality=92)
        x, y = 250 + 5 * number + 120 * np.cos(turns), 240 + 120 * np.sin(turns)
        polygon = np.column_stack([x, y]).ravel().tolist()
        box = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
        samples.append(
            Sample(
                id=str(number), image=path, image_id=path.name, phrase="the red one", box_xyxy_px=box, mask=[polygon]
            )
        )
    write_jsonl(folder / "samples.jsonl", samples)
    return open_dataset(folder / "samples.jsonl")


def compare_files(name, augment, files, pack, size, num):
    """Print the means of ``num`` pictures, each way from its files to what a step takes."""
    ours = [Epochs(samples, [[one] for one in range(len(samples))], augment) for samples in (files, pack)]

    def plain_batch(seed):
        sample = files[seed % len(files)]
        mask = Image.new("L", (640, 480))
        ImageDraw.Draw(mask).polygon(sample.mask[0], fill=255)
        photo = Image.open(sample.image).convert("RGB")
        canvas, mask, box = plain(photo, mask, np.random.default_rng(seed), size, augment)
        cells = np.asarray(mask.resize((size // 4, size // 4), Image.Resampling.BOX), np.float32) / 255
        return canvas[None].copy(), cells[None], np.array([box or (0, 0, 0, 0)], np.float32) / size

    took = [], [], []
    for seed in range(num + 3):
        took[0].append(milliseconds(lambda seed=seed: plain_batch(seed)))
        for one, epochs in zip(took[1:], ours, strict=True):
            shape = BatchShape(images=1, phrases=1, size=size)
            one.append(milliseconds(lambda epochs=epochs, seed=seed, shape=shape: epochs.batch(0, seed, shape)))
    print_row(name, size, num, took)


def print_row(name, size, num, took):
    step, jpegs, pack = (statistics.mean(sorted(one[3:])[num // 10 : -(num // 10) or None]) for one in took)
    print(f"{name:8}{size:5}{step:9.2f}{jpegs:9.2f}{pack:9.2f}{step / jpegs:12.2f}{step / pack:12.2f}")


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
    thing, packed_thing = (Expression("the red one", box_from_mask(one), one, "thing") for one in (mask, packed_mask))

    def decode():
        return Image.open(jpeg).convert("RGB")

    took = [], [], []
    for seed in range(num + 3):

        def rng(seed=seed):
            return np.random.default_rng(seed)

        took[0].append(milliseconds(lambda: plain(decode(), mask_image, rng(), size, augment)))
        took[1].append(milliseconds(lambda: ours(np.asarray(decode()), thing, rng(), size, augment)))
        took[2].append(milliseconds(lambda: ours(packed, packed_thing, rng(), size, augment)))
    print_row(name, size, num, took)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", default=Path(__file__).parent.parent / "examples/photos/riders.jpg")
    parser.add_argument("--size", type=int, nargs="+", default=[416, 512])
    parser.add_argument("--num", type=int, default=60)
    parser.add_argument("--pack", action="store_true", help="read files, and a pack of them")
    options = parser.parse_args()
    photo = Image.open(options.photo).convert("RGB").resize((640, 480))
    print(f"{'':13}{'ms':>9}{'':18}{'times as fast as plain':>24}")
    print(f"{'list':8}{'size':>5}{'plain':>9}{'JPEG':>9}{'packed':>9}{'JPEG':>12}{'packed':>12}")
    steps = {"mcn": PIPELINES["mcn"], "mirror": Pipeline(mirror=0.5), "smcim": PIPELINES["smcim"]}
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(photo, Path(folder)) if options.pack else []
        for size in options.size:
            if options.pack:
                write_pack(files, Path(folder) / str(size), size)
            for name, augment in steps.items():
                if options.pack:
                    compare_files(name, augment, files, open_dataset(Path(folder) / str(size)), size, options.num)
                else:
                    compare(name, augment, photo, size, options.num)


if __name__ == "__main__":
    main()
