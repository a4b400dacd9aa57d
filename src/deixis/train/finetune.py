"""Fine-tune a checkpoint on own data until a validation part, of which no image is trained on, gets no better."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deixis.data import open_dataset, parse_dataset_spec
from deixis.data.formats.jsonl import write_jsonl
from deixis.data.scenes import open_scenes
from deixis.evaluate.metrics import Tally
from deixis.files import write_text
from deixis.geometry.images import image_hw
from deixis.grounder import Grounder, canvas_side
from deixis.hub import Checkpoint, load_checkpoint, save_checkpoint
from deixis.models.base import GroundingModel
from deixis.recipe import Recipe
from deixis.structures import Sample
from deixis.train.distributed import Group, process_group
from deixis.train.run_logging import Watch
from deixis.train.setup import in_steps, start_data
from deixis.train.state import check_run_folder, clear_leftovers
from deixis.train.trainer import Trainer, loop, notes, recipe_of_run, recorded, tell

Measure = Callable[[Grounder, Sequence[Sample]], Tally]
"""The evaluator: it asks a grounder for all samples and counts what is right."""

ROUNDS = "looks.jsonl"
"""The figures of the validation part, a line a round."""
TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
"""Files of a run's folder with the two parts of its data."""
_VALIDATION_SHARE = 0.2
_MEASURED_IMAGES = 50
"""Images whose sizes decide the canvas."""
BEST = "best"
"""The checkpoint of the best round."""
MOST_PHRASES = 120
"""Of the validation part that a round asks."""
KEPT_SCENES = 80
MOST_LOST = 0.02
"""Of Acc@0.5 on drawn scenes, where they are rehearsed: above it, old weights are mixed in."""
OLD_SHARES = (0.15, 0.3, 0.5)
_KEPT_SEED = 1
_SETTLED = ("phrased", "validation", "root", "model", "image_sizes")
"""Fields that a run changes when it starts."""
_FIGURES = ("rec.acc@0.5", "rec.mean_iou", "res.miou", "res.acc@0.5")


@dataclass(frozen=True, kw_only=True)
class ValidationRound:
    """What the averaged weights of a step achieve."""

    step: int
    figures: dict[str, float]
    """Of the validation part, by metric, as far as the model gives boxes and masks."""
    kept: float | None = None
    """Acc@0.5 on drawn scenes, where they are rehearsed."""

    @property
    def goodness(self) -> float:
        """The mean of accuracy and mean IoUs, which differs between steps even where the part is small."""
        known = dict(self.figures)
        if "rec.acc@0.5" in known:
            known.pop("res.acc@0.5", None)
        return sum(known.values()) / len(known)


@dataclass
class Validation:
    """All validation rounds of a run and the files that they leave."""

    folder: Path
    samples: Sequence[Sample]
    kept_samples: Sequence[Sample]
    measure: Measure
    start: Checkpoint
    patience: int
    rounds: list[ValidationRound] = field(default_factory=list)

    def read(self, step: int) -> None:
        """Read the rounds of a run that is resumed at ``step``; later ones are repeated."""
        path = self.folder / ROUNDS
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rounds = [one for one in (ValidationRound(**json.loads(line)) for line in lines) if one.step <= step]

    def validate(self, step: int, averaged: GroundingModel, recipe: Recipe) -> None:
        """Measure a model, in eval mode, and keep it where it is the best so far."""
        if any(one.step == step for one in self.rounds):
            return
        latest = self._measured(step, averaged)
        if not self.rounds or latest.goodness > self.best.goodness:
            self._save(averaged, recipe, self.folder / BEST)
        self.rounds.append(latest)
        write_text(self.folder / ROUNDS, "".join(json.dumps(asdict(one)) + "\n" for one in self.rounds))
        tell(summary(latest))

    def _measured(self, step: int, model: GroundingModel) -> ValidationRound:
        grounder = Grounder(replace(self.start, model=copy.deepcopy(model).cpu()))
        tally = self.measure(grounder, self.samples)
        figures = {name: value for name in _FIGURES if (value := tally.value(name)) is not None}
        kept = None
        if self.kept_samples:
            own = self.measure(grounder, self.kept_samples)
            kept = next((v for n in ("rec.acc@0.5", "res.acc@0.5") if (v := own.value(n)) is not None), None)
        return ValidationRound(step=step, figures=figures, kept=kept)

    @property
    def best(self) -> ValidationRound:
        """The first of the best ones."""
        return max(self.rounds, key=lambda one: one.goodness)

    def is_done(self) -> bool:
        """Whether the last ``patience`` rounds brought nothing better."""
        return len(self.rounds) - 1 - self.rounds.index(self.best) >= self.patience

    def finish(self, recipe: Recipe) -> ValidationRound:
        """Make the best round's weights the run's checkpoint, mixed with the old ones where too much was lost."""
        model, final = load_checkpoint(self.folder / BEST).model, self.best
        new = model
        for share in OLD_SHARES:
            if not self._lost_too_much(final):
                break
            model = mixed(self.start.model, new, share)
            final = self._measured(self.best.step, model)
        self._save(model, recipe, self.folder / "checkpoint")
        return final

    def _lost_too_much(self, one: ValidationRound) -> bool:
        before = self.rounds[0].kept
        return before is not None and one.kept is not None and one.kept < before - MOST_LOST

    def _save(self, model: GroundingModel, recipe: Recipe, folder: Path) -> None:
        save_checkpoint(
            folder,
            model,
            self.start.tokenizer,
            name=recipe.model.preset,
            recipe=recorded(recipe),
            calibration=self.start.calibration,
        )


def summary(one: ValidationRound) -> str:
    """A round in one line."""
    figures = ", ".join(f"{name} {100 * value:.1f}" for name, value in one.figures.items())
    kept = "" if one.kept is None else f"; drawn scenes {100 * one.kept:.1f}"
    return f"step {one.step}, validation: {figures}{kept}"


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
        folder: gets what `deixis.train.trainer.run` writes, both parts of the data, and `ROUNDS`.
        measure: the evaluator.
        named: fields that stay as they are. Canvas and name of the model else follow the data and the checkpoint.
        resume: continue from state.pt in ``folder``.
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
        validation = _validation(recipe, folder, measure, start)
        validation.read(trainer.step)
        with Watch(folder, trainer.step, active=group.is_first, tensorboard=tensorboard) as watch:
            if group.is_first:
                validation.validate(0, start.model, recipe)
            loop(trainer, source, watch, minutes, validation)
        if group.is_first:
            validation.finish(trainer.recipe)
    return folder / "checkpoint"


def _settle(recipe: Recipe, folder: Path, start: Checkpoint, named: frozenset[str], group: Group) -> Recipe:
    """The recipe with what follows from the checkpoint and the images; the first process writes the two parts."""
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


def _validation(recipe: Recipe, folder: Path, measure: Measure, start: Checkpoint) -> Validation:
    chosen: list[Sample] = []
    for sample in open_dataset(folder / VALIDATION):
        if len(chosen) >= MOST_PHRASES and sample.image_id != chosen[-1].image_id:
            break
        chosen.append(sample)
    kept: Sequence[Sample] = ()
    if recipe.data.rehearsal:
        kept = open_scenes(recipe.data.flavour or "scenes", "train", KEPT_SCENES, seed=_KEPT_SEED)
    return Validation(folder, chosen, kept, measure, start, recipe.run.patience)


def write_parts(recipe: Recipe, folder: Path) -> list[str]:
    """Write `TRAIN` and `VALIDATION` into a folder that is there.

    Where ``validation`` is empty, lines of the split ``val`` are the validation part; where there are none, one
    image in five, drawn by the recipe's seed, with all of its phrases.

    Returns:
        A sentence on what was left out, and one on images that are in both parts.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: there is nothing to train on or to validate with.
    """
    samples, notes = _open_part(recipe.data.phrased, recipe, "train")
    if recipe.run.validation:
        held, more = _open_part(recipe.run.validation, recipe, None)
        notes = [*notes, *more]
    else:
        held = [one for one in samples if one.split == "val"]
    train = [one for one in samples if one.split in ("", "train")]
    if others := len(samples) - len(train) - (0 if recipe.run.validation else len(held)):
        notes.append(f"{others} lines of {recipe.data.phrased!r} are of other splits than 'train' and left out")
    if not held and not recipe.run.validation:
        train, held = split_by_image(train, recipe.run.seed, recipe.data.phrased)
    for part, name in ((train, recipe.data.phrased), (held, recipe.run.validation or recipe.data.phrased)):
        _check_boxes(part, name)
    if both := {image_key(one) for one in train} & {image_key(one) for one in held}:
        notes.append(
            f"{len(both)} images of {recipe.run.validation or recipe.data.phrased!r} are trained on too, so its "
            "figures are too good"
        )
    write_jsonl(folder / TRAIN, [replace(one, split="train") for one in train])
    write_jsonl(folder / VALIDATION, [replace(one, split="val") for one in held])
    return notes


def _open_part(spec: str, recipe: Recipe, default: str | None) -> tuple[list[Sample], list[str]]:
    """Samples and what is wrong with others; they keep their split only where a JSONL file was opened as a whole."""
    name, split = parse_dataset_spec(spec)
    is_whole = split is None and Path(name).suffix.lower() == ".jsonl"
    samples = open_dataset(name, split=None if is_whole else split or default, root=recipe.data.root or None)
    problems: list[str] = list(samples.problems)
    ours = list(samples) if is_whole else [replace(one, split="") for one in samples]
    if not ours:
        raise ValueError(f"expected phrases to learn from in {spec!r}, got none; add lines")
    return ours, problems


def _check_boxes(part: Sequence[Sample], name: str) -> None:
    if not part:
        raise ValueError(f"expected phrases of the split 'train', or of none, in {name!r}, got others; name FILE:SPLIT")
    if all(one.box_xyxy_px is None for one in part):
        raise ValueError(
            f"expected phrases with a box in {name!r}, got {len(part)} without one; add the boxes that they mean"
        )


def image_key(sample: Sample) -> str:
    """Equal for two samples of one image: its file."""
    return os.path.abspath(sample.image) if isinstance(sample.image, Path) else sample.image_id


def split_by_image(samples: Sequence[Sample], seed: int, name: str) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on and to validate with, in the order that the seed gives to the images.

    Only what has a box counts as an image to choose from: a part of phrases without any could not be measured.

    Raises:
        ValueError: there is only one image.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(image_key(sample), []).append(sample)
    keys = sorted(key for key, group in groups.items() if any(one.box_xyxy_px is not None for one in group))
    if len(keys) < 2:
        _check_boxes(samples, name)
        raise ValueError(
            f"expected two or more images with boxes in {name!r}, so that one is kept for validation, got {len(keys)}; "
            "add images, or name a file with --val"
        )
    order = [keys[index] for index in np.random.default_rng(seed).permutation(len(keys))]
    held = set(order[: max(1, round(_VALIDATION_SHARE * len(order)))])
    others = [key for key in groups if key not in held]
    return (
        [sample for key in others for sample in groups[key]],
        [sample for key in order if key in held for sample in groups[key]],
    )


def canvas_for(samples: Sequence[Sample], largest: int) -> int:
    """The side of the canvas that a model with an adaptive one would take for the image of median size.

    Raises:
        ValueError: none of the first images can be read.
    """
    sides, problem = [], ""
    for path in list(dict.fromkeys(one.image for one in samples if isinstance(one.image, Path)))[:_MEASURED_IMAGES]:
        try:
            sides.append(canvas_side(image_hw(path), largest))
        except (OSError, ValueError) as error:
            problem = str(error)
    if not sides:
        raise ValueError(f"expected images that can be read, got none of the first ({problem}); check their paths")
    return sorted(sides)[len(sides) // 2]
