"""One model timed in a process of its own: its memory is its own, and its first call is a first call."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from deixis.bench.operations import FUSION, PARTS
from deixis.bench.subjects import Subject, Timed, build, random_inputs

PRECISIONS = ("float32", "bfloat16")
SETTLE_S = 0.01
"""A pause before each turn: threads of the process that was asked before spin for a while."""
LONGEST_PRODUCT_S = 0.1
"""Matrices are doubled until a product takes so long; larger ones are not faster."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model in one precision, as its process gets it."""

    subject: Subject
    precision: str
    image_px: int | None
    words: int
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One round of one model: an image with its phrase, then another phrase on the same image."""

    ms: float
    second_ms: float | None
    """None of a model that keeps nothing of an image."""
    part_ms: dict[str, float]
    """By part; decoding and what lies between the modules counts to the fusion."""


class Bench:
    """A model in this process, ready to be timed."""

    def __init__(self, job: Job) -> None:
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.dtype: torch.dtype = getattr(torch, job.precision)
        self.timed: Timed = build(job.subject, image_px=job.image_px, words=job.words)
        self.timed.model.to(dtype=self.dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._batches: set[int] = set()
        self.part_s = dict.fromkeys(PARTS, 0.0)
        for name, part in self.timed.parts.items():
            self._clock(self.timed.model.get_submodule(name), part)

    def _clock(self, module: nn.Module, part: str) -> None:
        begun: list[float] = []

        def stop(*_: object) -> None:
            self.part_s[part] += time.perf_counter() - begun.pop()

        module.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
        module.register_forward_hook(stop)

    def threads(self) -> int:
        """How many threads share one operation."""
        return torch.get_num_threads()

    def first(self) -> float:
        """Milliseconds for one image and one phrase, without a call before."""
        return self._ask(1)[0]

    def turn(self) -> Turn:
        """One round after one that is not timed, which brings the model back into the caches."""
        self._ask(1)
        for part in PARTS:
            self.part_s[part] = 0.0
        ms, encoded = self._ask(1)
        part_ms = {part: 1000 * seconds for part, seconds in self.part_s.items()}
        part_ms[FUSION] = ms - sum(value for part, value in part_ms.items() if part != FUSION)
        return Turn(ms=ms, second_ms=self._ask_again(encoded), part_ms=part_ms)

    def batch(self, size: int) -> float:
        """Milliseconds for ``size`` images with a phrase each, together; not the first such call."""
        if size not in self._batches:
            self._batches.add(size)
            self._ask(size)
        return self._ask(size)[0]

    def peak_mb(self) -> float:
        """The most memory that this process has held so far, 10^6 bytes."""
        return peak_bytes() / 1e6

    def _ask(self, batch: int) -> tuple[float, Any]:
        pixels, ids = random_inputs(self.timed, batch, dtype=self.dtype)
        with torch.inference_mode():
            begun = time.perf_counter()
            encoded = self.timed.encode(pixels)
            self.timed.answer(encoded, pixels, ids)
            return 1000 * (time.perf_counter() - begun), encoded

    def _ask_again(self, encoded: Any) -> float | None:  # noqa: ANN401  each family has its own
        if not self.timed.keeps_images:
            return None
        pixels, ids = random_inputs(self.timed, 1, dtype=self.dtype)
        with torch.inference_mode():
            begun = time.perf_counter()
            self.timed.answer(encoded, pixels, ids.flip(1))
            return 1000 * (time.perf_counter() - begun)


def peak_bytes() -> int:
    """The most memory that this process has held, resident.

    Linux passes ``ru_maxrss`` on to a child program, with what the parent held at that moment; ``VmHWM`` starts anew.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def serve(pipe: Connection, job: Job) -> None:
    """What the process of a model does: build it, then answer (method, arguments) until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    bench: Bench | None = None
    method, arguments = "threads", ()
    while True:
        try:
            bench = bench or Bench(job)
            pipe.send((None, getattr(bench, method)(*arguments)))
        except (BrokenPipeError, EOFError):
            return
        except Exception as error:  # whatever it is, the parent reports it
            pipe.send((type(error).__name__, str(error) or type(error).__name__))
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return


class Worker:
    """The process of one model, seen from outside."""

    def __init__(self, job: Job) -> None:
        self.job = job
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, job), daemon=True)
        begun = time.perf_counter()
        self._process.start()
        theirs.close()
        self.threads: int = self._receive()
        self.start_s = time.perf_counter() - begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def ask(self, method: str, *arguments: int) -> Any:  # noqa: ANN401  each method has its own
        """Have a method of :class:`Bench` run there.

        Raises:
            ValueError: the model refused its input, or its process ended.
            RuntimeError: it failed in another way.
        """
        time.sleep(SETTLE_S)
        self._pipe.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:  # noqa: ANN401  each method has its own
        name = f"{self.job.subject.name} in {self.job.precision}"
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            self.__exit__()
            raise ValueError(
                f"expected {name} to be measured, got the end of its process (status {self._process.exitcode}); "
                "if memory ran out, ask for fewer models or smaller batches"
            ) from None
        if kind is not None:
            self.__exit__()
            refused = ValueError if kind in ("ValueError", "FileNotFoundError") else RuntimeError
            raise refused(value if refused is ValueError else f"{name}: {kind}: {value}")
        return value


class MatrixProducts:
    """The best rate at which this machine multiplies matrices: what a model's rate is held against."""

    def __init__(self, precision: str, threads: int | None = None) -> None:
        self.dtype: torch.dtype = getattr(torch, precision)
        self.threads = threads or torch.get_num_threads()
        self.sides = [256]
        while self._seconds(self.sides[-1]) < LONGEST_PRODUCT_S and self.sides[-1] < 8192:
            self.sides.append(2 * self.sides[-1])
        self.best = 0.0
        """10^9 operations a second."""

    def turn(self) -> None:
        """Try each size once."""
        for side in self.sides[-3:]:
            self.best = max(self.best, 2 * side**3 / self._seconds(side) / 1e9)

    def _seconds(self, side: int) -> float:
        a, b = torch.ones(side, side, dtype=self.dtype), torch.ones(side, side, dtype=self.dtype)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            begun = time.perf_counter()
            torch.mm(a, b)
            return time.perf_counter() - begun
        finally:
            torch.set_num_threads(before)
