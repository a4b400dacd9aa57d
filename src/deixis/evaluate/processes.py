"""The same asking by several processes, each with a model of its own; images are never split between them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deixis.evaluate.metrics.slices import length_bounds
from deixis.evaluate.prediction_log import Prediction
from deixis.evaluate.running import AbsentPhrases, Asker, Part
from deixis.structures import Sample

if TYPE_CHECKING:
    from deixis.grounder import Grounder

_SAMPLES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is measured on what: all that a process needs to begin."""

    model: str
    dataset: str
    split: str | None
    root: Path | None = None
    limit: int | None = None
    precision: str = "auto"
    suppression: str | None = None
    """In place of the model's own."""
    absent: bool = True
    baselines: bool = True
    keep_masks: bool = False

    def load(self) -> Grounder:
        """The model.

        Raises:
            FileNotFoundError, ValueError: it is not there, or damaged.
        """
        from deixis.grounder import load

        grounder = load(self.model, precision=self.precision)
        grounder.suppression = self.suppression or grounder.suppression
        return grounder

    def open(self) -> Sequence[Sample]:
        """The data set.

        Raises:
            FileNotFoundError, ValueError: it is not there, or malformed.
        """
        from deixis.data import open_dataset

        return open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit)

    def asker(self, grounder: Grounder, samples: Sequence[Sample]) -> Asker:
        """Asks this model this data."""
        return Asker(
            grounder=grounder,
            dataset=samples,
            length_bounds=length_bounds(self.dataset),
            absent=AbsentPhrases(samples) if self.absent else None,
            cases=self.baselines,
            keep_masks=self.keep_masks,
        )


def parts_by_processes(
    task: Task, samples: Sequence[Sample], known: Mapping[int, Prediction], processes: int
) -> Generator[tuple[range, list[Part]]]:
    """Yield what comes of each piece of the data set, in order: its indices and its parts, as one process gives them.

    Where asking ends early, by Ctrl-C or as nobody asks on, the processes are stopped at once.

    Args:
        task: what every process opens for itself.
        samples: the same data set, opened here.
        known: earlier answers by index.
        processes: how many; the processor's threads are shared between them.

    Raises:
        ChildProcessError: one of them was stopped from outside.
    """
    import torch

    pieces = list(split_by_image(samples, _SAMPLES_AT_ONCE))
    threads = max(1, torch.get_num_threads() // processes)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(processes, len(pieces)) or 1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(task, threads),
    )
    try:
        already = [{index: known[index] for index in piece if index in known} for piece in pieces]
        yield from zip(pieces, pool.map(_answer, pieces, already), strict=True)
    except BaseException as error:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                f"expected all {processes} processes to go on, got one that was stopped from outside, perhaps for want "
                "of memory; take fewer, and with --report the same command goes on from there"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def split_by_image(samples: Sequence[Sample], at_least: int) -> Iterator[range]:
    """Pieces of a data set of ``at_least`` samples and more: none begins or ends between two samples of one image."""
    start = 0
    while start < len(samples):
        stop = start + at_least
        while stop < len(samples) and not _changes_image(samples, stop):
            stop += 1
        yield range(start, min(stop, len(samples)))
        start = stop


def _changes_image(samples: Sequence[Sample], index: int) -> bool:
    """Whether a sample is of another image than the one before it; where one cannot be read, nobody knows."""
    try:
        return samples[index].image_id != samples[index - 1].image_id
    except (ValueError, OSError):
        return False


_asker: Asker | None = None


def _begin(task: Task, threads: int) -> None:
    global _asker  # a process of the pool has one task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    import torch

    torch.set_num_threads(threads)
    _asker = task.asker(task.load(), task.open())


def _answer(piece: range, known: Mapping[int, Prediction]) -> list[Part]:
    assert _asker is not None
    return list(_asker.parts(piece, known))
