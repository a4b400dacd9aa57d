"""How well the score tells phrases that mean something in a picture from phrases of other pictures.

python benchmarks/existence.py MODEL DATASET[:SPLIT] [DATASET[:SPLIT] ...] [--limit N]: every phrase is asked of its own
picture, and beside it, where all that is in the picture is listed, one of another picture that surely means nothing
there. Prints the area under the ROC curve, and of the phrases that mean nothing the share whose score reaches what 80 %
of the others reach.
"""

import argparse

import numpy as np

from deixis.data import open_dataset, parse_dataset_spec
from deixis.grounder import calibrated, load
from deixis.train.calibrate import gather_evidence

TRUE_FOUND = 0.8


def area_under_roc(present, absent):
    """The chance that a score out of ``present`` is above one out of ``absent``, ties half."""
    above = (present[:, None] > absent[None]).mean()
    return above + (present[:, None] == absent[None]).mean() / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    grounder = load(options.model)
    for spec in options.datasets:
        name, split = parse_dataset_spec(spec)
        samples = open_dataset(name, split=split, limit=options.limit)
        evidence = gather_evidence(grounder, samples, absent_share=1.0, problems=[])
        weights = grounder.model.score_weights
        score = np.array([calibrated(one.signs, grounder.calibration, weights) for one in evidence])
        belongs = np.array([one.belongs for one in evidence])
        if belongs.all():
            print(f"{spec}: nothing is known to be absent from its pictures; use data that lists what they show")
            continue
        reached = np.quantile(score[belongs], 1 - TRUE_FOUND)
        print(
            f"{spec}: {belongs.sum()} phrases that mean something, {(~belongs).sum()} that do not; "
            f"AUROC {area_under_roc(score[belongs], score[~belongs]):.3f}; "
            f"false found at {TRUE_FOUND:.0%} true found {(score[~belongs] >= reached).mean():.1%}"
        )


if __name__ == "__main__":
    main()
