"""What a run shows: lines of metrics.jsonl, curves, predictions as pictures, skipped batches, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from deixis.drawing import Mark, draw_marks, draw_sheet
from deixis.files import atomic_write, write_text
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.base import GroundingModel
from deixis.models.criterion import bring, device_of, pixels_of
from deixis.structures import BoxXyxy, TrainingBatch
from deixis.train.curves import LOG, draw_curves, read_log
from deixis.train.state import naming

SKIPPED = "skipped.jsonl"
"""Steps that changed nothing, as their loss or gradient was not finite, with their phrases."""
SHOWN_PICTURES = 4
_TOLD_PHRASES = 3


class Watch:
    """Writes of a run what is not needed to go on with it; nothing in a process that is not the first."""

    def __init__(self, folder: Path, step: int, *, active: bool = True, tensorboard: bool = False) -> None:
        self.folder, self.active = folder, active
        self._log = None
        self._board = None
        self._said_no_charts = False
        if active:
            for name in (LOG, SKIPPED):
                forget_after(step, folder / name)
            self._log = (folder / LOG).open("a", encoding="utf-8")
            self._board = open_tensorboard(folder, step) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._log, self._board):
            if one is not None:
                with naming(self.folder / LOG):
                    one.close()

    def losses(self, step: int, seconds: float, parts: dict[str, float]) -> None:
        """Log them, flushed, so that a killed process has told them."""
        if self._log is not None:
            with naming(self.folder / LOG):
                self._log.write(log_line(step, seconds, parts))
                self._log.flush()
        if self._board is not None:
            for name, value in parts.items():
                self._board.add_scalar(name, value, step)

    def skipped(self, step: int, batch: TrainingBatch) -> None:
        """Tell on which pictures and phrases a step was not finite; all of them go into skipped.jsonl."""
        if not self.active:
            return
        line = json.dumps({"step": step, "pictures": phrases_by_picture(batch)})
        with naming(self.folder / SKIPPED), (self.folder / SKIPPED).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        if sys.stderr is not None:
            some = ", ".join(repr(phrase) for phrase in batch.phrases[:_TOLD_PHRASES])
            more = f" and {len(batch.phrases) - _TOLD_PHRASES} more" if len(batch.phrases) > _TOLD_PHRASES else ""
            print(
                f"training: loss or gradient of step {step} is not finite, so it changed nothing; its phrases, in "
                f"{SKIPPED}: {some}{more}",
                file=sys.stderr,
                flush=True,
            )

    def sync(self) -> None:
        """Bring the log onto the disk, before a state that follows from it."""
        if self._log is not None:
            with naming(self.folder / LOG):
                os.fsync(self._log.fileno())

    def draw(self, model: GroundingModel, tokenizer: PhraseTokenizer, batch: TrainingBatch) -> None:
        """Write curves.png, and samples.png of what the model in eval mode says of a few training pictures."""
        if not self.active:
            return
        self._draw_curves()
        write_picture(self.folder / "samples.png", draw_predictions(model, tokenizer, batch))

    def _draw_curves(self) -> None:
        """Write curves.png where there is something to draw; without matplotlib say once that it is missing."""
        try:
            drawn = draw_curves({"": read_log(self.folder).curves})  # of one run no name is needed
        except ImportError as error:
            if not self._said_no_charts and sys.stderr is not None:
                print(f"training: no curves.png: {error}", file=sys.stderr, flush=True)
            self._said_no_charts = True
        except (ValueError, FileNotFoundError):
            return  # not one step is finite or can be read
        else:
            write_picture(self.folder / "curves.png", drawn)


def log_line(step: int, seconds: float, parts: dict[str, float]) -> str:
    """One line of metrics.jsonl; a loss that is not finite becomes null, as JSON has no word for it."""
    finite = {name: value if math.isfinite(value) else None for name, value in parts.items()}
    return json.dumps({"step": step, "seconds": round(seconds, 1), **finite}, allow_nan=False) + "\n"


def forget_after(step: int, log: Path) -> None:
    """Drop the lines of steps that a resumed run does again, and one that was cut off while it was written."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        row = parse_step(line)
        if line.endswith("}\n") and row is not None and row <= step:
            kept.append(line)
    write_text(log, "".join(kept))


def parse_step(line: str) -> int | None:
    """The step of a line of a log; None where it is no line of one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if type(step) is int else None


def phrases_by_picture(batch: TrainingBatch) -> list[list[str]]:
    """The phrases of each picture of the batch, by its place in it."""
    pictures: list[list[str]] = [[] for _ in batch.pixels]
    for phrase, index in zip(batch.phrases, batch.image_index, strict=True):
        pictures[index].append(phrase)
    return pictures


def write_picture(path: Path, picture: Image.Image) -> None:
    """As PNG, whole or not at all."""
    with atomic_write(path) as file:
        picture.save(file, "PNG")


@torch.no_grad()
def draw_predictions(model: GroundingModel, tokenizer: PhraseTokenizer, batch: TrainingBatch) -> Image.Image:
    """The canvases of a batch with its phrases: what the model in eval mode says, and the truth.

    Each picture shows its first phrase.
    """
    ids, valid = tokenizer.encode(batch.phrases)
    device = device_of(model)
    scene = model.encode_image(pixels_of(batch, device), bring(batch.content, device))
    rows = bring(batch.image_index, device)
    answer = model.answer(scene.pick(rows), bring(ids, device), bring(valid, device))
    boxes = None if answer.boxes is None else answer.boxes.float().cpu().numpy()
    masks = None if answer.mask_probability is None else answer.mask_probability.float().cpu().numpy()
    side = batch.pixels.shape[1]
    pictures = []
    for index, image in enumerate(batch.pixels):
        (mine, *_) = np.flatnonzero(batch.image_index == index)
        said = Mark(
            text=batch.phrases[mine],
            box_xyxy_px=None if boxes is None else _in_pixels(boxes[mine], side),
            mask=None if masks is None else grown(masks[mine] > 0.5, side),
        )
        box = _in_pixels(batch.boxes[mine], side) if batch.present[mine] else None
        pictures.append(draw_marks(image, [said, Mark(text="truth" if box else "nothing is meant", box_xyxy_px=box)]))
    return draw_sheet(pictures, columns=2)


def _in_pixels(box: np.ndarray, side: int) -> BoxXyxy:
    x0, y0, x1, y1 = (float(value) * side for value in box)
    return x0, y0, x1, y1


def grown(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask [s, s] on a canvas of that side, a multiple of s."""
    times = side // len(mask)
    return mask.repeat(times, 0).repeat(times, 1)


def open_tensorboard(folder: Path, step: int) -> Any:  # noqa: ANN401  of a package that may not be there
    """A writer into ``folder``/tensorboard that goes on after ``step``.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "expected the package tensorboard for --tensorboard, found none; pip install 'deixis[tensorboard]', or "
            "leave the option out"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
