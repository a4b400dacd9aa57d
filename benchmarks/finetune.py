"""Fine-tune a checkpoint on drawn scenes of shapes and words that it has never seen; what it gains, what it loses.

python benchmarks/finetune.py --out FOLDER [--images 240] [--plain] [--draw-only] [--FIELD VALUE ...]. Pictures and
phrases are those of `scenes+` and `scenes`, each of the ten shapes replaced by a new one and all things of a picture
in one plain colour, so that the new words count: FOLDER/new/*.png and .jsonl, every phrase names a new shape. It runs
`deixis train finetune --keep` (--plain: without --keep) on the train part, and measures both checkpoints on the test
part and on scenes:val.
"""

import argparse
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from deixis.data import open_dataset
from deixis.data.formats.jsonl import write_jsonl
from deixis.data.scenes import samples_of, seed_scene, vocabulary
from deixis.data.scenes.drawing import OUTLINES, fit_outline, place
from deixis.data.scenes.layout import sample_layout
from deixis.data.scenes.painting import Style, paint, sample_background
from deixis.data.scenes.writer import write
from deixis.grounder import load
from deixis.train.finetune_report import measure

SIZE = 256
SEED = 77
NEW = {
    "house": [(0, -1), (1, -0.2), (0.75, -0.2), (0.75, 1), (-0.75, 1), (-0.75, -0.2), (-1, -0.2)],
    "tree": [(0, -1), (0.8, 0.1), (0.35, 0.1), (0.9, 0.6), (0.18, 0.6), (0.18, 1), (-0.18, 1), (-0.18, 0.6),
             (-0.9, 0.6), (-0.35, 0.1), (-0.8, 0.1)],
    "fish": [(-1, 0), (-0.5, -0.45), (0, -0.5), (0.5, -0.15), (1, -0.5), (1, 0.5), (0.5, 0.15), (0, 0.5), (-0.5, 0.45)],
    "bolt": [(0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.2), (0.05, -0.2)],
    "hourglass": [(-0.8, -1), (0.8, -1), (0.12, 0), (0.8, 1), (-0.8, 1), (-0.12, 0)],
    "flag": [(-0.8, -1), (0.9, -0.55), (-0.6, -0.1), (-0.6, 1), (-0.8, 1)],
    "stairs": [(-1, 1), (-1, 0.33), (-0.33, 0.33), (-0.33, -0.33), (0.33, -0.33), (0.33, -1), (1, -1), (1, 1)],
    "crown": [(-1, -0.7), (-0.5, 0), (0, -0.9), (0.5, 0), (1, -0.7), (0.8, 0.7), (-0.8, 0.7)],
    "mushroom": [(-1, 0), (-0.75, -0.6), (0, -0.9), (0.75, -0.6), (1, 0), (0.25, 0), (0.35, 0.9), (-0.35, 0.9),
                 (-0.25, 0)],
    "anchor": [(-0.12, -1), (0.12, -1), (0.12, -0.65), (0.5, -0.65), (0.5, -0.45), (0.12, -0.45), (0.12, 0.6),
               (0.7, 0.15), (0.95, 0.3), (0, 1), (-0.95, 0.3), (-0.7, 0.15), (-0.12, 0.6), (-0.12, -0.45),
               (-0.5, -0.45), (-0.5, -0.65), (-0.12, -0.65)],
}  # fmt: skip
"""New shapes by name; each takes the place of one of the drawn scenes' own."""


@contextmanager
def new_shapes():
    """Let the drawn scenes' tables know the new shapes for a while."""
    before = dict(vocabulary.SHAPES)
    OUTLINES.update({name: (fit_outline(np.array(points, dtype=float)), None) for name, points in NEW.items()})
    vocabulary.SHAPES.update({name: (name,) for name in NEW})
    try:
        yield dict(zip(before, NEW, strict=True))
    finally:
        for name in NEW:
            del OUTLINES[name], vocabulary.SHAPES[name]


def draw(flavour, split, index, phrases, instead):
    """One picture and what is said of it, in the manner of `deixis.data.scenes.draw_scene`."""
    for attempt in range(100):
        seeds = seed_scene(flavour, split, index, SEED, attempt)
        layout_rng, phrase_rng, paint_rng = (np.random.default_rng(one) for one in seeds.spawn(3))
        known = dict(vocabulary.SHAPES)
        for name in NEW:  # the layout draws from the old table
            del vocabulary.SHAPES[name]
        instances = sample_layout(flavour, split, layout_rng)
        vocabulary.SHAPES.update(known)
        looks = {"colour": instances[0].colour, "texture": "plain"}
        drawing = place([replace(one, shape=instead[one.shape], **looks) for one in instances], SIZE)
        if len(drawing.facts) < 2:
            continue
        told = write(drawing.facts, flavour, phrase_rng, referents=range(len(drawing.facts)), count=2 * phrases + 2)
        told = [one for one in told if any(name in one.text.split() for name in NEW)][:phrases]
        if told:
            image = paint(drawing, sample_background(SIZE, paint_rng, ()), Style.sample(paint_rng), paint_rng)
            return image, samples_of(drawing, told, image, f"{flavour}-{split}-{index}".replace("+", "p"), split)
    raise RuntimeError(f"nothing to say of {flavour}:{split} {index}")


def write_domain(folder, split, count, phrases):
    """PNGs and FOLDER/SPLIT.jsonl of ``count`` pictures; the file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with new_shapes() as instead:
        for index in range(count):
            flavour = "scenes" if index % 4 == 3 else "scenes+"
            image, samples = draw(flavour, split, index, phrases, instead)
            path = folder / f"{samples[0].image_id}.png"
            Image.fromarray(image).save(path)
            lines += [replace(one, image=path, image_id=path.name, split="", instances=()) for one in samples]
    write_jsonl(folder / f"{split}.jsonl", lines)
    return folder / f"{split}.jsonl"


def accuracy(model, samples):
    tally = measure(load(model), samples)
    return {name: 100 * tally.value(name) for name in ("rec.acc@0.5", "res.miou")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="deixis-tiny")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--test-images", type=int, default=150)
    parser.add_argument("--kept", type=int, default=1000, help="samples of scenes:val")
    parser.add_argument("--plain", action="store_true", help="without --keep")
    parser.add_argument("--draw-only", action="store_true")
    options, rest = parser.parse_known_args()
    data = write_domain(options.out / "new", "train", options.images, 4)
    test = write_domain(options.out / "new", "val", options.test_images, 2)
    if options.draw_only:
        return
    held = {"new": open_dataset(test), "scenes:val": open_dataset("scenes", split="val", limit=options.kept)}
    before = {name: accuracy(options.model, samples) for name, samples in held.items()}
    print({name: {k: round(v, 1) for k, v in one.items()} for name, one in before.items()}, flush=True)
    run = options.out / ("run-plain" if options.plain else "run")
    words = ["train", "finetune", "--data", data, "--model", options.model, "--out", run, *rest]
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "deixis", *map(str, words), *([] if options.plain else ["--keep"])], check=True
    )
    minutes = (time.perf_counter() - begun) / 60
    after = {name: accuracy(run / "checkpoint", samples) for name, samples in held.items()}
    print(f"{minutes:.1f} minutes of fine-tuning, the report included")
    for name, samples in held.items():
        for figure in after[name]:
            a, b = before[name][figure], after[name][figure]
            print(f"{name:12}{len(samples):6}  {figure:12}{a:8.1f}{b:8.1f}{b - a:+8.1f}")


if __name__ == "__main__":
    main()
