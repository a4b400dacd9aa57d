"""How long a grounding takes on this machine, and how much memory the process needs.

python benchmarks/ground.py [PHOTO]: a photo is scaled to 640 x 480 and read from a JPEG at every look.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

import deixis

RUNS = 30


def milliseconds(work):
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", default=Path(__file__).parent.parent / "examples/photos/riders.jpg")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    grounder = deixis.load(precision=options.precision)
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.open(options.photo).convert("RGB").resize((640, 480)).save(photo, quality=92)
        first, following = [], []
        for _ in range(RUNS + 3):
            kept = []
            first.append(
                milliseconds(lambda kept=kept: kept.append(grounder.look(photo)) or kept[0].ground("left horse"))
            )
            following.append(milliseconds(lambda kept=kept: kept[0].ground("the man on the right")))
    one, more = statistics.median(first[3:]), statistics.median(following[3:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{torch.get_num_threads()} threads, {str(grounder.dtype).removeprefix('torch.')}, median of {RUNS} runs")
    print(f"first phrase {one:.1f} ms, further phrase {more:.1f} ms, ratio {more / one:.3f}, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
