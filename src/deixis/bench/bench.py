"""How long models take and how much memory, measured side by side.

Each model lives in a process of its own. All of them are asked in turns, round by round, so that whatever else the
machine does meets all alike.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from deixis.bench.operations import FUSION, PARTS, Counts
from deixis.bench.subjects import Subject, count
from deixis.bench.timing import Job, MatrixProducts, Turn, Worker

BATCH_ROUNDS = 3
"""Batches take long and vary little: at most so many rounds of each size."""


ENCODER_BLOCK = "smcim-r50:interaction=encoder"
BLOCKS = ("smcim-r50", ENCODER_BLOCK)
"""The two rows of SMCIM Table V."""


@dataclass(kw_only=True)
class Row:
    """What was measured of one model in one precision."""

    subject: Subject
    precision: str
    threads: int
    start_s: float
    """From the start of a Python process until the model is ready."""
    first_ms: float
    turns: list[Turn] = field(default_factory=list)
    batch_ms: dict[int, list[float]] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    """``one``: after single images; else by batch size, each with those before it."""
    counts: Counts | None = None
    best_gflops: float = 0.0
    """What matrix products reach in this precision, 10^9 operations a second."""

    @property
    def ms(self) -> list[float]:
        """An image with its phrase, round by round."""
        return [turn.ms for turn in self.turns]

    @property
    def second_ms(self) -> list[float]:
        """Another phrase on the same image, round by round; empty of a model that keeps nothing of an image."""
        return [turn.second_ms for turn in self.turns if turn.second_ms is not None]

    @property
    def part_ms(self) -> dict[str, float]:
        """The median of each part."""
        return {part: statistics.median(turn.part_ms[part] for turn in self.turns) for part in PARTS}

    @property
    def per_second(self) -> dict[int, float]:
        """Images with a phrase each, by batch size."""
        return {size: 1000 * size / statistics.median(times) for size, times in self.batch_ms.items()}

    @property
    def gflops(self) -> float:
        """10^9 operations a second with single images."""
        return self.counts.all_operations / statistics.median(self.ms) / 1e6 if self.counts else 0.0

    @property
    def share_of_peak(self) -> float:
        """Of what matrix products reach in the same run."""
        return self.gflops / self.best_gflops if self.best_gflops else 0.0

    def times_over(self, first: Row) -> float:
        """How many times as long as ``first`` it takes: the median of the rounds' ratios."""
        return self.ratio_to(first, lambda turn: turn.ms)

    def ratio_to(self, other: Row, read: Callable[[Turn], float]) -> float:
        """The median of the rounds' ratios of what ``read`` takes from a turn."""
        return statistics.median(read(a) / read(b) for a, b in zip(self.turns, other.turns, strict=True))


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole run."""

    counts: Mapping[str, Counts]
    """By the model's name, as ``kinds``."""
    kinds: Mapping[str, str]
    rows: Sequence[Row]
    machine: Mapping[str, Any]
    problems: Sequence[str]
    """One sentence for each peer that could not be measured."""

    def times_over_first(self, row: Row) -> float:
        """How many times as long as the first model in the same precision it takes."""
        return row.times_over(next(other for other in self.rows if other.precision == row.precision))

    def blocks(self) -> dict[str, tuple[float, float]]:
        """How many times as fast CA2M is as the encoder block, by precision: the whole model, and its fusion alone.

        Empty where not both rows of SMCIM Table V were measured.
        """
        found = {}
        for precision in {row.precision: None for row in self.rows}:
            by_name = {row.subject.name: row for row in self.rows if row.precision == precision}
            if all(name in by_name for name in BLOCKS):
                ours, other = (by_name[name] for name in BLOCKS)
                alone = other.ratio_to(ours, lambda turn: turn.part_ms[FUSION])
                found[precision] = (other.times_over(ours), alone)
        return found

    def block_sizes(self) -> tuple[int, int] | None:
        """Parameters of the stacks of CA2M, and of encoder blocks; None where not both rows were counted."""
        if not all(name in self.counts for name in BLOCKS):
            return None
        ours, other = (self.counts[name].blocks for name in BLOCKS)
        return ours, other


def bench(
    subjects: Sequence[Subject],
    *,
    precisions: Sequence[str] = ("float32",),
    image_px: int | None = None,
    words: int = 40,
    batch_sizes: Sequence[int] = (1, 4),
    rounds: int = 20,
    threads: int | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Result:
    """Count every model, and time all of them in turns.

    Args:
        subjects: the models; ratios are to the first.
        precisions: number formats out of `deixis.bench.timing.PRECISIONS`; each model is measured in each.
        image_px: side of the square canvas; None for each model's own.
        words: tokens a phrase, the special ones included.
        batch_sizes: images with a phrase each that are asked together, for the throughput.
        rounds: turns of each model; 0 only counts.
        threads: of each process; None leaves it to torch.
        progress: called with the number of steps done, and of how many.

    Raises:
        ValueError: no model, a size that does not fit one, or a process that ended.
        RuntimeError: a model failed.
    """
    if not subjects:
        raise ValueError("expected at least one model to measure, got none; name one")
    jobs = [
        Job(subject=subject, precision=precision, image_px=image_px, words=words, threads=threads)
        for precision in precisions
        for subject in subjects
        if rounds
    ]
    sizes = sorted(set(batch_sizes))
    turns = rounds + min(rounds, BATCH_ROUNDS) * len(sizes)
    total, number = len(jobs) * (1 + turns) + len(subjects), itertools.count(1)

    def step() -> None:
        progress(next(number), total)

    machine, problems = describe_machine(), []
    with ExitStack() as stack:
        workers = _start(jobs, stack, problems, step)
        rows = _take_turns(workers, rounds=rounds, sizes=sizes, threads=threads, step=step)
    counts = {}
    for subject in subjects:
        counts[subject.name] = count(subject, image_px=image_px, words=words)
        step()
    for row in rows:
        row.counts = counts[row.subject.name]
    return Result(
        counts=counts,
        kinds={subject.name: subject.kind for subject in subjects},
        rows=rows,
        machine=machine | {"threads": rows[0].threads if rows else None},
        problems=problems,
    )


def _start(
    jobs: Sequence[Job], stack: ExitStack, problems: list[str], step: Callable[[], None]
) -> list[tuple[Worker, Row]]:
    """Start the processes one after the other, each with its first call; a peer that cannot is left out."""
    started = []
    for job in jobs:
        step()
        try:
            worker = stack.enter_context(Worker(job))
            first_ms = worker.ask("first")
        except (ValueError, RuntimeError) as error:
            if job.subject.kind != "peer":
                raise
            problems.append(f"{job.subject.name} in {job.precision} is left out: {error}")
            continue
        row = Row(
            subject=job.subject,
            precision=job.precision,
            threads=worker.threads,
            start_s=worker.start_s,
            first_ms=first_ms,
        )
        started.append((worker, row))
    return started


def _take_turns(
    workers: Sequence[tuple[Worker, Row]],
    *,
    rounds: int,
    sizes: Sequence[int],
    threads: int | None,
    step: Callable[[], None],
) -> list[Row]:
    """Single images, then batches from small to large; every second round goes backwards."""
    products = {name: MatrixProducts(name, threads) for name in dict.fromkeys(row.precision for _, row in workers)}
    for number in range(rounds):
        for worker, row in workers[:: -1 if number % 2 else 1]:
            row.turns.append(worker.ask("turn"))
            step()
        for one in products.values():
            one.turn()
    for worker, row in workers:
        row.peak_mb["one"] = worker.ask("peak_mb")
        row.best_gflops = products[row.precision].best
    for size in sizes:
        for number in range(min(rounds, BATCH_ROUNDS)):
            for worker, row in workers[:: -1 if number % 2 else 1]:
                row.batch_ms.setdefault(size, []).append(worker.ask("batch", size))
                step()
        for worker, row in workers:
            row.peak_mb[str(size)] = worker.ask("peak_mb")
    return [row for _, row in workers]


def describe_machine() -> dict[str, Any]:
    """Processor, number of its cores that may be used, load before the run, versions; no names of hosts or folders."""
    name = platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name,
        "cores": cores,
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
