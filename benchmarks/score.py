"""How long ``deixis score`` takes for a file of many predictions with boxes and masks, and how much memory.

python benchmarks/score.py [--lines 100000]: data and predictions are made up, on images of 640 x 480.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from deixis.geometry.masks import encode_rle

HW = (480, 640)
PHRASES_AN_IMAGE = 5
WORDS = ("left", "red", "second", "dog", "man", "next to", "the", "not", "big", "shirt")


def some_masks(rng, count=300):
    """Wavy blobs, about as long as run lengths as things in photos, with their boxes."""
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    masks = []
    for _ in range(count):
        x, y, radius = rng.uniform(150, 490), rng.uniform(120, 360), rng.uniform(30, 110)
        angle = np.arctan2(rows - y, columns - x)
        edge = radius * (1 + 0.2 * np.sin(rng.integers(3, 12) * angle))
        mask = (columns - x) ** 2 + (rows - y) ** 2 < edge**2
        masks.append((encode_rle(mask), [x - radius, y - radius, x + radius, y + radius]))
    return masks


def write_files(folder, lines):
    rng, chance = np.random.default_rng(0), random.Random(0)
    masks, predictions = some_masks(rng), []
    with (folder / "data.jsonl").open("w") as data:
        for number in range(lines):
            mask, box = chance.choice(masks)
            phrase = " ".join(chance.choices(WORDS, k=chance.randint(1, 8)))
            image = f"{number // PHRASES_AN_IMAGE}.jpg"
            record = {"id": number, "image": image, "phrase": phrase, "box": box, "mask": mask, "category": "thing"}
            data.write(json.dumps(record) + "\n")
            other, near = chance.choice(masks)
            predictions.append(json.dumps({"id": number, "box": near, "mask": other}) + "\n")
    chance.shuffle(predictions)
    (folder / "predictions.jsonl").write_text("".join(predictions))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.lines)
        begun = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "deixis",
            "score",
            str(folder / "predictions.jsonl"),
            str(folder / "data.jsonl"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{options.lines} lines with boxes and masks: {seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of "
        f"processor time), peak memory {used.ru_maxrss / 1024**2:.2f} GB"
    )


if __name__ == "__main__":
    main()
