"""How many of the things that phrases mean are among the candidates of a ``deixis`` checkpoint's detector.

python benchmarks/proposals.py MODEL DATASET[:SPLIT] [DATASET[:SPLIT] ...] [--limit N]: each thing counts once, however
many phrases mean it. Prints the share of things that a candidate overlaps with IoU above 0.5 and above 0.7, among all
candidates and among the ten best.
"""

import argparse

import numpy as np
import torch

from deixis.data import open_dataset, parse_dataset_spec
from deixis.geometry.boxes import box_iou
from deixis.grounder import load

BEST = 10


def things_by_image(samples):
    """Image file or pixels and the different boxes that are meant in it."""
    images = {}
    for sample in samples:
        if sample.box_xyxy_px is not None:
            images.setdefault(sample.image_id, (sample.image, set()))[1].add(sample.box_xyxy_px)
    return images.values()


def candidates(grounder, image):
    """The detector's boxes on the original image, the best first: float [n, 4]."""
    seen = grounder.look(image)
    count = grounder.model.config.candidates
    boxes = seen.features.proposals[0, :count].float() * seen.frame.size
    valid = seen.features.valid[0, :count]
    return np.array([seen.frame.box_to_image(box, clip=True) for box in boxes[valid].tolist()])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    grounder = load(options.model)
    torch.set_grad_enabled(False)
    for spec in options.datasets:
        name, split = parse_dataset_spec(spec)
        best, early = [], []
        for image, things in things_by_image(open_dataset(name, split=split, limit=options.limit)):
            iou = box_iou(np.array(sorted(things))[:, None], candidates(grounder, image)[None])
            best += iou.max(1).tolist()
            early += iou[:, :BEST].max(1).tolist()
        best, early = np.array(best), np.array(early)
        print(
            f"{spec}: {len(best)} things; at IoU 0.5 {(best > 0.5).mean():.1%}, at 0.7 {(best > 0.7).mean():.1%}; "
            f"by the {BEST} best {(early > 0.5).mean():.1%}"
        )


if __name__ == "__main__":
    main()
