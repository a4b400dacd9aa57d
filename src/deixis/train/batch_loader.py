"""Batches of a run, by number, read beside the loop."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset

from deixis.data.batches import BatchShape, BatchSource, CanvasRules
from deixis.recipe import Recipe
from deixis.structures import TrainingBatch

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_BETWEEN_LOOKS = 1.0


class Steps(Dataset[TrainingBatch]):
    """Batch number i for any i: what workers read from."""

    def __init__(self, source: BatchSource, recipe: Recipe, rules: CanvasRules) -> None:
        self.source, self.recipe, self.rules = source, recipe, rules

    def __getitem__(self, step: int) -> TrainingBatch:
        """The batch of that step."""
        seed, data = self.recipe.run.seed, self.recipe.data
        size = random.Random(seed * 1_000_003 + step).choice(data.image_sizes)
        shape = BatchShape(images=data.images, phrases=data.phrases, size=size, absent=data.absent, rules=self.rules)
        return self.source.batch(seed, step, shape)


def batches(
    source: BatchSource,
    recipe: Recipe,
    start: int,
    rules: CanvasRules = CanvasRules(),  # noqa: B008  it is frozen
) -> Iterator[TrainingBatch]:
    """All batches from step ``start`` on."""
    loader = DataLoader(
        Steps(source, recipe, rules),
        batch_size=None,
        sampler=range(start, recipe.optimiser.steps),
        num_workers=recipe.run.workers,
        prefetch_factor=4 if recipe.run.workers else None,
        generator=torch.Generator(),  # else every start takes a number from the generator that dropout uses
        worker_init_fn=partial(_begin_worker, parent=os.getpid()),
    )
    with signals_held_back():
        workers = iter(loader)
    yield from workers


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Signals to stop wait until the end: one that met a worker before `_begin_worker` did would end it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_worker: int, parent: int) -> None:
    """Let a worker outlast a signal to all processes of a run, as the loop still has to save, but not the run."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    sys.stderr = sys.__stderr__  # not the progress bar's, of which a fork has the locks and not the thread


def _end_after(parent: int) -> None:
    """End this process when its parent is killed: torch's own way out waits for a batch that nobody fetches."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
