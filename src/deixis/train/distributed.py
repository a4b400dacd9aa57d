"""A batch in parts: one after the other to save memory, and by several processes under torchrun (gloo or NCCL).

Every process makes the whole batch and works on its share of the images; gradients are added up, so that the step is
that of one process, as losses that are means count by each part's share. Batch-norm is synchronised on GPUs; on CPUs,
where torch has no such layer, each process normalises its own share, and the running statistics are averaged after each
step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from deixis.models.base import GroundingModel
from deixis.structures import TrainingBatch

_LARGEST = ("difficulty_max", "sigma")
"""Beginnings of names of what is no mean: of several parts the largest counts."""
_BUCKET = 4_000_000
"""Values of gradients that travel together."""


@dataclass(frozen=True)
class Part:
    """Some images of a batch with all that belongs to them."""

    batch: TrainingBatch
    shares: dict[str, float] = field(default_factory=dict)
    """The part's share, 0..1, of what a mean may be over: see `Criterion.averaged_over`. Empty: the whole batch."""


def split_batch(batch: TrainingBatch, count: int) -> list[Part]:
    """``count`` parts of about as many images each, whose losses times their shares add up to the batch's.

    Where there are fewer images, some parts hold a copy of the first one that counts for nothing, so that every process
    takes every step that the others wait for.
    """
    if count == 1:
        return [Part(batch)]
    whole = _counts(batch)
    parts = []
    for images in np.array_split(np.arange(len(batch.pixels)), count):
        chosen = images_of(batch, images if len(images) else np.arange(1))
        own = _counts(chosen) if len(images) else dict.fromkeys(whole, 0)
        parts.append(Part(chosen, {name: own[name] / max(whole[name], 1) for name in whole}))
    return parts


def images_of(batch: TrainingBatch, images: NDArray[np.int64]) -> TrainingBatch:
    """Neighbouring images of a batch, with their phrases and instances."""
    rows = np.isin(batch.image_index, images)
    things = np.isin(batch.thing_index, images)
    boxed = np.isin(batch.boxed_index, images)
    return replace(
        batch,
        pixels=batch.pixels[images],
        content=batch.content[images],
        phrases=[phrase for phrase, one in zip(batch.phrases, rows, strict=True) if one],
        image_index=batch.image_index[rows] - images[0],
        boxes=batch.boxes[rows],
        masks=batch.masks[rows],
        has_mask=batch.has_mask[rows],
        present=batch.present[rows],
        thing_index=batch.thing_index[things] - images[0],
        thing_cells=batch.thing_cells[things],
        thing_labels=batch.thing_labels[things],
        boxed_index=batch.boxed_index[boxed] - images[0],
        boxed_boxes=batch.boxed_boxes[boxed],
        boxed_labels=batch.boxed_labels[boxed],
        complete=batch.complete[images],
        seen=batch.seen and {name: values[images] for name, values in batch.seen.items()},
    )


def _counts(batch: TrainingBatch) -> dict[str, int]:
    counted = {
        "phrases": np.ones_like(batch.present),
        "present": batch.present,
        "has_mask": batch.has_mask,
        "mask_known": batch.has_mask | ~batch.present,
        "boxed": batch.present & ~batch.has_mask,
        "labels": batch.thing_labels >= 0,
        "told": batch.boxed_labels >= 0,
        "things": batch.thing_counts,
    }
    return {name: int(one.sum()) for name, one in counted.items()}


def scaled(part: Part, losses: dict[str, Tensor], averaged_over: Mapping[str, str]) -> dict[str, Tensor]:
    """A part's losses as what they add to the whole batch's."""
    if not part.shares:
        return losses
    return {
        name: value if is_largest(name) else value * part.shares[averaged_over.get(name, "present")]
        for name, value in losses.items()
    }


def is_largest(name: str) -> bool:
    """Whether of several parts the largest value counts; else they add up."""
    return name.startswith(_LARGEST)


def merged(one: dict[str, Tensor], two: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scaled losses of two parts together; ``one`` may still be empty."""
    if not one:
        return two
    return {
        name: torch.maximum(one[name], value) if is_largest(name) else one[name] + value for name, value in two.items()
    }


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
        """The processes' losses together, the same for all; see `scaled`."""
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
        """The model with batch-norm over all processes' images, where there is such a layer."""
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
