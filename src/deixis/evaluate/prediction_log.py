"""``predictions.jsonl``: every sample's answer and what it got, a line each, written as it comes and read to go on.

The lines hold all that the figures are made of, so that they can be computed anew without the model, and the mask as
COCO run lengths, so that the file can be scored by ``deixis score`` and drawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from deixis.data.annotation_fields import four_numbers, parse_json
from deixis.evaluate.metrics import SampleScore
from deixis.files import atomic_write
from deixis.structures import BoxXyxy, Rle


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """The answer to a phrase of another image, which surely means nothing in this one."""

    phrase: str
    score: float
    agreement: float
    found: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the model said to one sample, and how right it was."""

    id: str
    image_id: str
    phrase: str
    box: BoxXyxy | None
    score: float
    agreement: float
    found: bool
    iou: float | None
    """IoU of the boxes; None where the phrase means nothing in the image."""
    mask_iou: float | None
    """IoU of the masks; None where the data has none."""
    index: int = 0
    """The sample's place in the data set."""
    hw: tuple[int, int] = (0, 0)
    """(height, width) of the image."""
    target_box: BoxXyxy | None = None
    """As far as it lies in the image; None where the phrase means nothing in it."""
    intersection_px: int | None = None
    union_px: int | None = None
    target_px: int | None = None
    """The area of the target's mask."""
    shown_px: int | None = None
    """The area of the mask that the model gives, where the phrase means nothing."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """In which part of each of `deixis.evaluate.metrics.slices.SLICES` it is."""
    absent: Absent | None = None

    def sample_score(self) -> SampleScore:
        """What the metrics need of it."""
        means_nothing = self.target_box is None
        return SampleScore(
            box_iou=self.iou,
            mask_intersection_px=self.intersection_px,
            mask_union_px=self.union_px,
            no_target_right=not self.found if means_nothing else None,
            found=None if means_nothing else self.found,
            target_px=self.target_px,
            shown_px=self.shown_px,
        )


class Logged(NamedTuple):
    """One line."""

    prediction: Prediction
    mask: Rle | None
    """The model's mask; None where it gives none, or nobody asked to keep it."""


class PredictionLog:
    """A file to append to. What it holds already is ``known``, by the samples' indices; use it in a ``with``.

    A last line that was cut, and lines that cannot be read, are dropped: their samples are to be asked anew.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.known: dict[int, Prediction] = {}
        self._places: dict[int, tuple[int, int]] = {}
        if resume and path.is_file():
            self._read()
        else:
            path.write_bytes(b"")
        self._file = path.open("r+b")
        self._file.seek(0, 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing can be appended afterwards; masks can still be read."""
        self._file.close()

    def append(self, lines: Iterable[Logged]) -> None:
        """Write some lines at once and hand them to the system, so that they outlast this process."""
        try:
            for one in lines:
                text = (json.dumps(line_of(one), allow_nan=False) + "\n").encode()
                self._places[one.prediction.index] = self._file.tell(), len(text)
                self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error  # a full disk names no file

    def finish(self, order: Sequence[int]) -> None:
        """Close, and bring the lines of these samples into this order, whole or not at all; others are dropped."""
        self.close()
        places: dict[int, tuple[int, int]] = {}
        with self.path.open("rb") as source, atomic_write(self.path) as target:
            for index in order:
                start, length = self._places[index]
                source.seek(start)
                places[index] = target.tell(), length
                target.write(source.read(length))
        self._places = places

    def masks(self, indices: Iterable[int]) -> dict[int, Rle | None]:
        """The masks that the model gave to these samples."""
        found: dict[int, Rle | None] = {}
        with self.path.open("rb") as source:
            for index in indices:
                start, length = self._places[index]
                source.seek(start)
                record = cast(dict[str, Any], parse_json(source.read(length).decode()))
                found[index] = cast("Rle | None", record.get("mask"))
        return found

    def _read(self) -> None:
        start = 0
        with self.path.open("rb") as lines:
            for raw in lines:
                if not raw.endswith(b"\n"):
                    break
                try:
                    prediction = prediction_of(parse_json(raw.decode("utf-8")))
                    self.known[prediction.index] = prediction
                    self._places[prediction.index] = start, len(raw)
                except ValueError:
                    pass  # its sample is asked anew
                start += len(raw)
        with self.path.open("r+b") as file:
            file.truncate(start)


def line_of(one: Logged) -> dict[str, Any]:
    """One line as plain values for JSON."""
    record = asdict(one.prediction)
    box = record.pop("box")
    ids = {key: record.pop(key) for key in ("id", "image_id", "phrase")}
    return {**ids, "box": box, "mask": one.mask, **record}


def prediction_of(record: object) -> Prediction:
    """A line's prediction. Raises ValueError where it is none."""
    if not isinstance(record, dict):
        raise ValueError("expected a JSON object, got something else; drop the line")
    known = cast(dict[str, Any], record)
    try:
        values = {one.name: known[one.name] for one in fields(Prediction)}
        absent = values["absent"]
        values["absent"] = None if absent is None else Absent(**absent)
        for name in ("box", "target_box"):
            values[name] = None if values[name] is None else four_numbers(values[name], "a box")
        height, width = values["hw"]
        values["hw"] = int(height), int(width)
        values["labels"] = {str(key): str(value) for key, value in values["labels"].items()}
        _check(values)
        return Prediction(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a line of predictions, got another form ({error}); drop it") from None


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "image_id", "phrase"), (str,)),
    **dict.fromkeys(("score", "agreement"), (int, float)),
    **dict.fromkeys(("iou", "mask_iou"), (int, float, type(None))),
    **dict.fromkeys(("intersection_px", "union_px", "target_px", "shown_px"), (int, type(None))),
    "found": (bool,),
    "index": (int,),
}


def _check(values: Mapping[str, object]) -> None:
    for name, kinds in _KINDS.items():
        if not isinstance(values[name], kinds):
            raise TypeError(f"{name} is {values[name]!r:.80}")
