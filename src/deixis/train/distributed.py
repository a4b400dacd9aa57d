"""One training by several processes under torchrun: gloo between CPUs, NCCL between GPUs.

Every process makes the whole batch and works on its share of the pictures; gradients are added up, so that the step is
that of one process. Batch-norm is synchronised on GPUs; on CPUs, where torch has no such layer, each process normalises
its own share, and the running statistics are averaged after each step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from deixis.models.base import GroundingModel
from deixis.train.parts import Part, is_largest

_BUCKET = 4_000_000
"""Values of gradients that travel together."""


@dataclass(frozen=True)
class Group:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    by_torchrun: bool = False
    """Whether torchrun started the processes, and starts them again after a failure or with other machines."""

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def own(self, parts: Sequence[Part]) -> Sequence[Part]:
        """This process's share of the parts of a batch, as many for each."""
        each = len(parts) // self.size
        return parts[self.rank * each : (self.rank + 1) * each]

    def largest(self, values: Sequence[float]) -> list[float]:
        """Of each value the largest among the processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return together.tolist()

    def merge(self, losses: dict[str, float]) -> dict[str, float]:
        """The processes' losses together, the same for all; see `parts.scaled`."""
        if self.size == 1:
            return losses
        values = torch.tensor(list(losses.values()), dtype=torch.float64, device=self.device)
        largest = values.clone()
        dist.all_reduce(values)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        pairs = zip(losses, values.tolist(), largest.tolist(), strict=True)
        return {name: most if is_largest(name) else total for name, total, most in pairs}

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes the sum of the processes'; one that none of them has stays None."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        known = self.largest([parameter.grad is not None for parameter in trained])
        for bucket in _buckets([p for p, one in zip(trained, known, strict=True) if one]):
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            sizes = [gradient.numel() for gradient in gradients]
            for gradient, piece in zip(gradients, flat.split(sizes), strict=True):
                gradient.copy_(piece.view_as(gradient))  # into its own layout, which the optimiser relies on

    def average_statistics(self, model: nn.Module) -> None:
        """Batch-norm's running statistics become the processes' mean."""
        for module in model.modules() if self.size > 1 else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                for buffer in (module.running_mean, module.running_var):
                    if buffer is not None:
                        dist.all_reduce(buffer)
                        buffer /= self.size

    def synchronise_norms(self, model: GroundingModel) -> GroundingModel:
        """The model with batch-norm over all processes' pictures, where there is such a layer."""
        if self.size == 1 or self.device.type == "cpu":
            return model
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place, but for a model that is itself such a layer
        return model

    def seed(self, *numbers: int) -> None:
        """With several processes: random numbers that differ between them and follow from ``numbers`` alone."""
        if self.size > 1:
            mixed = 0
            for number in (*numbers, self.rank):
                mixed = (mixed * 1_000_003 + number) % 2**63
            torch.manual_seed(mixed)

    def check_same(self, step: int) -> None:
        """Raise ValueError where the processes would go on from different steps."""
        most, least = self.largest([step, -step])
        if most != -least:
            raise ValueError(
                f"expected all processes to go on from one step, got {int(-least)} to {int(most)}; let all machines "
                "see the same run folder"
            )


ALONE = Group()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one type, about `_BUCKET` values together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (parameter.dtype != bucket[0].dtype or sum(p.numel() for p in bucket) >= _BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


@contextmanager
def process_group() -> Iterator[Group]:
    """Join the processes that torchrun started, or stand alone; one that exists already is used and left."""
    joined, by_torchrun = dist.is_initialized(), "TORCHELASTIC_RUN_ID" in os.environ
    size = dist.get_world_size() if joined else int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(device=_device(0), by_torchrun=by_torchrun)
        return
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    if not joined:
        _join(device, size)
    try:
        yield Group(dist.get_rank(), size, device, by_torchrun)
    finally:
        if not joined:
            dist.destroy_process_group()


def _join(device: torch.device, size: int) -> None:
    """Meet under a name of this start: torchrun's store still holds the addresses of those that failed before."""
    store, rank, _ = next(iter(rendezvous("env://")))
    start = f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-of-{size}"
    backend = "gloo" if device.type == "cpu" else "nccl"
    dist.init_process_group(backend, store=PrefixStore(start, store), rank=rank, world_size=size)


def _device(number: int) -> torch.device:
    """The GPU of that number on this machine, where there are any; else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if number >= torch.cuda.device_count():
        raise ValueError(
            f"expected a GPU for each process, got {torch.cuda.device_count()} for process {number + 1}; start as many "
            "processes as there are GPUs, or hide these by CUDA_VISIBLE_DEVICES="
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
