"""Training samples a second by a recipe with Deixis' defaults, beside the same model in plain float32 PyTorch.

python benchmarks/training.py [RECIPE ...] [--num-steps 6] [--FIELD VALUE ...]. Plain is eager float32 with
tensors laid out as torch makes them and a loader in the same process. Both take turns, step by step, in one run, on
batches of the same steps; figures are medians of wall time. ``waiting`` is the share of a step that Deixis spends
waiting for its data.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

from deixis.cli.train import parse_fields
from deixis.train.recipes import recipe
from deixis.train.starting import in_steps, start_data
from deixis.train.trainer import Trainer, batches, canvas_rules


class Side:
    """A trainer with its loader, stepped by hand."""

    def __init__(self, made, source):
        self.trainer = Trainer(made, getattr(source, "samples", ()))
        if not made.channels_last:
            model = self.trainer.model
            encoder = model.image.encoder if made.model.startswith("deixis") else model.encoder
            encoder.register_forward_pre_hook(lambda _, given: tuple(one.contiguous() for one in given))
        self.batches = batches(source, made, 0, canvas_rules(self.trainer.model, made))
        self.waited, self.took, self.samples = [], [], []

    def step(self):
        begun = time.perf_counter()
        batch = next(self.batches)
        loaded = time.perf_counter()
        self.trainer.train_step(batch)
        self.waited.append(loaded - begun)
        self.took.append(time.perf_counter() - begun)
        self.samples.append(len(batch.phrases))

    def rate(self, skip):
        return statistics.median(n / t for n, t in zip(self.samples[skip:], self.took[skip:], strict=True))


def compare(name, made, steps):
    source = start_data(made)
    made = replace(in_steps(made, source), steps=steps)
    plain = replace(made, bfloat16=False, channels_last=False, compile=False, workers=0)
    sides = {"Deixis": Side(made, source), "plain": Side(plain, source)}
    for _ in range(steps):
        for side in sides.values():
            side.step()
    skip = min(2, steps - 1)
    deixis, other = (side.rate(skip) for side in sides.values())
    held = sides["Deixis"]
    waiting = sum(held.waited[skip:]) / sum(held.took[skip:])
    print(f"{name:16}{deixis:12.3f}{other:12.3f}{deixis / other:10.2f}{100 * waiting:10.1f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=["smcim-scenes", "mcn-scenes"])
    parser.add_argument("--num-steps", type=int, default=6)
    options, rest = parser.parse_known_args()
    print(f"{torch.get_num_threads()} threads; samples a second, the ratio, and Deixis' waiting for data")
    print(f"{'recipe':16}{'Deixis':>12}{'plain':>12}{'ratio':>10}{'waiting':>12}")
    for name in options.recipes:
        compare(name, recipe(name, **parse_fields(rest, recipe(name))), options.num_steps)


if __name__ == "__main__":
    main()
