"""The same asking by the processes that torchrun started, on one machine or several; images are never split."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deixis.evaluate.processes import Task, split_by_image

if TYPE_CHECKING:
    from deixis.evaluate.prediction_log import Prediction
    from deixis.evaluate.running import Part
    from deixis.grounder import Grounder
    from deixis.structures import Sample

SAMPLES_AT_ONCE = 32
_count = itertools.count()


@dataclass(frozen=True)
class Ranks:
    """This process among those of one evaluation."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def own(self, pieces: Sequence[range]) -> Sequence[range]:
        """Every ``size``-th piece: none is another process's too, and none is left out."""
        return pieces[self.rank :: self.size]

    def parts(
        self, task: Task, grounder: Grounder, samples: Sequence[Sample], known: Mapping[int, Prediction]
    ) -> Iterator[tuple[range, list[Part]]]:
        """Yield, in every process, what comes of each piece of the data set, in order, as one process alone gives it.

        Args:
            task: what is measured on what.
            grounder: its model, opened here.
            samples: its data set, likewise the same in all processes.
            known: earlier answers by index, of which those of the first process count.
        """
        import torch.distributed as dist

        shared = [known]
        dist.broadcast_object_list(shared)
        asker, pieces = task.asker(grounder, samples), list(split_by_image(samples, SAMPLES_AT_ONCE))
        own = iter(self.own(pieces))
        for start in range(0, len(pieces), self.size):
            piece = next(own, None)
            mine = [] if piece is None else list(asker.parts(piece, shared[0]))
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
