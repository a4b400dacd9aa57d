"""Teach a checkpoint own data, and stop where a part of it that is not trained on gets no better."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from deixis.data import open_dataset
from deixis.data.scenes import open_scenes
from deixis.evaluate.metrics import Tally
from deixis.files import write_text
from deixis.grounder import Grounder
from deixis.hub import Checkpoint, load_checkpoint, save_checkpoint
from deixis.models.base import GroundingModel
from deixis.recipe import Recipe
from deixis.structures import Sample
from deixis.train.distributed import Group, process_group
from deixis.train.own_data import TRAIN, VALIDATION, canvas_for, write_parts
from deixis.train.run_logging import Watch
from deixis.train.setup import in_steps, start_data
from deixis.train.state import check_run_folder, clear_leftovers
from deixis.train.trainer import Trainer, loop, notes, recipe_of_run, recorded, tell

Measure = Callable[[Grounder, Sequence[Sample]], Tally]
"""Asks a grounder all samples and counts: the evaluator, which stands beside training and not below it."""

LOOKS = "looks.jsonl"
"""What the validation part gave, a line a look."""
BEST = "best"
"""The checkpoint of the best look."""
MOST_PHRASES = 120
"""Of the validation part that a look asks."""
KEPT_SCENES = 80
MOST_LOST = 0.02
"""Of Acc@0.5 on drawn scenes, where they are rehearsed: above it, old weights are mixed in."""
OLD_SHARES = (0.15, 0.3, 0.5)
_KEPT_SEED = 1
_SETTLED = ("phrased", "validation", "root", "model", "image_sizes")
"""Fields that a run changes when it starts."""
_FIGURES = ("rec.acc@0.5", "rec.mean_iou", "res.miou", "res.acc@0.5")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the averaged weights of a step give."""

    step: int
    figures: dict[str, float]
    """Of the validation part, by metric, as far as the model gives boxes and masks."""
    kept: float | None = None
    """Acc@0.5 on drawn scenes, where they are rehearsed."""

    @property
    def goodness(self) -> float:
        """The mean of accuracy and mean IoUs, so that a small part still tells steps apart."""
        known = dict(self.figures)
        if "rec.acc@0.5" in known:
            known.pop("res.acc@0.5", None)
        return sum(known.values()) / len(known)


@dataclass
class Looks:
    """All looks of a run and the files that they leave."""

    folder: Path
    samples: Sequence[Sample]
    kept_samples: Sequence[Sample]
    measure: Measure
    start: Checkpoint
    patience: int
    done: list[Look] = field(default_factory=list)

    def read(self, step: int) -> None:
        """Take up the looks of a run that goes on from ``step``; later ones are made again."""
        path = self.folder / LOOKS
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.done = [one for one in (Look(**json.loads(line)) for line in lines) if one.step <= step]

    def look(self, step: int, averaged: GroundingModel, recipe: Recipe) -> None:
        """Measure a model, in eval mode, and keep it where it is the best so far."""
        if any(one.step == step for one in self.done):
            return
        look = self._measured(step, averaged)
        if not self.done or look.goodness > self.best.goodness:
            self._save(averaged, recipe, self.folder / BEST)
        self.done.append(look)
        write_text(self.folder / LOOKS, "".join(json.dumps(asdict(one)) + "\n" for one in self.done))
        tell(told(look))

    def _measured(self, step: int, model: GroundingModel) -> Look:
        grounder = Grounder(replace(self.start, model=copy.deepcopy(model).cpu()))
        tally = self.measure(grounder, self.samples)
        figures = {name: value for name in _FIGURES if (value := tally.value(name)) is not None}
        kept = None
        if self.kept_samples:
            own = self.measure(grounder, self.kept_samples)
            kept = next((v for n in ("rec.acc@0.5", "res.acc@0.5") if (v := own.value(n)) is not None), None)
        return Look(step=step, figures=figures, kept=kept)

    @property
    def best(self) -> Look:
        """The first of the best ones."""
        return max(self.done, key=lambda look: look.goodness)

    def is_done(self) -> bool:
        """Whether the last ``patience`` looks gave nothing better."""
        return len(self.done) - 1 - self.done.index(self.best) >= self.patience

    def finish(self, recipe: Recipe) -> Look:
        """Make the best look's weights the run's checkpoint, mixed with the old ones where too much was lost."""
        model, final = load_checkpoint(self.folder / BEST).model, self.best
        new = model
        for share in OLD_SHARES:
            if not self._lost_too_much(final):
                break
            model = mixed(self.start.model, new, share)
            final = self._measured(self.best.step, model)
        self._save(model, recipe, self.folder / "checkpoint")
        return final

    def _lost_too_much(self, look: Look) -> bool:
        before = self.done[0].kept
        return before is not None and look.kept is not None and look.kept < before - MOST_LOST

    def _save(self, model: GroundingModel, recipe: Recipe, folder: Path) -> None:
        save_checkpoint(
            folder,
            model,
            self.start.tokenizer,
            name=recipe.model.preset,
            recipe=recorded(recipe),
            calibration=self.start.calibration,
        )


def told(look: Look) -> str:
    """A look in one line."""
    figures = ", ".join(f"{name} {100 * value:.1f}" for name, value in look.figures.items())
    kept = "" if look.kept is None else f"; drawn scenes {100 * look.kept:.1f}"
    return f"step {look.step}, validation: {figures}{kept}"


def mixed(old: GroundingModel, new: GroundingModel, share: float) -> GroundingModel:
    """A copy of ``new`` with ``share`` of the old weights: WiSE-FT (Wortsman et al., CVPR 2022), Eq. 1."""
    result = copy.deepcopy(new)
    before = old.state_dict()
    with torch.no_grad():
        for name, value in result.state_dict().items():
            if value.is_floating_point():
                value.lerp_(before[name].to(value), share)
    return result.eval()


def finetune(
    recipe: Recipe,
    folder: str | Path,
    *,
    measure: Measure,
    named: frozenset[str] = frozenset(),
    resume: bool = False,
    minutes: float | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train from a checkpoint on own data and leave the best state in ``folder``/checkpoint.

    Ctrl-C and SIGTERM end the step, save, and raise KeyboardInterrupt; call it from the main thread.

    Args:
        recipe: with ``start``, ``phrased`` and ``check_every``.
        folder: gets what `deixis.train.trainer.run` writes, both parts of the data, and `LOOKS`.
        measure: the evaluator.
        named: fields that stay as they are; canvas and name of the model follow the data and the checkpoint else.
        resume: go on from state.pt in ``folder``.
        minutes: stop after so long, with the best state so far; the run can be resumed.
        tensorboard: write events into ``folder``/tensorboard too.

    Returns:
        The checkpoint's folder.

    Raises:
        FileNotFoundError: there is nothing to resume, or the checkpoint or a file of the data is not there.
        ValueError: ``folder`` holds another run, or nothing can be learnt from the data.
    """
    folder = Path(folder)
    with process_group() as group:
        if group.by_torchrun and not resume and (settled := _settled_before(recipe, folder)) is not None:
            recipe, resume = settled, True
        check_run_folder(folder, resume)
        start = load_checkpoint(recipe.model.start)
        if not resume:
            recipe = _settle(recipe, folder, start, named, group)
        recipe = recipe.replaced(phrased=str(folder / TRAIN), validation=str(folder / VALIDATION), root="")
        source = start_data(recipe)
        trainer = Trainer(in_steps(recipe, source), (), group)
        if resume:
            trainer.restore(folder)
        group.check_same(trainer.step)
        if group.is_first:
            clear_leftovers(folder)
            write_text(folder / "recipe.json", recipe.to_json())
            for line in notes(recipe, trainer.criterion, autocast=trainer.autocast):
                tell(line)
        looks = _looks(recipe, folder, measure, start)
        looks.read(trainer.step)
        with Watch(folder, trainer.step, active=group.is_first, tensorboard=tensorboard) as watch:
            if group.is_first:
                looks.look(0, start.model, recipe)
            loop(trainer, source, watch, minutes, looks)
        if group.is_first:
            looks.finish(trainer.recipe)
    return folder / "checkpoint"


def _settle(recipe: Recipe, folder: Path, start: Checkpoint, named: frozenset[str], group: Group) -> Recipe:
    """The recipe as the checkpoint and the data's pictures want it, and the two parts written by the first process."""
    if group.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        for sentence in write_parts(recipe, folder):
            tell(sentence)
    group.largest([0.0])  # all wait until the parts are there
    values: dict[str, Any] = {}
    if "model" not in named:
        values["model"] = start.name if start.name.endswith("-finetuned") else f"{start.name}-finetuned"
    if "image_sizes" not in named:
        largest = start.model.config.image_size
        fitting = canvas_for(open_dataset(folder / TRAIN), largest)
        values["image_sizes"] = (fitting if start.model.adapts_canvas else largest,)
    return recipe.replaced(**values)


def _settled_before(recipe: Recipe, folder: Path) -> Recipe | None:
    """The settled recipe of a run with a state in ``folder`` that was started by ``recipe``; None: there is none."""
    settled = recipe_of_run(folder)
    if settled is None:
        return None
    asked = {name: recipe.get(name) for name in _SETTLED}
    return settled if settled.replaced(**asked).to_json() == recipe.to_json() else None


def _looks(recipe: Recipe, folder: Path, measure: Measure, start: Checkpoint) -> Looks:
    chosen: list[Sample] = []
    for sample in open_dataset(folder / VALIDATION):
        if len(chosen) >= MOST_PHRASES and sample.image_id != chosen[-1].image_id:
            break
        chosen.append(sample)
    kept: Sequence[Sample] = ()
    if recipe.data.rehearsal:
        kept = open_scenes(recipe.data.flavour or "scenes", "train", KEPT_SCENES, seed=_KEPT_SEED)
    return Looks(folder, chosen, kept, measure, start, recipe.run.patience)
