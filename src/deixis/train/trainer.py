"""The training loop: small enough to read, resumable, the same whatever the number of workers."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deixis.data.epochs import Epochs
from deixis.data.loading import CanvasRules, Mixture, TrainingBatch
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import PhraseTokenizer, WordTokenizer
from deixis.models.base import GroundingModel
from deixis.models.deixis import DeixisModel
from deixis.models.mcn import McnModel
from deixis.models.smcim import SmcimModel
from deixis.progress import progress_report
from deixis.structures import Sample
from deixis.train.deixis_objective import DeixisObjective
from deixis.train.mcn_objective import McnObjective
from deixis.train.objectives import Objective
from deixis.train.optimisers import build_optimiser, set_learning_rate
from deixis.train.recipes import Recipe, batch_note
from deixis.train.smcim_objective import NEGATIVE_TOTAL, SelfPacing, SmcimObjective
from deixis.train.starting import in_steps, start_data, start_model

_UNFIT = (RuntimeError, OSError, EOFError, pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a training state raises where it is damaged or another model's."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Steps(Dataset[TrainingBatch]):
    """Batch number i for any i: what workers read from."""

    def __init__(self, source: Mixture | Epochs, recipe: Recipe, rules: CanvasRules) -> None:
        self.source, self.recipe, self.rules = source, recipe, rules

    def __getitem__(self, step: int) -> TrainingBatch:
        """The batch of that step."""
        r = self.recipe
        size = random.Random(r.seed * 1_000_003 + step).choice(r.image_sizes)
        return self.source.batch(
            r.seed, step, images=r.images, phrases=r.phrases, size=size, absent=r.absent, rules=self.rules
        )


class Trainer:
    """Holds all that a run changes: model, averaged weights, optimiser, step."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample] = ()) -> None:
        self.recipe = recipe
        self.model, self.tokenizer = start_model(recipe, samples)
        self.objective = objective_for(self.model, self.tokenizer, recipe)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimiser = build_optimiser(self.model, self.objective.helper, recipe)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.step = 0

    def train_step(self, batch: TrainingBatch) -> dict[str, float]:
        """One update; returns the named, unweighted losses.

        A step whose loss or gradient is not finite changes nothing.
        """
        set_learning_rate(self.optimiser, self.recipe, self.step)
        self.model.train()
        statistics = [buffer.clone() for buffer in self.model.buffers()]  # the forward pass moves those of batch-norm
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            parts = self.objective.losses(batch)
        total = self.objective.total(parts)
        self.optimiser.zero_grad(set_to_none=True)
        if self._has_finite_gradient(total):
            self.optimiser.step()
            self._update_average()
        else:
            for buffer, before in zip(self.model.buffers(), statistics, strict=True):
                buffer.copy_(before)
        self.step += 1
        return {"loss": total.item()} | {name: value.item() for name, value in parts.items()}

    def _has_finite_gradient(self, total: Tensor) -> bool:
        """Whether the loss and its gradient, which is then in place and clipped, are finite."""
        if not torch.isfinite(total):
            return False
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip or math.inf)
        return bool(torch.isfinite(norm))

    def _update_average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self.average[name].lerp_(parameter.detach(), 1 - decay)

    def averaged_model(self) -> GroundingModel:
        """A copy of the model with the averaged weights, in eval mode."""
        averaged = copy.deepcopy(self.model)  # building a new one would draw random numbers that a resumed run does not
        averaged.load_state_dict({**averaged.state_dict(), **self.average})
        return averaged.eval()

    def save(self, folder: Path) -> None:
        """Write the training state and the checkpoint, each whole or not at all."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "helper": self.objective.helper.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        partial = folder / "state.pt.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / "state.pt")
        save_checkpoint(
            folder / "checkpoint",
            self.averaged_model(),
            self.tokenizer,
            name=self.recipe.model,
            recipe=recorded(self.recipe),
        )

    def restore(self, folder: Path) -> None:
        """Continue from what :meth:`save` wrote.

        Raises:
            OSError: state.pt cannot be opened.
            ValueError: it is cut off, or of another version or another model; or the run's words were others.
        """
        check_same_words(self.tokenizer, folder / "checkpoint" / "vocab.txt")
        with (folder / "state.pt").open("rb") as file:
            self._restore_from(file)

    def _restore_from(self, file: BinaryIO) -> None:
        try:
            state = torch.load(file, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.objective.helper.load_state_dict(state["helper"])
            check_same_shapes(self.average, state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["torch_rng"])
            self.step, self.average = int(state["step"]), state["average"]
        except _UNFIT as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"expected the whole state of a run of this recipe in {file.name!r}, got {type(error).__name__} "
                f"({reason}); train anew in another folder"
            ) from error


def objective_for(model: GroundingModel, tokenizer: PhraseTokenizer, recipe: Recipe) -> Objective:
    """What this family's training minimises."""
    if isinstance(model, McnModel):
        return McnObjective(model, tokenizer, recipe)
    if isinstance(model, SmcimModel):
        return SmcimObjective(model, tokenizer, recipe)
    assert isinstance(model, DeixisModel)
    return DeixisObjective(model, tokenizer, recipe)


def canvas_rules(model: GroundingModel, recipe: Recipe) -> CanvasRules:
    """How the model wants its pictures, and the recipe its masks."""
    return CanvasRules(model.mask_stride, recipe.mask_target, model.fill, model.resize)


def notes(recipe: Recipe, helper: nn.Module) -> list[str]:
    """Lines to tell before a run: what about it surprises."""
    paced = any(isinstance(module, SelfPacing) for module in helper.modules())
    return [one for one in (batch_note(recipe), NEGATIVE_TOTAL if paced else "") if one]


def check_same_shapes(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    """Raise ValueError where names or shapes differ."""
    differing = [
        name for name in {**expected, **got}
        if name not in expected or name not in got or expected[name].shape != got[name].shape
    ]  # fmt: skip
    if differing:
        raise ValueError(f"averaged weights of other names or shapes: {differing[:5]}")


def check_same_words(tokenizer: PhraseTokenizer, path: Path) -> None:
    """Raise ValueError where a run's vocab.txt holds other words: each would get the vector of another."""
    if not isinstance(tokenizer, WordTokenizer) or not path.is_file():
        return
    before = path.read_text(encoding="utf-8", errors="replace").split()
    if before != tokenizer.words:
        raise ValueError(
            f"expected the {len(before)} words of {str(path)!r}, which the run started with, got "
            f"{len(tokenizer.words)} others; bring back the data or word vectors of then, or train anew in another "
            "folder"
        )


def batches(
    source: Mixture | Epochs,
    recipe: Recipe,
    start: int,
    rules: CanvasRules = CanvasRules(),  # noqa: B008  it is frozen
) -> Iterator[TrainingBatch]:
    """All batches from step ``start`` on."""
    loader = DataLoader(
        Steps(source, recipe, rules),
        batch_size=None,
        sampler=range(start, recipe.steps),
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        generator=torch.Generator(),  # else every start takes a number from the generator that dropout uses
    )
    yield from loader


def forget_after(step: int, log: Path) -> None:
    """Drop the lines of steps that a resumed run does again, and one that was cut off while it was written."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]
    write_whole(log, "".join(kept))


def write_whole(path: Path, text: str) -> None:
    """Write beside ``path`` and move it there at the end; an interrupted write leaves what was there before."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def log_line(step: int, seconds: float, parts: dict[str, float]) -> str:
    """One line of metrics.jsonl; a loss that is not finite becomes null, as JSON has no word for it."""
    finite = {name: value if math.isfinite(value) else None for name, value in parts.items()}
    return json.dumps({"step": step, "seconds": round(seconds, 1), **finite}, allow_nan=False) + "\n"


def recorded(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a checkpoint states it: of files only their names, not where they lay."""
    values = dataclasses.asdict(recipe)
    for name in ("start", "image_weights", "text_weights", "instances", "partial_instances", "phrased", "root"):
        values[name] = "/".join(Path(values[name]).parts[-2:])
    return values


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question that the loop asks between two steps."""
    asked: list[int] = []
    previous = {number: signal.signal(number, lambda got, _: asked.append(got)) for number in STOP_SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run(recipe: Recipe, folder: str | Path, *, resume: bool = False, minutes: float | None = None) -> Path:
    """Train and leave a checkpoint in ``folder``/checkpoint.

    Ctrl-C and SIGTERM end the step, save, and raise KeyboardInterrupt; call it from the main thread.

    Args:
        recipe: what to do.
        folder: gets recipe.json, metrics.jsonl, state.pt and the checkpoint.
        resume: go on from state.pt in ``folder``.
        minutes: stop early after that long; the run can be resumed.

    Returns:
        The checkpoint's folder.

    Raises:
        ValueError: ``folder`` holds another run, or the recipe's data or weights do not fit.
        FileNotFoundError: there is nothing to resume, or a file of the recipe is missing.
    """
    folder = Path(folder)
    check_run_folder(folder, resume)
    source = start_data(recipe)
    trainer = Trainer(in_steps(recipe, source), source.samples if isinstance(source, Epochs) else ())
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        trainer.restore(folder)
        forget_after(trainer.step, folder / "metrics.jsonl")
    write_whole(folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=1))
    for note in notes(recipe, trainer.objective.helper) if sys.stderr is not None else ():
        print(f"training: {note}", file=sys.stderr, flush=True)
    rules = canvas_rules(trainer.model, recipe)
    begun = time.monotonic()
    with (
        (folder / "metrics.jsonl").open("a", encoding="utf-8") as log,
        progress_report("training") as report,
        stop_requests() as stop_asked,
    ):
        for batch in batches(source, trainer.recipe, trainer.step, rules):
            parts = trainer.train_step(batch)
            seconds = time.monotonic() - begun
            log.write(log_line(trainer.step, seconds, parts))
            log.flush()
            report(trainer.step, trainer.recipe.steps)
            late = minutes is not None and seconds > 60 * minutes
            if late or stop_asked() or trainer.step % recipe.save_every == 0 or trainer.step == trainer.recipe.steps:
                trainer.save(folder)
            if stop_asked():
                raise KeyboardInterrupt
            if late:
                break
    return folder / "checkpoint"


def check_run_folder(folder: Path, resume: bool) -> None:
    """Refuse to start over a run that is there, or to resume one that is not."""
    there = (folder / "state.pt").exists()
    if there and not resume:
        raise ValueError(
            f"expected an empty folder for a new run, got {str(folder)!r} with a state.pt; resume it or choose another"
        )
    if resume and not there:
        raise FileNotFoundError(
            f"expected a run with state.pt in {str(folder)!r}, got none; start it anew without resume"
        )
