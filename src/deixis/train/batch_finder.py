"""The largest batch whose training step fits into memory: each try is a process of its own, which may run out of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.recipe import RATES, Recipe, recipe_of_json
from deixis.train.recipes import scaled_for_batch

SHARE = 0.9
"""Of the memory that is free now, so much may be filled."""
MOST_IMAGES = 4096
_FINE = 8
"""The answer is within an eighth of the largest batch that fits."""
_FITS = "fits "
_FULL = 3
"""The status of a try that ran out of memory."""
_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")
_KILLED = (-9, 137)


@dataclass(frozen=True, kw_only=True)
class Try:
    """One size of batch."""

    images: int
    fits: bool
    seconds: float = 0.0
    """The second step."""
    megabytes: float = 0.0
    """The most that the process held."""


def find_batch(recipe: Recipe, attempt: Callable[[int], Try], tell: Callable[[Try], None] = lambda one: None) -> Try:
    """Double the recipe's pictures a step while they fit, then bisect.

    Args:
        recipe: whose ``images`` are tried first.
        attempt: tries so many pictures.
        tell: gets every try.

    Returns:
        The largest that fits, within an eighth.

    Raises:
        ValueError: not even one picture fits.
    """

    def fits(images: int) -> bool:
        nonlocal best
        one = attempt(images)
        tell(one)
        if one.fits and (best is None or one.images > best.images):
            best = one
        return one.fits

    best: Try | None = None
    images, low, high = min(recipe.data.images, MOST_IMAGES), 0, MOST_IMAGES + 1
    while high - low > max(1, low // _FINE):
        low, high = (images, high) if fits(images) else (low, images)
        if low == MOST_IMAGES:
            break
        images = min(2 * low, MOST_IMAGES) if high > MOST_IMAGES else (low + high) // 2
    if best is None:
        raise ValueError(
            "expected one picture a step to fit into memory, got a process that ran out of it; choose a smaller model "
            "or canvas, or close other programs"
        )
    return best


def try_batch(recipe: Recipe, limit_bytes: int | None, images: int) -> Try:
    """Two steps with so many pictures, in a new process that may hold ``limit_bytes``; None: what the machine gives.

    Raises:
        ValueError: the process failed otherwise; with its last line.
    """
    told = json.dumps({"recipe": recipe.replaced(images=images).flat(), "limit": limit_bytes})
    done = subprocess.run(
        [sys.executable, "-m", "deixis.train.batch_finder"], input=told, capture_output=True, text=True, check=False
    )
    if done.returncode == 0 and (line := done.stdout.strip().splitlines()[-1:]) and line[0].startswith(_FITS):
        seconds, megabytes = map(float, line[0].removeprefix(_FITS).split())
        return Try(images=images, fits=True, seconds=seconds, megabytes=megabytes)
    if done.returncode in (_FULL, *_KILLED) or any(sign in done.stderr.lower() for sign in _SIGNS):
        return Try(images=images, fits=False)
    reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    raise ValueError(f"expected two training steps of {images} pictures, got a process that failed: {reason[:300]}")


def free_bytes() -> int | None:
    """Memory that is free on this machine, or in this container; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    group = Path("/sys/fs/cgroup")
    try:
        most, held = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        free += [int(most) - int(held)] if most != "max" else []
    except (OSError, ValueError):
        pass
    return min(free) if free else None


def advice(recipe: Recipe, images: int) -> str:
    """What a batch of so many pictures does to the rates, in one line."""
    moved = scaled_for_batch(recipe, images)
    rates = ", ".join(f"{name} {recipe.get(name):.2g} -> {moved.get(name):.2g}" for name in RATES)
    if recipe.optimiser.printed_images and recipe.optimiser.scale_lr:
        return f"with --images {images} the recipe's rates that you do not name move by themselves: {rates}"
    return f"rates stay as they are with --images {images}; those that do about the same an epoch: {rates}"


def main() -> None:
    """What the process of a try does: reads the recipe, steps twice, and tells seconds and megabytes."""
    told = json.loads(sys.stdin.read())
    made = recipe_of_json(told["recipe"])
    import torch

    from deixis.train.batch_loader import batches
    from deixis.train.setup import in_steps, start_data
    from deixis.train.trainer import Trainer, canvas_rules

    if told["limit"] is not None and not torch.cuda.is_available():  # a GPU says itself when it is full
        _limit_memory(told["limit"])
    try:
        source = start_data(made)
        made = in_steps(made, source).replaced(steps=2, workers=0, image_sizes=(max(made.data.image_sizes),))
        trainer = Trainer(made, getattr(source, "samples", ()))
        seconds = 0.0
        for batch in batches(source, made, 0, canvas_rules(trainer.model, made)):
            begun = time.perf_counter()
            trainer.train_step(batch)
            seconds = time.perf_counter() - begun
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS):
            sys.exit(_FULL)
        raise
    print(f"{_FITS}{seconds:.3f} {_most_megabytes(torch):.0f}")


def _limit_memory(limit_bytes: int) -> None:
    """Let this process hold so much, as far as the system can be asked for it."""
    try:
        import resource

        pages = [int(word) for word in Path("/proc/self/statm").read_text(encoding="ascii").split()]
    except (ImportError, OSError):
        return
    mapped, held = (resource.getpagesize() * count for count in pages[:2])
    most = mapped + max(limit_bytes - held, 0)  # what is mapped from here on, is held as a rule
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _most_megabytes(torch: Any) -> float:  # noqa: ANN401  the module
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
