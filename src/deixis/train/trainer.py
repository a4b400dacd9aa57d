"""The training loop: small enough to read, resumable, the same whatever the number of workers."""

from __future__ import annotations

import copy
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deixis.data.attributes import WORD_GROUPS
from deixis.data.batches import BatchSource, CanvasRules, Epochs
from deixis.files import write_text
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import PhraseTokenizer, WordTokenizer
from deixis.models.base import GroundingModel
from deixis.models.criterion import Criterion
from deixis.models.deixis.model import DeixisModel
from deixis.models.registry import build_criterion
from deixis.progress import progress_report
from deixis.recipe import Recipe, recipe_of_json
from deixis.structures import Sample, TrainingBatch
from deixis.train.batch_loader import STOP_SIGNALS, Steps, batches
from deixis.train.distributed import ALONE, Group, merged, process_group, scaled, split_batch
from deixis.train.optimisers import build_optimiser, learning_rate_factor, set_learning_rate
from deixis.train.pool import Pool, fill_pool
from deixis.train.recipes import batch_note
from deixis.train.run_logging import SHOWN_PICTURES, SKIPPED, Watch, forget_after, log_line
from deixis.train.setup import canvas_rules, in_steps, prepare_model, start_data, start_model, uses_bfloat16
from deixis.train.state import (
    STATE,
    check_run_folder,
    clear_leftovers,
    naming,
    read_state,
    write_state,
)

__all__ = ["Trainer", "forget_after", "log_line", "notes", "recorded", "run"]

_SHOWN_PROBLEMS = 5


class Trainer:
    """Holds all that a run changes: model, averaged weights, optimiser, step."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample] = (), group: Group = ALONE) -> None:
        self.recipe, self.group = recipe, group
        self.autocast = uses_bfloat16(recipe.run.precision, group.device)
        model, self.tokenizer = start_model(recipe, samples)
        self.model = group.synchronise_norms(prepare_model(model, recipe.run)).to(group.device)
        word_counts = [len(words) for words in WORD_GROUPS]
        self.criterion = build_criterion(self.model, self.tokenizer, recipe.losses, word_counts)
        self.criterion.helper.to(group.device)
        self.optimiser = build_optimiser(self.model, self.criterion, recipe)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.thawing = [one for one in self.model.pretrained_parameters()["image"] if one.requires_grad]
        self.step = 0
        self.skipped = 0
        """Steps in a row, up to the last one, that changed nothing."""

    def train_step(self, batch: TrainingBatch) -> dict[str, float]:
        """One update by the batch of all processes; returns the named, unweighted losses.

        A step whose loss or gradient is not finite changes nothing.
        """
        set_learning_rate(self.optimiser, self.recipe.optimiser, self.step)
        self.group.seed(self.recipe.run.seed, self.step)
        frozen_steps = self.recipe.model.frozen_steps
        for parameter in self.thawing if frozen_steps else ():
            parameter.requires_grad_(self.step >= frozen_steps)
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
        parts = self.group.own(split_batch(batch, self.recipe.optimiser.accumulate * self.group.size))
        losses: dict[str, Tensor] = {}
        for part in parts:
            with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.autocast):
                found = scaled(part, self.criterion(part.batch), self.criterion.averaged_over)
            total = self.criterion.total(found)
            total.backward()
            losses = merged(losses, {name: one.detach() for name, one in {"loss": total, **found}.items()})
        values = torch.stack([value.double() for value in losses.values()]).tolist()  # a GPU is waited for once
        return self.group.merge(dict(zip(losses, values, strict=True)))

    def _has_finite_gradient(self) -> bool:
        """Whether the gradient of all processes, which is then in place and clipped, is finite."""
        self.group.add_gradients([*self.model.parameters(), *self.criterion.helper.parameters()])
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.clip or math.inf)
        return bool(torch.isfinite(norm))

    def _update_average(self) -> None:
        decay = min(self.recipe.optimiser.ema, (1 + self.step) / (10 + self.step))
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
            name = self.recipe.model.preset
            save_checkpoint(checkpoint, averaged, self.tokenizer, name=name, recipe=recorded(self.recipe))
        state = {
            "step": self.step,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "helper": self.criterion.helper.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.group.device.type == "cuda" else None,
        }
        write_state(folder, state, self.recipe.run.keep)

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
        self.criterion.helper.load_state_dict(state["helper"])
        check_same_shapes(self.average, state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_rng"])
        if self.group.device.type == "cuda" and state.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])
        self.step, self.skipped = int(state["step"]), int(state.get("skipped", 0))
        self.average = {name: value.to(self.group.device) for name, value in state["average"].items()}


def pool_of(trainer: Trainer, source: BatchSource, folder: Path) -> Pool:
    """The pool of a run, which its first process fills.

    Raises:
        ValueError: the family's image side has no proposals.
    """
    model, recipe = trainer.model, trainer.recipe
    if not isinstance(model, DeixisModel):
        raise ValueError(
            f"expected pool=0 for the family {model.config.family!r}, got {recipe.data.pool!r}; leave it out"
        )
    if trainer.group.is_first:
        rules = canvas_rules(model, recipe)
        fill_pool(model, source, recipe, rules, folder / "pool", autocast=trainer.autocast)
    trainer.group.check_same(recipe.data.pool)
    return Pool.read(folder / "pool", recipe)


def notes(recipe: Recipe, criterion: Criterion, *, autocast: bool) -> list[str]:
    """Lines to print before a run: what about it may surprise, and its precision."""
    lines = [batch_note(recipe), *criterion.notes()]
    if not recipe.model.weights_of("image"):
        lines.append("no image_weights are named: the image encoder starts from random ones")
    if not recipe.model.weights_of("text"):
        lines.append("no text_weights are named: words start from random vectors")
    lines.append(f"precision: {'bfloat16' if autocast else 'float32'}")
    return [one for one in lines if one]


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
    """The recipe as a checkpoint states it: the names of files, but not where they lay."""
    values = recipe.flat()
    for name in Recipe.PATHS:
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
            for ``non_finite_limit`` steps in a row.
        FileNotFoundError: there is nothing to resume, or a file of the recipe is missing.
        ImportError: tensorboard is asked for and not installed.
    """
    folder = Path(folder)
    with process_group() as group:
        before = recipe_of_run(folder) if group.by_torchrun else None
        resume = resume or (before is not None and before.to_json() == recipe.to_json())
        check_run_folder(folder, resume)
        source = start_data(recipe)
        trainer = Trainer(in_steps(recipe, source), source.samples if isinstance(source, Epochs) else (), group)
        pool = pool_of(trainer, source, folder) if recipe.data.pool else None
        if resume:
            trainer.restore(folder)
        group.check_same(trainer.step)
        if group.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            clear_leftovers(folder)
            write_text(folder / "recipe.json", recipe.to_json())
            for line in [*notes(recipe, trainer.criterion, autocast=trainer.autocast), *left_out(source)]:
                tell(line)
        with Watch(folder, trainer.step, active=group.is_first, tensorboard=tensorboard) as watch:
            loop(trainer, source, watch, minutes, pool=pool)
    return folder / "checkpoint"


def recipe_of_run(folder: Path) -> Recipe | None:
    """The recipe of the run in ``folder``, where it has a state to go on from; None: it has none, or is damaged."""
    path = folder / "recipe.json"
    if not ((folder / STATE).exists() and path.is_file()):
        return None
    try:
        return recipe_of_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError):
        return None


def tell(line: str) -> None:
    """Print a line about a run on stderr, where there is one."""
    if sys.stderr is not None:
        print(f"training: {line}", file=sys.stderr, flush=True)


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

    The judge validates in the first process alone, every ``check_every`` steps.
    """
    recipe, group = trainer.recipe, trainer.group
    rules, steps = canvas_rules(trainer.model, recipe), recipe.optimiser.steps
    begun = time.monotonic()
    with progress_report("training") as report, stop_requests() as stop_asked:
        for batch in () if _is_done(judge, group) else batches(pool or source, recipe, trainer.step, rules):
            losses = trainer.train_step(batch)
            seconds = time.monotonic() - begun
            watch.losses(trainer.step, seconds, losses)
            if group.is_first:
                report(trainer.step, steps, step_note(trainer, losses))
            if trainer.skipped:
                watch.skipped(trainer.step, batch)
                check_skipped(trainer, watch.folder)
            stop, late = group.largest([stop_asked(), minutes is not None and seconds > 60 * minutes])
            last = trainer.step == steps
            judged = judge is not None and (late or last or trainer.step % recipe.run.check_every == 0)
            if stop or late or last or judged or trainer.step % recipe.run.save_every == 0:
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
    options = trainer.recipe.optimiser
    rate = options.lr * learning_rate_factor(options, trainer.step - 1)
    return f"loss {losses['loss']:.4g}, rate {rate:.2g}"


def _save(trainer: Trainer, source: BatchSource, watch: Watch, rules: CanvasRules, judge: Judge | None) -> None:
    if not watch.active:
        return
    recipe, averaged = trainer.recipe, trainer.averaged_model()
    watch.sync()
    if judge is not None:
        judge.validate(trainer.step, averaged, recipe)
    trainer.save(watch.folder, averaged)
    shown = Steps(source, recipe.replaced(images=min(recipe.data.images, SHOWN_PICTURES)), rules)[0]
    watch.draw(averaged, trainer.tokenizer, shown)


def check_skipped(trainer: Trainer, folder: Path) -> None:
    """Raise ValueError where too many steps in a row changed nothing."""
    if trainer.skipped >= trainer.recipe.run.non_finite_limit:
        raise ValueError(
            f"expected a finite loss and gradient, got others in {trainer.skipped} steps in a row up to step "
            f"{trainer.step}; look at the phrases in {str(folder / SKIPPED)!r} or lower the learning rate"
            + (", the last good state is kept" if (folder / STATE).exists() else "")
        )
