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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deixis import losses
from deixis.data.loading import Mixture, TrainingBatch
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.deixis import DeixisModel, Output, cell_centres, grid_positions
from deixis.progress import progress_report
from deixis.train.recipes import Recipe
from deixis.train.starting import start_data, start_model

_UNFIT = (RuntimeError, OSError, EOFError, pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a training state raises where it is damaged or another model's."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Steps(Dataset[TrainingBatch]):
    """Batch number i for any i: what workers read from."""

    def __init__(self, mixture: Mixture, recipe: Recipe) -> None:
        self.mixture, self.recipe = mixture, recipe

    def __getitem__(self, step: int) -> TrainingBatch:
        """The batch of that step."""
        r = self.recipe
        size = random.Random(r.seed * 1_000_003 + step).choice(r.image_sizes)
        return self.mixture.batch(r.seed, step, images=r.images, phrases=r.phrases, size=size, absent=r.absent)


class Trainer:
    """Holds all that a run changes: model, averaged weights, optimiser, step."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.model, self.tokenizer = start_model(recipe)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, recipe), fused=True)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.step = 0

    def train_step(self, batch: TrainingBatch) -> dict[str, float]:
        """One update; returns the named, unweighted losses.

        A step whose loss or gradient is not finite changes nothing.
        """
        set_learning_rate(self.optimiser, self.recipe, self.step)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            parts = batch_losses(self.model, self.tokenizer, batch)
        weights = loss_weights(self.recipe)
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        if torch.isfinite(total):
            total.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            if torch.isfinite(norm):
                self.optimiser.step()
                self._update_average()
        self.step += 1
        return {"loss": total.item()} | {name: value.item() for name, value in parts.items()}

    def _update_average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self.average[name].lerp_(parameter.detach(), 1 - decay)

    def averaged_model(self) -> DeixisModel:
        """A copy of the model with the averaged weights, in eval mode."""
        averaged = copy.deepcopy(self.model)  # building a new one would draw random numbers that a resumed run does not
        averaged.load_state_dict(self.average, strict=True)
        return averaged.eval()

    def save(self, folder: Path) -> None:
        """Write the training state and the checkpoint, each whole or not at all."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
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
            ValueError: it is cut off, or of another version or another model.
        """
        with (folder / "state.pt").open("rb") as file:
            self._restore_from(file)

    def _restore_from(self, file: BinaryIO) -> None:
        try:
            state = torch.load(file, weights_only=True)
            self.model.load_state_dict(state["model"])
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


def check_same_shapes(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    """Raise ValueError where names or shapes differ."""
    differing = [
        name for name in {**expected, **got}
        if name not in expected or name not in got or expected[name].shape != got[name].shape
    ]  # fmt: skip
    if differing:
        raise ValueError(f"averaged weights of other names or shapes: {differing[:5]}")


def parameter_groups(model: DeixisModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Pretrained encoders at their own rate; no weight decay on biases and norms."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            pretrained = (name.startswith("image.encoder.") and bool(recipe.image_weights or recipe.start)) or (
                name.startswith("text.bert.") and bool(recipe.text_weights or recipe.start)
            )
            groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.pretrained_lr if pretrained else recipe.lr,
            "peak_lr": recipe.pretrained_lr if pretrained else recipe.lr,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (pretrained, decays), parameters in groups.items()
    ]


def set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Linear warm-up, then half a cosine down to a hundredth."""
    progress = max(step - recipe.warmup, 0) / max(recipe.steps - recipe.warmup, 1)
    factor = min((step + 1) / max(recipe.warmup, 1), 1.0) * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    )
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


def loss_weights(recipe: Recipe) -> dict[str, float]:
    """The weight of every named loss."""
    return {
        "heat": recipe.heat_weight,
        "box": recipe.box_weight,
        "mask": recipe.mask_weight,
        "projection": recipe.projection_weight,
        "exists": recipe.exists_weight,
        "consistency": recipe.consistency_weight,
    }


def batch_losses(model: DeixisModel, tokenizer: PhraseTokenizer, batch: TrainingBatch) -> dict[str, Tensor]:
    """Forward pass and the six unweighted losses of a batch, each a mean over the phrases that it concerns."""
    ids, valid = tokenizer.encode(batch.phrases)
    pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float().div_(255)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    content, index = torch.from_numpy(batch.content), torch.from_numpy(batch.image_index)
    output = model(pixels, content, index, torch.from_numpy(ids), torch.from_numpy(valid))
    return output_losses(output, batch, content[index])


def output_losses(output: Output, batch: TrainingBatch, content: Tensor) -> dict[str, Tensor]:
    """The losses of an output; ``content`` [P, 4] is each phrase's picture on the canvas."""
    boxes, masks = torch.from_numpy(batch.boxes), torch.from_numpy(batch.masks)
    present, has_mask = torch.from_numpy(batch.present), torch.from_numpy(batch.has_mask)
    side = int(output.boxes.shape[1] ** 0.5)
    _, pixel_valid = grid_positions(content, side)
    target = losses.centre_target(cell_centres(side, boxes), boxes, pixel_valid)
    inside = grid_positions(content, masks.shape[-1])[1].view_as(masks)
    mask_known = has_mask | ~present
    return {
        "heat": mean_where(losses.heat_loss(output.heat_logits, target), present),
        "box": mean_where(losses.box_loss(output.boxes, boxes, target), present),
        "mask": mean_where(losses.mask_loss(output.mask_logits, masks, inside), mask_known),
        "projection": mean_where(losses.projection_loss(output.mask_logits, boxes), present & ~has_mask),
        "exists": F.binary_cross_entropy_with_logits(output.exists_logit, present.float()),
        "consistency": mean_where(
            losses.consistency_loss(output.mask_energy, output.mask_features, output.heat_logits, output.box_features),
            present,
        ),
    }


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of ``values`` [P] where ``chosen``; 0 where nothing is."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


def batches(recipe: Recipe, start: int) -> Iterator[TrainingBatch]:
    """All batches from step ``start`` on."""
    loader = DataLoader(
        Steps(start_data(recipe), recipe),
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
    for name in ("start", "image_weights", "text_weights", "instances", "partial_instances"):
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
    trainer = Trainer(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        trainer.restore(folder)
        forget_after(trainer.step, folder / "metrics.jsonl")
    write_whole(folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=1))
    begun = time.monotonic()
    with (
        (folder / "metrics.jsonl").open("a", encoding="utf-8") as log,
        progress_report("training") as report,
        stop_requests() as stop_asked,
    ):
        for batch in batches(recipe, trainer.step):
            parts = trainer.train_step(batch)
            seconds = time.monotonic() - begun
            log.write(log_line(trainer.step, seconds, parts))
            log.flush()
            report(trainer.step, recipe.steps)
            late = minutes is not None and seconds > 60 * minutes
            if late or stop_asked() or trainer.step % recipe.save_every == 0 or trainer.step == recipe.steps:
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
