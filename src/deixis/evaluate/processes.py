"""Share the predicting out, to processes started here or by torchrun; the samples of an image stay together."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deixis.evaluate.predict import AbsentPhrases, Part, Predictor
from deixis.evaluate.predictions import Prediction
from deixis.structures import Sample

if TYPE_CHECKING:
    from deixis.grounder import Grounder

SAMPLES_AT_ONCE = 32
Pieces = Iterator[tuple[range, list[Part]]]
"""For each piece of the data set, in order: its indices and its parts, as one process alone gives them."""
_count = itertools.count()


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

    def predictor(self, grounder: Grounder, samples: Sequence[Sample]) -> Predictor:
        """Asks this model this data."""
        return Predictor(
            grounder=grounder,
            dataset=samples,
            name=self.dataset,
            absent=AbsentPhrases(samples) if self.absent else None,
            cases=self.baselines,
            keep_masks=self.keep_masks,
        )


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
    """Whether a sample is of another image than the one before it; False where one of them cannot be read."""
    try:
        return samples[index].image_id != samples[index - 1].image_id
    except (ValueError, OSError):
        return False


def parts_by_processes(
    task: Task, samples: Sequence[Sample], known: Mapping[int, Prediction], processes: int
) -> Generator[tuple[range, list[Part]]]:
    """Predict in processes of our own; yields `Pieces`.

    Where it ends early, by Ctrl-C or because the caller stops, the processes are stopped at once.

    Args:
        task: what every process opens for itself.
        samples: the same data set, opened here.
        known: earlier predictions by index.
        processes: how many; the processor's threads are shared between them.

    Raises:
        ChildProcessError: one of them was stopped from outside.
    """
    import torch

    pieces = list(split_by_image(samples, SAMPLES_AT_ONCE))
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
        yield from zip(pieces, pool.map(_predict, pieces, already), strict=True)
    except BaseException as error:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                f"expected all {processes} processes to go on, got one that was stopped from outside, perhaps for lack "
                "of memory; take fewer, and with --report the same command goes on from there"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_predictor: Predictor | None = None


def _begin(task: Task, threads: int) -> None:
    global _predictor  # a process of the pool has one task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    import torch

    torch.set_num_threads(threads)
    _predictor = task.predictor(task.load(), task.open())


def _predict(piece: range, known: Mapping[int, Prediction]) -> list[Part]:
    assert _predictor is not None
    return list(_predictor.parts(piece, known))


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started for one evaluation."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0

    def own(self, pieces: Sequence[range]) -> Sequence[range]:
        """Every ``size``-th piece: none is another process's too, and none is left out."""
        return pieces[self.rank :: self.size]

    def parts(self, predictor: Predictor, known: Mapping[int, Prediction]) -> Pieces:
        """Predict together with the other processes, which all call this; each of them gets all pieces.

        Args:
            predictor: the same model and data set in all processes, opened by each.
            known: earlier predictions by index; those of the first process count.
        """
        import torch.distributed as dist

        shared = [known]
        dist.broadcast_object_list(shared)
        pieces = list(split_by_image(predictor.dataset, SAMPLES_AT_ONCE))
        own = iter(self.own(pieces))
        for start in range(0, len(pieces), self.size):
            piece = next(own, None)
            mine = [] if piece is None else list(predictor.parts(piece, shared[0]))
            answers: list[list[Part]] = [[] for _ in range(self.size)]
            dist.all_gather_object(answers, mine)
            yield from zip(pieces[start : start + self.size], answers, strict=False)


@contextmanager
def torchrun_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started, over the CPU's network; one process where it did not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    joined = dist.is_initialized()
    if not joined:
        store, rank, _ = next(iter(rendezvous("env://")))
        # torchrun's store still holds the addresses of an evaluation before this one, or of a start that failed
        name = f"evaluation-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{next(_count)}"
        dist.init_process_group("gloo", store=PrefixStore(name, store), rank=rank, world_size=size)
    try:
        yield Ranks(dist.get_rank(), size)
    finally:
        if not joined:
            dist.destroy_process_group()
