"""The training loop: small enough to read, resumable, the same whatever the number of workers."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deixis.data.batches import BatchSource, CanvasRules, Epochs
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import PhraseTokenizer, WordTokenizer
from deixis.models.base import GroundingModel
from deixis.models.deixis.model import DeixisModel
from deixis.models.mcn.model import McnModel
from deixis.models.smcim.model import SmcimModel
from deixis.progress import progress_report
from deixis.structures import Sample, TrainingBatch
from deixis.train.batch_loader import STOP_SIGNALS, Steps, batches
from deixis.train.deixis_objective import DeixisObjective
from deixis.train.distributed import ALONE, Group, process_group
from deixis.train.mcn_objective import McnObjective
from deixis.train.objectives import Objective
from deixis.train.optimisers import build_optimiser, learning_rate_factor, set_learning_rate
from deixis.train.parts import merged, scaled, split_batch
from deixis.train.pool import Pool, fill_pool
from deixis.train.precision import uses_bfloat16
from deixis.train.recipes import Recipe, batch_note
from deixis.train.run_logging import SHOWN_PICTURES, SKIPPED, Watch, forget_after, log_line
from deixis.train.setup import in_steps, start_data, start_model
from deixis.train.smcim_objective import NEGATIVE_TOTAL, SelfPacing, SmcimObjective
from deixis.train.state import (
    STATE,
    check_run_folder,
    clear_leftovers,
    has_run_of,
    naming,
    read_state,
    write_state,
    write_whole,
)

__all__ = ["Trainer", "forget_after", "log_line", "notes", "recorded", "run", "write_whole"]

_SHOWN_PROBLEMS = 5
_PATHS = (
    "start",
    "image_weights",
    "text_weights",
    "instances",
    "partial_instances",
    "pseudo_instances",
    "phrased",
    "layouts",
    "root",
)


class Trainer:
    """Holds all that a run changes: model, averaged weights, optimiser, step."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample] = (), group: Group = ALONE) -> None:
        self.recipe, self.group = recipe, group
        self.autocast = uses_bfloat16(recipe.precision, group.device)
        model, self.tokenizer = start_model(recipe, samples)
        self.model = group.synchronise_norms(prepare_model(model, recipe)).to(group.device)
        self.objective = objective_for(self.model, self.tokenizer, recipe)
        self.objective.helper.to(group.device)
        self.optimiser = build_optimiser(self.model, self.objective.helper, recipe)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.thawing = [one for one in self.model.pretrained_parameters()["image"] if one.requires_grad]
        self.step = 0
        self.skipped = 0
        """Steps in a row, up to the last one, that changed nothing."""

    def train_step(self, batch: TrainingBatch) -> dict[str, float]:
        """One update by the batch of all processes; returns the named, unweighted losses.

        A step whose loss or gradient is not finite changes nothing.
        """
        set_learning_rate(self.optimiser, self.recipe, self.step)
        self.group.seed(self.recipe.seed, self.step)
        for parameter in self.thawing if self.recipe.frozen_steps else ():
            parameter.requires_grad_(self.step >= self.recipe.frozen_steps)
        self.model.train()
        statistics = [buffer.clone() for buffer in self.model.buffers()]  # the forward pass moves those of batch-norm
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._backward(batch)
        if math.isfinite(losses["loss"]) and self._has_finite_gradient():
            self.optimiser.step()
            self._update_average()
            self.group.average_statistics(self.model)
            self.skipped = 0
        else:
            for buffer, before in zip(self.model.buffers(), statistics, strict=True):
                buffer.copy_(before)
            self.skipped += 1
        self.step += 1
        return losses

    def _backward(self, batch: TrainingBatch) -> dict[str, float]:
        """Losses of the whole batch, part by part, and the gradient of this process's parts."""
        parts = self.group.own(split_batch(batch, self.recipe.accumulate * self.group.size))
        losses: dict[str, Tensor] = {}
        for part in parts:
            with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.autocast):
                found = scaled(part, self.objective.losses(part.batch))
            total = self.objective.total(found)
            total.backward()
            losses = merged(losses, {name: one.detach() for name, one in {"loss": total, **found}.items()})
        values = torch.stack([value.double() for value in losses.values()]).tolist()  # a GPU is waited for once
        return self.group.merge(dict(zip(losses, values, strict=True)))

    def _has_finite_gradient(self) -> bool:
        """Whether the gradient of all processes, which is then in place and clipped, is finite."""
        self.group.add_gradients([*self.model.parameters(), *self.objective.helper.parameters()])
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

    def save(self, folder: Path, averaged: GroundingModel | None = None) -> None:
        """Write the checkpoint and then the training state, each whole or not at all.

        In this order a run that has its last state has its last checkpoint too.

        Args:
            folder: of the run.
            averaged: what `averaged_model` gives, where it is made already.
        """
        checkpoint, averaged = folder / "checkpoint", averaged or self.averaged_model()
        with naming(checkpoint):
            save_checkpoint(checkpoint, averaged, self.tokenizer, name=self.recipe.model, recipe=recorded(self.recipe))
        state = {
            "step": self.step,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "helper": self.objective.helper.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.group.device.type == "cuda" else None,
        }
        write_state(folder, state, self.recipe.keep)

    def restore(self, folder: Path) -> None:
        """Continue from what :meth:`save` wrote.

        Raises:
            OSError: state.pt cannot be opened.
            ValueError: it is cut off, or of another version or another model; or the run's words were others.
        """
        check_same_words(self.tokenizer, folder / "checkpoint" / "vocab.txt")
        read_state(folder, self._apply)

    def _apply(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.objective.helper.load_state_dict(state["helper"])
        check_same_shapes(self.average, state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_rng"])
        if self.group.device.type == "cuda" and state.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])
        self.step, self.skipped = int(state["step"]), int(state.get("skipped", 0))
        self.average = {name: value.to(self.group.device) for name, value in state["average"].items()}


def prepare_model(model: GroundingModel, recipe: Recipe) -> GroundingModel:
    """The model with what the recipe asks of memory and speed.

    Raises:
        ValueError: a family without that.
    """
    if recipe.checkpointing:
        if not isinstance(model, SmcimModel):
            raise ValueError(
                f"expected checkpointing=false for the family {model.config.family!r}, got true, which only smcim "
                "has; leave it out, or split batches by accumulate"
            )
        model.interaction.checkpointing = True
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if recipe.compile:
        check_compiler()
        for part in model.children():  # objectives call these and not the model as a whole
            part.compile()
    return model


def check_compiler() -> None:
    """Raise ValueError where torch.compile would find no C++ compiler, in the middle of the first step."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in wanted):
        raise ValueError(
            f"expected a C++ compiler out of {wanted!r} for compile=true, found none; install one, name it in CXX, or "
            "leave compile out"
        )


def objective_for(model: GroundingModel, tokenizer: PhraseTokenizer, recipe: Recipe) -> Objective:
    """What this family's training minimises."""
    if isinstance(model, McnModel):
        return McnObjective(model, tokenizer, recipe)
    if isinstance(model, SmcimModel):
        return SmcimObjective(model, tokenizer, recipe)
    assert isinstance(model, DeixisModel)
    return DeixisObjective(model, tokenizer, recipe)


def pool_of(trainer: Trainer, source: BatchSource, folder: Path) -> Pool:
    """The pool of a run, which its first process fills.

    Raises:
        ValueError: a family whose image side does not propose anything.
    """
    model, recipe = trainer.model, trainer.recipe
    if not isinstance(model, DeixisModel):
        raise ValueError(f"expected pool=0 for the family {model.config.family!r}, got {recipe.pool!r}; leave it out")
    if trainer.group.is_first:
        rules = canvas_rules(model, recipe)
        fill_pool(model, source, recipe, rules, folder / "pool", autocast=trainer.autocast)
    trainer.group.check_same(recipe.pool)
    return Pool.read(folder / "pool", recipe)


def canvas_rules(model: GroundingModel, recipe: Recipe) -> CanvasRules:
    """How the model wants its pictures, and the recipe its masks."""
    return CanvasRules(model.mask_stride, recipe.mask_target, model.fill, model.resize)


def notes(recipe: Recipe, helper: nn.Module, *, autocast: bool) -> list[str]:
    """Lines to tell before a run: what about it surprises, and what its precision is."""
    paced = any(isinstance(module, SelfPacing) for module in helper.modules())
    told = [batch_note(recipe), NEGATIVE_TOTAL if paced else ""]
    if not recipe.weights_of("image"):
        told.append("no image_weights are named: the image encoder starts from random ones")
    if not recipe.weights_of("text"):
        told.append("no text_weights are named: words start from random vectors")
    if paced and recipe.sigma_floor < recipe.spsil_lambda / math.sqrt(2) and not recipe.detach_difficulty:
        told.append(
            f"sigma may fall below lambda / sqrt(2) = {recipe.spsil_lambda / math.sqrt(2):.2f}, where SPSIL rewards "
            "some errors; raise sigma_floor or set detach_difficulty"
        )
    told.append(f"precision: {'bfloat16' if autocast else 'float32'}")
    return [one for one in told if one]


def left_out(source: BatchSource) -> list[str]:
    """The first few sentences on records that the data was opened without, and how many more there are."""
    shown, more = source.problems[:_SHOWN_PROBLEMS], source.problems[_SHOWN_PROBLEMS:]
    return [*(f"left out: {one}" for one in shown), *([f"left out: {len(more)} more"] if more else [])]


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


def recorded(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a checkpoint states it: of files only their names, not where they lay."""
    values = dataclasses.asdict(recipe)
    for name in _PATHS:
        values[name] = ",".join("/".join(Path(path.strip()).parts[-2:]) for path in values[name].split(","))
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


def run(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, minutes: float | None = None, tensorboard: bool = False
) -> Path:
    """Train and leave a checkpoint in ``folder``/checkpoint.

    Ctrl-C and SIGTERM end the step, save, and raise KeyboardInterrupt; call it from the main thread. Under torchrun
    the processes share the work, and those of a recipe that has a state in ``folder`` go on from it: it starts them
    again with the same command.

    Args:
        recipe: what to do.
        folder: gets recipe.json, metrics.jsonl, state.pt, the checkpoint, curves.png and samples.png.
        resume: go on from state.pt in ``folder``.
        minutes: stop early after that long; the run can be resumed.
        tensorboard: write events into ``folder``/tensorboard too.

    Returns:
        The checkpoint's folder.

    Raises:
        ValueError: ``folder`` holds another run, the recipe's data or weights do not fit, or the loss is not finite
            for ``recipe.non_finite_limit`` steps in a row.
        FileNotFoundError: there is nothing to resume, or a file of the recipe is missing.
        ImportError: tensorboard is asked for and not installed.
    """
    folder = Path(folder)
    with process_group() as group:
        resume = resume or (group.by_torchrun and has_run_of(folder, json.dumps(dataclasses.asdict(recipe), indent=1)))
        check_run_folder(folder, resume)
        source = start_data(recipe)
        trainer = Trainer(in_steps(recipe, source), source.samples if isinstance(source, Epochs) else (), group)
        pool = pool_of(trainer, source, folder) if recipe.pool else None
        if resume:
            trainer.restore(folder)
        group.check_same(trainer.step)
        if group.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            clear_leftovers(folder)
            write_whole(folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=1))
            told = [*notes(recipe, trainer.objective.helper, autocast=trainer.autocast), *left_out(source)]
            for note in told if sys.stderr is not None else ():
                print(f"training: {note}", file=sys.stderr, flush=True)
        with Watch(folder, trainer.step, active=group.is_first, tensorboard=tensorboard) as watch:
            loop(trainer, source, watch, minutes, pool=pool)
    return folder / "checkpoint"


class Judge(Protocol):
    """Validates the averaged weights of some steps, and says when a run is done before its last step."""

    def validate(self, step: int, averaged: GroundingModel, recipe: Recipe) -> None:
        """Measure a model, in eval mode; once for each step."""
        ...

    def is_done(self) -> bool:
        """Whether to stop."""
        ...


def loop(
    trainer: Trainer,
    source: BatchSource,
    watch: Watch,
    minutes: float | None,
    judge: Judge | None = None,
    pool: Pool | None = None,
) -> None:
    """All steps that are left, on the pool where there is one.

    The judge validates in the first process alone, every ``recipe.check_every`` steps.
    """
    recipe, group = trainer.recipe, trainer.group
    rules = canvas_rules(trainer.model, recipe)
    begun = time.monotonic()
    with progress_report("training") as report, stop_requests() as stop_asked:
        for batch in () if _is_done(judge, group) else batches(pool or source, recipe, trainer.step, rules):
            losses = trainer.train_step(batch)
            seconds = time.monotonic() - begun
            watch.losses(trainer.step, seconds, losses)
            if group.is_first:
                report(trainer.step, recipe.steps, step_note(trainer, losses))
            if trainer.skipped:
                watch.skipped(trainer.step, batch)
                check_skipped(trainer, watch.folder)
            stop, late = group.largest([stop_asked(), minutes is not None and seconds > 60 * minutes])
            last = trainer.step == recipe.steps
            judged = judge is not None and (late or last or trainer.step % recipe.check_every == 0)
            if stop or late or last or judged or trainer.step % recipe.save_every == 0:
                _save(trainer, source, watch, rules, judge if judged else None)
            if stop:
                raise KeyboardInterrupt
            if late or (judged and _is_done(judge, group)):
                break


def _is_done(judge: Judge | None, group: Group) -> bool:
    if judge is None:
        return False
    (done,) = group.largest([group.is_first and judge.is_done()])
    return bool(done)


def step_note(trainer: Trainer, losses: dict[str, float]) -> str:
    """A few words on the step that was taken."""
    rate = trainer.recipe.lr * learning_rate_factor(trainer.recipe, trainer.step - 1)
    return f"loss {losses['loss']:.4g}, rate {rate:.2g}"


def _save(trainer: Trainer, source: BatchSource, watch: Watch, rules: CanvasRules, judge: Judge | None) -> None:
    if not watch.active:
        return
    recipe, averaged = trainer.recipe, trainer.averaged_model()
    watch.sync()
    if judge is not None:
        judge.validate(trainer.step, averaged, recipe)
    trainer.save(watch.folder, averaged)
    shown = Steps(source, replace(recipe, images=min(recipe.images, SHOWN_PICTURES)), rules)[0]
    watch.draw(averaged, trainer.tokenizer, shown)


def check_skipped(trainer: Trainer, folder: Path) -> None:
    """Raise ValueError where too many steps in a row changed nothing."""
    if trainer.skipped >= trainer.recipe.non_finite_limit:
        raise ValueError(
            f"expected a finite loss and gradient, got others in {trainer.skipped} steps in a row up to step "
            f"{trainer.step}; look at the phrases in {str(folder / SKIPPED)!r} or lower the learning rate"
            + (", the last good state is kept" if (folder / STATE).exists() else "")
        )
